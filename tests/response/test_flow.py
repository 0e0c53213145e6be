"""Charge that flows between neighbours."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose

from skqeq.electrostatics import HardnessOperator, gaussian_widths, hardness_matrix
from skqeq.parameters import covalent_radii
from skqeq.response import ChargeFlow, Equilibrium, FlowEquilibrium, Flows, _solvers
from skqeq.structures import check_structures

from .. import helpers


def flows_of(atoms, softness=0.05, range=0.3):
    [structure] = check_structures([atoms])
    softness = np.broadcast_to(softness, len(atoms))
    return structure, Flows(structure, softness, covalent_radii()[structure.numbers], range)


def flow(atoms, softness=0.05, range=0.3, iterative=False, hardness=0.0):
    structure, flows = flows_of(atoms, softness, range)
    widths = gaussian_widths(structure.numbers, radius_scale=0.35)
    make = HardnessOperator if iterative else hardness_matrix
    return FlowEquilibrium(structure, make(atoms, widths, hardness), flows, None, widths)


def fields_of(atoms, seed=0):
    """Electronegativities, and reference charges that were learned."""
    rng = np.random.default_rng(seed)
    return 5.0 + rng.normal(size=len(atoms)), 0.2 * rng.normal(size=len(atoms))


def separated(distance=12.0):
    """Two molecules that exchange nothing, with a charge and in a field."""
    other = helpers.rattled("NH3", 1)
    other.translate([distance, 0.3, -0.2])
    atoms = helpers.rattled("CH3OH", 0) + other
    atoms.info = {"charge": 1, "external_field": np.array([0.05, -0.1, 0.02])}
    return atoms


def salt(n=3, seed=0):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * n
    atoms.rattle(0.1, seed=seed)
    return atoms


def slab():
    atoms = fcc111("Al", (2, 2, 3), vacuum=None)
    atoms.numbers[::2] = 12
    atoms.pbc = True, True, False
    atoms.rattle(0.1, seed=2)
    return atoms


CASES = {
    "molecule": helpers.rattled("CH3OH", 3),
    "ion in a field": helpers.rattled("CH3NO2", 4, charge=-1, field=np.array([0.1, -0.2, 0.05])),
    "two parts": separated(),
    "crystal": salt(1),
    "slab": slab(),
}


# ---- definition ---------------------------------------------------------------------------------


def naive(atoms, A, softness, range, chi, reference):
    """Charges and energy from the flows of all pairs, with loops; molecules only."""
    radii = [covalent_radii()[z] for z in atoms.numbers]
    pairs, costs = [], []
    for i in np.arange(len(atoms)):
        for j in np.arange(i):
            x = (atoms.get_distance(i, j) - radii[i] - radii[j]) / range
            if x < 10:
                pairs.append((i, j))
                costs.append(1 / (softness * np.exp(-x / (1 - x / 10))))
    B = np.zeros((len(atoms), len(pairs)))
    for k, (i, j) in enumerate(pairs):
        B[i, k], B[j, k] = 1.0, -1.0
    shift = (atoms.info.get("charge", 0.0) - reference.sum()) / len(atoms)
    start = reference + shift
    field = np.array(atoms.info.get("external_field", np.zeros(3)))
    linear = chi - atoms.positions @ field
    p = np.linalg.solve(np.diag(costs) + B.T @ A @ B, -B.T @ (linear + A @ start))
    q = start + B @ p
    return q, linear @ q + q @ A @ q / 2 + np.sum(p**2 * costs) / 2


@pytest.mark.parametrize("name", ["molecule", "ion in a field", "two parts"])
def test_flows_of_pairs(name):
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms)
    reference = equilibrium.reference(learned)
    q = equilibrium.charges(chi, reference=reference)
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=0.35))
    expected, energy = naive(atoms, A, 0.05, 0.3, chi, learned)
    assert_allclose(q, expected, rtol=0, atol=1e-12)
    assert_allclose(equilibrium.energy(chi, q, reference), energy, rtol=1e-12)
    # What flows is driven by differences of the potential.
    potential = equilibrium.potential(chi, q)
    assert_allclose(q, reference - equilibrium.flows.laplacian @ potential, rtol=0, atol=1e-12)


def test_softness_falls_smoothly_and_ends():
    """In contact it is s_0, for all derivatives zero at ten ranges, and of both elements."""
    radius = covalent_radii()[6]
    found = []
    for x in np.linspace(-2.0, 11.0, 300):
        pair = Atoms("C2", [[0, 0, 0], [0, 0, 2 * radius + 0.3 * x]])
        _, flows = flows_of(pair, np.array([0.02, 0.08]))
        found.append(flows.softness[0] if len(flows.softness) else 0.0)
        if abs(x) < 0.02:
            assert_allclose(found[-1], 0.04 * np.exp(-x), rtol=1e-3)
    found = np.array(found)
    assert (np.diff(found) <= 0).all() and found[-1] == 0.0
    assert 0.0 < found[260] < 1e-10  # 9.3 ranges
    assert_allclose(found[0], 0.04 * np.exp(2 / 1.2))


@pytest.mark.parametrize("name", CASES)
def test_charge_is_conserved(name):
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    for softness in (0.0, 1e-3, 0.05, 1e3, 1e9):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(chi, reference=equilibrium.reference(learned))
        assert abs(q.sum() - atoms.info.get("charge", 0.0)) < 1e-12
        V = np.random.default_rng(1).normal(size=(len(atoms), 3))
        PV = equilibrium.project(V)
        assert np.abs(PV.sum(axis=0)).max() < 1e-12
        assert_allclose(V.T @ PV, PV.T @ V, rtol=0, atol=1e-12 * max(1.0, np.abs(V.T @ PV).max()))
        assert_allclose(equilibrium.project(V + 3.0), PV, rtol=0, atol=1e-10)


# ---- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["molecule", "ion in a field", "crystal", "slab"])
def test_soft_limit_is_charge_equilibration(name):
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    [structure] = check_structures([atoms])
    widths = gaussian_widths(structure.numbers, radius_scale=0.35)
    expected = Equilibrium(structure, hardness_matrix(atoms, widths)).charges(chi)
    errors = []
    for softness in 10.0 ** np.arange(2, 12):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(chi, reference=equilibrium.reference(learned))
        errors.append(np.abs(q - expected).max())
    errors = np.array(errors)
    falling = errors[:-1] > 1e-8
    assert falling.sum() >= 3
    assert_allclose((errors[:-1] / errors[1:])[falling][:-1], 10.0, rtol=0.05)
    assert errors[-1] < 1e-8


def test_each_part_keeps_its_charge():
    """In the soft limit it is equilibrated at the sum of its reference charges."""
    atoms = separated()
    n = len(atoms) - 4
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms, 1e10)
    reference = equilibrium.reference(learned)
    q = equilibrium.charges(chi, reference=reference)
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=0.35))
    parts = np.zeros((len(atoms), 2))
    parts[:n, 0] = parts[n:, 1] = 1.0
    bordered = np.block([[A, parts], [parts.T, np.zeros((2, 2))]])
    linear = atoms.positions @ atoms.info["external_field"] - chi
    expected = np.linalg.solve(bordered, np.append(linear, parts.T @ reference))[:-2]
    assert_allclose(q, expected, rtol=0, atol=1e-8)
    assert_allclose(parts.T @ q, parts.T @ reference, rtol=0, atol=1e-12)
    for softness in (1e-3, 0.05):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(chi, reference=reference)
        assert_allclose(parts.T @ q, parts.T @ reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_without_softness_charges_are_local(name, iterative):
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms, 0.0, iterative=iterative)
    reference = equilibrium.reference(learned)
    assert (equilibrium.charges(chi, reference=reference) == reference).all()
    assert not equilibrium.project(np.eye(len(atoms))).any()
    assert not len(equilibrium.flows.i)


# ---- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_energy_is_stationary(name):
    """``dE/dchi = q``, ``dE/dq_ref = u`` and ``dE/ds_ij = -(u_i - u_j)^2 / 2``."""
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms)
    reference = equilibrium.reference(learned)

    def energy(chi, reference, equilibrium=equilibrium):
        return equilibrium.energy(
            chi, equilibrium.charges(chi, reference=reference), reference
        )  # fmt: skip

    q = equilibrium.charges(chi, reference=reference)
    u = equilibrium.potential(chi, q)
    step = 1e-3 * np.random.default_rng(1).normal(size=len(atoms))
    slope = energy(chi + step, reference) - energy(chi - step, reference)
    assert_allclose(slope, 2 * step @ q, rtol=0, atol=1e-10)
    step -= step.mean()
    slope = energy(chi, reference + step) - energy(chi, reference - step)
    assert_allclose(slope, 2 * step @ u, rtol=0, atol=1e-9)
    flows = equilibrium.flows
    both = (flows.i == flows.i[0]) & (flows.j == flows.j[0])
    both |= (flows.j == flows.i[0]) & (flows.i == flows.j[0])
    energies, soft = [], flows.softness.copy()
    for h in (1e-4, -1e-4):
        _, changed = flows_of(atoms)
        changed.softness = soft + h * both / (both.sum() / 2)
        other = FlowEquilibrium(*_parts(atoms), changed)
        energies.append(energy(chi, reference, other))
    expected = -((u[flows.i[0]] - u[flows.j[0]]) ** 2) / 2
    assert_allclose((energies[0] - energies[1]) / 2e-4, expected, rtol=1e-5, atol=1e-8)


def _parts(atoms):
    [structure] = check_structures([atoms])
    widths = gaussian_widths(structure.numbers, radius_scale=0.35)
    return structure, hardness_matrix(atoms, widths)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_rows(name, iterative):
    """What both fields do to charges and potential; they are affine, so differences are exact."""
    atoms = CASES[name]
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms, iterative=iterative)
    Y, W = np.random.default_rng(2).normal(size=(2, 3, len(atoms)))

    def value(chi, learned, W=W):
        q = equilibrium.charges(chi, reference=equilibrium.reference(learned))
        return Y @ q + W @ equilibrium.potential(chi, q)

    start = value(chi, learned)
    over_chi = np.stack([value(chi + e, learned) - start for e in np.eye(len(atoms))], axis=1)
    over_learned = np.stack([value(chi, learned + e) - start for e in np.eye(len(atoms))], axis=1)
    scale = 1e-5 if iterative else 1e-11
    found = equilibrium.rows(Y, W)
    assert_allclose(found[0], over_chi, rtol=0, atol=scale * np.abs(over_chi).max())
    assert_allclose(found[1], over_learned, rtol=0, atol=scale * np.abs(over_learned).max())
    W = np.zeros_like(W)
    for one, other in zip(equilibrium.rows(Y), equilibrium.rows(Y, W), strict=True):
        assert_allclose(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_the_softness(name):
    atoms = CASES[name]
    _, flows = flows_of(atoms)
    u, v = np.random.default_rng(3).normal(size=(2, len(atoms)))
    gradient, virial = flows.gradient(u, v)
    rows, strained_rows = flows.charge_gradient(u)
    assert_allclose(rows @ v, gradient, rtol=0, atol=1e-12)
    assert_allclose(strained_rows @ v, virial, rtol=0, atol=1e-12)
    assert_allclose(gradient.sum(axis=0), 0.0, atol=1e-12)

    def charges(changed):
        return flows_of(changed)[1].laplacian @ u

    for atom, axis in ((0, 0), (1, 2), (len(atoms) - 1, 1)):
        found = []
        for h in (1e-5, -1e-5):
            moved = atoms.copy()
            moved.positions[atom, axis] += h
            found.append(charges(moved))
        assert_allclose(rows[atom, axis], (found[0] - found[1]) / 2e-5, rtol=0, atol=1e-8)
    for a, b in ((0, 0), (0, 1)):
        found = []
        for h in (1e-5, -1e-5):
            strain = np.eye(3)
            strain[a, b] += h / 2
            strain[b, a] += h / 2
            stretched = atoms.copy()
            stretched.set_cell(atoms.cell @ strain, scale_atoms=False)
            stretched.positions = atoms.positions @ strain
            found.append(charges(stretched))
        mean = (strained_rows[a, b] + strained_rows[b, a]) / 2
        assert_allclose(mean, (found[0] - found[1]) / 2e-5, rtol=0, atol=1e-8)


# ---- iteration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("softness", [1e-4, 0.05, 1.0, 100.0])
def test_iteration_finds_the_same_charges(softness):
    for atoms in (salt(), separated(), slab()):
        chi, learned = fields_of(atoms)
        found = []
        for iterative in (False, True):
            equilibrium = flow(atoms, softness, iterative=iterative)
            reference = equilibrium.reference(learned)
            found.append(equilibrium.charges(chi, reference=reference))
        assert equilibrium.n_iterations > 0
        assert_allclose(found[1], found[0], rtol=0, atol=1e-7)
        assert abs(found[1].sum() - atoms.info.get("charge", 0.0)) < 1e-12


def test_warm_start_saves_iterations():
    atoms = salt()
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms, iterative=True)
    reference = equilibrium.reference(learned)
    cold = equilibrium.charges(chi, reference=reference)
    n_cold = equilibrium.n_iterations
    chi = chi + 1e-4 * np.cos(np.arange(len(chi)))
    warm = equilibrium.charges(chi, cold, reference)
    assert 0 < equilibrium.n_iterations < n_cold - 2
    assert_allclose(warm, equilibrium.charges(chi, reference=reference), rtol=0, atol=1e-8)
    assert_allclose(equilibrium.charges(chi, warm, reference), warm, rtol=0, atol=1e-8)
    assert equilibrium.n_iterations <= 1


def test_iterations_do_not_grow_with_the_system():
    n_iterations = []
    for n in (2, 4):
        atoms = salt(n)
        equilibrium = flow(atoms, iterative=True)
        equilibrium.charges(np.where(atoms.symbols == "Na", 3.0, 8.0) + fields_of(atoms)[0])
        n_iterations.append(equilibrium.n_iterations)
    assert n_iterations[1] <= n_iterations[0] + 8 < 30


def test_minute_flows_are_no_obstacle():
    """An atom at the end of the reach of a molecule, by softness down to where it underflows."""
    water = helpers.rattled("H2O", 0)
    for distance in np.linspace(3.5, 4.8, 40):
        atoms = water + Atoms("C", [[0.0, 0.0, distance]])
        chi, learned = fields_of(atoms)
        found = []
        for iterative in (False, True):
            equilibrium = flow(atoms, iterative=iterative)
            reference = equilibrium.reference(learned)
            found.append(equilibrium.charges(chi, reference=reference))
        assert_allclose(found[1], found[0], rtol=0, atol=1e-7)


def test_a_large_range_takes_no_time_on_a_molecule():
    atoms = helpers.rattled("CH3OH", 0)
    assert len(flows_of(atoms, range=1e4)[1].i) == 6 * 5


def test_energy_does_not_feel_errors_of_the_charges():
    """To first order, so that iterations need not be exact."""
    atoms = CASES["ion in a field"]
    chi, learned = fields_of(atoms)
    equilibrium = flow(atoms)
    reference = equilibrium.reference(learned)
    q = equilibrium.charges(chi, reference=reference)
    step = np.random.default_rng(0).normal(size=len(q))
    step -= step.mean()
    errors = [
        equilibrium.energy(chi, q + h * step, reference) - equilibrium.energy(chi, q, reference)
        for h in (1e-3, 1e-4)
    ]
    assert_allclose(errors[0] / errors[1], 100.0, rtol=1e-3)
    local = equilibrium.reference(np.zeros(len(q)))
    assert equilibrium.energy(chi, q) == equilibrium.energy(chi, q, local)


def test_failure_to_converge_gives_advice(monkeypatch):
    monkeypatch.setattr(_solvers, "MAX_ITERATIONS", 3)
    with pytest.raises(RuntimeError, match=r"^Cl108Na108: charges did not converge in 3 .*lower"):
        flow(salt(), iterative=True).charges(fields_of(salt())[0])


def test_matrix_that_is_far_from_positive_definite_is_refused():
    atoms = CASES["molecule"]
    structure, A = _parts(atoms)
    with pytest.raises(ValueError, match="^CH4O: the hardness matrix is not positive definite"):
        FlowEquilibrium(structure, A - 200 * np.eye(len(A)), flow(atoms).flows)
    # What flows may cost holds charges together that would fly apart.
    FlowEquilibrium(
        structure, A - 1.001 * np.linalg.eigvalsh(A)[0] * np.eye(len(A)), flow(atoms).flows
    )


def test_parameters():
    assert ChargeFlow().get_params() == {
        "softness": 0.05,
        "range": 0.25,
        "amplitude": 0.1,
        "amplitude_baseline": 1.0,
        "polarizability": None,
    }
    _, flows = flows_of(molecule("H2O"))
    assert len(flows.i) == 6
    assert_allclose(flows.laplacian.toarray().sum(axis=0), 0.0, atol=1e-16)
