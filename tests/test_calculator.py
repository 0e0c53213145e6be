"""The calculator against predictions and finite differences, and in ASE's dynamics."""

import io
import json
import pickle
import threading

import joblib
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import MTKNPT
from ase.md.nptberendsen import NPTBerendsen
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS, FIRE
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureFeatures,
    make_targets,
    predict_charges,
    predict_energy,
    predict_forces,
    predict_target,
)
from skqeq.calculator import ProgressBar
from skqeq.response import QEqEquilibrium


def rattled(atoms, seed=0, **info):
    atoms = atoms.copy()
    atoms.rattle(0.1, seed=seed)
    atoms.info |= info
    return atoms


def salt(pbc, **info):
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    if pbc == (True, True, False):
        atoms.center(vacuum=4.0, axis=2)
    atoms.pbc = pbc
    return rattled(atoms, **info)


SLAB, CRYSTAL = (True, True, False), True
CASES = {
    "molecule": rattled(molecule("NaCl")),
    "cluster": salt(False),
    "ion in a field": salt(False, charge=1.0, external_field=[0.1, -0.2, 0.3]),
    "slab": salt(SLAB),
    "charged slab in a field": salt(SLAB, charge=-1.0, external_field=[0.0, 0.0, 0.2]),
    "crystal": salt(CRYSTAL),
    "charged crystal": salt(CRYSTAL, charge=1.0),
}


def pair_potential(atoms):
    """Energy and forces of ions: unlike ions attract each other, like ions repel each other."""
    i, j, r, D = neighbor_list("ijdD", atoms, 8.0)
    unlike = atoms.numbers[i] != atoms.numbers[j]
    x = np.exp(-1.2 * (r - 2.7))
    energy = np.where(unlike, 0.8 * (x**2 - 2.0 * x), 0.8 * x)
    derivative = np.where(unlike, -1.92 * (x**2 - x), -0.96 * x)
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, (derivative / r)[:, None] * D)
    return energy.sum() / 2, forces


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    names = ("molecule", "cluster", "crystal")
    X = [CASES[name].copy() for name in names for _ in range(6)]
    for atoms in X:
        atoms.set_cell(atoms.cell * rng.uniform(0.95, 1.05), scale_atoms=True)
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    energy, forces = zip(*(pair_potential(atoms) for atoms in X))
    return make_pipeline(
        SOAPFeaturizer(r_cut=4.0, n_max=4, l_max=3),
        CURSparsifier(n_points=25),
        KQEqRegressor(sigma_forces=0.05, tol=1e-4, response=QEq(hardness=8.0, radius_scale=0.35)),
    ).fit(X, make_targets(energy=energy, forces=forces))


def with_calculator(name, model):
    atoms = CASES[name].copy()
    atoms.calc = KQEqCalculator(model)
    return atoms


@pytest.mark.parametrize("name", CASES)
def test_same_as_predictions(name, model):
    atoms = with_calculator(name, model)
    X = [CASES[name]]
    assert_allclose(atoms.get_potential_energy(), predict_energy(model, X)[0], rtol=1e-12)
    assert_allclose(atoms.get_charges(), predict_charges(model, X)[0], rtol=1e-12)
    assert_allclose(atoms.get_forces(), predict_forces(model, X)[0], rtol=1e-12)
    energy = atoms.get_potential_energy(force_consistent=True)
    assert energy == atoms.get_potential_energy()
    if not all(atoms.pbc):
        assert_allclose(atoms.get_dipole_moment(), predict_target(model, X, "dipole")[0])
    if any(atoms.pbc):
        expected = np.nan_to_num(predict_target(model, X, "stress")[0])
        assert_allclose(atoms.get_stress(), expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name, model):
    atoms = with_calculator(name, model)
    forces = atoms.get_forces()
    numerical = calculate_numerical_forces(atoms, 3e-4, iatoms=[0, len(atoms) - 1])
    assert_allclose(numerical, forces[[0, -1]], rtol=0, atol=3e-6 * np.abs(forces).max())


@pytest.mark.parametrize("name", [name for name in CASES if "slab" in name or "crystal" in name])
def test_stress(name, model):
    atoms = with_calculator(name, model)
    stress, cell, volume = atoms.get_stress(voigt=False), atoms.cell.copy(), atoms.get_volume()
    axes = range(3 if all(atoms.pbc) else 2)
    for a, b in [(a, b) for a in axes for b in axes if a <= b]:
        energies = []
        for step in (-3e-5, 3e-5):
            strain = np.eye(3)
            strain[a, b] += step
            atoms.set_cell(cell @ strain, scale_atoms=True)
            energies.append(atoms.get_potential_energy())
        expected = (energies[1] - energies[0]) / (6e-5 * volume)
        assert stress[a, b] == pytest.approx(expected, abs=1e-4 * np.abs(stress).max())
    if not all(atoms.pbc):
        assert not stress[2].any()


