"""Compare the hardness matrix as a linear operator with the dense matrix.

The tests use every way to divide the operator into pairs and waves.
"""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose

from skqeq.electrostatics import HardnessOperator, _levels, _operator, hardness_matrix
from skqeq.electrostatics._operator import coulomb_operator
from skqeq.electrostatics._waves import DirectTransform, FastTransform
from skqeq.structures import check_structures

from .. import helpers

K = helpers.COULOMB
KINDS = ["crystal", "slab", "molecule"]


def geometry(kind, n=None):
    """Rattled rock salt in a skewed cell: 2 n^3 atoms."""
    n = n or {"crystal": 3, "slab": 3, "molecule": 2}[kind]
    atoms = bulk("NaCl", "rocksalt", a=5.6) * (n, n, n)
    atoms.rattle(0.1, seed=1)
    atoms.pbc = {"crystal": True, "slab": (True, True, False), "molecule": False}[kind]
    return atoms


def vectors(n, k=2):
    return np.random.default_rng(3).normal(size=(k, n))


@pytest.fixture
def divided(monkeypatch):
    """Force the use of waves, with the given transform, even if a sum over all pairs is cheaper."""

    def choose(transform="direct", bands=_operator.BANDS):
        monkeypatch.setattr(_levels, "SMALL_MOLECULE", 0)
        monkeypatch.setattr(_operator, "BANDS", bands)
        monkeypatch.setattr(_levels.Level, "cost", lambda self, n: (-1e30, transform == "fast"))
        if transform == "fast":
            pytest.importorskip("finufft")

    return choose


@pytest.mark.parametrize("transform", ["direct", "fast"])
@pytest.mark.parametrize("bands", [(1.0,), (3.0,)])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_derivatives(kind, transform, bands, divided):
    """Allow an error of one matrix element for each charge."""
    atoms = geometry(kind)
    widths = np.linspace(0.2, 0.7, len(atoms))
    q, p = vectors(len(atoms))
    exact = HardnessOperator(atoms, widths, 1.3, accuracy=1e-12)
    A = hardness_matrix(atoms, widths, 1.3, accuracy=1e-12)
    assert_allclose(exact @ q, A @ q, rtol=0, atol=1e-9)
    gradient, virial = exact.gradient(q, p)
    divided(transform, bands)
    for accuracy in (1e-4, 1e-8, 1e-11):
        operator = HardnessOperator(atoms, widths, 1.3, accuracy)
        levels = operator._coulomb.division.levels
        assert len(levels) == (1 if kind == "crystal" or bands == (1.0,) else 2)
        assert_allclose(operator @ q, A @ q, rtol=0, atol=accuracy * K * np.abs(q).sum())
        found, strained = operator.gradient(q, p)
        # The error of a derivative is larger by about one over the splitting width.
        assert_allclose(found, gradient, rtol=0, atol=20 * accuracy * K * np.abs(q).sum())
        assert_allclose(strained, virial, rtol=0, atol=2e3 * accuracy * K * np.abs(q).sum())


