"""Which form of the hardness matrix a solver takes: the one that is estimated to be faster."""

from ._hardness import DenseHardness, HardnessOperator
from ._levels import has_finufft

SOLVERS = ("auto", "dense", "iterative")
# Costs in ns, measured. A multiply-add of the factorisation:
FACTOR = 0.005
# For molecules and for periodic structures: assembly of a matrix element; set-up of the operator
# per atom; one solution with the operator per atom.
ASSEMBLY, SETUP, SOLUTION = (15.0, 60.0), (100e3, 30e3), (150e3, 50e3)
# Largest matrix that is stored, bytes. Up to three of its size are in memory at the same time. This
# is a choice of the algorithm, and no cache.
MAX_DENSE_BYTES = 2**31


def make_hardness(
    structure, widths, hardness, accuracy, solver="auto", n_solutions=1, factorisations=1.0
):
    """The hardness matrix in the form that a solver takes.

    Parameters
    ----------
    structure : Structure
        A molecule, a slab or a crystal.
    widths, hardness, accuracy
        As in `hardness_matrix`.
    solver : {"auto", "dense", "iterative"}, default="auto"
        Factorisation, or conjugate gradients; "auto" takes what is estimated to be faster.
    n_solutions : int, default=1
        Number of right-hand sides that will be solved.
    factorisations : float, default=1.0
        Cost of a direct solution, in Cholesky factorisations of the matrix.

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
    """Whether iterations are faster than a factorisation, or the matrix is too large to store."""
    n, kind = len(structure), int(structure.periodic)
    dense = ASSEMBLY[kind] * n**2 + FACTOR * n**2 * (factorisations * n + 3 * n_solutions)
    iterative = n * (SETUP[kind] + SOLUTION[kind] * n_solutions)
    if not has_finufft():
        iterative *= 5
    return dense > iterative or 8 * n**2 > MAX_DENSE_BYTES
