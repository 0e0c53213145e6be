"""Contracted derivatives of the hardness matrix against central differences."""

from functools import partial
from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose

from skqeq.electrostatics import _operator, _waves, hardness_gradient, hardness_matrix

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
        # The last atom is outside.
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


KINDS = ["molecule", "crystal", "slab", "slab yz"]
SHAPES = ["sharp", "left-handed"]


@pytest.mark.parametrize("kind", KINDS + SHAPES)
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_positions(kind, total):
    atoms, (q, p) = geometry(kind), charges(total)
    gradient, _ = hardness_gradient(atoms, q, p, WIDTHS, accuracy=1e-11)

    def moved(atom, axis, step):
        other = atoms.copy()
        other.positions[atom, axis] += step
        return q @ hardness_matrix(other, WIDTHS, accuracy=1e-11) @ p

    numeric = [[difference(partial(moved, i, a)) for a in range(3)] for i in range(4)]
    assert_allclose(gradient, numeric, rtol=0, atol=1e-7 * np.abs(gradient).max())
    assert_allclose(gradient.sum(axis=0), 0, atol=1e-8)


@pytest.mark.parametrize("kind", [*KINDS, *SHAPES, "one atom"])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_strain(kind, total):
    atoms = geometry(kind)
    (q, p), widths = (x[: len(atoms)] for x in charges(total)), WIDTHS[: len(atoms)]
    _, virial = hardness_gradient(atoms, q, p, widths, accuracy=1e-11)
    project = np.eye(3)
    if "slab" in kind:
        plane = np.linalg.svd(atoms.cell.array[atoms.pbc])[2]
        project = np.eye(3) - np.outer(plane[2], plane[2])

    def strained(a, b, step):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        deform = np.eye(3) + project @ strain @ project
        other = atoms.copy()
        other.set_cell(atoms.cell.array @ deform)
        other.positions = atoms.positions @ deform
        return q @ hardness_matrix(other, widths, accuracy=1e-11) @ p

    numeric = [[difference(partial(strained, a, b)) for b in range(3)] for a in range(3)]
    assert_allclose(virial, numeric, rtol=0, atol=1e-7 * np.abs(virial).max())
    assert_allclose(virial, virial.T, rtol=0, atol=1e-10 * np.abs(virial).max())


def test_kinds_agree_in_a_large_box():
    atoms, (q, p) = molecule("H2O"), (np.array([-0.8, 0.5, 0.3]), np.array([0.1, 0.2, -0.3]))
    isolated = hardness_gradient(atoms, q, p)[0]
    boxed = hardness_gradient(Atoms(atoms, cell=[300.0] * 3, pbc=True), q, p)[0]
    assert_allclose(boxed, isolated, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_charges(kind):
    """A single set of charges takes a shorter way."""
    atoms, (q, p) = geometry(kind), charges(1.0)
    twice = [a + b for a, b in zip(hardness_gradient(atoms, q, p), hardness_gradient(atoms, p, q))]
    parts = [hardness_gradient(atoms, x, x) for x in (q + p, q, p)]
    for mixed, whole, one, other in zip(twice, *parts):
        assert_allclose(mixed, whole - one - other, rtol=0, atol=1e-9)


def test_wrapped_atoms():
    atoms, (q, p) = geometry("crystal"), charges(1.0)
    gradient, virial = hardness_gradient(atoms, q, p)
    atoms.positions += [[3, 1, 0], [-2, 0, 5], [0, 0, -1], [7, -7, 1]] @ atoms.cell.array
    moved, strained = hardness_gradient(atoms, q, p)
    assert_allclose(moved, gradient, rtol=0, atol=1e-6)
    assert_allclose(strained, virial, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["crystal", "slab"])
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_supercell(kind, total):
    atoms, (q, p) = geometry(kind), charges(total)
    gradient, virial = hardness_gradient(atoms, q, p, WIDTHS, accuracy=1e-10)
    large, Q, P, widths = atoms * (2, 3, 1), *(np.tile(x, 6) for x in (q, p, WIDTHS))
    repeated, strained = hardness_gradient(large, Q, P, widths, accuracy=1e-10)
    assert_allclose(repeated, np.tile(gradient, (6, 1)), rtol=0, atol=1e-7)
    assert_allclose(strained, 6 * virial, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["crystal", "slab"])
def test_accuracy_of_derivatives(kind):
    """The accuracy bounds elements of the matrix; their derivatives keep pace with it."""
    exact = hardness_gradient(geometry(kind), *charges(1.0), WIDTHS, accuracy=1e-12)
    for accuracy in 10.0 ** -np.arange(2, 11):
        found = hardness_gradient(geometry(kind), *charges(1.0), WIDTHS, accuracy=accuracy)
        for one, other in zip(found, exact):
            assert_allclose(one, other, rtol=0, atol=20 * accuracy)


@pytest.mark.parametrize("q", [[1.0, 2.0], [[1.0, 2.0, 3.0, 4.0]], [1.0, 2.0, 3.0, np.nan]])
def test_bad_charges(q):
    with pytest.raises(ValueError, match="q must be 4 finite charges"):
        hardness_gradient(geometry("slab"), q, np.ones(4))
    with pytest.raises(ValueError, match="p must be 4 finite charges"):
        hardness_gradient(geometry("slab"), np.ones(4), q)


@pytest.mark.parametrize("kind", KINDS)
def test_twin_agrees(kind, monkeypatch):
    compiled = import_module("skqeq._pythran._ewald")
    if not hasattr(compiled, "__pythran__"):
        pytest.skip("kernels are not compiled")
    twin = import_module("skqeq._pythran._ewald_numpy")
    results = []
    for module in (compiled, twin):
        monkeypatch.setattr(_operator, "ewald_pair_gradient", module.ewald_pair_gradient)
        monkeypatch.setattr(_waves, "structure_factors", module.structure_factors)
        results.append(hardness_gradient(geometry(kind), *charges(1.0), WIDTHS))
    for one, other in zip(*results):
        assert_allclose(one, other, rtol=0, atol=1e-11)
