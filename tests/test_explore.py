"""The page of `skqeq.explore`: its data, and its picture in a browser."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from numpy.testing import assert_allclose

import skqeq
from skqeq import QEqRegressor, _explore, predict_charges

pytest.importorskip("chemiscope")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def test_everything_is_on_the_page(model, molecules, dipoles, tmp_path):
    fitted = model.fit(molecules, dipoles)
    for atoms, dipole in zip(molecules, dipoles):
        atoms.info["REF_dipole"] = dipole
    path = skqeq.explore(
        molecules,
        fitted,
        tmp_path / "page.html",
        properties={"number": range(12), "name": [str(a.symbols) for a in molecules]},
        title="</script><b>",
    )
    assert path == tmp_path / "page.html"
    data = data_of(path)
    assert len(data["structures"]) == 12
    properties = data["properties"]
    charges = np.concatenate(predict_charges(fitted, molecules))
    assert_allclose(properties["charge"]["values"], charges)
    errors = np.linalg.norm(fitted.predict(molecules) - dipoles, axis=1) / 0.2081943
    assert_allclose(properties["error of the dipole"]["values"], errors, rtol=1e-5)
    assert properties["number"]["values"] == list(range(12))
    assert {"PC 1", "PC 2", "dipole", "atoms", "name", "electronegativity"} <= properties.keys()
    assert len(data["environments"]) == len(charges)
    settings = data["settings"]["structure"][0]["color"]
    largest = np.abs(charges).max()
    assert largest <= settings["max"] == -settings["min"] < largest + 0.1
    assert settings["max"] == round(settings["max"], 1)  # the viewer cuts off other digits
    # The page must not load other files.
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="http', path.read_text())


def test_models_without_features_and_crystals(tmp_path):
    X = [bulk("NaCl", "rocksalt", a=5.6), bulk("MgO", "rocksalt", a=4.2)]
    model = QEqRegressor().fit(X, skqeq.make_targets(charges=[[1.0, -1.0], [1.5, -1.5]]))
    data = data_of(skqeq.explore(X, model, tmp_path / "page.html"))
    assert "dipole" not in data["properties"]
    assert {"PC 1", "atoms"} <= data["properties"].keys()
    same = skqeq.explore([X[0], X[0]], model, tmp_path / "page.html")
    assert data_of(same)["properties"]["PC 1"]["values"] == [0.0, 0.0]
    alone = data_of(skqeq.explore(X[:1], model, tmp_path / "page.html"))
    assert len(alone["structures"]) == 1


def test_atoms_of_equal_charge(tmp_path):
    X = [Atoms("Cl", [[0, 0, 0]], info={"charge": -1}), bulk("MgO", "rocksalt", a=4.2)]
    model = QEqRegressor().fit(X, skqeq.make_targets(charges=[[-1.0], [1.5, -1.5]]))
    settings = data_of(skqeq.explore(X, model, tmp_path / "page.html"))["settings"]
    assert settings["pinned"] == [1]
    assert settings["structure"][0]["color"]["property"] == "charge"
    settings = data_of(skqeq.explore(X[:1], model, tmp_path / "page.html"))["settings"]
    assert settings["structure"][0]["color"] == {"property": "element"}


def test_wrong_properties(model, molecules, dipoles, tmp_path):
    fitted = model.fit(molecules, dipoles)
    with pytest.raises(ValueError, match="3 values of 'gap' for 12 structures"):
        skqeq.explore(molecules, fitted, tmp_path / "page.html", properties={"gap": [1, 2, 3]})
    assert not list(tmp_path.iterdir())


def test_negative_charges_are_red(model, molecules, dipoles, tmp_path):
    page = skqeq.explore(molecules, model.fit(molecules, dipoles), tmp_path / "page.html")
    [stops] = re.findall(r"\{RdBu:(\[\[.*?\]\]),inferno:", page.read_text())
    stops = json.loads(stops)
    assert [stops[0][0], stops[-1][0]] == [0.0, 1.0]
    (red, _, blue), (end_red, _, end_blue) = (
        map(int, re.findall(r"\d+", color)) for _, color in (stops[0], stops[-1])
    )
    assert red > blue + 100
    assert end_blue > end_red + 100
    color = data_of(page)["settings"]["structure"][0]["color"]
    assert (color["property"], color["palette"]) == ("charge", "RdBu")


def test_a_viewer_without_the_palettes_is_refused(molecules, dipoles, tmp_path, monkeypatch):
    monkeypatch.setattr(_explore, "PALETTES", re.compile("not in the viewer"))
    with pytest.raises(RuntimeError, match="cannot be added to chemiscope"):
        skqeq.explore(molecules, QEqRegressor().fit(molecules, dipoles), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_the_page_itself(molecules, dipoles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = QEqRegressor().fit(molecules, dipoles)
    page = skqeq.explore(molecules, model, "page.html", title='"quoted" & <b>')
    monkeypatch.chdir("/")
    [shown] = re.findall('<iframe srcdoc="([^"]*)"', page._repr_html_())
    assert html.unescape(shown) == page.read_text()
    assert page.parent._repr_html_() is None


@pytest.fixture
def drawn(tmp_path):
    """Function that returns the picture of a page in a browser: RGB values from 0 to 1."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    read = pytest.importorskip("matplotlib.image").imread

    def draw(page):
        picture = tmp_path / "page.png"
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--use-angle=swiftshader"),
            *("--disable-sync", "--enable-unsafe-swiftshader"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800"),
            *("--virtual-time-budget=8000", f"--screenshot={picture}", page.as_uri()),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        return read(picture)[..., :3]

    return draw


def test_a_browser_draws_it(model, molecules, dipoles, tmp_path, drawn):
    page = skqeq.explore(molecules, model.fit(molecules, dipoles), tmp_path / "page.html")
    pixels = drawn(page)
    for half in (pixels[:, :600], pixels[:, 600:]):  # the map, the structure
        coloured = np.ptp(half, axis=-1) > 0.2
        assert coloured.sum() > 300, "nothing is drawn"


@pytest.mark.parametrize(("charge", "in_notebook"), [(-1, False), (1, True)])
def test_a_browser_draws_charges_in_their_colours(charge, in_notebook, tmp_path, drawn):
    # The first structure has one atom, and the viewer takes no range of colours from it.
    ion, water = Atoms("Cl", [[0, 0, 0]]), Atoms("OH", [[0, 0, 0], [1, 0, 0]])
    for atoms in (ion, water):
        atoms.info["charge"] = charge
    y = skqeq.make_targets(charges=[[charge], [0.7 * charge, 0.3 * charge]])
    page = skqeq.explore([ion, water], QEqRegressor().fit([ion, water], y), tmp_path / "page.html")
    if in_notebook:
        cell = tmp_path / "cell.html"
        cell.write_text(f"<!DOCTYPE html><body style='margin: 0'>{page._repr_html_()}</body>")
        page = cell
    middle = drawn(page)[200:500, 800:1050]  # the atom, without the bar of colours
    redder = middle[..., 0] - middle[..., 2]
    assert np.sum(-charge * redder > 0.2) > 100
    assert np.sum(charge * redder > 0.1) == 0


def test_a_browser_draws_the_documentation(drawn):
    """The environment variable SKQEQ_HTML names the folder of the built pages."""
    folder = os.environ.get("SKQEQ_HTML")
    if folder is None:
        pytest.skip("SKQEQ_HTML does not say where the built pages are")
    pixels = drawn(Path(folder) / "index.html")
    dark = pixels.max(axis=-1) < 0.5
    assert dark.any(axis=1).sum() > 150, "no text is drawn"
    assert (np.ptp(pixels, axis=-1) > 0.2).sum() > 300, "nothing coloured is drawn"
