"""Trajectories driven by a model: how structures are explored, and when a trajectory ends.

A trajectory ends early for one of three reasons: two atoms are too close, the model is too
uncertain, or the model cannot be evaluated on a structure. Any other exception comes from the
exploring function; it is passed on to the caller.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.calculators.calculator import all_changes
from ase.md.langevin import Langevin
from ase.neighborlist import natural_cutoffs, neighbor_list

from ..calculator import KQEqCalculator
from ..models import unwrap
from ..structures import strip
from ._selection import uncertainty

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms


class ModelBreakdownError(ValueError):
    """A model cannot be evaluated on a structure.

    The calculator of an exploration raises this error, for example if atoms are on top of each
    other, if positions are not finite, or if the charges do not converge. The error ends the
    trajectory, and its message becomes ``info["stopped"]`` of the last structure. An exploring
    function may also raise it, to end a trajectory and to give the reason.

    Examples
    --------
    >>> from skqeq.active_learning import ModelBreakdownError
    >>> def compress(atoms, rng):
    ...     for _ in range(10):
    ...         atoms.positions *= 0.95
    ...         if atoms.get_potential_energy() > 1e3:
    ...             raise ModelBreakdownError("the energy is above 1 keV")
    ...         yield atoms
    """


@contextmanager
def breakdowns():
    """A context manager that turns errors of a model into `ModelBreakdownError`."""
    try:
        yield
    except (ValueError, ArithmeticError, RuntimeError) as error:
        # Conjugate gradients that do not converge raise exactly a RuntimeError. Its subclasses have
        # other causes, such as a property that the model does not have, or a killed worker process.
        if isinstance(error, RuntimeError) and type(error) is not RuntimeError:
            raise
        raise ModelBreakdownError(one_line(error)) from error


class ExplorationCalculator(KQEqCalculator):
    """A calculator that turns errors of the model into `ModelBreakdownError`."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`, or raise ModelBreakdownError if the model cannot be evaluated."""
        with breakdowns():
            super().calculate(atoms, properties, system_changes)


def run_trajectory(
    explore: Any,
    model: Any,
    start: Atoms,
    rng: np.random.Generator,
    *,
    min_distance: float,
    max_uncertainty: float,
) -> tuple[list[Atoms], str | None]:
    """Explore from one structure until a limit is reached or the exploration ends.

    Parameters
    ----------
    explore : callable
        ``explore(atoms, rng)`` yields structures.
    model : fitted estimator
        Pipeline whose last transformer is `skqeq.CURSparsifier`.
    start : ase.Atoms
        First structure.
    rng : numpy.random.Generator
        Random number generator that is passed to `explore`.
    min_distance : float
        Shortest allowed distance between two atoms, in units of the sum of their covalent radii.
    max_uncertainty : float
        Largest allowed `uncertainty`; the first structure above it is the last one of the
        trajectory.

    Returns
    -------
    structures : list of ase.Atoms
        `start` and the explored structures, with ``info["uncertainty"]``.
    stopped : str or None
        Reason why the trajectory ended early; None if the exploration was completed.
    """
    transformer, _ = unwrap(model)
    atoms = start.copy()
    atoms.calc = ExplorationCalculator(model)
    structures = [start]
    try:
        for explored in explore(atoms, rng):
            with breakdowns():
                [structure] = strip([explored])
            cutoffs = natural_cutoffs(structure, mult=min_distance)
            if neighbor_list("i", structure, cutoffs).size:
                return structures, "atoms that are too close"
            with breakdowns():
                [value] = uncertainty(transformer([structure]))
            structure.info["uncertainty"] = value
            structures.append(structure)
            if value > max_uncertainty:
                return structures, f"an uncertainty of {value:.3g}"
    except ModelBreakdownError as error:
        return structures, " ".join(str(error).split())
    return structures, None


@dataclass(frozen=True)
class LangevinDynamics:
    """Langevin dynamics from random velocities: the default way to explore.

    Parameters
    ----------
    temperature : float, default=300.0
        Temperature of the thermostat and of the initial velocities, K.
    timestep : float, default=1.0
        Time step, fs.
    friction : float, default=0.01
        Friction of the thermostat, 1/fs.
    n_steps : int, default=1000
        Number of steps of a trajectory.
    interval : int, default=20
        Number of steps between structures that become candidates.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from ase.calculators.emt import EMT
    >>> from skqeq.active_learning import LangevinDynamics
    >>> water = molecule("H2O")
    >>> water.calc = EMT()
    >>> explore = LangevinDynamics(n_steps=10, interval=5)
    >>> len([atoms.copy() for atoms in explore(water, np.random.default_rng(0))])
    2
    """

    temperature: float = 300.0
    timestep: float = 1.0
    friction: float = 0.01
    n_steps: int = 1000
    interval: int = 20

    def __call__(self, atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
        """Run the dynamics, and yield the structure every `interval` steps.

        Parameters
        ----------
        atoms : ase.Atoms
            First structure, with a calculator; positions and velocities are changed in place.
        rng : numpy.random.Generator
            Source of the initial velocities and of the noise of the thermostat.

        Yields
        ------
        atoms : ase.Atoms
            The same object at later times.
        """
        speed = np.sqrt(units.kB * self.temperature / atoms.get_masses())[:, None]
        atoms.set_velocities(speed * rng.standard_normal((len(atoms), 3)))
        dynamics = Langevin(
            atoms,
            self.timestep * units.fs,
            temperature_K=self.temperature,
            friction=self.friction / units.fs,
            # ASE is going to remove this option. It must be off, because a fixed centre of mass
            # makes the temperature of small systems wrong.
            fixcm=False,
            rng=rng,
        )
        for _ in range(self.n_steps // self.interval):
            dynamics.run(self.interval)
            yield atoms


def one_line(error):
    """The type and the message of an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
