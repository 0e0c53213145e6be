"""Local energies with charge equilibration, and responses, against naive dense algebra.

SOAP features are from DScribe. Kernels, whitening, charges, energies and losses are written from
the equations, with explicit inverses. Derivatives with respect to positions and weights are finite
differences.
"""

import numpy as np
import pytest
from ase import Atoms
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    GAPKQEqRegressor,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    StructureBlocks,
    make_targets,
    predict_born_effective_charges,
    predict_charges,
    predict_electronegativities,
    predict_energy,
    predict_forces,
    predict_polarizability,
)

from ..helpers import (
    CHI,
    RADII,
    dipole,
    equilibrate,
    gaussian_widths,
    hardness_matrix,
    invented_charges,
    linear_response,
    rattled,
    soap,
)

CHI_CUTOFFS, GAP_CUTOFFS = (2.0, 3.0), (2.5,)  # Angstrom
SCALE, HARDNESS = 0.3, 2.7
# eV, e, eV/Angstrom, e, e*Angstrom
SIGMA = {"energy": 0.01, "charges": 0.05, "forces": 0.2, "born": 0.1, "dipole": 0.03}
# The units are V, V, eV and eV; "atom" is not a parameter of the model.
AMPLITUDES = {"chi": 1.3, "b": 5.0, "gap": 0.7, "atom": 10.0}
STEP = 1e-4  # Angstrom
pytestmark = pytest.mark.filterwarnings("ignore:n_points=:UserWarning")


@pytest.fixture(scope="module")
def train():
    return [
        rattled("H2O", 0),
        rattled("HCN", 1),
        rattled("OH", 2, charge=-1),
        rattled("NO", 3, field=[0.3, -0.1, 0.2]),
        rattled("CO", 4, charge=1, field=[0.0, 0.2, -0.4]),
        rattled("H2O", 5, amplitude=0.15),
    ]


@pytest.fixture(scope="module")
def test():
    return [
        rattled("H2O", 10),
        rattled("CO2", 11, charge=2),
        rattled("HCN", 12, field=[0.4, 0.1, -0.2]),
        rattled("N2", 13, charge=-1, field=[0.1, -0.3, 0.2]),
        Atoms("O", [[0.3, -0.2, 0.5]], info={"charge": -1, "external_field": [0.1, 0.2, 0.3]}),
    ]


def kernel(X, Y, r_cuts):
    """Kernel between atoms of the same element: the mean of squared cosines over the cutoffs."""
    numbers = [np.concatenate([atoms.numbers for atoms in Z]) for Z in (X, Y)]
    K = np.zeros((len(numbers[0]), len(numbers[1])))
    for r_cut in r_cuts:
        P, Q = (np.concatenate(soap(Z, list(RADII), r_cut)) for Z in (X, Y))
        for i in range(len(P)):
            for j in range(len(Q)):
                norms = np.linalg.norm(P[i]) * np.linalg.norm(Q[j])
                # An isolated atom has features of norm zero, and the kernel is zero.
                if numbers[0][i] == numbers[1][j] and norms > 0:
                    K[i, j] += (P[i] @ Q[j] / norms) ** 2 / len(r_cuts)
    return K


class Features:
    """Whitened features ``K_nM L^-T`` of the sparse points that a fitted sparsifier chose."""

    def __init__(self, sparsifier, X, r_cuts):
        self.points = []
        self.atoms = []
        for structure, atom in sparsifier.component_indices_:
            self.points.append(X[structure])
            self.atoms.append(atom)
        self.r_cuts = r_cuts
        self.inverse = np.linalg.inv(np.linalg.cholesky(self.kernel(self.points, self.atoms)))

    def kernel(self, X, rows=None):
        """Kernel with the sparse points, of all atoms of X or of one atom of each structure."""
        firsts = np.cumsum([0] + [len(atoms) for atoms in self.points])[:-1]
        K = kernel(X, self.points, self.r_cuts)[:, firsts + self.atoms]
        if rows is not None:
            K = K[np.cumsum([0] + [len(atoms) for atoms in X])[:-1] + rows]
        return K

    def __call__(self, X):
        sizes = np.cumsum([len(atoms) for atoms in X])[:-1]
        return np.split(self.kernel(X) @ self.inverse.T, sizes)


