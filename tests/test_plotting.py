import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from skqeq.parameters import DEBYE

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.collections import LineCollection, PatchCollection, PathCollection  # noqa: E402

from skqeq.plotting import (  # noqa: E402
    charge_colors,
    model_colors,
    plot_charges_by_element,
    plot_learning_curve,
    plot_molecule,
    plot_parity,
    plot_spectrum,
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def offsets(ax):
    return [c.get_offsets() for c in ax.collections if isinstance(c, PathCollection)]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def arrow(ax):
    """Tail and head of the dipole arrow."""
    [note] = [text for text in ax.texts if getattr(text, "arrow_patch", None) is not None]
    return np.array(note.xyann), np.array(note.xy)


def test_parity_of_vectors_shows_norms_in_debye(ax):
    truth = np.array([[0.0, 0.0, 1.0], [0.3, 0.4, 0.0], [np.nan] * 3])
    predicted = np.array([[0.0, 0.5, 0.0], [0.5, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert plot_parity(truth, predicted, ax=ax) is ax
    [points] = offsets(ax)
    np.testing.assert_allclose(points, DEBYE * np.array([[1.0, 0.5], [0.5, 0.5]]))
    mae, rmse = DEBYE * 0.25, DEBYE * 0.5 / np.sqrt(2)
    assert legend(ax) == [f"MAE {mae:#.3g} D, RMSE {rmse:#.3g} D"]
    assert ax.get_xlabel() == "reference |μ| (D)"
    assert ax.get_ylabel() == "predicted |μ| (D)"
    assert ax.get_xlim() == ax.get_ylim()


def test_parity_of_several_models_and_ragged_labels(ax):
    truth = [np.array([0.1, -0.1]), None, np.array([0.0, 0.2, -0.2])]
    first = [np.array([0.2, -0.1]), np.zeros(2), np.array([0.0, 0.2, -0.2])]
    plot_parity(truth, {"a": first, "b": truth[:1] + first[1:]}, unit="e", label="charge", ax=ax)
    points = offsets(ax)
    np.testing.assert_allclose(points[0][:, 0], [0.1, -0.1, 0.0, 0.2, -0.2])
    np.testing.assert_allclose(points[0][:, 1], [0.2, -0.1, 0.0, 0.2, -0.2])
    assert legend(ax)[0].startswith("a: MAE 0.0200 e")
    assert legend(ax)[1].startswith("b: MAE 0.00 e")
    assert ax.get_xlabel() == "reference charge (e)"


def test_parity_of_forces_draws_every_component(ax):
    forces = [np.arange(6.0).reshape(2, 3), np.arange(9.0).reshape(3, 3)]
    predicted = [f + 0.5 for f in forces]
    options = {"unit": "eV/Angstrom", "label": "force", "ax": ax}
    plot_parity(forces, predicted, **options)
    # With a unit of forces, an array of shape (n, 3) holds forces and not dipoles.
    plot_parity(np.concatenate(forces), np.concatenate(predicted), **options)
    plot_parity(np.concatenate(forces).ravel(), np.concatenate(predicted).ravel(), **options)
    expected = np.concatenate([f.ravel() for f in forces])
    for points in offsets(ax):
        np.testing.assert_array_equal(points, np.stack([expected, expected + 0.5], axis=1))
    assert len(offsets(ax)) == 3
    assert legend(ax)[0] == "MAE 0.500 eV/Angstrom, RMSE 0.500 eV/Angstrom"
    assert ax.get_xlabel() == "reference force (eV/Angstrom)"


def test_parity_refuses_other_lengths(ax):
    with pytest.raises(ValueError, match="2 references for 3 predictions"):
        plot_parity(np.zeros(2), np.zeros(3), ax=ax)


def test_learning_curve_is_logarithmic_with_mean_and_range(ax):
    errors = np.array([[0.4, 0.6], [0.2, 0.4], [0.1, 0.3]])
    both = {"kQEq": errors, "QEq": np.full((3, 2), 0.7)}
    assert plot_learning_curve([50, 100, 200], both, unit="D", label="error", ax=ax) is ax
    assert ax.get_xscale() == ax.get_yscale() == "log"
    line = ax.lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [50, 100, 200])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.3, 0.2])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0.1
    assert band[:, 1].max() == 0.6
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["50", "100", "200"]
    assert ax.get_ylabel() == "error (D)"
    assert legend(ax) == ["kQEq", "QEq"]


@pytest.mark.parametrize("errors", [[0.1, 0.2], [[0.1], [0.2], [0.3]]])
def test_learning_curve_refuses_other_shapes(ax, errors):
    with pytest.raises(ValueError, match="but there are 2 sizes"):
        plot_learning_curve([10, 20], errors, ax=ax)


def test_molecule_draws_atoms_bonds_and_labels(ax):
    atoms = molecule("CH3OH")
    charges = np.linspace(-0.5, 0.3, len(atoms))
    assert plot_molecule(atoms, charges, ax=ax) is ax
    [disks] = [c for c in ax.collections if isinstance(c, PatchCollection)]
    np.testing.assert_allclose(np.sort(disks.get_array()), charges)
    assert disks.norm.vcenter == 0.0
    assert disks.norm(-0.5) == pytest.approx(1.0 - disks.norm(0.5))
    red, blue = (disks.cmap(disks.norm(q)) for q in (-0.5, 0.5))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    [bonds] = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert len(bonds.get_segments()) == 5
    labels = [text.get_text() for text in ax.texts]
    assert set(labels) == {"C", "O", "H"}
    assert ax.figure.axes[1].get_ylabel() == "charge (e)"
    assert ax.get_aspect() == 1.0


@pytest.mark.parametrize("sign", [-1, 1])
def test_negative_atoms_are_red_in_the_picture(ax, sign):
    plot_molecule(molecule("CH3OH"), np.full(6, 0.3 * sign), ax=ax)
    ax.figure.axes[1].remove()  # the bar, which has both colours
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3] / 255
    redder = pixels[..., 0] - pixels[..., 2]
    assert np.sum(-sign * redder > 0.2) > 1000
    assert np.sum(sign * redder > 0.1) == 0


