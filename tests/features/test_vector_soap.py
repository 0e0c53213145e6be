"""Vector features turn with the structure, and so do their derivatives."""

from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation
from sklearn.base import clone

from skqeq import SOAPFeaturizer, VectorSOAPFeaturizer, load, save
from skqeq.features import SOAPNeighborhood
from skqeq.features._vector_products import coupling
from skqeq.structures import check_structures

from .. import helpers

NAMES = ["CH3OH", "CH3CONH2", "CH3CHO", "H2O"]
X = [helpers.rattled(name, seed) for seed, name in enumerate(NAMES)]
OPTIONS = {"n_max": 3, "l_max": 3, "n_channels": 4}


@pytest.fixture(scope="module")
def featurizer():
    both = VectorSOAPFeaturizer((2.0, 3.5), block_weights=(3, 1), cutoff_width=1.0, **OPTIONS)
    return both.fit(X)


def vectors(featurizer, atoms):
    """Features of one structure, with the axes before the features."""
    return featurizer.transform([atoms])[0].reshape(len(atoms), 3, -1)


@pytest.mark.parametrize("l", range(5))
def test_the_coupling_is_orthonormal(l):
    T = coupling(l)
    assert_allclose(np.einsum("amk,bmk->ab", T, T), np.eye(3), atol=1e-15)


def test_rotation_and_inversion(featurizer):
    for seed, atoms in enumerate(X):
        R = Rotation.random(random_state=seed).as_matrix()
        before, turned, inverted = vectors(featurizer, atoms), atoms.copy(), atoms.copy()
        turned.positions = atoms.positions @ R.T + 1.0
        inverted.positions = -atoms.positions
        expected = np.einsum("ab,ibf->iaf", R, before)
        assert_allclose(vectors(featurizer, turned), expected, atol=1e-12)
        assert_allclose(vectors(featurizer, inverted), -before, atol=1e-14)


def test_atoms_in_symmetric_surroundings_have_no_vector():
    featurizer = VectorSOAPFeaturizer(**OPTIONS).fit([*X, molecule("CH4")])
    assert_allclose(vectors(featurizer, molecule("CH4"))[0], 0.0, atol=1e-14)


def test_an_element_whose_vectors_vanish_has_no_features():
    alone = VectorSOAPFeaturizer(**OPTIONS).fit([molecule("CH4")])
    assert not alone.transform([X[0]])[0][0].any()  # carbon
    assert alone.spectra_[0].scales.tolist()[1] == 0.0
    assert VectorSOAPFeaturizer(**OPTIONS).fit_transform([Atoms("O")])[0].shape[0] == 1


def test_the_definition(featurizer):
    """The features are sums over pairs of coefficients, by the formula of the docstring."""
    atoms, b = X[0], 1
    spectrum = featurizer.spectra_[b]
    [structure] = check_structures([atoms])
    c = spectrum.coefficients([structure])
    for i in range(2):
        e = list(featurizer.species_).index(atoms.numbers[i])
        norm, parts = np.sum(c[i] ** 2), []
        for l in range(3):
            U = spectrum.components[:, e]
            high = c[i, (l + 1) ** 2 : (l + 2) ** 2] @ U[l + 1]
            low = c[i, l**2 : (l + 1) ** 2] @ U[l]
            parts.append(np.einsum("amk,mA,kB->aAB", coupling(l), high, low).reshape(3, -1))
        expected = 0.5 * np.concatenate(parts, axis=1) / (norm * spectrum.scales[e])
        found = vectors(featurizer, atoms)[i, :, b * 4 * 48 :][:, e * 48 : (e + 1) * 48]
        assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_the_mean_square_is_the_weight(featurizer):
    squares = {number: [] for number in featurizer.species_}
    for atoms in X:
        for number, v in zip(atoms.numbers, vectors(featurizer, atoms), strict=True):
            squares[number].append(np.square(v).reshape(3, 2, -1).sum(axis=2))
    for of_element in squares.values():
        assert_allclose(np.mean(of_element, axis=(0, 1)), [0.75, 0.25], rtol=1e-10)


def test_coefficients_give_the_power_spectrum():
    [structure] = check_structures([X[1]])
    [spectrum] = SOAPFeaturizer(3.0, n_max=3, l_max=2).fit([X[1]]).spectra_
    c = SOAPNeighborhood(spectrum, structure).coefficients()
    p = spectrum.rows(structure)
    diagonal = np.einsum("imk,imk->i", c[:, :1], c[:, :1])
    first = [k for k, (l, a, b) in enumerate(_order(4, 3, 2)) if l == 0 and a == b]
    assert_allclose(p[:, first].sum(axis=1), diagonal, rtol=1e-7)


def _order(n_species, n_max, l_max):
    """Degree and both channels of every feature, in DScribe's order."""
    return [
        (l, z * n_max + n, other * n_max + m)
        for z in range(n_species)
        for other in range(z, n_species)
        for l in range(l_max + 1)
        for n in range(n_max)
        for m in range(n if z == other else 0, n_max)
    ]