def onehot(atoms, elements):
    return np.array([[float(z == element) for element in elements] for z in atoms.numbers])


def displaced(atoms):
    """Pairs of displaced structures, one pair for each atom and direction."""
    pairs = []
    for j in range(len(atoms)):
        for b in range(3):
            pair = []
            for sign in (1, -1):
                pair.append(atoms.copy())
                pair[-1].positions[j, b] += sign * STEP
            pairs.append(pair)
    return pairs


class Sample:
    """Energies and charges of one geometry as functions of the weights (w, b, u, e)."""

    def __init__(self, atoms, phi, psi, elements):
        self.atoms, self.psi = atoms, psi
        self.counts = onehot(atoms, elements).sum(axis=0)
        self.features = np.hstack([phi, onehot(atoms, elements)])
        self.chi_0 = np.array([CHI[s] for s in atoms.symbols])
        self.A = hardness_matrix(atoms, gaussian_widths(atoms, SCALE), HARDNESS)
        self.P, unit = linear_response(self.A)
        self.field = np.array(atoms.info.get("external_field", np.zeros(3)))
        self.q_0 = unit * atoms.info.get("charge", 0) + self.P @ (atoms.positions @ self.field)

    def chi(self, v):
        return self.chi_0 + self.features @ v[: self.features.shape[1]]

    def charges(self, v):
        return self.q_0 - self.P @ self.chi(v)

    def energy(self, v):
        n, m = self.features.shape[1], self.psi.shape[1]
        q = self.charges(v)
        local = np.sum(self.psi @ v[n : n + m]) + self.counts @ v[n + m :]
        mu = sum(q_i * r for q_i, r in zip(q, self.atoms.positions))
        return local + self.chi(v) @ q + q @ self.A @ q / 2 - self.field @ mu


class Family:
    """A geometry and its displaced copies, for derivatives as functions of the weights."""

    def __init__(self, atoms, phi_of, psi_of, elements):
        X = [atoms] + [a for pair in displaced(atoms) for a in pair]
        samples = [Sample(*parts, elements) for parts in zip(X, phi_of(X), psi_of(X))]
        self.center, self.around = samples[0], samples[1:]
        self.atoms = atoms

    def derivatives(self, function):
        """Derivatives d function / d r_jb, with the axes ``[..., j, b]``."""
        values = [function(sample) for sample in self.around]
        differences = [(a - b) / (2 * STEP) for a, b in zip(values[::2], values[1::2])]
        differences = np.array(differences).reshape(len(self.atoms), 3, -1)
        return np.moveaxis(differences, 2, 0)

    def forces(self, v):
        return -self.derivatives(lambda sample: sample.energy(v))[0]

    def born(self, v):
        differences = self.derivatives(lambda sample: sample.charges(v) @ sample.atoms.positions)
        return np.moveaxis(differences, 1, 0)

    def polarizability(self):
        R, alpha = self.atoms.positions, np.zeros((3, 3))
        for i in range(len(R)):
            for j in range(len(R)):
                alpha += np.outer(R[i], R[j]) * self.center.P[i, j]
        return alpha


def build(**options):
    """A model of two blocks with different cutoffs and numbers of points."""

    def half(r_cut, n_points):
        return make_pipeline(
            SOAPFeaturizer(r_cut=r_cut, n_max=4, l_max=3),
            CURSparsifier(n_points=n_points, jitter=0.0),
        )

    return make_pipeline(
        StructureBlocks([("chi", half(CHI_CUTOFFS, 3)), ("gap", half(GAP_CUTOFFS, 2))]),
        GAPKQEqRegressor(
            sigma_energy=SIGMA["energy"],
            sigma_charges=SIGMA["charges"],
            sigma_forces=SIGMA["forces"],
            sigma_dipole=SIGMA["dipole"],
            sigma_born_effective_charges=SIGMA["born"],
            amplitude_chi=AMPLITUDES["chi"],
            amplitude_baseline=AMPLITUDES["b"],
            amplitude_gap=AMPLITUDES["gap"],
            response=QEq(hardness=HARDNESS, radius_scale=SCALE),
            tol=1e-18,
            **options,
        ),
    )


