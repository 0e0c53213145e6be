"""Test the command line and the loaders with damaged files and invalid values.

    python tools/fuzz.py [--inputs 10000] [--seed 0]

Every input is a valid structure file, model file or ``info`` of a structure to which a random
change was made. Two outcomes are allowed: an error whose message names the file or the structure,
or finite charges that sum to the total charge. Any other exception is a failure, and so is an input
that takes longer than `SECONDS` or needs more than `GIBIBYTES`. The inputs run in batches, each in
a new process, so that a crash of the interpreter is noticed. The report is printed. The exit status
is an error if there was a failure.
"""

import argparse
import contextlib
import io
import json
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import ase.io
import joblib
import numpy as np
from ase.build import bulk, molecule
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, make_targets
from skqeq.cli import main as command_line
from skqeq.datasets import open_structures

SECONDS, GIBIBYTES = 20, 6
BATCH = 250
TOKENS = [
    *("nan", "inf", "-inf", "1e400", "-1", "0", "99999999999999999999", "1e-300", "1e8", "", " "),
    *("\x00", "é", "[[", "]", '"', "=", "T", "F", "None", "H", "Xx", "T T F", "{", "\t", "\r"),
    *('Lattice="0 0 0 0 0 0 0 0 0"', 'Lattice="1 0 0 0 1 0 0 0 1e-9"', 'pbc="T T T"', "pbc=T"),
    *("Properties=species:S:1:pos:R:3", "Properties=pos:R:3", "charge=nan", "charge=[1,2]"),
    *("charge=1e300", 'external_field="1 2"', 'external_field="0 0 nan"', "external_field=huge"),
]
VALUES = [
    *(None, "", "text", b"bytes", float("nan"), float("inf"), -1e308, 1e300, 10**400, True, [], {}),
    *([1, 2], [[1, 2, 3]], [1, 2, "x"], {"a": 1}, object(), np.zeros((0, 3)), np.zeros((2, 3, 1))),
    *(np.array("x"), np.array([1.0, np.nan, 0.0]), 1j, np.ma.masked, lambda: 0, [1e200, 0, 0]),
]
UNITS = ("1", "Debye", "1e-3", "Hartree/Bohr", "-1", "nan", "A", "1e400", "/", "=", "1e30")
KEYS = ("charge", "total_charge", "external_field", "potential_points", "dipole", "REF_energy")


def structures():
    """A molecule, an ion, one in a field, a slab and a crystal of H and O."""
    X = [molecule("H2O"), molecule("OH"), molecule("H2O2"), molecule("H2O"), bulk("O", "sc", 3.0)]
    X[1].info["charge"] = -1
    X[2].info["external_field"] = np.array([0.0, 0.1, 0.0])
    X[3].set_cell([5.0, 5.0, 9.0])
    X[3].pbc = (True, True, False)
    for i, atoms in enumerate(X):
        atoms.rattle(0.01, seed=i)
        total = atoms.info.get("charge", 0.0)
        atoms.set_array("REF_charges", np.full(len(atoms), total / len(atoms)))
    return X


