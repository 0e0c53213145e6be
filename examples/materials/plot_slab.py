"""
A surface slab
==============

A training set can contain molecules, crystals and slabs. In this example a model learns the charges
of magnesium oxide from clusters, crystals and thin slabs, and predicts the charges of thicker
slabs.
"""

# %%
# Reference charges
# -----------------
# The labels are synthetic. Each bond of length r adds ``exp((1.693 - r) / 0.37)`` elementary
# charges to magnesium and subtracts them from oxygen. This is the bond valence of Brese and
# O'Keeffe, Acta Cryst. B47, 192 (1991). These charges sum to zero, and an atom with fewer
# neighbours has a smaller charge. They come neither from quantum chemistry nor from charge
# equilibration.
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, predict_charges, predict_target
from skqeq.metrics import target_mae
from skqeq.parameters import COULOMB
from skqeq.plotting import charge_colors

rng = np.random.default_rng(0)
crystal = bulk("MgO", "rocksalt", a=4.21, cubic=True)
spacing = 4.21 / 2


def reference(atoms):
    """Bond-valence charges, e."""
    i, j, r = neighbor_list("ijd", atoms, 6.0)
    valence = np.where(atoms.numbers[i] != atoms.numbers[j], np.exp((1.693 - r) / 0.37), 0.0)
    return np.where(atoms.symbols == "Mg", 1, -1) * np.bincount(i, valence, len(atoms))


# %%
# Structures
# ----------
# A slab is periodic along two cell vectors, ``pbc = (True, True, False)``. The third cell vector
# has no effect and is zero here. Some slabs carry an upright MgO molecule, with Mg bound to a
# surface oxygen.


