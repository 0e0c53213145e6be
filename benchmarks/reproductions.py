"""Write a table of published results and of the same results computed with skqeq.

    python benchmarks/reproductions.py

The published numbers are in this file. The numbers of skqeq are read from the tables of the other
benchmarks in ``benchmarks/results``; every row names the command that writes its table. The result,
``benchmarks/results/reproductions.csv``, is shown in the documentation.
"""

import csv
import textwrap
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
TABLE = RESULTS / "reproductions.csv"
GALLERY = "sphx_glr_auto_examples_reproductions_plot_reproduce_{}.py"
STATES = {"0": "neutral", "1": "H3O+", "-1": "OH-"}


def table(name):
    """Rows of a table of results."""
    with (RESULTS / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(name, **cells):
    """The only row of a table that has these values in these columns."""
    [match] = [r for r in table(name) if all(r[key] == value for key, value in cells.items())]
    return match


def halides(column):
    """Mean and largest deviation from the published charges of the alkali halides, e."""
    deviations = [abs(float(r[column]) - float(r["published"])) for r in table("halides")]
    return f"mean {np.mean(deviations):.4f}, largest {np.max(deviations):.4f}"


def published_range():
    """Smallest and largest published charge of the alkali halides, e."""
    charges = [float(r["published"]) for r in table("halides")]
    return f"{min(charges)} to {max(charges)} (table II)"


def madelung(accuracy):
    """Largest error of the Madelung constants that are computed with the given accuracy."""
    return f"{max(float(r['error']) for r in table('madelung') if r['accuracy'] == accuracy):.0e}"


def learning_curve():
    """Errors for the two largest training sets, and their numbers of molecules."""
    return ", ".join(f"{r['mae']} ({r['molecules']})" for r in table("learning_curve")[-2:])


def chains(model):
    """Errors of the dipoles for each kind of chain, D."""
    errors = table("flow_chains_errors")
    return ", ".join(f"{float(r[f'{model} MAE']):.1f} ({r['chain']})" for r in errors[:-1])


def water(model, *columns):
    """Errors of a model that was trained on 1500 water clusters."""
    errors = row("water", model=model, structures="1500")
    return ", ".join(errors[column] for column in columns)


def field_errors(model):
    """RMS error of the energy change in an external field, for each charge state; meV."""
    rows = table("water_curves")
    parts = []
    for charge, state in STATES.items():
        of_state = [r for r in rows if r["charge"] == charge]
        [zero] = [r for r in of_state if r["curve"] == "expansion" and r["expansion"] == "1.0"]
        error = [
            float(r[f"{model} energy"])
            - float(zero[f"{model} energy"])
            - float(r["GFN2-xTB energy"])
            + float(zero["GFN2-xTB energy"])
            for r in of_state
            if r["curve"] == "field"
        ]
        parts.append(f"{1e3 * np.sqrt(np.mean(np.square(error))):.1f} ({state})")
    return ", ".join(parts)


def multitask(*names):
    """Errors of models that were trained on different targets, D."""
    return " → ".join(row("multitask", **{"trained on": name})["mae"] for name in names)


def rows():
    """Yield the rows of the table: paper, claim, published, skqeq, data and split, command."""
    qm9 = "QM9, PBE0; ten folds by group"
    curve = "QM9 without fluorine, PBE0; five of ten folds by group"
    clusters = "water clusters, GFN2-xTB; test: other trajectories"
    water_command = "gap_accuracy.py water"
    yield (
        "RG91",
        "charges of 20 alkali halides; deviations from the published charges (e)",
        published_range(),
        f"Slater functions: {halides('Slater')}; Gaussians: {halides('Gaussian')}",
        "published bond lengths and parameters; nothing fitted",
        "classical.py",
    )
    yield (
        "RG91",
        "Madelung constants of 4 crystals",
        "to 13 digits",
        f"errors {madelung('1e-08')} with accuracy=1e-8, {madelung('1e-12')} with accuracy=1e-12",
        "computed; constants from other literature",
        "classical.py",
    )
    yield (
        "S22",
        "MAE of dipole norms of QM9 molecules (D)",
        "about 0.15 with a few thousand molecules",
        learning_curve() + " molecules",
        curve,
        "qm9_accuracy.py DATA learning-curve",
    )
    yield (
        "S22",
        "MAE of dipole norms of all QM9 molecules at hand (D)",
        "not quoted here",
        f"kQEq {row('cv', model='kQEq')['mae']}, "
        f"classical QEq {row('cv', model='classical QEq')['mae']}",
        f"1262 molecules of {qm9}",
        "qm9_accuracy.py DATA cv",
    )
    yield (
        "S22",
        "MAE of dipoles of chains longer than any training molecule (D)",
        "shown in figure 5, not quoted here",
        chains("kQEq"),
        "trained on 1262 QM9 molecules; reference GFN2-xTB",
        "flow_chains.py QM9 CHAINS",
    )
    yield (
        "V23",
        "MAE of dipole norms of QM9 molecules (D)",
        "0.12 with 3,000, 0.10 with 10,000 molecules",
        learning_curve() + " molecules",
        curve,
        "qm9_accuracy.py DATA learning-curve",
    )
    zno = row("zno_clusters", fold="all")
    yield (
        "V23",
        "energies of ZnO nanoparticles (meV/atom)",
        "0.8, after active learning",
        f"RMSE {zno['energy RMSE (meV/atom)']}, MAE {zno['energy MAE']}",
        "163 particles, PBE; five folds by group",
        "zno_accuracy.py DATA clusters",
    )
    yield (
        "V25",
        "GAP+kQEq, water clusters in three charge states: energy (meV/atom), forces (meV/Å)",
        "2, 49",
        f"GAP+kQEq {water('GAP+kQEq', 'all energy', 'all forces')}; "
        f"GAP+ChargeFlow {water('GAP+ChargeFlow', 'all energy', 'all forces')}",
        f"1500 {clusters}",
        water_command,
    )
    yield (
        "V25",
        "spurious charge transfer: error of the charges of distant fragments (1e-3 e)",
        "shown, not quoted here",
        f"GAP+kQEq {water('GAP+kQEq', 'charges of far fragments (1e-3 e)')}; "
        f"GAP+ChargeFlow {water('GAP+ChargeFlow', 'charges of far fragments (1e-3 e)')}",
        clusters,
        water_command,
    )
    yield (
        "V25",
        "overpolarisation: error of the energy in fields up to 0.2 V/Å (meV)",
        "shown, not quoted here",
        f"GAP+kQEq {field_errors('GAP+kQEq')}; GAP+ChargeFlow {field_errors('GAP+ChargeFlow')}",
        "one unseen cluster of each charge state, GFN2-xTB",
        water_command,
    )
    yield (
        "C25",
        "MAE of dipole norms (D), trained on norms → on norms and Mulliken charges",
        "0.0130 → 0.0098 (HIP-NN, about 134,000 molecules)",
        multitask("dipole_magnitude", "dipole_magnitude + charges"),
        "1262 molecules of QM9, B3LYP; ten folds by group",
        "qm9_accuracy.py DATA multitask",
    )


def show(paper):
    """Print the rows of one paper."""
    for name, claim, published, ours, data, command in rows():
        if name == paper:
            cells = {"claim": claim, "published": published, "skqeq": ours, "data": data}
            for label, text in cells.items():
                print(
                    textwrap.fill(
                        text, 96, initial_indent=f"{label:10}", subsequent_indent=" " * 10
                    )
                )
            print(f"{'command':10}python benchmarks/{command}\n")


def main():
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["paper", "claim", "published", "skqeq", "data and split", "command"])
        for paper, *middle, command in rows():
            page = f"[{paper}]_, :ref:`page <{GALLERY.format(paper.lower())}>`"
            writer.writerow([page, *middle, f"``{command}``"])


if __name__ == "__main__":
    main()
