"""Model files that were made to need memory or time, or to call something, are refused."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer, load, save
from skqeq.persistence import FORMAT, replacing

FORMAT_6 = Path(__file__).parent / "regression" / "model_format_6.skqeq"
WATER = molecule("H2O")


@pytest.fixture(scope="module")
def fitted():
    soap = SOAPFeaturizer(r_cut=3.0, n_max=3, l_max=2)
    X = [molecule(name) for name in ("H2O", "CH3OH", "H2O2")]
    model = make_pipeline(soap, CURSparsifier(n_points=1), KQEqRegressor())
    return model.fit(X, np.array([[0, 0, -0.39], [0.1, 0.2, 0.3], [0, 0.4, 0]]))


def number_of(i):
    """A node with a number, as skops writes it."""
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode"} | {
        "content": "1",
        "is_json": True,
        "__id__": i,
    }


def list_of(content, i, **changes):
    node = {"__class__": "list", "__module__": "builtins", "__loader__": "ListNode"}
    return node | {"content": content, "__id__": i} | changes


def array_of(file, i, **changes):
    node = {"__class__": "ndarray", "__module__": "numpy", "__loader__": "NdArrayNode"}
    return node | {"type": "numpy", "file": file, "__id__": i} | changes


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def inner(schema, compression=zipfile.ZIP_STORED, **members):
    """A file of skops."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
        if not isinstance(schema, str):
            schema = json.dumps(schema | {"protocol": 2, "_skops_version": "0.13"})
        archive.writestr("schema.json", schema)
    return buffer.getvalue()


