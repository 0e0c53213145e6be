"""Mutation testing: plant one small error in the physics, and check that a test fails.

    python tools/mutate.py [--lines 10] [--seed 0] [--only 3 7] [--report mutations.csv]

The program draws lines of physics at random, and changes each of them in a copy of the checkout:

- a sign: ``+`` becomes ``-`` or the reverse, or a minus is removed;
- a factor: ``*`` becomes ``/`` or the reverse, an integer is raised by one, or a float is doubled;
- an index: a number changes, a name becomes its partner in `PARTNERS`, the axis changes, or ``.T``
  is removed.

Then it runs the tests of the same folder against the copy, and if these pass, all other tests
except those of docs and tools. The tests use the NumPy twins of the kernels, so that nothing is
compiled. A test that also fails without the mutation is ignored. A run that takes longer than
`SECONDS` counts as a failure. The report is printed. The exit status is an error if a mutation
survived, that is, if no test failed.

The program draws from all lines with arithmetic or numeric indices in functions of the files in
`PHYSICS`, and from the constants of the files in `CONSTANTS`. It does not change

- messages, asserts, annotations, conditions of an error, arithmetic with strings, lists and sets;
- statements with one of the words in `NO_PHYSICS`, powers of two above 2**9, and the functions in
  `ESTIMATES`: they influence time, memory, types or printing, but no result;
- numbers below `TOLERANCE` except zero: they protect against rounding errors;
- neutral operations: ``x * 1``, ``x / 1``, ``x + 0``, ``x - 0``, ``(-x)**2``.
"""

import argparse
import ast
import contextlib
import csv
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PHYSICS = (
    *("structures/_neighbors", "features/_neighborhood", "features/_cutoff", "sparsify/*"),
    *("electrostatics/*", "fields/*", "response/*", "targets/*", "solvers/*", "models/*"),
    *("_pythran/*_numpy", "parameters", "spectra", "metrics"),
)
# This test requires the installed package, but the mutated copy is not installed.
DESELECTED = "tests/_pythran/test_backend.py::test_the_installed_package_is_tested"
CONSTANTS = ("parameters.py", "spectra.py", "metrics.py")
PARTNERS = {"i": "j", "j": "i", "a": "b", "b": "a", "u": "v", "v": "u"}
NO_PHYSICS = re.compile(
    r"bytes|BLOCK|SMALL|COST|cost|jitter|verbose|tqdm|warn|print|isinstance|2 \*\* [1-9]\d"
)
ESTIMATES = ("choose", "cost")
TOLERANCE = 1e-5
SECONDS = 3600
SKIPPED = (ast.Raise, ast.Assert, ast.AnnAssign, ast.JoinedStr, ast.arguments, ast.Import)
COLLECTIONS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.ListComp, ast.JoinedStr)
OPERATORS = {ast.Add: "+-", ast.Sub: "-+", ast.Mult: "*/", ast.Div: "/*"}
COLUMNS = ("seed", "file", "line", "before", "after", "caught by", "seconds")


class Mutation(NamedTuple):
    """Bytes `start` to `stop` of a file, and the text that replaces them."""

    file: str
    start: int
    stop: int
    text: bytes

    def apply(self, source):
        """The mutated source."""
        return source[: self.start] + self.text + source[self.stop :]

    def line(self, source):
        """Number of the line, and the line before and after the mutation."""
        n = source.count(b"\n", 0, self.start)
        lines = (text.split(b"\n")[n].strip().decode() for text in (source, self.apply(source)))
        return n + 1, *lines


