"""The predictions of a fitted charge model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..targets import TARGETS, check_names, make_targets, to_form

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._typing import Array, Column, StructuresLike, Values
    from ..fields import FieldLayout
    from ..response import Response
    from ..structures import StructureFeatures, Structures
    from ._forward import ForwardModel
    from ._structure_solution import Solution


class Predictions:
    """The predict methods of a charge model; all of them use its method `solutions`."""

    targets_: list[str]
    y_form_: str
    handle_unknown: str
    response_: Response
    layout_: FieldLayout

    if TYPE_CHECKING:  # defined by `ChargeModel`

        def solutions(
            self, X: StructuresLike, names: Sequence[str] = ..., start: Column | None = ...
        ) -> Iterator[Solution]: ...

        def _checked_features(
            self, X: StructuresLike, names: Sequence[str], handle_unknown: str
        ) -> tuple[StructureFeatures, Array]: ...

        def _forward(self, structures: Structures | None = ...) -> ForwardModel: ...

        def _check_compositions(self, X: StructuresLike) -> None: ...

        def predict_std(self, X: StructuresLike, names: Sequence[str]) -> Array: ...

        def _weights(self, layout: FieldLayout | None = ...) -> Array: ...

    def predict(self, X: StructuresLike, return_std: bool = False) -> Any:
        """Predict the targets that `fit` was given.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        return_std : bool, default=False
            Whether to return the standard deviations of `predict_std` as well.

        Returns
        -------
        y : same form as in `fit`
            An array (n, 3) of dipoles, a structured array, a list of dict or a DataFrame.
        std : same form as in `fit`
            Only with `return_std`.
        """
        check_is_fitted(self)
        y = to_form(self.predict_targets(X, self.targets_), self.y_form_)
        if not return_std:
            return y
        return y, to_form(self.predict_std(X, self.targets_), self.y_form_)

    def predict_targets(self, X: StructuresLike, names: Sequence[str]) -> Array:
        """Predict several targets together; the model need not have been trained on them.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        names : sequence of str
            Columns of `skqeq.make_targets`.

        Returns
        -------
        y : ndarray of shape (n,)
            Structured array in the form of `skqeq.make_targets`; NaN or None if the target is
            undefined for a periodic structure.

        Raises
        ------
        ValueError
            If all targets are undefined for a periodic structure.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> y = model.predict_targets([water], ["dipole", "quadrupole"])
        >>> y.dtype.names, y["quadrupole"].shape
        (('dipole', 'quadrupole'), (1, 6))
        """
        check_names(names)
        if "energy" in names:
            self._check_compositions(X)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for solution in self.solutions(X, names):
            for name, values in columns.items():
                values.append(observed(name, solution))
        return make_targets(**columns)

    def predict_target(self, X: StructuresLike, name: str) -> Values:
        """Predict one target.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        name : str
            A column of `skqeq.make_targets`.

        Returns
        -------
        values : ndarray of shape (n,) or (n, k), or list of ndarray
            A list if the size of the label depends on the structure.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> model.predict_target([water], "quadrupole").shape
        (1, 6)
        """
        column = self.predict_targets(X, [name])[name]
        return list(column) if column.dtype == object else column

    def predict_charges(self, X: StructuresLike, start: Column | None = None) -> list[Array]:
        """Charges of all atoms.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.
        start : sequence of array-like of shape (n_atoms,), default=None
            Charges from which the iterative solver starts, e. In a trajectory, the charges of the
            previous step save iterations.

        Returns
        -------
        charges : list of ndarray of shape (n_atoms,)
            In e; each sums to the total charge of the structure.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> model.predict_charges([water])[0].round(2)
        array([-0.65,  0.33,  0.33])
        """
        return [solution.charges for solution in self.solutions(X, ["charges"], start)]

    def predict_electronegativities(self, X: StructuresLike) -> list[Array]:
        """Electronegativities of all atoms.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.

        Returns
        -------
        chi : list of ndarray of shape (n_atoms,)
            In V. Only differences within a structure matter.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> [chi] = model.predict_electronegativities([water])
        >>> bool(chi[0] > chi[1]), len(chi)
        (True, 3)
        """
        return [solution.chi for solution in self.solutions(X, ["charges"])]

    def predict_energy(self, X: StructuresLike) -> Array:
        """Total energies: the energies of the charges plus the local energies of the atoms.

        The energy is ``chi . q + q . A q / 2 - field . sum_i q_i r_i + sum_i e_i``;
        `skqeq.ChargeFlow` adds the energy of the flows. If the model was not trained on energies,
        only energy differences between structures of the same composition are meaningful. In an
        electric field, the energy of a charged structure depends on the coordinate origin.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`.

        Returns
        -------
        energy : ndarray of shape (n,)
            In eV.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> model.predict_energy([water, water]).shape
        (2,)
        """
        self._check_compositions(X)
        return np.array([solution.energy for solution in self.solutions(X)])

    def predict_forces(self, X: StructuresLike) -> list[Array]:
        """Negative derivatives of `predict_energy` with respect to the positions.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            As in `fit`; features must come from SOAPFeaturizer and CURSparsifier.

        Returns
        -------
        forces : list of ndarray of shape (n_atoms, 3)
            In eV/Angstrom. The forces of a structure sum to its total charge times the electric
            field.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> [forces] = model.predict_forces([water])
        >>> bool(abs(forces.sum(axis=0)).max() < 1e-9)
        True
        """
        return [solution.forces for solution in self.solutions(X, ["forces"])]

    def predict_stress(self, X: StructuresLike) -> Array:
        """Derivatives of `predict_energy` with respect to a strain, divided by the volume.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Crystals or slabs. The stress of a slab is defined in its plane only.

        Returns
        -------
        stress : ndarray of shape (n, 6)
            In the sign convention and the order of ASE: xx, yy, zz, yz, xz, xy; eV/Angstrom^3. NaN
            for components that are undefined for a slab.

        Examples
        --------
        >>> from ase.build import bulk
        >>> from skqeq import QEqRegressor, make_targets
        >>> salt = bulk("NaCl", "rocksalt", a=5.64)
        >>> model = QEqRegressor().fit([salt], make_targets(charges=[[0.9, -0.9]]))
        >>> model.predict_stress([salt]).shape
        (1, 6)
        """
        return self.predict_target(X, "stress")

    def predict_polarizability(self, X: StructuresLike) -> Array:
        """Derivatives of the dipole with respect to a uniform electric field.

        For charge equilibration this is ``R^T P R``. The polarisability depends only on the
        geometry and on the parameters of the response, and not on the labels of the fit.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Molecules or slabs. A slab has a polarisability along its normal only.

        Returns
        -------
        polarizability : ndarray of shape (n, 3, 3)
            ``d mu_a / d field_b``, e*Angstrom per V/Angstrom; NaN for components along periodic
            axes. Multiply by `skqeq.parameters.COULOMB` to get the volume in Angstrom^3.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> model.predict_polarizability([water]).shape
        (1, 3, 3)
        """
        tensors = []
        for solution in self.solutions(X, ["dipole"]):
            open_axes = TARGETS["dipole"].defined(solution.structure)
            both = np.logical_and.outer(open_axes, open_axes)
            tensors.append(np.where(both, solution.polarizability, np.nan))
        return np.array(tensors)

    def predict_born_effective_charges(self, X: StructuresLike) -> list[Array]:
        """Derivatives of the dipole with respect to the positions.

        The dipole is ``sum_i q_i r_i`` about the coordinate origin. Therefore the Born charges of a
        structure sum to its total charge times the unit matrix. They are also the derivatives
        ``d F_jb / d field_a`` of the forces with respect to an electric field. For the dipole about
        the centre of mass, subtract ``Q m_j / M`` from the diagonal.

        Parameters
        ----------
        X : StructureFeatures or sequence of ase.Atoms
            Molecules or slabs. The dipole of a slab is defined along its normal only.

        Returns
        -------
        born_effective_charges : list of ndarray of shape (n_atoms, 3, 3)
            ``d mu_a / d r_jb`` at ``[j, a, b]``, e; NaN if a is along a periodic axis.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from skqeq import QEqRegressor
        >>> water = molecule("H2O")
        >>> model = QEqRegressor().fit([water], [[0.0, 0.0, -0.39]])
        >>> [born] = model.predict_born_effective_charges([water])
        >>> bool(abs(born.sum(axis=0)).max() < 1e-9)
        True
        """
        return self.predict_target(X, "born_effective_charges")


def observed(name: str, solution: Solution) -> Any:
    """The prediction of a target in the form of its label; None if it is undefined.

    Parameters
    ----------
    name : str
        The target.
    solution : Solution
        The solution of a structure.

    Returns
    -------
    value : float or ndarray or None
        In the form of `skqeq.make_targets`.
    """
    target, structure = TARGETS[name], solution.structure
    if not target.defined(structure).any():
        return None
    return target.as_label(structure, target.observe(solution))
