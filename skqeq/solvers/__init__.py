"""Solvers: streaming orthogonal least squares and Gauss-Newton on top of it."""

from ._gauss_newton import NonlinearRows, gauss_newton
from ._triangle import Triangle

__all__ = ["NonlinearRows", "Triangle", "gauss_newton"]
