"""Messages about parts of a file count structures from the beginning of the file."""

import pytest
from ase.io import write

from skqeq._cli import predict
from skqeq._cli.numbering import FileNumbers
from skqeq.cli import main

from .common import SMALL, error_of, labelled

pytestmark = pytest.mark.filterwarnings("always::UserWarning")
COMMANDS = {
    "check": "check {0}/data.xyz@10:",
    "fit": "fit {0}/data.xyz@10: -o {0}/model.skqeq -q " + " ".join(SMALL),
    "evaluate": "evaluate {1}/model.skqeq {0}/data.xyz@10: -q",
    "predict": "predict {1}/model.skqeq {0}/data.xyz@10: -o {0}/out.xyz -q",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_slices(folder, tmp_path, capsys, command):
    argv = COMMANDS[command].format(tmp_path, folder).split()
    X = labelled()
    X[14].info["net_charge"] = -1
    write(tmp_path / "data.xyz", X)
    assert main(argv) == (1 if command == "check" else 0)
    output, messages = capsys.readouterr()
    assert "structure 14 (" in output + messages and "structure 4 (" not in output + messages
    if command == "check":
        assert "total charge              warning           1     14" in output
    X[14].positions[1] = X[14].positions[0]
    write(tmp_path / "data.xyz", X)
    assert ": error: structure 14 (" in error_of(capsys, *argv)


def test_blocks(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 4)
    X = labelled(1)
    X[6].info["net_charge"] = -1
    write(tmp_path / "data.xyz", X)
    assert main(COMMANDS["predict"].replace("@10:", "").format(tmp_path, folder).split()) == 0
    assert "warning: structure 6 (" in capsys.readouterr().err


def test_texts():
    numbers = FileNumbers([5, 9, 2])
    assert numbers.text("structure 0 (H2), and 2 other structures") == (
        "structure 5 (H2), and 2 other structures"
    )
    assert numbers.text("structures 1 and 2 have; in 2 of 3 structures") == (
        "structures 9 and 2 have; in 2 of 3 structures"
    )
    assert numbers.text("structure 3, of another list") == "structure 3, of another list"
