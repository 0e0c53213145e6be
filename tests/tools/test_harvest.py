"""The harvester loses no result, repeats no job, and always writes the same files."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.once

pytest.importorskip("fcntl")  # not on Windows
TOOLS = Path(__file__).parents[2] / "tools"
JOBS = [{"id": f"{i:02d}", "value": i} for i in range(12)]


def load(name):
    spec = spec_from_file_location(name, TOOLS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def harvest():
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(variable, os.environ.get(variable, "1"))
        yield load("harvest")


def square(job, report):
    report("half way")
    return {"square": job["value"] ** 2}


def run(harvest, path, calculate, jobs=JOBS, minutes=None):
    journal = harvest.Journal(path)
    try:
        return harvest.run(jobs, journal, calculate, minutes=minutes)
    finally:
        journal.close()


def results(harvest, path):
    return [entry["result"] for entry in harvest.read_lines(path) if "result" in entry]


def test_results_are_in_the_order_of_the_queue(harvest, tmp_path):
    path = tmp_path / "build" / "x.jsonl"
    assert run(harvest, path, square)
    found = results(harvest, path)
    assert found == [{"id": job["id"], "square": job["value"] ** 2} for job in JOBS]
    before = path.read_bytes()
    assert run(harvest, path, square)  # No jobs are left.
    assert path.read_bytes() == before


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_torn_line_is_cut_off_and_done_again(harvest, tmp_path, cut):
    path = tmp_path / "x.jsonl"
    run(harvest, path, square)
    whole = results(harvest, path)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size - cut)
    assert results(harvest, path) == whole[:-1]
    assert run(harvest, path, square)
    assert results(harvest, path) == whole
    with path.open("ab") as file:
        file.write(b'{"id": "')
    harvest.Journal(path).close()
    assert path.read_bytes().endswith(b"\n")
    assert results(harvest, path) == whole


def test_second_run_is_refused(harvest, tmp_path):
    journal = harvest.Journal(tmp_path / "x.jsonl")
    with pytest.raises(SystemExit, match="in use"):
        harvest.Journal(tmp_path / "x.jsonl")
    journal.close()


def test_failures_are_tried_once_more_at_the_end(harvest, tmp_path):
    path, calls = tmp_path / "x.jsonl", tmp_path / "calls"

    def calculate(job, report):
        with calls.open("a") as file:
            file.write(job["id"] + "\n")
        n_calls = calls.read_text().count(job["id"])
        if job["id"] == "01":
            raise ValueError("never")
        if job["id"] == "02" and n_calls == 1:
            raise ValueError("not at first")
        if job["id"] == "03":
            os.kill(os.getpid(), signal.SIGKILL)
        if job["id"] == "04":
            raise harvest.Rejected("no such molecule")
        if job["id"] == "05":
            return {"square": float("nan")}
        return square(job, report)

    assert run(harvest, path, calculate, JOBS[:7])
    assert run(harvest, path, calculate, JOBS[:7])
    first, again = ["00", "01", "02", "03", "04", "05", "06"], ["01", "02", "03", "05"]
    assert calls.read_text().split() == first + again
    assert [result["id"] for result in results(harvest, path)] == ["00", "06", "02"]
    state = harvest.State(harvest.read_lines(path))
    assert state.rejected == {"01", "03", "04", "05"}
    assert state.failures["01"] == ["ValueError: never"] * 2
    assert state.failures["03"] == ["process ended with SIGKILL"] * 2
    assert state.failures["04"] == ["no such molecule"]
    assert not state.left(JOBS[:7])


def test_it_ends_in_time(harvest, tmp_path):
    path = tmp_path / "x.jsonl"

    def calculate(job, report):
        time.sleep(0 if job["value"] < 3 else 60)
        return square(job, report)

    start = time.monotonic()
    assert not run(harvest, path, calculate, minutes=2 / 60)
    assert time.monotonic() - start < 20
    assert len(results(harvest, path)) == 3
    assert not run(harvest, path, square, minutes=0)
    assert run(harvest, path, square)
    assert [result["id"] for result in results(harvest, path)] == [job["id"] for job in JOBS]


SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import harvest
from pathlib import Path

def calculate(job, report):
    time.sleep(0.05)
    return {"square": job["value"] ** 2, "padding": "x" * 5000}

jobs = [{"id": f"{i:02d}", "value": i} for i in range(12)]
harvest.run(jobs, harvest.Journal(Path(sys.argv[2])), calculate)
"""


def start(path):
    arguments = [sys.executable, "-c", SCRIPT, str(TOOLS), str(path)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE)


def test_killed_at_random_and_the_same_file(harvest, tmp_path):
    undisturbed, killed = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    with start(undisturbed) as process:
        process.communicate()
    whole = results(harvest, undisturbed)
    assert len(whole) == 12
    rng = np.random.default_rng(0)
    for _ in range(10):
        with start(killed) as process:
            deadline = time.monotonic() + 30
            size = killed.stat().st_size if killed.exists() else 0
            while time.monotonic() < deadline and process.poll() is None:
                # The journal has grown, so the program is at work.
                if killed.exists() and killed.stat().st_size > size:
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            process.kill()
            process.communicate()
    with start(killed) as process:
        process.communicate()
    assert results(harvest, killed) == whole


