"""Laws for any structure: invariances, conservation, derivatives, linear response.

Hypothesis draws the structures, from molecules to crystals, with charges, fields and models of all
kinds. Every run tests the same structures and models.
"""

import warnings
from functools import cache

import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    _pythran,
    make_targets,
)
from skqeq._pythran import _coulomb_numpy
from skqeq.structures import check_structures

ELEMENTS = np.array([1, 6, 8])
settings.register_profile(
    "same",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("same")

# Random structures of carbon have no hydrogen atoms.
pytestmark = pytest.mark.filterwarnings("ignore:.*hydrogen atoms are probably missing")


def grown(rng, n, cell=None):
    """Positions at least one Angstrom apart, each of them near an earlier one."""
    positions = [np.zeros(3)]
    while len(positions) < n:
        step = rng.normal(size=3)
        trial = positions[rng.integers(len(positions))] + step * (1.1 / np.linalg.norm(step))
        images = np.zeros((1, 3))
        if cell is not None:
            images = np.array(list(np.ndindex(3, 3, 3))) - 1.0
            images = images @ cell
        gaps = np.array(positions)[:, None] + images - trial
        if np.linalg.norm(gaps, axis=-1).min() > 1.0:
            positions.append(trial)
    return np.array(positions)


@st.composite
def molecules(draw, smallest=2):
    """A molecule of H, C and O, with or without charge, with or without a field."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(smallest, 9))
    atoms = Atoms(rng.choice(ELEMENTS, n), grown(rng, n))
    atoms.info["charge"] = draw(st.sampled_from([0, 0, 1, -1, 0.5]))
    if draw(st.booleans()):
        atoms.info["external_field"] = rng.normal(scale=0.1, size=3)
    return atoms


@st.composite
def crystals(draw):
    """A crystal or a slab in a skewed cell."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 4))
    cell = np.eye(3) * rng.uniform(3.5, 6.0, 3) + rng.uniform(-0.8, 0.8, (3, 3))
    atoms = Atoms(rng.choice(ELEMENTS, n), grown(rng, n, cell), cell=cell, pbc=True)
    if draw(st.booleans()):
        atoms.pbc = (True, True, False)
    atoms.info["charge"] = draw(st.sampled_from([0, 0, 1]))
    return atoms


structures = st.one_of(molecules(), crystals())
kinds = st.sampled_from(["kqeq", "flow", "gap"])


@cache
def model(kind, solver="auto"):
    """A model fitted to charges and energies of made-up structures, with smooth features."""
    rng = np.random.default_rng(1)
    X = [Atoms(rng.choice(ELEMENTS, 6), grown(rng, 6)) for _ in range(8)]
    Q = [0.3 * (atoms.numbers - atoms.numbers.mean()) / 4 for atoms in X]
    energies = [-float(atoms.numbers.sum()) + 0.1 * rng.normal() for atoms in X]
    soap = make_pipeline(
        SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2, cutoff_width=1.0, species=["H", "C", "O"]),
        CURSparsifier(n_points=6),
    )
    response = (ChargeFlow if kind == "flow" else QEq)(hardness=5.0, solver=solver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "gap":
            last = GAPKQEqRegressor(sigma_charges=0.1, response=response)
            blocks = StructureBlocks([("chi", soap), ("gap", soap)])
            return make_pipeline(blocks, last).fit(X, make_targets(charges=Q, energy=energies))
        last = KQEqRegressor(sigma_charges=0.1, response=response)
        return make_pipeline(soap, last).fit(X, make_targets(charges=Q))


def observed(kind, X, names=("energy", "charges"), **options):
    fitted = model(kind, **options)
    return fitted[-1].predict_targets(fitted[:-1].transform(X), names)


@given(structures, kinds)
def test_charge_is_conserved(atoms, kind):
    [found] = observed(kind, [atoms])
    assert abs(found["charges"].sum() - atoms.info["charge"]) < 1e-10
    assert np.isfinite(found["energy"])


@given(molecules(), kinds, st.integers(0, 2**32 - 1))
def test_rotations_shifts_and_permutations(atoms, kind, seed):
    rng = np.random.default_rng(seed)
    R = Rotation.random(random_state=rng).as_matrix()
    order = rng.permutation(len(atoms))
    moved = atoms[order]
    moved.info = dict(atoms.info)
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    shift = rng.normal(size=3)
    moved.positions = moved.positions @ R.T + shift
    moved.info["external_field"] = R @ field
    names = ["energy", "charges", "dipole", "forces"]
    first, second = observed(kind, [atoms, moved], names)
    assert_allclose(second["charges"], first["charges"][order], atol=1e-8)
    assert_allclose(second["dipole"], R @ first["dipole"], atol=1e-8)
    # In a field, the energy of an ion depends on the origin.
    energy = first["energy"] - atoms.info["charge"] * (R @ field) @ shift
    assert abs(second["energy"] - energy) < 1e-7
    assert_allclose(second["forces"], first["forces"][order] @ R.T, atol=1e-6)


@given(crystals(), kinds, st.integers(0, 2**32 - 1))
def test_other_cells_of_the_same_crystal(atoms, kind, seed):
    rng = np.random.default_rng(seed)
    # Atoms move by whole cell vectors, and a vector of the plane becomes the sum of both vectors.
    moved = atoms.copy()
    moved.positions += (rng.integers(-2, 3, (len(atoms), 3)) * atoms.pbc) @ atoms.cell
    moved.positions += rng.normal(size=3)
    moved.set_cell(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]) @ atoms.cell)
    twice = atoms.copy().repeat((2, 1, 1))
    twice.info["charge"] = 2 * atoms.info["charge"]
    one, same, two = observed(kind, [atoms, moved, twice])
    assert_allclose(same["charges"], one["charges"], atol=1e-6)
    assert abs(same["energy"] - one["energy"]) < 1e-6
    assert_allclose(two["charges"], np.tile(one["charges"], 2), atol=1e-6)
    assert abs(two["energy"] - 2 * one["energy"]) < 1e-5


