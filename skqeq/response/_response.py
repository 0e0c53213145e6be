"""How charges follow from latent fields: the base class of all responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from ase.data import chemical_symbols
from sklearn.base import BaseEstimator

from ..electrostatics import lookup as find
from ..parameters import MAX_ATOMIC_NUMBER, qeq_electronegativities
from ._equilibrium import Equilibrium

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from .._typing import Array, Lookup
    from ..structures import Structure


# Reference charges per electronegativity, e/V, for charges of the right sign and rough size.
CHARGE_PER_VOLT = 0.1


class Response(BaseEstimator, ABC):
    """The base class of responses, which turn latent fields into the charges of a structure.

    A charge model learns the latent fields, such as the electronegativity of every atom, and its
    response turns them into charges. A response owns everything that the charges depend on besides
    the fields: the hardness, the widths of the charges, the solver, polarisable atoms. A model
    calls `prepare` once for the elements in the data, and then `equilibrium` for each structure.

    A subclass must define `equilibrium`, and list its fields in `fields`. Fields other than
    electronegativities have their prior in the response; `prior_parameters` names the parameters
    that hold it.

    Attributes
    ----------
    fields : tuple of str
        Names of the latent fields: ``"chi"`` for electronegativities, whose prior belongs to the
        model, and any others.
    prior_parameters : dict of {str: (str, str)}
        For every field but ``"chi"``, the names of the two parameters that hold the prior standard
        deviations of its learned part and of its constant per element.
    elements_ : ndarray of shape (n_elements,)
        Atomic numbers that the response was prepared for, ascending.

    See Also
    --------
    QEq : Charge equilibration.
    ChargeFlow : Charge that flows between neighbours, at a cost.
    NoCharges : No charges at all.

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
        """Prior standard deviations of a field that is the response's own.

        Parameters
        ----------
        field : str
            One of `fields`, but not ``"chi"``.

        Returns
        -------
        amplitude, baseline : float
            Of the learned part, and of the constant per element; in the unit of the field.
        """
        if field not in self.prior_parameters:
            raise TypeError(f"{type(self).__name__} has no prior for the field {field!r}")
        amplitude, baseline = self.prior_parameters[field]
        return getattr(self, amplitude), getattr(self, baseline)

    def prepare(self, elements: ArrayLike, lookup: Lookup | None = None) -> Self:
        """Look up what the response needs of each element.

        Parameters
        ----------
        elements : array-like of shape (n_elements,)
            Atomic numbers, ascending.
        lookup : callable, default=None
            ``lookup(table, name)`` returns the entries of a table by atomic number for the
            elements, and raises an error for missing ones; None means one that names the element.

        Returns
        -------
        self : Response
            With per-element arrays as attributes that end in an underscore.
        """
        self.elements_ = np.asarray(elements, dtype=int)
        self._indices = np.full(MAX_ATOMIC_NUMBER + 1, -1)
        self._indices[self.elements_] = np.arange(len(self.elements_))
        self._prepare(lookup or (lambda table, name: find(table, self.elements_, name)))
        return self

    def _prepare(self, lookup):
        """Look up and store arrays per element, in a subclass that needs some."""

    @abstractmethod
    def equilibrium(
        self, structure: Structure, name: str | None = None, n_solutions: int = 1
    ) -> Equilibrium:
        """The charges of one structure as a function of the fields.

        Parameters
        ----------
        structure : Structure
            Geometry, total charge and external field; with elements that the response is prepared for.
        name : str, default=None
            Name of the structure in error messages; None means its formula.
        n_solutions : int, default=1
            Number of right-hand sides that will be solved, which decides between solvers.

        Returns
        -------
        equilibrium : Equilibrium
            Charges, energy and derivatives as functions of the fields.
        """

    def element_indices(self, structure: Structure) -> Array:
        """Where the element of every atom stands in `elements_`.

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
            If the response is not prepared, or not for one of the elements.
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
        """Values of the fields from which fits to energies start.

        Parameters
        ----------
        chi : ndarray of shape (n,)
            Classical electronegativities of elements or of atoms, V.
        factor : float
            Size of the charges relative to those in `classical_size`.

        Returns
        -------
        fields : dict of {str: ndarray of shape (n,)}
            Electronegativities are `chi`; any other field holds charges, ``-factor chi``.
        """
        return {name: chi if name == "chi" else -factor * chi for name in self.fields}

    def classical_size(self, equilibrium: Equilibrium) -> float:
        """Mean size of the charges of a structure that `start_fields` make at a factor of one.

        Parameters
        ----------
        equilibrium : Equilibrium
            Of the structure.

        Returns
        -------
        size : float
            Mean of ``|q|``, e, without the total charge and the field.
        """
        chi = qeq_electronegativities()[equilibrium.structure.numbers]
        return float(np.abs(chi - chi.mean()).mean())

    def classical_charges(self, equilibrium: Equilibrium) -> Array:
        """Charges by classical electronegativities, which tell the directions of dipoles.

        Parameters
        ----------
        equilibrium : Equilibrium
            Of the structure.

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
        the fields, ``equilibrium.rows(operator)``.

        Parameters
        ----------
        equilibrium : Equilibrium
            Of one structure.
        operator : ndarray of shape (k, n_atoms)
            Factors of the charges.
        row_gradients : dict of {str: ndarray of shape (k, n_atoms)}
            Derivatives of L with respect to the rows of each field.
        potential_gradient : ndarray of shape (k, n_atoms)
            Derivatives of L with respect to ``operator @ q``, each times the potential u that
            belongs to the charges q.

        Returns
        -------
        gradient : dict
            By the name of a parameter, the derivative with respect to its logarithm, a float, or
            for a parameter with a value per element an ndarray of shape (n_elements,). Parameters
            without a derivative are missing.
        """
        return {}


def check_response(response: Any) -> None:
    """Refuse an object that cannot serve as a response, with the names of what it lacks.

    Parameters
    ----------
    response : object
        Candidate for the parameter `response` of a model.

    Raises
    ------
    TypeError
        If it lacks methods or attributes of `Response`, or the prior of one of its fields.

    Examples
    --------
    >>> from skqeq.response import QEq, check_response
    >>> check_response(QEq())
    >>> class Ohm(QEq):
    ...     fields = ("chi", "resistance")
    >>> check_response(Ohm())
    Traceback (most recent call last):
    TypeError: Ohm is no complete response: it lacks a prior for the field 'resistance'
    """
    if isinstance(response, type):
        raise TypeError(f"the response must be an instance: use {response.__name__}()")
    public = [name for name in vars(Response) if not name.startswith("_")]
    lacking = [name for name in public if not hasattr(response, name)]
    lacking += [name for name in ("get_params", "_validate_params") if not hasattr(response, name)]
    if not lacking:
        lacking = [
            f"a prior for the field {name!r}"
            for name in response.fields
            if name != "chi"
            and name not in response.prior_parameters
            and not _overrides_prior(response)
        ]
    if lacking:
        raise TypeError(
            f"{type(response).__name__} is no complete response: it lacks {', '.join(lacking)}"
        )


def _overrides_prior(response):
    return getattr(type(response), "prior", None) is not Response.prior
