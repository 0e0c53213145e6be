"""Solvers: streaming orthogonal least squares and Gauss-Newton on top of it."""

from ._gauss_newton import NonlinearRows, fixed_point, gauss_newton
from ._triangle import Triangle

__all__ = ["NonlinearRows", "Triangle", "fixed_point", "gauss_newton"]
