"""Local energies with and without charges: forces, stress, Born charges, and fits to them."""

import copy
from functools import partial

import joblib
import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import FeatureUnion, make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqCalculator,
    KQEqRegressor,
    QEqRegressor,
    SOAPFeaturizer,
    StructureBlocks,
    StructureFeatures,
    make_targets,
    predict_born_effective_charges,
    predict_charges,
    predict_energy,
    predict_forces,
    predict_polarizability,
    predict_stress,
    predict_target,
)
from skqeq._memory import BUDGET
from skqeq.models._derivative_rows import DerivativeRows
from skqeq.response import ChargeFlow, NoCharges, QEq
from skqeq.structures import collect
from skqeq.targets import TARGETS, Labels

from .test_forces import CASES, rattled

TRAINING = [rattled(atoms, seed) for seed in range(4) for atoms in CASES.values()]


def half(r_cut, n_points=8):
    soap = SOAPFeaturizer(r_cut=r_cut, n_max=3, l_max=2, cutoff_width=1.0)
    return make_pipeline(soap, CURSparsifier(n_points=n_points, jitter=1e-8))


def blocks():
    return StructureBlocks([("chi", half((2.5, 3.5), 6)), ("gap", half(3.5))])


def labels_of(X, seed=0):
    """Random labels for all targets that the structures can have."""
    rng = np.random.default_rng(seed)
    structures = collect(X)

    def random(name):
        for structure in structures:
            defined = TARGETS[name].defined(structure)
            yield np.where(defined, rng.normal(size=len(defined)), np.nan)

    return make_targets(
        energy=rng.normal(size=len(X)),
        forces=[values.reshape(-1, 3) for values in random("forces")],
        stress=list(random("stress")),
        born_effective_charges=[
            None if np.isnan(values).all() else values.reshape(-1, 3, 3)
            for values in random("born_effective_charges")
        ],
    )


OPTIONS = {"sigma_energy": 1e-3, "sigma_forces": 1e-2, "sigma_stress": 1e-4, "tol": 1e-6}


# In a crystal charge flows beyond the nearest neighbours, and it depends on the elements.
SOFTNESS = {"Na": 0.02, "Cl": 0.05, "O": 0.04, "H": 0.1}
POLARIZABILITY = {"Na": 0.0, "Cl": 2.2, "O": 0.8, "H": 0.5}
RESPONSES = {
    "qeq": QEq(hardness=2.7),
    "flow": ChargeFlow(softness=SOFTNESS, range=0.4, hardness=2.7),
    "qeq with dipoles": QEq(hardness=2.7, polarizability=POLARIZABILITY),
    "flow with dipoles": ChargeFlow(
        SOFTNESS, range=0.4, hardness=2.7, polarizability=POLARIZABILITY
    ),
}


# The code of fits does not use dipoles, so that these tests need no response with dipoles.
WITHOUT_DIPOLES = pytest.mark.parametrize("model", ["qeq", "flow"], indirect=True)


@pytest.fixture(scope="module", params=RESPONSES)
def model(request):
    """A model fitted to charges and to random energies and forces, so that all terms are large."""
    rng = np.random.default_rng(0)
    charges = [
        np.where(a.symbols == "Na", 0.8, -0.8) + 0.2 * rng.normal(size=len(a)) for a in TRAINING
    ]
    y = make_targets(
        charges=charges,
        energy=rng.normal(size=len(TRAINING)),
        forces=[rng.normal(size=(len(a), 3)) for a in TRAINING],
    )
    fitted = make_pipeline(
        blocks(),
        GAPKQEqRegressor(
            sigma_energy=0.1,
            sigma_forces=0.3,
            tol=0.1,
            amplitude_gap=3.0,
            response=RESPONSES[request.param],
        ),
    ).fit(TRAINING, y)
    # The last weights belong to the local energies.
    assert np.abs(fitted[-1].coef_[-16:]).max() > 0.1
    return fitted


def difference(function, step=1e-3):
    """Fourth-order central difference of a function of one number."""
    f = [function(n * step) for n in (-2, -1, 1, 2)]
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * step)


def along(direction, function, x=0.0, step=1e-3):
    """Derivative of a function of weights or of a geometry along a direction."""
    return difference(lambda s: function(x + s * direction), step)


def of_position(function, atoms, atom, axis):
    """Derivative of a function of a structure with respect to a coordinate of an atom."""
    return difference(lambda s: function(moved(atoms, atom, axis, s)))


