"""Figures of the charges of a molecule, and of the charges of every element in a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import natural_cutoffs, neighbor_list

from .._colors import COLORS, charge_limit
from .._counts import counted
from ..parameters import DEBYE
from ._style import GREY, axes_or_new, charge_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from .._typing import Column


DIPOLE_COLOR = "#117733"
# Length of the dipole arrow, Angstrom per Debye.
DIPOLE_SCALE = 0.5
# Radius of a drawn atom in units of its covalent radius; small enough that bonds are visible.
ATOM_SCALE = 0.6
# Smallest width and height of the view, Angstrom.
SMALLEST_FRAME = (3.0, 2.4)


def plot_molecule(
    atoms: Atoms,
    charges: ArrayLike,
    dipole: ArrayLike | None = None,
    *,
    dipole_scale: float = DIPOLE_SCALE,
    limit: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a molecule in its principal plane, with its atoms coloured by charge.

    Parameters
    ----------
    atoms : ase.Atoms
        Molecule; the view is along its shortest principal axis.
    charges : array-like of shape (n_atoms,)
        Charges of the atoms, e: white for zero, red for negative, blue for positive.
    dipole : array-like of shape (3,), default=None
        Dipole moment, e*Angstrom. An arrow from negative to positive charge shows its projection on
        the plane. The arrow starts at the centre of mass.
    dipole_scale : float, default=0.5
        Length of the arrow, Angstrom per Debye.
    limit : float, default=None
        Charge of the darkest colours, e; None uses the largest absolute value of `charges`. To
        compare panels, use one value for all of them.
    ax : matplotlib.axes.Axes, default=None
        Axes to draw into; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Axes of the figure.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.plotting import plot_molecule
    >>> ax = plot_molecule(molecule("H2O"), [-0.6, 0.3, 0.3], dipole=[0.0, 0.0, -0.39])
    >>> [text.get_text() for text in ax.texts][:3]
    ['O', 'H', 'H']
    """
    charges = np.asarray(charges, dtype=np.float64)
    if charges.shape != (len(atoms),):
        raise ValueError(
            f"charges have shape {charges.shape}, but atoms holds {counted(len(atoms), 'atom')}"
        )
    ax = axes_or_new(ax, (5.6, 4.4))
    view = principal_axes(atoms.positions)
    center = atoms.get_center_of_mass()
    xyz = (atoms.positions - center) @ view.T
    radii = ATOM_SCALE * covalent_radii[atoms.numbers]
    arrow = None
    if dipole is not None:
        dipole = np.asarray(dipole, dtype=np.float64)
        arrow = dipole_scale * DEBYE * (dipole @ view.T)[:2]
    _frame(ax, xyz[:, :2], radii, arrow)
    _draw_bonds(ax, atoms, xyz)
    disks = _draw_atoms(ax, xyz, radii, charges, limit or charge_limit(charges))
    _label_atoms(ax, atoms, xyz, radii, disks.to_rgba(charges))
    bar = ax.figure.colorbar(disks, ax=ax, shrink=0.75, pad=0.02)
    bar.set_label("charge (e)")
    bar.outline.set_visible(False)
    if dipole is not None:
        _draw_dipole(ax, arrow, np.linalg.norm(dipole), dipole_scale)
    return ax


def plot_charges_by_element(X: Sequence[Atoms], charges: Column, *, ax: Axes | None = None) -> Axes:
    r"""Draw the distribution of charges for every element.

    Parameters
    ----------
    X : sequence of n ase.Atoms
        Structures.
    charges : sequence of n array-likes of shape (n_atoms,)
        Charges of the atoms, e, for example from `skqeq.predict_charges`.
    ax : matplotlib.axes.Axes, default=None
        Axes to draw into; None makes a new figure.

    Returns
    -------
    ax : matplotlib.axes.Axes
        Axes of the figure.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from skqeq.plotting import plot_charges_by_element
    >>> ax = plot_charges_by_element([molecule("H2O")], [[-0.6, 0.3, 0.3]])
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['H\n2', 'O\n1']
    """
    ax = axes_or_new(ax, (5.0, 3.8))
    numbers = np.concatenate([atoms.numbers for atoms in X])
    charges = np.concatenate([np.asarray(q, dtype=np.float64) for q in charges])
    if numbers.shape != charges.shape:
        raise ValueError(f"{counted(len(charges), 'charge')} for {counted(len(numbers), 'atom')}")
    elements = np.unique(numbers)
    rng = np.random.default_rng(0)
    for x, number in enumerate(elements):
        values = charges[numbers == number]
        # A density estimate needs enough values that are not all equal.
        if len(values) > 10 and np.ptp(values) > 0:
            [body] = ax.violinplot(values, [x], widths=0.8, showextrema=False)["bodies"]
            body.set(facecolor=COLORS[0], alpha=0.25)
        spread = x + rng.uniform(-0.12, 0.12, len(values))
        alpha = float(np.clip(10.0 / np.sqrt(len(values)), 0.1, 0.7))
        ax.scatter(spread, values, s=6, color=COLORS[0], alpha=alpha, linewidths=0, zorder=2)
        ax.hlines(np.median(values), x - 0.25, x + 0.25, color="black", linewidth=1.5, zorder=3)
    counts = [np.sum(numbers == number) for number in elements]
    names = [f"{chemical_symbols[z]}\n{n}" for z, n in zip(elements, counts, strict=True)]
    ax.set_xticks(range(len(elements)), names)
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    ax.set_xlabel("element and number of atoms")
    ax.set_ylabel("charge (e)")
    return ax