def test_only_requested_properties_are_computed(model, monkeypatch):
    requests = []
    solutions = KQEqRegressor.solutions

    def counted(self, X, names, start):
        requests.append(names)
        return solutions(self, X, names, start)

    monkeypatch.setattr(KQEqRegressor, "solutions", counted)
    atoms = with_calculator("crystal", model)
    energy = atoms.get_potential_energy()
    atoms.get_charges()
    assert requests == [["energy"]] and "forces" not in atoms.calc.results
    atoms.get_forces()
    atoms.get_stress()
    assert atoms.get_potential_energy() == pytest.approx(energy, rel=1e-10)
    atoms.set_initial_charges(np.ones(len(atoms)))
    atoms.get_forces()
    assert requests == [["energy"], ["forces"]]


def test_undefined_properties_are_refused(model):
    crystal, slab = with_calculator("crystal", model), with_calculator("slab", model)
    with pytest.raises(PropertyNotImplementedError, match="Cl4Na4 .* has no dipole: a dipole"):
        crystal.get_dipole_moment()
    with pytest.raises(PropertyNotImplementedError, match="has no stress: .* periodic axes"):
        with_calculator("cluster", model).get_stress()
    assert_array_equal(np.isnan(slab.get_dipole_moment()), [True, True, False])
    slab.cell[2] = 0.0
    with pytest.raises(PropertyNotImplementedError, match="adds the third vector of a slab"):
        slab.get_stress()
    # The calculator has computed the defined properties before the error.
    assert slab.calc.results["forces"].shape == (8, 3)
    with pytest.raises(PropertyNotImplementedError, match="magmoms"):
        crystal.get_magnetic_moments()


def test_stress_of_a_slab_in_a_tilted_plane(model):
    slab = with_calculator("slab", model)
    stress = slab.get_stress(voigt=False)
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    slab.set_cell(slab.cell @ Q.T, scale_atoms=True)
    assert_allclose(slab.get_stress(voigt=False), Q @ stress @ Q.T, rtol=1e-6, atol=1e-9)


def field(atoms):
    atoms.info["external_field"] = np.array([0.0, 0.0, 0.3])


def field_in_place(atoms):
    atoms.info["external_field"][2] = 0.4


def masses(atoms):
    atoms.set_masses(atoms.get_masses() * np.where(atoms.symbols == "Na", 2.0, 1.0))


CHANGES = [
    field,
    field_in_place,
    lambda atoms: atoms.info.update(charge=1.0),
    lambda atoms: atoms.info.update(total_charge=1.0),
    masses,
    lambda atoms: atoms.info.clear(),
    lambda atoms: atoms.rattle(0.01),
    lambda atoms: atoms.pop(),
]


def test_changes_are_noticed(model):
    """The calculator notices changes, including those that ASE does not compare."""
    atoms = with_calculator("cluster", model)
    for change in CHANGES:
        before = atoms.get_dipole_moment()
        change(atoms)
        [after] = predict_target(model, [atoms], "dipole")
        assert_allclose(atoms.get_dipole_moment(), after, rtol=1e-10)
        # A second key with the same charge does not count as a change.
        assert np.abs(after - before).max() > 1e-4 or "total_charge" in atoms.info
        assert_allclose(atoms.get_forces(), predict_forces(model, [atoms])[0], atol=1e-10)


def test_another_model(model):
    atoms = with_calculator("cluster", model)
    first = atoms.get_potential_energy()
    other, zero = QEqRegressor(sigma_charges=0.1), np.zeros(len(atoms))
    for labels in (zero, np.where(atoms.symbols == "Na", 0.5, -0.5)):
        other.fit([atoms], make_targets(charges=[labels]))
        if other is not atoms.calc.model:
            atoms.calc.set(model=other)
        assert atoms.get_potential_energy() == predict_energy(other, [atoms])[0] != first
        first = atoms.get_potential_energy()


