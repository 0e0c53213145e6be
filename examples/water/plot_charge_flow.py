"""
Charge flow between neighbours
==============================

In charge equilibration all atoms exchange charge at no cost. Distant fragments then exchange
fractions of an electron, clusters polarise like metals, and the dipoles of insulating chains grow
with their length. With `skqeq.ChargeFlow` charge flows only between neighbours, at a cost, from
learned reference charges. This example trains both responses on the same data.
"""

# %%
# Two models of the same clusters
# -------------------------------
# The training set contains small clusters of water in three charge states, with and without a
# field, with labels from GFN2-xTB. The models differ only in the response and in the width of the
# charges.
import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from sklearn.pipeline import make_pipeline

from skqeq import (
    ChargeFlow,
    CURSparsifier,
    GAPKQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    predict_charges,
)
from skqeq.datasets import load_water, load_water_curves
from skqeq.parameters import COULOMB
from skqeq.plotting import model_colors
from skqeq.validation import (
    dissociation,
    field_response,
    find_fragments,
    fragment_charges,
    polarizability_per_fragment,
)

X, y = load_water()
few = [i for i, a in enumerate(X) if a.info["n_molecules"] <= 5][::4][:110]
responses = {
    "GAP+kQEq": QEq(hardness=2.7, radius_scale=0.7),
    "GAP+ChargeFlow": ChargeFlow(softness=0.1, range=0.15, radius_scale=1.0),
}
colors = model_colors(responses)


def part(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=50, **options))


models = {}
for name, response in responses.items():
    models[name] = make_pipeline(
        StructureBlocks([("chi", part(3.5)), ("gap", part((2.5, 4.5), block_weights=(0.8, 0.2)))]),
        GAPKQEqRegressor(amplitude_gap=10.0, amplitude_chi=3.0, response=response, tol=1e-2),
    )
    models[name].fit([X[i] for i in few], y[["energy", "forces", "dipole"]][few])

# %%
# Fragments
# ---------
# Six molecules, one of them an ion, are moved apart. The points are the charges of the molecules
# from GFN2-xTB, and the lines are those of the models. (At large distances from OH⁻, the reference
# leaves a tenth of an electron on another molecule. This is an error of the reference, and the only
# charge at such a distance.)
curves, labels = load_water_curves()
fig, axes = plt.subplots(2, 2, figsize=(9.5, 6.5), layout="constrained", sharex=True, sharey="row")
for row, state in zip(axes, (-1, 1)):
    path = [i for i, a in enumerate(curves) if a.info["charge"] == state]
    path = [i for i in path if curves[i].info["curve"] == "expansion"]
    path = [i for i in path if curves[i].info["expansion"] > 0.95]
    fragments = find_fragments(curves[path[-1]])
    factors = [curves[i].info["expansion"] for i in path]
    truth = np.array([fragment_charges(labels["charges"][i], fragments) for i in path])
    for ax, (name, model) in zip(row, models.items()):
        compact = next(curves[i] for i in path if curves[i].info["expansion"] == 1.0)
        path_of_model = dissociation(model, compact, factors, fragments)
        points = ax.plot(factors, truth, "ok", markersize=2.5)
        lines = ax.plot(factors, path_of_model.charges, color=colors[name])
        sign = "−" if state < 0 else "+"
        ax.set(title=f"{name}, charge {sign}1 e", xlabel="expansion")
        ax.legend([points[0], lines[0]], ["GFN2-xTB", name], frameon=False, loc="center right")
        error = np.sqrt(np.mean((path_of_model.charges[-1] - truth[-1]) ** 2))
        print(f"{name}, charge {state:+d}: fully expanded, error of the charges {error:.3f} e")
    row[0].set_ylabel("charge of a molecule (e)")

# %%
# Distribution of the charge of an ion
# ------------------------------------
# The next structure contains the compact ion and 27 molecules of water at a large distance.
ion = next(a for a in curves if a.info["charge"] == 1 and a.info["expansion"] == 1.0)
box = ion.copy()
for place in np.ndindex(3, 3, 3):
    other = molecule("H2O")
    other.translate(ion.get_center_of_mass() + [30.0, 0.0, 0.0] + 7.0 * np.array(place))
    box += other
box.info = {"charge": 1}
for name, model in models.items():
    [q] = predict_charges(model, [box])
    print(f"{name}: the ion keeps {q[: len(ion)].sum():.2f} e of 1 e")