@pytest.mark.parametrize("bands", [(1.0,), (4.0,)])
@pytest.mark.parametrize("kind", ["slab", "molecule"])
def test_every_element(kind, bands, divided):
    atoms = geometry(kind, 2)
    [structure] = check_structures([atoms])
    widths = np.linspace(0.2, 0.7, len(atoms))
    A = hardness_matrix(atoms, widths, accuracy=1e-12) / K
    divided("direct", bands)
    for accuracy in (1e-3, 1e-6, 1e-9):
        operator = coulomb_operator(structure, widths, accuracy)
        C = np.stack([operator @ unit for unit in np.eye(len(atoms))])
        assert np.abs(C - A).max() < accuracy


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_not_matter(kind):
    """Translations change nothing, nor do wrapped atoms and other vectors of the same lattice."""
    atoms = geometry(kind)
    q, p = vectors(len(atoms))
    operator = HardnessOperator(atoms)
    phi, gradient = operator @ q, operator.gradient(q, p)[0]
    other = atoms.copy()
    other.positions += [30.0, -4.0, 7.0]
    if kind != "molecule":
        other.set_cell(np.array([[1, 2, 0], [1, 3, 0], [0, 0, 1]]) @ other.cell.array)
        other.positions += np.outer(np.arange(len(atoms)) % 5, other.cell[0])
    moved = HardnessOperator(other)
    assert_allclose(moved @ q, phi, rtol=0, atol=1e-6)
    assert_allclose(moved.gradient(q, p)[0], gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_far_from_the_origin(kind):
    """Far from the origin, only the rounding of the positions matters, 1e-11 Angstrom.

    In particular, the code must not subtract large squares of the heights of atoms in slabs.
    """
    atoms = geometry(kind, 2)
    q, p = vectors(len(atoms))
    other = atoms.copy()
    other.positions += [3e4, -5e4, 1e5]
    for make in (hardness_matrix, HardnessOperator):
        expected, found = make(atoms) @ q, make(other) @ q
        assert_allclose(found, expected, rtol=0, atol=1e-8)
    expected, found = (HardnessOperator(x).gradient(q, p)[0] for x in (atoms, other))
    assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("bands", [(1.0,), (3.0,)])
@pytest.mark.parametrize("kind", ["slab", "molecule"])
def test_derivatives_are_those_of_the_products(kind, bands, divided):
    """Gradients agree with central differences of the products, for a displacement and a strain.

    The products and the gradients use the same division into pairs and waves.
    """
    divided("direct", bands)
    atoms = geometry(kind, 2)
    widths = np.linspace(0.2, 0.7, len(atoms))
    q, p = vectors(len(atoms))
    rng = np.random.default_rng(0)
    step, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain += strain.T
    if kind == "slab":
        normal = np.cross(*atoms.cell.array[:2])
        normal /= np.linalg.norm(normal)
        plane = np.eye(3) - np.outer(normal, normal)
        strain = plane @ strain @ plane

    def energy(shift, stretch):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + stretch))
        moved.positions = (atoms.positions + shift) @ (np.eye(3) + stretch)
        return q @ (HardnessOperator(moved, widths, accuracy=1e-11) @ p)

    gradient, virial = HardnessOperator(atoms, widths, accuracy=1e-11).gradient(q, p)
    h = 1e-4
    slope = (energy(h * step, 0.0) - energy(-h * step, 0.0)) / (2 * h)
    assert_allclose(np.vdot(gradient, step), slope, rtol=1e-6)
    slope = (energy(0.0, h * strain) - energy(0.0, -h * strain)) / (2 * h)
    assert_allclose(np.vdot(virial, strain), slope, rtol=1e-6)


@pytest.mark.parametrize("bands", [(1.0,), (5.0,)])
@pytest.mark.parametrize("shape", ["needle", "sheet", "two clusters", "far atom"])
def test_odd_molecules(shape, bands, divided):
    """The bounding boxes are large and nearly empty; all atoms of a sheet are in one plane."""
    rng = np.random.default_rng(4)
    points = 2.0 * np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    positions = {
        "needle": np.outer(np.linspace(0, 140, 64), [0.6, 0.8, 0.0]),
        "sheet": 3.0 * np.stack(np.unravel_index(np.arange(64), (8, 8, 1)), axis=1),
        "two clusters": points + np.outer(points[:, 0] > 3.0, [30.0, 40.0, 0.0]),
        "far atom": points + np.outer(np.arange(64) == 63, [50.0, -20.0, 30.0]),
    }[shape]
    atoms = Atoms("Na64", positions + rng.uniform(0, 0.5, size=(64, 3)))
    [q] = vectors(64, 1)
    widths = rng.uniform(0.1, 2.0, size=64)
    phi = hardness_matrix(atoms, widths) @ q
    divided("direct", bands)
    for accuracy in (1e-3, 1e-8):
        found = HardnessOperator(atoms, widths, accuracy=accuracy) @ q
        assert_allclose(found, phi, rtol=0, atol=accuracy * K * np.abs(q).sum())


