"""Charge equilibration: charges that minimise the electrostatic energy at fixed sum."""

import numpy as np
from scipy.linalg.lapack import dpotrf, dpotrs


class Equilibrium:
    """The charges of one structure as an affine function of its electronegativities.

    Minimising ``chi . q + q . A q / 2 - field . sum_i q_i r_i`` subject to ``1 . q = Q`` gives::

        q = q_0 - P chi,    P = A^-1 - A^-1 1 1^T A^-1 / (1^T A^-1 1),
        q_0 = A^-1 1 Q / (1^T A^-1 1) + P (R field)

    (Chen and Martinez, J. Chem. Phys. 131, 044114 (2009) for the field). P is symmetric and
    ``P 1 = 0``: a constant added to chi, or another origin of R, changes nothing.

    Parameters
    ----------
    structure : Structure
        Geometry, total charge and field.
    A : ndarray of shape (n_atoms, n_atoms)
        Hardness matrix, eV/e^2; positive definite, that of a slab for charges of sum zero.

    Attributes
    ----------
    q_0 : ndarray of shape (n_atoms,)
        Charges at vanishing electronegativities, e.
    """

    def __init__(self, structure, A):
        if structure.periodic and not all(structure.pbc):
            # Between the charged sheets of a slab the potential falls without end. A constant adds
            # c Q^2 / 2 to the energy and nothing to the charges; this one leaves no element below
            # the mean of the diagonal.
            A = A + (np.trace(A) / len(A) - min(A.min(), 0.0))
        # A column of the C-ordered symmetric matrix is a row of the Fortran-ordered one.
        self._chol, info = dpotrf(A.T, lower=1)
        if info:
            raise ValueError(
                f"the hardness matrix of {structure.symbols} is not positive definite; raise "
                "hardness, or lower radius_scale"
            )
        ones = np.ones((len(A), 1))
        self._u = dpotrs(self._chol, ones, lower=1)[0][:, 0]
        self._sum = self._u.sum()
        self.q_0 = self._u * (structure.charge / self._sum)
        if structure.field.any():
            self.q_0 = self.q_0 + self.project(structure.positions @ structure.field)

    def project(self, V):
        """``P V`` for V of shape (n_atoms,) or (n_atoms, k)."""
        solved = dpotrs(self._chol, V, lower=1)[0].reshape(V.shape)
        # The second pass removes the rounding that the first leaves in the sum.
        for _ in range(2):
            solved = solved - np.multiply.outer(self._u / self._sum, solved.sum(axis=0))
        return solved

    def charges(self, chi):
        """Charges for electronegativities chi of shape (n_atoms,); e."""
        return self.q_0 - self.project(chi)

    def rows(self, operator):
        """``T dq/dchi = -T P`` for an operator T of shape (k, n_atoms)."""
        return -self.project(np.ascontiguousarray(operator.T)).T
