"""
Infrared spectrum of water clusters
===================================

Matter absorbs light at frequencies at which its dipole oscillates. The infrared spectrum of
classical nuclei is the power spectrum of the time derivative of the dipole. This derivative follows
from the velocities and the Born effective charges, without finite differences.
"""

# %%
# A model
# -------
# The model is trained on energies, forces and dipoles of neutral clusters of up to four molecules
# without a field.
import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    predict_born_effective_charges,
)
from skqeq.calculator import ProgressBar
from skqeq.datasets import load_water
from skqeq.plotting import plot_spectrum
from skqeq.spectra import dipole_derivatives, infrared_spectrum

X, y = load_water()
few = [
    i
    for i, atoms in enumerate(X)
    if atoms.info["charge"] == 0
    and atoms.info["n_molecules"] <= 4
    and atoms.info["expansion"] == 1
    and "external_field" not in atoms.info
]


def part(r_cut, n_points, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=n_points, **options))


model = make_pipeline(
    StructureBlocks(
        [("chi", part(3.5, 60)), ("gap", part((2.5, 4.5), 120, block_weights=(0.8, 0.2)))]
    ),
    GAPKQEqRegressor(
        amplitude_gap=10.0,
        amplitude_chi=3.0,
        sigma_dipole=0.02,
        response=QEq(hardness=2.7, radius_scale=0.7),
        tol=1e-2,
    ),
)
model.fit([X[i] for i in few], y[["energy", "forces", "dipole"]][few])
print(
    f"{len(few)} clusters, R2 {model.score([X[i] for i in few], y[['energy', 'dipole']][few]):.4f}"
)

# %%
# Born charges
# ------------
# The Born charge of a hydrogen atom differs from its charge, because charge flows when a bond
# stretches. The Born charge tensors of all atoms sum to the total charge times the unit matrix.
[born] = predict_born_effective_charges(model, [X[few[0]]])
for symbol in "OH":
    mine = X[few[0]].symbols == symbol
    print(symbol, "mean diagonal", np.trace(born[mine], axis1=1, axis2=2).mean().round(3) / 3)
print("sum", np.abs(born.sum(axis=0)).max().round(10))

# %%
# Dynamics
# --------
# Heat one cluster to 200 K, then simulate it at constant energy and store the frames.
atoms = X[few[0]].copy()
atoms.calc = KQEqCalculator(model)
rng = np.random.default_rng(0)
Langevin(atoms, 0.5 * units.fs, temperature_K=200, friction=0.02 / units.fs, rng=rng).run(400)
dynamics, frames = VelocityVerlet(atoms, 0.5 * units.fs), []
dynamics.attach(lambda: frames.append(atoms.copy()), interval=4)
with ProgressBar(dynamics, 2400, disable=True):
    dynamics.run(2400)

# %%
# Spectrum
# --------
# Stretching vibrations of O-H bonds are above 3000 1/cm, and bending vibrations are close to 1500
# 1/cm. Lower frequencies belong to rotations of the molecules against each other. A single cluster
# and 1.2 ps give broad and noisy bands. Their positions are those of GFN2-xTB with classical
# nuclei.
derivatives = dipole_derivatives(model, frames)
wavenumbers, intensities = infrared_spectrum(derivatives, timestep=2.0, resolution=60.0)

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
time = 2e-3 * np.arange(len(frames))
left.plot(time, derivatives[:, 0], linewidth=0.8)
left.set(xlabel="time (ps)", ylabel="dμ/dt along x (e·Å/fs)")
ax = plot_spectrum(wavenumbers, intensities, ax=right)
