"""The chains of ``tools/make_chains.py`` before their relaxation."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from skqeq.validation import find_fragments

pytestmark = pytest.mark.once

PATH = Path(__file__).parents[2] / "tools" / "make_chains.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_chains", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORMULAS = {
    "alpha helix": {"C": 3, "H": 5, "N": 1, "O": 1},
    "beta strand": {"C": 3, "H": 5, "N": 1, "O": 1},
    "conjugated": {"C": 2, "H": 2, "N": 0, "O": 0},
    "saturated": {"C": 1, "H": 2, "N": 0, "O": 0},
}


@pytest.mark.parametrize("kind", FORMULAS)
def test_chains(kind, tool):
    """Each chain is one molecule without close contacts, and its X-H bonds have normal lengths."""
    for n in (1, 2, 7):
        atoms, longer = tool.build(kind, n), tool.build(kind, n + 1)
        assert find_fragments(atoms, 1.15).max() == 0
        distances = atoms.get_all_distances() + 10.0 * np.eye(len(atoms))
        assert distances.min() > 0.95
        hydrogens = atoms.symbols == "H"
        nearest = distances[hydrogens].min(axis=1)
        assert ((nearest > 0.95) & (nearest < 1.12)).all()
        # Each hydrogen has one bond, and no other atom is close.
        assert (distances[hydrogens] < 1.3).sum() == hydrogens.sum()
        for symbol, more in FORMULAS[kind].items():
            added = (longer.symbols == symbol).sum() - (atoms.symbols == symbol).sum()
            assert added == more


def test_helices_are_right_handed_and_strands_are_long(tool):
    """Check the rise per residue of helix and strand, and the handedness of the helix."""
    n = 12
    rises = {}
    for kind in ("alpha helix", "beta strand"):
        atoms = tool.build(kind, n)
        distances = atoms.get_all_distances()
        carbons = [
            i
            for i in np.flatnonzero(atoms.symbols == "C")
            if sorted(atoms.symbols[distances[i] < 1.6]) == ["C", "C", "C", "H", "N"]
        ]
        assert len(carbons) == n
        r = atoms.positions[carbons]
        rises[kind] = np.linalg.norm(r[-1] - r[0]) / (n - 1)
        turn = np.cross(r[2] - r[1], r[3] - r[2])
        handedness = np.sign(turn @ (r[-1] - r[0]))
        assert kind == "beta strand" or handedness > 0
    assert rises["alpha helix"] == pytest.approx(1.5, abs=0.15)
    assert rises["beta strand"] == pytest.approx(3.3, abs=0.3)
