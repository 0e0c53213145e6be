"""The power spectrum from neighbour lists, and its derivatives."""

from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import eval_legendre

from skqeq import SOAPFeaturizer
from skqeq.features import SOAPNeighborhood
from skqeq.structures import check_structures

from .. import helpers

WEIGHTING = {"H": 0.5, "C": 1.0, "N": 1.5, "O": 2.0, "F": 3.0, "Na": 0.7, "Al": 1.3, "Cl": 1.1}
MODES = ["off", "mu2", "mu1nu1", "crossover"]


def crystal():
    """Rattled rock salt; each atom has many periodic images of itself among its neighbours."""
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.rattle(0.1, seed=0)
    return atoms


def slab():
    atoms = fcc111("Al", (1, 2, 2))  # ASE gives this slab no third cell vector.
    atoms.numbers[0] = 13 + 4
    atoms.rattle(0.1, seed=1)
    return atoms


STRUCTURES = {
    "molecule": helpers.rattled("CH3NO2", 0),
    "two": helpers.rattled("HF", 1),
    "one": Atoms("O", [[0.1, 0.2, 0.3]]),
    "crystal": crystal(),
    "small crystal": bulk("Al"),
    "slab": slab(),
}


def neighborhood_of(atoms, **options):
    """Neighbourhood of the structure, and the rows from DScribe."""
    options = {"r_cut": 3.0, "n_max": 3, "l_max": 3} | options
    [structure] = check_structures([atoms])
    [spectrum] = SOAPFeaturizer(**options).fit([atoms]).spectra_
    return SOAPNeighborhood(spectrum, structure), spectrum.rows(structure)


def pull_back(neighborhood, cotangents):
    """Derivatives with respect to positions and strain of the rows, contracted with cotangents."""
    return neighborhood.gather(neighborhood.pull_back(cotangents))


def cotangents_for(rows, seed=0):
    return np.random.default_rng(seed).normal(size=rows.shape)


def assert_close(found, expected, tolerance):
    assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("weighting", [None, WEIGHTING], ids=["plain", "weighted"])
@pytest.mark.parametrize("compression", MODES)
def test_rows_are_those_of_dscribe(name, compression, weighting):
    near, expected = neighborhood_of(
        STRUCTURES[name], compression=compression, species_weighting=weighting
    )
    assert_close(near.rows(), expected, 1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"n_max": 1, "l_max": 0},
        {"n_max": 2, "l_max": 1},
        {"n_max": 8, "l_max": 6, "r_cut": 3.5},
        {"n_max": 2, "l_max": 20},
        {"r_cut": 4.4, "sigma_atom": 0.3},
    ],
    ids=repr,
)
def test_options(options):
    for name in ("molecule", "crystal"):
        near, expected = neighborhood_of(STRUCTURES[name], **options)
        assert_close(near.rows(), expected, 1e-10)


@pytest.mark.parametrize("compression", ["off", "crossover"])
def test_pull_back_is_that_of_dscribe(compression):
    """DScribe has an analytical derivative for molecules without weighting."""
    from dscribe.descriptors import SOAP

    atoms = STRUCTURES["molecule"]
    options = {"r_cut": 3.0, "n_max": 4, "l_max": 3}
    near, rows = neighborhood_of(atoms, compression=compression, **options)
    soap = SOAP(
        species=["H", "C", "N", "O"],
        sigma=3.0 / 8,
        compression={"mode": compression, "species_weighting": None},
        **options,
    )
    full, _ = soap.derivatives(atoms, attach=True, method="analytical")
    cotangents = cotangents_for(rows)
    gradient, _ = pull_back(near, cotangents)
    assert_close(gradient, np.einsum("cf,cjaf->ja", cotangents, full), 1e-8)