def write(path, data, compression=zipfile.ZIP_STORED):
    """A model file with a correct checksum."""
    about = {"format": FORMAT, "sha256": hashlib.sha256(data).hexdigest()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("about.json", json.dumps(about))
        archive.writestr("model.skops", data)


def doubled(depth):
    """Nested lists, each of which holds the next one and a reference to it."""
    node = number_of(1)
    for i in range(2, depth + 2):
        node = list_of([node, {"__id__": i - 1}], i)
    return node


def nested(depth):
    node = number_of(1)
    for i in range(2, depth + 2):
        node = list_of([node], i)
    return node


def lying_archive():
    """A file of skops with 200 MB of zeros in a member that states a size of 100 bytes."""
    zeros = np.zeros(25_000_000)
    data = bytearray(inner(array_of("5.npy", 5), zipfile.ZIP_DEFLATED, **{"5_npy": npy(zeros)}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + place
        data[start : start + 4] = (100).to_bytes(4, "little")
    return bytes(data)


ZEROS = npy(np.zeros(8_000_000))  # 64 MB
HUGE = npy(np.zeros(10)).replace(b"(10,)", b"(1000000000,)").replace(b" " * 9, b"", 1)
HOSTILE = {
    "shared": lambda: inner(doubled(60)),
    "cycle": lambda: inner(list_of([{"__id__": 2}, {"__loader__": "ListNode", "__id__": 2}], 2)),
    "deep": lambda: inner(nested(400)),
    "very deep": lambda: inner("[" * 100_000),
    "zeros": lambda: inner(array_of("5.npy", 5), zipfile.ZIP_DEFLATED, **{"5_npy": ZEROS}),
    "lying": lying_archive,
    "bzip2": lambda: inner(number_of(1), zipfile.ZIP_BZIP2),
    "lzma": lambda: inner(number_of(1), zipfile.ZIP_LZMA),
    "many names": lambda: inner(
        list_of([array_of("5.npy", 5 + i) for i in range(1000)], 3),
        **{"5_npy": npy(np.zeros(2**17))},
    ),
    "no numbers": lambda: inner(
        list_of([array_of("0.npy", 0)] * 1000, 3), **{"0_npy": npy(np.zeros(2**17))}
    ),
    "huge shape": lambda: inner(array_of("5.npy", 5), **{"5_npy": HUGE}),
    "scalar": lambda: inner(
        array_of("5.npy", 5, __class__="longdouble"), **{"5_npy": npy(np.zeros(2**20, np.int8))}
    ),
    "constructor": lambda: inner(
        list_of([number_of(1)], 2, __class__="KQEqRegressor", __module__="skqeq")
    ),
    "call": lambda: inner(
        list_of(list_of([number_of(1)], 3), 2, __loader__="ConstructorFromReduceNode")
    ),
    "packed": lambda: inner(
        array_of("5.npz", 5, type="scipy", __loader__="SparseMatrixNode"), **{"5_npz": b""}
    ),
    "schema": lambda: inner("[" + "[]," * 7_000_000 + "[]]", zipfile.ZIP_DEFLATED),
    "empty": lambda: inner("{}"),
    "text": lambda: inner('"text"'),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused(kind, tmp_path):
    path = tmp_path / "model.skqeq"
    write(path, HOSTILE[kind]())
    start = time.perf_counter()
    with pytest.raises(ValueError, match="model.skqeq"):
        load(path)
    assert time.perf_counter() - start < 5


LOADS = """
import resource, sys
import skqeq, skops.io
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        skqeq.load(path)
        sys.exit(f"{path} was loaded")
    except ValueError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units on this system")
def test_hostile_files_need_little_memory(tmp_path):
    paths = []
    for i, kind in enumerate(("zeros", "lying", "many names", "no numbers", "huge shape")):
        paths.append(tmp_path / f"{i}.skqeq")
        write(paths[-1], HOSTILE[kind]())
    paths.append(tmp_path / "outer.skqeq")
    write(paths[-1], bytes(200_000_000), zipfile.ZIP_DEFLATED)
    process = subprocess.run(
        [sys.executable, "-c", LOADS, *paths], capture_output=True, text=True, cwd=tmp_path
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 100  # MB


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs")
def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("fifo", "zero"):
        with pytest.raises(ValueError, match=f"{name} is not a regular file"):
            load(tmp_path / name)
    save(QEqRegressor(), tmp_path / "model.skqeq")
    (tmp_path / "link").symlink_to("model.skqeq")
    assert isinstance(load(tmp_path / "link"), QEqRegressor)


def test_files_of_format_6_are_read():
    X = [WATER, molecule("CH3OH")]
    expected = [[0.0, 0.0, -0.2553570795], [0.2235788734, 0.2291529326, 0.0]]
    assert_allclose(load(FORMAT_6).predict(X), expected, rtol=1e-8, atol=1e-12)


def test_files_are_compressed(fitted, tmp_path):
    save(fitted, tmp_path / "model.skqeq")
    joblib.dump(fitted, tmp_path / "model.joblib")
    sizes = [(tmp_path / f"model.{kind}").stat().st_size for kind in ("skqeq", "joblib")]
    print(sizes)
    assert sizes[0] < 1.5 * sizes[1]


def test_models_of_zeros_are_saved(tmp_path):
    # A compressed file of zeros would be refused as a bomb, so `save` does not compress it.
    model = QEqRegressor().fit([WATER], [[0.0, 0.0, -0.39]])
    model.zeros_ = np.zeros(4_000_000)
    save(model, tmp_path / "model.skqeq")
    assert_array_equal(load(tmp_path / "model.skqeq").zeros_, model.zeros_)


def test_shared_arrays_stay_shared(tmp_path):
    model = QEqRegressor().fit([WATER], [[0.0, 0.0, -0.39]])
    model.first_ = [np.arange(5.0)]
    model.second_ = {"a": model.first_, "b": model.first_[0]}
    save(model, tmp_path / "model.skqeq")
    again = load(tmp_path / "model.skqeq")
    assert again.second_["a"] is again.first_
    assert again.second_["b"] is again.first_[0]


# ---- one path, many writers ---------------------------------------------------------------------


def test_threads_that_save_to_one_path(tmp_path):
    path = tmp_path / "model.skqeq"
    save(QEqRegressor(), path)
    errors = []

    def write_often(i):
        try:
            for _ in range(25):
                with replacing(path) as temporary:
                    temporary.write_bytes(bytes([i]) * 100_000)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write_often, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    contents = set()
    while any(thread.is_alive() for thread in threads):
        contents.add(path.read_bytes())
    for thread in threads:
        thread.join()
    assert not errors
    assert all(len(set(content)) == 1 for content in contents if content[:2] != b"PK")
    assert [child.name for child in tmp_path.iterdir()] == ["model.skqeq"]


def test_processes_with_one_number(tmp_path, monkeypatch):
    # Processes in two containers can have the same process id and write to the same folder.
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "model.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"


@pytest.mark.skipif(os.name == "nt", reason="no permissions")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions(mode, tmp_path):
    path = tmp_path / "model.skqeq"
    path.touch()
    expected = path.stat().st_mode
    path.unlink()
    save(QEqRegressor(), path)
    assert path.stat().st_mode == expected
    path.chmod(mode)
    save(QEqRegressor(), path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_description_of_too_many_objects(fitted, monkeypatch, tmp_path):
    """It is neither read nor written, because Python needs 25 times as much memory for it."""
    path = tmp_path / "model.skqeq"
    save(fitted, path)
    monkeypatch.setattr("skqeq._reader.LARGEST_SCHEMA", 1000)
    message = r"the description of its objects has \d+ bytes, more than 1000"
    with pytest.raises(ValueError, match=message):
        load(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        save(fitted, path)
    assert path.read_bytes() == content
