"""Labels of one molecule from PBE0: energy, moments, MBIS charges and the electrostatic potential.

`LEVEL` is the level of theory. Three changes make the calculation three times as fast as with the
defaults of pyscf:

- The matrix product uses AVX2 (see the top of the file).
- The SCF first converges on a small grid with exchange in single precision. It then converges
  again on the full grid in double precision, which gives the results.
- Basis functions on the grid are stored, and not computed again in each cycle.
"""

import os

# pyscf's wheel has an OpenBLAS of 2018, which uses its slowest kernel on newer processors.
os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")

from importlib.metadata import version

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree
from harvest import Rejected
from pyscf import dft, gto, lib, scf
from read_organic import potential_points

BASIS = "def2-TZVP"
BASIS_ANIONS = "def2-TZVPD"
AUXILIARY = "def2-universal-jkfit"
SMALL_BASIS = "6-31G*"
# [radial, angular] points
GRID = {"H": [30, 170], "default": [40, 194]}
FIRST_GRID = {"H": [20, 50], "default": [25, 86]}
HEAVY = [50, 302]  # These points are for silicon and heavier elements.
TOLERANCE, FIRST_TOLERANCE = 1e-8, 3e-5  # Hartree
LEVEL = f"PBE0/{BASIS} (anions: {BASIS_ANIONS}), density fitting, pyscf {version('pyscf')}"
MAX_MEMORY = 9000  # MB for the fitted integrals; further integrals are written to disk.
KEPT = 3e9  # Bytes for basis functions on the grid and for integrals in single precision.

lib.num_threads(1)


class KeptNumInt(dft.numint.NumInt):
    """Exchange and correlation with stored basis functions on the grid."""

    block = 1200
    negligible = 1e-9

    def __init__(self):
        super().__init__()
        self.grid, self.kept = None, []

    def blocks(self, molecule, grids):
        """Yield arrays for each block of grid points.

        The arrays are: indices of the basis functions that matter in the block, values and
        gradients of these functions, and weights of the points.
        """
        if self.grid is not grids.coords:
            self.grid, self.kept = grids.coords, []
            size = 0
            for start in range(0, len(grids.coords), self.block):
                points = slice(start, start + self.block)
                size += 8 * 4 * self.block * molecule.nao
                keep = size < 3 * KEPT  # In larger molecules, a third of the functions is stored.
                self.kept.append(self.functions(molecule, grids.coords[points]) if keep else None)
        for start, kept in zip(range(0, len(grids.coords), self.block), self.kept):
            points = slice(start, start + self.block)
            indices, values = kept or self.functions(molecule, grids.coords[points])
            yield indices, values, grids.weights[points]

    def functions(self, molecule, coordinates):
        values = dft.numint.eval_ao(molecule, coordinates, deriv=1).transpose(0, 2, 1)
        indices = np.flatnonzero(np.abs(values).max(axis=(0, 2)) > self.negligible)
        return indices, np.ascontiguousarray(values[:, indices])

    def nr_rks(self, mol, grids, xc_code, dms, relativity=0, hermi=1, max_memory=0, verbose=None):
        dm, orbitals = np.asarray(dms), occupied(dms)
        n_electrons = energy = 0.0
        potential = np.zeros_like(dm)
        for indices, values, weights in self.blocks(mol, grids):
            if orbitals is None:
                on_grid = dm[np.ix_(indices, indices)] @ values[0]
                rho = np.einsum("ip,kip->kp", on_grid, values)
            else:
                on_grid = np.matmul(orbitals[indices].T, values)
                rho = np.einsum("ip,kip->kp", on_grid[0], on_grid)
            rho[1:] *= 2
            exc, vxc = self.eval_xc_eff(xc_code, rho, deriv=1, xctype="GGA", spin=0)[:2]
            n_electrons += rho[0] @ weights
            energy += (rho[0] * weights) @ exc
            vxc = weights * vxc
            vxc[0] *= 0.5
            weighted = np.einsum("kip,kp->ip", values, vxc)
            potential[np.ix_(indices, indices)] += values[0] @ weighted.T
        return n_electrons, energy, potential + potential.T