@given(structures, kinds, st.integers(0, 2**32 - 1))
def test_forces_are_derivatives_of_the_energy(atoms, kind, seed):
    direction = np.random.default_rng(seed).normal(size=atoms.positions.shape)
    step, ends = 1e-4, []
    for sign in (-1, 1):
        ends.append(atoms.copy())
        ends[-1].positions += sign * step * direction
    [found] = observed(kind, [atoms], ["energy", "forces"])
    low, high = observed(kind, ends, ["energy"])["energy"]
    derivative = (high - low) / (2 * step)
    error = abs(derivative + np.sum(found["forces"] * direction))
    assert error < 1e-4 * max(1.0, abs(derivative))


@given(molecules(), kinds, st.integers(0, 2**32 - 1))
def test_charges_answer_linearly_to_fields(atoms, kind, seed):
    a, b = np.random.default_rng(seed).normal(size=(2, 3))
    X = []
    for field in (0 * a, a, b, a - 2 * b):
        X.append(atoms.copy())
        X[-1].info["external_field"] = field
    found = observed(kind, X, ["charges", "energy", "dipole"])
    zero, first, second, both = found["charges"]
    assert_allclose(both - zero, (first - zero) - 2 * (second - zero), atol=1e-8)
    # The energy is quadratic in the field: E(F) - E(0) = -F . (mu_0 + mu_F) / 2.
    centre = atoms.get_center_of_mass()
    moments = found["dipole"] + atoms.info["charge"] * centre
    work = found["energy"][1] - found["energy"][0]
    assert abs(work + a @ (moments[0] + moments[1]) / 2) < 1e-7


@given(st.one_of(molecules(smallest=5), crystals()))
def test_iterative_and_dense_solvers_agree(atoms):
    dense, iterative = (observed("kqeq", [atoms], solver=s)[0] for s in ("dense", "iterative"))
    assert_allclose(iterative["charges"], dense["charges"], atol=1e-6)
    assert abs(iterative["energy"] - dense["energy"]) < 1e-5


