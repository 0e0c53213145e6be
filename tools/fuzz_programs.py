"""Inputs of ``tools/fuzz.py`` as other programs write them: labels, and files of other formats."""

import numpy as np

# Words before and after other keys of a comment line. They must not change what the keys hold.
WORDS = (
    *("", "Iteration 3", "an fcc lattice", "stress test", "Properties of water", "SCF Done T"),
    *("é", "by=O'Brien", "5' end", 'size=5"x', 'note="a b', "it's don't", "E(RB3LYP)=-76.4"),
    *("title=\"a 'b' c\"", "name='it is'", "xtb: 6.6.0", '"quoted key"=1', "a\\=b"),
)
# Targets, keys, texts with the place of each number, and whether the numbers are a label. "0" and
# "1" are random numbers.
LABELS = (
    ("energy", None, "energy={0}", True),
    ("energy", None, "REF_energy={0} energy=99", True),
    ("energy", None, "energy = {0} eV", True),
    ("energy", "E(DFT)", "SCF Done: E(DFT) = {0} Hartree", True),
    ("energy", None, "energy {0}", False),
    ("energy", None, 'energy="{0} kcal/mol"', False),
    ("energy", None, "energy={0}D+01", False),
    ("energy", None, "energy={0}Ha", False),
    ("energy", None, "energy=N/A", False),
    ("energy", "E", "job water E {0}", False),
    ("energy", None, "Energy={0}", False),
    ("energy", None, 'energy="{0} {1}"', False),
    ("dipole", None, 'dipole="{0} {1} {2}"', True),
    ("dipole", None, "REF_dipole='{0}\t{1}\t{2}' dipole=\"9 9 9\"", True),
    ("dipole", None, "dipole={{{0},{1},{2}}}", True),
    ("dipole", "mu", "mu=[{0}, {1}, {2}]", True),
    ("dipole", None, "dipole={0}", False),
    ("dipole", None, 'dipole="{0} {1}"', False),
    ("dipole", None, 'dipole="{0} {1} {2}D0"', False),
    ("dipole", None, 'dipole="{0} {1} ?"', False),
    ("stress", None, 'stress="{0} {5} {4} {5} {1} {3} {4} {3} {2}"', True),
    ("stress", None, 'REF_stress="{0} {5} {4} {5} {1} {3} {4} {3} {2}"', True),
    ("stress", None, 'REF_stress="{0} {1} {2} {3} {4} {5}"', True),
    ("stress", None, 'stress="{0} {1} {2} {3} {4} {5}"', False),
    ("stress", None, 'REF_stress="{0} {1} {2} {3} {4} {5} 7 8 9"', False),
    ("stress", "virial", 'virial="{0} {5} {4} {5} {1} {3} {4} {3} {2}"', False),
    ("stress", None, 'Stress="{0} {1} {2} {3} {4} {5}"', False),
)
SIZES = {"energy": 1, "dipole": 3, "stress": 6}
PDB = "{:6s}{:5d}  {:<3s} HOH A   1    {:8.3f}{:8.3f}{:8.3f}  1.00  0.00          {:>2s}{:2s}\n"
ANISOU = "ANISOU    1  O   HOH A   1     2406   1892   1614    198    519   -328       O\n"
CRYST1 = "CRYST1{:9.3f}{:9.3f}{:9.3f}  90.00  90.00  90.00 P 1           1\n"


def label(rng):
    """A label in a comment line: target, key, text, and the right value or None for a refusal."""
    target, key, text, valid = LABELS[rng.integers(len(LABELS))]
    numbers = rng.uniform(0.1, 3.0, 6).round(4) * rng.choice([-1, 1], 6)
    text = text.format(*(f"{x:.4f}" for x in numbers))
    return target, key, text, numbers[: SIZES[target]] if valid else None


def pdb(rng, X):
    """A PDB file of several molecules with formal charges."""
    text = "REMARK made by a program\n" if rng.integers(2) else ""
    numbered = rng.integers(2)
    for i, atoms in enumerate(X, 1):
        text += f"MODEL     {i:4d}\n" if numbered else ""
        charge = int(atoms.info.get("charge", 0))
        place = int(rng.integers(len(atoms)))
        record = str(rng.choice(["ATOM", "HETATM"]))
        for k, (symbol, r) in enumerate(zip(atoms.symbols, atoms.positions, strict=True)):
            sign = "-" if charge < 0 else "+"
            formal = f"{abs(charge)}{sign}" if charge and k == place else ""
            text += PDB.format(record, k + 1, symbol, *r, symbol, formal)
            text += ANISOU if rng.integers(4) == 0 else ""
        text += "TER\n" if rng.integers(2) else ""
        text += "ENDMDL\n" if numbered else "END\n"
    return "x.pdb", text + ("CONECT    1    2    3\nEND\n" if numbered and rng.integers(2) else "")


def poscar(rng, atoms):
    """A POSCAR file of a crystal or of a slab, which becomes a crystal."""
    factor = float(rng.choice([1.0, 2.0, 0.5]))
    cell = atoms.cell.array / factor
    first = f"{factor}" if rng.integers(2) else f"{-atoms.get_volume():.10f}"
    order = np.argsort(atoms.numbers, kind="stable")
    symbols = [atoms.symbols[i] for i in order]
    names = list(dict.fromkeys(symbols))
    shown = [name + str(rng.choice(["", "_s", "/3f2a"])) for name in names]
    direct = rng.integers(2)
    values = atoms.get_scaled_positions(wrap=False) if direct else atoms.positions / factor
    selective = rng.integers(2)
    flags = " T F T" if selective else ""
    lines = [
        "made by a program",
        first,
        *(" ".join(f"{x:.12f}" for x in vector) for vector in cell),
        " ".join(shown),
        " ".join(str(symbols.count(name)) for name in names),
        *(["Selective dynamics"] if selective else []),
        str(rng.choice(["Direct", "d"] if direct else ["Cartesian", "k"])),
        *(" ".join(f"{x:.12f}" for x in values[i]) + flags for i in order),
        *(["", *["0.0 0.1 0.2"] * len(atoms)] if rng.integers(2) else []),
    ]
    return str(rng.choice(["POSCAR", "CONTCAR", "x.poscar"])), "\n".join([*lines, ""]), order


def cif(rng, atoms):
    """A CIF file of a crystal with right angles."""
    lengths, deviation = atoms.cell.lengths(), "(3)" if rng.integers(2) else ""
    head = "data_x\n" + "".join(
        f"_cell_length_{axis} {length:.6f}{deviation}\n_cell_angle_{angle} 90\n"
        for axis, length, angle in zip("abc", lengths, ("alpha", "beta", "gamma"), strict=True)
    )
    operations = "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n"
    symmetry = (
        *("", "_symmetry_space_group_name_H-M 'P 1'\n", "_symmetry_Int_Tables_number 1\n"),
        f"_symmetry_space_group_name_H-M 'P 1'\n{operations}",
    )
    columns = "".join(f"_atom_site_{n}\n" for n in ("label", "fract_x", "fract_y", "fract_z"))
    rows = "".join(
        f"{symbol}{i} {x:.8f}{deviation} {y:.8f} {z:.8f}\n"
        for i, (symbol, (x, y, z)) in enumerate(
            zip(atoms.symbols, atoms.get_scaled_positions(), strict=True)
        )
    )
    return "x.cif", head + symmetry[rng.integers(len(symmetry))] + f"loop_\n{columns}{rows}"
