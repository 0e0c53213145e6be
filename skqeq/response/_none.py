"""The response of a model without charges."""

import numpy as np


class NoCharges:
    """No charges, whatever the electronegativities: the energy is that of the atoms.

    It stands where `Equilibrium` does, and its charges are zeros.

    Parameters
    ----------
    structure : Structure
        Its total charge and field are not looked at.
    """

    n_iterations = 0
    flows = dipoles = None

    def __init__(self, structure):
        self.n_atoms = len(structure)

    def reference(self, learned):
        """None."""

    def charges(self, chi, start=None, reference=None):
        """Zeros."""
        return np.zeros(self.n_atoms)

    def potential(self, chi, charges):
        """There is no potential."""
        return np.zeros(self.n_atoms)

    def energy(self, chi, charges, reference=None):
        """Nothing."""
        return 0.0

    def coulomb_gradient(self, q, p=None, field=None):
        """Nothing moves."""
        return np.zeros((self.n_atoms, 3)), np.zeros((3, 3))

    def potential_gradient(self, q, field=None):
        """There is no potential."""
        n = self.n_atoms
        return np.zeros((n, 3, n)), np.zeros((3, 3, n))

    def project(self, V):
        """Nothing answers to it."""
        return np.zeros_like(V)

    def rows(self, Y, W=None):
        """Nothing depends on electronegativities."""
        return np.zeros_like(Y), None
