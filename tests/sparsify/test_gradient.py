"""Derivatives of whitened kernel features."""

from importlib import import_module

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    StructureFeatures,
    make_targets,
    predict_energy,
    predict_forces,
    predict_std,
)
from skqeq._pythran import kernel_jacobian
from skqeq.structures import (
    DirectionalFeatures,
    FeatureSource,
    Neighborhood,
    Tile,
    check_structures,
)

from .. import helpers


def crystal(seed):
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.3, seed=seed)
    return atoms


CRYSTALS = [crystal(seed) for seed in range(3)]
MOLECULES = [helpers.rattled(name, seed) for seed, name in enumerate(["CH3NO2", "CH3OH", "HCN"])]


@pytest.mark.parametrize("X", [MOLECULES, CRYSTALS], ids=["molecules", "crystal"])
@pytest.mark.parametrize("zeta", [1, 2, 3])
@pytest.mark.parametrize("compression, per_species", [("off", True), ("mu1nu1", False)])
@pytest.mark.parametrize("cutoff_width", [None, (1.0, 1.5)], ids=["sharp", "smooth"])
def test_derivatives(X, zeta, compression, per_species, cutoff_width, monkeypatch):
    # The code divides the molecules into several pieces.
    monkeypatch.setattr("skqeq.sparsify._gradient.PIECE", 2)
    soap = SOAPFeaturizer(
        r_cut=(2.0, 3.0), n_max=3, l_max=2, cutoff_width=cutoff_width, compression=compression
    )
    sparsifier = CURSparsifier(
        n_points=2, zeta=zeta, block_weights=[1, 2], per_species=per_species, jitter=1e-6
    )
    model = make_pipeline(soap, sparsifier)
    features = model.fit_transform(X)
    atoms = X[0]
    [structure] = check_structures([atoms])
    gradient = features.gradient(structure)
    rng = np.random.default_rng(0)
    q, w = rng.normal(size=len(atoms)), rng.normal(size=features.n_features)
    dq, virial = gradient.pull_back(np.outer(q, w))
    for found, expected in zip(gradient.field_gradient(q, features.source.dual(w)), (dq, virial)):
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    phi = features[0]
    assert_allclose(gradient.field(features.source.dual(w)), phi @ w, rtol=0, atol=1e-10)
    rows = rng.normal(size=(2, len(atoms)))
    assert_allclose(gradient.contract(rows), rows @ phi, rtol=0, atol=1e-10)
    J, strains = gradient.jacobian(q)
    scale = np.abs(dq).max() + np.abs(virial).max()
    assert_allclose((J @ w).reshape(-1, 3), dq, rtol=0, atol=1e-10 * scale)
    assert_allclose((strains @ w).reshape(3, 3), virial, rtol=0, atol=1e-10 * scale)
    # The test passes several factors and several fields in one call.
    sets, weights = np.stack([rows[0], q]), rng.normal(size=(2, features.n_features))
    every = gradient.jacobian(sets)
    for k, one in enumerate(sets):
        for found, expected in zip(every, gradient.jacobian(one)):
            assert_allclose(found[k], expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    duals = features.source.dual(weights)
    single = [gradient.field_gradient(one, dual) for one, dual in zip(sets, duals)]
    for k, found in enumerate(gradient.field_gradient(sets, duals)):
        expected = single[0][k] + single[1][k]
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())

    shift, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain += strain.T

    # Derivatives along one direction: the fast way, and the general one from all derivatives.
    direction = shift, strain
    expected = np.tensordot(shift.ravel(), gradient.jacobian(rows)[0], (0, 1))
    expected += np.tensordot(strain.ravel(), gradient.jacobian(rows)[1], (0, 1))
    for directional in (
        gradient.directional(*direction),
        DirectionalFeatures(gradient, *direction),
    ):
        assert_allclose(directional.contract(rows), expected, rtol=0, atol=1e-10 * scale)
        change = directional.field(features.source.dual(w))
        assert_allclose(rows @ change, expected @ w, rtol=0, atol=1e-10 * scale)

    def value(h, strain, shift):
        moved = atoms.copy()
        moved.set_cell(atoms.cell @ (np.eye(3) + h * strain), scale_atoms=False)
        moved.positions = atoms.positions @ (np.eye(3) + h * strain) + h * shift
        return q @ model.transform([moved])[0] @ w

    for arguments, expected in (
        ((0 * strain, shift), np.sum(dq * shift)),
        ((strain, 0 * shift), np.sum(virial * strain)),
    ):
        near, far = (value(h, *arguments) - value(-h, *arguments) for h in (1e-4, 2e-4))
        assert_allclose((8 * near - far) / 12e-4, expected, rtol=0, atol=1e-7 * scale)


