"""Ewald sums: Madelung constants, independent sums, and invariances."""

from importlib import import_module

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.spacegroup import crystal
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import erf, erfc

from skqeq.electrostatics import hardness_gradient, hardness_matrix, potential_gradient
from skqeq.electrostatics._ewald import EwaldSum
from skqeq.structures import check_structures

from .. import helpers

K = helpers.COULOMB
CHARGES = {
    "Na": 1,
    "Cl": -1,
    "Cs": 1,
    "Zn": 2,
    "S": -2,
    "Ca": 2,
    "F": -1,
    "Ti": 4,
    "Al": 3,
    "O": -2,
}
NACL, CSCL, ZINC_BLENDE = 1.7475645946331822, 1.7626747730709883, 1.6380550533887895
FLUORITE = 5.038784879848579
WURTZITE = 1.641321627  # The value was published with ten digits.

# Energy per particle of a one-component crystal in a neutralising background. The unit is q^2
# divided by the radius of a sphere with the volume per particle.
WIGNER = {"sc": -0.880059442111716, "bcc": -0.895929255681765, "fcc": -0.895873615195108}


def rutile():
    return crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    )


def corundum():
    return crystal(
        ["Al", "O"],
        [(0, 0, 0.352), (0.306, 0, 0.25)],
        spacegroup=167,
        cellpar=[4.76, 4.76, 12.99, 90, 90, 120],
        primitive_cell=True,
    )


def perovskite():
    scaled = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms("CaTiO3", scaled_positions=scaled, cell=[3.84] * 3, pbc=True)


def triclinic():
    cell = [[5.0, 0.3, 0.0], [2.1, 4.4, 0.2], [-1.7, 1.2, 6.0]]
    scaled = [(0.1, 0.2, 0.3), (0.5, 0.6, 0.1), (0.9, 0.4, 0.7), (0.3, 0.9, 0.6)]
    return Atoms("Ca2OF", scaled_positions=scaled, cell=cell, pbc=True)


def slab(height=0.0):
    cell = [[4.1, 0.2, 0.0], [1.3, 3.7, 0.0], [0.0, 0.0, height]]
    positions = [[0.0, 0.0, 0.0], [1.9, 1.8, 0.4], [0.9, 2.4, 1.9], [2.8, 0.7, 3.1]]
    return Atoms("TiCaOF", positions, cell=cell, pbc=(True, True, False))


CRYSTALS = {
    "NaCl": bulk("NaCl", "rocksalt", a=5.64),
    "NaCl cubic": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
    "CsCl": bulk("CsCl", "cesiumchloride", a=4.12),
    "zinc blende": bulk("ZnS", "zincblende", a=5.41),
    "wurtzite": bulk("ZnS", "wurtzite", a=3.82),
    "fluorite": bulk("CaF2", "fluorite", a=5.46),
    "rutile": rutile(),
    "corundum": corundum(),
    "perovskite": perovskite(),
    "triclinic": triclinic(),
}
WIDTHS = {name: np.linspace(0.18, 0.34, len(atoms)) for name, atoms in CRYSTALS.items()}


def charges(atoms):
    return np.array([float(CHARGES[s]) for s in atoms.symbols])


def madelung_energy(atoms, alpha=0.2):
    """Energy of point charges, e^2/Angstrom, from the energy of narrow Gaussians.

    The Gaussians do not overlap, so that each pair interacts like two points. The function
    subtracts the self-energies ``q^2 / (2 sqrt(pi) alpha)``. In a charged cell it also subtracts
    the interaction of the background with the spread of the charges, ``(2 pi / V) gamma^2`` per
    pair. This term adds up to zero in a neutral cell.
    """
    q = charges(atoms)
    C = hardness_matrix(atoms, np.full(len(atoms), alpha), accuracy=1e-12) / K
    background = 2 * np.pi / atoms.get_volume() * 2 * alpha**2 * q.sum() ** 2
    return 0.5 * (q @ C @ q - background) - (q @ q) / (2 * np.sqrt(np.pi) * alpha)