def test_charges_of_the_last_step_start_the_solver(monkeypatch):
    iterations = []
    charges = QEqEquilibrium.charges

    def counted(self, *, start=None, **fields):
        result = charges(self, start=start, **fields)
        iterations.append(self.n_iterations)
        return result

    monkeypatch.setattr(QEqEquilibrium, "charges", counted)
    atoms = rattled(salt(CRYSTAL) * (2, 2, 2))
    y = make_targets(charges=[np.zeros(len(atoms))])
    response = QEq(solver="iterative", radius_scale=0.35)
    model = QEqRegressor(sigma_charges=1e6, response=response).fit([atoms], y)
    atoms.calc = KQEqCalculator(model)
    iterations.clear()
    atoms.get_potential_energy()
    atoms.get_forces()
    atoms.rattle(1e-5)
    atoms.get_forces()
    first, unchanged, rattled_again = iterations
    assert unchanged == 0 < rattled_again < first
    assert_allclose(atoms.get_charges(), predict_charges(model, [atoms])[0], atol=1e-7)
    # After a change of elements or a reset, iterations do not start from earlier charges.
    atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]
    atoms.get_forces()
    atoms.calc.reset()
    atoms.get_forces()
    assert iterations[-1] == iterations[-2]


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation(optimizer, model):
    atoms = with_calculator("cluster", model)
    before = atoms.get_potential_energy()
    with optimizer(atoms, logfile=None) as run:
        assert run.run(fmax=0.01, steps=200)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.01
    assert atoms.get_potential_energy() < before


@pytest.mark.parametrize("name, mask", [("crystal", None), ("slab", [1, 1, 0, 0, 0, 1])])
def test_relaxation_of_the_cell(name, mask, model):
    atoms = with_calculator(name, model)
    cell, height = atoms.cell.copy(), atoms.cell[2].copy()
    assert np.abs(atoms.get_stress()).max() > 1e-3
    with BFGS(FrechetCellFilter(atoms, mask=mask), logfile=None) as run:
        assert run.run(fmax=0.02, steps=300)
    assert np.abs(atoms.get_stress()).max() < 1e-3
    assert np.abs(atoms.cell - cell).max() > 0.01
    if name == "slab":
        assert_allclose(atoms.cell[2], height, atol=1e-12)


def heated(atoms):
    spread = np.sqrt(300 * units.kB * atoms.get_masses())[:, None]
    atoms.set_momenta(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))
    return atoms


def test_energy_is_conserved(model):
    atoms = heated(with_calculator("cluster", model))
    energies = []
    with VelocityVerlet(atoms, units.fs) as run:
        run.attach(lambda: energies.append(atoms.get_total_energy()))
        run.run(100)
    assert np.ptp(energies) < 1e-3 * len(atoms)
    assert atoms.get_kinetic_energy() > 0.05


THERMOSTATS = {
    "Langevin": lambda atoms: Langevin(
        atoms, units.fs, temperature_K=300, friction=0.02, fixcm=False
    ),
    "NPTBerendsen": lambda atoms: NPTBerendsen(
        atoms, units.fs, temperature_K=300, pressure_au=0.0, compressibility_au=0.1
    ),
    "MTKNPT": lambda atoms: MTKNPT(
        atoms, units.fs, temperature_K=300, pressure_au=0.0, tdamp=50.0, pdamp=500.0
    ),
}


@pytest.mark.parametrize("name", THERMOSTATS)
def test_thermostats_and_barostats(name, model):
    atoms = heated(with_calculator("crystal", model))
    volume = atoms.get_volume()
    with THERMOSTATS[name](atoms) as run:
        run.run(5)
    assert_allclose(atoms.get_forces(), predict_forces(model, [atoms])[0], atol=1e-10)
    assert (atoms.get_volume() != volume) == ("NPT" in name)


@pytest.mark.parametrize("name", ["cluster", "crystal"])
def test_socket(name, model, tmp_path):
    """The server asks for forces; the client runs in a thread and has the model."""
    atoms, remote = CASES[name].copy(), with_calculator(name, model)
    reference = with_calculator(name, model)
    unixsocket = f"skqeq_{tmp_path.name}_{name}"

    def serve():
        SocketClient(unixsocket=unixsocket, timeout=30).run(remote, use_stress=any(atoms.pbc))

    with SocketIOCalculator(unixsocket=unixsocket, timeout=30) as atoms.calc:
        client = threading.Thread(target=serve)
        client.start()
        for _ in range(2):
            # The protocol converts to atomic units and back, which causes rounding errors.
            assert_allclose(atoms.get_forces(), reference.get_forces(), rtol=1e-8, atol=1e-10)
            assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy())
            if any(atoms.pbc):
                assert_allclose(atoms.get_stress(), reference.get_stress(), rtol=1e-8, atol=1e-12)
            for moved in (atoms, reference):
                moved.rattle(0.05, seed=1)
    client.join(timeout=30)
    assert not client.is_alive()


def test_saved_model_and_copied_calculator(model, tmp_path):
    atoms = with_calculator("charged slab in a field", model)
    forces = atoms.get_forces()
    joblib.dump(model, tmp_path / "model.joblib")
    atoms.calc = KQEqCalculator(joblib.load(tmp_path / "model.joblib"))
    assert_array_equal(atoms.get_forces(), forces)
    assert atoms.copy().calc is None
    calc = pickle.loads(pickle.dumps(atoms.calc))
    # The copy contains the results, and uses them for the same atoms.
    assert not calc.calculation_required(atoms, ["forces", "dipole"])
    atoms.rattle(0.01)
    assert_array_equal(calc.get_forces(atoms), predict_forces(model, [atoms])[0])


