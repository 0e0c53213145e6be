"""Derivatives with respect to latent fields, geometry, weights and external field."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111

from skqeq.response import ChargeFlow, NoCharges, QEq

from .. import helpers
from .derivatives import check_derivatives

ELEMENTS = [1, 6, 7, 8, 11, 12, 13, 17]
ALPHA = {z: 0.4 + 0.1 * (z % 4) for z in ELEMENTS[1:]} | {1: 0.0}
OPTIONS = {"hardness": 2.0, "radius_scale": 0.35, "accuracy": 1e-11}
RESPONSES = {
    "equilibration": QEq(**OPTIONS),
    "equilibration, iterative": QEq(**OPTIONS, solver="iterative"),
    "equilibration with dipoles": QEq(**OPTIONS, polarizability=ALPHA),
    "flow": ChargeFlow(range=0.3, **OPTIONS),
    "flow, iterative": ChargeFlow(range=0.3, **OPTIONS, solver="iterative"),
    "flow with dipoles": ChargeFlow(range=0.3, **OPTIONS, polarizability=ALPHA),
    "none": NoCharges(),
}


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def slab(field=0.0):
    atoms = fcc111("Al", (2, 1, 3), vacuum=None, orthogonal=False)
    atoms.numbers[::2] = 12
    atoms.pbc = True, True, False
    atoms.rattle(0.1, seed=2)
    atoms.info |= {"charge": 1.0, "external_field": np.array([0.0, 0.0, field])}
    return atoms


CASES = {
    "molecule": helpers.rattled("CH3OH", 3),
    "ion in a field": helpers.rattled("CH3NO2", 4, charge=-1, field=np.array([0.1, -0.2, 0.05])),
    "crystal": salt(),
    "slab in a field": slab(0.1),
    "atom": Atoms("O"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("response", RESPONSES)
def test_derivatives(response, name):
    check_derivatives(RESPONSES[response].prepare(ELEMENTS), CASES[name])
