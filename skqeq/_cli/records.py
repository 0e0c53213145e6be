"""PDB and SDF files, of which ASE's readers leave out structures, cells and charges."""

import re
from io import StringIO

from ase.data import atomic_numbers
from ase.io import read

from .._warnings import warn_once

# Charges by their codes in the lines of atoms of SDF files.
CODES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}
# Formal charge of an atom in columns 79 and 80 of PDB files.
PDB_CHARGE = re.compile("([1-9])([+-])")


def read_pdb(text):
    """Yield the structures of a PDB file, with total charges in ``info``.

    ASE gives the cell to the first model only, leaves out a last model without END, adds an empty
    model for an END after ENDMDL, and reads no charges.
    """
    lines = list(complete_pdb(text))
    charges = [0]
    for line in lines:
        if line.startswith("END"):
            charges.append(0)
        elif match := PDB_CHARGE.fullmatch(line[78:80]):
            charges[-1] += int(f"{match[2]}{match[1]}")
    X = read(StringIO("".join(lines)), ":", format="proteindatabank")
    for atoms, charge in zip(X, charges, strict=False):
        if charge:
            atoms.info["charge"] = charge
        yield atoms


def complete_pdb(text):
    """Lines of a PDB file in which every model has its cell and its end."""
    cell, started = "", False
    for i, line in enumerate(text.splitlines(keepends=True)):
        if line.startswith("CRYST1"):
            cell = line
            warn_of_space_group(line[55:66].strip())
        elif line.startswith(("ATOM", "HETATM")):
            check_pdb_element(line, i + 1)
            if not started:
                yield cell
            started = True
            yield line
        elif not line.startswith("END"):
            yield line
        elif started:
            started = False
            yield line
    if started:
        yield "\nEND\n"


def warn_of_space_group(group):
    """Warn about symmetry operations, which are not applied."""
    if group not in ("", "1", "P 1", "P1"):
        warn_once(
            f"the PDB file has the space group {group}, whose operations are not applied: its "
            "atoms are used as they are, and must be all atoms of the cell",
            kind="space group",
        )


def check_pdb_element(line, number):
    """Refuse an atom without element if its name can mean two elements.

    Names of atoms begin with the element, which ends in column 14: " CA " is carbon and "CA  " is
    calcium. ASE takes both for calcium.
    """
    name = line[12:16]
    label = re.sub("[^A-Za-z]", "", name)[:2].capitalize()
    # The names of hydrogen atoms with four letters begin one column further left.
    shifted = name[:1] == " " or (len(name.strip()) == 4 and label[:1] == "H")
    if not line[76:78].strip() and shifted and label in atomic_numbers and len(label) == 2:
        raise ValueError(
            f"line {number}: the atom {name!r} can be {label[0]} or {label}; write the symbol of "
            "its element into columns 77 and 78"
        )


def read_sdf(text):
    """Yield the structures of an SDF or mol file, with total charges in ``info``.

    ASE reads only the first structure, and no charges.
    """
    records = re.split(r"^\$\$\$\$.*\n?", text, flags=re.MULTILINE)
    for i, record in enumerate(records):
        lines = record.splitlines()
        if i > 0 and not record.strip():
            continue
        if len(lines) < 4 or "V3000" in lines[3]:
            raise ValueError(f"structure {i} is not in the format V2000 of SDF")
        atoms = read(StringIO(record), format="sdf")
        if charge := formal_charge(lines, len(atoms)):
            atoms.info["charge"] = charge
        yield atoms


def formal_charge(lines, n_atoms):
    """Sum of the formal charges of a record."""
    charges = [line.split()[4::2] for line in lines if line.startswith("M  CHG")]
    if charges:  # they replace the charges in the lines of the atoms
        return sum(int(charge) for line in charges for charge in line)
    codes = [line[36:39].strip() for line in lines[4 : 4 + n_atoms]]
    return sum(CODES.get(int(code or 0), 0) for code in codes)
