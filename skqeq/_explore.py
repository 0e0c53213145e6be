"""An HTML page with a viewer of structures and a map of their properties; needs chemiscope."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA

from ._colors import CHARGE_COLORS, charge_limit
from ._counts import counted
from .models import unwrap
from .parameters import DEBYE
from .persistence import replacing
from .structures import StructureFeatures, check_structures
from .targets import ENERGIES, targets_from_atoms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from ._typing import Array, Model, PathType


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; overflow-x: hidden; font-family: sans-serif; }}
#meta {{ padding: 0.5rem; }}
#panels {{ display: flex; height: calc(100vh - 4rem); }}
#map, #right {{ flex: 1; min-width: 0; position: relative; }}
#right {{ display: flex; flex-direction: column; }}
#structure {{ flex: 1; min-height: 0; position: relative; }}
@media (max-width: 600px) {{
  #panels {{ flex-direction: column; gap: 2rem; height: 60rem; }}
}}
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


# The name of the colours of charges on the page.
PALETTE = "RdBu"
# The beginning of the table of palettes in the source of chemiscope's viewer.
PALETTES = re.compile(r"\{(?=inferno:\w+\(\[\[)")
# Height of the page in a notebook, pixels.
HEIGHT = 600

if TYPE_CHECKING:
    OwnPath = Path
else:
    OwnPath = type(Path())  # Path itself cannot have subclasses before Python 3.12


class Page(OwnPath):
    """Path of an HTML page that a notebook shows in a frame."""

    def _repr_html_(self) -> str | None:
        if not self.is_file():  # such as the parent folder
            return None
        page = escape(self.read_text(encoding="utf-8"))
        style = f"width: 100%; height: {HEIGHT}px; border: 1px solid #cccccc"
        return f'<iframe srcdoc="{page}" title="{escape(self.name)}" style="{style}"></iframe>'


def explore(
    structures: Sequence[Atoms],
    model: Model,
    path: PathType = "explore.html",
    *,
    properties: Mapping[str, Sequence[Any] | Array] | None = None,
    title: str = "skqeq",
) -> Path:
    """Write an HTML page with structures, coloured by charge, and a map of their properties.

    The page works in any browser, without a network, and a notebook shows it below the call.
    Negative charges are red and positive ones blue, if any structure has
    atoms of different charge. The map has one point for each structure. By
    default the axes are the first two principal components of the mean features of a structure, so
    that structures with similar features are close together. Axes and colours can be changed on the
    page to show:

    - the number of atoms and the total charge;
    - the norm of the dipole, if all structures are molecules;
    - the error of the dipole, if all structures also have a label of the dipole;
    - the energy per atom, if the model was trained on energies;
    - `properties`.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Structures, up to a few thousand.
    model : fitted estimator
        A charge model, a pipeline that ends in one, or a search over either.
    path : str or path, default="explore.html"
        File of the page; an existing file is replaced.
    properties : dict of {str: array-like of shape (n,)}, default=None
        Additional properties: a dict from names to one number or string per structure.
    title : str, default="skqeq"
        Title of the page.

    Returns
    -------
    path : pathlib.Path
        Absolute path of the page. As the last value of a cell of a notebook, it shows the page.

    Raises
    ------
    ImportError
        If chemiscope is not installed.
    RuntimeError
        If the installed version of chemiscope cannot show the colours.
    ValueError
        If the number of values of a property differs from the number of structures.

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
            raise ValueError(
                f"{counted(len(values), 'value')} of {name!r} for "
                f"{counted(len(structures), 'structure')}"
            )
        of_structures[name] = _property(values)
    atoms = [structure.to_atoms() for structure in checked]
    charges = of_atoms["charge"]["values"]
    ends = np.cumsum([len(structure) for structure in checked])[:-1]
    differ = [np.ptp(part) > 0 for part in np.split(charges, ends)]
    color = _color_settings(charges) if any(differ) else {"property": "element"}
    settings = chemiscope.quick_settings(
        x="PC 1",
        y="PC 2" if "PC 2" in of_structures else "atoms",
        map_color="dipole" if "dipole" in of_structures else "atoms",
        structure_settings={"color": color, "environments": {"activated": False}},
    )
    # The viewer fails to colour atoms if all values in the structure that it shows first are equal.
    settings["pinned"] = [int(np.argmax(differ))]
    data = chemiscope.create_input(
        structures=atoms,
        properties=of_structures | of_atoms,
        environments=chemiscope.all_atomic_environments(atoms),
        metadata={"name": title},
        settings=settings,
    )
    page = PAGE.format(
        title=escape(title),
        viewer=_viewer().replace("</script", "<\\/script"),
        data=json.dumps(data).replace("</", "<\\/"),
    )
    path = Page(path).absolute()  # to be shown later, from any folder
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _color_settings(charges):
    """Settings of the colours of atoms.

    The largest charge is rounded up to one decimal, or one digit, because the viewer cuts off
    others.
    """
    limit = charge_limit(charges)
    step = 10.0 ** min(-1, np.floor(np.log10(limit)))
    limit = float(np.round(step * np.ceil(limit / step), 12))
    limits = {"min": -limit, "max": limit}
    return {"property": "charge", "palette": PALETTE, "transform": "linear", **limits}


