"""Models with the settings of `ChargeSearchCV`, for molecules of other kinds.

    python benchmarks/charge_search.py DATA [--chains CHAINS]

DATA is the file of ``qm9_accuracy.py``, and CHAINS the file that ``tools/make_chains.py`` writes.
Models are trained on the smaller molecules. Their errors for larger molecules, bundled molecules
and chains are compared with those of the defaults of `ChargeFlow`, and written to
``results/search_families.csv``. The table in the documentation is for ``--molecules 700 --points
400``. All times are CPU times.
"""

import argparse
import time
import warnings
from pathlib import Path

import ase.io
import numpy as np
from qm9_accuracy import RESULTS, load, take, write
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    ChargeSearchCV,
    CURSparsifier,
    KQEqRegressor,
    SOAPFeaturizer,
    predict_target,
    save,
    strip,
)
from skqeq import load as load_model
from skqeq.datasets import load_molecules
from skqeq.models import default_charge_model
from skqeq.parameters import DEBYE


def references(n_points):
    """Models whose settings are not those of the search."""
    responses = {
        "ChargeFlow, defaults": ChargeFlow(),
        "ChargeFlow, radius_scale=0.35": ChargeFlow(radius_scale=0.35),
    }
    return {
        name: make_pipeline(
            SOAPFeaturizer(), CURSparsifier(n_points), KQEqRegressor(response=response)
        )
        for name, response in responses.items()
    }


def seconds_of(function, *args, **kwargs):
    """CPU time of a call, s, and its result."""
    start = time.process_time()
    result = function(*args, **kwargs)
    return time.process_time() - start, result


def errors(truth, predicted):
    """Errors of the norm and of the vector of dipoles, D."""
    vectors = DEBYE * np.linalg.norm(predicted - truth, axis=1)
    norms = DEBYE * (np.linalg.norm(predicted, axis=1) - np.linalg.norm(truth, axis=1))
    return {"mae": np.abs(norms).mean(), "median": np.median(np.abs(norms)),
            "vectors": vectors.mean()}  # fmt: skip


def fitted(X, D, groups, args):
    """Yield names and fitted models; those that are stored in a file are not fitted again."""
    start = default_charge_model().set_params(cursparsifier__n_points=args.points)
    models = references(args.points) | {"search": ChargeSearchCV(start, refit=False)}
    for name, model in models.items():
        path = args.models / f"{name}.skqeq"
        if not path.exists():
            if name == "search":
                seconds, search = seconds_of(model.fit, X, D, groups=groups)
                print(f"the search took {seconds:.0f} s", search.best_params_)
                model = search.best_estimator_
            seconds, _ = seconds_of(model.fit, X, D)
            print(f"{name}: the fit took {seconds:.0f} s", flush=True)
            save(model, path)
        yield name, load_model(path)


def run_families(X, D, groups, args):
    """Errors on molecules that differ from those of the training."""
    chosen = drawn(groups, args.molecules or len(X))
    X, D, groups = take(X, chosen), D[chosen], groups[chosen]
    sizes = np.array([len(atoms) for atoms in X])
    small = np.flatnonzero(sizes <= np.quantile(sizes, 0.75))
    large = np.flatnonzero(sizes > np.quantile(sizes, 0.75))
    others, y = load_molecules()
    tests = {
        "largest 25 %": (take(X, large), D[large]),
        "bundled molecules": (others, y["dipole"]),
    }
    if args.chains:
        chains = ase.io.read(args.chains, ":")
        truth = np.array([atoms.info["REF_dipole_gfn2"] for atoms in chains])
        for kind in dict.fromkeys(atoms.info["chain"] for atoms in chains):
            of_kind = [i for i, atoms in enumerate(chains) if atoms.info["chain"] == kind]
            tests[f"chains, {kind}"] = strip(take(chains, of_kind)), truth[of_kind]
        tests["chains, all"] = strip(chains), truth
    rows = []
    for name, model in fitted(take(X, small), D[small], groups[small], args):
        for family, (structures, truth) in tests.items():
            found = predict_target(model, structures, "dipole")
            rows.append({"predicted": family, "model": name} | errors(truth, found))
            print(rows[-1], flush=True)
    rows.sort(key=lambda row: list(tests).index(row["predicted"]))
    write("search_families", rows)


def drawn(groups, n):
    """Indices of n molecules in a random order of the groups."""
    order = np.random.default_rng(0).permutation(np.unique(groups))
    return np.concatenate([np.flatnonzero(groups == g) for g in order])[:n]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--chains")
    parser.add_argument("--models", type=Path, default=RESULTS, help="folder for fitted models")
    parser.add_argument("--molecules", type=int, help="number of molecules (default: all)")
    parser.add_argument("--points", type=int, default=1000, help="sparse points per element")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "n_points")
    X, y, groups = load(args.data)
    run_families(strip(X), y["dipole"], groups, args)


if __name__ == "__main__":
    main()