@pytest.mark.parametrize("pause", [False, True])
def test_interrupt_and_pause_lose_nothing(harvest, tmp_path, pause):
    path = tmp_path / "x.jsonl"
    with start(path) as process:
        while not path.exists() or not path.stat().st_size:
            time.sleep(0.01)
        if pause:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.3)
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert (b"KeyboardInterrupt" in error) != pause
    assert (process.returncode == 0) == pause
    assert run(harvest, path, square)
    assert [result["id"] for result in results(harvest, path)] == [job["id"] for job in JOBS]


def test_packed_files_never_change(harvest, tmp_path):
    path, data = tmp_path / "x.jsonl", tmp_path / "data"
    run(harvest, path, square, JOBS[:7])

    def pack(**options):
        return harvest.pack(harvest.read_lines(path), data, "x", batch=3, **options)

    assert [new.name for new in pack()] == ["x_000.jsonl.gz", "x_001.jsonl.gz"]
    before = {file.name: file.read_bytes() for file in data.iterdir()}
    assert pack() == []
    run(harvest, path, square)
    assert [new.name for new in pack()] == ["x_002.jsonl.gz", "x_003.jsonl.gz"]
    assert all((data / name).read_bytes() == content for name, content in before.items())
    assert harvest.read_packed(data, "x") == results(harvest, path)
    # A new machine has the packed files, but no journal.
    state = harvest.present([], data, "x")
    assert state.left([*JOBS, {"id": "new"}]) == [{"id": "new"}]
    more = [*JOBS, {"id": "new", "value": 0}]
    run(harvest, path, square, more)
    assert pack() == []
    assert [new.name for new in pack(partial=True)] == ["x_004.jsonl.gz"]
    assert len(harvest.read_packed(data, "x")) == 13


def test_failures_are_packed_too(harvest, tmp_path):
    path, data = tmp_path / "x.jsonl", tmp_path / "data"

    def calculate(job, report):
        raise ValueError("never")

    run(harvest, path, calculate, JOBS[:2])
    harvest.pack(harvest.read_lines(path), data, "x")
    assert harvest.present([], data, "x").left(JOBS[:3]) == JOBS[2:3]


def test_status_counts(harvest, tmp_path):
    path = tmp_path / "x.jsonl"
    run(harvest, path, square, JOBS[:9])
    entries = harvest.read_lines(path)
    labels = {"parity": lambda job: ["even", "odd"][job["value"] % 2 :][:1]}
    text = harvest.status(JOBS, harvest.State(entries), entries, labels)
    assert text.startswith("9 of 12 jobs done, 3 left, 0 dropped")
    assert "even                  6      5      0      1" in text


def test_queue_with_equal_ids_is_refused(harvest, tmp_path):
    path = tmp_path / "queue.jsonl"
    path.write_text('{"id": "a"}\n{"id": "a"}\n')
    with pytest.raises(ValueError, match="occur twice: \\['a'\\]"):
        harvest.read_queue(path)


# ---- the data


SYMBOLS = ["O", "H", "H"]
POSITIONS = [[0.0, 0.0, 0.06573], [0.0, 0.75955, -0.52166], [0.0, -0.75955, -0.52166]]


def test_points_are_where_they_should_be():
    reader = load("read_organic")
    points = reader.potential_points(SYMBOLS, POSITIONS)
    assert points.shape == (reader.N_POINTS, 3)
    assert len(np.unique(points, axis=0)) == len(points)
    radii = np.array([reader.RADII[symbol] for symbol in SYMBOLS])
    scaled = np.linalg.norm(points[:, None] - POSITIONS, axis=2) / radii
    assert scaled.min() > 1.4 - 1e-5
    assert scaled.min(axis=1).max() < 2.0 + 1e-5
    # On another computer the last digits differ.
    noisy = np.array(POSITIONS) + np.random.default_rng(0).normal(scale=1e-13, size=(3, 3))
    np.testing.assert_allclose(reader.potential_points(SYMBOLS, noisy), points, atol=1.1e-6)
    np.testing.assert_allclose(
        points[[0, 1, -1]], reader.potential_points(SYMBOLS, POSITIONS)[[0, 1, -1]], atol=1e-9
    )