@pytest.mark.parametrize("atoms", [X[1], bulk("NaCl", "rocksalt", a=5.64)], ids=["CHNO", "NaCl"])
def test_kernels_equal_their_twins(atoms):
    [structure] = check_structures([atoms])
    [spectrum] = SOAPFeaturizer(3.0, n_max=3, l_max=3, cutoff_width=1.0).fit([atoms]).spectra_
    arguments = SOAPNeighborhood(spectrum, structure)._arguments
    for name in ("soap_coefficients", "soap_coefficient_slopes"):
        loop, twin = (
            getattr(import_module(f"skqeq._pythran.{module}"), name)(*arguments)
            for module in ("_soap", "_soap_numpy")
        )
        assert_allclose(loop, twin, rtol=1e-11, atol=1e-13)


def displaced(featurizer, atoms, function, step=1e-4):
    """Central differences of fourth order of a function of the features, by position."""
    result = np.zeros((len(atoms), 3))
    for i, a in np.ndindex(*result.shape):
        for factor, h in ((8, 1), (-8, -1), (-1, 2), (1, -2)):
            moved = atoms.copy()
            moved.positions[i, a] += h * step
            result[i, a] += factor * function(featurizer.transform([moved])[0]) / (12 * step)
    return result


@pytest.mark.parametrize("atoms", [X[0], bulk("NaCl", "rocksalt", a=5.64)], ids=["CH4O", "NaCl"])
def test_derivatives(atoms):
    if atoms.pbc.any():
        atoms = atoms.copy()
        atoms.rattle(0.1, seed=0)
    featurizer = VectorSOAPFeaturizer((2.5, 3.5), cutoff_width=1.5, **OPTIONS).fit([*X, atoms])
    features, rng = featurizer.transform([atoms]), np.random.default_rng(0)
    q, w = rng.normal(size=len(atoms)), rng.normal(size=features.n_features)
    gradient = features.gradient(features.structures[0])
    by_positions, virial = gradient.field_gradient(q, w)
    expected = displaced(featurizer, atoms, lambda v: q @ v @ w)
    assert_allclose(by_positions, expected, atol=1e-7 * np.abs(expected).max())
    stretched, h = [], 1e-4
    for sign in (-1, 1):
        other = atoms.copy()
        strain = np.eye(3) + sign * h * np.outer([1, 2, 3], [1, 2, 3])
        other.set_cell(atoms.cell.array @ strain, scale_atoms=False)
        other.positions = atoms.positions @ strain
        stretched.append(q @ featurizer.transform([other])[0] @ w)
    along = np.outer([1, 2, 3], [1, 2, 3])
    difference = (stretched[1] - stretched[0]) / (2 * h)
    assert_allclose(np.sum(along * virial), difference, rtol=1e-5)
    J, of_strain = gradient.jacobian(np.stack([q, 2 * q]))
    assert_allclose((J @ w)[0], by_positions.ravel(), atol=1e-12 * np.abs(J).max())
    assert_allclose((J @ w)[1], 2 * by_positions.ravel(), atol=1e-11 * np.abs(J).max())
    assert_allclose(of_strain[0] @ w, virial.ravel(), atol=1e-10)
    assert_allclose(gradient.contract(q[None])[0], q @ features[0], atol=1e-13)
    assert_allclose(gradient.field(w), features[0] @ w, atol=1e-12)
    pulled, _ = gradient.pull_back(np.multiply.outer(q, w))
    assert_allclose(pulled, by_positions, atol=1e-11)
    move = rng.normal(size=(len(atoms), 3)), np.zeros((3, 3))
    moved = gradient.directional(*move)
    assert_allclose(q @ moved.field(w), np.sum(move[0] * by_positions), rtol=1e-9)
    assert not any(part.any() for part in gradient.residual_variances())


def test_blocks_of_structures_and_single_structures_agree(featurizer):
    features = featurizer.transform(X)
    [(_, block)] = features.blocks()
    assert_array_equal(block.rows_of(1), features[1])
    assert features.n_features == featurizer.n_features_out_ == 3 * 2 * 4 * 48
    assert_array_equal(clone(featurizer).fit_transform(X)[2], features[2])


def test_unknown_elements_have_no_features(featurizer):
    strange = molecule("CH3Cl")
    far = X[3].copy()
    far.positions += 30.0
    rows = featurizer.transform([strange + far, X[0]])
    assert not rows[0][:5].any()
    assert_allclose(rows[0][5:], featurizer.transform([X[3]])[0], atol=1e-13)
    with pytest.raises(ValueError, match="Cl"):
        rows.gradient(rows.structures[0])


def test_save_and_load(featurizer, tmp_path):
    save(featurizer, tmp_path / "vectors.skqeq")
    loaded = load(tmp_path / "vectors.skqeq")
    assert_array_equal(loaded.transform(X)[0], featurizer.transform(X)[0])
    assert loaded.transform(X).source.signature == featurizer.transform(X).source.signature


def test_a_broken_file_is_refused(featurizer, tmp_path):
    broken = clone(featurizer).fit(X)
    broken.spectra_[0].scales = broken.spectra_[0].scales[:-1]
    save(broken, tmp_path / "broken.skqeq")
    with pytest.raises(ValueError, match="scales"):
        load(tmp_path / "broken.skqeq")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"r_cut": 0.5}, "r_cut"),
        ({"l_max": 0}, "l_max"),
        ({"n_channels": 0}, "n_channels"),
        ({"r_cut": (2.0, 3.0), "block_weights": (1.0,)}, "block_weights must be 2"),
        ({"block_weights": (-1.0,)}, "block_weights must be 1"),
        ({"species": ["H", "C"]}, "structure 0 .* O"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        VectorSOAPFeaturizer(**params).fit(X)
