"""Active learning on salt clusters; the reference is a pair potential.

As a script, this file starts a run, kills it, and starts it again until the run is finished.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    QEqRegressor,
    SOAPFeaturizer,
    StructureFeatures,
    predict_forces,
)
from skqeq.active_learning import (
    ActiveLearner,
    LangevinDynamics,
    ModelBreakdownError,
    select_novel,
    select_uncertain,
    uncertainty,
)
from skqeq.parameters import COULOMB

TARGETS = ["energy", "forces", "charges"]
# The units are Angstrom and eV; the bond length of the molecule is 2.4 Angstrom.
RHO, REPULSION = 0.32, 1300.0


def salt_labels(atoms):
    """Energy (eV), forces and charges of point charges of one e that repel each other."""
    z = np.where(atoms.numbers == 11, 1.0, -1.0)
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    for i in range(len(atoms)):
        for j in range(i):
            d = atoms.positions[i] - atoms.positions[j]
            r = np.linalg.norm(d)
            repulsion = REPULSION * np.exp(-r / RHO)
            energy += COULOMB * z[i] * z[j] / r + repulsion
            derivative = -COULOMB * z[i] * z[j] / r**2 - repulsion / RHO
            forces[i] -= derivative * d / r
            forces[j] += derivative * d / r
    return {"energy": energy, "forces": forces, "charges": z}


class Salt(Calculator):
    """`salt_labels` as an ASE calculator."""

    implemented_properties = ["energy", "forces", "charges"]

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = salt_labels(atoms)


def cluster(seed, amplitude=0.1):
    """A rattled square Na2Cl2."""
    a = 2.5
    atoms = Atoms("NaClNaCl", [[0, 0, 0], [a, 0, 0], [a, a, 0], [0, a, 0]])
    atoms.positions += amplitude * np.random.default_rng(seed).normal(size=(4, 3))
    return atoms


def pipeline(n_points=30):
    return make_pipeline(
        SOAPFeaturizer(r_cut=5.0, n_max=4, l_max=3),
        CURSparsifier(n_points=n_points),
        KQEqRegressor(
            sigma_energy=0.01,
            sigma_charges=0.2,
            amplitude_chi=3.0,
            tol=1e-5,
            response=QEq(hardness=20.0),
        ),
    )


def make_learner(directory, reference=salt_labels, **options):
    options = {
        "model": pipeline(),
        "targets": TARGETS,
        "explore": LangevinDynamics(temperature=500, n_steps=8, interval=2),
        "n_select": 2,
        "n_trajectories": 2,
        "verbose": 0,
    } | options
    return ActiveLearner(reference=reference, directory=directory, **options)


def seeds():
    return [cluster(seed) for seed in range(3)]


def contents(directory):
    """Content of all structure files of a run."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*.xyz"))
    }


def files(directory):
    return [path for path in directory.rglob("*") if path.name[0] != "."]