def test_data_are_read(tmp_path):
    reader = load("read_organic")
    record = {
        "id": "0001",
        "smiles": "O",
        "family": "hydrogen compound",
        "charge": 0,
        "group": "O",
        "geometry": "relaxed",
        "symbols": SYMBOLS,
        "positions": POSITIONS,
        "basis": "def2-TZVP",
        "energy": -2078.3,
        "dipole": [0.0, 0.0, 0.38],
        "quadrupole": [0.0] * 6,
        "charges": [-0.9, 0.45, 0.45],
        "atomic_dipoles": np.zeros((3, 3)).tolist(),
        "potential": [0.1] * reader.N_POINTS,
    }
    for number, split in enumerate(["train", "test"]):
        with gzip.open(tmp_path / f"organic_{number:03d}.jsonl.gz", "wt") as file:
            file.write(json.dumps({**record, "split": split}) + "\n")
    (atoms,) = reader.read_organic(tmp_path)
    assert len(reader.read_organic(tmp_path, split="test")) == 1
    assert atoms.info["REF_potential"].shape == (len(atoms.info["potential_points"]),)
    assert atoms.arrays["REF_charges"].sum() == 0


def test_queue_is_the_same_every_time(tmp_path, monkeypatch):
    pytest.importorskip("rdkit")
    monkeypatch.syspath_prepend(TOOLS)
    maker = load("make_organic")
    families = tmp_path / "families.smi"
    families.write_text(
        "# a comment\n@x: F Br O N C(=O)O [N+](=O)[O-]\nphenyl: c1ccccc1{x}\nmethyl: C{x} CC{x}\n"
        "acid: NCC(=O)O OC(=O)C(=O)O OC=O\ndrug-like: CN1c2ccc(Cl)cc2C(=NCC1=O)c1ccccc1\n"
    )
    numbers = {"zwitterion": 1, -2: 1, -1: 3, 0: 12, 1: 2}
    monkeypatch.setattr(maker, "N_SMALL", numbers)
    jobs = maker.make_queue(families)
    assert jobs == maker.make_queue(families)
    firsts = [job for job in jobs if job["geometry"] == "relaxed"]
    assert len({job["inchi"] for job in firsts}) == len(firsts) == 20
    assert {job["charge"] for job in jobs} == {-2, -1, 0, 1}
    assert jobs[-1]["n_heavy"] == 20 and jobs[-1]["split"] == "test"
    of_group = {}
    for job in jobs:
        of_group.setdefault(job["group"], set()).add(job["split"])
    assert all(len(splits) == 1 for splits in of_group.values())
    # A longer queue contains the same jobs and additional ones.
    monkeypatch.setattr(maker, "N_SMALL", {**numbers, 0: 14})
    longer = maker.make_queue(families)
    assert len(longer) > len(jobs) and all(job in longer for job in jobs)


def test_ions_of_an_amino_acid(monkeypatch):
    pytest.importorskip("rdkit")
    monkeypatch.syspath_prepend(TOOLS)
    maker = load("make_organic")
    found = {m.smiles: m for m in maker.ions(maker.Molecule("NCC(=O)O", "amino acid"))}
    assert set(found) == {"NCC(=O)[O-]", "[NH3+]CC(=O)O", "[NH3+]CC(=O)[O-]"}
    assert found["[NH3+]CC(=O)[O-]"].kind == "zwitterion"
    assert found["NCC(=O)[O-]"].kind == -1
    assert len({m.group() for m in found.values()}) == 1
    assert len({m.inchi for m in found.values()}) == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("charge", [0, -1])
def test_labels_agree_with_plain_pyscf(monkeypatch, charge):
    pyscf = pytest.importorskip("pyscf")
    from ase.units import Bohr, Hartree

    monkeypatch.syspath_prepend(TOOLS)
    maker = load("organic_labels")
    monkeypatch.setattr(maker, "BASIS", "def2-SVP")
    monkeypatch.setattr(maker, "BASIS_ANIONS", "def2-SVP")
    symbols, positions = (SYMBOLS, POSITIONS) if charge == 0 else (SYMBOLS[:2], POSITIONS[:2])
    found = maker.labels(symbols, positions, charge)
    molecule = maker.molecule_of(symbols, positions, charge, "def2-SVP")
    plain = pyscf.dft.RKS(molecule, xc="PBE0").density_fit(auxbasis=maker.AUXILIARY)
    plain.grids.atom_grid = maker.GRID
    plain.kernel()
    assert abs(found["energy"] - plain.e_tot * Hartree) < 2e-5
    dipole = plain.dip_moment(unit="AU", verbose=0) * Bohr
    np.testing.assert_allclose(found["dipole"], dipole, atol=1e-4)
    assert abs(sum(found["charges"]) - charge) < 1e-4
    # At large distances, only total charge, dipole and quadrupole contribute to the potential.
    r = np.array(positions)
    q, p = np.array(found["charges"]), np.array(found["atomic_dipoles"])
    np.testing.assert_allclose(q @ r + p.sum(axis=0), dipole, atol=1e-3)
    far = 30 * np.eye(3)
    moments = [np.array(found[name]) for name in ("dipole", "quadrupole")]
    expected = charge / 30 + moments[0] / 30**2 + moments[1][:3] / 30**3
    potential = maker.potential(molecule, plain.make_rdm1(), far) / (Hartree * Bohr)
    np.testing.assert_allclose(potential, expected, atol=1e-5)
