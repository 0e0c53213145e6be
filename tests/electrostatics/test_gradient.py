"""Contracted derivatives of the hardness matrix against central differences."""

from functools import partial
from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal

from skqeq.electrostatics import (
    HardnessOperator,
    _ewald,
    _hardness,
    _operator,
    _waves,
    hardness_gradient,
    hardness_matrix,
    potential_gradient,
)

WIDTHS = np.array([0.3, 0.7, 0.5, 0.4])


def geometry(kind):
    cell = [[5.0, 0.3, 0.2], [2.1, 4.4, 0.2], [-1.7, 1.2, 6.0]]
    positions = [[0.1, 0.0, 0.2], [1.9, 1.8, 0.4], [0.9, 2.4, 1.9], [2.8, 0.7, 3.1]]
    pbc = {
        "molecule": False,
        "crystal": True,
        "slab": (True, True, False),
        "slab yz": (False, True, True),
        "sharp": True,
        "left-handed": True,
        "one atom": True,
    }[kind]
    if kind == "sharp":
        cell = [[5.0, 0.0, 0.0], [4.8, 1.6, 0.0], [4.6, 1.1, 5.0]]
    if kind == "left-handed":
        # The last atom is outside of the cell.
        cell, positions[3] = cell[::-1], [12.8, 0.7, -9.1]
    if kind == "one atom":
        return Atoms("Ti", positions[:1], cell=cell, pbc=pbc)
    return Atoms("TiCaOF", positions, cell=cell, pbc=pbc)


def charges(total):
    q, p = np.array([0.8, -1.1, 0.5, 0.3]), np.array([-0.2, 0.9, 0.4, -0.7])
    return q - q.mean() + total / 4, p - p.mean() + 0.3 * total / 4


def difference(function, step=2e-3):
    """Central difference of sixth order."""
    terms = zip((1, 2, 3), (45, -9, 1))
    return sum(c * (function(n * step) - function(-n * step)) for n, c in terms) / (60 * step)


def move(atoms, atom, axis, step):
    other = atoms.copy()
    other.positions[atom, axis] += step
    return other


def strain(atoms, a, b, step):
    """Copy under a symmetric strain; the strain of a slab is in its plane."""
    project, deform = np.eye(3), np.zeros((3, 3))
    if atoms.pbc.sum() == 2:
        normal = np.linalg.svd(atoms.cell.array[atoms.pbc])[2][2]
        project -= np.outer(normal, normal)
    deform[a, b] += step / 2
    deform[b, a] += step / 2
    deform = np.eye(3) + project @ deform @ project
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ deform)
    other.positions = atoms.positions @ deform
    return other


KINDS = ["molecule", "crystal", "slab", "slab yz"]
SHAPES = ["sharp", "left-handed"]


def by_operator(atoms, q, p, widths=None, accuracy=1e-8):
    """Contract with `HardnessOperator`, as `hardness_gradient` does for many atoms."""
    return HardnessOperator(atoms, widths, accuracy=accuracy).gradient(q, p)


@pytest.fixture(params=[hardness_gradient, by_operator])
def contracted(request):
    return request.param


