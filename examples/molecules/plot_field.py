"""
Charges in an electric field
============================

In charge equilibration charges respond to a field: charge flows until its energy in the field
balances the electrostatic energy. The field is a property of the structure and not a feature. A
model that was trained without fields can therefore predict charges in a field.
"""

# %%
# A model of dipoles
# ------------------
# ``atoms.info["external_field"]`` is the field in V/Angstrom. Its energy is ``-mu . field``: a
# field along z increases the z component of the dipole.
import matplotlib.pyplot as plt
import numpy as np
from ase.build import molecule
from sklearn.pipeline import make_pipeline

from skqeq import (
    CURSparsifier,
    KQEqRegressor,
    QEq,
    SOAPFeaturizer,
    predict_charges,
    predict_target,
)
from skqeq.datasets import load_molecules
from skqeq.parameters import COULOMB
from skqeq.plotting import plot_molecule

X, y = load_molecules()
atoms = molecule("C6H6")
axis = atoms.positions[0] / np.linalg.norm(atoms.positions[0])


def in_field(strength):
    """Benzene in a field (V/Angstrom) along an axis through two carbon atoms."""
    copy = atoms.copy()
    copy.info["external_field"] = strength * axis
    return copy


# %%
# Induced dipole
# --------------
# The dipole is a linear function of the field. Its derivative is the polarisability, which depends
# only on the geometry and on the widths and the hardness of the charges, but not on the
# electronegativities. Dipoles without a field contain no information about it. To describe
# polarisation, choose ``hardness`` and ``radius_scale`` with data that include fields.
fields = np.linspace(-0.5, 0.5, 11)
induced, models = {}, {}
for hardness in (0.0, 5.0, 20.0):
    model = make_pipeline(
        SOAPFeaturizer(n_max=6, l_max=4),
        CURSparsifier(n_points=60),
        KQEqRegressor(sigma_dipole=0.005, response=QEq(hardness=hardness)),
    )
    models[hardness] = model.fit(X, y["dipole"])
    D = predict_target(model, [in_field(f) for f in fields], "dipole") @ axis
    induced[hardness] = D
    polarizability = COULOMB * np.polyfit(fields, D, 1)[0]
    print(f"hardness {hardness:4.1f} eV/e^2: polarisability {polarizability:5.2f} A^3")

# %%
# Pictures
# --------
# Left: the change of the charges of benzene in a field of 0.5 V/Angstrom. Charge moves along the
# field, and the sum of the charges does not change. Right: the induced dipole.
before, after = predict_charges(models[0.0], [atoms, in_field(0.5)])
print(f"sum of the changes: {np.sum(after - before):.1e} e")

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
D = predict_target(models[0.0], [atoms, in_field(0.5)], "dipole")
plot_molecule(atoms, after - before, D[1] - D[0], dipole_scale=2.0, ax=left)
left.set_title("change of charge in the field")
for hardness, D in induced.items():
    right.plot(fields, D, "o-", markersize=4, label=f"hardness {hardness:g} eV/e²")
right.set(xlabel="field (V/Å)", ylabel="dipole along the field (e·Å)")
right.legend(frameon=False)