def occupied(dm):
    """Occupied orbitals times the square roots of their occupations.

    None if `dm` has no orbitals.
    """
    if getattr(dm, "mo_coeff", None) is None:
        return None
    filled = dm.mo_occ > 0
    return dm.mo_coeff[:, filled] * np.sqrt(dm.mo_occ[filled])


class SinglePrecision:
    """Coulomb and exchange matrices in single precision, from fitted integrals."""

    def __init__(self, fitted):
        n = fitted.mol.nao
        self.fitted = fitted
        self.integrals = np.empty((fitted.get_naoaux(), n, n), np.float32)
        start = 0
        for packed in fitted.loop():
            self.integrals[start : start + len(packed)] = lib.unpack_tril(packed)
            start += len(packed)

    def get_jk(self, dm, hermi=1, with_j=True, with_k=True, direct_scf_tol=1e-13, omega=None):
        orbitals = occupied(dm)
        if orbitals is None:
            cls = type(self.fitted)
            return cls.get_jk(self.fitted, dm, hermi, with_j, with_k, direct_scf_tol, omega)
        n = dm.shape[-1]
        flat = self.integrals.reshape(len(self.integrals), -1)
        coulomb = (flat @ np.asarray(dm, np.float32).ravel()) @ flat
        exchange = np.zeros((n, n))
        for start in range(0, len(flat), 200):
            half = np.matmul(orbitals.T.astype(np.float32), self.integrals[start : start + 200])
            half = half.reshape(-1, n)
            exchange += half.T @ half
        return coulomb.reshape(n, n).astype(float), exchange


def molecule_of(symbols, positions, charge, basis):
    """Return pyscf's object for a molecule."""
    ecp = {"I": "def2-TZVP"} if "I" in symbols else {}
    return gto.M(
        atom=list(zip(symbols, np.asarray(positions, dtype=float))),
        basis=basis,
        ecp=ecp,
        charge=charge,
        verbose=0,
        max_memory=MAX_MEMORY,
    )


def grid_of(molecule, grid):
    """Return pyscf's grid; the full grid has more points for heavy atoms."""
    symbols = {molecule.atom_pure_symbol(i) for i in range(molecule.natm)}
    heavy = {s: HEAVY for s in sorted(symbols) if atomic_numbers[s] >= 14 and grid is GRID}
    return {**grid, **heavy}


def pbe0(molecule, report=lambda text: None):
    """Return a converged calculation."""
    method = dft.RKS(molecule, xc="PBE0").density_fit(auxbasis=AUXILIARY)
    method._numint = KeptNumInt()
    method.with_df.build()
    report("integrals done")

    def show(variables):
        report(f"cycle {variables['cycle']}, {variables['e_tot']:.6f} Hartree")

    method.callback = show
    size = 4 * method.with_df.get_naoaux() * molecule.nao**2
    dm = None
    if size < KEPT:
        method.grids.atom_grid = grid_of(molecule, FIRST_GRID)
        method.conv_tol, method.conv_check = FIRST_TOLERANCE, False
        method.with_df.get_jk = SinglePrecision(method.with_df).get_jk
        method.kernel()
        del method.with_df.get_jk
        dm = method.make_rdm1()
        method.grids.reset()
    method.grids.atom_grid = grid_of(molecule, GRID)
    method.conv_tol, method.conv_check = TOLERANCE, True
    method.kernel(dm0=dm)
    if not method.converged:
        # Second-order SCF, slower but more stable, for small gaps and weakly bound electrons.
        report("not converged, second order")
        method = method.newton()
        method.kernel()
    if not method.converged:
        raise RuntimeError("SCF not converged")
    return method


