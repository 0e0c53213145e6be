"""Search over cutoffs and noise, and run dynamics with the best model in a new process.

    python benchmarks/gap_search.py

One call of `GridSearchCV` tries two cutoffs and three values of the noise, in three folds by
trajectory. The data are 300 bundled water clusters. Every fit is printed. The best model is written
to a joblib file. A new process loads this file and runs one picosecond of dynamics.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, GAPKQEqRegressor, QEq, SOAPFeaturizer, StructureBlocks
from skqeq.datasets import load_water
from skqeq.model_selection import TargetScorer

GRID = {
    "structureblocks__gap__soapfeaturizer__r_cut": [3.5, (2.5, 4.5)],
    "gapkqeqregressor__sigma_forces": [0.02, 0.05, 0.1],
}
DYNAMICS = """
import sys
import joblib
import numpy as np
from ase import units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from skqeq import KQEqCalculator
from skqeq.calculator import ProgressBar
from skqeq.datasets import load_water_curves

X, _ = load_water_curves()
atoms = next(a for a in X if a.info["charge"] == 1 and a.info["expansion"] == 1.0)
atoms.calc = KQEqCalculator(joblib.load(sys.argv[1]))
MaxwellBoltzmannDistribution(atoms, temperature_K=100, rng=np.random.default_rng(0))
dynamics, energies = VelocityVerlet(atoms, 0.5 * units.fs), []
dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=20)
with ProgressBar(dynamics, 2000):
    dynamics.run(2000)
drift = 1e3 * (np.mean(energies[-20:]) - np.mean(energies[1:21])) / len(atoms)
print(f"1 ps of {atoms.symbols} with charge +1: energy drifts by {drift:+.3f} meV/atom")
"""


def half(r_cut):
    """Descriptor and sparse set of one latent field."""
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=100))


def main():
    X, y, groups = load_water(return_groups=True)
    X, y, groups = X[:300], y[["energy", "forces", "dipole"]][:300], groups[:300]
    model = make_pipeline(
        StructureBlocks([("chi", half(3.5)), ("gap", half(3.5))]),
        GAPKQEqRegressor(
            amplitude_gap=10.0,
            amplitude_chi=3.0,
            sigma_dipole=0.05,
            tol=1e-2,
            max_iter=12,
            response=QEq(radius_scale=0.7, hardness=2.7),
        ),
    )
    scoring = {name: TargetScorer(name, per_atom=name == "energy") for name in ("energy", "forces")}
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="gauss_newton stopped")
        search = GridSearchCV(
            model,
            GRID,
            scoring=scoring,
            refit="forces",
            cv=GroupKFold(3),
            error_score="raise",
            verbose=3,
        ).fit(X, y, groups=groups)
    print(f"{len(X)} structures, {time.perf_counter() - start:.0f} s")
    results = search.cv_results_
    for i, candidate in enumerate(results["params"]):
        energy, forces = (-1e3 * results[f"mean_test_{name}"][i] for name in ("energy", "forces"))
        print(f"{list(candidate.values())}: {energy:.1f} meV/atom, {forces:.0f} meV/A")
    print("best parameters:", search.best_params_)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "best.joblib"
        joblib.dump(search, path)
        subprocess.run([sys.executable, "-c", DYNAMICS, path], check=True)
        assert np.isfinite(joblib.load(path).predict(X[:1])["energy"]).all()


if __name__ == "__main__":
    main()
