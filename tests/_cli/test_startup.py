"""Imports of the package and of the commands: only when they are needed."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import skqeq
from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer
from skqeq._cli import fit, options
from skqeq.targets import TARGETS, UNITS

from ..public import PUBLIC

pytestmark = pytest.mark.once

# Runs a command, and prints the packages that it imported.
IMPORTED = """
import sys
from skqeq.cli import main

sys.argv = ["skqeq", *sys.argv[1:]]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print(*sorted({name.partition(".")[0] for name, module in sys.modules.items() if module}))
sys.exit(code)
"""


def imported(*argv, **options):
    """Names of the packages that a command imports."""
    command = [sys.executable, "-P", "-c", IMPORTED, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["fit", "--help"]])
def test_help_imports_no_library(argv):
    libraries = {"numpy", "scipy", "sklearn", "ase", "dscribe", "numba", "vesin", "torch", "tqdm"}
    assert imported(*argv).isdisjoint(libraries)


def test_predict_imports_what_it_needs(energy_folder, tmp_path, monkeypatch):
    """Forces are predicted, for which vesin is needed; vesin imports torch if it can."""
    for name in ("torch", "chemiscope"):
        (tmp_path / f"{name}.py").write_text("uint64 = int32 = float64 = None\nclass Tensor: ...\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "torch" in imported_by("import vesin")
    argv = ["predict", energy_folder / "model.skqeq", energy_folder / "train.xyz@:1"]
    names = imported(*argv, "-o", tmp_path / "out.xyz", "-q")
    assert "vesin" in names
    assert names.isdisjoint({"torch", "matplotlib", "skops", "chemiscope"})


def imported_by(code):
    code += "\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_import_of_the_package_imports_nothing_else():
    names = imported_by("import skqeq; dir(skqeq)")
    assert {"numpy", "sklearn"}.isdisjoint(names)
    assert [name for name in names if name.startswith("skqeq")] == ["skqeq"]


def test_type_checkers_read_the_names_of_the_package():
    stub = ast.parse(Path(skqeq.__file__).with_suffix(".pyi").read_text())
    modules, listed = {}, None
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            modules |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign):
            listed = ast.literal_eval(node.value)
    assert modules == skqeq._MODULES
    assert listed == skqeq.__all__


def test_names_of_the_package():
    space = {}
    exec("from skqeq import *", space)
    assert set(skqeq.__all__) < set(space)
    assert set(skqeq.__all__) | {"__version__", "targets"} < set(dir(skqeq))
    assert pickle.loads(pickle.dumps(skqeq.load)) is skqeq.load
    with pytest.raises(AttributeError, match="module 'skqeq' has no attribute 'KQEqRegresor'"):
        _ = skqeq.KQEqRegresor
    with pytest.raises(ImportError, match="cannot import name 'KQEqRegresor'"):
        exec("from skqeq import KQEqRegresor")


def test_modules_are_attributes_of_the_package():
    names = [name.partition(".")[2] for name in PUBLIC if name != "skqeq"]
    code = "import skqeq\n" + "\n".join(f"skqeq.{name}.__all__" for name in names)
    assert f"skqeq.{names[0]}" in imported_by(code)


def test_options_repeat_what_the_package_says():
    assert options.TARGETS == tuple(TARGETS)
    model = KQEqRegressor()
    assert options.SIGMAS == tuple(getattr(model, f"sigma_{name}") for name in TARGETS)
    assert options.UNITS == UNITS
    assert options.RESPONSES == tuple(fit.RESPONSES)
    params = SOAPFeaturizer().get_params() | CURSparsifier().get_params()
    assert options.FEATURES == {name: params[name] for name in options.FEATURES}
    # `ChargeFlow` has all of these parameters, and `QEq` some of them, with the same defaults.
    assert tuple(options.RESPONSE) == fit.RESPONSE_OPTIONS
    qeq, flow = QEq().get_params(), ChargeFlow().get_params()
    assert options.RESPONSE == {name: flow[name] for name in options.RESPONSE}
    assert options.RESPONSE == options.RESPONSE | {n: qeq[n] for n in options.RESPONSE if n in qeq}
