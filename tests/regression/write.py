"""Write the numbers of the regression cases: ``python tests/regression/write.py [case ...]``.

Numbers are written only on purpose: when a change of results is wanted and understood. With
``--save FOLDER`` the fitted models are written there instead, by `skqeq.save` and by joblib.
"""

import argparse
import sys
import time
from pathlib import Path

import joblib
import numpy as np

import skqeq

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from regression.cases import CASES  # noqa: E402
from regression.measure import NUMBERS, fit, measure  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--save", type=Path, help="write fitted models to this folder instead")
    args = parser.parse_args()
    names = args.cases or list(CASES)
    numbers = {}
    if NUMBERS.exists() and args.cases and not args.save:
        with np.load(NUMBERS) as stored:
            numbers = {key: stored[key] for key in stored if key.split("/")[0] not in names}
    for name in names:
        start = time.perf_counter()
        case = CASES[name]()
        fitted = fit(case)
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            skqeq.save(fitted, args.save / f"{name}.skqeq")
            joblib.dump(fitted, args.save / f"{name}.joblib")
        else:
            found = measure(case, fitted)
            numbers |= {f"{name}/{key}": value for key, value in found.items()}
        print(f"{name:24} {time.perf_counter() - start:5.1f} s", flush=True)
    if not args.save:
        np.savez_compressed(NUMBERS, **dict(sorted(numbers.items())))


if __name__ == "__main__":
    main()
