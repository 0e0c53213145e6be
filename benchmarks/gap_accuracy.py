"""Accuracy of local energies (GAP), of charge models, and of the sum of both.

    python benchmarks/gap_accuracy.py water | pbe0
    python benchmarks/gap_accuracy.py lih | carbon | mgo | zno | dipeptides DATA

In the tables "kQEq" is charge equilibration, "ChargeFlow" is charge that flows between neighbours
from learned reference charges, and "local charges" are the reference charges alone.

``water`` uses the bundled clusters in three charge states, some of them in external fields, with
one split by trajectory. It computes a learning curve and compares the models. The models with the
largest training set then predict the energies of clusters that are pulled apart, and of clusters in
external fields. ``pbe0`` uses the bundled clusters with PBE0 labels, in three folds by trajectory.
The other studies read an extended XYZ file with ``REF_energy``, ``REF_forces``, ``REF_charges``,
``REF_dipole`` and ``group``. All structures of a group are in the same fold. The sparse set is
selected from the training structures of each fold.

Predictions are stored in ``./gap_folds``, and stored predictions are not computed again.
"""

import argparse
import time
import warnings
from pathlib import Path

import ase.io
import joblib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    GAPRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_targets,
    strip,
    targets_from_atoms,
)
from skqeq.datasets import load_water, load_water_curves
from skqeq.parameters import DEBYE
from skqeq.validation import find_fragments, fragment_charges, fragment_distance

RESULTS = Path(__file__).parent / "results"
STORED = Path("gap_folds")