@pytest.fixture(scope="module")
def labels(train):
    """Labels with noise that no model can fit exactly; some labels are missing."""
    noise = np.random.default_rng(0)
    free = {1: -13.0, 6: -1030.0, 7: -1480.0, 8: -2040.0}
    y = {
        "energy": [
            sum(free[z] for z in a.numbers) - 3.0 * len(a) + 0.3 * noise.normal() for a in train
        ],
        "charges": [invented_charges(a) + 0.1 * noise.normal(size=len(a)) for a in train],
        "forces": [noise.normal(size=(len(a), 3)) for a in train],
        "born_effective_charges": [0.4 * noise.normal(size=(len(a), 3, 3)) for a in train],
        "dipole": [0.3 * noise.normal(size=3) for a in train],
    }
    y["energy"][4] = np.nan
    y["forces"][0][1, 2] = np.nan
    y["forces"][3] = None
    y["charges"][1] = y["dipole"][2] = None
    y["charges"][2][0] = np.nan
    y["born_effective_charges"][1] = None
    y["born_effective_charges"][0][2, 0, 1] = np.nan
    return y


def families(model, train, X):
    """Naive structures with the sparse points of a fitted model."""
    blocks = model[0]
    phi, psi = (
        Features(pipeline[-1], train, r_cuts)
        for (_, pipeline), r_cuts in zip(blocks.transformer_list, (CHI_CUTOFFS, GAP_CUTOFFS))
    )
    elements = sorted({z for atoms in train for z in atoms.numbers})
    assert list(model[-1].elements_) == elements
    return [Family(atoms, phi, psi, elements) for atoms in X]


def weights(model):
    return np.concatenate([model[-1].coef_, model[-1].atomic_energies_])


@pytest.fixture(scope="module")
def fitted(train, labels):
    y = make_targets(energy=labels["energy"], charges=labels["charges"])
    return build().fit(train, y)


@pytest.fixture(scope="module")
def known(fitted, train, test):
    """Naive structures of both sets.

    All models share them, because sparse points depend neither on labels nor on options.
    """
    return families(fitted, train, train + test)


def test_energy_charges_and_forces(fitted, known, train, test):
    """Compare neutral structures, ions, structures in a field, an ion in a field, and one atom."""
    X, v = train + test, weights(fitted)
    chi, q = predict_electronegativities(fitted, X), predict_charges(fitted, X)
    energy, forces = predict_energy(fitted, X), predict_forces(fitted, X)
    for i, naive in enumerate(known):
        assert_allclose(chi[i], naive.center.chi(v), rtol=0, atol=1e-8)
        assert_allclose(q[i], naive.center.charges(v), rtol=0, atol=1e-8)
        assert_allclose(energy[i], naive.center.energy(v), rtol=0, atol=1e-7)
        assert_allclose(forces[i], naive.forces(v), rtol=0, atol=1e-5)
    # Both the local energies and the charges contribute.
    n = known[0].center.features.shape[1]
    local = [np.sum(f.center.psi @ v[n : n + f.center.psi.shape[1]]) for f in known]
    assert np.ptp(local) > 0.1 and max(np.max(np.abs(q_i)) for q_i in q) > 0.1


def noise_of_energy(kind, n_atoms):
    return {"per_atom": n_atoms, "per_structure": 1.0, "sqrt_n": np.sqrt(n_atoms)}[kind]