def labels(symbols, positions, charge, small_basis=False, report=lambda text: None):
    """All labels of one structure, rounded, in the units of ``data/README.md``.

    Parameters
    ----------
    symbols : list of str
        Chemical symbols.
    positions : array-like of shape (n_atoms, 3)
        Angstrom, the centre of mass at the origin.
    charge : int
        Total charge.
    small_basis : bool
        Whether to calculate the HF/6-31G* potential too.
    report : callable
        Called with lines about the progress.

    Returns
    -------
    labels : dict
        Labels that can be written as JSON.
    """
    basis = BASIS_ANIONS if charge < 0 else BASIS
    molecule = molecule_of(symbols, positions, charge, basis)
    method = pbe0(molecule, report)
    dm = method.make_rdm1()
    points = potential_points(symbols, positions)
    dipole, quadrupole = moments(molecule, dm)
    report("MBIS")
    charges, atomic_dipoles, n_grid = mbis(method, dm)
    frontier = [method.mo_energy[method.mo_occ == n] for n in (2, 0)]
    found = {
        "basis": basis,
        "energy": round(method.e_tot * Hartree, 5),
        "homo": round(frontier[0].max() * Hartree, 3),
        "lumo": round(frontier[1].min() * Hartree, 3),
        "dipole": rounded(dipole, 5),
        "quadrupole": rounded(quadrupole, 4),
        "charges": rounded(charges, 5),
        "atomic_dipoles": rounded(atomic_dipoles, 5),
        "potential": rounded(potential(molecule, dm, points), 4),
    }
    excess = n_grid - molecule.nelectron
    gap = np.abs(charges @ np.asarray(positions) + atomic_dipoles.sum(axis=0) - dipole).max()
    if abs(charges.sum() - charge) > 1e-3 or abs(excess) > 0.02 or gap > 0.02:
        raise Rejected(f"MBIS: {excess:.4f} electrons too many, dipole off by {gap:.4f} e*Angstrom")
    if small_basis:
        report(SMALL_BASIS)
        molecule = molecule_of(symbols, positions, charge, SMALL_BASIS)
        method = scf.RHF(molecule)
        method.conv_tol = TOLERANCE
        method.kernel()
        if not method.converged:
            raise RuntimeError("HF not converged")
        values = potential(molecule, method.make_rdm1(), points)
        found["potential_hf"] = rounded(values, 4)
    return found


def rounded(values, decimals):
    """Nested lists of rounded values, without minus zero."""
    return (np.round(values, decimals) + 0.0).tolist()


def moments(molecule, dm):
    """Dipole, e*Angstrom, and traceless quadrupole xx, yy, zz, yz, xz, xy, e*Angstrom^2."""
    charges, coordinates = molecule.atom_charges(), molecule.atom_coords()
    with molecule.with_common_orig((0.0, 0.0, 0.0)):
        first = molecule.intor_symmetric("int1e_r", comp=3)
        second = molecule.intor_symmetric("int1e_rr", comp=9).reshape(3, 3, *dm.shape)
    dipole = charges @ coordinates - np.einsum("aij,ji->a", first, dm)
    moment = np.einsum("i,ia,ib->ab", charges, coordinates, coordinates)
    moment -= np.einsum("abij,ji->ab", second, dm)
    moment = 1.5 * moment - 0.5 * np.trace(moment) * np.eye(3)
    xx, yy, zz = np.diag(moment)
    quadrupole = np.array([xx, yy, zz, moment[1, 2], moment[0, 2], moment[0, 1]])
    return dipole * Bohr, quadrupole * Bohr**2


def potential(molecule, dm, points):
    """Electrostatic potential at points in Angstrom, V."""
    points = np.asarray(points) / Bohr
    distances = np.linalg.norm(points[:, None] - molecule.atom_coords(), axis=2)
    values = (molecule.atom_charges() / distances).sum(axis=1)
    for start in range(0, len(points), 16):
        block = slice(start, start + 16)
        integrals = molecule.intor("int1e_grids", grids=points[block], hermi=1)
        values[block] -= np.einsum("pij,ij->p", integrals, dm)
    return values * Hartree


def density(method, dm):
    """Points and weights of the grid, Bohr, and the density on them."""
    orbitals = occupied(dm)
    rho = []
    for indices, values, _ in method._numint.blocks(method.mol, method.grids):
        rho.append(np.sum(np.matmul(orbitals[indices].T, values[0]) ** 2, axis=0))
    return method.grids.coords, method.grids.weights, np.concatenate(rho)


