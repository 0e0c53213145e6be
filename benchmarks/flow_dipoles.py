"""What induced dipoles on the atoms buy: dipoles of molecules, and their polarisability.

    python benchmarks/flow_dipoles.py

Both responses, with and without dipoles, in five folds by group on the bundled molecules (PBE0
dipoles). Polarisabilities are compared with those of GFN2-xTB (tblite) for sixty of them: the mean
one, and the least one, which in flat molecules is that out of their plane. Writes
``results/flow_dipoles.csv``.
"""

import csv
import warnings
from pathlib import Path

import numpy as np
from ase import units
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from tqdm import tqdm

from skqeq import ChargeFlow, CURSparsifier, KQEqRegressor, QEq, SOAPFeaturizer
from skqeq.datasets import load_molecules
from skqeq.metrics import dipole_errors
from skqeq.parameters import COULOMB

RESULTS = Path(__file__).parent / "results"
# Angstrom^3: a half and a third of those of atoms in molecules, as charges polarise too.
ATOMS = {"H": 0.39, "C": 1.0, "N": 0.8, "O": 0.6, "F": 0.45}
HALF, THIRD = ({s: alpha / n for s, alpha in ATOMS.items()} for n in (2, 3))
MODELS = {
    "QEq": (QEq(), 0.2),
    "QEq, dipoles": (QEq(THIRD), 0.2),
    "ChargeFlow": (ChargeFlow(0.05, 0.25), 0.6),
    "ChargeFlow, dipoles": (ChargeFlow(0.05, 0.25, polarizability=THIRD), 0.6),
    "ChargeFlow, larger dipoles": (ChargeFlow(0.05, 0.25, polarizability=HALF), 0.6),
    "local charges": (ChargeFlow(0.0), 0.6),
    "local charges, larger dipoles": (ChargeFlow(0.0, polarizability=HALF), 0.6),
}


def reference(atoms, step=0.01):
    """Polarisability of GFN2-xTB by differences, Angstrom^3."""
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
    some = set(np.random.default_rng(0).permutation(len(X))[:60].tolist())
    truth = {i: np.linalg.eigvalsh(reference(X[i])) for i in tqdm(sorted(some), desc="GFN2-xTB")}
    table = [
        ("model", "MAE (D)", "vector RMSE (D)", "mean polarisability (A^3)", "its error", "least",
         "its error")
    ]  # fmt: skip
    whole = np.array(list(truth.values()))
    row = (f"{whole.mean():.2f}", "", f"{whole[:, 0].mean():.2f}", "")
    table.append(("GFN2-xTB", "", "", *row))
    for name, (response, scale) in MODELS.items():
        predicted, alpha = np.zeros_like(y), {}
        for train, test in folds:
            kqeq = KQEqRegressor(response=response, radius_scale=scale, sigma_dipole=0.002)
            model = make_pipeline(
                SOAPFeaturizer(r_cut=(1.7, 3.5), n_max=8, l_max=6),
                CURSparsifier(n_points=300, zeta=1, block_weights=(0.7, 0.3)),
                kqeq,
            )
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "n_points")
                model.fit([X[i] for i in train], y[train])
            features = model[:-1].transform([X[i] for i in test])
            predicted[test] = model[-1].predict(features)
            mine = [k for k, i in enumerate(test) if i in some]
            tensors = COULOMB * model[-1].predict_polarizability(features[mine])
            alpha |= {test[k]: np.linalg.eigvalsh(a) for k, a in zip(mine, tensors, strict=True)}
        found = np.array([alpha[i] for i in truth])
        errors = dipole_errors(y, predicted)
        mean, least = found.mean(axis=1), found[:, 0]
        row = [f"{errors['mae']:.4f}", f"{errors['vector_rmse']:.3f}", f"{mean.mean():.2f}"]
        row += [f"{np.abs(mean - whole.mean(axis=1)).mean():.2f}", f"{least.mean():.2f}"]
        row += [f"{np.abs(least - whole[:, 0]).mean():.2f}"]
        table.append((name, *row))
        print(*table[-1], sep="  ", flush=True)
        with open(RESULTS / "flow_dipoles.csv", "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(table)


if __name__ == "__main__":
    main()