def test_gradients_of_stacked_sources():
    """The gradients of stacked sources are those of the parts.

    A union of descriptors before one sparse set acts like one descriptor.
    """
    soaps = [SOAPFeaturizer(r_cut=r, n_max=3, l_max=2, cutoff_width=1.0) for r in (2.0, 3.0)]
    parts = [make_pipeline(soap, CURSparsifier(n_points=2)).fit(MOLECULES) for soap in soaps]
    features = [part.transform(MOLECULES) for part in parts]
    both = np.hstack(features)
    assert both.source.has_gradient and len(both.source.sources) == 2
    structure = both.structures[0]
    gradient, single = both.gradient(structure), [f.gradient(structure) for f in features]
    rng = np.random.default_rng(0)
    q, w = rng.normal(size=(2, len(structure))), rng.normal(size=(2, both.n_features))
    dual, duals = both.dual(w), [f.dual(u) for f, u in zip(features, both.source.split(w))]
    assert_allclose(gradient.field(dual[0]), sum(g.field(u[0]) for g, u in zip(single, duals)))
    cotangents = rng.normal(size=(len(structure), both.n_features))
    shares = both.source.split(cotangents)
    for found, expected in (
        (gradient.field_gradient(q, dual), [g.field_gradient(q, u) for g, u in zip(single, duals)]),
        (gradient.pull_back(cotangents), [g.pull_back(t) for g, t in zip(single, shares)]),
    ):
        for k in range(2):
            assert_allclose(found[k], expected[0][k] + expected[1][k], rtol=0, atol=1e-10)
    for k, found in enumerate(gradient.jacobian(q)):
        expected = np.concatenate([g.jacobian(q)[k] for g in single], axis=-1)
        assert_allclose(found, expected, rtol=0, atol=1e-10)
    for k, found in enumerate(gradient.residual_variances()):
        expected = sum(g.residual_variances()[k] for g in single)
        assert_allclose(found, expected, rtol=0, atol=1e-10)
    direction = rng.normal(size=(len(structure), 3)), np.eye(3)
    directional, exact = gradient.directional(*direction), DirectionalFeatures(gradient, *direction)
    assert_allclose(directional.contract(q), exact.contract(q), rtol=0, atol=1e-10)
    assert_allclose(directional.field(dual[0]), exact.field(dual[0]), rtol=0, atol=1e-10)
    # The descriptors are stacked before one sparse set.
    union = np.hstack([soap.fit_transform(MOLECULES) for soap in soaps])
    double = SOAPFeaturizer(r_cut=(2.0, 3.0), n_max=3, l_max=2, cutoff_width=1.0)
    sparsifier = CURSparsifier(n_points=2)
    once = sparsifier.fit_transform(double.fit_transform(MOLECULES)).gradient(structure)
    stacked = sparsifier.fit_transform(union).gradient(structure)
    assert_allclose(stacked.jacobian(q)[0], once.jacobian(q)[0], rtol=0, atol=1e-10)


class Distances(FeatureSource):
    """A user-defined descriptor: sums of Gaussians of the distances to the neighbours."""

    boundaries, row_bytes, has_neighborhoods = (0, 3), 24, True

    def tiles(self, structures):
        values = np.concatenate([Near(structure).rows() for structure in structures])
        return [Tile(np.arange(len(values)), (slice(0, 3),), values)]

    def neighborhoods(self, structure):
        return [Near(structure)]


class Near(Neighborhood):
    columns = (slice(0, 3),)

    def __init__(self, structure):
        self.n_atoms = len(structure)
        self.i, self.j = np.nonzero(~np.eye(self.n_atoms, dtype=bool))
        self.D = structure.positions[self.j] - structure.positions[self.i]
        r, centers = np.linalg.norm(self.D, axis=1)[:, None], np.array([1.0, 2.0, 3.0])
        self.values = np.exp(-((r - centers) ** 2))
        # d values / d D = -2 (r - c) values D / r
        self.J = (-2 * (r - centers) * self.values / r)[:, None] * self.D[:, :, None]

    def rows(self):
        rows = np.zeros((self.n_atoms, 3))
        np.add.at(rows, self.i, self.values)
        return rows

    def pull_back(self, cotangents):
        return np.einsum("paf,pf->pa", self.J, cotangents[self.i])

    def jacobians(self, centers=None):
        pairs = np.arange(len(self.i))
        if centers is not None:
            pairs = np.flatnonzero(np.isin(self.i, centers))
        yield pairs, np.arange(3), self.J[pairs]

    def jacobian_of(self, i):
        J = np.zeros((3 * self.n_atoms + 9, 3))
        for f in range(3):
            g = np.where(self.i[:, None] == i, self.J[:, :, f], 0.0)
            J[:, f] = np.concatenate([part.ravel() for part in self.gather(g)])
        return J


