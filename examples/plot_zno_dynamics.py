"""
A particle of zinc oxide
========================

A model that has seen clusters of 20 to 60 atoms moves a particle of 200. Over ten picoseconds its
total energy must stay what it was.
"""

# %%
# The benchmark
# -------------
# Everything comes from ``benchmarks/zno_dynamics.py``, which took minutes to make the long run and
# keeps it in a table. The energies it learns are those of rigid ions: charges of ±1 e, and
# exponential repulsion of oxygen by both elements. Structures are snapshots of clusters at 600 K.
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from ase import units

sys.path.insert(0, str(Path("../benchmarks").resolve()))  # from the folder of the examples
import zno_dynamics as zno

X, y = zno.samples(disable=True)
particle = zno.particle()
print(f"{len(X)} structures of {min(map(len, X))} to {max(map(len, X))} atoms")

# %%
# A short run
# -----------
# Two models differ in how the view of an atom ends: DScribe's edge is a jump, with ``cutoff_width``
# neighbours fade out. Each moves the particle, which comes from a thermostat of 300 K, for a
# quarter of a picosecond at constant energy.
for edge, width in zno.EDGES.items():
    model = zno.trained(X, y, width)
    change, scatter = zno.drift(zno.dynamics(model, particle, 0.25, disable=True))
    print(f"{edge}: drift {change:+.3f} meV/atom in 0.25 ps, scatter {scatter:.3f} meV/atom")

# %%
# The long run
# ------------
# Ten picoseconds are 5,000 steps of 2 fs. Left: the total energy. With DScribe's edge it wanders,
# by little: every atom that crosses the edge is a small jump. Right: the temperature, whose changes
# are energy that goes back and forth between motion and bonds.
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
