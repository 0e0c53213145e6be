"""Scripts that complete the command line in shells."""

import shutil
import subprocess

import pytest

from skqeq._cli.completion import subcommands
from skqeq._cli.options import TARGETS
from skqeq._cli.parser import build_parser
from skqeq.cli import main

pytestmark = pytest.mark.once


@pytest.fixture(params=["bash", "zsh", "fish"])
def script(request, capsys):
    assert main(["completion", request.param]) == 0
    return request.param, capsys.readouterr().out


def test_scripts_are_valid_and_complete(script):
    shell, text = script
    for command, parser in subcommands(build_parser()).items():
        assert command in text
        for name in (name for action in parser._actions for name in action.option_strings):
            assert (name if shell != "fish" else f" {name.lstrip('-')} ") in text
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=text, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    "line, expected",
    [
        ("ev", ["evaluate"]),
        ("", ["demo", "check", "fit", "predict", "evaluate", "completion", "--help", "--version"]),
        ("fit --sof", ["--softness"]),
        ("fit --response ", ["qeq", "flow"]),
        ("evaluate m.skqeq --targets ", list(TARGETS)),
        ("completion z", ["zsh"]),
        ("fit tr", []),
        ("predict m.skqeq --search", []),
    ],
)
def test_bash(capsys, line, expected):
    main(["completion", "bash"])
    words = f"skqeq {line}".split(" ")
    code = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _skqeq; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", capsys.readouterr().out + code, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected
