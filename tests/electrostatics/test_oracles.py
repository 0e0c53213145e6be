"""Energies, forces and stress against the Ewald sums of pymatgen and torch-pme.

Both packages are in the extra `oracles`, and sum point charges. Two Gaussians interact like points
if their error function is one at contact. The tests add the remaining effects of their width. These
are the self-energy ``q^2 / (2 sqrt(pi) alpha)`` and, in a charged crystal, the interaction with the
background, ``(2 pi / V) alpha^2 Q^2``.

All values are in units of k_e. The deviations are 2e-13 (pymatgen) and 2e-12 (torch-pme).
"""

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose
from vesin import NeighborList

from skqeq.electrostatics import hardness_gradient, hardness_matrix

from .. import helpers

ALPHA = 0.15  # At distances above 1.8 Angstrom, erfc(r / (2 alpha)) is below 1e-16.
TOTALS = pytest.mark.parametrize("total", [0.0, 1.3], ids=["neutral", "charged"])
KINDS = pytest.mark.parametrize("slab", [False, True], ids=["crystal", "slab"])


def random_atoms(seed, slab=False):
    """Five atoms near points of a grid in a triclinic cell, or a slab; some atoms are outside."""
    rng = np.random.default_rng(seed)
    cell = 6.5 * np.eye(3) + rng.uniform(-1.4, 1.4, (3, 3))
    scaled = np.array(list(np.ndindex(2, 2, 2)))[rng.permutation(8)[:5]] / 2
    scaled += rng.uniform(-0.07, 0.07, (5, 3)) + rng.integers(-2, 3, (5, 3))
    if slab:
        # In torch-pme the open axis is z, and the vacuum must be so thick that the waves decay.
        cell[:, 2], cell[2], scaled[:, 2] = 0.0, [0.0, 0.0, 48.0], 2.6 / 48 * np.arange(5)
    atoms = Atoms("NaClOSiF", scaled @ cell, cell=cell, pbc=(True, True, not slab))
    contact = NeighborList(cutoff=1.8, full_list=False)
    assert len(contact.compute(atoms.positions, cell, True, "d")[0]) == 0
    return atoms


def random_charges(seed, total):
    q = np.random.default_rng(seed).uniform(-2.0, 2.0, 5)
    return q - q.mean() + total / 5


def flat(energy, forces, strain):
    return np.concatenate([np.ravel(energy), np.ravel(forces), np.ravel(strain)])


def ours(atoms, q, widths):
    """Energy, forces and derivative with respect to a strain."""
    energy = 0.5 * q @ hardness_matrix(atoms, widths, accuracy=1e-12) @ q
    gradient, virial = hardness_gradient(atoms, q, q, widths, accuracy=1e-12)
    return flat(energy, -0.5 * gradient, 0.5 * virial) / helpers.COULOMB


def ours_of_points(atoms, q):
    background = 0.0
    if atoms.pbc.all():
        background = 2 * np.pi / atoms.get_volume() * ALPHA**2 * q.sum() ** 2
    own = q @ q / (2 * np.sqrt(np.pi) * ALPHA)
    extra = flat(own + background, np.zeros((5, 3)), -background * np.eye(3))
    return ours(atoms, q, np.full(5, ALPHA)) - extra


@TOTALS
@pytest.mark.parametrize("seed", range(6))
def test_pymatgen(seed, total):
    core = pytest.importorskip("pymatgen.core")
    ewald = pytest.importorskip("pymatgen.analysis.ewald").EwaldSummation

    atoms, q = random_atoms(seed), random_charges(seed, total)
    lattice = core.Lattice(atoms.cell.array)
    ions = [core.Species(symbol, charge) for symbol, charge in zip(atoms.symbols, q)]
    structure = core.Structure(lattice, ions, atoms.positions, coords_are_cartesian=True)
    found = ewald(structure, acc_factor=15, compute_forces=True)
    theirs = flat(found.total_energy, found.forces, []) / ewald.CONV_FACT
    assert_allclose(ours_of_points(atoms, q)[:16], theirs, rtol=0, atol=1e-12)


def torch_pme(atoms, q, smearing, gamma=None):
    """Like `ours`, for points or Gaussians, by automatic differentiation of torch-pme."""
    torch, torchpme = pytest.importorskip("torch"), pytest.importorskip("torchpme")
    cell, pbc = torch.tensor(atoms.cell.array), torch.tensor(atoms.pbc)
    neighbors = NeighborList(cutoff=8.5 * smearing, full_list=False)
    i, j, shifts = neighbors.compute(atoms.positions, atoms.cell.array, True, "ijS")
    pairs = torch.tensor(np.stack([i, j], axis=1).astype(np.int64))

    class Potential(torchpme.CoulombPotential):
        def from_dist(self, dist, pair_mask=None):
            if gamma is None:
                return super().from_dist(dist, pair_mask)
            return torch.erf(dist / torch.tensor(np.sqrt(2) * gamma[i, j])) / dist

    # Version 0.5 of torch-pme only has waves up to half of the documented cutoff.
    calculator = torchpme.EwaldCalculator(Potential(smearing), np.pi * smearing / 8.5)
    positions = torch.tensor(atoms.positions, requires_grad=True)
    strain = torch.zeros((3, 3), dtype=torch.float64, requires_grad=True)
    deform = torch.eye(3, dtype=torch.float64) + strain * torch.outer(pbc, pbc)
    r, box = positions @ deform, cell @ deform
    d = torch.linalg.norm(r[j] - r[i] + torch.tensor(shifts.astype(float)) @ box, dim=1)
    charges = torch.tensor(q)[:, None]
    energy = torch.sum(charges * calculator(charges, box, r, pairs, d, periodic=pbc))
    if gamma is not None:
        energy = energy + q**2 @ (1 / np.diag(gamma)) / np.sqrt(2 * np.pi)
        if atoms.pbc.all():
            energy = energy + np.pi * (q @ gamma**2 @ q) / torch.abs(torch.linalg.det(box))
    energy.backward()
    return flat(energy.item(), -positions.grad, (strain.grad + strain.grad.T) / 2)


@KINDS
@TOTALS
@pytest.mark.parametrize("seed", range(3))
def test_torch_pme(seed, total, slab):
    atoms, q = random_atoms(seed, slab), random_charges(seed, total)
    theirs = torch_pme(atoms, q, smearing=0.75)
    assert_allclose(ours_of_points(atoms, q), theirs, rtol=0, atol=1e-11)


@KINDS
@TOTALS
def test_torch_pme_gaussians(total, slab):
    """The widths differ, and some Gaussians overlap.

    The waves are from torch-pme, and the interactions of pairs are those of Gaussians.
    """
    atoms, q = random_atoms(7, slab), random_charges(7, total)
    widths = np.array([0.3, 0.8, 0.5, 0.2, 0.6])
    theirs = torch_pme(atoms, q, smearing=1.15, gamma=np.hypot.outer(widths, widths))
    assert_allclose(ours(atoms, q, widths), theirs, rtol=0, atol=1e-11)
