"""Derivatives of whitened kernel features."""

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, SOAPFeaturizer
from skqeq.structures import check_structures

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
    # Molecules take several pieces.
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
    # Several factors, and several fields, at once.
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