def loss(v, known, y, relative, sample_weight, energy_noise):
    """0.5 sum ((prediction - y) / sigma)^2 + 0.5 |weights / amplitudes|^2.

    The prior mean of the atomic energies is the solution of least norm when only atomic energies
    are fitted.
    """
    total = 0.0
    for i, naive in enumerate(known):
        n_atoms = len(naive.atoms)
        found = {
            "energy": lambda: naive.center.energy(v),  # noqa: B023
            "charges": lambda: naive.center.charges(v),  # noqa: B023
            "dipole": lambda: dipole(naive.atoms, naive.center.charges(v)),  # noqa: B023
            "forces": lambda: naive.forces(v),  # noqa: B023
            "born_effective_charges": lambda: naive.born(v),  # noqa: B023
        }
        for name, values in y.items():
            if values[i] is None:
                continue
            sigma = SIGMA[name.split("_")[0]] * relative[name][i]
            if name == "energy":
                sigma *= noise_of_energy(energy_noise, n_atoms)
            terms = ((found[name]() - values[i]) / sigma) ** 2
            total += 0.5 * sample_weight[i] * np.nansum(terms)
    n, n_gap = known[0].center.features.shape[1], known[0].center.psi.shape[1]
    n_elements = len(known[0].center.counts)
    w, b, u = v[: n - n_elements], v[n - n_elements : n], v[n : n + n_gap]
    prior = sum(w**2) / AMPLITUDES["chi"] ** 2 + sum(b**2) / AMPLITUDES["b"] ** 2
    prior += sum(u**2) / AMPLITUDES["gap"] ** 2
    if "energy" in y:
        counts, energies = [], []
        for i, naive in enumerate(known):
            if sample_weight[i] > 0 and np.isfinite(y["energy"][i]):
                sigma = noise_of_energy(energy_noise, len(naive.atoms)) * relative["energy"][i]
                counts.append(naive.center.counts * np.sqrt(sample_weight[i]) / sigma)
                energies.append(y["energy"][i] * np.sqrt(sample_weight[i]) / sigma)
        mean = np.linalg.pinv(np.array(counts), rcond=1e-8) @ energies
        prior += sum((v[n + n_gap :] - mean) ** 2) / AMPLITUDES["atom"] ** 2
    return total + 0.5 * prior


def gradient(function, v, steps):
    differences = []
    for e in np.diag(steps):
        differences.append((function(v + e) - function(v - e)) / (2 * np.max(e)))
    return np.array(differences)


CASES = {
    "energy and charges": (["energy", "charges"], "per_atom"),
    "per structure": (["energy", "charges"], "per_structure"),
    "forces alone": (["forces"], "per_atom"),
    "everything": (
        ["energy", "charges", "dipole", "forces", "born_effective_charges"],
        "sqrt_n",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fit_is_where_the_naive_loss_is_stationary(train, labels, known, case):
    names, energy_noise = case
    y = {name: labels[name] for name in names}
    relative = {name: np.ones(len(train)) for name in names}
    sample_weight = np.ones(len(train))
    columns = dict(y)
    if len(names) > 2:
        relative["energy"] = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 3.0])
        relative["forces"] = np.array([1.0, 2.0, 0.7, 1.0, 1.0, 0.5])
        columns |= {f"{name}_sigma": sigma for name, sigma in relative.items()}
        sample_weight = np.array([1.0, 2.0, 0.3, 1.0, 0.0, 1.5])
    model = build(energy_noise=energy_noise).fit(
        train, make_targets(**columns), gapkqeqregressor__sample_weight=sample_weight
    )
    v, naive = weights(model), known[: len(train)]

    def naive_loss(v):
        return loss(v, naive, y, relative, sample_weight, energy_noise)

    def scaled_gradient(v):
        """Gradient for weights in units of their prior widths and atomic energies in eV."""
        n_elements = len(model[-1].elements_)
        n, n_gap = naive[0].center.features.shape[1], naive[0].center.psi.shape[1]
        scales = [AMPLITUDES["chi"]] * (n - n_elements) + [AMPLITUDES["b"]] * n_elements
        scales = np.array(scales + [AMPLITUDES["gap"]] * n_gap + [1.0] * n_elements)
        free = slice(None) if "energy" in names else slice(-n_elements)
        return (scales * gradient(naive_loss, v, 1e-3 * scales))[free]

    found = model[-1].fit_history_[-1]["loss"]
    assert_allclose(found, naive_loss(v), rtol=1e-6)
    moved = v + 0.01 * np.random.default_rng(1).normal(size=len(v))
    assert np.linalg.norm(scaled_gradient(v)) < 1e-4 * np.linalg.norm(scaled_gradient(moved))


