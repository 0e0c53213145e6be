"""
Find wrong units and signs before a fit
=======================================

Labels come from many programs: dipoles in Debye, gradients instead of forces, dipoles of ions about
the coordinate origin. A model learns such labels without an error, and is wrong afterwards.
`skqeq.check_labels` compares labels with each other and with the structures.
"""

import matplotlib.pyplot as plt
import numpy as np

from skqeq import check_labels, make_targets
from skqeq.datasets import load_ions
from skqeq.plotting import charge_colors

X, y = load_ions()
X = [atoms.copy() for atoms in X]
for atoms in X:
    atoms.positions += [4.0, 0.0, -3.0]  # the origin is outside of the molecules
charges = list(y["charges"])
print(check_labels(X, y))

# %%
# Nothing is wrong with these ions. Now we make two common mistakes.

total = np.array([atoms.info["charge"] for atoms in X])
centres = np.array([atoms.get_center_of_mass() for atoms in X])
labels = {
    "in e·Å, about the centre of mass": y["dipole"],
    "in Debye": 4.803 * y["dipole"],
    "about the coordinate origin": y["dipole"] + total[:, None] * centres,
}
for name, dipole in labels.items():
    report = check_labels(X, make_targets(dipole=dipole, charges=charges))
    print(f"\ndipoles {name}:")
    for finding in report.warnings:
        print(f"  {finding.name}: {finding.advice}")

# %%
# The picture shows what the checks look at: the dipole labels against the dipoles of the charge
# labels about the centre of mass. Charges of a population analysis have roughly the dipole of the
# molecule. Labels in Debye are on a steeper line. Labels about the origin of cations and of anions
# are shifted in opposite directions.

of_charges = np.array(
    [q @ (atoms.positions - centre) for q, atoms, centre in zip(charges, X, centres, strict=True)]
)
red, blue = charge_colors(1.0)["cmap"]([0.0, 1.0])
figure, axes = plt.subplots(
    1, 3, figsize=(9.6, 3.5), sharex=True, sharey=True, layout="constrained"
)
for ax, (name, dipole) in zip(axes, labels.items(), strict=True):
    for sign, color in ((1, blue), (-1, red)):
        ions = np.sign(total) == sign
        text = "cations" if sign > 0 else "anions"
        ax.scatter(of_charges[ions], dipole[ions], s=10, linewidths=0, color=color, label=text)
    ax.plot([-3, 3], [-3, 3], color="0.4", linewidth=1, zorder=0)
    ax.set(title=name, xlabel="dipole of the charges (e·Å)", xlim=(-3, 3), ylim=(-11, 11))
    ax.set_xticks([-2, 0, 2])
axes[0].set_ylabel("dipole label (e·Å)")
axes[0].legend(frameon=False)
plt.show()
