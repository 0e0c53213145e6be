"""Tests of the choice between the installed package and the checkout, and between kernels."""

import os
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import skqeq
from skqeq import _pythran

LOOPS = sorted(
    p.stem.removesuffix("_numpy") for p in Path(_pythran.__file__).parent.glob("*_numpy.py")
)


def backend(choice, tmp_path):
    """Import the kernels in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", "from skqeq import _pythran; print(_pythran.backend)"],
        env=os.environ | {"SKQEQ_KERNELS": choice},
        # In the checkout, Python would import its sources instead of the installed package.
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


def test_the_installed_package_is_tested():
    """The tests must not import the sources of the checkout, which have no compiled kernels."""
    installed = Path(metadata.distribution("skqeq").locate_file("skqeq"))
    # An editable install has no such folder, and the checkout is the installed package.
    assert not installed.is_dir() or installed.samefile(Path(skqeq.__file__).parent), (
        "the sources of the checkout are imported, not the installed package: run plain `pytest`"
    )


@pytest.mark.parametrize("name", LOOPS)
def test_backend_says_what_runs(name):
    compiled = hasattr(import_module(f"skqeq._pythran.{name}"), "__pythran__")
    choice = os.environ.get("SKQEQ_KERNELS", "auto")
    assert _pythran.backend == ("pythran" if compiled and choice != "numpy" else "numpy")


@pytest.mark.parametrize("name", LOOPS)
def test_twins_have_the_same_functions(name):
    loops = import_module(f"skqeq._pythran.{name}")
    twin = import_module(f"skqeq._pythran.{name}_numpy")
    exports = {
        line.split("export ")[1].split("(")[0]
        for line in Path(twin.__file__).with_name(f"{name}.py").read_text().splitlines()
        if line.startswith("# pythran export")
    }
    assert exports
    for function in exports:
        assert callable(getattr(loops, function))
        assert callable(getattr(twin, function))


def test_environment_chooses(tmp_path):
    assert backend("numpy", tmp_path).stdout == "numpy\n"
    forced = backend("compiled", tmp_path)
    assert forced.stdout == "pythran\n" or "SKQEQ_KERNELS=compiled, but" in forced.stderr
    assert "must be 'auto', 'compiled' or 'numpy', got 'fast'" in backend("fast", tmp_path).stderr


def test_show_versions(capsys):
    skqeq.show_versions()
    printed = capsys.readouterr().out
    for word in ("skqeq", "numpy", "scikit-learn", "dscribe", f"kernels: {_pythran.backend}"):
        assert word in printed
