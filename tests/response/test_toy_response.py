"""A new response needs one short file; an incomplete response raises clear errors."""

import inspect

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose
from sklearn.base import clone

from skqeq.electrostatics import DenseHardness
from skqeq.response import Equilibrium, QEq, Response, check_response
from skqeq.structures import check_structures

from .. import helpers
from .derivatives import Solved, check_derivatives, weights_of


class LocalCharges(Response):
    """Atoms have learned charges, which are shifted by a constant to the total charge."""

    fields = ("reference",)
    prior_parameters = {"reference": ("amplitude", "amplitude_baseline")}

    def __init__(self, amplitude=0.1, amplitude_baseline=1.0):
        self.amplitude, self.amplitude_baseline = amplitude, amplitude_baseline

    def equilibrium(self, structure, name=None, n_solutions=1):
        return LocalEquilibrium(DenseHardness(structure, accuracy=1e-11))


class LocalEquilibrium(Equilibrium):
    """``q_i = r_i + (Q - sum_j r_j) / n``; the energy is Coulombic."""

    fields = ("reference",)

    def charges(self, *, start=None, **fields):
        r = fields.get("reference", np.zeros(len(self.structure)))
        return r + (self.structure.charge - r.sum()) / len(r)

    def rows(self, Y, W=None):
        U = Y if W is None else Y + W @ self.hardness
        return {"reference": U - U.mean(axis=1, keepdims=True)}


def salt():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


CASES = {
    "molecule": helpers.rattled("CH3OH", 3),
    "ion in a field": helpers.rattled("CH3NO2", 4, charge=-1, field=np.array([0.1, -0.2, 0.05])),
    "crystal": salt(),
}


def test_length():
    n_lines = sum(len(inspect.getsource(c).splitlines()) for c in (LocalCharges, LocalEquilibrium))
    assert n_lines < 60


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    check_derivatives(LocalCharges(), CASES[name])


def test_charges_energy_and_dipole():
    atoms = CASES["ion in a field"]
    response = LocalCharges()
    solved = Solved(response, atoms, weights_of(response))
    r = solved.fields["reference"]
    q = r + (-1 - r.sum()) / len(r)
    assert_allclose(solved.charges, q, rtol=0, atol=1e-14)
    A = helpers.hardness_matrix(atoms, helpers.gaussian_widths(atoms, 0.2))
    energy = q @ A @ q / 2 - q @ atoms.positions @ atoms.info["external_field"]
    assert_allclose(solved.energy, energy, rtol=1e-12)
    assert_allclose(solved.dipole, q @ atoms.positions, rtol=0, atol=1e-13)
    assert not solved.equilibrium.polarizability.any()


def test_base_class_serves_it():
    [structure] = check_structures([CASES["molecule"]])
    response = clone(LocalCharges(amplitude=0.3)).prepare([1, 6, 8])
    check_response(response)
    assert response.prior("reference") == (0.3, 1.0)
    equilibrium = response.equilibrium(structure)
    # At the start, electronegative atoms have negative charges.
    q = response.classical_charges(equilibrium)
    assert q[structure.numbers == 8].max() < 0 < q[structure.numbers == 1].min()
    assert response.classical_size(equilibrium) > 0
    assert response.parameter_gradient(equilibrium, np.eye(6), {}, np.eye(6)) == {}
    assert equilibrium.n_iterations == 0 and equilibrium.induced_dipoles(q) is None


class TestIncomplete:
    def test_without_methods(self):
        class Nothing:
            fields = ("chi",)

        with pytest.raises(TypeError, match="Nothing is not a complete response: .*equilib"):
            check_response(Nothing())

    def test_without_prior(self):
        class Unknown(LocalCharges):
            prior_parameters = {}

        with pytest.raises(TypeError, match="Unknown .* prior for the latent field .reference"):
            check_response(Unknown())
        with pytest.raises(TypeError, match="Unknown has no prior for the latent field"):
            Unknown().prior("reference")

    def test_with_a_prior_of_its_own(self):
        class Fixed(LocalCharges):
            prior_parameters = {}

            def prior(self, field):
                return 0.1, 1.0

        check_response(Fixed())

    def test_a_class_instead_of_an_instance(self):
        with pytest.raises(TypeError, match=r"must be an instance: use QEq\(\)"):
            check_response(QEq)

    def test_abstract_methods(self):
        class Half(Response):
            pass

        class HalfEquilibrium(Equilibrium):
            def charges(self, *, start=None, **fields):
                return np.zeros(3)

        with pytest.raises(TypeError, match="Half .*equilibrium"):
            Half()
        [structure] = check_structures([helpers.rattled("H2O", 0)])
        with pytest.raises(TypeError, match="HalfEquilibrium .*rows"):
            HalfEquilibrium(DenseHardness(structure))

    def test_unknown_fields(self):
        [structure] = check_structures([helpers.rattled("H2O", 0)])
        equilibrium = QEq().prepare([1, 8]).equilibrium(structure)
        with pytest.raises(TypeError, match="QEqEquilibrium has no latent field reference, xi"):
            equilibrium.charges(chi=np.zeros(3), xi=np.zeros(3), reference=np.zeros(3))

    def test_elements(self):
        [structure] = check_structures([helpers.rattled("H2O", 0)])
        with pytest.raises(ValueError, match=r"call QEq.prepare\(elements\) first"):
            QEq().equilibrium(structure)
        with pytest.raises(ValueError, match="QEq is not prepared for O"):
            QEq().prepare([1, 6]).equilibrium(structure)
        with pytest.raises(ValueError, match="no radius in `radii` for O"):
            QEq(radii={"H": 0.3}).prepare([1, 8])
