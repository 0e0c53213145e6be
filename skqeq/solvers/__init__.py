"""Least squares in blocks of rows, and Gauss-Newton.

The solvers for charges are in ``skqeq/electrostatics/_solvers.py``.
"""

from ._fixed_point import fixed_point, linearized
from ._gauss_newton import Position, gauss_newton
from ._nonlinear import NonlinearRows
from ._terms import LossTerm
from ._triangle import Triangle

__all__ = ["LossTerm", "NonlinearRows", "Position", "Triangle", "fixed_point", "gauss_newton"]
