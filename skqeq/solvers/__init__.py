"""Least squares in blocks of rows, and Gauss-Newton.

The solvers for charges are in ``skqeq/electrostatics/_solvers.py``.
"""

from ._gauss_newton import fixed_point, gauss_newton, linearized
from ._terms import LossTerm, NonlinearRows
from ._triangle import Triangle

__all__ = ["LossTerm", "NonlinearRows", "Triangle", "fixed_point", "gauss_newton"]
