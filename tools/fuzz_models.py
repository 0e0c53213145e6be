"""Test `skqeq.load` with mutated model files.

    python tools/fuzz_models.py [--inputs 10000] [--seed 0]

Every input is a file of `skqeq.save` to which a random change was made, in a new process that loads
it and predicts. It is a failure if `load` raises another exception than a ValueError or an OSError
that names the file, if a loaded model raises an exception in `predict`, and if the process crashes,
runs code that the file names, or needs more than `SECONDS` or `GIBIBYTES`. Predictions may differ,
because a file with a new checksum may hold other numbers. A file without the results of a fit may
hold a model that is not fitted. The report is printed. The exit status is an error if there was a
failure.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from ase.build import molecule
from model_mutations import ModelFile
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, QEqRegressor, SOAPFeaturizer

SECONDS, GIBIBYTES = 10, 1
# Audit events of code that runs in, or is run by, a file; see sys.addaudithook.
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class")
REFUSALS = (ValueError, OSError)


class Models:
    """Files of some fitted models, and their predictions.

    Parameters
    ----------
    folder : path
        Where the files are written.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.X = [molecule(name) for name in ("H2O", "CH4", "CH3OH", "H2CO")]
        D = np.random.default_rng(0).normal(size=(4, 3))
        soap, sparse = SOAPFeaturizer(n_max=2, l_max=1), CURSparsifier(n_points=2)
        flow = KQEqRegressor(response=ChargeFlow(), store_triangles=True)
        pipeline = make_pipeline(soap, sparse, flow)
        search = make_pipeline(soap, sparse, KQEqRegressor())
        grid = {"kqeqregressor__sigma_dipole": [0.1, 0.2]}
        models = [QEqRegressor(), pipeline, GridSearchCV(search, grid, cv=2)]
        self.files, self.expected = [], []
        for model in models:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(self.X, D)
                self.expected.append(model.predict(self.X))
            skqeq.save(model, self.folder / "model.skqeq")
            self.files.append(ModelFile((self.folder / "model.skqeq").read_bytes()))

    def mutated(self, i, seed):
        """Write input number i; return its kind, its path, and the predictions without mutation."""
        rng = np.random.default_rng([seed, i])
        number = rng.integers(len(self.files))
        kind, data = self.files[number].mutate(rng)
        path = self.folder / "mutated.skqeq"
        path.write_bytes(data)
        return kind, path, self.expected[number]

    def run(self, i, seed):
        """Load input number i and predict, in a new process; return its kind and its outcome."""
        kind, path, expected = self.mutated(i, seed)
        reader, writer = os.pipe()
        process = os.fork()
        if not process:
            os.write(writer, self.outcome(path, expected).encode()[:4000])
            os._exit(0)
        os.close(writer)
        with open(reader, "rb") as file:
            outcome = file.read().decode()
        _, status, usage = os.wait4(process, 0)
        if not outcome:
            outcome = f"failure: the process ended with {os.waitstatus_to_exitcode(status)}"
        if usage.ru_maxrss > GIBIBYTES * 2**20:
            outcome = f"failure: {usage.ru_maxrss / 2**20:.1f} GiB, after {outcome}"
        return kind, outcome

    def outcome(self, path, expected):
        """Load a file and predict, within bounds; exceptions that are not allowed become a text."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)
        warnings.simplefilter("ignore")
        sys.addaudithook(refuse)
        try:
            return self.load_and_predict(path, expected)
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return f"failure: {error!r:.300} ({Path(place.filename).name}, {place.lineno})"

    def load_and_predict(self, path, expected):
        """Load a file and predict; exceptions of `load` that are not allowed are raised."""
        try:
            model = skqeq.load(path)
        except REFUSALS as error:
            if path.name in str(error):
                return "refused"
            raise RuntimeError(f"a message without the name of the file: {error!r}") from error
        if not hasattr(model, "predict"):
            return "loaded, but no model"
        try:
            predicted = model.predict(self.X)
        except NotFittedError:
            return "not fitted"
        if np.array_equal(predicted, expected):
            return "same predictions"
        if not isinstance(predicted, np.ndarray) or predicted.dtype != expected.dtype:
            return "predictions in another form"  # the table of `make_targets`, for example
        finite = np.isfinite(predicted).all()
        return "other predictions" if finite else "predictions that are not finite"


def refuse(event, arguments):
    """Audit hook: end the process if a file executes code."""
    if event in FORBIDDEN:
        os.write(2, f"{event} {arguments}\n".encode())
        os._exit(66)


def fuzz(numbers, seed):
    """Run inputs; return counts of outcomes, and failures by number of the input."""
    counts, failures = Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        models = Models(folder)
        for i in numbers:
            kind, outcome = models.run(i, seed)
            counts[kind, outcome.partition(":")[0]] += 1
            if outcome.startswith("failure"):
                failures[i] = f"{kind}: {outcome}"
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    counts, failures = fuzz(range(args.inputs), args.seed)
    for (kind, outcome), n in sorted(counts.items()):
        print(f"{kind:24} {outcome:32} {n:6}")
    print(f"{args.inputs} inputs, {len(failures)} failures (seed {args.seed})")
    for i, failure in failures.items():
        print(f"input {i}: {json.dumps(failure)}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
