"""
Forces through a socket
=======================

i-PI and other simulation programs request forces through a socket. ASE implements both sides of the
protocol. In this example ASE's server relaxes a cluster, and a client provides the forces of a
model.
"""

# %%
# A model
# -------
# The training structures are cubes of four sodium and four chloride ions with random displacements.
# The reference is the potential of rigid ions of
# :ref:`sphx_glr_auto_examples_dynamics_plot_dynamics.py`. Labels of the charges, with a large
# noise, determine the start of the fit.
import os
import threading

import matplotlib.pyplot as plt
import numpy as np
from ase.build import bulk
from ase.calculators.socketio import SocketClient, SocketIOCalculator
from ase.optimize import BFGS
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqCalculator, KQEqRegressor, QEq, SOAPFeaturizer, make_targets
from skqeq.parameters import COULOMB

rng = np.random.default_rng(0)


def cube(scale):
    """A cube with edges of about 2.7 Angstrom."""
    atoms = bulk("NaCl", "rocksalt", a=5.4, cubic=True)
    atoms.pbc, atoms.cell = False, None
    atoms.positions *= rng.uniform(0.95, 1.1)
    atoms.positions += rng.normal(scale=scale, size=(8, 3))
    return atoms


def reference(atoms):
    """Energy (eV) and forces (eV/Angstrom)."""
    vectors = atoms.positions[:, None] - atoms.positions
    r = np.linalg.norm(vectors, axis=2) + np.diag(np.full(8, np.inf))
    charges = np.where(atoms.symbols == "Na", 1.0, -1.0)
    coulomb = COULOMB * np.outer(charges, charges) / r
    repulsion = 1200.0 * np.exp(-r / 0.31)
    forces = np.einsum("ij,ija->ia", (coulomb / r + repulsion / 0.31) / r, vectors)
    return (coulomb + repulsion).sum() / 2, forces


X = [cube(scale) for scale in np.repeat([0.05, 0.1, 0.15], 15)]
energies, forces = zip(*map(reference, X))
charges = [np.where(atoms.symbols == "Na", 1.0, -1.0) for atoms in X]
model = make_pipeline(
    SOAPFeaturizer(r_cut=5.0, n_max=6, l_max=3, cutoff_width=1.5),
    CURSparsifier(n_points=60),
    KQEqRegressor(response=QEq(hardness=8.0, radius_scale=0.35), sigma_charges=0.2, tol=1e-4),
).fit(X, make_targets(energy=energies, forces=forces, charges=charges))

# %%
# Client and server
# -----------------
# The client holds the atoms. It receives positions and cells through the socket, and returns
# energies, forces and virials. The protocol does not transmit the total charge and the field: set
# them in the ``info`` of the client's atoms. The client usually runs in another process or on
# another computer. To use i-PI in place of ASE's server, give the client the address of i-PI.
atoms = cube(0.15)
name = f"skqeq_{os.getpid()}"


def client():
    remote = atoms.copy()
    remote.calc = KQEqCalculator(model)
    SocketClient(unixsocket=name).run(remote)


images = []
with SocketIOCalculator(unixsocket=name) as server:
    thread = threading.Thread(target=client)
    thread.start()
    moved = atoms.copy()
    moved.calc = server
    with BFGS(moved, logfile=None) as relaxation:
        relaxation.attach(lambda: images.append((moved.copy(), moved.get_potential_energy())))
        relaxation.run(fmax=0.02, steps=200)
thread.join()
print(f"relaxed in {relaxation.nsteps} steps")

# %%
# Without a socket the model gives the same energy.
moved.calc = KQEqCalculator(model)
print(f"{moved.get_potential_energy():.6f} eV, through the socket {images[-1][1]:.6f} eV")

# %%
# Picture
# -------
# The figure compares the energies that the server received with the reference energies of the same
# geometries.
predicted = np.array([energy for _, energy in images])
expected = np.array([reference(image)[0] for image, _ in images])
fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
ax.plot(expected, "o", c="grey", mfc="none", label="reference")
ax.plot(predicted, "-", label="kQEq, through the socket")
ax.xaxis.get_major_locator().set_params(integer=True)
ax.set(xlabel="step of BFGS", ylabel="energy (eV)")
ax.legend(frameon=False)