# %%
# Fields
# ------
# A neutral cluster is in a field along z. Left: the charge that the field moves between molecules.
# Middle: the energy. Right: the polarisability per molecule in clusters (solid) and in straight
# chains (dashed) of growing size. With charge equilibration it is that of a metal, and grows along
# the chain. With charge flow it is nearly constant. The grey band shows values of GFN2-xTB.
cluster = next(a for a in curves if a.info["charge"] == 0 and a.info["expansion"] == 1.0)
neutral = [i for i, a in enumerate(curves) if a.info["charge"] == 0]
neutral = [i for i in neutral if curves[i].info["curve"] == "field"]
# Fields along z, each strength once, in ascending order.
strengths = {
    round(curves[i].info["external_field"][2], 3): i
    for i in neutral
    if not np.any(curves[i].info["external_field"][:2])
}
along_z = [strengths[strength] for strength in sorted(strengths)]
fields = np.array([curves[i].info["external_field"] for i in along_z])
zero = int(np.abs(fields[:, 2]).argmin())
fragments = find_fragments(next(a for a in curves if a.info["charge"] == 0 and len(a) == 18))


def moved(charges):
    """Charge that the field moved between molecules, e."""
    return np.abs(charges - charges[zero]).sum(axis=1) / 2


fig, (left, middle, right) = plt.subplots(1, 3, figsize=(12.0, 3.8), layout="constrained")
truth = np.array([fragment_charges(labels["charges"][i], fragments) for i in along_z])
energies = labels["energy"][along_z]
left.plot(fields[:, 2], moved(truth), "ok", markersize=4, label="GFN2-xTB")
middle.plot(fields[:, 2], energies - energies[zero], "ok", markersize=4)
sizes = range(2, 11)
clusters = [
    next(a for a in X if a.info["n_molecules"] == n and a.info["charge"] == 0)
    for n in sizes
    if any(a.info["n_molecules"] == n for a in X)
]


def water_chain(n):
    """Molecules in a row, 3 Angstrom apart, each with a hydrogen atom towards the next one."""
    chain = molecule("H2O")
    chain.rotate(chain.positions[1] - chain.positions[0], "x")
    row = chain.copy()
    for k in range(1, n):
        other = chain.copy()
        other.translate([3.0 * k, 0.0, 0.0])
        row += other
    return row


chains = [water_chain(n) for n in sizes]
for name, model in models.items():
    in_field = field_response(model, curves[along_z[zero]], fields, fragments)
    left.plot(fields[:, 2], moved(in_field.charges), color=colors[name], label=name)
    middle.plot(fields[:, 2], in_field.energies - in_field.energies[zero], color=colors[name])
    alpha = COULOMB * polarizability_per_fragment(model, clusters)
    right.plot([len(a) // 3 for a in clusters], alpha, "-o", markersize=3, color=colors[name])
    in_chains = COULOMB * polarizability_per_fragment(model, chains)
    right.plot(sizes, in_chains, "--", color=colors[name])
    print(f"{name}: {alpha[0]:.2f} to {alpha[-1]:.2f} A^3 per molecule of a cluster,", end=" ")
    print(f"{in_chains[0]:.2f} to {in_chains[-1]:.2f} of a chain")
right.axhspan(0.43, 0.51, color="k", alpha=0.2)
left.set(xlabel="field (V/Å)", ylabel="charge moved between molecules (e)")
middle.set(xlabel="field (V/Å)", ylabel="energy (eV)")
right.set(xlabel="molecules", ylabel="polarisability (Å³ per molecule)", ylim=(0, None))
left.legend(frameon=False)

# %%
# Chains
# ------
# These models were trained on dipoles of QM9 molecules of up to nine heavy atoms
# (``benchmarks/flow_chains.py``). They predict the dipoles of chains of up to 126 atoms. The
# reference dipole of an amino aldehyde depends only on whether the number of methylene groups
# between its ends is even or odd. The dipole of a peptide grows with each residue. With charge
# equilibration, the first dipole grows with the length of the chain, and the second grows too
# little.
table = Path("../../benchmarks/results/flow_chains.csv")  # from the folder of this example
rows = list(csv.DictReader(table.open(encoding="utf-8")))
kinds = ("saturated", "conjugated", "beta strand", "alpha helix")
styles = {"GFN2-xTB": "o", "PBE0": "x", "kQEq": "-", "ChargeFlow": "-", "local charges": "--"}
colors = model_colors(["kQEq", "ChargeFlow", "local charges"]) | {"GFN2-xTB": "k", "PBE0": "k"}
fig, axes = plt.subplots(1, 4, figsize=(13.0, 3.5), layout="constrained")
for ax, kind in zip(axes, kinds):
    mine = [r for r in rows if r["chain"] == kind]
    units = [int(r["units"]) for r in mine]
    for name, style in styles.items():
        dipole = [float(r[name]) for r in mine]
        ax.plot(units, dipole, style, markersize=3.5, color=colors[name], label=name)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(title=kind, xlabel="units", ylim=(0, None))
axes[0].set_ylabel("dipole (D)")
axes[0].legend(frameon=False)
