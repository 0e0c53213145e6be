"""Closed and broken standard streams, and Ctrl-C."""

import subprocess
import sys

import pytest

from skqeq.cli import main

pytestmark = pytest.mark.once
COMMAND = [sys.executable, "-P", "-m", "skqeq.cli"]


def run_in_shell(redirection, *argv, **options):
    command = ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *COMMAND, *argv]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_an_error_is_shown_where_a_stream_is_open(tmp_path):
    for redirection, shown in (("2>&-", "stdout"), (">&-", "stderr")):
        done = run_in_shell(redirection, "evaluate", f"{tmp_path}/no.skqeq", "no.xyz")
        assert done.returncode == 2
        assert "Traceback" not in done.stdout + done.stderr
        assert "no.skqeq: No such file" in getattr(done, shown)


def test_an_error_in_arguments_is_shown_where_a_stream_is_open():
    for redirection, shown in (("2>&-", "stdout"), (">&-", "stderr")):
        done = run_in_shell(redirection, "fit", "--folds", "x")
        assert done.returncode == 2
        assert getattr(done, shown).startswith("usage: skqeq fit")
        assert "error: argument --folds: invalid int value: 'x'" in getattr(done, shown)


def test_help_into_a_pipe_that_nobody_reads():
    done = run_in_shell("| true", "fit", "--help")
    assert (done.returncode, done.stderr) == (0, "")


# Sends SIGINT when a module is imported, and does what the installed command does.
INTERRUPTED = """
import signal
import sys


class Finder:
    def find_spec(self, name, *_):
        if name == module:
            signal.raise_signal(signal.SIGINT)


module = sys.argv.pop(1)
sys.meta_path.insert(0, Finder())
from skqeq.cli import main

sys.exit(main())
"""


@pytest.mark.parametrize("module", ["numpy", "sklearn.base", "numba"])
def test_interrupt_during_imports(folder, tmp_path, module):
    argv = ["predict", folder / "model.skqeq", folder / "train.xyz", "-o", tmp_path / "out.xyz"]
    command = [sys.executable, "-P", "-c", INTERRUPTED, module, *argv, "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "skqeq: interrupted"
    assert not list(tmp_path.iterdir())


def test_a_closed_stderr_does_not_write_into_an_output(folder, tmp_path):
    argv = ["predict", f"{folder}/model.skqeq", f"{folder}/train.xyz@:3", "-o"]
    assert main([*argv, f"{tmp_path}/open.xyz"]) == 0
    assert run_in_shell("2>&- >&-", *argv, f"{tmp_path}/closed.xyz").returncode == 0
    assert (tmp_path / "open.xyz").read_text() == (tmp_path / "closed.xyz").read_text()


@pytest.mark.parametrize(
    "redirection, code, message", [("| true", 141, ""), (">/dev/full", 2, "No space left")]
)
def test_output_that_cannot_be_written(folder, redirection, code, message):
    argv = ["predict", f"{folder}/model.skqeq", f"{folder}/train.xyz", "-q", "-o", "-"]
    done = run_in_shell(redirection, *argv)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