def test_polarizability_and_born_charges(fitted, known, train, test):
    """Both are about the coordinate origin.

    For ions they depend on it, unlike molecular dipoles.
    """
    X, v = train + test, weights(fitted)
    alpha, born = predict_polarizability(fitted, X), predict_born_effective_charges(fitted, X)
    for i, naive in enumerate(known):
        assert_allclose(alpha[i], naive.polarizability(), rtol=0, atol=1e-9)
        assert_allclose(born[i], naive.born(v), rtol=0, atol=1e-6)
        # The acoustic sum rule for ions: a translation changes the dipole about the origin.
        charge = X[i].info.get("charge", 0)
        assert_allclose(born[i].sum(axis=0), charge * np.eye(3), rtol=0, atol=1e-9)


def test_responses_do_what_they_are_for(fitted, test):
    """The responses predict the change of dipoles in a field and for displaced atoms.

    The test computes the dipoles naively from the electronegativities of the model.
    """
    for atoms, alpha, born in zip(
        test,
        predict_polarizability(fitted, test),
        predict_born_effective_charges(fitted, test),
    ):
        widths = gaussian_widths(atoms, SCALE)

        def moment(atoms, chi, widths=widths):
            return equilibrate(atoms, chi, widths, HARDNESS) @ atoms.positions

        moved = [a for pair in displaced(atoms) for a in pair]
        mu = [moment(a, chi) for a, chi in zip(moved, predict_electronegativities(fitted, moved))]
        differences = (np.array(mu[::2]) - np.array(mu[1::2])) / (2 * STEP)
        assert_allclose(
            born, differences.reshape(len(atoms), 3, 3).transpose(0, 2, 1), rtol=0, atol=1e-6
        )

        (chi,) = predict_electronegativities(fitted, [atoms])
        field = np.array(atoms.info.get("external_field", np.zeros(3)))
        for b in range(3):
            mu = []
            for sign in (1, -1):
                bent = atoms.copy()
                bent.info["external_field"] = field + sign * 0.1 * np.eye(3)[b]
                mu.append(moment(bent, chi))
            assert_allclose(alpha[:, b], (mu[0] - mu[1]) / 0.2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", ["dense", "iterative"])
def test_born_charges_of_the_class_are_learned(train, test, solver):
    """A fit to Born charges and dipoles alone predicts the charges of new structures."""
    pipeline = make_pipeline(
        SOAPFeaturizer(r_cut=CHI_CUTOFFS, n_max=4, l_max=3),
        CURSparsifier(n_points=2, jitter=0.0),
        KQEqRegressor(
            sigma_dipole=1e-5,
            sigma_born_effective_charges=1e-5,
            response=QEq(hardness=HARDNESS, radius_scale=SCALE, solver=solver, accuracy=1e-10),
        ),
    )
    pipeline[:-1].fit(train)
    phi = Features(pipeline[1], train, CHI_CUTOFFS)
    elements = sorted({z for atoms in train for z in atoms.numbers})
    truth = np.random.default_rng(2).normal(size=len(pipeline[1].component_indices_) + 4)
    truth = np.concatenate([truth, np.zeros(4)])  # The model has no local energies.

    def nothing(X):
        return [np.zeros((len(atoms), 0)) for atoms in X]

    true = [Family(atoms, phi, nothing, elements) for atoms in train + test]
    learned = pipeline.fit(
        train,
        make_targets(
            dipole=[dipole(f.atoms, f.center.charges(truth)) for f in true[: len(train)]],
            born_effective_charges=[f.born(truth) for f in true[: len(train)]],
        ),
    )
    q = predict_charges(learned, train + test)
    born = predict_born_effective_charges(learned, train + test)
    for i, naive in enumerate(true):
        assert_allclose(born[i], naive.born(truth), rtol=0, atol=1e-4)
        assert_allclose(q[i], naive.center.charges(truth), rtol=0, atol=1e-4)
    shifts = learned[-1].coef_[-4:] - truth[-8:-4]
    assert_allclose(learned[-1].coef_[:-4], truth[:-8], rtol=0, atol=1e-2)
    assert_allclose(shifts, shifts.mean(), rtol=0, atol=1e-2)
