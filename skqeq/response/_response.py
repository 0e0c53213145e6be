"""The base class of all responses, which compute charges from latent fields."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from ase.data import chemical_symbols
from sklearn.base import BaseEstimator, clone

from .._state import check_array, check_elements, check_that, check_type
from ..electrostatics import lookup as find
from ..parameters import MAX_ATOMIC_NUMBER, qeq_electronegativities
from ._equilibrium import Equilibrium

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from .._typing import Array, Lookup
    from ..structures import Structure


# Reference charges per unit of electronegativity, e/V. It gives charges of the right sign and of
# about the right size.
CHARGE_PER_VOLT = 0.1


class Response(BaseEstimator, ABC):
    """The base class of responses, which turn latent fields into the charges of a structure.

    A charge model learns the latent fields, such as the electronegativity of every atom, and its
    response turns them into charges. A response holds all else that the charges depend on: the
    hardness, the widths of the charges, the polarisable atoms and the solver. A model calls
    `prepare` once for the elements in the data, and then `equilibrium` for each structure.

    A subclass must define `equilibrium`, and list its latent fields in `fields`. The priors of
    latent fields other than the electronegativities are parameters of the response; their names
    are listed in `prior_parameters`.

    Attributes
    ----------
    fields : tuple of str
        Names of the latent fields. ``"chi"`` is the name of the electronegativities, whose prior
        belongs to the model.
    prior_parameters : dict of {str: (str, str)}
        For every latent field but ``"chi"``, the names of two parameters: the prior standard
        deviation of the learned part, and that of the constant for each element.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers that the response was prepared for, ascending.

    See Also
    --------
    QEq : Charge equilibration.
    ChargeFlow : Charge flows between neighbouring atoms at an energy cost.
    NoCharges : A model without charges.

    Examples
    --------
    >>> from skqeq.response import ChargeFlow, QEq
    >>> QEq.fields, ChargeFlow.fields
    (('chi',), ('chi', 'reference'))
    >>> ChargeFlow(amplitude=0.2).prior("reference")
    (0.2, 1.0)
    """

    fields: ClassVar[tuple[str, ...]] = ("chi",)
    prior_parameters: ClassVar[Mapping[str, tuple[str, str]]] = {}
    _parameter_constraints: ClassVar[dict[str, Any]] = {}

    def prior(self, field: str) -> tuple[float, float]:
        """Prior standard deviations of a latent field whose prior belongs to the response.

        Parameters
        ----------
        field : str
            One of the names in `fields`, but not ``"chi"``.

        Returns
        -------
        amplitude, baseline : float
            Prior standard deviations of the learned part of the latent field, and of its constant
            for each element; in the unit of the latent field.
        """
        if field not in self.prior_parameters:
            raise TypeError(f"{type(self).__name__} has no prior for the latent field {field!r}")
        amplitude, baseline = self.prior_parameters[field]
        return getattr(self, amplitude), getattr(self, baseline)

    def prepare(self, elements: ArrayLike, lookup: Lookup | None = None) -> Self:
        """Look up the values for each element that the response needs.

        Parameters
        ----------
        elements : array-like of shape (n_elements,)
            Atomic numbers, ascending.
        lookup : callable, default=None
            ``lookup(table, name)`` returns the entries for the elements from a table indexed by
            atomic number, and raises an error if one is missing. The error of the default function
            names the missing element.

        Returns
        -------
        self : Response
            The response. Its arrays with one value per element have names that end with "_".
        """
        self.elements_ = np.asarray(elements, dtype=int)
        self._indices = np.full(MAX_ATOMIC_NUMBER + 1, -1)
        self._indices[self.elements_] = np.arange(len(self.elements_))
        self._prepare(lookup or (lambda table, name: find(table, self.elements_, name)))
        return self

    def _prepare(self, lookup):
        """Look up and store arrays with one value per element, if a subclass needs any."""

    @abstractmethod
    def equilibrium(
        self, structure: Structure, name: str | None = None, n_solutions: int = 1
    ) -> Equilibrium:
        """The charges of one structure as a function of the latent fields.

        Parameters
        ----------
        structure : Structure
            Geometry, total charge and external field. The response must be prepared for its
            elements.
        name : str, default=None
            Name of the structure in error messages; None means its formula.
        n_solutions : int, default=1
            Number of right-hand sides that will be solved, which decides between solvers.

        Returns
        -------
        equilibrium : Equilibrium
            Charges, energy and derivatives as functions of the latent fields.
        """

    def check_loaded(self) -> None:
        """Check a prepared response that was read from a file.

        Raises
        ------
        ValueError
            If a parameter is not valid, or if the arrays do not fit the elements; the message names
            what does not fit.
        """
        self._validate_params()
        elements = check_elements(self, "elements_")
        prepared = clone(self).prepare(elements)
        for name, value in vars(prepared).items():
            if name.endswith("_") and value is None:
                check_type(self, name, type(None))
            elif name.endswith("_") and name != "elements_":
                array = check_array(self, name, (len(elements),))
                # Tables of another version may differ a little.
                correct = np.allclose(array, value, rtol=0.5, atol=0.0)
                check_that(correct, self, name, f"about {value}, according to the parameters")
        self._indices = prepared._indices

    def element_indices(self, structure: Structure) -> Array:
        """Index of the element of every atom in `elements_`.

        Parameters
        ----------
        structure : Structure
            Any structure.

        Returns
        -------
        indices : ndarray of shape (n_atoms,)
            ``elements_[indices]`` are the atomic numbers.

        Raises
        ------
        ValueError
            If `prepare` was not called, or was called without one of the elements.
        """
        if not hasattr(self, "elements_"):
            raise ValueError(f"call {type(self).__name__}.prepare(elements) first")
        indices = self._indices[structure.numbers]
        if indices.min() < 0:
            symbol = chemical_symbols[structure.numbers[indices.argmin()]]
            raise ValueError(f"{type(self).__name__} is not prepared for {symbol}")
        return indices

    # ---- where fits start -------------------------------------------------------------------

    def start_fields(self, chi: Array, factor: float) -> dict[str, Array]:
        """Values of the latent fields from which fits to energies start.

        Parameters
        ----------
        chi : ndarray of shape (n,)
            Classical electronegativities of elements or of atoms, V.
        factor : float
            Size of the charges relative to `classical_size`.

        Returns
        -------
        fields : dict of {str: ndarray of shape (n,)}
            The field ``"chi"`` starts at `chi`. Any other latent field is assumed to be a charge,
            and starts at ``-factor * chi``.
        """
        return {name: chi if name == "chi" else -factor * chi for name in self.fields}

    def classical_size(self, equilibrium: Equilibrium) -> float:
        """Mean size of the charges that follow from `start_fields` with a factor of one.

        Parameters
        ----------
        equilibrium : Equilibrium
            The equilibrium of one structure.

        Returns
        -------
        size : float
            Mean of ``|q|``, e, for a neutral structure without an external field.
        """
        chi = qeq_electronegativities()[equilibrium.structure.numbers]
        return float(np.abs(chi - chi.mean()).mean())

    def classical_charges(self, equilibrium: Equilibrium) -> Array:
        """Charges for classical electronegativities; their dipoles have about the right direction.

        Parameters
        ----------
        equilibrium : Equilibrium
            The equilibrium of one structure.

        Returns
        -------
        charges : ndarray of shape (n_atoms,)
            Charges, e.
        """
        chi = qeq_electronegativities()[equilibrium.structure.numbers]
        return equilibrium.charges(**self.start_fields(chi, CHARGE_PER_VOLT))

    # ---- evidence ---------------------------------------------------------------------------

    def parameter_gradient(
        self,
        equilibrium: Equilibrium,
        operator: Array,
        row_gradients: Mapping[str, Array],
        potential_gradient: Array,
    ) -> dict[str, Any]:
        """Derivatives of a function of label rows with respect to the response's parameters.

        The function L depends on the parameters through ``operator @ q`` and through the rows of
        the latent fields, ``equilibrium.rows(operator)``.

        Parameters
        ----------
        equilibrium : Equilibrium
            The equilibrium of one structure.
        operator : ndarray of shape (k, n_atoms)
            Factors that multiply the charges q.
        row_gradients : dict of {str: ndarray of shape (k, n_atoms)}
            Derivatives of L with respect to the rows of each latent field.
        potential_gradient : ndarray of shape (k, n_atoms)
            Each row is a product: the derivative of L with respect to one element of
            ``operator @ q``, times the potential u of the charges q.

        Returns
        -------
        gradient : dict
            For each parameter name, the derivative of L with respect to the logarithm of the
            parameter: a float, or an ndarray of shape (n_elements,) for a parameter with one value
            per element. Parameters without a derivative are missing.
        """
        return {}


def check_response(response: Any) -> None:
    """Raise an error for an object that cannot serve as a response, and name what it lacks.

    Parameters
    ----------
    response : object
        Candidate for the parameter `response` of a model.

    Raises
    ------
    TypeError
        If the object lacks a method or an attribute of `Response`, or the prior of a latent field.

    Examples
    --------
    >>> from skqeq.response import QEq, check_response
    >>> check_response(QEq())
    >>> class Ohm(QEq):
    ...     fields = ("chi", "resistance")
    >>> check_response(Ohm())
    Traceback (most recent call last):
    TypeError: Ohm is not a complete response: it lacks a prior for the latent field 'resistance'
    """
    if isinstance(response, type):
        raise TypeError(f"the response must be an instance: use {response.__name__}()")
    public = [name for name in vars(Response) if not name.startswith("_")]
    lacking = [name for name in public if not hasattr(response, name)]
    lacking += [name for name in ("get_params", "_validate_params") if not hasattr(response, name)]
    if not lacking:
        lacking = [
            f"a prior for the latent field {name!r}"
            for name in response.fields
            if name != "chi"
            and name not in response.prior_parameters
            and not _overrides_prior(response)
        ]
    if lacking:
        raise TypeError(
            f"{type(response).__name__} is not a complete response: it lacks {', '.join(lacking)}"
        )


def _overrides_prior(response):
    return getattr(type(response), "prior", None) is not Response.prior
