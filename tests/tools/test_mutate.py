"""The tool that changes lines of physics: one place at a time, and a test that notices."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
mutate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutate)

SOURCE = '''"""Not -1 here."""
WIDTH = 2 * 3


def energy(q, A, n=1 + 1):
    """Nor q + 1 here."""
    if n > 2 - 1:
        raise ValueError(f"{n + 1} is too large")
    q -= 1.0
    return 0.5 * q @ A.T[0] - q[:, 1] / -n
'''


def test_every_kind_of_change(tmp_path):
    path = tmp_path / "physics.py"
    path.write_text(SOURCE)
    found = [mutation.lines() for mutation in mutate.candidates(path)]
    last = "return 0.5 * q @ A.T[0] - q[:, 1] / -n"
    assert found == [
        ("q -= 1.0", "q += 1.0"),
        (last, "return 1.5 * q @ A.T[0] - q[:, 1] / -n"),
        (last, "return 0.5 / q @ A.T[0] - q[:, 1] / -n"),
        (last, "return 0.5 * q @ A[0] - q[:, 1] / -n"),
        (last, "return 0.5 * q @ A.T[1] - q[:, 1] / -n"),
        (last, "return 0.5 * q @ A.T[0] + q[:, 1] / -n"),
        (last, "return 0.5 * q @ A.T[0] - q[:, 2] / -n"),
        (last, "return 0.5 * q @ A.T[0] - q[:, 1] * -n"),
        (last, "return 0.5 * q @ A.T[0] - q[:, 1] / n"),
    ]


def test_lines_of_the_package():
    drawn = mutate.draw(50, seed=0)
    assert [m.lines() for m in drawn] == [m.lines() for m in mutate.draw(50, seed=0)]
    assert len({(m.path, m.line) for m in drawn}) == 50
    for mutation in drawn:
        ast.parse(mutation.changed)
        before, after = (s.splitlines() for s in (mutation.source, mutation.changed))
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1


def test_a_wrong_sign_is_noticed():
    path = ROOT / "skqeq" / "_pythran" / "_coulomb_numpy.py"
    mutation = next(m for m in mutate.candidates(path) if m.source[m.start : m.stop] == "-")
    test = ROOT / "tests" / "_pythran" / "test_coulomb.py"
    try:
        assert mutate.caught(mutation, [test]).startswith("tests/_pythran/test_coulomb.py::")
    except RuntimeError as error:
        if "instead of the copy" not in str(error):
            raise
        pytest.skip("an editable installation")