def half(r_cut, n_points, n_max, l_max, block_weights=None, zeta=2, cutoff_width=1.5):
    """Descriptor and sparse set of one latent field."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=r_cut, cutoff_width=cutoff_width, n_max=n_max, l_max=l_max),
        CURSparsifier(n_points=n_points, block_weights=block_weights, zeta=zeta),
    )


# ---- models of each study: name, pipeline, and training targets ---------------------------------


LOCAL = ("amplitude_gap", "sigma_energy", "sigma_forces")  # parameters of GAPRegressor


# Responses of most studies.
HARD = QEq(radius_scale=1.0, hardness=30.0)
FLOW = ChargeFlow(radius_scale=1.0)


def models(chi, gap, charges, qeq=HARD, flow=FLOW, **options):
    """GAP alone, kQEq alone, and GAP with three responses; all with the same noise.

    `chi` and `gap` compute the features of the electronegativities and of the local energies.
    `charges` are the training targets in addition to energies and forces. `qeq` and `flow` are the
    responses, and `options` are parameters of the regressors.
    """
    local = {name: options[name] for name in LOCAL if name in options}
    electric = {name: value for name, value in options.items() if name != "amplitude_gap"}
    blocks = StructureBlocks([("chi", chi()), ("gap", gap())])
    energies = ("energy", "forces")
    kqeq = KQEqRegressor(**electric, response=qeq)
    studied = {
        "GAP": (make_pipeline(gap(), GAPRegressor(**local)), energies),
        "kQEq": (make_pipeline(chi(), kqeq), energies + charges),
    }
    responses = {
        "GAP+kQEq": qeq,
        "GAP+ChargeFlow": flow,
        "GAP+local charges": clone(flow).set_params(softness=0.0),
    }
    for name, response in responses.items():
        regressor = GAPKQEqRegressor(**options, response=response)
        studied[name] = make_pipeline(clone(blocks), regressor), energies + charges
    return studied


AMPLITUDES = {"amplitude_gap": 10.0, "amplitude_chi": 3.0}


def water_models(n_points=500):
    """Models of the water clusters."""
    cutoffs = {"r_cut": (3.0, 6.0), "cutoff_width": (2.8, 5.0), "n_points": n_points}
    return models(
        lambda: half(**cutoffs, n_max=4, l_max=3),
        lambda: half(**cutoffs, n_max=6, l_max=5, block_weights=(0.8, 0.2)),
        ("dipole",),
        # With wide and hard charges, it costs energy to move charge between molecules.
        qeq=QEq(radius_scale=1.3, hardness=30.0),
        flow=ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
        **AMPLITUDES,
        sigma_energy=0.0005,
        sigma_forces=0.03,
        sigma_dipole=0.05,
    )


# ---- running ------------------------------------------------------------------------------------


def predictions(path, pipeline, X, y, train, test, names):
    """Fit to the training structures, predict the test structures, and store the result in a file.

    Returns the predictions, the time of the fit in seconds, and the fitted pipeline.
    """
    path = STORED / path
    if not path.exists():
        STORED.mkdir(exist_ok=True)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="n_points=")
            columns = [*names, *(f"{n}_sigma" for n in names if f"{n}_sigma" in y.dtype.names)]
            pipeline.fit([X[i] for i in train], y[columns][train])
        seconds = time.perf_counter() - start
        targets = [name for name in UNITS if name in y.dtype.names and predicts(pipeline, name)]
        predicted = predict_targets(pipeline, [X[i] for i in test], targets)
        print(f"{path.stem}: {len(train)} structures, {seconds:.0f} s", flush=True)
        joblib.dump((predicted, seconds, pipeline), path)
    predicted, seconds, pipeline = joblib.load(path)
    return predicted, seconds, pipeline


def predicts(pipeline, name):
    """Whether a pipeline predicts a target."""
    return not isinstance(pipeline[-1], GAPRegressor) or name in ("energy", "forces", "stress")


def errors(predicted, y, index, n_atoms):
    """Errors for the test structures, by target, in the units of the tables."""
    result = {"energy": 1e3 * (predicted["energy"] - y["energy"][index]) / n_atoms[index]}
    for name in ("forces", "charges"):
        if name in predicted.dtype.names:
            pairs = zip(predicted[name], y[name][index], strict=True)
            result[name] = np.concatenate([1e3 * (value - label).ravel() for value, label in pairs])
    if "dipole" in predicted.dtype.names:
        result["dipole"] = DEBYE * (predicted["dipole"] - y["dipole"][index])
    return result


UNITS = {
    "energy": "energy (meV/atom)",
    "forces": "forces (meV/A)",
    "charges": "charges (1e-3 e)",
    "dipole": "dipole vector (D)",
}


def rms(name, values):
    """Root mean square of all components; for dipoles, of the lengths of the error vectors."""
    return float(np.sqrt((3 if name == "dipole" else 1) * np.mean(np.square(values))))


def standard_errors(pooled):
    """Standard error over the folds of each error, from a dict of lists with one array per fold."""
    scores = {name: [rms(name, error) for error in parts] for name, parts in pooled.items()}
    return {
        name: f"{np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"
        for name, values in scores.items()
    }


def row(name, error, targets):
    """One line of a table."""
    return [name, *(f"{rms(t, error[t]):.2f}" if t in error else "" for t in targets)]


def write(name, table):
    """Print a table and write it to a file."""
    for line in table:
        print("  ".join(map(str, line)))
    (RESULTS / name).write_text("".join(",".join(map(str, line)) + "\n" for line in table))


def grouped(X, groups, n_splits=5):
    """Folds in which every group is complete."""
    return list(GroupKFold(n_splits, shuffle=True, random_state=0).split(X, groups=groups))


def cross_validate(study, X, y, folds, models):
    """Errors of models in all folds together.

    Returns three values: a table of the errors, a dict with the error of every structure by model
    and target, and an array with the index of the structure of every error.
    """
    n_atoms = np.array([len(atoms) for atoms in X])
    targets = [name for name in UNITS if name in y.dtype.names]
    table, every = [("model", *(UNITS[name] for name in targets))], {}
    for name, (pipeline, trained) in models.items():
        pooled = {}
        for k, (train, test) in enumerate(folds):
            path = f"{study}_{name}_{k}.joblib".replace(" ", "_").replace("/", "_")
            predicted, _, _ = predictions(path, pipeline, X, y, train, test, trained)
            for target, error in errors(predicted, y, test, n_atoms).items():
                pooled.setdefault(target, []).append(error)
        every[name] = {target: np.concatenate(parts) for target, parts in pooled.items()}
        table.append(row(name, every[name], targets))
        if len(folds) > 1:
            print(f"{name}, standard errors over the folds:", standard_errors(pooled), flush=True)
    baseline = []
    counts = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in X])
    for train, test in folds:
        fitted = np.linalg.lstsq(counts[train], y["energy"][train], rcond=None)[0]
        baseline.append(1e3 * (counts[test] @ fitted - y["energy"][test]) / n_atoms[test])
    energies = {"energy": np.concatenate(baseline)}
    table.append(row("one energy per element", energies, targets))
    return table, every, np.concatenate([test for _, test in folds])


def water():
    """Compute the learning curve, compare the models, and predict energies along curves."""
    X, y, groups = load_water(return_groups=True)
    n_atoms = np.array([len(atoms) for atoms in X])
    charge = np.array([atoms.info["charge"] for atoms in X])
    expansion = np.array([atoms.info["expansion"] for atoms in X])
    field = np.array(["external_field" in atoms.info for atoms in X])
    # Charge equilibration spreads the charge of an ion over distant molecules, which makes the
    # dipole wrong. The noise of these dipoles is therefore set twice as large.
    relative = np.where((charge != 0) & (expansion > 1.1), 2.0, 1.0)
    columns = {name: y[name] for name in ("energy", "forces", "dipole", "charges")}
    y = make_targets(**columns, dipole_sigma=relative)
    [(train, test)] = GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, groups=groups)
    train = np.random.default_rng(0).permutation(train)
    without_fields = train[~field[train]]
    sizes = (1500, 1000, 500, 250)
    runs = [("GAP+ChargeFlow", n, train[:n]) for n in (1500, 500)]
    runs += [("GAP+local charges", 500, train[:500])]
    runs += [("GAP+kQEq", n, train[:n]) for n in sizes]
    runs += [(name, 1500, train[:1500]) for name in ("GAP", "kQEq")]
    runs += [("GAP+kQEq without fields", 1000, without_fields[:1000])]
    parts = {
        "all": np.full(len(test), True),
        "neutral": charge[test] == 0,
        "with H3O+": charge[test] == 1,
        "with OH-": charge[test] == -1,
        "expanded": expansion[test] > 1.5,
        "in a field": field[test],
    }
    head = [f"{part} {unit}" for part in parts for unit in ("energy", "forces")]
    head += ["dipole vector (D)", "charges of far fragments (1e-3 e)"]
    table, fitted = [("model", "structures", *head)], {}
    far = [find_fragments(X[i]) for i in test]
    far = [f if fragment_distance(X[i], f) >= 6.0 else None for i, f in zip(test, far)]
    for name, n, index in runs:
        pipeline, trained = water_models()[name.split(" without")[0]]
        path = f"water_{name}_{n}.joblib".replace(" ", "_")
        predicted, _, fitted[name, n] = predictions(path, pipeline, X, y, index, test, trained)
        line = [name, len(index)]
        for part in parts.values():
            error = errors(predicted[part], y, test[part], n_atoms)
            line += [f"{rms(t, error[t]):.2f}" for t in ("energy", "forces")]
        if predicts(pipeline, "charges"):
            line.append(f"{rms('dipole', errors(predicted, y, test, n_atoms)['dipole']):.3f}")
            error = [q - y["charges"][i] for q, i in zip(predicted["charges"], test)]
            error = [fragment_charges(q, f) for q, f in zip(error, far) if f is not None]
            line.append(f"{1e3 * np.sqrt(np.mean(np.concatenate(error) ** 2)):.1f}")
        table.append(line)
        write("water.csv", table)
    curves(fitted)


def far_fragments(X, y, names, folds):
    """RMS error of the charges of fragments at least 6 Angstrom apart, from stored predictions."""
    fragments = [find_fragments(atoms) for atoms in X]
    distances = [fragment_distance(atoms, f) for atoms, f in zip(X, fragments, strict=True)]
    table = {}
    for name, path in names.items():
        error = []
        for k, (_, test) in enumerate(folds):
            predicted = joblib.load(STORED / path.format(k))[0]
            for q, i in zip(predicted["charges"], test, strict=True):
                if 6.0 <= distances[i] < np.inf:
                    error.append(fragment_charges(q - y["charges"][i], fragments[i]))
        table[name] = 1e3 * np.sqrt(np.mean(np.concatenate(error) ** 2))
    return table


def pbe0():
    """Cross-validate models of small clusters with PBE0 labels, in three folds by trajectory."""
    X, y, groups = load_water("pbe0", return_groups=True)
    studied = {name: model for name, model in water_models(200).items() if name[:3] == "GAP"}
    folds = grouped(X, groups, 3)
    table = cross_validate("pbe0", X, y, folds, studied)[0]
    names = {name: f"pbe0_{name}_{{}}.joblib".replace(" ", "_") for name in studied}
    far = far_fragments(X, y, {n: p for n, p in names.items() if n != "GAP"}, folds)
    table[0] = (*table[0], "charges of far fragments (1e-3 e)")
    for line in table[1:]:
        line.append(f"{far[line[0]]:.1f}" if line[0] in far else "")
    return table


def curves(fitted):
    """Write energies and charges of the models along the reference curves."""
    X, y = load_water_curves()
    names = {
        "GAP": fitted["GAP", 1500],
        "kQEq": fitted["kQEq", 1500],
        "GAP+kQEq": fitted["GAP+kQEq", 1500],
        "GAP+ChargeFlow": fitted["GAP+ChargeFlow", 1500],
        "without fields": fitted["GAP+kQEq without fields", 1000],
    }
    columns = {"GFN2-xTB": y}
    for name, model in names.items():
        targets = [target for target in ("energy", "charges") if predicts(model, target)]
        columns[name] = predict_targets(model, X, targets)
    head = ["charge", "curve", "expansion", "x", "y", "z"]
    head += [f"{name} energy" for name in columns]
    head += [f"{name} charges" for name in columns if "charges" in columns[name].dtype.names]
    table = [head]
    # Fragments are defined by the most expanded cluster, because molecules of a compact cluster may
    # share a proton.
    expanded = [atoms for atoms in X if atoms.info["curve"] == "expansion"]
    fragments = {atoms.info["charge"]: find_fragments(atoms) for atoms in expanded}
    for i, atoms in enumerate(X):
        field = atoms.info.get("external_field", np.zeros(3))
        line = [atoms.info["charge"], atoms.info["curve"], atoms.info["expansion"], *field]
        line += [f"{values['energy'][i]:.5f}" for values in columns.values()]
        for values in columns.values():
            if "charges" in values.dtype.names:
                q = fragment_charges(values["charges"][i], fragments[atoms.info["charge"]])
                line.append(" ".join(f"{value:.4f}" for value in q))
        table.append(line)
    (RESULTS / "water_curves.csv").write_text(
        "".join(",".join(map(str, line)) + "\n" for line in table)
    )


def lih_models(n_points=200):
    """Models of clusters of lithium hydride."""
    options = {
        "amplitude_gap": 0.3,
        "amplitude_chi": 0.3,
        "sigma_energy": 0.0003,
        "sigma_charges": 1.0,
        "qeq": QEq(radius_scale=0.7, hardness=1.0),
        # Ions exchange charge easily. With this softness, the result is close to that of charge
        # equilibration.
        "flow": ChargeFlow(softness=1.0, range=0.3, radius_scale=0.7, hardness=1.0),
    }

    def features(r_cut, sigma_atom=None):
        pipeline = half(r_cut, n_points, 4, 3, cutoff_width=None)
        return lambda: clone(pipeline).set_params(soapfeaturizer__sigma_atom=sigma_atom)

    studied = models(features(3.0), features(2.7, 0.5), ("charges",), **options)
    # The data have no force labels.
    studied = {name: (model, names[:1] + names[2:]) for name, (model, names) in studied.items()}
    # Add the two best GAP models of a random search over 250 settings: the best one for all
    # clusters, and the best one for all clusters except dimers.
    searched = {"a short cutoff": features(2.5, 0.6), "long cutoffs": features((2.5, 4.5))}
    for name, gap in searched.items():
        studied[f"GAP with {name}"] = models(gap, gap, (), **options)["GAP"][0], ("energy",)
    return studied


def lih(X, y, groups):
    """Clusters of lithium hydride: energies and Hirshfeld charges."""
    table, every, index = cross_validate("lih", X, y, grouped(X, groups), lih_models())
    large = np.array([len(X[i]) for i in index]) > 2
    table[0] = (*table[0], "energy without the dimers")
    for line in table[1:]:
        error = every.get(line[0])
        line.append(f"{rms('energy', error['energy'][large]):.2f}" if error else "")
    return table


def carbon_models():
    """Models of carbon chains."""
    return models(
        lambda: half(4.5, 300, 4, 3),
        lambda: half((2.5, 4.5), 300, 6, 5, block_weights=(0.8, 0.2)),
        ("charges",),
        qeq=QEq(radius_scale=0.7, hardness=2.7),
        **AMPLITUDES,
        sigma_charges=0.01,
    )


def carbon(X, y, groups):
    """C10H2 and C10H3+, with and without charge labels."""
    studied = carbon_models()
    studied["GAP+kQEq without charges"] = studied["GAP+kQEq"][0], ("energy", "forces")
    return cross_validate("carbon", X, y, grouped(X, groups), studied)[0]


def mgo(X, y, groups):
    """Au2 on MgO(001), with and without aluminium atoms deep below the surface."""
    cutoffs = {"r_cut": (3.0, 6.0), "cutoff_width": (2.8, 5.0), "n_max": 4, "l_max": 3}
    studied = models(
        lambda: half(**cutoffs, n_points=200),
        lambda: half(**cutoffs, n_points=200, block_weights=(0.8, 0.2)),
        ("charges",),
        **AMPLITUDES,
        sigma_charges=0.05,
    )
    return cross_validate("mgo", X, y, grouped(X, groups, 4), studied)[0]


def zno_models(n_points=200):
    """Models of particles of zinc oxide."""
    cutoffs = {"r_cut": (3.0, 6.0), "cutoff_width": (1.5, 4.0), "n_max": 4, "l_max": 3}
    return models(
        lambda: half(**cutoffs, n_points=n_points),
        lambda: half(**cutoffs, n_points=n_points, block_weights=(0.8, 0.2)),
        ("charges",),
        **AMPLITUDES,
        sigma_charges=0.05,
    )


def zno(X, y, groups):
    """Particles of zinc oxide: 45 for training, and 20 from other groups for the test."""
    train, test = grouped(X, groups)[0]
    rng = np.random.default_rng(0)
    fold = rng.permutation(train)[:45], rng.permutation(test)[:20]
    return cross_validate("zno", X, y, [fold], zno_models())[0]


def dipeptide_models(n_points=100, charges=()):
    """Models of dipeptides; the local energies have twice as many points."""
    cutoffs = {"r_cut": (3.0, 5.0), "cutoff_width": (2.0, 4.0), "n_max": 4, "l_max": 3}
    return models(
        lambda: half(**cutoffs, n_points=n_points),
        lambda: half(**cutoffs, n_points=2 * n_points, block_weights=(0.8, 0.2)),
        charges,
        **AMPLITUDES,
        sigma_charges=0.05,
        sigma_dipole=0.05,
    )


def dipeptide_fold(groups):
    """200 training molecules, and the test molecules.

    The test molecules have another chemical formula. They contain arginine, and so does a similar
    molecule in the training data.
    """
    training = np.random.default_rng(0).permutation(np.flatnonzero(groups != groups.max()))
    return training[:200], np.flatnonzero(groups == groups.max())


def dipeptides(X, y, groups):
    """Effect of each kind of label on the errors of the others."""
    studied = dipeptide_models()
    labels = [
        ("energy",),
        ("energy", "forces"),
        ("energy", "forces", "dipole"),
        ("energy", "forces", "charges"),
        ("energy", "forces", "dipole", "charges"),
        ("dipole", "charges"),
    ]
    trained = {" + ".join(names): (studied["GAP+kQEq"][0], names) for names in labels}
    for name in ("GAP+ChargeFlow", "GAP+local charges"):
        trained[f"all, {name}"] = studied[name][0], labels[4]
    return cross_validate("dipeptides", X, y, [dipeptide_fold(groups)], trained)[0]


STUDIES = {"lih": lih, "carbon": carbon, "mgo": mgo, "zno": zno, "dipeptides": dipeptides}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", choices=["water", "pbe0", *STUDIES])
    parser.add_argument("data", nargs="?")
    args = parser.parse_args()
    if args.study == "water":
        return water()
    if args.study == "pbe0":
        return write("gap_water_pbe0.csv", pbe0())
    labelled = ase.io.read(args.data, ":")
    keys = {**labelled[0].arrays, **labelled[0].info}
    y = targets_from_atoms(labelled, [name for name in UNITS if f"REF_{name}" in keys])
    groups = np.array([atoms.info["group"] for atoms in labelled])
    write(f"gap_{args.study}.csv", STUDIES[args.study](strip(labelled), y, groups))


if __name__ == "__main__":
    main()