class Finder:
    """Finds all mutations of one file.

    Parameters
    ----------
    file : str
        Path of the file in the checkout.
    source : bytes
        Its content.

    Attributes
    ----------
    mutations : list of Mutation
        All mutations of the file.
    """

    def __init__(self, file, source):
        self.file, self.source, self.mutations, self.names = file, source, [], set()
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) or Path(file).name in CONSTANTS:
                self.statement(node)

    def span(self, node):
        """First byte of a node, and the byte after its last one."""
        ends = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        return [self.starts[line - 1] + column for line, column in ends]

    def add(self, start, stop, text):
        """Add a mutation."""
        self.mutations.append(Mutation(self.file, start, stop, text.encode()))

    def statement(self, node):
        """Find the mutations of a statement and of the statements inside it."""
        if isinstance(node, SKIPPED) or getattr(node, "name", None) in ESTIMATES:
            return
        children, outer = list(ast.iter_child_nodes(node)), self.names
        if isinstance(node, ast.FunctionDef):
            children = node.body
            self.names = outer | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.ClassDef):
            children = [child for child in node.body if isinstance(child, ast.FunctionDef)]
        expressions = []
        for child in children:
            if isinstance(child, ast.stmt | ast.ExceptHandler):
                self.statement(child)
            else:
                expressions.append(child)
        self.names = outer
        is_check = isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise)
        if is_check or NO_PHYSICS.search(" ".join(map(ast.unparse, expressions))):
            return
        if isinstance(node, ast.AugAssign):
            self.operator(node, node.target, node.value)
        for child in expressions:
            self.expression(child, node)

    def expression(self, node, parent, index=False):
        """Find the mutations of an expression; `index` tells whether it is part of an index."""
        if isinstance(node, SKIPPED):
            return
        if isinstance(node, ast.BinOp):
            self.operator(node, node.left, node.right)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            squared = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow)
            if not (squared and number(parent.right) == 2):
                start, _ = self.span(node)
                self.add(start, start + 1, "")
        elif isinstance(node, ast.Constant):
            if index or isinstance(parent, ast.BinOp | ast.UnaryOp | ast.AugAssign):
                self.constant(node, index)
        elif isinstance(node, ast.Name) and index:
            if PARTNERS.get(node.id) in self.names:
                self.add(*self.span(node), PARTNERS[node.id])
        elif isinstance(node, ast.Attribute) and node.attr == "T":
            _, stop = self.span(node)
            self.add(stop - 2, stop, "")
        elif isinstance(node, ast.keyword) and node.arg == "axis":
            self.add(*self.span(node.value), "1" if number(node.value) == 0 else "0")
            return
        for child in ast.iter_child_nodes(node):
            brackets = isinstance(node, ast.Subscript) and child is node.slice
            self.expression(child, node, index or brackets)

    def operator(self, node, left, right):
        """Replace ``+ - * /``."""
        old, new = OPERATORS.get(type(node.op), "  ")
        if old == " " or any(not numeric(side) for side in (left, right)):
            return
        if number(right) == {"+": 0, "-": 0, "*": 1, "/": 1}[old]:
            return
        start = self.source.index(old.encode(), self.span(left)[1], self.span(right)[0])
        self.add(start, start + 1, new)

    def constant(self, node, index):
        """Replace a number."""
        x = number(node)
        if x is None or 0 < abs(x) < TOLERANCE:
            return
        if isinstance(x, float):
            x = 2 * x or 1.0
        else:
            x = x - 1 if index and x else x + 1
        self.add(*self.span(node), repr(x))


def number(node):
    """The value of a numeric constant; None for other nodes."""
    is_number = isinstance(node, ast.Constant) and type(node.value) in (int, float)
    return node.value if is_number else None


def numeric(node):
    """Whether a node can be a number or an array: no string, list or set."""
    text = isinstance(node, ast.Constant) and number(node) is None
    of_sets = isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("set", "list")
    return not (text or of_sets or isinstance(node, COLLECTIONS))


def candidates(root=ROOT):
    """All mutations of the package: lists by file and line."""
    by_line = {}
    files = {path for pattern in PHYSICS for path in (root / "skqeq").glob(f"{pattern}.py")}
    for path in sorted(files):
        source = path.read_bytes()
        for mutation in Finder(path.relative_to(root).as_posix(), source).mutations:
            line = source.count(b"\n", 0, mutation.start) + 1
            by_line.setdefault((mutation.file, line), []).append(mutation)
    return by_line