def naive_rows(atoms, r_cut, width, n_max, l_max, weighting):
    """Power spectra by the addition theorem, ``sum_m Y_lm(a) Y_lm(b) = (2 l + 1) / 4 pi P_l(a b)``.

    The function sums over pairs of neighbours, and needs no spherical harmonics.
    """
    from dscribe.descriptors import SOAP

    sigma = r_cut / 8
    species = np.unique(atoms.numbers)
    soap = SOAP(species=species, r_cut=r_cut, n_max=n_max, l_max=l_max, sigma=sigma)
    alphas, betas = soap.get_basis_gto(r_cut, n_max, l_max)
    eta = 1 / (2 * sigma**2)
    images = atoms.repeat(np.where(atoms.pbc, 9, 1))
    middle = 4 * np.where(atoms.pbc, 1, 0) @ atoms.cell.array
    rows = []
    for center in atoms.positions + middle:
        D = images.positions - center
        r = np.linalg.norm(D, axis=1)
        near = np.flatnonzero(r < r_cut)
        D, r, numbers, symbols = D[near], r[near], images.numbers[near], images.symbols[near]
        x = np.maximum((r - r_cut + width) / width, 0)
        density = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
        density *= [weighting[symbol] for symbol in symbols]
        cosines = D @ D.T / np.maximum(np.outer(r, r), 1e-9)
        row = []
        for z in species:
            for other in species[species >= z]:
                for l in range(l_max + 1):
                    a, b = alphas[l], betas[l]
                    radial = (np.pi / (eta + a)) ** 1.5 * (eta / (eta + a)) ** l
                    radial = radial * np.exp(-np.outer(r**2, a * eta / (a + eta))) @ b.T
                    radial *= (density * r**l)[:, None]
                    angular = eval_legendre(l, cosines) * (2 * l + 1) / (4 * np.pi)
                    some, others = numbers == z, numbers == other
                    p = radial[some].T @ angular[np.ix_(some, others)] @ radial[others]
                    p *= np.pi * np.sqrt(8 / (2 * l + 1))
                    row.extend(p[np.triu_indices(n_max)] if z == other else p.ravel())
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("width", [0.7, 3.0])
@pytest.mark.parametrize("name", ["molecule", "one", "crystal"])
def test_smooth_edge(name, width):
    atoms = STRUCTURES[name]
    near, rows = neighborhood_of(atoms, cutoff_width=width, species_weighting=WEIGHTING)
    expected = naive_rows(atoms, 3.0, width, 3, 3, WEIGHTING)
    assert_close(near.rows(), expected, 1e-10)
    assert_array_equal(rows, near.rows())


def slope(function, step=2e-4):
    """Central difference at zero, of fourth order."""
    near, far = (function(h) - function(-h) for h in (step, 2 * step))
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("compression", MODES)
@pytest.mark.parametrize("cutoff_width", [None, 0.9, 3.0])
def test_central_differences(name, compression, cutoff_width):
    atoms = STRUCTURES[name]
    options = {"compression": compression, "species_weighting": WEIGHTING}
    options["cutoff_width"] = cutoff_width
    near, rows = neighborhood_of(atoms, **options)
    cotangents = cotangents_for(rows)
    gradient, virial = pull_back(near, cotangents)
    rng = np.random.default_rng(1)
    shift, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain += strain.T

    def moved(h):
        displaced = atoms.copy()
        displaced.positions += h * shift
        return value(displaced)

    def strained(h):
        deformed = atoms.copy()
        deformed.set_cell(atoms.cell @ (np.eye(3) + h * strain))
        deformed.positions = atoms.positions @ (np.eye(3) + h * strain)
        return value(deformed)

    def value(displaced):
        other, _ = neighborhood_of(displaced, **options)
        if cutoff_width is None:
            # No atom may cross the cutoff, where the features jump.
            assert len(other.i) == len(near.i)
        return np.sum(cotangents * other.rows())

    size = np.linalg.norm(gradient) + np.linalg.norm(virial)
    assert_allclose(np.sum(gradient * shift), slope(moved), rtol=0, atol=1e-8 * size + 1e-12)
    assert_allclose(np.sum(virial * strain), slope(strained), rtol=0, atol=1e-8 * size + 1e-12)
    assert_allclose(gradient.sum(axis=0), 0, atol=1e-12 * size)
    assert_allclose(virial, virial.T, rtol=0, atol=1e-12 * size)


def at_distance(r, cutoff_width):
    """Rows and gradient for two atoms at distance r."""
    atoms = Atoms("CO", [[0, 0, 0], r * np.array([0.48, 0.6, 0.64])])
    near, rows = neighborhood_of(atoms, cutoff_width=cutoff_width)
    return rows, pull_back(near, cotangents_for(rows))[0]