def mbis(method, dm, tolerance=1e-6, max_steps=400):
    """Minimal basis iterative stockholder charges and dipoles of the atoms.

    The density is divided among the atoms in proportion to a model density. The model density is a
    sum of exponential shells around each atom, and every shell receives a part of the density. The
    populations N and widths s of the shells are iterated until they equal those of the parts [1]_.
    The steps of this iteration are extrapolated by SQUAREM [2]_.

    Returns
    -------
    charges : ndarray of shape (n_atoms,)
        They sum to the total charge: the density on the grid is scaled to the number of electrons.
    dipoles : ndarray of shape (n_atoms, 3)
        Dipoles about the nuclei, e*Angstrom.
    n_grid : float
        Number of electrons on the grid, before it is scaled.

    References
    ----------
    .. [1] T. Verstraelen et al., J. Chem. Theory Comput. 12, 3894 (2016).
    .. [2] R. Varadhan and C. Roland, Scand. J. Stat. 35, 335 (2008).
    """
    molecule = method.mol
    points, weights, rho = density(method, dm)
    n_grid = rho @ weights
    electrons = rho * weights * (molecule.nelectron / n_grid)
    matters = rho > 1e-10
    points, electrons = points[matters], electrons[matters]
    atom, populations, widths = shells(molecule)
    away = points[:, None] - molecule.atom_coords()
    distances = np.linalg.norm(away, axis=2).T.copy()

    def step(parameters):
        populations, widths = np.exp(parameters)
        prefactor = populations / (8 * np.pi * widths**3)
        model = distances[atom] * (-1 / widths[:, None])
        np.exp(model, out=model)
        model *= prefactor[:, None]
        share = electrons / (model.sum(axis=0) + 1e-300)
        model *= share
        new = model.sum(axis=1)
        spread = np.einsum("sp,sp->s", model, distances[atom])
        return np.log(np.stack([new, spread / (3 * new)]).clip(1e-9)), model

    def of_atoms(parameters):
        return np.bincount(atom, np.exp(parameters[0]))

    x = np.log(np.stack([populations, widths]))
    for _ in range(max_steps):
        x1 = step(x)[0]
        x2 = step(x1)[0]
        if np.abs(of_atoms(x2) - of_atoms(x)).max() < tolerance:
            break
        r, v = x1 - x, x2 - 2 * x1 + x
        length = max(1.0, min(np.linalg.norm(r) / (np.linalg.norm(v) + 1e-12), 32.0))
        x = step((x + 2 * length * r + length**2 * v).clip(-20, 5))[0]
    else:
        raise Rejected("MBIS not converged")
    shared = step(x2)[1]
    per_atom = np.zeros((molecule.natm, len(points)))
    np.add.at(per_atom, atom, shared)
    charges = molecule.atom_charges() - per_atom.sum(axis=1)
    dipoles = -np.einsum("ap,pax->ax", per_atom, away)
    return charges, dipoles * Bohr, n_grid


def shells(molecule):
    """Atom, initial population and initial width (Bohr) of every shell."""
    # For every period: atomic number of its noble gas, and number of electrons that it adds.
    rows = ((2, 2), (10, 8), (18, 8), (36, 18), (54, 18))
    found = []
    for i in range(molecule.natm):
        z = atomic_numbers[molecule.atom_pure_symbol(i)]
        rest, members = z, []
        for _, capacity in rows:
            members.append(min(rest, capacity))
            rest -= members[-1]
            if rest == 0:
                break
        core = molecule.atom_nelec_core(i)
        # Widths form a geometric series from 1 / 2 Z, innermost shell, to 1 / 2, valence shell.
        n = len(members)
        widths = [0.5 * z ** -(1 - k / max(n - 1, 1)) for k in range(n)] if n > 1 else [0.5]
        for population, width in zip(members, widths):
            taken = min(core, population)
            core -= taken
            if population > taken:
                found.append((i, population - taken, width))
    atom, populations, widths = zip(*found)
    return np.array(atom), np.array(populations, dtype=float), np.array(widths)