def of_field(function, atoms, axis):
    """Derivative of a function of a structure with respect to a component of the field."""
    return difference(lambda s: function(in_field(atoms, axis, s)), 1e-2)


def of_strain(function, atoms, a, b):
    """Derivative of a function of a structure with respect to a component of a strain."""
    return difference(lambda s: function(strained(atoms, a, b, s)), 1e-4)


def moved(atoms, atom, axis, step):
    atoms = atoms.copy()
    atoms.positions[atom, axis] += step
    return atoms


def in_field(atoms, axis, step):
    atoms = atoms.copy()
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    field[axis] += step
    atoms.info["external_field"] = field
    return atoms


def strained(atoms, a, b, step):
    atoms = atoms.copy()
    strain = np.eye(3)
    strain[a, b] += step / 2
    strain[b, a] += step / 2
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    return atoms


def energy(model, atoms):
    return predict_energy(model, [atoms])[0]


def dipole(model, atoms):
    """Dipole about the coordinate origin."""
    [mu] = predict_target(model, [atoms], "dipole")
    return mu + atoms.info.get("charge", 0.0) * atoms.get_center_of_mass()


# ---- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_forces_and_stress(name, model):
    atoms = CASES[name]
    [forces] = predict_forces(model, [atoms])
    scale = np.abs(forces).max()
    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        derivative = of_position(partial(energy, model), atoms, atom, axis)
        assert_allclose(forces[atom, axis], -derivative, rtol=0, atol=1e-6 * scale)
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    total = atoms.info.get("charge", 0.0) * field
    assert_allclose(forces.sum(axis=0), total, rtol=0, atol=1e-8 * scale)
    if not atoms.pbc.any():
        return
    [stress] = predict_stress(model, [atoms])
    scale = np.nanmax(np.abs(stress))
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        if np.isfinite(stress[k]):
            derivative = of_strain(partial(energy, model), atoms, a, b)
            expected = derivative / atoms.get_volume()
            assert_allclose(stress[k], expected, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("name", ["molecule", "ion in a field", "slab in a field"])
def test_born_charges_and_polarizability(name, model):
    atoms = CASES[name]
    axes = [axis for axis in range(3) if not atoms.pbc[axis]]
    [born] = predict_born_effective_charges(model, [atoms])
    [polarizability] = predict_polarizability(model, [atoms])
    [charges] = predict_charges(model, [atoms])
    scale = np.abs(born[:, axes]).max()
    for atom, b in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        derivative = of_position(partial(dipole, model), atoms, atom, b)
        assert_allclose(born[atom, axes, b], derivative[axes], rtol=0, atol=1e-6 * scale)
    for a in axes:
        derivative = of_field(partial(dipole, model), atoms, a)
        assert_allclose(polarizability[axes, a], derivative[axes], rtol=0, atol=1e-8)
        derivative = of_field(lambda other: predict_forces(model, [other])[0], atoms, a)
        assert_allclose(born[:, a], derivative, rtol=0, atol=1e-8 * scale)
    # Check the acoustic sum rule and the sum of the charges.
    charge = atoms.info.get("charge", 0.0)
    assert_allclose(born.sum(axis=0)[axes], charge * np.eye(3)[axes], rtol=0, atol=1e-8)
    assert_allclose(charges.sum(), charge, rtol=0, atol=1e-10)
    # Exactly the components along periodic axes are undefined.
    undefined = np.isin(np.arange(3), axes, invert=True)
    assert (np.isnan(born) == undefined[None, :, None]).all()
    assert (np.isnan(polarizability) == np.logical_or.outer(undefined, undefined)).all()


def test_crystals_have_no_derivatives_of_a_dipole(model):
    for name in ("crystal", "charged crystal"):
        for function in (predict_born_effective_charges, predict_polarizability):
            with pytest.raises(ValueError, match=r"structure 1 .*pbc = .* undefined"):
                function(model, [CASES["molecule"], CASES[name]])
    both = predict_born_effective_charges(model, [CASES["molecule"], CASES["charged slab"]])
    assert [b.shape for b in both] == [(2, 3, 3), (8, 3, 3)]
    assert np.isnan(both[1]).any(axis=(0, 2)).tolist() == [False, True, True]


def test_energy_of_a_neutral_molecule_in_a_field(model):
    atoms = rattled(molecule("NaCl"), 3)
    without, mu = energy(model, atoms), dipole(model, atoms)
    [polarizability] = predict_polarizability(model, [atoms])
    # The polarisability, as a volume, is positive and smaller than that of a metal ball of the
    # molecule's size.
    assert 0.0 < np.linalg.eigvalsh(polarizability)[-1] * 14.4 < 30.0
    for field in np.random.default_rng(0).normal(size=(3, 3)):
        atoms.info["external_field"] = field
        expected = without - mu @ field - field @ polarizability @ field / 2
        assert_allclose(predict_energy(model, [atoms]), [expected], rtol=0, atol=1e-10)


def test_centre_of_mass_and_origin(model):
    """Dipoles are about the centre of mass, Born charges about the origin.

    For ions this matters.
    """
    atoms = CASES["ion in a field"]
    [born] = predict_born_effective_charges(model, [atoms])
    share = atoms.get_masses() / atoms.get_masses().sum()
    derivative = of_position(lambda other: predict_target(model, [other], "dipole")[0], atoms, 2, 1)
    expected = born[2, :, 1] - atoms.info["charge"] * share[2] * np.eye(3)[1]
    assert_allclose(derivative, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("budget", "response"),
    [*((2**31, name) for name in RESPONSES), (5000, "qeq"), (5000, "flow")],
)
def test_rows_are_derivatives(budget, response, memory_budget):
    X = list(CASES.values())
    phi = blocks().fit_transform(X)
    memory_budget(budget)
    problem = GAPKQEqRegressor(response=RESPONSES[response]).problem(phi, labels_of(X))
    rows, claimed = DerivativeRows(problem, problem.labels.names), BUDGET.claimed
    v = 0.3 * np.random.default_rng(1).normal(size=problem.layout.n_columns)

    def stacked(v):
        jacobians, residuals = zip(*rows.linearize(v))
        return np.concatenate(jacobians), np.concatenate(residuals)

    J, residual = stacked(v)
    # The rows are those of test_energies.py and the Born charges of two molecules, and of two slabs
    # along one axis.
    assert len(J) == 6 + 3 * 42 + 2 * 6 + 2 * 3 + 9 * (2 + 8) + 3 * 2 * 8
    assert BUDGET.claimed - claimed <= budget
    assert (BUDGET.claimed - claimed > 5000) == (budget > 5000)
    # The random direction changes every weight.
    step = np.random.default_rng(2).normal(size=len(v))
    expected = along(step, lambda x: stacked(x)[1], v)
    assert_allclose(J @ step, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


# ---- fit ----------------------------------------------------------------------------------------


@WITHOUT_DIPOLES
def test_a_known_model_is_found_again(model):
    """Fit the energies, forces and Born charges that a known model predicts."""
    names = ["energy", "forces", "stress", "dipole", "charges"]
    y = model[-1].predict_targets(model[:-1].transform(TRAINING), names)
    response = model[-1].response
    found = GAPKQEqRegressor(**OPTIONS, amplitude_gap=3.0, response=response)
    found = make_pipeline(model[:-1], found)
    assert found.fit(TRAINING, y).score(TRAINING, y) > 0.9999
    losses = [entry["loss"] for entry in found[-1].fit_history_]
    assert (np.diff(losses) <= 1e-12 * losses[0]).all()


@WITHOUT_DIPOLES
def test_the_fit_has_the_least_loss(model):
    """The test computes the loss from predictions, and changes the weights in random directions."""
    rng, X = np.random.default_rng(5), TRAINING[:6]
    phi = model[:-1].transform(X)
    y = make_targets(
        energy=rng.normal(size=len(phi)),
        forces=[rng.normal(size=(len(a), 3)) for a in X],
        dipole=[None if a.pbc.any() else rng.normal(size=3) for a in X],
    )
    options = {"sigma_energy": 0.1, "sigma_forces": 0.5, "sigma_dipole": 0.2, "tol": 1e-16}
    options["max_iter"] = 100
    fitted = GAPKQEqRegressor(**options, response=model[-1].response).fit(phi, y)
    prior = fitted.layout_.scale
    n_elements = len(fitted.elements_)

    def loss(change):
        other = copy.copy(fitted)
        other.coef_ = fitted.coef_ + change[:-n_elements]
        other.atomic_energies_ = fitted.atomic_energies_ + change[-n_elements:]
        predicted = other.predict(phi)
        total = 0.5 * np.sum((other.coef_ / prior[:-n_elements]) ** 2)
        # The test omits the prior of the atomic energies, because it is nearly flat.
        for i, atoms in enumerate(X):
            total += 0.5 * ((predicted["energy"][i] - y["energy"][i]) / (0.1 * len(atoms))) ** 2
            total += 0.5 * np.sum((predicted["forces"][i] - y["forces"][i]) ** 2) / 0.5**2
            total += 0.5 * np.nansum((predicted["dipole"][i] - y["dipole"][i]) ** 2) / 0.2**2
        return total

    least = loss(np.zeros(len(prior)))
    for _ in range(8):
        direction = rng.normal(size=len(prior)) * prior
        direction[-n_elements:] = 0.0
        derivative = along(direction, loss, step=1e-4)
        assert abs(derivative) < 1e-5 * least
        assert loss(1e-3 * direction) > least


@pytest.mark.parametrize("targets", [["forces"], ["stress"], ["forces", "energy"]])
def test_local_energies_learn_derivatives_alone(targets):
    """Labels of energies may be absent for some structures, or for all."""
    X = [rattled(CASES["crystal"], seed) for seed in range(6)]
    phi = half(3.5).fit_transform(X)
    teacher = GAPRegressor(sigma_energy=0.1).fit(phi, make_targets(energy=np.arange(6.0)))
    y = teacher.predict_targets(phi, targets)
    if "energy" in targets:
        y["energy"][2:] = np.nan
    found = GAPRegressor(sigma_forces=1e-4, sigma_stress=1e-6, sigma_energy=1e-4).fit(phi, y)
    assert found.score(phi, y) > 0.999


def test_local_energies_alone_are_a_ridge_regression():
    phi = half(3.5).fit_transform(TRAINING)
    y = np.random.default_rng(0).normal(size=len(TRAINING))
    energies = {"Na": -2.0, "Cl": 1.0}
    model = GAPRegressor(
        sigma_energy=0.1, amplitude_gap=2.0, energy_noise="per_structure", atomic_energies=energies
    ).fit(phi, make_targets(energy=y))
    rows = np.array([block.sum(axis=0) for block in phi])
    free = np.array([sum(energies[s] for s in atoms.symbols) for atoms in TRAINING])
    ridge = Ridge(alpha=(0.1 / 2.0) ** 2, fit_intercept=False).fit(rows, y - free)
    assert_allclose(model.coef_, ridge.coef_, rtol=0, atol=1e-8)
    assert_allclose(model.predict(phi)["energy"], ridge.predict(rows) + free, rtol=0, atol=1e-8)
    assert len(model.fit_history_) == 1


def test_a_local_energy_has_exact_forces():
    rng = np.random.default_rng(1)
    y = labels_of(TRAINING)[["energy", "forces", "stress"]]
    model = make_pipeline(half((2.5, 3.5)), GAPRegressor(sigma_forces=0.3)).fit(TRAINING, y)
    for atoms in (CASES["molecule"], CASES["crystal"]):
        [forces] = predict_forces(model, [atoms])
        for atom, axis in rng.integers((len(atoms), 3), size=(3, 2)):
            derivative = of_position(partial(energy, model), atoms, atom, axis)
            assert_allclose(
                forces[atom, axis], -derivative, rtol=0, atol=1e-6 * np.abs(forces).max()
            )


@WITHOUT_DIPOLES
def test_local_energies_have_no_charges(model):
    phi = half(3.5).fit_transform(TRAINING)
    y = make_targets(energy=np.zeros(len(TRAINING)))
    local = GAPRegressor().fit(phi, y)
    message = "GAPRegressor has no charges and does not predict"
    with pytest.raises(ValueError, match=f"{message} charges"):
        local.predict_charges(phi)
    with pytest.raises(ValueError, match=f"{message} charges"):
        local.predict_electronegativities(phi)
    with pytest.raises(ValueError, match=f"{message} dipole"):
        local.predict_polarizability(phi)
    local.set_params(store_triangles=True).fit(phi, y)
    for name in ("charges", "dipole", "born_effective_charges"):
        with pytest.raises(ValueError, match=f"{message} {name}"):
            local.predict_std(phi, ["energy", name])
    with pytest.raises(ValueError, match=f"{message} dipole"):
        GAPRegressor().fit(phi, make_targets(dipole=np.zeros((len(phi), 3))))
    for solution in local.solutions(phi[:6], ["forces"]):
        n = len(solution.structure)
        assert solution.induced_dipoles is None
        assert_array_equal(solution.polarizability, np.zeros((3, 3)))
        assert_array_equal(solution.born_effective_charges, np.zeros((n, 3, 3)))
        assert_array_equal(solution.charges, np.zeros(n))
        assert_array_equal(solution.potential, np.zeros(n))
        with pytest.raises(ValueError, match="the model has no electronegativities"):
            solution.chi  # noqa: B018
    atoms = CASES["molecule"].copy()
    atoms.calc = KQEqCalculator(make_pipeline(half(3.5), GAPRegressor()).fit(TRAINING, y))
    assert atoms.get_potential_energy() == pytest.approx(0.0, abs=1e-8)
    for name in ("charges", "dipole", "polarizability"):
        with pytest.raises(NotImplementedError, match="local energies, but no charges"):
            atoms.calc.get_property(name, atoms)


def test_a_response_without_charges_leaves_the_local_energy_alone():
    phi = blocks().fit_transform(TRAINING)
    y = labels_of(TRAINING)[["energy", "forces", "stress"]]
    gap = StructureFeatures(phi.structures, phi.source.sources[1])
    joint = GAPKQEqRegressor(response=NoCharges()).fit(phi, y)
    alone = GAPRegressor().fit(gap, y)
    assert_allclose(joint.coef_, alone.coef_, rtol=0, atol=1e-9 * np.abs(alone.coef_).max())
    assert_allclose(joint.predict(phi)["energy"], alone.predict(gap)["energy"], rtol=1e-9)
    with pytest.raises(ValueError, match="GAPKQEqRegressor has no charges and does not predict"):
        joint.predict_charges(phi)


@pytest.mark.filterwarnings("ignore:n_points=:UserWarning")  # atoms beyond the cutoff are alike
def test_fragments_beyond_the_cutoff():
    """Charges attract each other beyond the cutoff; the local energy is constant there."""
    narrow = QEq(hardness=10.0, radius_scale=0.5)
    truth = QEqRegressor(sigma_charges=1e-3, response=narrow)
    pair = molecule("NaCl")
    X = []
    for distance in np.linspace(2.2, 9.0, 24):
        X.append(pair.copy())
        X[-1].set_distance(0, 1, distance, fix=0)
    truth.fit(X[:1], make_targets(charges=[[0.7, -0.7]]))
    y = make_targets(energy=truth.predict_energy(X))
    near, far = [X[i] for i in range(0, 24, 2)], X[1::2]
    joint = make_pipeline(
        StructureBlocks([("chi", half(3.0)), ("gap", half(3.0))]),
        GAPKQEqRegressor(sigma_energy=1e-4, amplitude_chi=0.3, response=narrow),
    ).fit(near, y[::2])
    local = make_pipeline(half(3.0), GAPRegressor(sigma_energy=1e-4)).fit(near, y[::2])
    errors = [np.abs(predict_energy(m, far) - y["energy"][1::2]).max() for m in (joint, local)]
    assert errors[0] < 0.02 < 0.2 < errors[1]


@WITHOUT_DIPOLES
def test_charges_are_learned_from_born_charges_and_dipoles(model):
    """Both targets are linear in the weights, so that the fit needs no iteration."""
    X = [atoms for atoms in TRAINING if not atoms.pbc.any()]
    phi = model[:-1].transform(X)
    y = model[-1].predict_targets(phi, ["dipole", "born_effective_charges"])
    options = {"sigma_born_effective_charges": 1e-4, "sigma_dipole": 1e-4}
    found = GAPKQEqRegressor(**options, response=model[-1].response).fit(phi, y)
    assert len(found.fit_history_) == 1
    assert found.score(phi, y) > 0.99999
    for one, other in zip(found.predict_charges(phi), model[-1].predict_charges(phi), strict=True):
        assert_allclose(one, other, atol=0.05)


@WITHOUT_DIPOLES
def test_born_charges_decide_the_sign(model):
    """Energies and forces leave the sign of the charges undetermined.

    Classical electronegativities can have the wrong sign.
    """
    X = [atoms for atoms in TRAINING if not atoms.pbc.any()]
    phi = model[:-1].transform(X)
    truth = copy.copy(model[-1])
    truth.coef_, truth.layout_ = -truth.coef_, copy.copy(truth.layout_)
    truth.layout_.means = truth.layout_.means.copy()
    # The last means are atomic energies; their sign must not change.
    truth.layout_.means[:-1] *= -1.0
    y = truth.predict_targets(phi, ["energy", "forces", "born_effective_charges"])
    found = GAPKQEqRegressor(**OPTIONS, amplitude_gap=3.0).fit(phi, y)
    assert found.score(phi, y) > 0.99
    for atoms, charges in zip(X, found.predict_charges(phi), strict=True):
        if not atoms.info.get("charge"):
            assert charges[atoms.symbols == "Na"].mean() < -0.3


@WITHOUT_DIPOLES
def test_forms_of_born_charges(model):
    """Labels may be rows of nine numbers, and may be defined along the periodic axes of a slab."""
    X = [CASES["molecule"], CASES["slab in a field"]]
    born = [b.reshape(-1, 9) for b in predict_born_effective_charges(model, X)]
    table = make_targets(born_effective_charges=born)["born_effective_charges"]
    assert [b.shape for b in table] == [(2, 3, 3), (8, 3, 3)]
    full = make_targets(born_effective_charges=[np.nan_to_num(b) for b in born])
    labels = Labels(full, collect(X))
    known = ~np.isnan(labels.table["born_effective_charges"][1])
    assert known.any(axis=(0, 2)).tolist() == [False, False, True]
    assert not np.isnan(full["born_effective_charges"][1]).any()


# ---- features in blocks -------------------------------------------------------------------------


@WITHOUT_DIPOLES
def test_order_of_blocks_does_not_matter(model):
    y = labels_of(TRAINING)[["energy"]]
    parts = [("gap", half(3.5)), ("chi", half(2.5))]
    one, other = (
        make_pipeline(StructureBlocks(order), GAPKQEqRegressor(sigma_energy=0.1)).fit(TRAINING, y)
        for order in (parts, parts[::-1])
    )
    assert_allclose(one[-1].coef_, other[-1].coef_, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="but with a different meaning: the param"):
        one[-1].predict(other[0].set_params(chi=half(3.5), gap=half(2.5)).fit_transform(TRAINING))


@pytest.mark.parametrize(
    "features, message",
    [
        (
            half(2.5),
            "takes the blocks chi and gap, and .* got features without names; make them with",
        ),
        (FeatureUnion([("chi", half(2.5)), ("gap", half(3.0))]), "got features without names"),
        (StructureBlocks([("chi", half(2.5)), ("GAP", half(3.0))]), "got blocks chi, GAP"),
        (StructureBlocks([("chi", half(2.5))]), "got blocks chi; make them with StructureBlocks"),
    ],
)
def test_blocks_must_be_chi_and_gap(features, message):
    y = make_targets(energy=np.zeros(len(TRAINING)))
    with pytest.raises(ValueError, match=message):
        make_pipeline(features, GAPKQEqRegressor()).fit(TRAINING, y)


def test_bad_blocks():
    y = make_targets(energy=np.zeros(len(TRAINING)))
    with pytest.raises(TypeError, match="features of structures, got list; make them with S"):
        GAPKQEqRegressor().fit(TRAINING, y)
    weighted = StructureBlocks([("chi", half(2.5))], transformer_weights={"chi": 2.0})
    for method in (weighted.fit, weighted.fit_transform):
        with pytest.raises(ValueError, match="transformer_weights do not apply to features"):
            method(TRAINING)
    with pytest.raises(TypeError, match="block 'b' is a list, but must be features of structures"):
        StructureFeatures.stacked({"a": half(2.5).fit_transform(TRAINING), "b": []})


@WITHOUT_DIPOLES
def test_blocks_are_indexed_and_concatenated(model):
    phi = model[:-1].transform(TRAINING)
    assert repr(phi) == (
        f"<StructureFeatures: 24 structures, {4 * 42} atoms, chi: 12 features, gap: 16 features>"
    )
    assert repr(phi[3:5]).endswith("chi: 12 features, gap: 16 features>")
    both = np.concatenate([phi[:2], phi[2:4]])
    assert_allclose(both[3], phi[3])
    assert both.source.names == ("chi", "gap")


def test_search_persistence_and_calculator(tmp_path):
    X = [rattled(atoms, seed) for seed in range(6) for atoms in list(CASES.values())[:2]]
    y = labels_of(X)[["energy", "forces"]]
    groups = np.repeat(np.arange(6), 2)
    grid = {
        "structureblocks__chi__soapfeaturizer__r_cut": [2.5, 3.0],
        "structureblocks__gap__soapfeaturizer__r_cut": [3.0],
        "gapkqeqregressor__sigma_forces": [0.1, 0.3],
    }
    pipeline = make_pipeline(
        StructureBlocks([("chi", half(2.5, 4)), ("gap", half(2.5, 4))]),
        GAPKQEqRegressor(sigma_energy=0.1, tol=1e-2),
    )
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), error_score="raise")
    search.fit(X, y, groups=groups)
    assert len(search.cv_results_["mean_test_score"]) == 4
    joblib.dump(search, tmp_path / "model.joblib")
    loaded = joblib.load(tmp_path / "model.joblib")
    assert (loaded.predict(X)["energy"] == search.predict(X)["energy"]).all()
    atoms = X[0].copy()
    atoms.calc = KQEqCalculator(loaded)
    assert atoms.get_potential_energy() == pytest.approx(search.predict(X[:1])["energy"][0])
    born = atoms.calc.get_property("born_effective_charges", atoms)
    assert_allclose(born, predict_born_effective_charges(search, X[:1])[0])
    polarizability = atoms.calc.get_property("polarizability", atoms)
    assert_allclose(polarizability, predict_polarizability(search, X[:1])[0])
    slab = CASES["slab in a field"].copy()
    slab.calc = KQEqCalculator(loaded)
    born = slab.calc.get_property("born_effective_charges", slab)
    assert_allclose(born, predict_born_effective_charges(search, [slab])[0])
    assert "polarizability" in slab.calc.results
    slab.get_forces()  # The calculator has already stored the forces.
    crystal = CASES["crystal"].copy()
    crystal.calc = KQEqCalculator(loaded)
    with pytest.raises(NotImplementedError, match="no polarizability: a dipole moment is not"):
        crystal.calc.get_property("polarizability", crystal)