def test_a_descriptor_of_a_user_has_forces_and_their_deviations():
    """A new descriptor only needs a source of features and a neighbourhood."""
    y = make_targets(charges=[np.linspace(-0.3, 0.3, len(atoms)) for atoms in MOLECULES])
    structures = check_structures(MOLECULES)
    features = StructureFeatures(structures, Distances())
    model = make_pipeline(
        CURSparsifier(n_points=2, jitter=1e-6), KQEqRegressor(store_triangles=True)
    ).fit(features, y)
    forces = predict_forces(model, features)[0]
    energies = []
    for sign in (1, -1):
        moved = MOLECULES[0].copy()
        moved.positions[1, 2] += sign * 1e-4
        moved = StructureFeatures(check_structures([moved]), Distances())
        energies.append(predict_energy(model, moved)[0])
    assert forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / 2e-4, rel=1e-5, abs=1e-7)
    # The neighbourhood has no fast derivative along a direction; it follows from the Jacobian.
    near = Near(structures[0])
    moved = np.random.default_rng(0).normal(size=near.D.shape)
    change = np.zeros((near.n_atoms, 3))
    np.add.at(change, near.i, np.einsum("paf,pa->pf", near.J, moved))
    assert_allclose(near.directional(moved), change, rtol=0, atol=1e-12)
    std = predict_std(model, features, ["forces"])["forces"]
    assert all(np.isfinite(s).all() and (s > 0).all() for s in std)


def test_sources_without_derivatives():
    features = StructureFeatures.from_arrays(MOLECULES, [np.eye(9)[a.numbers] for a in MOLECULES])
    phi = CURSparsifier(n_points=1).fit_transform(features)
    stacked = np.hstack([features, phi])
    for x in (features, phi, stacked):
        assert not x.source.has_gradient and not x.source.has_neighborhoods
        with pytest.raises(TypeError, match="need features whose derivatives are known"):
            x.gradient(x.structures[0])
    for x in (features, stacked):
        with pytest.raises(TypeError, match="need features whose derivatives are known"):
            x.dual(np.zeros(x.n_features))


@pytest.mark.filterwarnings("ignore:n_points=")
@pytest.mark.parametrize("zeta", [1, 2])
def test_coarse_sources_have_functions_of_the_fine_one(zeta):
    """A function of few sparse points is also a function of all of them, with the same norm."""
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    fine = make_pipeline(soap, CURSparsifier(n_points=6, zeta=zeta, jitter=1e-10))
    features = fine.fit_transform(MOLECULES)
    source, prolong = features.source.coarsened(2)
    assert source.boundaries[-1] < features.n_features
    w = np.random.default_rng(0).normal(size=source.boundaries[-1])
    coarse = StructureFeatures(features.structures, source)
    for i in range(len(features)):
        assert_allclose(features[i] @ prolong(w), coarse[i] @ w, rtol=0, atol=1e-6)
    assert np.linalg.norm(prolong(w)) == pytest.approx(np.linalg.norm(w), rel=1e-6)
    # Two fields with the same features, and a field without features.
    both = np.hstack([features, features]).source
    stacked, prolong_both = both.coarsened(2)
    assert stacked.sources[0] is stacked.sources[1]
    assert_allclose(prolong_both(np.append(w, 2 * w)), np.append(prolong(w), 2 * prolong(w)))


@pytest.mark.parametrize("n_pairs", [0, 7])
def test_compiled_sum_over_pairs_and_its_twin_agree(n_pairs):
    compiled = import_module("skqeq._pythran._kernel")
    if not hasattr(compiled, "__pythran__"):
        pytest.skip("kernels are not compiled")
    twin = import_module("skqeq._pythran._kernel_numpy")
    rng = np.random.default_rng(n_pairs)
    i, j, rows = (rng.integers(0, 3, size=n_pairs) for _ in range(3))
    shifts = rng.normal(size=(n_pairs, 3)) * rng.integers(0, 2, size=(n_pairs, 3))
    arrays = [rng.normal(size=s) for s in ((n_pairs, 3, 4), (n_pairs, 3), (3, 4), (3, 4), (2, 3))]
    arguments = (i, j, rows, shifts, *arrays)
    for array in arguments:
        array.flags.writeable = False
    found, expected = (m.kernel_jacobian(*arguments) for m in (compiled, twin))
    for a, b in zip(found, expected):
        assert a.shape == b.shape
        assert_allclose(a, b, rtol=0, atol=1e-13)


def test_sum_over_pairs_by_hand():
    """Atom 0 has the neighbour 1, and an image of itself."""
    i, j, rows = np.array([0, 0]), np.array([1, 0]), np.array([0, 0])
    shifts = np.array([[0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])
    products = np.array([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]])
    along = np.array([[0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    cosines, factors, q = np.array([[0.5]]), np.array([[2.0]]), np.array([[-1.0, 7.0]])
    J, virial = kernel_jacobian(i, j, rows, shifts, products, along, cosines, factors, q)
    dK = 2 * (products[0, :, 0] - 0.5 * along[0])
    # The neighbour moves; the image of the atom moves with it.
    assert_allclose(J[0, :, :, 0], [dK, -dK])
    assert_allclose(virial[0, :, :, 0], np.outer(-2 * products[1, :, 0], shifts[1]))