@pytest.mark.parametrize("cutoff_width", [0.5, 1.2])
@pytest.mark.parametrize("edge", ["inner", "outer"])
def test_two_continuous_derivatives(edge, cutoff_width):
    """At both edges of the cutoff function, rows are smooth to second order.

    A small distance h beyond an edge, rows change as h^3, and gradients as h^2.
    """

    def change(h):
        if edge == "outer":
            states = [at_distance(3.0 - h, cutoff_width), at_distance(3.0 + h, cutoff_width)]
        else:
            r = 3.0 - cutoff_width + h
            states = [at_distance(r, cutoff_width), at_distance(r, None)]
        return [np.linalg.norm(a - b) for a, b in zip(*states)]

    h = 1e-3
    values, slopes = zip(change(h), change(2 * h))
    scale = np.linalg.norm(at_distance(3.0, cutoff_width)[0])
    assert 0 < values[0] < 1e-6 * scale
    assert_allclose(values[1] / values[0], 2**3, rtol=0.03)
    assert_allclose(slopes[1] / slopes[0], 2**2, rtol=0.03)


def test_jumps_at_the_edges():
    """Without a cutoff function, features jump at the distance beyond which DScribe drops atoms.

    At this distance the Gaussian of the atom has fallen to 1e-3 of its maximum at the cutoff.
    """
    reach = 3.0 + 3.0 / 8 * np.sqrt(-2 * np.log(1e-3))
    for edge, cutoff_width, jumps in ((reach, None, True), (3.0, 1.0, False)):
        inside, outside = (at_distance(edge + h, cutoff_width)[0] for h in (-1e-8, 1e-8))
        jump = np.abs(inside - outside).max() / np.abs(outside).max()
        assert jump > 1e-6 if jumps else jump < 1e-14


def test_no_force_without_neighbors():
    near, rows = neighborhood_of(STRUCTURES["one"])
    gradient, virial = pull_back(near, cotangents_for(rows))
    assert_array_equal(gradient, np.zeros((1, 3)))
    assert_array_equal(virial, np.zeros((3, 3)))


def test_order_of_the_atoms():
    atoms = STRUCTURES["molecule"]
    order = np.random.default_rng(0).permutation(len(atoms))
    near, rows = neighborhood_of(atoms)
    mixed, _ = neighborhood_of(atoms[order])
    cotangents = cotangents_for(rows)
    gradient, virial = pull_back(near, cotangents)
    other_gradient, other_virial = pull_back(mixed, cotangents[order])
    assert_close(mixed.rows(), near.rows()[order], 1e-12)
    assert_close(other_gradient, gradient[order], 1e-12)
    assert_close(other_virial, virial, 1e-12)


def test_rotation():
    atoms = STRUCTURES["crystal"].copy()
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    near, rows = neighborhood_of(atoms)
    atoms.set_cell(atoms.cell @ rotation, scale_atoms=True)
    turned, _ = neighborhood_of(atoms)
    cotangents = cotangents_for(rows)
    gradient, virial = pull_back(near, cotangents)
    other_gradient, other_virial = pull_back(turned, cotangents)
    assert_close(turned.rows(), near.rows(), 1e-12)
    assert_close(other_gradient, gradient @ rotation, 1e-12)
    assert_close(other_virial, rotation.T @ virial @ rotation, 1e-12)


def test_atoms_outside_the_cell():
    """Features do not depend on the cell in which an atom is placed."""
    atoms = STRUCTURES["crystal"].copy()
    near, rows = neighborhood_of(atoms)
    atoms.positions[1] += [2, -3, 1] @ atoms.cell
    moved, _ = neighborhood_of(atoms)
    cotangents = cotangents_for(rows)
    assert_close(moved.rows(), near.rows(), 1e-12)
    for found, expected in zip(pull_back(moved, cotangents), pull_back(near, cotangents)):
        assert_close(found, expected, 1e-12)


