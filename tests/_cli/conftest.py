import pytest
from ase.io import write

from skqeq.cli import main

from .common import SMALL, labelled


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A training file and a fitted model."""
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "train.xyz", labelled())
    command = ["fit", folder / "train.xyz", "-o", folder / "model.joblib", *SMALL, "--quiet"]
    assert main([str(a) for a in command]) == 0
    return folder
