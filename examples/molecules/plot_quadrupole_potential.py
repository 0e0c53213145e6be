"""
Electrostatic potential and quadrupole
======================================

This example computes the electrostatic potential of the predicted charges around a molecule, and
the multipole moments that describe this potential at large distances.
"""

# %%
# Model
# -----
# The labels are dipoles and charges. The figure will show the planar held-out molecule of ten or
# more atoms with the largest predicted dipole.
import matplotlib.pyplot as plt
import numpy as np
from ase.data.vdw import vdw_radii
from ase.neighborlist import natural_cutoffs, neighbor_list
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, predict_target
from skqeq.datasets import load_molecules
from skqeq.parameters import COULOMB
from skqeq.plotting import charge_colors

X, y, groups = load_molecules(return_groups=True)
split = GroupShuffleSplit(n_splits=1, test_size=0.25, random_state=0)
train, test = next(split.split(X, groups=groups))
model = make_pipeline(
    SOAPFeaturizer(n_max=6, l_max=4),
    CURSparsifier(n_points=80),
    KQEqRegressor(sigma_dipole=0.005, sigma_charges=0.02),
)
model.fit([X[i] for i in train], y[train])


def axes_of(atoms):
    """Centre of mass, and the principal axes from the largest to the smallest extent."""
    center = atoms.get_center_of_mass()
    return center, np.linalg.svd(atoms.positions - center)[2]


def thickness(atoms):
    center, axes = axes_of(atoms)
    return np.ptp((atoms.positions - center) @ axes[2])


flat = [X[i] for i in test if len(X[i]) >= 10 and thickness(X[i]) < 0.1]
dipoles = np.linalg.norm(predict_target(model, flat, "dipole"), axis=1)
atoms = flat[np.argmax(dipoles)].copy()
center, axes = axes_of(atoms)
print(f"{atoms.get_chemical_formula()}, {thickness(atoms):.2f} Angstrom thick")

# %%
# Potential
# ---------
# The target ``"potential"`` is the potential in V at the points in ``info["potential_points"]``.
# Close to the nuclei it is dominated by the Gaussian shape of the charges, which has no physical
# meaning. The map therefore omits points inside the van der Waals spheres.


def potential_at(points):
    """Potential of the predicted charges at points of shape (..., 3)."""
    atoms.info["potential_points"] = points.reshape(-1, 3)
    return predict_target(model, [atoms], "potential")[0].reshape(points.shape[:-1])


u, v = np.meshgrid(np.linspace(-7.5, 7.5, 150), np.linspace(-6.0, 6.0, 120))
plane = center + u[..., None] * axes[0] + v[..., None] * axes[1]
distances = np.linalg.norm(plane[..., None, :] - atoms.positions, axis=-1)
inside = (distances < vdw_radii[atoms.numbers]).any(axis=-1)
V = np.ma.masked_where(inside, potential_at(plane))

# %%
# Multipoles
# ----------
# At a large distance R along a unit vector n, the potential of a neutral molecule is
# ``k (mu . n / R^2 + n . Theta n / R^3 + ...)``. The traceless quadrupole ``Theta`` has the
# components xx, yy, zz, yz, xz, xy about the centre of mass. The code subtracts one term after the
# other from the potential, and computes the root mean square of the remainder over a sphere. With
# each term the remainder decays by one more power of the radius.
[mu] = predict_target(model, [atoms], "dipole")
[Theta] = predict_target(model, [atoms], "quadrupole")
print("dipole (e*A):", mu.round(3))
print("quadrupole (e*A^2):", Theta.round(3))
xx, yy, zz, yz, xz, xy = Theta
Theta = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])

n = np.random.default_rng(0).normal(size=(400, 3))
n /= np.linalg.norm(n, axis=1, keepdims=True)
radii = np.geomspace(5.0, 50.0, 15)
remainders = {"charges": [], "minus dipole": [], "minus dipole and quadrupole": []}
for R in radii:
    W = potential_at(center + R * n)
    for name, term in zip(
        remainders, (0.0, n @ mu / R**2, np.einsum("ia,ab,ib->i", n, Theta, n) / R**3)
    ):
        W = W - COULOMB * term
        remainders[name].append(np.sqrt(np.mean(W**2)))
for name, values in remainders.items():
    power = np.log(values[-1] / values[-4]) / np.log(radii[-1] / radii[-4])
    print(f"{name}: decays as R^{power:.2f}")

# %%
# Pictures
# --------
# Left: the potential in the plane of the molecule. Right: the decay of the potential and of the
# remainders.
fig, (left, right) = plt.subplots(
    1, 2, figsize=(11.5, 4.6), layout="constrained", width_ratios=[1.4, 1]
)
limit = np.quantile(np.abs(V.compressed()), 0.98)
levels = np.linspace(-limit, limit, 25)
filled = left.contourf(u, v, V, levels, extend="both", **charge_colors(limit))
left.contour(u, v, V, levels[::2], colors="black", linewidths=0.4, linestyles="solid")
x, z = ((atoms.positions - center) @ axes[:2].T).T
i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
left.plot([x[i], x[j]], [z[i], z[j]], color="grey", linewidth=2, zorder=1)
left.scatter(x, z, s=110, color="white", edgecolor="black", zorder=2)
for symbol, a, b in zip(atoms.symbols, x, z):
    left.text(a, b, symbol, ha="center", va="center_baseline", fontsize=8, zorder=3)
fig.colorbar(filled, ax=left, label="potential (V)", format="%.1f", ticks=levels[::6])
left.set(xlabel="Å", ylabel="Å", aspect="equal", title=atoms.get_chemical_formula())
for name, values in remainders.items():
    right.loglog(radii, values, "o-", markersize=4, label=name)
right.set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"])
right.set_xticks([], minor=True)
right.set(xlabel="distance from the centre of mass (Å)", ylabel="RMS of the potential (V)")
right.legend(frameon=False)