@pytest.mark.parametrize("bands", [(1.0,), (5.0,)])
@pytest.mark.parametrize("repeat", [(1, 1, 12), (8, 1, 1)])
def test_odd_slabs(repeat, bands, divided):
    """One slab is thick with a small surface; the other one is a strip."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * repeat
    atoms.rattle(0.1, seed=0)
    atoms.pbc = True, True, False
    [q] = vectors(len(atoms), 1)
    phi = hardness_matrix(atoms, accuracy=1e-12) @ q
    divided("direct", bands)
    for accuracy in (1e-3, 1e-8):
        found = HardnessOperator(atoms, accuracy=accuracy) @ q
        assert_allclose(found, phi, rtol=0, atol=accuracy * K * np.abs(q).sum())


def test_open_axis_may_be_any():
    atoms = geometry("slab")
    q, p = vectors(len(atoms))
    phi = HardnessOperator(atoms) @ q
    for shift in (1, 2):
        order = np.roll(np.arange(3), shift)
        other = Atoms(atoms, cell=atoms.cell.array[order], pbc=atoms.pbc[order])
        assert_allclose(HardnessOperator(other) @ q, phi, rtol=0, atol=1e-6)


def test_large_molecule_is_divided(monkeypatch):
    monkeypatch.setattr(_levels, "SMALL_MOLECULE", 100)
    monkeypatch.setattr(_levels, "PAIR_COST", 1e5)
    atoms = geometry("molecule", 4)
    [q] = vectors(len(atoms), 1)
    operator = HardnessOperator(atoms)
    assert operator._coulomb.division.levels
    assert_allclose(operator @ q, hardness_matrix(atoms) @ q, rtol=0, atol=1e-8 * K * len(q))


@pytest.mark.parametrize("k_max", [0.1, 3.0])
def test_transforms(k_max):
    """Both transforms agree with their definition, with atoms outside of the cell."""
    pytest.importorskip("finufft")
    rng = np.random.default_rng(0)
    cell = np.array([[7.0, 0.0, 0.0], [2.0, 6.0, 0.0], [-1.0, 1.0, 8.0]])
    fractions, q = 4 * rng.random((9, 3)) - 2, rng.normal(size=9)
    positions = fractions @ cell
    direct = DirectTransform(fractions, cell, k_max)
    for transform in (direct, FastTransform(fractions, cell, k_max, 1e-12)):
        k = np.stack(np.broadcast_arrays(*transform.k), axis=-1)
        S = np.exp(-1j * k @ positions.T) @ q
        assert_allclose(transform.forward(q), S, rtol=0, atol=1e-10)
        g = np.exp(-np.sum(k**2, axis=-1))
        assert_allclose(transform.total(g * abs(S) ** 2), q @ transform.backward(g * S), rtol=1e-9)
        phi = np.tensordot(np.exp(1j * np.moveaxis(k @ positions.T, -1, 0)), g * S, k.ndim - 1).real
        if transform is direct:
            # The direct transform has k = 0, and one wave of each pair k and -k.
            phi = 2 * phi - g[0] * S[0].real
        assert_allclose(transform.backward(g * S), phi, rtol=0, atol=1e-10)


def test_structure_factors_are_not_kept_beyond_a_limit(monkeypatch):
    from skqeq.electrostatics import _waves

    rng = np.random.default_rng(0)
    fractions, q, cell = rng.random((7, 3)), rng.normal(size=7), 9.0 * np.eye(3)
    stored = DirectTransform(fractions, cell, 3.0)
    monkeypatch.setattr(_waves, "KEEP_BYTES", 0)
    monkeypatch.setattr(_waves, "BLOCK_BYTES", 16 * 2 * len(stored.k[0]))
    anew = DirectTransform(fractions, cell, 3.0)
    assert anew._stored is None and len(anew._phases) > 1
    S = stored.forward(q)
    assert_allclose(anew.forward(q), S, atol=1e-13)
    assert_allclose(anew.backward(S), stored.backward(S), atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_screening(kind):
    """The approximate inverse is symmetric and positive, and accurate for charges of sum zero."""
    operator = HardnessOperator(geometry(kind), hardness=2.0)
    screening = operator.preconditioner()
    n = operator.shape[0]
    M = np.stack([screening(unit) for unit in np.eye(n)])
    assert_allclose(M, M.T, atol=1e-15)
    assert np.linalg.eigvalsh(M)[0] > 0
    neutral = np.linalg.svd(np.ones((1, n)))[2][1:]
    A = np.stack([operator @ unit for unit in np.eye(n)])
    values = np.linalg.eigvals((neutral @ M @ neutral.T) @ (neutral @ A @ neutral.T)).real
    assert values.min() > 0 and values.max() / values.min() < 8


def test_screening_of_very_different_atoms():
    """The weights of the screening stay real for a hard atom far above a soft metal."""
    atoms = fcc111("Al", (5, 5, 4), vacuum=None)
    atoms.pbc = (True, True, False)
    atoms += Atoms("Ar", [[5.0, 5.0, atoms.positions[:, 2].max() + 12]])
    hardness = np.where(atoms.symbols == "Ar", 2e4, 0.0)
    M = HardnessOperator(atoms, np.ones(101), hardness).preconditioner()
    assert np.linalg.eigvalsh(np.stack([M(unit) for unit in np.eye(101)]))[0] > 0


@pytest.mark.parametrize("columns", [1, 5])
def test_charges_are_a_vector(columns):
    atoms = molecule("CH4")
    with pytest.raises(ValueError, match="q must be 5 finite charges"):
        HardnessOperator(atoms) @ np.ones((5, columns))


def test_pickle(divided):
    divided("fast", (3.0,))
    operator = HardnessOperator(geometry("slab"))
    [q] = vectors(operator.shape[0], 1)
    assert_allclose(pickle.loads(pickle.dumps(operator)) @ q, operator @ q, rtol=1e-12)


@pytest.mark.parametrize("accuracy", [1e-2, 1e-4, 1e-8])
def test_thick_slab_of_few_atoms(accuracy):
    """Waves along a long cell are strong, so that errors of the transforms are large."""
    pytest.importorskip("finufft")
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (1, 1, 100)
    atoms.rattle(0.05, seed=0)
    atoms.pbc = (True, True, False)
    [structure] = check_structures([atoms])
    widths = np.full(len(atoms), 0.4)
    unit = np.eye(len(atoms))[0]
    exact = hardness_matrix(atoms, widths, accuracy=1e-12)[0] / K
    assert np.abs(coulomb_operator(structure, widths, accuracy) @ unit - exact).max() < accuracy


def test_nearly_empty_cells_are_cheap():
    """The memory grows with the number of atoms, and not with the volume of the empty space."""
    cluster = geometry("molecule", 5)
    box = Atoms(cluster, cell=[200.0] * 3, pbc=True)
    operator = coulomb_operator(check_structures([box])[0], np.full(len(box), 0.5), 1e-8)
    assert operator.occupied < 30_000
    assert len(operator.pairs[0]) < len(box) ** 2 / 2


@pytest.mark.parametrize("hardness", [np.nan, [1.0, 2.0], "soft", {"H": 1.0}])
def test_bad_hardness(hardness):
    for make in (HardnessOperator, hardness_matrix):
        with pytest.raises(ValueError, match="hardness"):
            make(molecule("H2O"), hardness=hardness)


@pytest.mark.parametrize("widths", [[np.inf, 1, 1], [np.nan, 1, 1], [0, 1, 1], [1.0, 1.0]])
def test_bad_widths(widths):
    for make in (HardnessOperator, hardness_matrix):
        with pytest.raises(ValueError, match="widths must be 3 positive numbers"):
            make(molecule("H2O"), widths)


def test_absurd_width_in_a_cell():
    with pytest.raises(ValueError, match="at most 10 Angstrom, got 100"):
        hardness_matrix(bulk("Na"), [100.0])


def test_a_few_atoms_in_a_huge_cell():
    """A cell with few atoms has few pairs, so the splitting width may grow with the cell."""
    atoms = Atoms(molecule("CH3OH"), cell=[1000.0] * 3, pbc=True)
    division = coulomb_operator(check_structures([atoms])[0], np.full(6, 0.5), 1e-8).division
    [level] = division.levels
    assert level.cost(6)[0] < 1e8
