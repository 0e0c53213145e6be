"""Test the command line and the loaders with damaged files and invalid values.

    python tools/fuzz.py [--inputs 10000] [--seed 0]

Every input is a valid structure file, model file or ``info`` of a structure to which a random
change was made. Two outcomes are allowed: an error whose message names the file or the structure,
or finite charges that sum to the total charge. Files that are valid but unusual must give the
charges of the usual file, and so must files as other programs write them. Labels in comment lines
must give the right number or an error. A file with one wrong word must be refused; with
``--skip-errors``, all other structures must be kept. No command may change its inputs. Any other
exception is a failure, and so is an input that takes longer than `SECONDS` or needs more than
`GIBIBYTES`. The inputs run in batches, each in a new process, so that a crash of the interpreter is
noticed. The program prints a report. Its exit status is an error if there was a failure.
"""

import argparse
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

SECONDS, GIBIBYTES = 20, 6
BATCH = 250


class TooLong(BaseException):
    """An input took too long. It is not an `Exception`, so that no handler catches it."""


def run_batch(first, stop, seed, report):
    """Run some inputs in this process; write lines of JSON before and after each."""

    from fuzz_inputs import Inputs  # imported only in the process of a batch

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
