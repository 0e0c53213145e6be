"""Compare fields and their design rows with dense matrices, column by column."""

import numpy as np
import pytest
from ase.build import molecule
from numpy.testing import assert_allclose, assert_array_equal

from skqeq.fields import AtomRows, ElementTable, Field, FieldLayout
from skqeq.structures import NoFeatures, StackedSource, StructureFeatures, check_structures

ELEMENTS = np.array([1, 6, 8])
X = [molecule(name) for name in ("H2O", "CH4", "CO2", "CH3OH")]


def lookup(table, name):
    return table[ELEMENTS]


def features_of(width, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(len(atoms), width)) for atoms in X]
    return arrays, StructureFeatures.from_arrays(check_structures(X), arrays).source


TABLE = ElementTable(np.arange(120.0) / 10, "number")
FIELDS = [
    Field("chi", "chi", ("chi",), amplitude=0.5, baseline=3.0, mean=TABLE),
    # The field has features, but no constants of elements.
    Field("near", "energy", ("near",), amplitude=2.0),
    Field("reference", "reference", ("chi",), amplitude=0.1, baseline=0.0),
    Field("far", "energy", ("far",), amplitude=0.7, baseline=0.2),
    # The field has constants of elements, but no features.
    Field("atoms", "energy", baseline=10.0, mean=TABLE),
]
WIDTHS = [3, 2, 3, 4, 0]
STARTS = {"chi": 0, "near": 6, "reference": 8, "far": 14, "atoms": 21}


@pytest.fixture(scope="module")
def case():
    """A layout of five fields, their features, and their values as dense matrices."""
    layout = FieldLayout(FIELDS, WIDTHS, ELEMENTS, lookup)
    chi, of_chi = features_of(3, 0)
    near, of_near = features_of(2, 1)
    far, of_far = features_of(4, 2)
    source = StackedSource([of_chi, of_near, of_chi, of_far, NoFeatures()])
    dense = []
    for s, atoms in enumerate(X):
        constants = (atoms.numbers[:, None] == ELEMENTS).astype(float)
        none = np.zeros((len(atoms), 0))
        parts = [(chi, constants), (near, none), (chi, constants), (far, constants)]
        dense.append([np.hstack([phi[s], onehot]) for phi, onehot in parts] + [constants])
    return layout, StructureFeatures(check_structures(X), source), dense


def test_places_of_weights_and_their_priors(case):
    layout, _, _ = case
    assert layout.names == ["chi", "near", "reference", "far", "atoms"]
    assert layout.n_columns == 6 + 2 + 6 + 7 + 3
    for (of_features, constants), field, width in zip(layout.columns, FIELDS, WIDTHS, strict=True):
        start, n_constants = STARTS[field.name], 0 if field.baseline is None else 3
        assert of_features == slice(start, start + width)
        assert constants == slice(start + width, start + width + n_constants)
        assert (layout.scale[of_features] == field.amplitude).all()
        assert (layout.scale[constants] == field.baseline).all()
    assert layout.entering("energy") == [1, 3, 4]
    assert layout.entering("chi") == [0]
    assert layout.entering("nowhere") == []
    assert_array_equal(layout.means[[0, 4]], [[0.1, 0.6, 0.8]] * 2)
    assert not layout.means[[1, 2, 3]].any()


def test_weights_in_units_of_the_prior(case):
    layout, _, _ = case
    weights = np.arange(1.0, 1.0 + layout.n_columns)
    v = layout.in_prior_units(weights)
    free = layout.scale > 0
    assert_allclose(layout.scale[free] * v[free], weights[free])
    # The constants of the reference charge have a prior of zero width.
    assert not v[~free].any() and (~free).sum() == 3


def test_elements(case):
    layout, _, _ = case
    numbers = np.array([8, 1, 1, 6])
    assert layout.slots(numbers).tolist() == [2, 0, 0, 1]
    assert layout.onehot(numbers).tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 0], [0, 1, 0]]
    [methanol] = check_structures(X[3:])
    assert layout.counts(methanol).tolist() == [4, 1, 1]