def crystal_by_definition(atoms, widths):
    """Sum over all waves k != 0 of the Gaussian charges, without Ewald splitting; 1/Angstrom."""
    cell, volume = atoms.cell.array, atoms.get_volume()
    gamma2 = np.add.outer(widths**2, widths**2)
    k_max = np.sqrt(2 * 34 / gamma2.min())
    top = [int(k_max * np.linalg.norm(a) / (2 * np.pi)) + 1 for a in cell]
    n = np.stack(np.meshgrid(*[np.arange(-t, t + 1) for t in top]), axis=-1).reshape(-1, 3)
    k = 2 * np.pi * n[np.any(n != 0, axis=1)] @ np.linalg.inv(cell).T
    k = k[np.einsum("ka,ka->k", k, k) < k_max**2]
    k2 = np.einsum("ka,ka->k", k, k)
    C = np.empty_like(gamma2)
    for i, j in np.ndindex(C.shape):
        phase = np.cos(k @ (atoms.positions[i] - atoms.positions[j]))
        C[i, j] = 4 * np.pi / volume * np.sum(np.exp(-gamma2[i, j] * k2 / 2) / k2 * phase)
    return C


def energy_of_pairs(atoms):
    """Energy of point charges with a splitting so wide that the reciprocal sum vanishes."""
    q, cell, volume = charges(atoms), atoms.cell.array, atoms.get_volume()
    near = np.array([n for n in np.ndindex(5, 5, 5) if n != (2, 2, 2)]) - 2
    k_min = 2 * np.pi * np.linalg.norm(near @ np.linalg.inv(cell).T, axis=1).min()
    sigma = 7.5 / k_min
    top = np.ceil(7.5 * sigma * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int) + 1
    shifts = np.stack(np.meshgrid(*[np.arange(-t, t + 1) for t in top]), axis=-1).reshape(-1, 3)
    energy = -np.sum(q**2) / (np.sqrt(2 * np.pi) * sigma) - np.pi * sigma**2 / volume * q.sum() ** 2
    for i, j in np.ndindex(len(q), len(q)):
        r = np.linalg.norm(shifts @ cell + atoms.positions[j] - atoms.positions[i], axis=1)
        r = r[(r > 1e-9) & (r < 7.5 * sigma)]
        energy += 0.5 * q[i] * q[j] * np.sum(erfc(r / (np.sqrt(2) * sigma)) / r)
    return energy


def slab_by_definition(atoms, widths):
    """Sum over in-plane waves of Gaussians, with a closed form along z, for a slab normal to z."""
    cell = atoms.cell.array[:2, :2]
    area = abs(np.linalg.det(cell))
    gammas = np.hypot.outer(widths, widths)
    k_max = np.sqrt(2 * 40) / gammas.min()
    top = [int(k_max * np.linalg.norm(a) / (2 * np.pi)) + 1 for a in cell]
    n = np.stack(np.meshgrid(*[np.arange(-t, t + 1) for t in top]), axis=-1).reshape(-1, 2)
    k = 2 * np.pi * n[np.any(n != 0, axis=1)] @ np.linalg.inv(cell).T
    k = k[np.linalg.norm(k, axis=1) < k_max]
    length = np.linalg.norm(k, axis=1)
    C = np.empty_like(gammas)
    for i, j in np.ndindex(C.shape):
        g, (x, y, z) = gammas[i, j], atoms.positions[i] - atoms.positions[j]
        waves = sum(
            np.exp(np.minimum(s * length * z, 600))
            * erfc(length * g / np.sqrt(2) + s * z / (np.sqrt(2) * g))
            for s in (1, -1)
        )
        waves = np.pi / area * np.sum(waves / length * np.cos(k @ [x, y]))
        sheet = z * erf(z / (np.sqrt(2) * g)) + g * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2 / g**2)
        C[i, j] = waves - 2 * np.pi / area * sheet
    return C


@pytest.mark.parametrize(
    "name, distance, constant, digits",
    [
        ("NaCl", 5.64 / 2, NACL, 1e-11),
        ("NaCl cubic", 5.64 / 2, 4 * NACL, 1e-10),
        ("CsCl", 4.12 * np.sqrt(3) / 2, CSCL, 1e-11),
        ("zinc blende", 5.41 * np.sqrt(3) / 4, 4 * ZINC_BLENDE, 1e-10),
        ("wurtzite", 3.82 * np.sqrt(3 / 8), 8 * WURTZITE, 1e-8),
        ("fluorite", 5.46 * np.sqrt(3) / 4, FLUORITE, 1e-10),
    ],
)
def test_madelung_constants(name, distance, constant, digits):
    assert_allclose(-madelung_energy(CRYSTALS[name]) * distance, constant, rtol=0, atol=digits)


