"""Small molecules with labels that a charge model can learn, and small estimators."""

import os
import signal

import numpy as np
import pytest
from ase.build import molecule
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import CURSparsifier, KQEqRegressor, QEq, QEqRegressor, SOAPFeaturizer, make_targets
from skqeq.features import ROWS

NAMES = (
    "CH3OH CH3CH2OH CH3OCH3 H2CO CH3CHO HCOOH CH2OCH2 H2CCO OCHCHO CH3COOH HCOOCH3 CH3COCH3"
).split()
ELECTRONEGATIVITY = {1: 2.2, 6: 2.55, 8: 3.44}


def pytest_configure(config):
    """Give every worker of pytest-xdist one thread, and let interrupts through.

    With more threads than cores, the workers would slow each other down. A shell starts background
    jobs with interrupts switched off, which the commands started by tests would inherit.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("numprocesses", None):
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"


def made_up_charges(atoms):
    """Charges from differences of electronegativity between neighbours."""
    chi = np.array([ELECTRONEGATIVITY[z] for z in atoms.numbers])
    r = atoms.get_all_distances()
    bond = np.exp(-((r / 1.3) ** 2)) * (r > 0)
    return 0.3 * np.sum(bond * (chi - chi[:, None]), axis=1)


@pytest.fixture
def molecules():
    """A dozen molecules of C, H and O; every test gets new copies."""
    X = [molecule(name) for name in NAMES]
    for i, atoms in enumerate(X):
        # Symmetric molecules would hide some errors.
        atoms.rattle(0.03, seed=i)
    return X


@pytest.fixture
def charges(molecules):
    """One array of charges per molecule, e."""
    return [made_up_charges(atoms) for atoms in molecules]


@pytest.fixture
def dipoles(molecules, charges):
    """Dipole moments, shape (12, 3), e*Angstrom."""
    return np.array(
        [q @ (a.positions - a.get_center_of_mass()) for a, q in zip(molecules, charges)]
    )


@pytest.fixture
def energies(molecules, charges):
    """Energies and forces of a model with other charges and widths than the default ones."""
    model = QEqRegressor(response=QEq(hardness=8.0)).fit(molecules, make_targets(charges=charges))
    model.atomic_energies_ = np.array([-13.0, -1030.0, -2040.0])
    return model.predict_targets(molecules, ["energy", "forces"])


@pytest.fixture
def table(dipoles, charges):
    """Dipoles and charges; a few labels are missing."""
    dipoles, charges = dipoles.copy(), list(charges)
    dipoles[3] = np.nan
    charges[5] = None
    return make_targets(dipole=dipoles, charges=charges)


@pytest.fixture
def soap():
    """A small descriptor."""
    return SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=2)


@pytest.fixture
def model(soap):
    """The whole pipeline, unfitted."""
    return make_pipeline(soap, CURSparsifier(n_points=3), KQEqRegressor())


@pytest.fixture
def empty_cache():
    """Remove the descriptor rows that other tests have computed."""
    ROWS.clear()
    yield
    ROWS.clear()


@pytest.fixture
def memory_budget():
    """Return a function that sets the memory budget, in bytes, for one test."""
    before = skqeq.get_memory_budget()
    yield skqeq.set_memory_budget
    skqeq.set_memory_budget(before)
