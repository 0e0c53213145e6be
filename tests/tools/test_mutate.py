"""``tools/mutate.py`` changes one place in a line of physics, and recognises failing tests."""

import ast
import importlib.util
from itertools import zip_longest
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("mutate", ROOT / "tools" / "mutate.py")
mutate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutate)

SOURCE = b'''"""Text with 1 + 2 in it."""
TABLE = 2.0 * 3.0


def f(x, i, j=1 + 1):
    """Text - with 3 * 4."""
    if x[0] < 0:
        raise ValueError(f"{x[0] * 2}")
    max_bytes = 2 * 8
    y = -x[i, 0] * 1 + 1e-9
    y += x.T.sum(axis=0)[j] / 0.5
    return [1] + ["a" + "b"]
'''


@pytest.fixture(scope="module")
def candidates():
    """All mutations of the package."""
    return mutate.candidates()


def test_which_lines_are_mutated(tmp_path):
    mutations = mutate.Finder("f.py", SOURCE).mutations
    assert {m.line(SOURCE)[0] for m in mutations} == {10, 11}
    after = [m.line(SOURCE)[2] for m in mutations]
    assert after == [
        "y = -x[i, 0] * 1 - 1e-9",
        "y = x[i, 0] * 1 + 1e-9",
        "y = -x[j, 0] * 1 + 1e-9",
        "y = -x[i, 1] * 1 + 1e-9",
        "y = -x[i, 0] * 2 + 1e-9",
        "y -= x.T.sum(axis=0)[j] / 0.5",
        "y += x.T.sum(axis=0)[j] * 0.5",
        "y += x.sum(axis=0)[j] / 0.5",
        "y += x.T.sum(axis=1)[j] / 0.5",
        "y += x.T.sum(axis=0)[i] / 0.5",
        "y += x.T.sum(axis=0)[j] / 1.0",
    ]
    assert len(mutate.Finder("parameters.py", SOURCE).mutations) == len(after) + 3


def test_mutations_change_one_place_and_compile(candidates):
    files = {file for file, _ in candidates}
    for part in (
        "electrostatics",
        "fields",
        "response",
        "models",
        "solvers",
        "_pythran",
        "spectra",
    ):
        assert any(part in file for file in files)
    assert len(candidates) > 500
    for file in files:
        source = (ROOT / file).read_bytes()
        lines = [mutations for (name, _), mutations in sorted(candidates.items()) if name == file]
        for mutations in lines:
            assert len(set(mutations)) == len(mutations)
            for m in mutations:
                before = source[m.start : m.stop]
                assert before != m.text and b"\n" not in before
                assert m.apply(source) == source[: m.start] + m.text + source[m.stop :]
        # One mutation of every line at a time, applied from the last line to the first.
        for together in zip_longest(*reversed(lines)):
            mutated = source
            for mutation in filter(None, together):
                mutated = mutation.apply(mutated)
            compile(mutated, file, "exec", ast.PyCF_ONLY_AST)


def test_seed_decides():
    assert mutate.draw(5, 3) == mutate.draw(5, 3)
    assert mutate.draw(5, 3) != mutate.draw(5, 4)
    assert len({(m.file, m.start) for m in mutate.draw(40, 0)}) == 40


def test_planted_sign_is_caught(candidates, tmp_path):
    """The planted error is a wrong sign of the electronegativity."""
    file, test = "skqeq/response/_qeq.py", "tests/response/test_qeq.py::test_charges"
    source = (ROOT / file).read_bytes()
    [planted] = (
        mutation
        for (name, _), mutations in candidates.items()
        for mutation in mutations
        if name == file and "minimise(self._linear(fields)" in mutation.line(source)[2]
    )
    assert mutate.run(tmp_path, planted, [test]) == test
    assert (ROOT / file).read_bytes() == source
    assert (tmp_path / "copy" / file).read_bytes() == planted.apply(source)
    assert mutate.run(tmp_path, None, [test]) is None


def test_report_has_the_last_result_of_a_line(tmp_path):
    path = tmp_path / "report.csv"
    for result, seconds in (("SURVIVED", 60), ("tests/test_x.py::test_y[a,b]", 2)):
        mutate.add_to_report(path, [0, "skqeq/x.py", 3, "a + b", "a - b", result, seconds])
    mutate.add_to_report(path, [1, "skqeq/x.py", 3, "a + b", "a - b", "SURVIVED", 60])
    header, *rows = path.read_text().splitlines()
    assert header == "seed,file,line,before,after,caught by,seconds"
    assert rows == [
        '0,skqeq/x.py,3,a + b,a - b,"tests/test_x.py::test_y[a,b]",2',
        "1,skqeq/x.py,3,a + b,a - b,SURVIVED,60",
    ]