@pytest.mark.skipif(_pythran.backend == "numpy", reason="kernels are not compiled")
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.05, 3.0))
def test_compiled_kernels_agree_with_their_twins(seed, n, width):
    rng = np.random.default_rng(seed)
    positions = grown(rng, n)
    widths = width * rng.uniform(0.5, 1.5, n)
    args = positions, widths, positions, widths
    assert_allclose(
        _pythran.gaussian_coulomb(*args), _coulomb_numpy.gaussian_coulomb(*args), rtol=1e-12
    )


@settings(max_examples=10)
@given(
    st.lists(molecules(smallest=3), min_size=3, max_size=4),
    st.floats(1e-3, 1.0),
    st.floats(1e-2, 1.0),
    st.floats(0.1, 3.0),
)
def test_the_loss_never_rises(X, sigma_energy, sigma_forces, amplitude):
    rng = np.random.default_rng(len(X))
    y = make_targets(
        energy=[float(e) for e in rng.normal(size=len(X))],
        forces=[rng.normal(size=(len(atoms), 3)) for atoms in X],
    )
    last = KQEqRegressor(
        response=QEq(hardness=5.0),
        sigma_energy=sigma_energy,
        sigma_forces=sigma_forces,
        amplitude_chi=amplitude,
        max_iter=5,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        last.fit(model("kqeq")[:-1].transform(X), y)
    losses = np.array([entry["loss"] for entry in last.fit_history_])
    assert (np.diff(losses) <= 1e-10 * losses[:-1]).all()


@settings(max_examples=25)
@given(st.lists(structures, min_size=2, max_size=12), kinds)
def test_numbers_do_not_depend_on_blocks(X, kind):
    together = observed(kind, X)
    for atoms, row in zip(X, together):
        [alone] = observed(kind, [atoms])
        assert_allclose(alone["charges"], row["charges"], atol=1e-10)
        assert abs(alone["energy"] - row["energy"]) < 1e-9 * max(1.0, abs(row["energy"]))
    features = model(kind)[:-1].transform(X)
    rows = [np.concatenate([b.toarray() for _, b in features.blocks(n)]) for n in (0, 10**4, 10**9)]
    assert_allclose(rows[0], rows[1], atol=1e-10)
    assert_allclose(rows[0], rows[2], atol=1e-10)


@settings(max_examples=25)
@given(
    st.lists(molecules(smallest=3), min_size=4, max_size=8),
    st.floats(1e-2, 1.0),
    st.floats(0.3, 3.0),
)
def test_weights_noise_and_repeated_structures(X, sigma, factor):
    """A weight w is equivalent to the noise divided by the root of w.

    The weights of the model are proportional to the labels.
    """
    D = np.random.default_rng(len(X)).normal(size=(len(X), 3))
    steps = model("kqeq")[:-1]
    phi = steps.transform(X)

    def fit(sigma_dipole, labels, weight=None, repeats=1):
        last = KQEqRegressor(sigma_dipole=sigma_dipole, baseline=False, response=QEq(hardness=5.0))
        index = np.tile(np.arange(len(X)), repeats)
        return last.fit(phi[index], labels[index], weight).coef_

    neutral = [atoms.info["charge"] == 0 for atoms in X]
    coef = fit(sigma, D)
    scale = np.abs(coef).max() + 1e-12
    weighted = fit(sigma * np.sqrt(factor), D, np.full(len(X), factor))
    assert_allclose(weighted, coef, atol=1e-8 * scale)
    assert_allclose(fit(sigma * np.sqrt(2), D, repeats=2), coef, atol=1e-8 * scale)
    if all(neutral) and not any("external_field" in atoms.info for atoms in X):
        assert_allclose(fit(sigma, 2 * D), 2 * coef, atol=1e-8 * scale)


@given(structures)
def test_checks_do_not_change_structures(atoms):
    before = atoms.copy()
    info = dict(atoms.info)
    [structure] = check_structures([atoms])
    assert atoms == before and atoms.info.keys() == info.keys()
    again = check_structures([structure.to_atoms()])[0]
    assert again.digest == structure.digest
