"""
A water cluster in a strong field
=================================

This example runs dynamics of neutral clusters in a field of 0.2 V/Å along z, between walls 60 Å
apart. In reality the molecules align with the field and exchange almost no charge. With charge
equilibration, charge flows through the cluster, and the field pulls the charged molecules away.
With `skqeq.ChargeFlow` the charges of the molecules stay much smaller.
"""

# %%
# Long runs
# ---------
# ``benchmarks/flow_dynamics.py`` uses models that were trained on 1500 clusters. It starts from ten
# molecules elongated along the field, and stores the largest charge of a molecule over time.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.constraints import Hookean
from ase.md.langevin import Langevin
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
)
from skqeq.datasets import load_water, load_water_curves
from skqeq.plotting import model_colors
from skqeq.validation import find_fragments, fragment_charges

path = Path("../../benchmarks/results/flow_dynamics_series.csv")  # from the folder of this example
rows = list(csv.DictReader(path.open(encoding="utf-8")))
names = {"kQEq": "GAP+kQEq", "ChargeFlow": "GAP+ChargeFlow", "GFN2-xTB": "GFN2-xTB"}
colors = model_colors(names.values()) | {"GFN2-xTB": "k"}
fig, ax = plt.subplots(figsize=(8.0, 3.8), layout="constrained")
for name, label in names.items():
    seeds = sorted({row["seed"] for row in rows if row["model"] == name})
    for seed in seeds:
        mine = [row for row in rows if row["model"] == name and row["seed"] == seed]
        time, charge = (
            [float(row[key]) for row in mine] for key in ("time (ps)", "largest charge (e)")
        )
        ax.plot(
            time, charge, color=colors[label], linewidth=0.8, label=label if seed == "0" else None
        )
    worst = max(float(row["largest charge (e)"]) for row in rows if row["model"] == name)
    parts = max(int(row["parts"]) for row in rows if row["model"] == name)
    print(f"{label}: {len(seeds)} seeds, charges up to {worst:.2f} e, up to {parts} parts")
ax.set(xlabel="time (ps)", ylabel="largest charge of a molecule (e)", ylim=(0, None))
ax.legend(frameon=False)

# %%
# Short runs
# ----------
# Repeat the experiment for a tenth of a picosecond, with small models of neutral clusters and six
# molecules.
X, y = load_water()
few = [
    i for i, atoms in enumerate(X) if atoms.info["charge"] == 0 and atoms.info["n_molecules"] <= 4
][:80]


def part(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=60, **options))


curves, _ = load_water_curves()
start = next(a for a in curves if a.info["charge"] == 0 and a.info["expansion"] == 1.0)
responses = {
    "GAP+kQEq": QEq(hardness=2.7, radius_scale=0.7),
    "GAP+ChargeFlow": ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
}
for name, response in responses.items():
    model = make_pipeline(
        StructureBlocks([("chi", part(3.5)), ("gap", part((2.5, 4.5), block_weights=(0.8, 0.2)))]),
        GAPKQEqRegressor(amplitude_gap=10.0, amplitude_chi=3.0, response=response, tol=1e-2),
    )
    model.fit([X[i] for i in few], y[["energy", "forces", "dipole"]][few])
    atoms = start.copy()
    atoms.info = {"charge": 0, "external_field": [0.0, 0.0, 0.2]}
    walls = [(0, 0, sign, -30.0) for sign in (1, -1)]  # a spring acts beyond a wall
    atoms.set_constraint([Hookean(i, wall, 5.0) for i in range(len(atoms)) for wall in walls])
    atoms.calc = KQEqCalculator(model)
    rng = np.random.default_rng(0)
    # Draw momenta directly, because ASE 3.29 renames its function for this.
    momenta = np.sqrt(atoms.get_masses() * units.kB * 300)[:, None]
    atoms.set_momenta(momenta * rng.normal(size=(len(atoms), 3)))
    warm = {"temperature_K": 300, "friction": 0.005 / units.fs, "fixcm": False, "rng": rng}
    Langevin(atoms, 0.5 * units.fs, **warm).run(200)
    charges = fragment_charges(atoms.get_charges(), find_fragments(atoms))
    print(f"{name}: charges of the molecules after 0.1 ps: {charges.round(3)}")
