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
    counts, failures = fuzz.fuzz(240, seed=2)
    assert not failures
    assert sum(counts.values()) == 240
    damaged = {"file_to_loader", "file_to_command", "info", "model_file", "other_format"}
    valid = {"odd_file", "other_program", "label"}
    assert {kind for kind, _ in counts} == damaged | valid | {"wrong_word", "output_name"}
    for kind in (*damaged, "output_name"):
        assert counts[kind, "refused"] > 3
    for kind in ("info", "other_format", "output_name"):
        assert counts[kind, "accepted"] > 0
    assert counts["odd_file", "accepted"] == counts["wrong_word", "refused"] == 24
    assert counts["other_program", "accepted"] == 24
    assert counts["label", "accepted"] > 3 and counts["label", "refused"] > 3