class Inputs:
    """Makes the inputs and runs them; all files are in one folder.

    Parameters
    ----------
    folder : path
        Folder of the files.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.X = structures()
        model = make_pipeline(
            SOAPFeaturizer(r_cut=2.5, n_max=2, l_max=1, species=["H", "O"]),
            CURSparsifier(n_points=2),
            KQEqRegressor(store_triangles=True),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            charges = [atoms.arrays["REF_charges"] for atoms in self.X]
            self.model = model.fit(self.X, make_targets(charges=charges))
        self.valid, self.path = self.folder / "valid.xyz", self.folder / "damaged.xyz"
        ase.io.write(self.valid, self.X, format="extxyz")
        self.text = self.valid.read_text()
        self.models = {}
        for name in ("model.skqeq", "model.joblib"):
            if name.endswith("skqeq"):
                skqeq.save(self.model, self.folder / name)
            else:
                joblib.dump(self.model, self.folder / name)
            self.models[name] = (self.folder / name).read_bytes()

    def run(self, i, seed):
        """Make and run input number i; return its kind and its outcome."""
        rng = np.random.default_rng([seed, i])
        kind = (self.file_to_loader, self.file_to_command, self.info, self.model_file)[i % 4]
        return kind.__name__, kind(rng)

    def damage_text(self, rng):
        """Write the structure file with random changes."""
        text = self.text
        for _ in range(rng.integers(1, 4)):
            place, change = rng.integers(len(text) + 1), rng.integers(6)
            if change == 0:  # replace a word
                words = text.split(" ")
                words[rng.integers(len(words))] = TOKENS[rng.integers(len(TOKENS))]
                text = " ".join(words)
            elif change == 1:
                text = text[:place]
            elif change == 2:
                text = text[:place] + TOKENS[rng.integers(len(TOKENS))] + text[place:]
            elif change == 3:
                text = text[:place] + text[place + rng.integers(1, 40) :]
            elif change == 4:
                text = text[:place] + chr(rng.integers(1, 256)) + text[place + 1 :]
            else:  # move a line
                lines = text.splitlines(keepends=True)
                line = lines.pop(rng.integers(len(lines))) if lines else ""
                lines.insert(rng.integers(len(lines) + 1), line)
                text = "".join(lines)
        self.path.write_text(text, errors="surrogateescape")

    def file_to_loader(self, rng):
        """Read a damaged structure file, and predict its charges."""
        self.damage_text(rng)
        try:
            X = open_structures(self.path)
            X = [X[i] for i in range(len(X))]
        except ValueError as error:
            return refused(error, str(self.path))
        return self.predicted(X)

    def file_to_command(self, rng):
        """Give a damaged structure file to a command."""
        self.damage_text(rng)
        out = self.folder / "out.xyz"
        out.unlink(missing_ok=True)
        model, path = str(self.folder / "model.skqeq"), str(self.path)
        argv = [
            ["predict", model, path, "-o", str(out), "-q"],
            ["fit", path, "-o", str(out), "--targets", "charges", "-q"],
            ["evaluate", model, path],
        ][rng.integers(3)]
        if argv[0] != "evaluate" and rng.integers(2):
            argv.append("--std")
        if argv[0] != "predict" and rng.integers(2):
            argv += ["--unit", f"charges={UNITS[rng.integers(len(UNITS))]}"]
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                try:
                    code = command_line(argv)
                except SystemExit as end:
                    code = end.code
        if not code:
            assert out.exists() or argv[0] == "evaluate", "neither an error nor an output"
            assert argv[0] != "evaluate" or "nan" not in stdout.getvalue(), "an error is NaN"
            return "accepted"
        assert stderr.getvalue().strip() or isinstance(code, str), "an error without a message"
        assert not out.exists(), "an error and an output"
        return "refused"

    def info(self, rng):
        """Predict charges of a structure with invalid values in its ``info``."""
        atoms = self.X[rng.integers(len(self.X))].copy()
        for _ in range(rng.integers(1, 3)):
            value = VALUES[rng.integers(len(VALUES))]
            atoms.info[KEYS[rng.integers(len(KEYS))]] = value
        before = dict(atoms.info)
        outcome = self.predicted([self.X[0], atoms], "structure 1")
        assert all(atoms.info[key] is value for key, value in before.items()), "input was modified"
        return outcome

    def model_file(self, rng):
        """Predict with a damaged model file."""
        name = list(self.models)[rng.integers(2)]
        data = bytearray(self.models[name])
        if name.endswith("skqeq") and rng.integers(2):
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                data[place] = rng.integers(256)
        else:  # a pickle file is only truncated: changed bytes could run any code
            data = data[: rng.integers(len(data))]
        path = self.folder / f"damaged{Path(name).suffix}"
        path.write_bytes(data)
        out = self.folder / "out.xyz"
        out.unlink(missing_ok=True)
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            try:
                code = command_line(["predict", str(path), str(self.valid), "-o", str(out), "-q"])
            except SystemExit as end:
                code = end.code
        if not code:
            charges = [atoms.get_charges() for atoms in ase.io.read(out, ":")]
            for q, expected in zip(charges, self.model.predict(self.X)["charges"], strict=True):
                assert np.allclose(q, expected, atol=1e-6), "the loaded model is different"
            return "accepted"
        assert path.name in stderr.getvalue() + str(code), "the message does not name the file"
        return "refused"

    def predicted(self, X, where="structure "):
        """Predict charges and check them; an error must name the place."""
        try:
            charges = skqeq.predict_charges(self.model, X)
        except (ValueError, TypeError) as error:
            return refused(error, where)
        for atoms, q in zip(X, charges, strict=True):
            total = float(atoms.info.get("charge", atoms.info.get("total_charge", 0.0)))
            assert np.isfinite(q).all(), "charges are not finite"
            error = abs(q.sum() - total)
            assert error <= 1e-8 * max(1.0, np.abs(q).max()), "charge is not conserved"
        return "accepted"


def refused(error, where):
    """Check that the message of an error names the place."""
    assert where in str(error), f"the message does not name {where}: {error}"
    return "refused"


class TooLong(BaseException):
    """An input took too long. It is no `Exception`, so that no handler catches it."""


def run_batch(first, stop, seed, report):
    """Run some inputs in this process; write lines of JSON before and after each."""

    def ring(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    resource.setrlimit(resource.RLIMIT_AS, (GIBIBYTES * 2**30,) * 2)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, open(report, "a") as file:
        inputs = Inputs(folder)
        for i in range(first, stop):
            print(json.dumps({"input": i}), file=file, flush=True)
            signal.alarm(SECONDS)
            try:
                kind, outcome = inputs.run(i, seed)
                result = {"input": i, "kind": kind, "outcome": outcome}
            except (Exception, TooLong) as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                result = {
                    "input": i,
                    "failure": f"{type(error).__name__}: {error} ({place.name}, {place.lineno})",
                }
            finally:
                signal.alarm(0)
            print(json.dumps(result), file=file, flush=True)


def fuzz(n_inputs, seed):
    """Run all inputs; return counts of outcomes, and failures by number of the input."""
    counts, failures = Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        report, first = Path(folder) / "report", 0
        while first < n_inputs:
            stop = min(first + BATCH, n_inputs)
            report.write_text("")
            command = [sys.executable, __file__, "--batch", str(first), str(stop)]
            done = subprocess.run([*command, "--seed", str(seed), "--report", str(report)])
            lines = [json.loads(line) for line in report.read_text().splitlines()]
            for line in lines:
                if "failure" in line:
                    failures[line["input"]] = line["failure"]
                elif "outcome" in line:
                    counts[line["kind"], line["outcome"]] += 1
            if done.returncode and lines and len(lines[-1]) == 1:  # the process crashed
                failures[lines[-1]["input"]] = f"the interpreter ended with {done.returncode}"
                stop = lines[-1]["input"] + 1
            elif done.returncode:
                raise RuntimeError("the inputs could not be made")
            first = stop
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.batch:
        run_batch(*args.batch, args.seed, args.report)
        return
    counts, failures = fuzz(args.inputs, args.seed)
    for (kind, outcome), n in sorted(counts.items()):
        print(f"{kind:16} {outcome:9} {n:6}")
    print(f"{args.inputs} inputs, {len(failures)} failures (seed {args.seed})")
    for i, failure in failures.items():
        print(f"input {i}: {failure}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
