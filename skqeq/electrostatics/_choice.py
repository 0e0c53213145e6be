"""The choice between a stored hardness matrix and an operator: the one estimated to be faster."""

from ._hardness import DenseHardness, HardnessOperator
from ._levels import has_finufft

SOLVERS = ("auto", "dense", "iterative")
# Measured times in ns. FACTOR is the time of one multiply-add in the factorisation.
FACTOR = 0.005
# Each pair of times is for molecules and for periodic structures. ASSEMBLY is per matrix element;
# SETUP of the operator and one SOLUTION with it are per atom.
ASSEMBLY, SETUP, SOLUTION = (15.0, 60.0), (100e3, 30e3), (150e3, 50e3)
# Size of the largest matrix that is stored, bytes. Up to three matrices of this size are in memory
# at the same time. This limit decides between algorithms; it is not the size of a cache.
MAX_DENSE_BYTES = 2**31


def make_hardness(
    structure, widths, hardness, accuracy, solver="auto", n_solutions=1, factorisations=1.0
):
    """Make the hardness matrix in the form that a solver needs.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths, hardness, accuracy
        As in `hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        Factorisation, or conjugate gradients; "auto" chooses the one estimated to be faster.
    n_solutions : int, default=1
        Number of right-hand sides that will be solved.
    factorisations : float, default=1.0
        Cost of a direct solution, in units of a Cholesky factorisation of the matrix.

    Returns
    -------
    hardness : DenseHardness or HardnessOperator
    """
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {solver!r}")
    if solver == "auto":
        iterative = is_iterative(structure, n_solutions, factorisations)
        solver = "iterative" if iterative else "dense"
    form = HardnessOperator if solver == "iterative" else DenseHardness
    return form(structure, widths, hardness, accuracy)


def is_iterative(structure, n_solutions, factorisations=1.0):
    """Whether to iterate: if that is faster than a factorisation, or A is too large to store."""
    n, kind = len(structure), int(structure.periodic)
    dense = ASSEMBLY[kind] * n**2 + FACTOR * n**2 * (factorisations * n + 3 * n_solutions)
    iterative = n * (SETUP[kind] + SOLUTION[kind] * n_solutions)
    if not has_finufft():
        iterative *= 5
    return dense > iterative or 8 * n**2 > MAX_DENSE_BYTES