def _viewer():
    """Source of chemiscope's viewer, with the colours of charges as a further palette.

    Its own diverging palettes are blue for negative values.
    """
    file = files("chemiscope") / "sphinx" / "static" / "chemiscope.min.js"
    source = file.read_text(encoding="utf-8")
    colors = [list(bytes.fromhex(color[1:])) for color in CHARGE_COLORS]
    stops = [
        [i / (len(colors) - 1), f"rgb({red}, {green}, {blue})"]
        for i, (red, green, blue) in enumerate(colors)
    ]
    source, found = PALETTES.subn(f"{{{PALETTE}:{json.dumps(stops)},", source)
    if found != 1:
        raise RuntimeError(
            f"the colours of charges cannot be added to chemiscope {version('chemiscope')}: "
            "install chemiscope 1.1"
        )
    return source


def _predicted(structures, checked, model):
    """Predicted properties of structures and atoms, in the format of chemiscope."""
    transformer, last = unwrap(model)
    X = transformer(structures)
    sizes = np.array([len(s) for s in checked])
    has_energy = not set(ENERGIES).isdisjoint(last.targets_)
    names = ["charges", "dipole", "energy"] if has_energy else ["charges", "dipole"]
    y = last.predict_targets(X, names)
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
    if has_energy:
        values["energy per atom"] = _property(y["energy"] / sizes, "eV")
    chi = last.predict_electronegativities(X)
    of_atoms = {
        "charge": _property(np.concatenate(list(y["charges"])), "e", "atom"),
        "electronegativity": _property(np.concatenate(chi), "V", "atom"),
    }
    return values, of_atoms


def _labels(structures):
    """Labels of dipoles (n, 3) if all structures have one, else None."""
    try:
        labels = targets_from_atoms(structures, ["dipole"])["dipole"]
    except ValueError:  # no structure has a label
        return None
    return labels if np.isfinite(labels).all() else None


def _principal(X, checked):
    """First two principal components of the mean features of every structure.

    Models without features use compositions instead. The shape is (n_structures, 2), or
    (n_structures, 1) if there are too few structures or features.
    """
    if isinstance(X, StructureFeatures):
        means = np.concatenate([_means(block) for _, block in X.blocks()])
    else:
        elements = sorted({z for s in checked for z in s.species})
        means = np.array([[np.mean(s.numbers == z) for z in elements] for s in checked])
    n = min(2, *means.shape)
    if len(means) == 1:
        return np.zeros((1, n))
    with np.errstate(invalid="ignore"):  # equal structures have no variance to be explained
        components = PCA(n, random_state=0).fit_transform(means)
    return np.round(components, 9)  # no axis that magnifies rounding errors


def _means(block):
    """Mean features of the atoms of every structure: (n_structures, n_features)."""
    sizes = np.diff(block.offsets)
    return block.contract(np.repeat(np.diag(1.0 / sizes), sizes, axis=1))


def _property(values, units="", target="structure"):
    """A property in the format of chemiscope."""
    entry = {"target": target, "values": np.asarray(values)}
    return entry | {"units": units} if units else entry
