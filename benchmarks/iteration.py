"""Loss against CPU time of fits to energies and forces.

    python benchmarks/iteration.py [--algorithm NAME]

The fits are those of the example ``examples/water/plot_iteration.py``, in one thread. For every
step, the script writes the CPU time since the beginning of the fit and the loss to
``results/iteration.csv``. NAME stands for the algorithm in this table. The rows of other
algorithms are kept, so that versions of skqeq can be compared: the rows "a787a7f" were made with
the version of this commit.
"""

import argparse
import csv
import os
import time
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
)
from skqeq.datasets import load_water

TABLE = Path(__file__).parent / "results/iteration.csv"
COLUMNS = ("model", "algorithm", "seconds", "loss")
RESPONSES = {
    "GAP+kQEq": QEq(hardness=2.7, radius_scale=0.7),
    "GAP+ChargeFlow": ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
}


class Recorded(GAPKQEqRegressor):
    """The model, which records the CPU time of every step."""

    def fit(self, X, y):
        self.begin, self.times_ = time.process_time(), {}
        return super().fit(X, y)

    def set_weights(self, v, history):
        super().set_weights(v, history)
        # The last step is reported twice, and smaller problems have no history.
        self.times_.setdefault(len(history), time.process_time() - self.begin)


def part(r_cut, **options):
    """Features of a field."""
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=100, **options))


def data():
    """Features of 100 clusters without a field, and their energies and forces."""
    X, y = load_water()
    few = [i for i, a in enumerate(X) if a.info["n_molecules"] <= 5]
    few = [i for i in few if "external_field" not in X[i].info]
    few = few[:: len(few) // 100][:100]
    blocks = [("chi", part(3.5)), ("gap", part((2.5, 4.5), block_weights=(0.8, 0.2)))]
    features = StructureBlocks(blocks).fit_transform([X[i] for i in few])
    return features, y[["energy", "forces"]][few]


def rows(name, response, algorithm, features, y):
    """Fit a model; yield the rows of the table."""
    model = Recorded(amplitude_gap=10.0, amplitude_chi=3.0, response=response, tol=1e-7)
    model.fit(features, y)
    for n, entry in enumerate(model.fit_history_, start=1):
        row = name, algorithm, f"{model.times_[n]:.2f}", f"{entry['loss']:.6f}"
        print(*row, flush=True)
        yield dict(zip(COLUMNS, row, strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", metavar="NAME", default="present")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    features, y = data()
    kept = []
    if TABLE.exists():
        with TABLE.open() as file:
            kept = [row for row in csv.DictReader(file) if row["algorithm"] != args.algorithm]
    for name, response in RESPONSES.items():
        kept += rows(name, response, args.algorithm, features, y)
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


if __name__ == "__main__":
    main()
