"""Dipoles of chains that are much longer than the training molecules.

    python benchmarks/flow_chains.py QM9 CHAINS

QM9 is the file of ``qm9_accuracy.py``, and CHAINS the file that ``tools/make_chains.py`` writes.
Three models are trained on all QM9 molecules and predict the dipoles of the chains: charge
equilibration, `ChargeFlow`, and reference charges alone. They have the same features, and the
settings of ``qm9_accuracy.py cv``. The script writes ``results/flow_chains.csv`` with one line per
chain, and ``results/flow_chains_errors.csv`` with the errors for each kind of chain.
"""

import argparse
import warnings

import ase.io
import numpy as np
from qm9_accuracy import RESULTS, SETTINGS, load, pipeline, write

from skqeq import predict_target, strip
from skqeq.parameters import DEBYE

SIGMAS = {"kQEq": 0.0005, "ChargeFlow": 0.002, "local charges": 0.002}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("molecules")
    parser.add_argument("chains")
    args = parser.parse_args()
    X, y, _ = load(args.molecules)
    chains = ase.io.read(args.chains, ":")
    truth = np.array([atoms.info["REF_dipole_gfn2"] for atoms in chains])
    pbe0 = np.array([atoms.info.get("REF_dipole", np.full(3, np.nan)) for atoms in chains])
    predicted = {}
    for name, sigma in SIGMAS.items():
        model = pipeline(1000, *SETTINGS[name]).set_params(kqeqregressor__sigma_dipole=sigma)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "n_points")
            model.fit(X, y["dipole"])
        predicted[name] = predict_target(model, strip(chains), "dipole")
    rows = []
    for i, atoms in enumerate(chains):
        row = {"chain": atoms.info["chain"], "units": atoms.info["units"], "atoms": len(atoms)}
        row["length (A)"] = float(atoms.get_all_distances().max())
        for name, dipoles in ({"GFN2-xTB": truth, "PBE0": pbe0} | predicted).items():
            row[name] = float(DEBYE * np.linalg.norm(dipoles[i]))
        rows.append(row)
    write("flow_chains", rows)
    kinds, errors = np.array([row["chain"] for row in rows]), []
    for kind in [*dict.fromkeys(kinds), "all"]:
        of_kind = (kinds == kind) | (kind == "all")
        mean_dipole = DEBYE * np.linalg.norm(truth[of_kind], axis=1).mean()
        line = {"chain": kind, "mean dipole": mean_dipole}
        for name, dipoles in predicted.items():
            vectors = DEBYE * np.linalg.norm(dipoles - truth, axis=1)[of_kind]
            norms = DEBYE * (np.linalg.norm(dipoles, axis=1) - np.linalg.norm(truth, axis=1))
            line[f"{name} MAE"] = np.abs(norms[of_kind]).mean()
            line[f"{name} vectors"] = vectors.mean()
        errors.append(line)
    write("flow_chains_errors", errors)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
