"""Wrong signs, factors and indices in lines of physics, which the tests must notice.

    python tools/mutate.py [--lines 10] [--seed 0] [--csv results.csv]

Lines are drawn at random from `FILES`; each is changed in one place in a copy of the package, and
the tests run against the copy with the NumPy twins, those of the same folder first, until one
fails. A line that no test notices is reported as survived, and ends in an error. The checkout is
left as it is. The package must be installed, but not as an editable one, which would be imported
instead of the copy.
"""

import argparse
import ast
import csv
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = [
    *("electrostatics/*.py", "response/*.py", "solvers/*.py", "_pythran/*_numpy.py", "spectra.py"),
    *("features/_gradient.py", "targets/_observables.py", "sparsify/_gradient.py", "metrics.py"),
    *("models/_energies.py", "models/_solution.py", "models/_rows.py", "features/_dscribe.py"),
]
# What is in these is no physics: messages, sizes of blocks and arrays, progress, tolerances.
NO_PHYSICS = (ast.Raise, ast.Assert, ast.JoinedStr, ast.Compare, ast.AnnAssign, ast.arguments)
NO_PHYSICS_CALLS = {
    *("range", "len", "max", "min", "ceil", "tqdm", "warn", "reshape", "zeros"),
    *("empty", "ones", "full", "split", "array_split", "int", "bincount", "moveaxis", "swapaxes"),
}
COUNTERS = re.compile("n_.*|size|start|stop|first|place|begin")
# Slow, or about other things than numbers.
LAST = ("test_docs.py", "test_links.py", "test_typing.py", "test_cluster.py", "tools", "_cli")


class Mutation:
    """One change of one line: the file, where, and what stands there instead."""

    def __init__(self, path, start, stop, text):
        self.path, self.start, self.stop, self.text = path, start, stop, text
        self.source = path.read_text(encoding="utf-8")
        self.line = self.source.count("\n", 0, start) + 1

    @property
    def changed(self):
        """The whole file with the change."""
        return self.source[: self.start] + self.text + self.source[self.stop :]

    def lines(self):
        """The line as it is, and as it would be."""
        return tuple(s.splitlines()[self.line - 1].strip() for s in (self.source, self.changed))


def candidates(path):
    """All mutations of a file, in its order."""
    source = path.read_text(encoding="utf-8")
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line, column):  # ast counts bytes
        begin = starts[line - 1]
        text = source[begin : starts[line]].encode()
        return begin + len(text[:column].decode())

    def span(node):
        return place(node.lineno, node.col_offset), place(node.end_lineno, node.end_col_offset)

    found = []

    def visit(node, in_function):
        if isinstance(node, NO_PHYSICS) or _is_docstring(node):
            return
        if isinstance(node, ast.Call) and _name(node.func) in NO_PHYSICS_CALLS:
            return
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            in_function = True
        if in_function:
            found.extend(Mutation(path, *change) for change in _changes(node, source, span))
        for child in ast.iter_child_nodes(node):
            visit(child, in_function)

    visit(ast.parse(source), False)
    return sorted(found, key=lambda m: (m.start, m.stop))


def _name(node):
    return getattr(node, "attr", getattr(node, "id", ""))


def _is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changes(node, source, span):
    """Signs, factors and indices of one node: (start, stop, new text)."""
    if isinstance(node, ast.BinOp):
        start, stop = span(node.left)[1], span(node.right)[0]
        signs = {
            ast.Add: ("+", "-"),
            ast.Sub: ("-", "+"),
            ast.Mult: ("*", "/"),
            ast.Div: ("/", "*"),
        }
        if type(node.op) in signs and not isinstance(node.left, (ast.List, ast.Tuple)):
            old, new = signs[type(node.op)]
            at = source.index(old, start, stop)
            yield at, at + 1, new
        for side in (node.left, node.right):
            if isinstance(side, ast.Constant) and isinstance(side.value, (int, float)):
                yield (*span(side), repr(side.value + 1))
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub)):
        if COUNTERS.fullmatch(_name(node.target)):
            return
        start, stop = span(node.target)[1], span(node.value)[0]
        old, new = ("+", "-") if isinstance(node.op, ast.Add) else ("-", "+")
        at = source.index(old, start, stop)
        yield at, at + 1, new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if not isinstance(node.operand, ast.Constant):
            at = span(node)[0]
            yield at, at + 1, ""
    elif isinstance(node, ast.Subscript):
        index = node.slice
        for part in index.elts if isinstance(index, ast.Tuple) else [index]:
            if isinstance(part, ast.Constant) and type(part.value) is int:
                yield (*span(part), str(part.value + 1 if part.value < 2 else part.value - 1))
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        stop = span(node)[1]
        yield stop - 2, stop, ""


def draw(n, seed):
    """n mutations of different lines."""
    paths = sorted(p for pattern in FILES for p in (ROOT / "skqeq").glob(pattern))
    by_line = {}
    for path in paths:
        for mutation in candidates(path):
            by_line.setdefault((path, mutation.line), []).append(mutation)
    rng = random.Random(seed)
    return [rng.choice(by_line[key]) for key in rng.sample(sorted(by_line), n)]


def stages(path):
    """What to run of the tests: the file's own, its folder's, quick ones, the rest."""
    tests, relative = ROOT / "tests", path.relative_to(ROOT / "skqeq")
    own = tests / relative.parent / f"test_{relative.stem.strip('_').removesuffix('_numpy')}.py"
    order = [own, *([tests / relative.parent] if relative.parts[0] != "models" else [])]
    order += [tests / name for name in ("test_properties.py", "test_calculator.py", "response")]
    order += [tests / "electrostatics", tests / "models", *sorted(tests.iterdir())]
    order = [p for p in order if p.exists() and p != tests and p.name not in LAST]
    order = [p for p in order if p.is_dir() or p.name.startswith("test_")]
    return list(dict.fromkeys(order))


def caught(mutation, tests=None):
    """The test that notices the change, or None."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "skqeq"
        shutil.copytree(ROOT / "skqeq", copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / mutation.path.relative_to(ROOT / "skqeq")).write_text(mutation.changed)
        environment = os.environ | {"PYTHONPATH": folder, "SKQEQ_KERNELS": "numpy"}
        where = "import importlib.util as u; print(u.find_spec('skqeq').origin)"
        found = _run([sys.executable, "-P", "-c", where], environment).stdout.strip()
        if not found.startswith(folder):
            raise RuntimeError(
                f"{found} is imported instead of the copy: an editable installation?"
            )
        # -P: the copy, not the checkout.
        command = [sys.executable, "-P", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        done = _run([*command, *map(str, tests or stages(mutation.path))], environment)
        if done.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
        if failed is None:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        return failed[1]


def _run(command, environment):
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lines", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="add the results to this file")
    args = parser.parse_args()
    rows = []
    for mutation in draw(args.lines, args.seed):
        start = time.perf_counter()
        test = caught(mutation)
        before, after = mutation.lines()
        place = f"{mutation.path.relative_to(ROOT)}:{mutation.line}"
        seconds = f"{time.perf_counter() - start:.0f}"
        row = [args.seed, place, before, after, test or "SURVIVED", seconds]
        rows.append(dict(zip(("seed", "line", "before", "after", "noticed by", "s"), row)))
        print(f"{place}\n  - {before}\n  + {after}\n  {row[4]} ({seconds} s)", flush=True)
    if args.csv:
        new = not args.csv.exists()
        with args.csv.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(rows)
    survivors = sum(row["noticed by"] == "SURVIVED" for row in rows)
    print(f"{len(rows)} lines, {survivors} survived (seed {args.seed})")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
