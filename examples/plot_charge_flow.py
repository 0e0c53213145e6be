"""
Charge that stays where it belongs
==================================

With charge equilibration any atom exchanges charge with any other at no cost: fragments far apart
keep fractions of an electron of each other, clusters polarise like metals, and a dipole grows along
a chain that insulates. With `skqeq.ChargeFlow` charge flows between neighbours only, at a cost,
from reference charges that are learned. Both are trained here on the same data.
"""

# %%
# Two models of the same clusters
# -------------------------------
# Small clusters of water in three charge states, with and without a field, labelled with GFN2-xTB.
# Everything is the same but the response of the charges and their width.
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
    "QEq": {"response": QEq(), "radius_scale": 0.7},
    "ChargeFlow": {"response": ChargeFlow(0.1, 0.15), "radius_scale": 1.0, "hardness": 0.0},
}
colors = {"QEq": "tab:orange", "ChargeFlow": "tab:blue"}


def half(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=50, **options))


models = {}
for name, options in responses.items():
    models[name] = make_pipeline(
        StructureBlocks([("chi", half(3.5)), ("gap", half((2.5, 4.5), block_weights=(0.8, 0.2)))]),
        GAPKQEqRegressor(amplitude_gap=10.0, amplitude_chi=3.0, tol=1e-2, **options),
    )
    models[name].fit([X[i] for i in few], y[["energy", "forces", "dipole"]][few])

# %%
# Fragments
# ---------
# Six molecules, one of them an ion, are moved apart. Points are the charges of the molecules in
# GFN2-xTB, lines those of the models. (Far from OH⁻ the reference leaves a tenth of an electron on
# another molecule. That is an error of its own, and the only charge that goes so far.)
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
        found = dissociation(model, compact, factors, fragments)
        ax.plot(factors, truth, "ok", markersize=2.5)
        ax.plot(factors, found.charges, color=colors[name])
        ax.set(title=f"{name}, charge {state:+d}", xlabel="expansion")
        error = np.sqrt(np.mean((found.charges[-1] - truth[-1]) ** 2))
        print(f"{name}, charge {state:+d}: fully expanded, error of the charges {error:.3f} e")
    row[0].set_ylabel("charge of a molecule (e)")

# %%
# Where the charge of an ion goes
# -------------------------------
# The same compact ion, and then with 27 molecules of water far away from it.
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
# A neutral cluster in a field along z. Left: how much charge it moves between its molecules.
# Middle: the energy. Right: the polarisability of a molecule in clusters (solid) and in straight
# chains (dashed) of growing size, which is that of a metal in one case and settles in the other.
cluster = next(a for a in curves if a.info["charge"] == 0 and a.info["expansion"] == 1.0)
neutral = [i for i, a in enumerate(curves) if a.info["charge"] == 0]
neutral = [i for i in neutral if curves[i].info["curve"] == "field"]
# Each strength once, in order; the field is along z if it has no other component.
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
    """Charge that changed its molecule, e."""
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
    """Molecules in a row, 3 Angstrom apart, each with a hydrogen that points to the next."""
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
    found = field_response(model, curves[along_z[zero]], fields, fragments)
    left.plot(fields[:, 2], moved(found.charges), color=colors[name], label=name)
    middle.plot(fields[:, 2], found.energies - found.energies[zero], color=colors[name])
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
# Trained on dipoles of QM9 molecules of up to nine heavy atoms (``benchmarks/flow_chains.py``), the
# models predict chains of up to 126 atoms. The dipole of an amino aldehyde depends only on whether
# the number of methylene groups between its ends is even; that of a peptide grows with every
# residue. Charge equilibration has the first grow and the second grow too little.
table = Path("../benchmarks/results/flow_chains.csv")  # from the folder of the examples
rows = list(csv.DictReader(table.open(encoding="utf-8")))
kinds = ("saturated", "conjugated", "beta strand", "alpha helix")
fig, axes = plt.subplots(1, 4, figsize=(13.0, 3.5), layout="constrained")
for ax, kind in zip(axes, kinds):
    mine = [r for r in rows if r["chain"] == kind]
    units = [int(r["units"]) for r in mine]
    for name, (style, color) in {
        "GFN2-xTB": ("o", "k"),
        "PBE0": ("s", "tab:red"),
        "kQEq": ("-", "tab:orange"),
        "ChargeFlow": ("-", "tab:blue"),
        "local charges": ("--", "tab:green"),
    }.items():
        dipole = [float(r[name]) for r in mine]
        ax.plot(units, dipole, style, markersize=3, color=color, label=name)
    ax.set(title=kind, xlabel="units", ylim=(0, None))
axes[0].set_ylabel("dipole (D)")
axes[0].legend(frameon=False)
