"""
Ten thousand atoms
==================

Charge equilibration describes charge that moves freely, as in a metal. The charges of a spherical
metal particle in a field should therefore equal those of a conducting sphere, for which
electrostatics has an exact solution. The comparison needs a large particle. Its charges are
computed by conjugate gradients, which do not store the hardness matrix.
"""

# %%
# Particles
# ---------
# The particles are spheres cut from aluminium, in a weak field along x. All electronegativities are
# equal, so all charges are zero without the field. All parameters have their defaults.
import time

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk

from skqeq.parameters import COULOMB
from skqeq.plotting import charge_colors
from skqeq.response import equilibrate

field = 0.01  # V/Angstrom


def sphere(radius):
    """All atoms of the crystal within a radius around one atom."""
    n = int(2 * radius / 4.05) + 2
    atoms = bulk("Al", a=4.05, cubic=True) * (n, n, n)
    atoms.positions -= (n // 2) * 4.05
    atoms = atoms[np.linalg.norm(atoms.positions, axis=1) < radius]
    atoms.pbc = False
    atoms.info["external_field"] = [field, 0.0, 0.0]
    return atoms


# %%
# Charges
# -------
# A conducting sphere of radius R has the dipole ``field R^3 / k_e``. Solved for R, this formula
# gives the radius of the equivalent sphere. Above 6,000 atoms skqeq uses the iterative solver.
radii = np.array([8.0, 12.0, 18.0, 26.0, 34.0])
effective = []
for radius in radii:
    atoms = sphere(radius)
    begin = time.perf_counter()
    charges = equilibrate(atoms, np.zeros(len(atoms)))
    seconds = time.perf_counter() - begin
    dipole = charges @ atoms.positions[:, 0]
    effective.append((COULOMB * dipole / field) ** (1 / 3))
    print(f"{len(atoms):6d} atoms {seconds:6.2f} s   R = {effective[-1]:.2f} A, cut at {radius} A")

# %%
# The equivalent sphere is smaller than the particle. The difference is about the same fraction of
# an atomic layer for all sizes.

# %%
# Distribution of the charge
# --------------------------
# On the sphere the charge per area is ``3 field cos(theta) / (4 pi k_e)``. In the particle the
# charge is on the outermost atoms. The code sums it over bands of equal area and divides by the
# area.
distance = np.linalg.norm(atoms.positions, axis=1)
cosine = atoms.positions[:, 0] / np.maximum(distance, 1e-9)
edges = np.linspace(-1.0, 1.0, 16)
middle = (edges[1:] + edges[:-1]) / 2
outer = distance > radii[-1] / 2  # the angle of an atom close to the centre is undefined
band_charge, _ = np.histogram(cosine[outer], edges, weights=charges[outer])
density = band_charge / (2 * np.pi * effective[-1] ** 2 * np.diff(edges))
shell = distance > radii[-1] - 4.05
print(f"charge of one half: {charges[cosine > 0].sum():.2f} e, of which within one lattice")
print(f"constant of the surface: {charges[shell & (cosine > 0)].sum():.2f} e")

# %%
# Pictures
# --------
# Left: a slice through the centre. Right: the charge per area of the particle and of a conducting
# sphere.
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
layer = np.abs(atoms.positions[:, 2]) < 0.1
x, y, _ = atoms.positions[layer].T
limit = np.abs(charges).max()
disks = left.scatter(
    x, y, s=22, c=charges[layer], edgecolor="0.6", linewidth=0.3, **charge_colors(limit)
)
left.annotate("", (12, 40), (-12, 40), arrowprops={"arrowstyle": "->"})
left.text(-13, 40, "field", va="center", ha="right")
left.set(xlabel="x (Å)", ylabel="y (Å)", aspect="equal", ylim=(-38, 44))
fig.colorbar(disks, ax=left, label="charge (e)")
right.plot(middle, 1e3 * density, "o", label=f"{len(atoms)} atoms")
right.plot(edges, 1e3 * 3 * field * edges / (4 * np.pi * COULOMB), label="conducting sphere")
right.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
right.set(xlabel="cosine of the angle to the field", ylabel="charge per area (10⁻³ e/Å²)")
right.legend(frameon=False)