@pytest.mark.parametrize("kind", KINDS + SHAPES)
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_positions(contracted, kind, total):
    atoms, (q, p) = geometry(kind), charges(total)
    gradient, _ = contracted(atoms, q, p, WIDTHS, accuracy=1e-11)

    def moved(atom, axis, step):
        return q @ hardness_matrix(move(atoms, atom, axis, step), WIDTHS, accuracy=1e-11) @ p

    numeric = [[difference(partial(moved, i, a)) for a in range(3)] for i in range(4)]
    assert_allclose(gradient, numeric, rtol=0, atol=1e-7 * np.abs(gradient).max())
    assert_allclose(gradient.sum(axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("kind", [*KINDS, *SHAPES, "one atom"])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_strain(contracted, kind, total):
    atoms = geometry(kind)
    (q, p), widths = (x[: len(atoms)] for x in charges(total)), WIDTHS[: len(atoms)]
    _, virial = contracted(atoms, q, p, widths, accuracy=1e-11)

    def strained(a, b, step):
        return q @ hardness_matrix(strain(atoms, a, b, step), widths, accuracy=1e-11) @ p

    numeric = [[difference(partial(strained, a, b)) for b in range(3)] for a in range(3)]
    assert_allclose(virial, numeric, rtol=0, atol=1e-7 * np.abs(virial).max())
    assert_allclose(virial, virial.T, rtol=0, atol=1e-10 * np.abs(virial).max())


def test_kinds_agree_in_a_large_box(contracted):
    atoms, (q, p) = molecule("H2O"), (np.array([-0.8, 0.5, 0.3]), np.array([0.1, 0.2, -0.3]))
    isolated = contracted(atoms, q, p)[0]
    boxed = contracted(Atoms(atoms, cell=[300.0] * 3, pbc=True), q, p)[0]
    assert_allclose(boxed, isolated, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_many_atoms(kind, monkeypatch):
    atoms, (q, p) = geometry(kind), charges(1.0)
    expected = by_operator(atoms, q, p, WIDTHS)
    few = hardness_gradient(atoms, q, p, WIDTHS)
    monkeypatch.setattr(_hardness, "MAX_DENSE_GRADIENT", (3, 3))
    many = hardness_gradient(atoms, q, p, WIDTHS)
    for one, other, found in zip(expected, few, many):
        assert_array_equal(found, one)
        assert_allclose(found, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_charges(contracted, kind):
    """If both sets of charges are equal, the code may use a faster formula with the same result."""
    atoms, (q, p) = geometry(kind), charges(1.0)
    twice = [a + b for a, b in zip(contracted(atoms, q, p), contracted(atoms, p, q))]
    parts = [contracted(atoms, x, x) for x in (q + p, q, p)]
    for mixed, whole, one, other in zip(twice, *parts):
        assert_allclose(mixed, whole - one - other, rtol=0, atol=1e-9)


def test_wrapped_atoms(contracted):
    atoms, (q, p) = geometry("crystal"), charges(1.0)
    gradient, virial = contracted(atoms, q, p)
    atoms.positions += [[3, 1, 0], [-2, 0, 5], [0, 0, -1], [7, -7, 1]] @ atoms.cell.array
    moved, strained = contracted(atoms, q, p)
    assert_allclose(moved, gradient, rtol=0, atol=1e-6)
    assert_allclose(strained, virial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["crystal", "slab"])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_supercell(contracted, kind, total):
    atoms, (q, p) = geometry(kind), charges(total)
    gradient, virial = contracted(atoms, q, p, WIDTHS, accuracy=1e-10)
    large, Q, P, widths = atoms * (2, 3, 1), *(np.tile(x, 6) for x in (q, p, WIDTHS))
    repeated, strained = contracted(large, Q, P, widths, accuracy=1e-10)
    assert_allclose(repeated, np.tile(gradient, (6, 1)), rtol=0, atol=1e-7)
    assert_allclose(strained, 6 * virial, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["crystal", "slab"])
def test_accuracy_of_derivatives(contracted, kind):
    """The errors of derivatives are proportional to the accuracy of the matrix."""
    exact = contracted(geometry(kind), *charges(1.0), WIDTHS, accuracy=1e-12)
    for accuracy in 10.0 ** -np.arange(2, 11):
        found = contracted(geometry(kind), *charges(1.0), WIDTHS, accuracy=accuracy)
        for one, other in zip(found, exact):
            assert_allclose(one, other, rtol=0, atol=20 * accuracy)


@pytest.mark.parametrize("kind", [*KINDS, *SHAPES, "one atom"])
@pytest.mark.parametrize("total", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_potential_gradient(kind, total, scale):
    """Each row is a contracted derivative; broad Gaussians overlap many images."""
    atoms = geometry(kind)
    (q, _), widths = (x[: len(atoms)] for x in charges(total)), scale * WIDTHS[: len(atoms)]
    gradient, virial = potential_gradient(atoms, q, widths, accuracy=1e-12)
    assert gradient.shape == (len(atoms), 3, len(atoms)) and virial.shape == (3, 3, len(atoms))
    for i, y in enumerate(np.eye(len(atoms))):
        of_positions, of_strain = by_operator(atoms, y, q, widths, accuracy=1e-12)
        assert_allclose(gradient[..., i], of_positions, rtol=0, atol=1e-10)
        assert_allclose(virial[..., i], of_strain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS + SHAPES)
def test_potential_against_differences(kind):
    atoms, (q, _) = geometry(kind), charges(1.0)
    gradient, virial = potential_gradient(atoms, q, WIDTHS, accuracy=1e-11)

    def potential(change, a, b, step):
        return hardness_matrix(change(atoms, a, b, step), WIDTHS, accuracy=1e-11) @ q

    for change, found in ((move, gradient), (strain, virial)):
        numeric = np.empty_like(found)
        for a, b in np.ndindex(found.shape[:2]):
            numeric[a, b] = difference(partial(potential, change, a, b))
        assert_allclose(found, numeric, rtol=0, atol=1e-7 * np.abs(found).max())


@pytest.mark.parametrize("vector", [[0, 0, 0], [1.0, -2.0, 30.0]])
def test_potential_of_a_turned_slab(vector):
    """The cell vector along the open axis has no influence; derivatives rotate with the slab."""
    atoms, (q, _) = geometry("slab"), charges(1.0)
    gradient, virial = potential_gradient(atoms, q, WIDTHS)
    other = atoms.copy()
    other.cell[2] = vector
    other.rotate(50.0, (1, 2, 3), rotate_cell=True)
    turn = np.linalg.lstsq(atoms.positions, other.positions, rcond=None)[0]
    turned, strained = potential_gradient(other, q, WIDTHS)
    assert_allclose(turned, np.einsum("jai,ab->jbi", gradient, turn), rtol=0, atol=1e-9)
    assert_allclose(strained, np.einsum("abi,ac,bd->cdi", virial, turn, turn), rtol=0, atol=1e-9)


@pytest.mark.parametrize("q", [[1.0, 2.0], [[1.0, 2.0, 3.0, 4.0]], [1.0, 2.0, 3.0, np.nan]])
def test_bad_charges(contracted, q):
    with pytest.raises(ValueError, match="q must be 4 finite charges"):
        contracted(geometry("slab"), q, np.ones(4))
    with pytest.raises(ValueError, match="q must be 4 finite charges"):
        potential_gradient(geometry("slab"), q)
    with pytest.raises(ValueError, match="p must be 4 finite charges"):
        contracted(geometry("slab"), np.ones(4), q)


@pytest.mark.parametrize("kind", KINDS)
def test_twin_agrees(contracted, kind, monkeypatch):
    compiled = import_module("skqeq._pythran._ewald")
    if not hasattr(compiled, "__pythran__"):
        pytest.skip("kernels are not compiled")
    twin = import_module("skqeq._pythran._ewald_numpy")
    results = []
    for module in (compiled, twin):
        monkeypatch.setattr(_operator, "ewald_pair_gradient", module.ewald_pair_gradient)
        monkeypatch.setattr(_waves, "structure_factors", module.structure_factors)
        monkeypatch.setattr(_ewald, "structure_factors", module.structure_factors)
        monkeypatch.setattr(_ewald, "ewald_matrix_gradient", module.ewald_matrix_gradient)
        results.append(
            contracted(geometry(kind), *charges(1.0), WIDTHS)
            + potential_gradient(geometry(kind), charges(1.0)[0], WIDTHS)
        )
    for one, other in zip(*results):
        assert_allclose(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("module", ["_ewald", "_ewald_numpy"])
def test_atom_without_neighbours(module, monkeypatch):
    kernels = import_module(f"skqeq._pythran.{module}")
    monkeypatch.setattr(_operator, "ewald_pair_gradient", kernels.ewald_pair_gradient)
    gradient, virial = by_operator(Atoms("O"), [0.5], [-1.0], WIDTHS[:1])
    assert_array_equal(gradient, np.zeros((1, 3)))
    assert_array_equal(virial, np.zeros((3, 3)))
