"""Accuracy of local energies with charge equilibration, of each alone, and of both.

    python benchmarks/gap_accuracy.py water | pbe0
    python benchmarks/gap_accuracy.py lih | carbon | mgo | zno | dipeptides DATA

"kQEq" is charge equilibration, "ChargeFlow" charge that flows between neighbours from learned
reference charges, and "local charges" those alone. ``water`` trains on bundled clusters in three
charge states, part of them in fields: a learning curve on one split by trajectories, the models
beside each other, and what the largest models say of clusters that are taken apart and of clusters
in fields. The others read an extended XYZ file with ``REF_energy``, ``REF_forces``,
``REF_charges``, ``REF_dipole`` and ``group`` and cross-validate by group; the sparse set is picked
anew from every training fold.

Predictions are kept in ``./gap_folds`` as they come, and what is there is not computed again.
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
KEPT = Path("gap_folds")
# A few steps bring the loss within a part in a thousand of the least.
ITERATION = {"max_iter": 12, "tol": 1e-2}


def half(r_cut, n_points, n_max, l_max, block_weights=None, zeta=2, cutoff_width=1.5):
    """Descriptor and sparse set of one field."""
    return make_pipeline(
        SOAPFeaturizer(r_cut=r_cut, cutoff_width=cutoff_width, n_max=n_max, l_max=l_max),
        CURSparsifier(n_points=n_points, block_weights=block_weights, zeta=zeta),
    )


# ---- models of each study: name, pipeline, and the targets that it is trained on ----------------


LOCAL = ("amplitude_gap", "sigma_energy", "sigma_forces")  # parameters of GAPRegressor


def models(chi, gap, charges, response=None, flow=None, **options):
    """GAP alone, kQEq alone and both, with the same features and the same noise.

    `response` is that of charge that flows, and `flow` what is different with it.
    """
    local = {name: options[name] for name in LOCAL if name in options}
    electric = {name: value for name, value in options.items() if name != "amplitude_gap"}
    blocks = StructureBlocks([("chi", chi()), ("gap", gap())])
    names = ("energy", "forces")
    found = {
        "GAP": (make_pipeline(gap(), GAPRegressor(**local)), names),
        "kQEq": (make_pipeline(chi(), KQEqRegressor(**ITERATION, **electric)), names + charges),
        "GAP+kQEq": (
            make_pipeline(blocks, GAPKQEqRegressor(**ITERATION, **options)),
            names + charges,
        ),
    }
    responses = {"GAP+ChargeFlow": response or ChargeFlow(), "GAP+local charges": ChargeFlow(0.0)}
    for name, response in responses.items():
        settings = options | (SOFT if flow is None else flow)
        regressor = GAPKQEqRegressor(**ITERATION, **settings, response=response)
        found[name] = make_pipeline(clone(blocks), regressor), names + charges
    return found


HARD = {"amplitude_gap": 10.0, "amplitude_chi": 3.0, "radius_scale": 1.0, "hardness": 30.0}
# With charges that flow.
SOFT = {"amplitude_chi": 3.0, "radius_scale": 1.0, "hardness": 0.0}
# Wide charges that are hard to move: what leaves a molecule costs energy.
WATER = {
    "amplitude_gap": 10.0,
    "amplitude_chi": 3.0,
    "radius_scale": 1.3,
    "hardness": 30.0,
    "sigma_energy": 0.0005,
    "sigma_forces": 0.03,
    "sigma_dipole": 0.05,
}


def water_models(n_points=500):
    """Models of the clusters of water."""
    edges = {"r_cut": (3.0, 6.0), "cutoff_width": (2.8, 5.0), "n_points": n_points}
    return models(
        lambda: half(**edges, n_max=4, l_max=3),
        lambda: half(**edges, n_max=6, l_max=5, block_weights=(0.8, 0.2)),
        ("dipole",),
        response=ChargeFlow(softness=0.1, range=0.15),
        **WATER,
    )


# ---- running ------------------------------------------------------------------------------------


def predictions(path, pipeline, X, y, train, test, names):
    """Predictions of the test structures by a model of the training ones, kept in a file."""
    path = KEPT / path
    if not path.exists():
        KEPT.mkdir(exist_ok=True)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="gauss_newton stopped|n_points=")
            columns = [*names, *(f"{n}_sigma" for n in names if f"{n}_sigma" in y.dtype.names)]
            pipeline.fit([X[i] for i in train], y[columns][train])
        seconds = time.perf_counter() - start
        wanted = [name for name in UNITS if name in y.dtype.names and knows(pipeline, name)]
        found = predict_targets(pipeline, [X[i] for i in test], wanted)
        print(f"{path.stem}: {len(train)} structures, {seconds:.0f} s", flush=True)
        joblib.dump((found, seconds, pipeline), path)
    found, seconds, pipeline = joblib.load(path)
    return found, seconds, pipeline


def knows(pipeline, name):
    """Whether a model has a target."""
    return not isinstance(pipeline[-1], GAPRegressor) or name in ("energy", "forces", "stress")


def errors(found, y, index, n_atoms):
    """Errors of the test structures by target, in the units of the tables."""
    result = {"energy": 1e3 * (found["energy"] - y["energy"][index]) / n_atoms[index]}
    for name, unit in (("forces", 1e3), ("charges", 1e3)):
        if name in found.dtype.names:
            pairs = zip(found[name], y[name][index], strict=True)
            result[name] = np.concatenate([unit * (one - other).ravel() for one, other in pairs])
    if "dipole" in found.dtype.names:
        result["dipole"] = DEBYE * (found["dipole"] - y["dipole"][index])
    return result


UNITS = {
    "energy": "energy (meV/atom)",
    "forces": "forces (meV/A)",
    "charges": "charges (1e-3 e)",
    "dipole": "dipole vector (D)",
}


def rms(name, values):
    """Root mean square; of vectors, of their length."""
    return float(np.sqrt((3 if name == "dipole" else 1) * np.mean(np.square(values))))


def row(name, error, targets):
    """A line of a table."""
    return [name, *(f"{rms(t, error[t]):.2f}" if t in error else "" for t in targets)]


def write(name, table):
    """Print a table and keep it."""
    for line in table:
        print("  ".join(map(str, line)))
    (RESULTS / name).write_text("".join(",".join(map(str, line)) + "\n" for line in table))


def grouped(X, groups, n_splits=5):
    """Folds that keep groups together."""
    return list(GroupKFold(n_splits, shuffle=True, random_state=0).split(X, groups=groups))


def cross_validate(study, X, y, folds, models):
    """Pooled errors of models over folds, as a table."""
    n_atoms = np.array([len(atoms) for atoms in X])
    targets = [name for name in UNITS if name in y.dtype.names]
    table, every = [("model", *(UNITS[name] for name in targets))], {}
    for name, (pipeline, trained) in models.items():
        pooled = {}
        for k, (train, test) in enumerate(folds):
            path = f"{study}_{name}_{k}.joblib".replace(" ", "_").replace("/", "_")
            found, _, _ = predictions(path, pipeline, X, y, train, test, trained)
            for target, error in errors(found, y, test, n_atoms).items():
                pooled.setdefault(target, []).append(error)
        every[name] = {target: np.concatenate(parts) for target, parts in pooled.items()}
        table.append(row(name, every[name], targets))
    baseline = []
    counts = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in X])
    for train, test in folds:
        fitted = np.linalg.lstsq(counts[train], y["energy"][train], rcond=None)[0]
        baseline.append(1e3 * (counts[test] @ fitted - y["energy"][test]) / n_atoms[test])
    energies = {"energy": np.concatenate(baseline)}
    table.append(row("one energy per element", energies, targets))
    return table, every, np.concatenate([test for _, test in folds])


def water():
    """Learning curve, models beside each other, and the curves."""
    X, y, groups = load_water(return_groups=True)
    n_atoms = np.array([len(atoms) for atoms in X])
    charge = np.array([atoms.info["charge"] for atoms in X])
    expansion = np.array([atoms.info["expansion"] for atoms in X])
    field = np.array(["external_field" in atoms.info for atoms in X])
    # Charge equilibration spreads the charge of an ion over molecules far away, and its dipole with
    # it: those dipoles may be missed by more.
    relative = np.where((charge != 0) & (expansion > 1.1), 2.0, 1.0)
    columns = {name: y[name] for name in ("energy", "forces", "dipole", "charges")}
    y = make_targets(**columns, dipole_sigma=relative)
    [(train, test)] = GroupShuffleSplit(1, test_size=0.3, random_state=0).split(X, groups=groups)
    train = np.random.default_rng(0).permutation(train)
    without = train[~field[train]]
    sizes = (1500, 1000, 500, 250)
    runs = [("GAP+ChargeFlow", n, train[:n]) for n in (1500, 500)]
    runs += [("GAP+local charges", 500, train[:500])]
    runs += [("GAP+kQEq", n, train[:n]) for n in sizes]
    runs += [(name, 1500, train[:1500]) for name in ("GAP", "kQEq")]
    runs += [("GAP+kQEq without fields", 1000, without[:1000])]
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
        found, _, fitted[name, n] = predictions(path, pipeline, X, y, index, test, trained)
        line = [name, len(index)]
        for part in parts.values():
            error = errors(found[part], y, test[part], n_atoms)
            line += [f"{rms(t, error[t]):.2f}" for t in ("energy", "forces")]
        if knows(pipeline, "charges"):
            line.append(f"{rms('dipole', errors(found, y, test, n_atoms)['dipole']):.3f}")
            missed = [q - y["charges"][i] for q, i in zip(found["charges"], test)]
            missed = [fragment_charges(q, f) for q, f in zip(missed, far) if f is not None]
            line.append(f"{1e3 * np.sqrt(np.mean(np.concatenate(missed) ** 2)):.1f}")
        table.append(line)
        write("water.csv", table)
    curves(fitted)


def far_fragments(X, y, names, folds):
    """RMS error of the charges of fragments at 6 Angstrom and more, by model, from kept folds."""
    fragments = [find_fragments(atoms) for atoms in X]
    far = [fragment_distance(atoms, f) for atoms, f in zip(X, fragments, strict=True)]
    table = {}
    for name, path in names.items():
        missed = []
        for k, (_, test) in enumerate(folds):
            found = joblib.load(KEPT / path.format(k))[0]
            for q, i in zip(found["charges"], test, strict=True):
                if 6.0 <= far[i] < np.inf:
                    missed.append(fragment_charges(q - y["charges"][i], fragments[i]))
        table[name] = 1e3 * np.sqrt(np.mean(np.concatenate(missed) ** 2))
    return table


def pbe0():
    """Small clusters labelled with PBE0, in three folds by trajectory."""
    X, y, groups = load_water("pbe0", return_groups=True)
    found = water_models(200)
    found = {name: found[name] for name in found if name.startswith("GAP")}
    folds = grouped(X, groups, 3)
    table = cross_validate("pbe0", X, y, folds, found)[0]
    names = {name: f"pbe0_{name}_{{}}.joblib".replace(" ", "_") for name in found}
    far = far_fragments(X, y, {n: p for n, p in names.items() if n != "GAP"}, folds)
    table[0] = (*table[0], "charges of far fragments (1e-3 e)")
    for line in table[1:]:
        line.append(f"{far[line[0]]:.1f}" if line[0] in far else "")
    return table


def curves(fitted):
    """Energies and charges of the models on the reference curves."""
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
        known = [target for target in ("energy", "charges") if knows(model, target)]
        columns[name] = predict_targets(model, X, known)
    head = ["charge", "curve", "expansion", "x", "y", "z"]
    head += [f"{name} energy" for name in columns]
    head += [f"{name} charges" for name in columns if "charges" in columns[name].dtype.names]
    table = [head]
    # Those of the most expanded one: in a compact one a proton may be on its way.
    apart = [atoms for atoms in X if atoms.info["curve"] == "expansion"]
    fragments = {atoms.info["charge"]: find_fragments(atoms) for atoms in apart}
    for i, atoms in enumerate(X):
        field = atoms.info.get("external_field", np.zeros(3))
        line = [atoms.info["charge"], atoms.info["curve"], atoms.info["expansion"], *field]
        line += [f"{found['energy'][i]:.5f}" for found in columns.values()]
        for found in columns.values():
            if "charges" in found.dtype.names:
                q = fragment_charges(found["charges"][i], fragments[atoms.info["charge"]])
                line.append(" ".join(f"{value:.4f}" for value in q))
        table.append(line)
    (RESULTS / "water_curves.csv").write_text(
        "".join(",".join(map(str, line)) + "\n" for line in table)
    )


def lih(X, y, groups):
    """Clusters of lithium hydride: energies and Hirshfeld charges."""
    options = {
        "amplitude_gap": 0.3,
        "amplitude_chi": 0.3,
        "radius_scale": 0.7,
        "hardness": 1.0,
        "sigma_energy": 0.0003,
        "sigma_charges": 1.0,
    }

    def features(r_cut, sigma_atom=None):
        pipeline = half(r_cut, 200, 4, 3, cutoff_width=None)
        return lambda: clone(pipeline).set_params(soapfeaturizer__sigma_atom=sigma_atom)

    # Ions exchange charge easily: so softly that it is close to charge equilibration.
    options |= {"response": ChargeFlow(1.0, 0.3), "flow": {}}
    found = models(features(3.0), features(2.7, 0.5), ("charges",), **options)
    # There are no forces.
    found = {name: (model, trained[:1] + trained[2:]) for name, (model, trained) in found.items()}
    # The best local energy that a random search of 250 settings found, and the best without dimers.
    others = {"a short cutoff": features(2.5, 0.6), "long cutoffs": features((2.5, 4.5))}
    for name, gap in others.items():
        found[f"GAP with {name}"] = models(gap, gap, (), **options)["GAP"][0], ("energy",)
    table, every, index = cross_validate("lih", X, y, grouped(X, groups), found)
    large = np.array([len(X[i]) for i in index]) > 2
    table[0] = (*table[0], "energy without the dimers")
    for line in table[1:]:
        error = every.get(line[0])
        line.append(f"{rms('energy', error['energy'][large]):.2f}" if error else "")
    return table


def carbon(X, y, groups):
    """C10H2 and C10H3+, with and without charges as labels."""
    found = models(
        lambda: half(4.5, 300, 4, 3),
        lambda: half((2.5, 4.5), 300, 6, 5, block_weights=(0.8, 0.2)),
        ("charges",),
        **HARD | {"radius_scale": 0.7, "hardness": 2.7, "sigma_charges": 0.01},
    )
    found["GAP+kQEq without charges"] = found["GAP+kQEq"][0], ("energy", "forces")
    return cross_validate("carbon", X, y, grouped(X, groups), found)[0]


def mgo(X, y, groups):
    """Au2 on MgO(001), with and without aluminium deep below it."""
    edges = {"r_cut": (3.0, 6.0), "cutoff_width": (2.8, 5.0), "n_max": 4, "l_max": 3}
    found = models(
        lambda: half(**edges, n_points=200),
        lambda: half(**edges, n_points=200, block_weights=(0.8, 0.2)),
        ("charges",),
        **HARD | {"sigma_charges": 0.05},
    )
    return cross_validate("mgo", X, y, grouped(X, groups, 4), found)[0]


def zno(X, y, groups):
    """Particles of zinc oxide: 45 in training, 20 of other groups to test."""
    edges = {"r_cut": (3.0, 6.0), "cutoff_width": (1.5, 4.0), "n_max": 4, "l_max": 3}
    found = models(
        lambda: half(**edges, n_points=200),
        lambda: half(**edges, n_points=200, block_weights=(0.8, 0.2)),
        ("charges",),
        **HARD | {"sigma_charges": 0.05},
    )
    train, test = grouped(X, groups)[0]
    rng = np.random.default_rng(0)
    fold = rng.permutation(train)[:45], rng.permutation(test)[:20]
    return cross_validate("zno", X, y, [fold], found)[0]


def dipeptides(X, y, groups):
    """Which label does what to the others: 200 molecules, and those of another formula.

    The last group has an arginine, as a homologue has in the training data.
    """
    edges = {"r_cut": (3.0, 5.0), "cutoff_width": (2.0, 4.0), "n_max": 4, "l_max": 3}
    both = models(
        lambda: half(**edges, n_points=100),
        lambda: half(**edges, n_points=200, block_weights=(0.8, 0.2)),
        (),
        **HARD | {"sigma_charges": 0.05, "sigma_dipole": 0.05},
    )
    labels = [
        ("energy",),
        ("energy", "forces"),
        ("energy", "forces", "dipole"),
        ("energy", "forces", "charges"),
        ("energy", "forces", "dipole", "charges"),
        ("dipole", "charges"),
    ]
    found = {" + ".join(names): (both["GAP+kQEq"][0], names) for names in labels}
    found |= {f"all, {name}": (both[name][0], labels[4]) for name in both if name[:4] == "GAP+"}
    del found["all, GAP+kQEq"]
    others = np.random.default_rng(0).permutation(np.flatnonzero(groups != groups.max()))
    fold = others[:200], np.flatnonzero(groups == groups.max())
    return cross_validate("dipeptides", X, y, [fold], found)[0]


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
    has = {**labelled[0].arrays, **labelled[0].info}
    y = targets_from_atoms(labelled, [name for name in UNITS if f"REF_{name}" in has])
    groups = np.array([atoms.info["group"] for atoms in labelled])
    write(f"gap_{args.study}.csv", STUDIES[args.study](strip(labelled), y, groups))


if __name__ == "__main__":
    main()