def test_kqeq_is_the_case_without_local_energy():
    """If the amplitude of the local energies is nearly zero, the fit is that of KQEqRegressor."""
    X = TRAINING[:12]
    phi = blocks().fit_transform(X)
    y = labels_of(X)[["energy", "forces"]]
    chi = StructureFeatures(phi.structures, phi.source.sources[0])
    options = {"sigma_energy": 0.1, "sigma_forces": 0.5, "response": QEq(hardness=2.7)}
    start = 0.1 * np.random.default_rng(0).normal(size=12 + 2)
    options |= {"init": start, "tol": 1e-16}
    joint = GAPKQEqRegressor(amplitude_gap=1e-9, **options)
    joint.set_params(init=np.append(start, np.zeros(16)))
    alone = KQEqRegressor(**options).fit(chi, y)
    joint.fit(phi, y)
    losses = [[step["loss"] for step in m.fit_history_] for m in (alone, joint)]
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=1e-8)
    assert losses[0][-1] < 0.8 * losses[0][0]
    assert_allclose(joint.coef_[:14], alone.coef_, rtol=0, atol=1e-6)
    assert np.abs(joint.coef_[14:]).max() < 1e-8
    assert_allclose(joint.predict(phi)["energy"], alone.predict(chi)["energy"], atol=1e-6)


@pytest.mark.parametrize("kind", ["gap", "qeq", "flow"])
def test_several_processes(kind):
    rng = np.random.default_rng(0)
    energies = rng.normal(size=len(TRAINING))
    forces = [rng.normal(size=(len(a), 3)) for a in TRAINING]
    y = make_targets(energy=energies, forces=forces)
    if kind == "gap":
        phi, model = half(3.5).fit_transform(TRAINING), GAPRegressor()
    else:
        options = {"sigma_energy": 0.1, "sigma_forces": 0.3, "tol": 1e-16}
        phi = blocks().fit_transform(TRAINING)
        model = GAPKQEqRegressor(**options, response=RESPONSES[kind])
    whole, parallel = (clone(model).set_params(n_jobs=n).fit(phi, y) for n in (1, 2))
    assert_allclose(parallel.coef_, whole.coef_, rtol=0, atol=1e-8 * np.abs(whole.coef_).max())
