"""
Charges of alkali halides and Madelung constants: Rappé and Goddard 1991
========================================================================

All models of skqeq are based on QEq [RG91]_. QEq has three parameters for every element: an
electronegativity, an idempotential and a radius. They are derived from atomic data alone. Table II
of the paper lists the charges of the twenty alkali halides, which are between 0.65 and 0.94 e. This
page computes them again. It also computes Madelung constants, which test the lattice sums of
crystals.
"""

# %%
# Published and reproduced results
# --------------------------------
# The benchmark takes a few seconds, so that this page runs all of it.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path("../../benchmarks").resolve()))  # from the folder of this example
import classical
import reproductions

reproductions.show("RG91")

# %%
# Twenty molecules
# ----------------
# In a diatomic molecule the charge is
# :math:`q = (\chi_X - \chi_M) / (J_M + J_X - 2 J_{MX})`. In the paper, the charge densities are
# Slater functions with the mean radius :math:`R / \lambda`, where :math:`\lambda = 0.4913`, and
# :math:`J_{MX}` is an integral over two of these functions. With these integrals, all computed
# charges agree with the published ones. This confirms the radii and electronegativities of `skqeq`.
#
# In `skqeq`, the charge densities are Gaussians. With a single value of ``radius_scale``, their
# mean radii equal those of the Slater functions for all elements. The idempotential is the
# self-energy of the Gaussian plus a hardness.
published = np.array([charge for _, charge in classical.HALIDES.values()])
slater = np.array([classical.slater_charge(name) for name in classical.HALIDES])
gaussian = np.array([classical.gaussian_charge(name) for name in classical.HALIDES])
print(f"radius_scale = {classical.RADIUS_SCALE:.3f}")
print(f"{'':6}{'published':>10}{'Slater':>10}{'Gaussian':>10}")
for name, *charges in zip(classical.HALIDES, published, slater, gaussian):
    print(f"{name:6}" + "".join(f"{charge:10.3f}" for charge in charges))

# %%
# With Gaussians, the charges differ by 0.012 e on average, and are too large for large ions. The
# shape of the charge density thus has little effect. In kernel charge equilibration, the
# electronegativities are learned, and the width of the charges is chosen in another way: the
# default of ``radius_scale`` is 0.2, from cross-validation.
#
# Compounds of hydrogen are left out. In the paper, the idempotential of hydrogen depends on its
# charge. This makes QEq nonlinear, which `skqeq` does not support. The published charges are quoted
# from the tests of another program (`cheq <https://docs.rs/crate/cheq>`_). The formula of the paper
# reproduces all twenty of them, which confirms that they are quoted correctly.
#
# Lattice sums
# ------------
# The energy of charges in a crystal is a sum over all periodic images. Gaussians that are too
# narrow to overlap interact like point charges. The energy of the crystal without the self-energies
# of the Gaussians therefore gives the Madelung constant. The parameter ``accuracy`` determines all
# cutoffs.
errors = {
    name: [
        abs(classical.madelung_constant(name, accuracy) - constant)
        for accuracy in classical.ACCURACIES
    ]
    for name, (_, _, constant) in classical.MADELUNG.items()
}

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
metals = [classical.halide(name)[0].symbols[0] for name in classical.HALIDES]
for k, metal in enumerate(dict.fromkeys(metals)):
    halides = np.array(metals) == metal
    left.plot(published[halides], slater[halides], "o", color=f"C{k}", label=metal)
    left.plot(published[halides], gaussian[halides], "x", color=f"C{k}", markersize=8)
left.axline((0.7, 0.7), slope=1, color="grey", linewidth=1, zorder=0)
left.plot([], [], "ok", label="Slater functions")
left.plot([], [], "xk", markersize=8, label="Gaussians")
left.set(xlabel="published charge of the metal (e)", ylabel="computed charge (e)", aspect="equal")
left.legend(frameon=False, ncols=2)
for (name, error), marker in zip(errors.items(), "osD^"):
    right.loglog(classical.ACCURACIES, error, marker=marker, markersize=5, label=name)
right.loglog(
    classical.ACCURACIES, classical.ACCURACIES, "--", color="grey", label="requested accuracy"
)
right.set(xlabel="accuracy", ylabel="error of the Madelung constant")
right.legend(frameon=False)
right.invert_xaxis()

# %%
# The command ``python benchmarks/classical.py`` computes the same numbers.
