"""The benchmark suite: time and memory of every stage of a fit and of a prediction.

    python benchmarks [--data molecules.xyz] [--all]

The suite varies the number of molecules, the number of sparse points, the number of atoms of a
structure, and the number of workers. For each stage it measures the time, the peak memory, and the
ratio of the time to the floor. The floor is the time of the work that cannot be avoided. Every case
runs in a new process. The suite writes three files:

- ``results/suite/<commit>.json``: all measurements, the machine, and the versions of the
  dependencies.
- ``results/suite.csv``: the stages of the largest fit.
- ``docs/_static/scaling.png``: a plot of all measurements.

With `--all` the other benchmarks of speed run afterwards, and each writes a table.

A fit has four stages. ``floor.py`` computes the floor of each stage:

- descriptors. The floor is the time of DScribe alone.
- sparse set: select the sparse points from stored descriptors. The floor is the time for the kernel
  matrix K_MM.
- rows: build the rows of the least-squares problem. The floor is the time for the kernel K_nM and
  its whitening.
- solution: reduce the rows to a triangle and solve it. The floor is the time for the flops of the
  reduction.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import ase.io
import joblib
import numpy as np
from fit_predict import DOUBLE, L_MAX, N_MAX, molecules
from floor import flops, gemm_rate, n_soap_features, soap_seconds
from sklearn.pipeline import make_pipeline
from systems import zno_ball
from threadpoolctl import threadpool_limits

from skqeq import (
    CURSparsifier,
    KQEqCalculator,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    make_targets,
    set_memory_budget,
)
from skqeq.features import ROWS
from skqeq.solvers import Triangle

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
CASES = (
    [{"axis": "molecules", "molecules": n, "points": 500} for n in (125, 250, 500, 1000, 2000)]
    + [{"axis": "points", "molecules": 1000, "points": m} for m in (125, 250, 500, 1000)]
    + [{"axis": "precision", "molecules": 1000, "points": 1000}]
    + [{"axis": "atoms", "atoms": n, "points": 500} for n in (50, 100, 200, 400, 800)]
    + [
        {"axis": "workers", "molecules": 5000, "points": 200, "workers": w, "backend": b}
        for w, b in ((1, "serial"), (2, "loky"), (1, "dask"), (2, "dask"))
    ]
)
# Bytes for descriptors and rows: enough to store all descriptors of every case.
LARGE_BUDGET = 2**34
OTHERS = ("fit_predict", "forces", "ewald", "large", "cv_speed", "streaming")


def measured(function):
    """Call a function; return its seconds and peak memory in GiB, and its result."""
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak memory of earlier calls
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return {"seconds": seconds, "peak GiB": peak / 2**20}, result


def walk(features):
    """Compute all blocks of features and discard them."""
    for _ in features.blocks():
        pass


def stages(case, data):
    """Measure all stages of a fit to dipoles of molecules, and a prediction."""
    n, m = case["molecules"], case["points"]
    X, D = molecules(data, n)
    set_memory_budget(LARGE_BUDGET)
    soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
    sparsifier, model = CURSparsifier(n_points=m), KQEqRegressor()
    features = soap.fit_transform(X)
    rate = gemm_rate()
    ROWS.clear()
    figures = {"descriptors": measured(lambda: walk(features))[0]}
    figures["sparse set"] = measured(lambda: sparsifier.fit(features))[0]
    phi = sparsifier.transform(features)
    rows, figures["solution"] = timed_solution(lambda: model.fit(phi, D))
    figures["rows"] = rows
    pipeline = make_pipeline(soap, sparsifier, model)
    ROWS.clear()
    figures["fit"] = measured(lambda: pipeline.fit(X, D))[0]
    ROWS.clear()
    figures["predict"] = measured(lambda: pipeline.predict(X))[0]
    floors = stage_floors(X, sparsifier, 3 * n, rate)
    return {name: stage | {"floor": floors[name]} for name, stage in figures.items()}


def timed_solution(fit):
    """Measure a fit; return the measurements for building the rows, and for solving them."""
    inside = 0.0  # seconds that were spent in the methods of `Triangle`
    original = {name: getattr(Triangle, name) for name in ("update", "solve")}

    def timer(function):
        def timed(self, *args):
            nonlocal inside
            start = time.perf_counter()
            result = function(self, *args)
            inside += time.perf_counter() - start
            return result

        return timed

    for name, function in original.items():
        setattr(Triangle, name, timer(function))
    try:
        whole, _ = measured(fit)
    finally:
        for name, function in original.items():
            setattr(Triangle, name, function)
    return whole | {"seconds": whole["seconds"] - inside}, whole | {"seconds": inside}


def stage_floors(X, sparsifier, n_rows, rate):
    """The floor of each stage, seconds."""
    numbers, counts = np.unique(sparsifier.component_numbers_, return_counts=True)
    points = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    n_features = n_soap_features(len(points), len(DOUBLE), N_MAX, L_MAX)
    work = {name: f / rate for name, f in flops(X, points, n_features, n_rows).items()}
    soap = min(soap_seconds(X, DOUBLE, N_MAX, L_MAX, restricted) for restricted in (False, True))
    rows = work["kernel K_nM"] + work["whitening"]
    return {
        "descriptors": soap,
        "sparse set": work["kernel K_MM"],
        "rows": rows,
        "solution": work["reduction"],
        "fit": soap + sum(work.values()),
        "predict": soap + rows,
    }


def precision(case, data):
    """Measure kernels in single and double precision, and how much the predictions differ."""
    n, m = case["molecules"], case["points"]
    X, D = molecules(data, n)
    set_memory_budget(LARGE_BUDGET)
    soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
    features = soap.fit_transform(X)
    walk(features)
    figures, predictions = {}, {}
    for dtype in ("float64", "float32"):
        phi = CURSparsifier(n_points=m, dtype=dtype).fit_transform(features)
        walk(phi)
        runs = (measured(lambda phi=phi: walk(phi))[0] for _ in range(3))
        figures[f"kernel, {dtype}"] = min(runs, key=lambda run: run["seconds"])
        model = KQEqRegressor().fit(phi, D)
        predictions[dtype] = model.predict(phi)
    change = np.linalg.norm(predictions["float32"] - predictions["float64"])
    change /= np.linalg.norm(predictions["float64"])
    figures["kernel, float32"]["relative change of predictions"] = change
    figures["kernel, float32"]["floor"] = figures["kernel, float64"]["seconds"]
    return figures


def atoms(case, data):
    """Measure the time and memory that energy and forces of one structure need.

    The floor is the time for the descriptors, the kernel and the whitening of the structure.
    """
    set_memory_budget(0)
    X = [zno_ball(200, seed=1 + seed) for seed in range(10)]
    Q = [np.where(a.symbols == "Zn", 1.0, -1.0) for a in X]
    model = make_pipeline(
        SOAPFeaturizer((2.2, 4.4), n_max=N_MAX, l_max=L_MAX, cutoff_width=1.0),
        CURSparsifier(case["points"]),
        KQEqRegressor(response=QEq(hardness=5.0)),
    ).fit(X, make_targets(charges=Q))
    ball = zno_ball(case["atoms"])
    ball.calc = KQEqCalculator(model)

    def forces():
        ball.calc.reset()
        return ball.get_forces()

    with threadpool_limits(1):
        forces()
        best = min((measured(forces)[0] for _ in range(3)), key=lambda run: run["seconds"])
        floor = min(
            measured(lambda: walk(model[:-1].transform([ball])))[0]["seconds"] for _ in range(3)
        )
    return {"forces": best | {"floor": floor}}


def workers(case, data):
    """Measure a fit distributed over workers with one thread each; compare it with a serial fit."""
    from skqeq.datasets import open_structures

    n, m = case["molecules"], case["points"]
    X, D = molecules(data, n)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "molecules.xyz"
        ase.io.write(path, [a if a.calc is None else a.copy() for a in X], format="extxyz")
        soap = SOAPFeaturizer(r_cut=DOUBLE, n_max=N_MAX, l_max=L_MAX)
        features = soap.fit_transform(open_structures(path))
        phi = CURSparsifier(n_points=m).fit_transform(features)

        def fit(n_jobs):
            # The first fit is not timed, because it starts the workers, which import their modules.
            KQEqRegressor(n_jobs=n_jobs).fit(phi[:500], D[:500])
            return measured(lambda: KQEqRegressor(n_jobs=n_jobs).fit(phi, D))

        if case["backend"] == "serial":
            with threadpool_limits(1):
                return {"fit": fit(1)[0]}
        if case["backend"] == "loky":
            with joblib.parallel_config("loky", inner_max_num_threads=1):
                figures, model = fit(case["workers"])
        else:
            import dask
            from dask.distributed import Client, LocalCluster  # this import sets dask's defaults

            # By default workers return freed memory to the system immediately. The system then has
            # to clear new pages for the next block.
            environment = dask.config.get("distributed.nanny.pre-spawn-environ")
            environment |= {"MALLOC_TRIM_THRESHOLD_": 2**32, "MALLOC_MMAP_THRESHOLD_": 2**32}
            with (
                LocalCluster(
                    case["workers"], threads_per_worker=1, dashboard_address=None
                ) as cluster,
                Client(cluster),
                joblib.parallel_config("dask"),
            ):
                figures, model = fit(-1)
        serial = KQEqRegressor().fit(phi, D)
        change = np.linalg.norm(model.coef_ - serial.coef_) / np.linalg.norm(serial.coef_)
        return {"fit": figures | {"relative change of weights": change}}


KINDS = {"molecules": stages, "points": stages} | {
    kind.__name__: kind for kind in (precision, atoms, workers)
}


def commit():
    """Short name of the commit, ending with "-changed" if the package was edited since then."""
    run = ["git", "-C", str(ROOT)]
    name = subprocess.run([*run, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*run, "diff", "--quiet", "HEAD", "--", "skqeq"], check=False)
    return (name.stdout.strip() or "unknown") + ("-changed" if changed.returncode else "")


def picture(results, path):
    """Plot the time of all stages, and its ratio to the floor, against each of the sizes."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    axes_of = {"molecules": "molecules", "points": "sparse points per element", "atoms": "atoms"}
    fig, panels = plt.subplots(2, 3, figsize=(11, 6.5), layout="constrained", sharex="col")
    for (axis, label), column in zip(axes_of.items(), panels.T):
        cases = [r for r in results if r["axis"] == axis]
        sizes = [r[axis] for r in cases]
        for s, stage in enumerate(cases[0]["stages"]):
            seconds = np.array([r["stages"][stage]["seconds"] for r in cases])
            floors = np.array([r["stages"][stage]["floor"] for r in cases])
            style = "o--" if stage in ("fit", "predict") else "o-"
            color = "k" if stage == "fit" else f"C{s}"
            column[0].loglog(sizes, seconds, style, color=color, label=stage)
            column[1].loglog(sizes, seconds / floors, style, color=color)
        column[0].legend(frameon=False, fontsize="small")
        column[1].axhline(1, color="0.6", lw=0.8)
        column[1].set(xlabel=label, ylim=(0.9, None))
        column[1].set_xticks(sizes, map(str, sizes), minor=False)
        column[1].minorticks_off()
        column[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        column[1].yaxis.set_major_formatter("{x:g}")
    panels[0, 0].set(ylabel="time (s)")
    panels[1, 0].set(ylabel="time / floor")
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    fig.savefig(path, dpi=120)


def table(results):
    """Yield rows for the largest fits, the largest structure, single precision, and workers."""

    def row(case, stage, figures):
        floor = figures.get("floor")
        return {
            "case": case,
            "stage": stage,
            "seconds": f"{figures['seconds']:.2f}",
            "floor": "" if floor is None else f"{floor:.2f}",
            "ratio": "" if floor is None else f"{figures['seconds'] / floor:.2f}",
            "peak GiB": f"{figures['peak GiB']:.2f}",
        }

    last = {result["axis"]: result for result in results}
    for axis, name in (
        ("molecules", "{molecules} molecules, {points} points per element"),
        ("points", "{molecules} molecules, {points} points per element"),
        ("atoms", "{atoms} atoms, {points} points per element, one thread"),
        ("precision", "{molecules} molecules, {points} points per element"),
    ):
        for stage, figures in last[axis]["stages"].items():
            yield row(name.format(**last[axis]), stage, figures)
    for result in (r for r in results if r["axis"] == "workers"):
        name = f"{result['molecules']} molecules, {result['backend']}, workers: {result['workers']}"
        yield row(name, "fit", result["stages"]["fit"])


def main():
    parser = argparse.ArgumentParser("python benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="extxyz with dipoles, instead of the bundled molecules")
    parser.add_argument("--all", action="store_true", help="run the other benchmarks as well")
    parser.add_argument("--axis", choices=KINDS, help="run the cases of one axis; write no file")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        warnings.simplefilter("ignore")
        case = CASES[args.case]
        print(json.dumps(KINDS[case["axis"]](case, args.data)))
        return
    results = []
    for i, case in enumerate(CASES):
        if args.axis not in (None, case["axis"]):
            continue
        command = [sys.executable, str(Path(__file__).parent), "--case", str(i)]
        command += ["--data", args.data] if args.data else []
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        results.append(case | {"stages": json.loads(output.splitlines()[-1])})
        print(case, flush=True)
        for stage, figures in results[-1]["stages"].items():
            print("   ", stage, {k: float(f"{v:.3g}") for k, v in figures.items()}, flush=True)
    if args.axis:
        return
    machine = {
        "machine": platform.machine(),
        "cores": joblib.cpu_count(),
        "GFlop/s": gemm_rate() / 1e9,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scipy", "scikit-learn", "dscribe", "ase")},
    }
    (RESULTS / "suite").mkdir(exist_ok=True)
    with open(RESULTS / "suite" / f"{commit()}.json", "w") as file:
        json.dump({"commit": commit(), "machine": machine, "results": results}, file, indent=1)
        file.write("\n")
    rows = list(table(results))
    with open(RESULTS / "suite.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    picture(results, ROOT / "docs/_static/scaling.png")
    if args.all:
        for name in OTHERS:
            print(f"==== {name}", flush=True)
            subprocess.run([sys.executable, str(Path(__file__).parent / f"{name}.py")], check=True)


if __name__ == "__main__":
    main()