def principal_axes(positions):
    """Principal axes of positions (n, 3) as rows of a rotation matrix, the longest axis first."""
    axes = np.linalg.svd(positions - positions.mean(axis=0))[2]
    # The SVD gives axes with arbitrary signs. The signs are chosen such that all copies of a
    # molecule are drawn alike. The cross product avoids a mirror image.
    for axis in axes[:2]:
        axis *= np.sign(axis[np.abs(axis).argmax()])
    axes[2] = np.cross(axes[0], axes[1])
    return axes


def _frame(ax, xy, radii, arrow):
    """Set limits that show every atom and the arrow, with the same scale for x and y."""
    corners = [xy - radii[:, None], xy + radii[:, None]]
    if arrow is not None:
        corners.append(arrow[None] * 1.05)
    corners = np.concatenate(corners)
    low, high = corners.min(axis=0), corners.max(axis=0)
    # Add a margin, and use a minimum size so that single atoms are not drawn too large.
    margin = np.maximum(0.2, (SMALLEST_FRAME - (high - low)) / 2)
    low, high = low - margin, high + margin
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    ax.set_axis_off()


def _draw_bonds(ax, atoms, xyz):
    from matplotlib.collections import LineCollection

    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
    lines = [xyz[[a, b], :2] for a, b in zip(i, j, strict=True) if a < b]
    ax.add_collection(LineCollection(lines, colors="#8c8c8c", linewidths=4.0, zorder=1))


def _draw_atoms(ax, xyz, radii, charges, limit):
    """Draw atoms as disks, with the farthest atom first."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    order = np.argsort(xyz[:, 2])
    disks = PatchCollection(
        [Circle(xyz[i, :2], radii[i]) for i in order],
        edgecolor="#404040",
        linewidth=1.0,
        zorder=2,
        **charge_colors(limit),
    )
    disks.set_array(charges[order])
    return ax.add_collection(disks)


def _label_atoms(ax, atoms, xyz, radii, colors):
    """Write the element symbol of every atom whose centre no other atom covers.

    Larger disks have larger symbols. The symbols are white on dark colours and black on others. A
    background with the colour of the disk makes a gap in the arrow of the dipole.
    """
    width = ax.get_window_extent().width * 72.0 / ax.figure.dpi
    points_per_angstrom = width / np.ptp(ax.get_xlim())
    for i, (symbol, radius) in enumerate(zip(atoms.symbols, radii, strict=True)):
        if _is_covered(i, xyz, radii):
            continue
        red, green, blue, _ = colors[i]
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        style = {
            "ha": "center",
            "va": "center_baseline",
            "fontsize": np.clip(radius * points_per_angstrom, 4.0, 12.0),
            "color": "white" if dark else "black",
            "bbox": {"boxstyle": "circle,pad=0.05", "facecolor": colors[i], "linewidth": 0},
        }
        ax.text(*xyz[i, :2], symbol, zorder=5, **style)


def _is_covered(i, xyz, radii):
    """Whether the centre of atom i is hidden behind another atom."""
    distance = np.linalg.norm(xyz[:, :2] - xyz[i, :2], axis=1)
    return np.any((distance < radii) & (xyz[:, 2] > xyz[i, 2]))


def _draw_dipole(ax, arrow, norm, dipole_scale):
    from matplotlib.patheffects import withStroke

    style = {
        "arrowstyle": "-|>",
        "color": DIPOLE_COLOR,
        "linewidth": 2.5,
        "mutation_scale": 18,
        "shrinkA": 0,
        "shrinkB": 0,
        "path_effects": [withStroke(linewidth=4.5, foreground="w")],
    }
    ax.annotate("", arrow, (0.0, 0.0), arrowprops=style, zorder=4)
    text = f"|μ| = {DEBYE * norm:.2f} D (arrow from − to +, {dipole_scale:g} Å per D)"
    ax.text(0.5, -0.02, text, transform=ax.transAxes, ha="center", va="top", color=DIPOLE_COLOR)
