"""A few hundred inputs of ``tools/fuzz.py``."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

pytest.importorskip("resource")  # not on Windows
PATH = Path(__file__).parents[2] / "tools" / "fuzz.py"


def test_damaged_input_is_refused_or_gives_charges():
    spec = importlib.util.spec_from_file_location("fuzz", PATH)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    counts, failures = fuzz.fuzz(240, seed=1)
    assert not failures
    assert sum(counts.values()) == 240
    kinds = {kind for kind, _ in counts}
    assert kinds == {"file_to_loader", "file_to_command", "info", "model_file"}
    assert all(counts[kind, "refused"] > 5 for kind in kinds)
    assert counts["info", "accepted"] > 5
