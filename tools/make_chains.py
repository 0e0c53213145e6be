"""Make chains of growing length with dipole moments, to test extrapolation from small molecules.

    python tools/make_chains.py OUT.xyz [--pbe0 N_ATOMS]

There are four kinds of chains: alanine helices and alanine strands, each between a formyl group and
an amide, and amino aldehydes whose ends are separated by double bonds or by methylene groups. The
chains are built from standard bond lengths and angles and relaxed with GFN2-xTB (tblite).
``REF_dipole_gfn2`` is the dipole of GFN2-xTB. Chains of up to N_ATOMS atoms also get
``REF_dipole``, the dipole of PBE0/def2-TZVP (pyscf). Units: Angstrom, e*Angstrom.

Chains that OUT.xyz already holds are not made again.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.optimize import BFGS
from tqdm import tqdm

LENGTHS = {
    "alpha helix": range(1, 13),
    "beta strand": range(1, 13),
    "conjugated": range(1, 13),
    "saturated": range(1, 25),
}
ANGLES = {"alpha helix": (-57.0, -47.0), "beta strand": (-139.0, 135.0)}  # phi, psi


class Builder:
    """A molecule that is built atom by atom, from bond lengths, angles and dihedral angles."""

    def __init__(self):
        self.symbols, self.positions = [], []

    def add(self, symbol, position):
        """Add an atom and return its number."""
        self.symbols.append(symbol)
        self.positions.append(np.asarray(position, dtype=float))
        return len(self.symbols) - 1

    def place(self, symbol, c, b, a, distance, angle, dihedral):
        """Add an atom bonded to atom c, by its angle to b and its dihedral to a, in degrees."""
        angle, dihedral = np.radians([angle, dihedral])
        a, b, c = (self.positions[i] for i in (a, b, c))
        along = (c - b) / np.linalg.norm(c - b)
        normal = np.cross(b - a, along)
        normal /= np.linalg.norm(normal)
        local = -np.cos(angle), np.sin(angle) * np.cos(dihedral), np.sin(angle) * np.sin(dihedral)
        axes = along, np.cross(normal, along), normal
        return self.add(symbol, c + distance * sum(x * e for x, e in zip(local, axes)))

    def atoms(self):
        """The molecule as `ase.Atoms`."""
        return Atoms(self.symbols, self.positions)


def peptide(n, phi, psi):
    """HCO-(NH-CHCH3-CO)n-NH2."""
    chain = Builder()
    first = chain.add("H", [0.0, 0.0, 0.0])
    carbon = chain.add("C", [1.1, 0.0, 0.0])
    oxygen = chain.add("O", [1.7, 1.07, 0.0])
    nitrogen = chain.place("N", carbon, first, oxygen, 1.34, 114.0, 180.0)
    before = first
    for _ in range(n):
        alpha = chain.place("C", nitrogen, carbon, before, 1.458, 121.7, 180.0)
        chain.place("H", nitrogen, carbon, before, 1.01, 119.0, 0.0)
        following = chain.place("C", alpha, nitrogen, carbon, 1.525, 111.0, phi)
        beta = chain.place("C", alpha, nitrogen, carbon, 1.53, 110.0, phi - 122.5)
        chain.place("H", alpha, nitrogen, carbon, 1.09, 108.0, phi + 118.0)
        for turn in (60.0, 180.0, 300.0):
            chain.place("H", beta, alpha, nitrogen, 1.09, 110.0, turn)
        oxygen = chain.place("O", following, alpha, nitrogen, 1.23, 120.5, psi + 180.0)
        before, carbon = alpha, following
        nitrogen = chain.place("N", carbon, alpha, oxygen, 1.335, 116.2, 180.0)
    chain.place("H", nitrogen, carbon, before, 1.01, 119.0, 0.0)
    chain.place("H", nitrogen, carbon, before, 1.01, 121.0, 180.0)
    return chain.atoms()


def polyene(n):
    """H2N-(CH=CH)n-CHO, all trans."""
    chain = Builder()
    first = chain.add("H", [0.0, 0.0, 0.0])
    nitrogen = chain.add("N", [1.0, 0.0, 0.0])
    chain.add("H", [1.5, -0.87, 0.0])
    carbon = chain.place("C", nitrogen, first, 2, 1.36, 120.0, 180.0)
    chain.place("H", carbon, nitrogen, first, 1.09, 115.0, 0.0)
    before, last = first, nitrogen
    for k in range(2 * n - 1):
        before, last, carbon = last, carbon, chain.place(
            "C", carbon, last, before, 1.36 if k % 2 == 0 else 1.43, 124.0, 180.0
        )  # fmt: skip
        chain.place("H", carbon, last, before, 1.09, 118.0, 0.0)
    before, last, carbon = last, carbon, chain.place("C", carbon, last, before, 1.45, 122.0, 180.0)
    chain.place("O", carbon, last, before, 1.22, 124.0, 180.0)
    chain.place("H", carbon, last, before, 1.10, 116.0, 0.0)
    return chain.atoms()


def alkane(n):
    """H2N-(CH2)n-CHO, all trans."""
    chain = Builder()
    first = chain.add("H", [0.0, 0.0, 0.0])
    nitrogen = chain.add("N", [1.01, 0.0, 0.0])
    chain.place("H", nitrogen, first, chain.add("X", [0.0, 1.0, 0.0]), 1.01, 107.0, 60.0)
    before, last = first, nitrogen
    carbon = chain.place("C", nitrogen, first, 2, 1.46, 110.0, -60.0)
    for k in range(n):
        for turn in (60.0, 300.0):
            chain.place("H", carbon, last, before, 1.10, 109.0, turn)
        length = 1.53 if k < n - 1 else 1.51
        before, last, carbon = last, carbon, chain.place(
            "C", carbon, last, before, length, 112.5, 180.0
        )  # fmt: skip
    chain.place("O", carbon, last, before, 1.21, 124.5, 0.0)
    chain.place("H", carbon, last, before, 1.11, 115.0, 180.0)
    atoms = chain.atoms()
    del atoms[[atom.index for atom in atoms if atom.symbol == "X"]]
    return atoms


def build(kind, n):
    """A chain of n units."""
    if kind in ANGLES:
        return peptide(n, *ANGLES[kind])
    return {"conjugated": polyene, "saturated": alkane}[kind](n)


def relax(atoms):
    """Relax a chain with GFN2-xTB, and return its dipole."""
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    return atoms.get_dipole_moment()


def pbe0(atoms):
    """Dipole of PBE0/def2-TZVP."""
    from pyscf import dft, gto

    molecule = gto.M(
        atom=list(zip(atoms.symbols, atoms.positions)), basis="def2-TZVP", verbose=0
    )  # fmt: skip
    field = dft.RKS(molecule, xc="PBE0").density_fit()
    field.kernel()
    if not field.converged:
        raise RuntimeError(f"PBE0 of {atoms.symbols} did not converge")
    return field.dip_moment(unit="Debye", verbose=0) / 4.80320471


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--pbe0", type=int, default=0, metavar="N_ATOMS")
    args = parser.parse_args()
    chains = ase.io.read(args.out, ":") if args.out.exists() else []
    finished = {(atoms.info["chain"], atoms.info["units"]): atoms for atoms in chains}
    for kind, n in tqdm([(kind, n) for kind, units in LENGTHS.items() for n in units]):
        atoms = finished.get((kind, n))
        if atoms is None:
            atoms = build(kind, n)
            dipole = relax(atoms)
            atoms.calc = None
            atoms.info = {"chain": kind, "units": n, "REF_dipole_gfn2": dipole}
            chains.append(atoms)
        elif "REF_dipole" in atoms.info or len(atoms) > args.pbe0:
            continue
        if len(atoms) <= args.pbe0:
            atoms.info["REF_dipole"] = pbe0(atoms)
        ase.io.write(args.out, chains)


if __name__ == "__main__":
    main()
