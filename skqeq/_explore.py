"""A page of structures to click through, beside a map of their properties. Needs chemiscope."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from .models import unwrap
from .parameters import DEBYE
from .persistence import replacing
from .structures import check_structures
from .targets import targets_from_atoms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from ._typing import Array, Model, PathType


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 0; font-family: sans-serif; }}
#panels {{ display: flex; height: calc(100vh - 3rem); }}
#map, #right {{ flex: 1; min-width: 0; position: relative; }}
#right {{ display: flex; flex-direction: column; }}
#structure {{ flex: 1; min-height: 0; position: relative; }}
</style>
</head>
<body>
<div id="meta"></div>
<div id="panels">
<div id="map"></div>
<div id="right"><div id="structure"></div><div id="info"></div></div>
</div>
<script>{viewer}</script>
<script type="application/json" id="data">{data}</script>
<script>
const data = JSON.parse(document.getElementById("data").textContent);
const parts = {{meta: "meta", map: "map", structure: "structure", info: "info"}};
Chemiscope.DefaultVisualizer.load(parts, data, new Chemiscope.Warnings())
  .then(() => document.body.setAttribute("data-drawn", "yes"))
  .catch((error) => {{ document.body.textContent = "This page cannot be drawn: " + error; }});
</script>
</body>
</html>
"""


def explore(
    structures: Sequence[Atoms],
    model: Model,
    path: PathType = "explore.html",
    *,
    properties: Mapping[str, Sequence[Any] | Array] | None = None,
    title: str = "skqeq",
) -> Path:
    """Write a page that shows structures, coloured by charge, beside a map of their properties.

    The page needs a browser and nothing else, no network either. The map has one point for each
    structure, by default at the first two principal components of its mean features: what the
    model takes for alike is near. Its axes and colours can be changed on the page, to anything of
    the following: size and total charge, the norm of the dipole of molecules and its error where
    the label is known, the energy per atom of models that were trained on energies, and
    `properties`.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Up to some thousands.
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    path : str or path, default="explore.html"
        Where the page goes; an older one is replaced.
    properties : dict of {str: array-like of shape (n,)}, default=None
        More numbers or strings of the structures.
    title : str, default="skqeq"
        Of the page.

    Returns
    -------
    path : pathlib.Path
        Where the page is.

    Raises
    ------
    ImportError
        Without chemiscope.
    ValueError
        If a property has another number of values than there are structures.

    References
    ----------
    Fraux, Cersonsky, Ceriotti, J. Open Source Softw. 5, 2117 (2020).

    Examples
    --------
    >>> import tempfile
    >>> from ase.build import molecule
    >>> from skqeq import QEqRegressor, explore
    >>> X = [molecule("H2O"), molecule("CH3OH"), molecule("H2O2")]
    >>> model = QEqRegressor().fit(X, [[0.0, 0.0, -0.39], [0.3, 0.1, 0.0], [0.0, 0.0, 0.3]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     explore(X, model, f"{folder}/explore.html").name
    'explore.html'
    """
    try:
        import chemiscope
    except ImportError as error:
        message = 'explore needs chemiscope: pip install "skqeq[explore]"'
        raise ImportError(message, name="chemiscope") from error
    structures = list(structures)
    checked = check_structures(structures)
    of_structures, of_atoms = _predicted(structures, checked, model)
    for name, values in (properties or {}).items():
        if len(values) != len(structures):
            raise ValueError(f"{len(values)} values of {name!r} for {len(structures)} structures")
        of_structures[name] = _property(values)
    largest = float(np.abs(of_atoms["charge"]["values"]).max()) or 1.0
    atoms = [structure.to_atoms() for structure in checked]
    data = chemiscope.create_input(
        structures=atoms,
        properties=of_structures | of_atoms,
        environments=chemiscope.all_atomic_environments(atoms),
        metadata={"name": title},
        settings=chemiscope.quick_settings(
            x="PC 1",
            y="PC 2" if "PC 2" in of_structures else "atoms",
            map_color="dipole" if "dipole" in of_structures else "atoms",
            structure_settings={
                "color": {
                    "property": "charge",
                    "palette": "bwr",
                    "min": -largest,
                    "max": largest,
                    "transform": "linear",
                },
                "environments": {"activated": False},
            },
        ),
    )
    viewer = files("chemiscope") / "sphinx" / "static" / "chemiscope.min.js"
    page = PAGE.format(
        title=escape(title),
        viewer=viewer.read_text(encoding="utf-8").replace("</script", "<\\/script"),
        data=json.dumps(data).replace("</", "<\\/"),
    )
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _predicted(structures, checked, model):
    """Properties of the structures, and of their atoms."""
    transformer, last = unwrap(model)
    X = transformer(structures)
    sizes = np.array([len(s) for s in checked])
    energies = bool({"energy", "forces", "stress"} & set(last.targets_))
    y = last.predict_targets(X, ["charges", "dipole", "energy"][: 2 + energies])
    values = {
        "atoms": _property(sizes),
        "total charge": _property([s.charge for s in checked], "e"),
    }
    for k, column in enumerate(_principal(X, checked).T, start=1):
        values[f"PC {k}"] = _property(column)
    if np.isfinite(y["dipole"]).all():
        values["dipole"] = _property(DEBYE * np.linalg.norm(y["dipole"], axis=1), "D")
        labels = _labels(structures)
        if labels is not None:
            error = DEBYE * np.linalg.norm(y["dipole"] - labels, axis=1)
            values["error of the dipole"] = _property(error, "D")
    if energies:
        values["energy per atom"] = _property(y["energy"] / sizes, "eV")
    chi = last.predict_electronegativities(X)
    of_atoms = {
        "charge": _property(np.concatenate(list(y["charges"])), "e", "atom"),
        "electronegativity": _property(np.concatenate(chi), "V", "atom"),
    }
    return values, of_atoms


def _labels(structures):
    """Dipoles that the structures carry, if all do."""
    try:
        labels = targets_from_atoms(structures, ["dipole"])["dipole"]
    except ValueError:  # none does
        return None
    return labels if np.isfinite(labels).all() else None


def _principal(X, checked):
    """The first two principal components of mean features, or of compositions."""
    if hasattr(X, "blocks"):
        means = np.concatenate([_means(block) for _, block in X.blocks()])
    else:
        elements = sorted({z for s in checked for z in s.species})
        means = np.array([[np.mean(s.numbers == z) for z in elements] for s in checked])
    n = min(2, *means.shape)
    return PCA(n, random_state=0).fit_transform(means) if len(means) > 1 else np.zeros((1, n))


def _means(block):
    """Mean features of every structure: (n_structures, n_features)."""
    sizes = np.diff(block.offsets)
    return block.contract(np.repeat(np.diag(1.0 / sizes), sizes, axis=1))


def _property(values, units="", target="structure"):
    found = {"target": target, "values": np.asarray(values)}
    return found | {"units": units} if units else found
