"""Charge that flows between neighbours."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from numpy.testing import assert_allclose

from skqeq.electrostatics import (
    DenseHardness,
    HardnessOperator,
    _solvers,
    gaussian_widths,
    hardness_matrix,
)
from skqeq.parameters import covalent_radii
from skqeq.response import ChargeFlow, FlowEquilibrium, Flows, QEq, QEqEquilibrium
from skqeq.structures import check_structures

from .. import helpers


def flows_of(atoms, softness=0.05, range=0.3):
    [structure] = check_structures([atoms])
    softness = np.broadcast_to(softness, len(atoms))
    return structure, Flows(structure, softness, covalent_radii()[structure.numbers], range)


def flow(atoms, softness=0.05, range=0.3, iterative=False, hardness=0.0):
    structure, flows = flows_of(atoms, softness, range)
    widths = gaussian_widths(structure.numbers, radius_scale=0.35)
    form = HardnessOperator if iterative else DenseHardness
    return FlowEquilibrium(form(structure, widths, hardness), flows)


def fields_of(atoms, seed=0):
    """Electronegativities and learned reference charges."""
    rng = np.random.default_rng(seed)
    return {
        "chi": 5.0 + rng.normal(size=len(atoms)),
        "reference": 0.2 * rng.normal(size=len(atoms)),
    }


def separated(distance=12.0):
    """Two molecules that exchange no charge, with a total charge and in a field."""
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
    fields = fields_of(atoms)
    equilibrium = flow(atoms)
    q = equilibrium.charges(**fields)
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=0.35))
    expected, energy = naive(atoms, A, 0.05, 0.3, **fields)
    assert_allclose(q, expected, rtol=0, atol=1e-12)
    assert_allclose(equilibrium.energy(q, **fields), energy, rtol=1e-12)
    # Each flow is proportional to a difference of the potential.
    potential = equilibrium.potential(q, **fields)
    reference = equilibrium.reference_charges(**fields)
    assert_allclose(q, reference - equilibrium.flows.laplacian @ potential, rtol=0, atol=1e-12)


def test_softness_falls_smoothly_and_ends():
    """The softness of a pair decreases smoothly with the distance.

    In contact it is the geometric mean s_0 of both elements, and at ten ranges it is zero with all
    derivatives.
    """
    radius = covalent_radii()[7]
    found = []
    for x in np.linspace(-2.0, 11.0, 300):
        pair = Atoms("N2", [[0, 0, 0], [0, 0, 2 * radius + 0.3 * x]])
        _, flows = flows_of(pair, np.array([0.02, 0.08]))
        found.append(flows.softness[0] if len(flows.softness) else 0.0)
        if abs(x) < 0.02:
            assert_allclose(found[-1], 0.04 * np.exp(-x), rtol=1e-3)
    found = np.array(found)
    assert (np.diff(found) <= 0).all() and found[-1] == 0.0
    assert 0.0 < found[260] < 1e-10  # The distance is 9.3 ranges.
    assert_allclose(found[0], 0.04 * np.exp(2 / 1.2))


@pytest.mark.parametrize("name", CASES)
def test_charge_is_conserved(name):
    atoms = CASES[name]
    fields = fields_of(atoms)
    for softness in (0.0, 1e-3, 0.05, 1e3, 1e9):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(**fields)
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
    fields = fields_of(atoms)
    widths = gaussian_widths(atoms.numbers, radius_scale=0.35)
    expected = QEqEquilibrium(DenseHardness(atoms, widths)).charges(chi=fields["chi"])
    errors = []
    for softness in 10.0 ** np.arange(2, 12):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(**fields)
        errors.append(np.abs(q - expected).max())
    errors = np.array(errors)
    falling = errors[:-1] > 1e-8
    assert falling.sum() >= 3
    assert_allclose((errors[:-1] / errors[1:])[falling][:-1], 10.0, rtol=0.05)
    assert errors[-1] < 1e-8


def test_each_part_keeps_its_charge():
    """In the limit of large softness, each molecule is in equilibrium.

    The total charge of a molecule is the sum of its reference charges.
    """
    atoms = separated()
    n = len(atoms) - 4
    fields = fields_of(atoms)
    equilibrium = flow(atoms, 1e10)
    reference = equilibrium.reference_charges(**fields)
    q = equilibrium.charges(**fields)
    A = hardness_matrix(atoms, gaussian_widths(atoms.numbers, radius_scale=0.35))
    parts = np.zeros((len(atoms), 2))
    parts[:n, 0] = parts[n:, 1] = 1.0
    bordered = np.block([[A, parts], [parts.T, np.zeros((2, 2))]])
    linear = atoms.positions @ atoms.info["external_field"] - fields["chi"]
    expected = np.linalg.solve(bordered, np.append(linear, parts.T @ reference))[:-2]
    assert_allclose(q, expected, rtol=0, atol=1e-8)
    assert_allclose(parts.T @ q, parts.T @ reference, rtol=0, atol=1e-12)
    for softness in (1e-3, 0.05):
        equilibrium = flow(atoms, softness)
        q = equilibrium.charges(**fields)
        assert_allclose(parts.T @ q, parts.T @ reference, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_without_softness_charges_are_local(name, iterative):
    atoms = CASES[name]
    fields = fields_of(atoms)
    equilibrium = flow(atoms, 0.0, iterative=iterative)
    assert (equilibrium.charges(**fields) == equilibrium.reference_charges(**fields)).all()
    assert not equilibrium.project(np.eye(len(atoms))).any()
    assert not len(equilibrium.flows.i)


# ---- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_energy_is_stationary(name):
    """``dE/dchi = q``, ``dE/dq_ref = u`` and ``dE/ds_ij = -(u_i - u_j)^2 / 2``."""
    atoms = CASES[name]
    fields = fields_of(atoms)
    equilibrium = flow(atoms)

    def energy(equilibrium=equilibrium, **changes):
        changed = {f: x + changes.get(f, 0.0) for f, x in fields.items()}
        return equilibrium.energy(equilibrium.charges(**changed), **changed)

    q = equilibrium.charges(**fields)
    u = equilibrium.potential(q, **fields)
    step = 1e-3 * np.random.default_rng(1).normal(size=len(atoms))
    change = energy(chi=step) - energy(chi=-step)
    assert_allclose(change, 2 * step @ q, rtol=0, atol=1e-10)
    step -= step.mean()
    change = energy(reference=step) - energy(reference=-step)
    assert_allclose(change, 2 * step @ u, rtol=0, atol=1e-9)
    flows = equilibrium.flows
    both = (flows.i == flows.i[0]) & (flows.j == flows.j[0])
    both |= (flows.j == flows.i[0]) & (flows.i == flows.j[0])
    energies, soft = [], flows.softness.copy()
    for h in (1e-4, -1e-4):
        _, changed = flows_of(atoms)
        changed.softness = soft + h * both / (both.sum() / 2)
        energies.append(energy(FlowEquilibrium(equilibrium.hardness, changed)))
    expected = -((u[flows.i[0]] - u[flows.j[0]]) ** 2) / 2
    assert_allclose((energies[0] - energies[1]) / 2e-4, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_rows(name, iterative):
    """Charges and potential are affine in both fields.

    Therefore differences are exact derivatives.
    """
    atoms = CASES[name]
    fields = fields_of(atoms)
    equilibrium = flow(atoms, iterative=iterative)
    Y, W = np.random.default_rng(2).normal(size=(2, 3, len(atoms)))

    def value(**changes):
        changed = {f: x + changes.get(f, 0.0) for f, x in fields.items()}
        q = equilibrium.charges(**changed)
        return Y @ q + W @ equilibrium.potential(q, **changed)

    start = value()
    scale = 1e-5 if iterative else 1e-11
    rows = equilibrium.rows(Y, W)
    for name in fields:
        steps = np.eye(len(atoms))
        expected = np.stack([value(**{name: step}) - start for step in steps], axis=1)
        atol = scale * np.abs(expected).max()
        assert_allclose(rows[name], expected, rtol=0, atol=atol)
    of_charges, also = equilibrium.rows(Y), equilibrium.rows(Y, np.zeros_like(W))
    for name in fields:
        assert_allclose(of_charges[name], also[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("name", ["molecule", "ion in a field", "crystal"])
def test_parameter_gradient(name, iterative):
    """The gradient with respect to range and softness agrees with finite differences."""
    atoms = CASES[name]
    [structure] = check_structures([atoms])
    fields, n = fields_of(atoms), len(atoms)
    elements = np.unique(atoms.numbers)
    U, of_chi, of_reference = np.random.default_rng(5).normal(size=(3, 4, n))
    alpha = np.arange(1.0, 5.0)
    solver, accuracy = "iterative" if iterative else "dense", 1e-11 if iterative else 1e-8
    options = {"range": 0.3, "softness": dict.fromkeys(elements.tolist(), 0.05)}

    def prepared(**changes):
        response = ChargeFlow(**options | changes, solver=solver, accuracy=accuracy)
        response = response.prepare(elements)
        return response, response.equilibrium(structure)

    def value(**changes):
        _, equilibrium = prepared(**changes)
        rows = equilibrium.rows(U)
        q = equilibrium.charges(**fields)
        return (
            np.vdot(of_chi, rows["chi"]) + np.vdot(of_reference, rows["reference"]) + alpha @ U @ q
        )

    response, equilibrium = prepared()
    u = equilibrium.potential(equilibrium.charges(**fields), **fields)
    row_gradients = {"chi": of_chi, "reference": of_reference}
    found = response.parameter_gradient(equilibrium, U, row_gradients, np.multiply.outer(alpha, u))
    h = 1e-4
    numeric = value(range=0.3 * np.exp(h)) - value(range=0.3 * np.exp(-h))
    assert_allclose(found["range"], numeric / (2 * h), rtol=1e-5)
    for k, z in enumerate(elements.tolist()):
        soft = [options["softness"] | {z: 0.05 * np.exp(sign * h)} for sign in (1, -1)]
        numeric = value(softness=soft[0]) - value(softness=soft[1])
        assert_allclose(found["softness"][k], numeric / (2 * h), rtol=1e-5, atol=1e-7)
    assert QEq().prepare(elements).parameter_gradient(equilibrium, U, row_gradients, U) == {}


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
        found = []
        for iterative in (False, True):
            equilibrium = flow(atoms, softness, iterative=iterative)
            found.append(equilibrium.charges(**fields_of(atoms)))
        assert equilibrium.n_iterations > 0
        assert_allclose(found[1], found[0], rtol=0, atol=1e-7)
        assert abs(found[1].sum() - atoms.info.get("charge", 0.0)) < 1e-12


def test_warm_start_saves_iterations():
    atoms = salt()
    fields = fields_of(atoms)
    equilibrium = flow(atoms, iterative=True)
    cold = equilibrium.charges(**fields)
    n_cold = equilibrium.n_iterations
    fields["chi"] = fields["chi"] + 1e-4 * np.cos(np.arange(len(atoms)))
    warm = equilibrium.charges(start=cold, **fields)
    assert 0 < equilibrium.n_iterations < n_cold - 2
    assert_allclose(warm, equilibrium.charges(**fields), rtol=0, atol=1e-8)
    assert_allclose(equilibrium.charges(start=warm, **fields), warm, rtol=0, atol=1e-8)
    assert equilibrium.n_iterations <= 1


def test_iterations_do_not_grow_with_the_system():
    n_iterations = []
    for n in (2, 4):
        atoms = salt(n)
        equilibrium = flow(atoms, iterative=True)
        chi = np.where(atoms.symbols == "Na", 3.0, 8.0) + fields_of(atoms)["chi"]
        equilibrium.charges(chi=chi)
        n_iterations.append(equilibrium.n_iterations)
    assert n_iterations[1] <= n_iterations[0] + 8 < 30


def test_minute_flows_are_no_obstacle():
    """The solver converges for an atom at the largest distance to which charge flows.

    The softness decreases there until it underflows.
    """
    water = helpers.rattled("H2O", 0)
    for distance in np.linspace(3.5, 4.8, 40):
        atoms = water + Atoms("C", [[0.0, 0.0, distance]])
        found = []
        for iterative in (False, True):
            equilibrium = flow(atoms, iterative=iterative)
            found.append(equilibrium.charges(**fields_of(atoms)))
        assert_allclose(found[1], found[0], rtol=0, atol=1e-7)


def test_a_large_range_takes_no_time_on_a_molecule():
    atoms = helpers.rattled("CH3OH", 0)
    assert len(flows_of(atoms, range=1e4)[1].i) == 6 * 5


def test_energy_does_not_feel_errors_of_the_charges():
    """The energy is stationary, so that small errors of iterative charges have no influence."""
    atoms = CASES["ion in a field"]
    fields = fields_of(atoms)
    equilibrium = flow(atoms)
    q = equilibrium.charges(**fields)
    step = np.random.default_rng(0).normal(size=len(q))
    step -= step.mean()
    errors = [
        equilibrium.energy(q + h * step, **fields) - equilibrium.energy(q, **fields)
        for h in (1e-3, 1e-4)
    ]
    assert_allclose(errors[0] / errors[1], 100.0, rtol=1e-3)
    without = {"chi": fields["chi"], "reference": np.zeros(len(q))}
    assert equilibrium.energy(q, chi=fields["chi"]) == equilibrium.energy(q, **without)


def test_failure_to_converge_gives_advice(monkeypatch):
    monkeypatch.setattr(_solvers, "MAX_ITERATIONS", 3)
    with pytest.raises(RuntimeError, match=r"^Cl108Na108: charges did not converge in 3 .*lower"):
        flow(salt(), iterative=True).charges(**fields_of(salt()))


def test_matrix_that_is_far_from_positive_definite_is_refused():
    atoms = CASES["molecule"]
    with pytest.raises(ValueError, match="^CH4O: the hardness matrix is not positive definite"):
        flow(atoms, hardness=-200.0).charges()
    # The energy of the flows keeps the charges finite, although the hardness matrix is indefinite.
    lowest = np.linalg.eigvalsh(flow(atoms).hardness.matrix)[0]
    flow(atoms, hardness=-1.001 * lowest).charges()


def test_parameters():
    assert ChargeFlow().get_params() == {
        "softness": 0.05,
        "range": 0.25,
        "amplitude": 0.1,
        "amplitude_baseline": 1.0,
        **QEq().get_params(),
    }
    _, flows = flows_of(molecule("H2O"))
    assert len(flows.i) == 6
    assert_allclose(flows.laplacian.toarray().sum(axis=0), 0.0, atol=1e-16)


def test_pairs_near_the_end_of_the_range_do_not_underflow():
    # The exponent of the softness grows beyond all limits where the softness vanishes.
    reach = 2 * covalent_radii()[8] + 10 * 0.3
    for distance in reach - np.array([1e-1, 1e-2, 5e-3, 1e-4, 1e-8, 0.0, -1e-8]):
        pair = Atoms("O2", [[0, 0, 0], [0, 0, distance]])
        with np.errstate(all="raise"):
            _, flows = flows_of(pair)
            assert np.all(flows.softness > 0)
            flows.gradient(np.array([1.0, -1.0]), np.array([0.5, 1.0]))
            flow(pair).charges(**fields_of(pair))
