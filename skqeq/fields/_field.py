"""One latent field: a number, or a vector, per atom with a Gaussian prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .._typing import Array

# Quantities that are vectors, and the names of their components.
VECTORS = {"dipole": ("dipole_x", "dipole_y", "dipole_z")}


class Component(NamedTuple):
    """One number per atom: a field, or one of the three components of a vector field.

    Parameters
    ----------
    field : int
        Index of the field in its layout.
    enters : str
        The quantity to which it contributes, such as ``"chi"`` or ``"dipole_x"``.

    Examples
    --------
    >>> from skqeq.fields import Field, FieldLayout
    >>> dipole = Field("dipole", enters="dipole", blocks=("dipole",), amplitude=0.15)
    >>> layout = FieldLayout([dipole], sizes=[12], elements=[1, 8], lookup=None)
    >>> layout.sizes, layout.components[0]
    ([4], Component(field=0, enters='dipole_x'))
    """

    field: int
    enters: str


class ElementTable(NamedTuple):
    """A table with one number for every element.

    Parameters
    ----------
    values : ndarray of shape (n_numbers,)
        Indexed by atomic number; NaN for elements without a value.
    name : str
        Name of the quantity in error messages.

    Examples
    --------
    >>> from skqeq.fields import ElementTable
    >>> from skqeq.parameters import qeq_electronegativities
    >>> table = ElementTable(qeq_electronegativities(), "QEq electronegativity")
    >>> float(table.values[8])
    8.741
    """

    values: Array
    name: str


@dataclass(frozen=True)
class Field:
    """A latent quantity: one number per atom, linear in weights with normal priors.

    The value of the field on atom i is::

        f_i = mean(Z_i) + b(Z_i) + phi_i . w,    w ~ N(0, amplitude^2),    b ~ N(0, baseline^2),

    with one weight w per feature and one constant b per element. The electronegativity of `QEq`,
    the reference charge of `ChargeFlow`, the local energy of `GAPRegressor` and the energies of the
    free atoms are fields.

    Parameters
    ----------
    name : str
        Name of the field.
    enters : str
        The quantity to which the field contributes: the name of a field of the response, such as
        ``"chi"``, or ``"energy"`` for a local energy. Fields that contribute to the same quantity
        are added. With ``"dipole"`` the field is a vector on every atom, an atomic dipole in
        e*Angstrom: its features are vectors, and each weight multiplies the three components of one
        feature. Such a field has no constants.
    blocks : tuple of str, default=()
        Names of the feature blocks that can describe the field; the first block that is present is
        used. A field without features, which is one constant per element, has an empty tuple.
    amplitude : float, default=0.0
        Prior standard deviation of the weights, in the unit of the field.
    baseline : float or None, default=None
        Prior standard deviation of the constants, in the unit of the field. None means that the
        field has no constants; with zero, the constants exist but are always zero.
    mean : ElementTable, default=None
        Prior mean for every element. None means zero.
    optional : bool, default=False
        Whether models without any of the blocks lack the field; without it, they are refused.

    Examples
    --------
    >>> from skqeq.fields import Field
    >>> Field("gap", enters="energy", blocks=("gap",), amplitude=1.0).baseline is None
    True
    """

    name: str
    enters: str
    blocks: tuple[str, ...] = ()
    amplitude: float = 0.0
    baseline: float | None = None
    mean: ElementTable | None = None
    optional: bool = False


def components_of(enters: str) -> tuple[str, ...]:
    """The components of a quantity; a quantity that is a number has one, itself.

    Parameters
    ----------
    enters : str
        The quantity, see `Field`.

    Returns
    -------
    components : tuple of str
        Names of quantities.

    Examples
    --------
    >>> from skqeq.fields import components_of
    >>> components_of("chi"), components_of("dipole")
    (('chi',), ('dipole_x', 'dipole_y', 'dipole_z'))
    """
    return VECTORS.get(enters, (enters,))