def test_charges_have_symmetric_colours():
    colors = charge_colors(0.4)
    color = {q: colors["cmap"](colors["norm"](q)) for q in (-0.4, -0.1, 0.0, 0.1, 0.4)}
    for q in (0.1, 0.4):
        assert color[-q][0] > color[-q][2] + 0.1
        assert color[q][2] > color[q][0] + 0.1
    assert np.ptp(color[0.0]) < 0.05


def test_panels_can_share_the_range_of_colours():
    for charges in ([-0.6, 0.3, 0.3], [-0.2, 0.1, 0.1]):
        ax = plot_molecule(molecule("H2O"), charges, limit=0.6)
        [disks] = [c for c in ax.collections if isinstance(c, PatchCollection)]
        assert disks.get_clim() == (-0.6, 0.6)


def test_a_model_has_one_colour_in_all_figures():
    every = model_colors(["GAP", "mine", "QEq", "kQEq", "GAP+kQEq", "ChargeFlow"])
    assert len(set(every.values())) == len(every)
    assert set(model_colors(map(str, range(20)))) == set(map(str, range(20)))
    for names in (["kQEq"], ["QEq", "kQEq"], ["mine", "QEq"], ["GAP+kQEq", "kQEq"]):
        for name, color in model_colors(names).items():
            assert name == "mine" or color == every[name]
    values = np.arange(12.0).reshape(4, 3)
    for models in (["QEq", "kQEq"], ["mine", "kQEq"]):
        parity = plot_parity(values, dict.fromkeys(models, values))
        curve = plot_learning_curve(range(1, 5), dict.fromkeys(models, values + 1.0))
        spectrum = plot_spectrum(range(4), dict.fromkeys(models, values[:, 1]))
        for name, color in model_colors(models).items():
            i = models.index(name)
            points = [c for c in parity.collections if isinstance(c, PathCollection)][i]
            drawn = [points.get_facecolor()[0][:3], curve.lines[i].get_color()]
            for one in (*drawn, spectrum.lines[i].get_color()):
                assert matplotlib.colors.to_hex(one) == color.lower()


def test_dipole_arrow_points_from_minus_to_plus_at_the_stated_scale(ax):
    atoms = molecule("CO")
    # The direction is along the bond, from the second atom to the first.
    direction = atoms.positions[0] - atoms.positions[1]
    direction /= np.linalg.norm(direction)
    charges = np.array([0.2, -0.2])
    plot_molecule(atoms, charges, 0.5 * direction, dipole_scale=0.8, ax=ax)
    tail, head = arrow(ax)
    # The tail of the arrow is at the centre of mass.
    np.testing.assert_array_equal(tail, [0.0, 0.0])
    assert np.linalg.norm(head) == pytest.approx(0.8 * DEBYE * 0.5)
    centers = {t.get_text(): np.array(t.get_position()) for t in ax.texts[:2]}
    along = centers[atoms.symbols[0]] - centers[atoms.symbols[1]]
    np.testing.assert_allclose(head / np.linalg.norm(head), along / np.linalg.norm(along))
    assert ax.texts[-1].get_text() == "|μ| = 2.40 D (arrow from − to +, 0.8 Å per D)"


def test_view_is_a_rotation_onto_the_plane(ax):
    atoms = molecule("C6H6")
    atoms.rotate(50, (1, 2, 3))
    plot_molecule(atoms, np.zeros(12), ax=ax)
    drawn = np.array([text.get_position() for text in ax.texts])
    distances = np.linalg.norm(drawn[:, None] - drawn[None], axis=-1)
    np.testing.assert_allclose(distances, atoms.get_all_distances(), atol=1e-6)


def test_covered_atoms_have_no_label(ax):
    square = [[2, 2, 0], [-2, 2, 0], [2, -2, 0], [-2, -2, 0]]
    middle = [[0, 0, 0.9], [0, 0, -0.9]]
    plot_molecule(Atoms("C4OO", [*square, *middle]), np.zeros(6), ax=ax)
    assert [text.get_text() for text in ax.texts] == ["C", "C", "C", "C", "O"]


@pytest.mark.parametrize("name", ["H", "H2", "CH4", "C2H2"])
def test_degenerate_molecules_are_drawn(name):
    atoms = molecule(name)
    ax = plot_molecule(atoms, np.zeros(len(atoms)), [0.0, 0.0, 0.0])
    ax.figure.canvas.draw()
    assert np.ptp(ax.get_xlim()) >= 3.0


def test_molecule_refuses_other_lengths(ax):
    with pytest.raises(ValueError, match="but atoms holds 3 atoms"):
        plot_molecule(molecule("H2O"), [0.1, 0.2], ax=ax)


def test_charges_by_element(ax):
    X = [molecule("H2O"), molecule("CH4")] * 6
    charges = [np.linspace(-0.5, 0.5, len(atoms)) for atoms in X]
    plot_charges_by_element(X, charges, ax=ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["H\n36", "C\n6", "O\n6"]
    drawn = offsets(ax)
    assert [len(points) for points in drawn] == [36, 6, 6]
    np.testing.assert_array_equal(drawn[2][:, 1], -0.5)
    with pytest.raises(ValueError, match="charges for"):
        plot_charges_by_element(X, charges[1:], ax=ax)


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"skqeq\[plots\]"):
        plot_parity(np.zeros(2), np.zeros(2))
