"""Effect of induced dipoles on the errors of molecular dipoles and polarisabilities.

    python benchmarks/flow_dipoles.py

`QEq` and `ChargeFlow` are trained with and without induced dipoles on the bundled molecules (PBE0
dipoles), in five folds by group. For sixty molecules, the polarisabilities are compared with those
of GFN2-xTB (tblite). The script compares the mean of the three eigenvalues and the smallest
eigenvalue; in a flat molecule the smallest one belongs to the direction normal to the plane. The
script writes ``results/flow_dipoles.csv``.
"""

import csv
import warnings
from pathlib import Path

import numpy as np
from ase import units
from sklearn.base import clone
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors
from skqeq.parameters import COULOMB

RESULTS = Path(__file__).parent / "results"
# Polarisabilities of atoms in molecules, Angstrom^3. The models use a half or a third of these
# values, because the charges polarise as well.
ATOMS = {"H": 0.39, "C": 1.0, "N": 0.8, "O": 0.6, "F": 0.45}
HALF, THIRD = ({s: alpha / n for s, alpha in ATOMS.items()} for n in (2, 3))
FLOW = ChargeFlow(softness=0.05, range=0.25, radius_scale=0.6)
LOCAL = ChargeFlow(softness=0.0, radius_scale=0.6)
MODELS = {
    "QEq": QEq(radius_scale=0.2),
    "QEq, dipoles": QEq(radius_scale=0.2, polarizability=THIRD),
    "ChargeFlow": FLOW,
    "ChargeFlow, dipoles": clone(FLOW).set_params(polarizability=THIRD),
    "ChargeFlow, larger dipoles": clone(FLOW).set_params(polarizability=HALF),
    "local charges": LOCAL,
    "local charges, larger dipoles": clone(LOCAL).set_params(polarizability=HALF),
}


def reference(atoms, step=0.01):
    """Polarisability of GFN2-xTB, from central differences in the external field, Angstrom^3."""
    from tblite.interface import Calculator

    columns = []
    for axis in np.eye(3):
        dipoles = []
        for sign in (1, -1):
            method = Calculator("GFN2-xTB", atoms.numbers, atoms.positions / units.Bohr)
            method.set("verbosity", 0)
            method.set("accuracy", 0.01)
            field = sign * step / (units.Hartree / units.Bohr) * axis
            method.add("electric-field", field.tolist())
            dipoles.append(method.singlepoint()["dipole"] * units.Bohr)
        columns.append((dipoles[0] - dipoles[1]) / (2 * step))
    return COULOMB * np.array(columns)


def main():
    X, y, groups = load_molecules(return_groups=True)
    y = y["dipole"]
    folds = list(GroupKFold(5, shuffle=True, random_state=0).split(X, groups=groups))
    sample = set(np.random.default_rng(0).permutation(len(X))[:60].tolist())
    truth = {i: np.linalg.eigvalsh(reference(X[i])) for i in tqdm(sorted(sample), desc="GFN2-xTB")}
    table = [
        ("model", "MAE (D)", "vector RMSE (D)", "mean polarisability (A^3)", "its error", "least",
         "its error")
    ]  # fmt: skip
    labels = np.array(list(truth.values()))
    row = (f"{labels.mean():.2f}", "", f"{labels[:, 0].mean():.2f}", "")
    table.append(("GFN2-xTB", "", "", *row))
    for name, response in MODELS.items():
        predicted, alpha = np.zeros_like(y), {}
        for train, test in folds:
            model = make_pipeline(
                SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6),
                CURSparsifier(n_points=300, zeta=1, block_weights=(0.7, 0.3)),
                KQEqRegressor(sigma_dipole=0.002, response=response),
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "n_points")
                model.fit([X[i] for i in train], y[train])
            features = model[:-1].transform([X[i] for i in test])
            predicted[test] = model[-1].predict(features)
            in_sample = [k for k, i in enumerate(test) if i in sample]
            tensors = COULOMB * model[-1].predict_polarizability(features[in_sample])
            for k, tensor in zip(in_sample, tensors, strict=True):
                alpha[test[k]] = np.linalg.eigvalsh(tensor)
        eigenvalues = np.array([alpha[i] for i in truth])
        errors = dipole_errors(y, predicted)
        mean, least = eigenvalues.mean(axis=1), eigenvalues[:, 0]
        row = [f"{errors['mae']:.4f}", f"{errors['vector_rmse']:.3f}", f"{mean.mean():.2f}"]
        row += [f"{np.abs(mean - labels.mean(axis=1)).mean():.2f}", f"{least.mean():.2f}"]
        row += [f"{np.abs(least - labels[:, 0]).mean():.2f}"]
        table.append((name, *row))
        print(*table[-1], sep="  ", flush=True)
        with open(RESULTS / "flow_dipoles.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