@pytest.fixture(autouse=True)
def few_points():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a run of two rounds."""
    directory = tmp_path_factory.mktemp("finished")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=")
        make_learner(directory).run(seeds(), n_rounds=2)
    return directory


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, which the test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ---- killed and resumed -------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment(tmp_path):
    single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    subprocess.run(command, env=os.environ | single, check=True, timeout=120)
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    assert int((tmp_path / "n_kills").read_text()) >= 5
    assert contents(killed) == contents(straight)
    for r in range(3):
        models = [joblib.load(d / f"round_{r:03}" / "model.joblib") for d in (killed, straight)]
        assert_array_equal(*[model[-1].coef_ for model in models])
    assert not list(killed.rglob(".*"))


def in_child(function, *args):
    """Run a function in a child process, and return its process id."""
    child = os.fork()
    if child == 0:
        try:
            function(*args)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def finish(directory):
    make_learner(directory).run(seeds(), n_rounds=2)


def kill_until_done(directory, rng):
    """Start a run, kill it after a few new files, and repeat this until the run finishes."""
    for n_kills in range(1000):
        last = len(files(directory)) + rng.integers(3)
        child = in_child(finish, directory)
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended:
            if len(files(directory)) >= last:
                time.sleep(rng.uniform(0.0, 0.05))
                os.kill(child, signal.SIGKILL)
                status = os.waitpid(child, 0)[1]
                break
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not os.WIFSIGNALED(status):
            assert status == 0
            return n_kills


def test_more_rounds_of_a_finished_run(finished, tmp_path):
    make_learner(tmp_path).run(seeds(), n_rounds=0)
    make_learner(tmp_path).run(seeds(), n_rounds=2)
    assert contents(tmp_path) == contents(finished)


def test_nothing_is_computed_twice(finished):
    def not_again(atoms):
        raise AssertionError

    not_again.__qualname__ = salt_labels.__qualname__
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")}
    learner = make_learner(finished, not_again).run(seeds(), n_rounds=2)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.*")} == before
    assert [atoms.info["round"] for atoms in learner.data_] == [0, 0, 0, 1, 1, 2, 2]


def test_half_written_files_are_ignored(copied, finished):
    (copied / "round_001" / "data.xyz").unlink()
    (copied / "round_001" / ".77-data.xyz").write_text("4\nProperties=spe")
    (copied / "round_002" / ".78-model.joblib").write_bytes(b"\x80")
    make_learner(copied).run(seeds(), n_rounds=2)
    assert contents(copied) == contents(finished)
    assert not list(copied.rglob(".*"))


@pytest.mark.parametrize(
    "name, options",
    [
        ("n_select", {"n_select": 3}),
        ("random_state", {"random_state": 1}),
        ("method", {"method": "cur"}),
        ("targets", {"targets": ["energy"]}),
        ("reference", {"reference": Salt()}),
        ("explore", {"explore": LangevinDynamics(n_steps=8, interval=4)}),
        ("model__cursparsifier__n_points", {"model": pipeline(n_points=31)}),
    ],
)
def test_other_parameters_are_refused(name, options, finished):
    with pytest.raises(ValueError, match=f"holds a run with {name} = "):
        make_learner(finished, **options).run(seeds(), n_rounds=2)


def test_other_structures_are_refused(finished):
    with pytest.raises(ValueError, match="holds a run with X = "):
        make_learner(finished).run(seeds()[:2], n_rounds=2)


def test_two_runs_in_one_directory_are_refused(tmp_path):
    def start_another_run(atoms, rng):
        make_learner(tmp_path).run(seeds(), n_rounds=1)
        yield atoms

    with pytest.raises(RuntimeError, match="another process"):
        make_learner(tmp_path, explore=start_another_run).run(seeds(), n_rounds=1)


# ---- the reference ------------------------------------------------------------------------------


def test_files_hold_the_labels_of_the_reference(finished):
    for atoms in read(finished / "round_002" / "data.xyz", ":"):
        labels = salt_labels(atoms)
        assert_allclose(atoms.info["REF_energy"], labels["energy"], rtol=1e-12)
        assert_allclose(atoms.arrays["REF_forces"], labels["forces"], atol=1e-8)
        assert_array_equal(atoms.arrays["REF_charges"], labels["charges"])


def test_calculator_as_reference(finished, tmp_path):
    make_learner(tmp_path, Salt()).run(seeds(), n_rounds=1)
    expected = contents(finished)
    assert all(expected[name] == content for name, content in contents(tmp_path).items())


def test_existing_labels_are_not_calculated_again(tmp_path):
    def never(atoms):
        raise AssertionError

    X = seeds()
    for atoms in X:
        atoms.calc = Salt()
        atoms.get_forces()
    learner = make_learner(tmp_path, never).run(X, n_rounds=0)
    energies = [salt_labels(atoms)["energy"] for atoms in X]
    assert_allclose([atoms.info["REF_energy"] for atoms in learner.data_], energies, rtol=1e-12)


def test_labels_of_another_geometry_are_refused(tmp_path):
    X, calculator = seeds(), Salt()
    for atoms in X:
        atoms.calc = calculator
        atoms.get_forces()
    X[0].calc = SinglePointCalculator(X[0], **salt_labels(X[0]))
    message = r"^structure 1 \(NaClNaCl\): its calculator holds results of a structure with pos"
    with pytest.raises(ValueError, match=message):
        make_learner(tmp_path, Salt()).run(X, n_rounds=0)


def test_structures_that_lack_a_label_are_calculated(tmp_path):
    X = seeds()
    labels = salt_labels(X[1])
    for atoms in X[:2]:
        atoms.calc = SinglePointCalculator(X[1], **labels | {"energy": 7.0})
    X[0].calc.results.clear()
    learner = make_learner(tmp_path, Salt()).run(X, n_rounds=0)
    energies = [salt_labels(atoms)["energy"] for atoms in X]
    energies[1] = 7.0
    assert_allclose([atoms.info["REF_energy"] for atoms in learner.data_], energies, rtol=1e-8)


class SmearedSalt(Salt):
    """A calculator whose energy is not the one that belongs to its forces."""

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results["free_energy"] = self.results["energy"] - 0.1


def test_energies_that_do_not_belong_to_forces(tmp_path):
    with pytest.warns(UserWarning, match="the energy of the reference is not its free") as caught:
        make_learner(tmp_path, SmearedSalt()).run(seeds(), n_rounds=0)
    [found] = [w for w in caught if "free energy" in str(w.message)]
    assert found.filename == __file__


class Flaky:
    """A reference calculator that fails in every third calculation, in different ways."""

    calls = 0

    def __call__(self, atoms):
        labels, self.calls = salt_labels(atoms), self.calls + 1
        if self.calls % 3:
            return labels
        if self.calls == 3:
            raise OSError('"scf" = {diverged}\n[cycle 50]')
        if self.calls == 6:
            return labels | {"energy": np.nan}
        return labels | {"forces": labels["forces"][:3]}


def test_failures_are_left_out_and_recorded(tmp_path):
    learner = make_learner(tmp_path, Flaky()).run([cluster(i) for i in range(9)], n_rounds=1)
    asked = [read(path) for path in sorted((tmp_path / "round_000").glob("reference_*.xyz"))]
    reasons = [atoms.info["failed"] for atoms in asked if "failed" in atoms.info]
    assert reasons[0] == 'OSError: "scf" = {diverged} [cycle 50]'
    assert reasons[1] == "ValueError: energy = nan"
    assert "forces has 3 values for 4 atoms" in reasons[2]
    good = [cluster(i).positions for i in (0, 1, 3, 4, 6, 7)]
    assert_allclose([atoms.positions for atoms in learner.data_[:6]], good, atol=1e-8)
    assert len(learner.data_) == 8


def test_a_reference_that_never_works(tmp_path):
    def broken(atoms):
        raise FileNotFoundError("no such program")

    with pytest.raises(RuntimeError, match="all 3 .* round 0 failed.*no such program"):
        make_learner(tmp_path, broken).run(seeds(), n_rounds=1)


# ---- trajectories -------------------------------------------------------------------------------


def approach(atoms, rng):
    """The first two atoms come closer until they touch."""
    for x in (1.9, 1.7, 1.5, 1.3, 0.05):
        atoms.positions[0] = atoms.positions[1] + [x, 0.0, 0.0]
        yield atoms


def explode(atoms, rng):
    atoms.positions[0, 0] += 0.1
    yield atoms
    atoms.positions[0, 0] = np.nan
    yield atoms


def trajectory(directory, r=1):
    return read(directory / f"round_{r:03}" / "trajectory_000.xyz", ":")


def test_close_contacts_end_a_trajectory(tmp_path):
    make_learner(tmp_path, explore=approach, max_uncertainty=1.0).run(seeds(), n_rounds=1)
    frames = trajectory(tmp_path)
    distances = [atoms.get_distance(0, 1) for atoms in frames[1:]]
    assert_allclose(distances, [1.9, 1.7], atol=1e-7)  # The limit is 0.6 (1.66 + 1.02) = 1.61.
    assert frames[-1].info["stopped"] == "atoms that are too close"


def test_explosions_end_a_trajectory(tmp_path):
    make_learner(tmp_path, explore=explode).run(seeds(), n_rounds=1)
    frames = trajectory(tmp_path)
    assert len(frames) == 2
    assert "position x = nan" in frames[-1].info["stopped"]


def test_uncertainty_ends_a_trajectory(finished, tmp_path):
    free = [atoms.info["uncertainty"] for atoms in trajectory(finished)[1:]]
    limit = 0.5 * (free[0] + free[1])
    assert free[1] > limit
    make_learner(tmp_path, max_uncertainty=limit).run(seeds(), n_rounds=1)
    uncertainties = [atoms.info["uncertainty"] for atoms in trajectory(tmp_path)[1:]]
    assert uncertainties == free[:2]  # The first uncertainty above the limit is included.


def burst(atoms, rng):
    """Atoms move to positions that are not finite; only the calculator gets these."""
    yield atoms
    atoms.positions[0, 0] = np.inf
    atoms.get_forces()


def test_breakdowns_of_the_model_end_a_trajectory(tmp_path):
    make_learner(tmp_path, explore=burst).run(seeds(), n_rounds=1)
    frames = trajectory(tmp_path)
    assert len(frames) == 2
    assert frames[-1].info["stopped"].startswith("ValueError: structure 0 (Cl2Na2): atom 0 has")


def test_charges_that_do_not_converge_end_a_trajectory(monkeypatch, tmp_path):
    def diverge(*args, **kwargs):
        raise RuntimeError("structure 0: charges did not converge\nin 500 iterations")

    def explore(atoms, rng):
        yield atoms
        with monkeypatch.context() as patch:
            patch.setattr(KQEqRegressor, "solutions", diverge)
            atoms.get_forces()

    make_learner(tmp_path, explore=explore).run(seeds(), n_rounds=1)
    reason = "RuntimeError: structure 0: charges did not converge in 500 iterations"
    assert trajectory(tmp_path)[-1].info["stopped"] == reason


def test_explorations_may_end_with_a_reason(tmp_path):
    def boil(atoms, rng):
        yield atoms
        raise ModelBreakdownError("2000 K\nand more")

    make_learner(tmp_path, explore=boil).run(seeds(), n_rounds=1)
    assert trajectory(tmp_path)[-1].info["stopped"] == "2000 K and more"


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, RuntimeError, KeyboardInterrupt])
def test_errors_of_the_exploration_reach_the_caller(error, tmp_path):
    def explore(atoms, rng):
        yield from LangevinDynamics(n_steps=2, interval=1)(atoms, rng)
        if trajectories.pop():
            raise error("a temperature of -300 K")

    trajectories = [True, False]
    with pytest.raises(error, match="a temperature of -300 K") as caught:
        make_learner(tmp_path, explore=explore).run(seeds(), n_rounds=1)
    if issubclass(error, Exception):
        [note] = caught.value.__notes__
        assert note == f"raised by trajectory 1 of round 1 of the run in {tmp_path}"
    assert not trajectories
    files = sorted(path.name for path in (tmp_path / "round_001").iterdir())
    assert files == ["trajectory_000.xyz"]


def test_properties_that_a_molecule_lacks_reach_the_caller(tmp_path):
    def explore(atoms, rng):
        yield atoms
        atoms.get_stress()

    with pytest.raises(PropertyNotImplementedError, match="has no stress"):
        make_learner(tmp_path, explore=explore).run(seeds(), n_rounds=1)


def test_nothing_to_pick_from(tmp_path):
    def stretch(atoms, rng):
        atoms.positions *= np.inf
        yield atoms

    with pytest.raises(RuntimeError, match="no trajectory of round 1 .*ValueError: structure 0"):
        make_learner(tmp_path / "broken", explore=stretch).run(seeds(), n_rounds=1)
    with pytest.raises(RuntimeError, match="because of an exploration that yields nothing"):
        make_learner(tmp_path / "empty", explore=lambda *_: []).run(seeds(), n_rounds=1)


def test_dynamics_know_charge_and_field(tmp_path):
    def recorded(atoms, rng):
        infos.append(dict(atoms.info))
        yield from LangevinDynamics(n_steps=2, interval=1)(atoms, rng)

    infos, X = [], seeds()
    for atoms in X:
        atoms.info |= {"charge": 1, "external_field": [0.0, 0.0, 0.1]}
    learner = make_learner(tmp_path, explore=recorded, targets=["energy"]).run(X, n_rounds=1)
    for info in [*infos, *(atoms.info for atoms in learner.data_)]:
        assert info["charge"] == 1
        assert_array_equal(info["external_field"], [0.0, 0.0, 0.1])


@pytest.mark.parametrize("third", [0.0, 20.0])
def test_slabs_survive(third, tmp_path):
    def push(atoms, rng):
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        yield atoms

    X = seeds()
    for atoms in X:
        atoms.set_cell([[5.0 + 1 / 3, 0, 0], [1 / 7, 5.0, 0], [0, 0, third]])
        atoms.pbc = [True, True, False]
        atoms.set_masses([22.0, 35.0, 22.0, 37.0])
    learner = make_learner(tmp_path, explore=push, targets=["charges"]).run(X, n_rounds=1)
    for atoms in learner.data_:
        assert_array_equal(atoms.cell, X[0].cell)
        assert_array_equal(atoms.pbc, X[0].pbc)
        assert_allclose(atoms.get_masses(), X[0].get_masses())
    assert len(learner.data_) == 5


def test_progress_bar_can_be_silenced(tmp_path, capsys):
    make_learner(tmp_path / "silent").run(seeds(), n_rounds=1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    make_learner(tmp_path / "loud", verbose=1).run(seeds(), n_rounds=1)
    assert "round 1: dynamics" in capsys.readouterr().err


# ---- selection ----------------------------------------------------------------------------------


def families():
    """Four similar copies of each of three structures, in the order 0 1 2 0 1 2 ..."""
    X = []
    for copy in range(4):
        for family in range(3):
            atoms = cluster(50 + family, 0.3)
            atoms.rattle(1e-3, seed=10 * copy + family)
            X.append(atoms)
    return X


@pytest.fixture
def phi():
    """Features of labelled structures and of candidates, and descriptors of candidates."""
    soap, sparse = SOAPFeaturizer(r_cut=5.0, n_max=4, l_max=3), CURSparsifier(n_points=5)
    data = sparse.fit_transform(soap.fit_transform(seeds()))
    return data, sparse.transform(soap.transform(families())), soap.transform(families())


@pytest.mark.parametrize("select", [select_novel, select_uncertain])
def test_similar_structures_are_not_picked_twice(select, phi):
    data, candidates, _ = phi
    picked = select(data, candidates, 3, np.random.default_rng(0))
    assert sorted(i % 3 for i in picked) == [0, 1, 2]
    assert len(set(select(data, candidates, 12, np.random.default_rng(0)))) == 12
    assert len(select(data, candidates, 20, np.random.default_rng(0))) == 12


def test_labelled_structures_are_not_novel(phi):
    _, candidates, _ = phi
    labelled = candidates[[0, 3, 1, 4]]
    picked = select_novel(labelled, candidates, 1, np.random.default_rng(0))
    assert picked[0] % 3 == 2


def naive_uncertainty(sparse_set, rows, structures, jitter=1e-8):
    """Compute the posterior variance of every atom from the kernel matrix."""
    largest = []
    for s, structure in enumerate(structures):
        variances = []
        for p, z in zip(rows[s], structure.numbers):
            points = sparse_set[z] / np.linalg.norm(sparse_set[z], axis=1)[:, None]
            k = (points @ p / np.linalg.norm(p)) ** 2
            K = (points @ points.T) ** 2 + jitter * np.eye(len(points))
            variances.append(1.0 - k @ np.linalg.solve(K, k))
        largest.append(np.sqrt(max(0.0, *variances)))
    return np.array(largest)


def test_lazy_choice_is_the_naive_choice(phi):
    data, candidates, descriptors = phi
    rows = [descriptors[i] for i in range(len(descriptors))]
    structures = candidates.structures
    sparse_set = {z: kernel.points for z, kernel in candidates.source.kernels.items()}
    bounds = naive_uncertainty(sparse_set, rows, structures, jitter=1e-10)
    assert_allclose(uncertainty(candidates), bounds, rtol=1e-4)
    expected = []
    for _ in range(4):
        best = int(np.argmax(bounds))
        expected.append(best)
        for z, points in sparse_set.items():
            new = rows[best][structures[best].numbers == z]
            sparse_set[z] = np.concatenate([points, new])
        bounds = naive_uncertainty(sparse_set, rows, structures)
        bounds[expected] = -1.0
    assert select_uncertain(data, candidates, 4, None) == expected


def test_blocks_count_by_their_largest_uncertainty(phi):
    """A repeated block changes nothing; of two blocks, the more uncertain one counts."""
    data, candidates, _ = phi
    expected_of_data = uncertainty(data)
    twice = StructureFeatures.stacked({"chi": candidates, "gap": candidates})
    assert_array_equal(uncertainty(twice), uncertainty(candidates))
    expected = select_uncertain(data, candidates, 4, None)
    assert select_uncertain(data, twice, 4, None) == expected
    picked = select_novel(data, candidates, 3, np.random.default_rng(0))
    both = StructureFeatures.stacked({"chi": data, "gap": data})
    assert len(set(select_novel(both, twice, 3, np.random.default_rng(0)))) == len(picked)
    soap = SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1)
    X = [structure.to_atoms() for structure in data.structures]
    poor = make_pipeline(soap, CURSparsifier(n_points=1)).fit_transform(X)
    mixed = StructureFeatures.stacked({"chi": data, "gap": poor})
    assert_array_equal(uncertainty(mixed), np.maximum(expected_of_data, uncertainty(poor)))
    assert len(select_uncertain(data, mixed, 2, None)) == 2


def test_features_without_a_sparse_set(tmp_path):
    learner = make_learner(tmp_path, model=QEqRegressor(), targets=["charges"], explore=explode)
    with pytest.raises(TypeError, match="SOAPFeaturizer and CURSparsifier"):
        learner.run(seeds(), n_rounds=1)


@pytest.mark.parametrize("method", ["variance", "cur"])
def test_errors_go_down(method, tmp_path):
    learner = make_learner(
        tmp_path,
        method=method,
        n_select=4,
        explore=LangevinDynamics(temperature=600, timestep=2.0, n_steps=60, interval=6),
    )
    learner.run(seeds()[:2], n_rounds=2)
    assert_array_equal(learner.model_[-1].coef_, learner.load_model(2)[-1].coef_)
    test = [cluster(seed, 0.08) for seed in range(100, 110)]
    reference = np.array([salt_labels(atoms)["forces"] for atoms in test])
    errors = [
        np.sqrt(np.mean((predict_forces(learner.load_model(r), test) - reference) ** 2))
        for r in range(3)
    ]
    assert errors[2] < 0.4 * errors[0]
    assert_array_equal(
        predict_forces(learner.model_, test), predict_forces(learner.load_model(2), test)
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="n_points=")
    here = Path(sys.argv[1])
    _, status = os.waitpid(in_child(finish, here / "straight"), 0)
    if status:
        sys.exit("the run that nobody killed failed")
    n_kills = kill_until_done(here / "killed", np.random.default_rng(0))
    (here / "n_kills").write_text(str(n_kills))
