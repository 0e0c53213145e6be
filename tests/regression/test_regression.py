"""Fits of all kinds reproduce stored numbers, see ``cases.py``.

Numbers are compared relative to the largest one of their array. The command ``python
tests/regression/write.py`` writes new numbers.

The tests were run with other BLAS kernels, one or two threads, the NumPy twins of the compiled
kernels, and the oldest dependencies (NumPy 2.0, SciPy 1.13, scikit-learn 1.8), all on x86-64. The
largest deviation of any number was 1.1e-11, including iterative fits. Other processors were not
tried.
"""

import numpy as np
import pytest

import skqeq

from .cases import CASES
from .measure import HERE, NUMBERS, deviation, fit, measure, predictions, with_weights

# Tolerance for fits that are one least-squares problem, and for predictions with given weights.
EXACT = 1e-9
# Tolerance for fits that iterate until `tol` = 1e-10.
ITERATED = 1e-6
# This file has an older format, in which the regressor held the parameters of the response.
MODEL = HERE / "model_0.1_before.skqeq"


def stored(name):
    """The stored numbers of a case."""
    with np.load(NUMBERS) as numbers:
        return {
            key.removeprefix(f"{name}/"): numbers[key]
            for key in numbers
            if key.startswith(f"{name}/")
        }


def check(name, what, found, expected, tolerance):
    """Compare all numbers in `found`; `tolerance(name)` is the tolerance of a quantity."""
    deviations = {key: deviation(found[key], expected[key]) for key in found}
    wrong = [
        f"  {key}: {found[key].size} numbers, relative deviation {deviations[key]:.1e}, "
        f"tolerance {tolerance(key):.0e}"
        for key in sorted(deviations, key=deviations.get, reverse=True)
        if not deviations[key] <= tolerance(key)
    ]
    if wrong:
        lines = [f"case {name}, {what}, {len(wrong)} of {len(found)} quantities:", *wrong]
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.parametrize("name", CASES)
def test_numbers(name):
    case, expected = CASES[name](), stored(name)
    fitted = fit(case)
    found = measure(case, fitted)
    assert sorted(found) == sorted(expected), "stored quantities differ: run regression/write.py"

    def tolerance(key):
        iterated = not case.linear or key.startswith("iterated/")
        return ITERATED if iterated else EXACT

    check(name, "fitted", found, expected, tolerance)
    if not case.linear:
        given = predictions(with_weights(fitted, expected), case)
        check(name, "with the stored weights", given, expected, lambda key: EXACT)


def test_every_stored_number_belongs_to_a_case():
    with np.load(NUMBERS) as numbers:
        assert {key.split("/")[0] for key in numbers} == set(CASES)


def test_a_model_file_of_an_older_format_is_refused_with_advice():
    with pytest.raises(ValueError, match="format 5 by an older skqeq.*'Old and new names'"):
        skqeq.load(MODEL)
