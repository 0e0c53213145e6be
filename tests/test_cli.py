import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from skqeq.cli import main


def test_version_of_the_installed_command():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "skqeq.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"skqeq {version('skqeq')}"


@pytest.mark.parametrize("command", ["demo", "check", "fit", "predict", "evaluate"])
def test_help_has_examples_and_a_warning(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert f"skqeq {command}" in text.split("examples:")[1]
    assert command in ("demo", "check") or "load only files that you trust" in text


@pytest.mark.parametrize(
    "options, message",
    [
        (["--sigma", "dipole"], "'dipole' is not TARGET=VALUE"),
        (["--sigma", "dipole=x"], "'x' is not a number"),
        (["--key", "mass=m"], "'mass=m' is not TARGET=VALUE"),
        (["-o", "nowhere/model.joblib"], "is in a folder that does not exist"),
        (["-o", "."], "is not a regular file"),
        (["-o", os.devnull], "is not a regular file"),
    ],
)
def test_bad_options_are_refused_before_anything_runs(capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "train.xyz", "-o", "model.joblib", *options])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert main(["evaluate", "nothing.joblib", "nothing.xyz", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err
