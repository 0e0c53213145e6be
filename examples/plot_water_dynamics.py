"""
A water cluster in a strong field
=================================

Dynamics of a neutral cluster of six molecules in a field of 0.2 V/Å along z, between walls 60 Å
apart. In nature molecules turn into the field and hardly any charge leaves them. Charge
equilibration lets charge flow through the cluster; if too much of it does, pieces are pulled away.
"""

# %%
# The long run
# ------------
# ``benchmarks/gap_accuracy.py water`` runs ten picoseconds with the model of 1500 clusters, and
# keeps where the cluster ends and the largest charge of a molecule. Its charges are hard to move
# (``hardness=30``): the cluster turns and stretches, and stays in one piece of six molecules, whose
# charges come and go.
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import units
from ase.constraints import Hookean
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqCalculator,
    SOAPFeaturizer,
    StructureBlocks,
)
from skqeq.datasets import load_water, load_water_curves
from skqeq.validation import find_fragments, fragment_charges

path = Path("../benchmarks/results/water_field_dynamics.csv")  # from the folder of the examples
time, fragments, largest, low, high = np.loadtxt(path, delimiter=",", skiprows=1).T

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
left.fill_between(time, low, high, color="tab:blue", alpha=0.3, linewidth=0)
left.set(xlabel="time (ps)", ylabel="z of the atoms, lowest to highest (Å)")
right.plot(time, largest, linewidth=0.8)
right.set(xlabel="time (ps)", ylabel="largest charge of a molecule (e)", ylim=(0, None))
print(
    f"{fragments.min():.0f} to {fragments.max():.0f} fragments, charges up to {largest.max():.2f} e"
)

# %%
# A short run
# -----------
# The same with a small model of neutral clusters whose charges move easily (``hardness=2.7``), for
# a tenth of a picosecond.
X, y = load_water()
few = [
    i for i, atoms in enumerate(X) if atoms.info["charge"] == 0 and atoms.info["n_molecules"] <= 4
][:80]


def half(r_cut, **options):
    soap = SOAPFeaturizer(r_cut=r_cut, cutoff_width=1.5, n_max=4, l_max=3)
    return make_pipeline(soap, CURSparsifier(n_points=60, **options))


model = make_pipeline(
    StructureBlocks([("chi", half(3.5)), ("gap", half((2.5, 4.5), block_weights=(0.8, 0.2)))]),
    GAPKQEqRegressor(amplitude_gap=10.0, amplitude_chi=3.0, radius_scale=0.7, tol=1e-2),
)
model.fit([X[i] for i in few], y[["energy", "forces", "dipole"]][few])

curves, _ = load_water_curves()
atoms = next(a for a in curves if a.info["charge"] == 0 and a.info["expansion"] == 1.0).copy()
atoms.info = {"charge": 0, "external_field": [0.0, 0.0, 0.2]}
walls = [(0, 0, sign, -30.0) for sign in (1, -1)]  # beyond them a spring pulls back
atoms.set_constraint([Hookean(i, wall, 5.0) for i in range(len(atoms)) for wall in walls])
atoms.calc = KQEqCalculator(model)
rng = np.random.default_rng(0)
MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=rng)
warm = {"temperature_K": 300, "friction": 0.005 / units.fs, "fixcm": False, "rng": rng}
Langevin(atoms, 0.5 * units.fs, **warm).run(200)
charges = fragment_charges(atoms.get_charges(), find_fragments(atoms))
print("charges of the fragments after 0.1 ps:", charges.round(2))