@pytest.mark.parametrize("max_bytes", [0, 2**25])
@pytest.mark.parametrize("compression", MODES)
@pytest.mark.parametrize("name", ["molecule", "slab", "one"])
@pytest.mark.parametrize("cutoff_width", [None, 2.0])
def test_jacobians_contain_the_pull_back(name, compression, max_bytes, cutoff_width):
    options = {"compression": compression, "cutoff_width": cutoff_width}
    near, rows = neighborhood_of(STRUCTURES[name], **options)
    cotangents = cotangents_for(rows)
    g = np.zeros_like(near.D)
    for pairs, columns, J in near.jacobians(max_bytes=max_bytes):
        g[pairs] += np.einsum("paf,pf->pa", J, cotangents[near.i[pairs]][:, columns])
    expected = pull_back(near, cotangents)
    for found, wanted in zip(near.gather(g), expected):
        assert_allclose(found, wanted, rtol=0, atol=1e-12 * np.abs(expected[1]).max() + 1e-15)


def test_jacobians_of_some_centres():
    near, _ = neighborhood_of(STRUCTURES["slab"], compression="off", cutoff_width=2.0)
    dense = np.zeros((len(near.D), 3, sum(c.stop - c.start for c in near.columns)))
    for pairs, columns, J in near.jacobians():
        dense[pairs[:, None], :, columns] = J.transpose(0, 2, 1)
    centers, seen = np.arange(near.n_atoms)[::2], []
    for pairs, columns, J in near.jacobians(centers):
        seen.append(pairs)
        assert_allclose(J.transpose(0, 2, 1), dense[pairs[:, None], :, columns], atol=1e-13)
    seen = np.sort(np.concatenate(seen))
    np.testing.assert_array_equal(seen, np.flatnonzero(np.isin(near.i, centers)))


@pytest.mark.parametrize("compression", MODES)
@pytest.mark.parametrize("name", STRUCTURES)
def test_jacobian_of_one_centre(name, compression):
    near, rows = neighborhood_of(STRUCTURES[name], compression=compression, cutoff_width=2.0)
    cotangents = cotangents_for(rows)
    for i in range(min(3, len(rows))):
        alone = np.zeros_like(cotangents)
        alone[i] = cotangents[i]
        gradient, virial = pull_back(near, alone)
        expected = np.concatenate([gradient.ravel(), virial.ravel()])
        found = near.jacobian_of(i) @ cotangents[i]
        assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max() + 1e-15)


@pytest.mark.parametrize("cutoff_width", [None, 2.0])
@pytest.mark.parametrize("name", STRUCTURES)
def test_compiled_and_twin_agree(name, cutoff_width):
    compiled = import_module("skqeq._pythran._soap")
    if not hasattr(compiled, "__pythran__"):
        pytest.skip("kernels are not compiled")
    twin = import_module("skqeq._pythran._soap_numpy")
    options = {"compression": "mu1nu1", "l_max": 4, "cutoff_width": cutoff_width}
    near, rows = neighborhood_of(STRUCTURES[name], **options)
    arguments = (*near._arguments, near._runs)
    for array in arguments:
        array.flags.writeable = False
    assert_close(compiled.soap_spectrum(*arguments), twin.soap_spectrum(*arguments), 1e-12)
    cotangents = cotangents_for(rows)
    expected = twin.soap_pull_back(*arguments, cotangents)
    assert_close(compiled.soap_pull_back(*arguments, cotangents), expected, 1e-12)
    for channel in range(2):
        expected = twin.soap_jacobian(*arguments, channel)
        assert_close(compiled.soap_jacobian(*arguments, channel), expected, 1e-12)


def test_twin_works_in_blocks(monkeypatch):
    twin = import_module("skqeq._pythran._soap_numpy")
    near, rows = neighborhood_of(STRUCTURES["crystal"], cutoff_width=2.0)
    arguments = (*near._arguments, near._runs)
    cotangents = cotangents_for(rows)
    expected = (
        twin.soap_spectrum(*arguments),
        twin.soap_pull_back(*arguments, cotangents),
        twin.soap_jacobian(*arguments, 1),
    )
    monkeypatch.setattr(twin, "BLOCK", 1)
    assert_close(twin.soap_spectrum(*arguments), expected[0], 1e-13)
    assert_close(twin.soap_pull_back(*arguments, cotangents), expected[1], 1e-13)
    assert_close(twin.soap_jacobian(*arguments, 1), expected[2], 1e-13)
