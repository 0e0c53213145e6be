"""Check the harvested molecules and ions.

    python tools/check_organic.py data            # every structure; needs no other package
    python tools/check_organic.py bundled -n 30   # dipoles against the bundled molecules; pyscf
    python tools/check_organic.py psi4 -n 10      # potentials against a second code; psi4

``bundled`` and ``psi4`` run calculations, and print the largest difference at the end.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from ase import Atoms
from ase.io import read
from ase.units import Bohr, Debye, Hartree
from read_organic import N_POINTS, potential_points, read_records

ROOT = Path(__file__).parents[1]
COULOMB = Hartree * Bohr  # V Angstrom / e


def check_data(folder):
    """Check sums and duplicates, and compare potentials with those of charges and dipoles."""
    worst, seen, parts = Counter(), {}, {}
    n = 0
    error, size = 0.0, 0.0
    for record in read_records(folder):
        n += 1
        r = np.array(record["positions"])
        q, p = np.array(record["charges"]), np.array(record["atomic_dipoles"])
        atoms = Atoms(record["symbols"], r)
        points = potential_points(record["symbols"], r)
        potential = np.array(record["potential"])
        if potential.shape != (N_POINTS,):
            raise SystemExit(f"{record['id']}: {potential.shape} potentials")
        away = points[:, None] - r
        d = np.linalg.norm(away, axis=2)
        of_atoms = COULOMB * ((q / d) + np.einsum("pix,ix->pi", away, p) / d**3).sum(axis=1)
        error += np.mean((of_atoms - potential) ** 2)
        size += np.mean((potential - potential.mean()) ** 2)
        found = {
            "sum of charges, e": abs(q.sum() - record["charge"]),
            "dipole of charges and atomic dipoles, e*Angstrom": np.abs(
                q @ r + p.sum(axis=0) - record["dipole"]
            ).max(),
            "trace of the quadrupole, e*Angstrom^2": abs(sum(record["quadrupole"][:3])),
            "centre of mass, Angstrom": np.abs(atoms.get_center_of_mass()).max(),
        }
        for name, value in found.items():
            worst[name] = max(worst[name], value)
        if record["geometry"] == "relaxed":
            seen.setdefault(record["inchi"], []).append(record["id"])
        parts.setdefault(record["group"], set()).add(record["split"])
    print(f"{n} structures")
    for name, value in worst.items():
        print(f"{name}: at most {value:.1e}")
    print(
        f"potential of charges and atomic dipoles: root mean square error "
        f"{np.sqrt(error / n):.3f} V of {np.sqrt(size / n):.3f} V"
    )
    print("InChI that occur twice:", [ids for ids in seen.values() if len(ids) > 1])


def check_bundled(n):
    """Compare calculated dipoles with those of the bundled molecules and cations."""
    from organic_labels import BASIS, molecule_of, moments, pbe0

    folder = ROOT / "skqeq" / "datasets" / "data"
    images = [a for name in ("molecules", "ions") for a in read(folder / f"{name}.xyz.gz", ":")]
    images = [a for a in images if a.info["charge"] >= 0]  # For anions, the basis sets differ.
    images = [images[i] for i in np.random.default_rng(0).permutation(len(images))[:n]]
    worst = 0.0
    for atoms in images:
        charge = int(atoms.info["charge"])
        molecule = molecule_of(list(atoms.symbols), atoms.positions, charge, BASIS)
        dipole, _ = moments(molecule, pbe0(molecule).make_rdm1())
        off = np.abs(dipole - atoms.info["REF_dipole"]).max() / Debye
        worst = max(worst, off)
        print(f"{atoms.info['smiles']:<20} {off:.1e} D", flush=True)
    print(f"largest difference {worst:.1e} D")


PSI4 = """
memory 4 GB
molecule {{
{charge} 1
{atoms}
symmetry c1
no_com
no_reorient
}}
set {{
basis {basis}
df_basis_scf def2-tzvp-jkfit
scf_type df
dft_spherical_points 434
dft_radial_points 85
e_convergence 1e-9
d_convergence 1e-8
}}
energy, wavefunction = energy('pbe0', return_wfn=True)
oeprop(wavefunction, 'GRID_ESP')
"""


def check_psi4(folder, n):
    """Compare the stored potentials with those of psi4 on a finer grid."""
    records = [
        record
        for record in read_records(folder)
        if len(record["symbols"]) <= 14 and "I" not in record["symbols"]
    ]
    order = np.random.default_rng(1).permutation(len(records))
    worst = 0.0
    for index in order[:n]:
        record = records[index]
        lines = [
            f"{symbol} {x:.5f} {y:.5f} {z:.5f}"
            for symbol, (x, y, z) in zip(record["symbols"], record["positions"])
        ]
        points = potential_points(record["symbols"], record["positions"])
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch, "grid.dat").write_text(
                "".join(" ".join(f"{x:.6f}" for x in point) + "\n" for point in points)
            )
            Path(scratch, "input.dat").write_text(
                PSI4.format(
                    charge=record["charge"],
                    atoms="\n".join(lines),
                    basis=record["basis"].lower(),
                )
            )
            subprocess.run(["psi4", "-n", "1", "input.dat", "out"], cwd=scratch, check=True)
            other = np.loadtxt(Path(scratch, "grid_esp.dat"))
        off = np.abs(other - np.array(record["potential"]) / Hartree).max()
        worst = max(worst, off)
        print(f"{record['smiles']:<24} {record['charge']:+d} {off:.1e} a.u.", flush=True)
    print(f"largest difference {worst:.1e} a.u.")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("check", choices=["data", "bundled", "psi4"])
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "organic")
    parser.add_argument("-n", type=int, default=10, help="how many molecules")
    arguments = parser.parse_args()
    if arguments.check == "data":
        check_data(arguments.data)
    elif arguments.check == "bundled":
        check_bundled(arguments.n)
    else:
        check_psi4(arguments.data, arguments.n)


if __name__ == "__main__":
    main()