def test_results_in_files(model, tmp_path):
    atoms = with_calculator("charged slab in a field", model)
    atoms.get_forces()
    json.dumps(atoms.calc.todict())
    for name in ("slab.traj", "slab.xyz"):
        write(tmp_path / name, atoms)
        results = read(tmp_path / name).calc.results
        for key in ("energy", "free_energy", "forces", "stress", "charges", "dipole"):
            assert_allclose(results[key], atoms.calc.results[key], rtol=1e-6, atol=1e-8)


def test_one_model_for_many(model):
    images = [with_calculator(name, model) for name in CASES]
    expected = predict_forces(model, list(CASES.values()))
    jobs = [joblib.delayed(Atoms.get_forces)(atoms) for atoms in images]
    parallel = joblib.Parallel(n_jobs=2)(jobs)
    # The calculators alternate, so that shared results would be noticed.
    turns = [None] * len(images)
    for order in (range(len(images)), reversed(range(len(images)))):
        for i in order:
            turns[i] = images[i].get_forces()
    for i, forces in enumerate(expected):
        assert_allclose(turns[i], forces, rtol=1e-12)
        assert_allclose(parallel[i], forces, rtol=1e-12)


def test_one_calculator_for_many(model):
    calc = KQEqCalculator(model)
    for _ in range(2):
        for atoms in CASES.values():
            assert_allclose(calc.get_forces(atoms), predict_forces(model, [atoms])[0], rtol=1e-12)


def test_bad_models(model):
    with pytest.raises(NotFittedError):
        KQEqCalculator(make_pipeline(SOAPFeaturizer(), CURSparsifier(), KQEqRegressor()))
    with pytest.raises(NotFittedError):
        KQEqCalculator(GridSearchCV(QEqRegressor(), {"response__hardness": [1.0, 2.0]}))
    with pytest.raises(TypeError, match="Ridge is neither a charge model nor a pipeline"):
        KQEqCalculator(Ridge())
    calc = KQEqCalculator(model)
    with pytest.raises(NotFittedError):
        calc.set(model=QEqRegressor())
    assert calc.model is model


def test_bad_atoms(model):
    calc = KQEqCalculator(model)
    with pytest.raises(ValueError, match="H2O.* holds H, O; known elements: Na, Cl"):
        calc.get_potential_energy(molecule("H2O"))
    atoms = with_calculator("cluster", model)
    good = atoms.get_potential_energy()
    atoms.info["charge"] = "one"
    with pytest.raises(ValueError, match="is not a number"):
        atoms.get_potential_energy()
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == good


def test_models_without_forces():
    atoms, y = CASES["molecule"].copy(), make_targets(charges=[[0.8, -0.8]])
    distances = FunctionTransformer(
        lambda X: StructureFeatures.from_arrays(X, [a.get_all_distances() + 1.0 for a in X])
    )
    model = make_pipeline(distances, CURSparsifier(n_points=1), KQEqRegressor()).fit([atoms], y)
    atoms.calc = KQEqCalculator(model)
    assert atoms.get_potential_energy() == predict_energy(model, [atoms])[0]
    with pytest.raises(TypeError, match="forces, stress and Born charges need features"):
        atoms.get_forces()


def test_interrupted_run(model, tmp_path):
    atoms = heated(with_calculator("molecule", model))

    def interrupt():
        if run.nsteps == 3:
            raise KeyboardInterrupt

    run = VelocityVerlet(atoms, units.fs, trajectory=str(tmp_path / "run.traj"))
    run.attach(interrupt)
    with pytest.raises(KeyboardInterrupt), run, ProgressBar(run, 10, disable=True):
        run.run(10)
    images = read(tmp_path / "run.traj", ":")
    assert len(images) == 4
    assert_array_equal(images[-1].get_forces(), atoms.get_forces())


def test_progress_bar():
    atoms = molecule("H2O")
    atoms.calc = EMT()
    text = io.StringIO()
    with VelocityVerlet(atoms, 0.1 * units.fs) as run:
        for _ in range(2):
            # The second run continues the first one, but its progress bar starts at zero.
            with ProgressBar(run, 5, file=text, mininterval=0) as progress:
                run.run(5)
            assert progress.bar.n == 5
    assert "VelocityVerlet: 100%" in text.getvalue() and "6/5" not in text.getvalue()
    silent = io.StringIO()
    with FIRE(atoms, logfile=None) as run, ProgressBar(run, 3, file=silent, disable=True):
        run.run(steps=3)
    assert not silent.getvalue()
