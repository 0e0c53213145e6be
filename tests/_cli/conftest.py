import pytest
from ase.io import write

from skqeq.cli import main

from .common import SMALL, labelled, with_energies


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A training file and a fitted model."""
    folder = tmp_path_factory.mktemp("cli")
    write(folder / "train.xyz", labelled())
    command = ["fit", folder / "train.xyz", "-o", folder / "model.skqeq", *SMALL, "--quiet"]
    assert main([str(a) for a in command]) == 0
    return folder


@pytest.fixture(scope="session")
def energy_folder(tmp_path_factory):
    """A training file with energies and forces, and a model fitted to them."""
    folder = tmp_path_factory.mktemp("energies")
    write(folder / "train.xyz", with_energies(labelled(2)))
    command = f"fit {folder}/train.xyz -o {folder}/model.skqeq --targets energy forces -q"
    command += (
        " --hardness 7.5 --radius-scale 0.25 --cutoff-width 1 --sigma energy=0.005 forces=0.2"
    )
    assert main([*command.split(), *SMALL]) == 0
    return folder