def draw(n_lines, seed, root=ROOT):
    """Draw random lines, and one random mutation of each."""
    by_line, rng = candidates(root), random.Random(seed)
    return [rng.choice(by_line[line]) for line in rng.sample(sorted(by_line), n_lines)]


def run(folder, mutation=None, tests=("tests",), options=()):
    """Run tests against a mutated copy of the checkout; return the first failure, or None.

    A failure is pytest's name of the test, or a text if pytest itself failed.
    """
    ignored = shutil.ignore_patterns(
        ".*", "__pycache__", "_build", "build", "*.so", "auto_examples"
    )
    copy = Path(folder) / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=ignored)
    if mutation:
        path = copy / mutation.file
        path.write_bytes(mutation.apply(path.read_bytes()))
    # The import hook of an editable install would take precedence over PYTHONPATH.
    (copy / "sitecustomize.py").write_text(
        "import sys\nsys.meta_path = [f for f in sys.meta_path if 'Mesonpy' not in repr(f)]\n"
    )
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", *tests, *options]
    settings = {"PYTHONPATH": str(copy), "SKQEQ_KERNELS": "numpy", "PYTHONDONTWRITEBYTECODE": "1"}
    settings |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with open(Path(folder) / "log", "w+") as log:
        process = subprocess.Popen(
            [*command, f"--deselect={DESELECTED}", "-p", "no:cacheprovider", "--hypothesis-seed=0"],
            cwd=copy,
            env=os.environ | settings,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            code = "time"
        finally:  # also ends the processes that tests have started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if code in (0, 5):
            return None
        log.seek(0)
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log.read(), flags=re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {code}"


def caught_by(mutation, folder):
    """The first test that fails only with the mutation, or None; and the seconds it took."""
    _, *parents, name = Path(mutation.file).with_suffix("").parts
    nearest = f"tests/{parents[0]}" if parents else f"tests/test_{name}.py"
    options = ["--ignore=tests/test_docs.py", "--ignore=tests/tools", f"--ignore={nearest}"]
    runs, seconds = [(["tests"], options)], 0.0
    if (ROOT / nearest).exists():
        runs.insert(0, ([nearest], []))
    for tests, options in runs:
        while True:
            start = time.perf_counter()
            failed = run(folder, mutation, tests, options)
            seconds += time.perf_counter() - start
            if failed is None:
                break
            without = run(folder, None, [failed]) if failed.startswith("tests") else None
            if without is None:
                return failed, seconds
            if without != failed:
                raise RuntimeError(f"{failed} alone, without the mutation: {without}")
            print(f"  {failed} fails without the mutation too", flush=True)
            options = [*options, f"--deselect={failed}"]
    return None, seconds


def add_to_report(path, row):
    """Add a row to a CSV table; it replaces an older row of the same mutation."""
    row, old = [str(x) for x in row], []
    if path.exists():
        with open(path, newline="") as file:
            old = list(csv.reader(file))[1:]
    table = {tuple(r[:5]): r for r in (*old, row)}
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *table.values()])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=10, help="number of lines to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the lines to run")
    parser.add_argument("--report", type=Path, help="CSV file to which results are added")
    parser.add_argument("--list", action="store_true", help="only print the mutations")
    args = parser.parse_args()
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        for n, mutation in enumerate(draw(args.lines, args.seed), start=1):
            if args.only and n not in args.only:
                continue
            line, before, after = mutation.line((ROOT / mutation.file).read_bytes())
            print(f"{n}. {mutation.file}:{line}\n  - {before}\n  + {after}", flush=True)
            if args.list:
                continue
            failed, seconds = caught_by(mutation, folder)
            survivors += failed is None
            failed = failed or "SURVIVED"
            print(f"  {failed}, {seconds:.0f} s", flush=True)
            if args.report:
                # The documentation shows the table, with these columns as code.
                code = f"``{before}``", f"``{after}``"
                row = [args.seed, mutation.file, line, *code, failed, round(seconds)]
                add_to_report(args.report, row)
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