@pytest.mark.parametrize("name", CRYSTALS)
def test_madelung_energies_of_pairs(name):
    """Compare with a sum over pairs, for charged cells and for crystals with short bonds too."""
    atoms = CRYSTALS[name]
    assert_allclose(madelung_energy(atoms, 0.15), energy_of_pairs(atoms), rtol=0, atol=1e-9)


@pytest.mark.parametrize("lattice", WIGNER)
def test_wigner_crystals(lattice):
    atoms = bulk("Na", lattice, a=4.0)
    radius = (3 / (4 * np.pi) * atoms.get_volume()) ** (1 / 3)
    assert_allclose(madelung_energy(atoms) * radius, WIGNER[lattice], rtol=0, atol=1e-11)


def test_charge_in_a_cube():
    """The energy of a charge in a cube is -2.837297 q^2 / (2 L), the Makov-Payne constant."""
    atoms = Atoms("Na", cell=[7.0] * 3, pbc=True)
    assert_allclose(madelung_energy(atoms) * 2 * 7.0, -2.837297479480620, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals_against_the_definition(name):
    atoms, widths = CRYSTALS[name], WIDTHS[name]
    C = hardness_matrix(atoms, widths, accuracy=1e-11) / K
    assert_allclose(C, crystal_by_definition(atoms, widths), rtol=0, atol=2e-11)
    assert_array_equal(C, C.T)


@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_wide_gaussians(scale):
    """The Gaussians are wider than the optimal splitting, and in one case wider than the cell."""
    atoms = triclinic()
    widths = scale * np.array([1.0, 0.3, 0.6, 0.9])
    C = hardness_matrix(atoms, widths, accuracy=1e-10) / K
    assert_allclose(C, crystal_by_definition(atoms, widths), rtol=0, atol=1e-10)


@pytest.mark.parametrize("alpha", [0.3, 1.2])
def test_slab_against_the_definition(alpha):
    atoms, widths = slab(), alpha * np.array([1.0, 0.8, 1.2, 0.9])
    C = hardness_matrix(atoms, widths, accuracy=1e-11) / K
    assert_allclose(C, slab_by_definition(atoms, widths), rtol=0, atol=1e-11)


@pytest.mark.parametrize("make", [triclinic, slab])
@pytest.mark.parametrize("sigma", [None, 0.7, 1.1, 2.0])
def test_accuracy_is_kept(make, sigma):
    """The largest error is below the accuracy for every splitting."""
    [structure] = check_structures([make()])
    widths = np.array([0.2, 0.5, 0.9, 0.3])
    by_definition = crystal_by_definition if make is triclinic else slab_by_definition
    exact = by_definition(make(), widths)
    for accuracy in 10.0 ** -np.arange(2, 13):
        C = EwaldSum(structure, widths, accuracy, sigma).matrix()
        assert np.abs(C - exact).max() < accuracy + 2e-13


def test_accuracy_decides_the_cost():
    [structure] = check_structures([triclinic()])
    cutoffs = [EwaldSum(structure, np.full(4, 0.3), 10.0**-n).cutoffs for n in (4, 8, 12)]
    reach = [c.real * c.reciprocal for c in cutoffs]
    assert reach[0] < reach[1] < reach[2]


@pytest.mark.parametrize("make", [triclinic, slab])
@pytest.mark.parametrize("wild", ["wrapping", "vectors", "rotation"])
def test_what_must_not_matter(make, wild):
    atoms, widths = make(), np.array([0.3, 0.5, 0.7, 0.4])
    A = hardness_matrix(atoms, widths)
    other = atoms.copy()
    n = 3 if atoms.pbc.all() else 2
    if wild == "wrapping":
        shifts = np.zeros((4, 3))
        shifts[:, :n] = [[3, 1, 0], [-2, 0, 5], [0, 0, -1], [7, -7, 1]][:4] @ np.eye(3)[:, :n]
        other.positions += shifts @ other.cell.array
    elif wild == "vectors":
        unimodular = np.eye(3)
        unimodular[:n, :n] = np.array([[1, 2, 0], [1, 3, 0], [-4, 1, 1]])[:n, :n]
        other.set_cell(unimodular @ other.cell.array)
    else:
        other.cell[2] += 0.0 if n == 3 else [0.4, 0.2, 9.0]
        other.rotate(37.0, (1, 2, 3), rotate_cell=True)
    assert_allclose(hardness_matrix(other, widths), A, rtol=0, atol=2e-8 * K)


@pytest.mark.parametrize("make", [lambda: CRYSTALS["wurtzite"], slab])
def test_supercell(make):
    """The energy of a repeated cell is proportional to its volume, even if the cell is charged."""
    atoms = make()
    q = np.linspace(-1.0, 1.3, len(atoms))
    energy = q @ hardness_matrix(atoms) @ q
    large, Q = atoms * (2, 3, 1), np.tile(q, 6)
    assert_allclose(Q @ hardness_matrix(large) @ Q, 6 * energy, rtol=0, atol=1e-6 * K)


def test_molecule_in_a_large_box():
    """Images add -2 pi mu^2 / (3 V) to the energy of a dipole, -2.84 q^2 / (2 L) for a charge."""
    atoms = molecule("CH3OH")
    q = np.linspace(-0.5, 0.6, len(atoms))
    q -= q.mean()
    isolated = 0.5 * q @ hardness_matrix(atoms) @ q
    errors = []
    for length in (50.0, 100.0):
        box = Atoms(atoms, cell=[length] * 3, pbc=True)
        mu = q @ atoms.positions
        in_box = 0.5 * q @ hardness_matrix(box, accuracy=1e-11) @ q
        errors.append(in_box - isolated + K * 2 * np.pi / (3 * length**3) * mu @ mu)
    # The remaining errors are of higher order in 1 / L.
    assert abs(errors[1]) < 2e-8 and abs(errors[1]) < abs(errors[0]) / 20
    charged = Atoms("Na", cell=[200.0] * 3, pbc=True)
    [[C]], [[isolated]] = hardness_matrix(charged, [0.4]), hardness_matrix(Atoms("Na"), [0.4])
    assert_allclose(C, isolated - 2.8372974794806 / 200 * K + K * 4 * np.pi * 0.16 / 200**3, 1e-9)


def test_slab_is_the_limit_of_thick_vacuum():
    """The energy of periodic images of a polar slab converges to that of one slab as 1 / L."""
    atoms = slab()
    q = np.array([0.4, -0.9, 0.3, 0.2])
    energies = []
    for length in (30.0, 60.0):
        box = atoms.copy()
        box.cell[2] = [0, 0, length]
        box.pbc = True
        energies.append(q @ hardness_matrix(box) @ q)
    extrapolated = 2 * energies[1] - energies[0]
    assert abs(energies[1] - extrapolated) > 0.1
    assert_allclose(q @ hardness_matrix(atoms) @ q, extrapolated, rtol=0, atol=1e-6)


@pytest.mark.parametrize("total", [0.0, 0.7])
def test_series_of_thicker_vacuum(total):
    """The energy of periodic images of a slab is c + a L + b / L, for any orientation.

    L is the distance between the images.
    """
    atoms, widths = slab(), np.array([0.3, 0.8, 0.5, 0.4])
    atoms.cell[2] = [0.0, 0.0, 1.0]
    atoms.rotate(50.0, (1, 2, 3), rotate_cell=True)
    q = np.array([0.4, -0.9, 0.3, 0.2]) + total / 4

    def energy_and_gradient(atoms):
        energy = q @ hardness_matrix(atoms, widths, accuracy=1e-11) @ q
        return np.append(hardness_gradient(atoms, q, q, widths, accuracy=1e-11)[0], energy)

    def with_vacuum(length):
        cell = atoms.cell.array * [[1.0], [1.0], [length]]
        return energy_and_gradient(Atoms(atoms, cell=cell, pbc=True))

    lengths = np.array([30.0, 45.0, 60.0])
    series = np.linalg.solve(
        np.stack([np.ones(3), lengths, 1 / lengths], axis=1), [with_vacuum(x) for x in lengths]
    )
    assert abs(series[2, -1]) > 1.0
    assert_allclose(energy_and_gradient(atoms), series[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("atoms", [slab(), fcc111("Al", (1, 1, 3))])
def test_open_vector_of_a_slab(atoms):
    """The third cell vector of a slab may be absent, tilted, short or long, and changes nothing."""
    atoms.pbc = (True, True, False)
    A = hardness_matrix(atoms)
    for vector in (
        [0, 0, 0],
        [0, 0, 1.0],
        [2.0, -1.0, 40.0],
        [0, 0, -7.0],
        [8.2, 0.4, 0.0],
        [4.1, 0.2, 1e-9],
    ):
        atoms.cell[2] = vector
        assert_allclose(hardness_matrix(atoms), A, rtol=0, atol=2e-8 * K)


def test_charged_slab_and_thickness(monkeypatch):
    """The energy of a charged slab is the same for any distance L between its images."""
    from skqeq.electrostatics import _ewald

    atoms, widths = slab(), np.array([0.2, 0.6, 0.9, 0.4])
    q = np.array([0.3, -0.4, 0.6, 0.5])
    energy = q @ hardness_matrix(atoms, widths) @ q
    gap = _ewald.slab_gap
    for more in (3.0, 8.0, 16.0):
        monkeypatch.setattr(_ewald, "slab_gap", lambda *args, m=more: gap(*args) + m)
        assert_allclose(q @ hardness_matrix(atoms, widths) @ q, energy, rtol=0, atol=1e-7)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_open_axis(axis):
    """Any of the three cell vectors may be along the open axis."""
    atoms = slab(12.0)
    A = hardness_matrix(atoms)
    order = np.roll(np.arange(3), axis)
    other = Atoms(atoms, cell=atoms.cell.array[order], pbc=atoms.pbc[order])
    assert_allclose(hardness_matrix(other), A, rtol=0, atol=2e-8 * K)


@pytest.mark.parametrize("name", CRYSTALS)
def test_positive_definite(name):
    assert np.linalg.eigvalsh(hardness_matrix(CRYSTALS[name]))[0] > 0


def test_slab_is_positive_definite_for_neutral_charges():
    A = hardness_matrix(slab(), np.full(4, 0.5))
    neutral = np.eye(4)[:, 1:] - 0.25
    neutral = np.linalg.qr(neutral - neutral.mean(axis=0))[0]
    assert np.linalg.eigvalsh(neutral.T @ A @ neutral)[0] > 0


def test_hardness_and_inputs():
    atoms = triclinic()
    before = atoms.copy()
    added = hardness_matrix(atoms, hardness=[1.0, 2.0, 3.0, 4.0]) - hardness_matrix(atoms)
    assert_allclose(added, np.diag([1.0, 2.0, 3.0, 4.0]), atol=1e-13)
    assert atoms == before


@pytest.mark.parametrize("accuracy", [0, -1e-8, 1e-20, 10, np.nan, np.inf])
@pytest.mark.parametrize("atoms", [molecule("H2O"), slab()])
def test_absurd_accuracy(accuracy, atoms):
    with pytest.raises(ValueError, match="accuracy must be between 1e-12 and 0.01, got"):
        hardness_matrix(atoms, accuracy=accuracy)
    with pytest.raises(ValueError, match="accuracy must be between 1e-12 and 0.01, got"):
        hardness_gradient(atoms, np.ones(len(atoms)), np.ones(len(atoms)), accuracy=accuracy)
    with pytest.raises(ValueError, match="accuracy must be between 1e-12 and 0.01, got"):
        potential_gradient(atoms, np.ones(len(atoms)), accuracy=accuracy)


@pytest.mark.parametrize(
    "cell, widths",
    [
        (np.diag([3.0, 3.2, 150.0]), [0.3, 0.6, 0.5]),
        (np.diag([2.6, 60.0, 55.0]), [0.4, 0.6, 0.5]),
        ([[5.0, 0.0, 0.0], [4.9, 1.2, 0.0], [4.9, 0.5, 3.0]], [0.3, 0.6, 0.5]),
        ([[0.0, 5.0, 0.0], [5.0, 1.0, 0.0], [0.3, 0.0, 6.0]], [0.3, 0.6, 0.5]),
    ],
    ids=["needle", "sheet", "sharp", "left-handed"],
)
def test_shapes(cell, widths):
    scaled = [(0.02, -0.3, 0.1), (0.5, 0.4, 1.3), (0.7, 0.9, -0.4)]
    atoms = Atoms("H3", scaled_positions=scaled, cell=cell, pbc=True)
    widths = np.array(widths)
    C = hardness_matrix(atoms, widths, accuracy=1e-11) / K
    assert_allclose(C, crystal_by_definition(atoms, widths), rtol=0, atol=2e-11)


@pytest.mark.parametrize("size, n_atoms", [([2.5, 90.0], 2), ([60.0, 55.0], 2), ([2.5, 2.6], 1)])
def test_shapes_of_slabs(size, n_atoms):
    scaled, widths = [(0.1, 0.3, 0), (0.6, 0.8, 0)][:n_atoms], np.array([0.8, 0.6])[:n_atoms]
    cell = np.diag([*size, 0.0])
    atoms = Atoms(["Na", "F"][:n_atoms], scaled @ cell, cell=cell, pbc=(True, True, False))
    atoms.positions[-1, 2] = 37.0
    C = hardness_matrix(atoms, widths, accuracy=1e-11) / K
    # The last atom is so high above the others that matrix elements are about 100 / Angstrom.
    assert_allclose(C, slab_by_definition(atoms, widths), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize(
    "cell, pbc, message",
    [
        ([4, 4, 0], True, "zero volume"),
        ([[4, 0, 0], [8, 0, 0], [0, 0, 4]], (1, 1, 0), "zero volume"),
        ([4, 4, 4], (0, 0, 1), "is a wire"),
        ([0.05, 4, 4], True, "apart"),
        ([0.05, 4, 0], (1, 1, 0), "apart"),
    ],
)
def test_unusable_cells(cell, pbc, message):
    atoms = Atoms("Na", cell=cell, pbc=pbc)
    with pytest.raises(ValueError, match=message):
        hardness_matrix(atoms)
    with pytest.raises(ValueError, match=message):
        hardness_gradient(atoms, [1.0], [1.0])
    with pytest.raises(ValueError, match=message):
        potential_gradient(atoms, [1.0])


@pytest.mark.parametrize("pbc, field", [(True, [0, 0, 0.1]), ((1, 1, 0), [0.01, 0, 0.1])])
def test_field_along_a_periodic_axis(pbc, field):
    atoms = Atoms("Na", cell=[4.0] * 3, pbc=pbc, info={"external_field": field})
    with pytest.raises(ValueError, match="points along a periodic axis"):
        hardness_matrix(atoms)


class TestKernels:
    """The compiled loops and their NumPy twins give the same results."""

    @pytest.fixture(params=["_ewald", "_ewald_numpy"])
    def kernels(self, request):
        module = import_module(f"skqeq._pythran.{request.param}")
        if request.param == "_ewald" and not hasattr(module, "__pythran__"):
            pytest.skip("kernels are not compiled")
        return module

    def test_structure_factors(self, kernels):
        rng = np.random.default_rng(0)
        phases, n = 2 * np.pi * rng.random((6, 3)), rng.integers(-9, 10, (50, 3))
        weights = rng.random(50)
        angles = np.einsum("ia,ka->ik", phases, n)
        F = kernels.structure_factors(phases, n, weights)
        assert_allclose(F[:, :50], weights * np.cos(angles), atol=1e-13)
        assert_allclose(F[:, 50:], weights * np.sin(angles), atol=1e-13)

    @pytest.mark.parametrize(
        "cutoff, images", [(2.0, (1, 1, 1)), (3.0, (2, 2, 1)), (9.5, (6, 5, 4))]
    )
    def test_pair_matrix(self, kernels, cutoff, images):
        """Compare with a sum over all images in a larger box than necessary."""
        atoms, widths, sigma = triclinic(), np.array([0.2, 0.6, 0.9, 1.4]), 1.1
        smooth = np.array([0.3, -0.1, 0.0, 0.7])
        cell, fractions = atoms.cell.array, atoms.get_scaled_positions()
        spacings = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        images = np.ceil(2 * cutoff / spacings).astype(int)
        n = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), axis=-1).reshape(-1, 3)
        expected = np.empty((4, 4))
        for i, j in np.ndindex(4, 4):
            g = np.hypot(widths[i], widths[j])
            r = np.linalg.norm((fractions[i] - fractions[j] + n) @ cell, axis=1)
            r = r[(r > 0) & (r <= cutoff)]
            f = (erf(r / (np.sqrt(2) * g)) - erf(r / (np.sqrt(2) * sigma))) / r
            expected[i, j] = f.sum() + (i == j) * np.sqrt(2 / np.pi) * (1 / g - 1 / sigma)
        expected += np.add.outer(smooth, smooth)
        M = kernels.ewald_pair_matrix(fractions, cell, images, widths, cutoff, 1 / sigma, smooth)
        assert_allclose(M, expected, rtol=0, atol=3e-15)
        assert_array_equal(M, M.T)

    @pytest.mark.parametrize("cutoff", [2.0, 3.0, 9.5])
    def test_matrix_gradient(self, kernels, cutoff):
        """Compare with a sum over all images in a larger box than necessary."""
        atoms, widths, sigma = triclinic(), np.array([0.2, 0.6, 0.9, 1.4]), 1.1
        q, cell, fractions = charges(atoms), atoms.cell.array, atoms.get_scaled_positions()
        spacings = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        images = np.ceil(2 * cutoff / spacings).astype(int)
        n = np.stack(np.meshgrid(*[np.arange(-5, 6)] * 3), axis=-1).reshape(-1, 3)
        expected, strained = np.zeros((4, 3, 4)), np.zeros((4, 3, 3))
        for i, j in np.ndindex(4, 4):
            D = (fractions[i] - fractions[j] + n) @ cell
            r = np.linalg.norm(D, axis=1)
            D, r = D[(r > 0) & (r <= cutoff)], r[(r > 0) & (r <= cutoff)]
            slope = 0.0
            for sign, width in ((1, np.hypot(widths[i], widths[j])), (-1, sigma)):
                x = r / (np.sqrt(2) * width)
                slope += sign * (2 / np.sqrt(np.pi) * x * np.exp(-(x**2)) - erf(x)) / r**3
            expected[i, :, j] = slope @ D
            strained[i] += q[j] * (slope * D.T) @ D
        found = kernels.ewald_matrix_gradient(fractions, cell, images, widths, cutoff, 1 / sigma, q)
        assert_allclose(found[0], expected, rtol=0, atol=1e-14)
        assert_allclose(found[1], strained, rtol=0, atol=1e-13)

    @pytest.mark.parametrize("n", [0, 1, 8, 19])
    def test_pair_matrix_of_any_size(self, kernels, n):
        """The number of atoms may be zero, or larger than a block of columns."""
        rng = np.random.default_rng(n)
        fractions, widths, cell = rng.random((n, 3)), rng.random(n), np.diag([5.0, 6.0, 7.0])
        images = np.array([2, 2, 1])
        M = kernels.ewald_pair_matrix(fractions, cell, images, widths, 3.5, 0.8, widths)
        order = rng.permutation(n)
        other = kernels.ewald_pair_matrix(
            fractions[order], cell, images, widths[order], 3.5, 0.8, widths[order]
        )
        assert M.shape == (n, n)
        assert_allclose(other, M[np.ix_(order, order)], rtol=0, atol=1e-14)
        U, virial = kernels.ewald_matrix_gradient(fractions, cell, images, widths, 3.5, 0.8, widths)
        other, strained = kernels.ewald_matrix_gradient(
            fractions[order], cell, images, widths[order], 3.5, 0.8, widths[order]
        )
        assert U.shape == (n, 3, n) and virial.shape == (n, 3, 3)
        # Some of the random points are very close, so that derivatives are large.
        assert_allclose(other, U[order][:, :, order], rtol=1e-12, atol=1e-13)
        assert_allclose(strained, virial[order], rtol=1e-12, atol=1e-13)

    def test_complement(self, kernels):
        """The function erfc at many distances; the Gaussians are as narrow as points."""
        fractions, cell, one = np.zeros((2, 3)), 100 * np.eye(3), np.ones(3, dtype=np.int64)
        narrow, zero = np.full(2, 1e-4), np.zeros(2)
        for x in np.linspace(0.05, 8.0, 500):
            fractions[1, 0] = x / 100
            M = kernels.ewald_pair_matrix(fractions, cell, one, narrow, 9.0, np.sqrt(2), zero)
            assert_allclose(M[0, 1] * x, erfc(x), rtol=0, atol=4e-16)

    def test_no_waves(self, kernels):
        empty = kernels.structure_factors(np.ones((2, 3)), np.empty((0, 3), np.int64), np.empty(0))
        assert empty.shape == (2, 0)

    def test_whole_matrix(self, kernels, monkeypatch):
        from skqeq.electrostatics import _ewald

        A = hardness_matrix(CRYSTALS["corundum"])
        for name in ("ewald_pair_matrix", "structure_factors"):
            monkeypatch.setattr(_ewald, name, getattr(kernels, name))
        assert_allclose(hardness_matrix(CRYSTALS["corundum"]), A, rtol=1e-12)
