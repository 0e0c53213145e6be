"""
Look at structures and charges in the browser
=============================================

`skqeq.explore` writes a page that shows all structures, with their atoms coloured by charge, beside
a map on which structures with similar features are close together. The page is one file that needs
no network and no Python. A notebook shows it below the call, as this page does.
"""

# %%
# A model
# -------
# The model is trained on half of the molecules. The page shows the other half.
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import make_pipeline

from skqeq import CURSparsifier, KQEqRegressor, SOAPFeaturizer, explore
from skqeq.datasets import load_molecules

# sphinx_gallery_thumbnail_path = '_static/explore.png'
X, y, groups = load_molecules(return_groups=True)
split = GroupShuffleSplit(1, test_size=0.5, random_state=0)
train, test = next(split.split(X, groups=groups))
model = make_pipeline(
    SOAPFeaturizer(n_max=6, l_max=4), CURSparsifier(n_points=60), KQEqRegressor(sigma_dipole=0.005)
).fit([X[i] for i in train], y["dipole"][train])

# %%
# The labels of the dipole are in ``info``, so that the page can also show errors.
held_out = [X[i].copy() for i in test]
for atoms, dipole in zip(held_out, y["dipole"][test], strict=True):
    atoms.info["REF_dipole"] = dipole

# %%
# The page
# --------
# Click on a point of the map to see its structure; the button with three lines changes the axes and
# the colours. Try *error of the dipole* as the colour: most large errors have a reason that you see
# in the structure. `properties` adds numbers or words of your own.
properties = {"formula": [atoms.get_chemical_formula() for atoms in held_out]}
explore(held_out, model, "explore.html", properties=properties, title="held-out molecules")
