"""Some inputs of ``tools/fuzz_models.py``, in this process."""

import warnings
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

pytest.importorskip("resource")  # not on Windows


def test_mutated_model_files_are_refused_or_loaded(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    models = import_module("fuzz_models").Models(tmp_path)
    outcomes = Counter()
    for i in range(60):
        kind, path, expected = models.mutated(i, seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcomes[models.load_and_predict(path, expected)] += 1
    assert outcomes["refused"] > 20 and outcomes["same predictions"] > 10
