"""
A particle of zinc oxide
========================

A model that was trained on clusters of 20 to 60 atoms simulates a particle of 200 atoms. This
example tests whether its total energy is conserved for ten picoseconds.
"""

# %%
# The benchmark
# -------------
# The code is in ``benchmarks/zno_dynamics.py``. The long run takes minutes, so its results are
# stored in a table. The reference is a potential of rigid ions with charges of ±1 e and an
# exponential repulsion between oxygen and both elements. The training structures are snapshots of
# clusters at 600 K.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from ase import units

sys.path.insert(0, str(Path("../../benchmarks").resolve()))  # from the folder of this example
import zno_dynamics as zno

X, y = zno.samples(disable=True)
particle = zno.particle()
print(f"{len(X)} structures of {min(map(len, X))} to {max(map(len, X))} atoms")

# %%
# A short run
# -----------
# Two models differ in the cutoff of the descriptor. At DScribe's sharp cutoff ("DScribe's edge")
# the features jump; with ``cutoff_width`` ("smooth edge") neighbours fade out. The particle starts
# from a thermostat at 300 K. Each model simulates it for a quarter of a picosecond at constant
# energy.
for edge, width in zno.EDGES.items():
    model = zno.trained(X, y, width)
    change, scatter = zno.drift(zno.dynamics(model, particle, 0.25, disable=True))
    print(f"{edge}: drift {change:+.3f} meV/atom in 0.25 ps, scatter {scatter:.3f} meV/atom")

# %%
# The long run
# ------------
# Ten picoseconds are 5,000 steps of 2 fs. Left: the total energy. With the sharp cutoff it drifts
# slightly, because it jumps when an atom crosses the cutoff. Right: the temperature. It fluctuates
# as energy is exchanged between motion and bonds.
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
for (edge, run), color in zip(zno.read().items(), ("C1", "C0")):
    change, scatter = zno.drift(run)
    time, energy, temperature = run.T
    print(
        f"{edge}: drift {change:+.3f} meV/atom in {time[-1]:g} ps, scatter {scatter:.3f} meV/atom"
    )
    kinetic = 1.5 * units.kB * temperature
    print(f"    kinetic energy {1e3 * kinetic.mean():.1f} ± {1e3 * kinetic.std():.1f} meV/atom")
    left.plot(time, energy, color=color, linewidth=0.7, label=edge)
    right.plot(time, temperature, color=color, linewidth=0.7)
left.set(xlabel="time (ps)", ylabel="total energy − start (meV/atom)")
left.margins(y=0.2)
left.legend(frameon=False, loc="upper center", ncols=2)
right.set(xlabel="time (ps)", ylabel="temperature (K)")