def test_missing_elements_are_refused_by_the_lookup():
    def refuse(table, name):
        raise ValueError(f"no {name}")

    with pytest.raises(ValueError, match="no number"):
        FieldLayout(FIELDS, WIDTHS, ELEMENTS, refuse)


def naive_values(weights, dense, atoms):
    """Add the fields that contribute to chi, to the energy, or to the reference charges."""
    columns = np.split(weights, list(STARTS.values())[1:])
    fields = [matrix @ w for matrix, w in zip(dense, columns, strict=True)]
    mean = TABLE.values[atoms.numbers]
    return {
        "chi": mean + fields[0],
        "energy": fields[1] + fields[3] + fields[4] + mean,
        "reference": fields[2],
    }


def test_values(case):
    layout, features, dense = case
    weights = np.random.default_rng(3).normal(size=layout.n_columns)
    for s, atoms in enumerate(X):
        learned = [
            matrix[:, : len(weights[part])] @ weights[part]
            for matrix, (part, _) in zip(dense[s], layout.columns, strict=True)
        ]
        found = layout.values(learned, weights, atoms.numbers)
        for place, expected in naive_values(weights, dense[s], atoms).items():
            assert_allclose(found[place], expected, rtol=0, atol=1e-14)
        found = layout.prior_values(atoms.numbers)
        for place, expected in naive_values(0 * weights, dense[s], atoms).items():
            assert_allclose(found[place], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("present", [["chi", "energy", "reference"], ["energy"], ["chi"]])
def test_design(case, present, scaled):
    """Design matrices turn derivatives for the atoms into derivatives for the weights."""
    layout, features, dense = case
    rng = np.random.default_rng(4)
    [(_, block)] = list(features.blocks())
    rows, expected, residuals = AtomRows(), [], []
    # The labels are in another order than the structures, and structure 1 has none.
    for s in (3, 0, 2):
        k = s + 1
        factors = {place: rng.normal(size=(k, len(X[s]))) for place in present}
        residuals.append(rng.normal(size=k))
        rows.add(factors, residuals[-1], block.offsets[s])
        J = [
            factors.get(field.enters, np.zeros((k, len(X[s])))) @ matrix
            for field, matrix in zip(FIELDS, dense[s], strict=True)
        ]
        expected.append(np.hstack(J) * (layout.scale if scaled else 1.0))
    [(J, residual)] = list(layout.design(block, rows, scaled=scaled))
    assert_allclose(J, np.concatenate(expected), rtol=0, atol=1e-13)
    assert_array_equal(residual, np.concatenate(residuals))


def test_design_of_no_rows(case):
    layout, features, _ = case
    [(_, block)] = list(features.blocks())
    assert not AtomRows()
    assert list(layout.design(block, AtomRows())) == []


def test_rows_may_lack_some_places():
    """A structure may have rows for chi or for the energy only; the other rows are zero."""
    rows = AtomRows()
    rows.add({"chi": np.ones((1, 2))}, np.array([1.0]), first_atom=0)
    rows.add({"energy": np.full((2, 1), 3.0)}, np.array([2.0, 3.0]), first_atom=4)
    assert rows
    [(factors, residual)] = list(rows.chunks(n_atoms=5))
    assert factors["chi"].toarray().tolist() == [[1, 1, 0, 0, 0], [0] * 5, [0] * 5]
    assert factors["energy"].toarray().tolist() == [[0] * 5, [0, 0, 0, 0, 3], [0, 0, 0, 0, 3]]
    assert residual.tolist() == [1.0, 2.0, 3.0]


def test_chunks_of_rows():
    """Rows of one structure stay together; only a structure with many rows exceeds the maximum."""
    rows, sizes = AtomRows(), [2, 3, 1, 7, 1, 1]
    for first, size in enumerate(sizes):
        rows.add({"chi": np.full((size, 1), first + 1.0)}, np.full(size, float(first)), first)
    chunks = list(rows.chunks(n_atoms=6, max_rows=4))
    assert [len(residual) for _, residual in chunks] == [2, 4, 7, 2]
    dense = np.concatenate([factors["chi"].toarray() for factors, _ in chunks])
    expected = np.repeat(np.diag(np.arange(1.0, 7.0)), sizes, axis=0)
    assert_array_equal(dense, expected)