def slab(n_layers, size=1, molecule=False):
    atoms = crystal * (size, size, n_layers // 2)
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0.0
    if molecule:
        top = [a.position for a in atoms if a.symbol == "O" and a.z > (n_layers - 1.5) * spacing]
        atoms += Atoms("MgO", [top[0] + [0, 0, 2.0], top[0] + [0, 0, 3.8]])
    return atoms


def cluster(*shape):
    """A block cut from the crystal, with randomly shortened bonds."""
    atoms = crystal * 2
    atoms = atoms[(atoms.positions < np.array(shape) * spacing - 0.1).all(axis=1)]
    return Atoms(atoms.symbols, rng.uniform(0.9, 1.0) * atoms.positions)


def rattled(atoms):
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return atoms


shapes = [(2, 1, 1), (2, 2, 1), (4, 1, 1), (3, 2, 1), (2, 2, 2), (4, 2, 1), (3, 2, 2), (4, 2, 2)]
X = [rattled(cluster(*shape)) for shape in shapes for _ in range(4)]
X += [rattled(crystal.copy()) for _ in range(6)]
X += [rattled(slab(n, molecule=m)) for n in (2, 4) for m in (False, True) for _ in range(5)]
y = [{"charges": reference(atoms)} for atoms in X]
print(f"{len(X)} structures of 2 to {max(map(len, X))} atoms")

# %%
# A thicker slab
# --------------
# The model was trained on slabs of two and four layers, and predicts slabs of eight. Inside these
# slabs the charges approach those of the crystal.
model = make_pipeline(
    SOAPFeaturizer(r_cut=3.5, n_max=6, l_max=4),
    CURSparsifier(n_points=80),
    KQEqRegressor(sigma_charges=0.005),
).fit(X, y)
X_test = [rattled(slab(8, size=2, molecule=m)) for m in (False, True) for _ in range(3)]
charges = predict_charges(model, X_test)
print(f"MAE of charges {target_mae([reference(atoms) for atoms in X_test], charges):.3f} e")
print(f"largest total charge of a slab {max(abs(q.sum()) for q in charges):.0e} e")

atoms = slab(8, size=2, molecule=True)
q, q_crystal = predict_charges(model, [atoms, crystal])
z, sign = atoms.positions[:, 2], np.where(atoms.symbols == "Mg", 1, -1)
inside = q[np.abs(z - 3.5 * spacing) < spacing].max()
print(f"charge of Mg: crystal {q_crystal.max():.3f} e, inside the slab {inside:.3f} e")

# %%
# Why a slab is not a crystal with a gap
# --------------------------------------
# The molecules give the slab a dipole. In a box with ``pbc=True``, each slab is in the field of its
# periodic images. This field decays only as the inverse of the vacuum. An isolated slab has no
# images along its normal.
vacuum = np.array([10.0, 15.0, 20.0, 30.0, 50.0, 100.0])
cells = [atoms.cell + np.diag([0.0, 0.0, np.ptp(z) + gap]) for gap in vacuum]
boxes = [Atoms(atoms, cell=cell, pbc=True) for cell in cells]
in_box = [q_box @ z for q_box in predict_charges(model, boxes)]
[dipole] = predict_target(model, [atoms], "dipole")
print("slab:", dipole.round(3), "e*A")
print("boxes:", np.round(in_box, 3), "e*A")

# %%
# A field may point along the normal. The charges screen it like a metal plate of about the same
# thickness, because charge equilibration describes every material as a conductor, even an oxide. It
# also screens the dipoles of displaced ions inside the slab. The dipole of a thick insulator is
# therefore unreliable, even if its charges are accurate.
clean = [slab(8), slab(8)]
clean[1].info["external_field"] = [0.0, 0.0, 0.1]
without, within = predict_target(model, clean, "dipole")[:, 2]
plate = 4 * np.pi * COULOMB * (within - without) / 0.1 / clean[0].cell.area(2)
print(f"equivalent metal plate {plate:.1f} A, first to last layer {7 * spacing:.1f} A")

# %%
# Pictures
# --------
# Left: a plane of atoms through the molecules, coloured by the difference of the charge from that
# in the crystal. Middle: all charges against the height. Right: the dipole in a periodic box
# against the vacuum, on a reciprocal axis. As the vacuum grows, this dipole approaches that of the
# slab.
fig, (left, middle, right) = plt.subplots(
    1, 3, figsize=(13, 4.8), layout="constrained", width_ratios=[1.35, 1, 1]
)
wide, change = atoms * (2, 1, 1), np.tile(q - sign * q_crystal.max(), 2)
plane = np.flatnonzero(np.abs(wide.positions[:, 1] - wide.positions[-1, 1]) < 0.1)
x, _, height = wide.positions[plane].T
sizes = np.where(wide.symbols[plane] == "O", 330, 220)
style = charge_colors(0.5) | {"edgecolor": "#404040"}
disks = left.scatter(x, height, s=sizes, c=change[plane], **style)
for i, a, b in zip(plane, x, height):
    color = "white" if abs(change[i]) > 0.35 else "black"
    left.text(a, b, wide.symbols[i], ha="center", va="center_baseline", fontsize=8, color=color)
fig.colorbar(disks, ax=left, label="charge − charge in the crystal (e)", extend="both")
left.set(xlabel="x (Å)", ylabel="height (Å)", aspect="equal")
middle.plot(np.abs(reference(atoms)), z, "o", c="grey", mfc="none", ms=9, label="reference")
red, blue = charge_colors(1.0)["cmap"]([0.0, 1.0])
for symbol, marker, color in (("Mg", "+", blue), ("O", "x", red)):
    some = atoms.symbols == symbol
    middle.plot(np.abs(q[some]), z[some], marker, color=color, label=f"{symbol}, predicted")
middle.axvline(q_crystal.max(), color="grey", linewidth=1, zorder=0, label="crystal, predicted")
middle.set(xlabel="magnitude of the charge (e)", ylabel="height (Å)")
middle.legend(frameon=False, loc="center left")
right.plot(1 / vacuum, in_box, "o-", markersize=4, label="pbc = T T T")
right.plot(0, dipole[2], "s", label="pbc = T T F")
right.set_xticks([0, *1 / vacuum], ["∞", *(f"{gap:g}" for gap in vacuum)])
right.set(xlabel="vacuum (Å)", ylabel="dipole along z (e·Å)")
right.legend(frameon=False)
