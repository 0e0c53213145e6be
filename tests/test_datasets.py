"""Data sets: physical properties of the labels, and downloads from a local server."""

import gzip
import hashlib
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest

from skqeq.datasets import _fetch, fetch_water, load_ions, load_molecules, load_water

NAME = "water_large.xyz.gz"
XYZ = """\
3
Properties=species:S:1:pos:R:3:REF_forces:R:3:REF_charges:R:1 REF_energy=-138.0 \
REF_dipole="0.0 0.0 0.4" charge=0 n_molecules=1 expansion=1.0 external_field="0.0 0.1 0.0" \
group=7 level=made-up pbc="F F F"
O 0.0 0.0 0.1 0.0 0.0 0.2 -0.6
H 0.0 0.8 -0.4 0.0 0.0 -0.1 0.3
H 0.0 -0.8 -0.4 0.0 0.0 -0.1 0.3
"""


@pytest.fixture(scope="module", params=["gfn2", "pbe0"])
def water(request):
    """Structures, labels and groups of one level."""
    return load_water(request.param, return_groups=True)


def field_of(atoms):
    return atoms.info.get("external_field", np.zeros(3))


def test_water_is_complete(water):
    X, y, groups = water
    assert len(X) == len(y) == len(groups)
    assert y.dtype.names == ("energy", "forces", "dipole", "charges")
    for atoms, label, group in zip(X, y, groups):
        assert atoms.calc is None
        assert set(atoms.arrays) == {"numbers", "positions"}
        assert set(atoms.info) - {"external_field"} == {
            *["charge", "n_molecules", "expansion", "group", "level"]
        }
        assert atoms.info["group"] == group
        assert np.isfinite(label["energy"]) and np.isfinite(label["dipole"]).all()
        assert label["forces"].shape == (len(atoms), 3) and np.isfinite(label["forces"]).all()
        assert label["charges"].shape == (len(atoms),)
        hydrogens = 2 * atoms.info["n_molecules"] + atoms.info["charge"]
        assert np.sum(atoms.numbers == 1) == hydrogens
        assert np.sum(atoms.numbers == 8) == atoms.info["n_molecules"]


def test_any_part_of_water_has_all_kinds(water):
    X, _, _ = water
    part = X[: len(X) // 4]
    charges = [atoms.info["charge"] for atoms in part]
    assert min(charges.count(q) for q in (-1, 0, 1)) > 0.2 * len(part)
    assert 0.15 < np.mean(["external_field" in atoms.info for atoms in part]) < 0.35
    factors = np.array([atoms.info["expansion"] for atoms in part])
    assert 0.15 < np.mean(factors != 1) < 0.35
    assert factors.min() >= 0.9 and factors.max() <= 5
    strengths = [np.linalg.norm(field_of(atoms)) for atoms in X if "external_field" in atoms.info]
    assert min(strengths) > 0.0099 and max(strengths) < 0.2001


def test_groups_of_water_are_trajectories(water):
    X, _, groups = water
    for group in set(groups.tolist()):
        kinds = {(a.info["charge"], a.info["n_molecules"]) for a, g in zip(X, groups) if g == group}
        assert len(kinds) == 1
    assert len(set(groups.tolist())) >= 27


def test_charges_of_water_sum_to_the_total(water):
    X, y, _ = water
    for atoms, charges in zip(X, y["charges"]):
        assert abs(charges.sum() - atoms.info["charge"]) < 0.01


def test_centre_of_mass_of_water_is_the_origin(water):
    for atoms in water[0]:
        assert np.abs(atoms.get_center_of_mass()).max() < 1e-5


def test_molecules_of_water_do_not_collide(water):
    for atoms in water[0]:
        oxygens = atoms[atoms.numbers == 8]
        distances = oxygens.get_all_distances()[np.triu_indices(len(oxygens), 1)]
        assert distances.min() > 1.8


def test_forces_on_water_sum_to_charge_times_field(water):
    X, y, _ = water
    # The tolerances are for rounding of GFN2-xTB, and for the integration grid of PBE0.
    tolerance = 2e-4 if X[0].info["level"].startswith("GFN2") else 0.01
    for atoms, forces in zip(X, y["forces"]):
        expected = atoms.info["charge"] * field_of(atoms)
        assert np.abs(forces.sum(axis=0) - expected).max() < tolerance


def test_energies_of_water_are_sensible(water):
    X, y, _ = water
    # Each charge state is a separate case, because an added proton changes the energy.
    for charge in (-1, 0, 1):
        members = [i for i, atoms in enumerate(X) if atoms.info["charge"] == charge]
        A = [[X[i].info["n_molecules"], 1] for i in members]
        residual = y["energy"][members] - A @ np.linalg.lstsq(A, y["energy"][members])[0]
        assert np.abs(residual).max() < 6


def test_levels_of_water_share_no_group():
    levels = [load_water(level, return_groups=True)[2] for level in ("gfn2", "pbe0")]
    assert not set(levels[0].tolist()) & set(levels[1].tolist())


def test_load_water_without_groups():
    X, y = load_water("pbe0")
    assert len(X) == len(y)


def test_unknown_level():
    with pytest.raises(ValueError, match="'gfn2' or 'pbe0', got 'dft'"):
        load_water("dft")


@pytest.mark.parametrize("load", [load_molecules, load_ions])
def test_molecules_have_dipoles_and_charges_only(load):
    X, y, groups = load(return_groups=True)
    assert y.dtype.names == ("dipole", "charges")
    assert set(X[0].info) == {"charge", "group", "smiles", "level"}
    assert set(X[0].arrays) == {"numbers", "positions"}
    assert groups.tolist() == [atoms.info["group"] for atoms in X]


class Handler(SimpleHTTPRequestHandler):
    """A request handler that prints no messages."""

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """Folder and URL of a server, and a function that stops the server."""
    pytest.importorskip("pooch")
    folder = tmp_path / "server"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop():
        if thread.is_alive():
            http.shutdown()
            thread.join()
            http.server_close()

    yield folder, f"http://127.0.0.1:{http.server_port}", stop
    stop()


@pytest.fixture
def published(server, monkeypatch):
    """A server with a small file in place of the large data set."""
    folder, _, _ = server
    content = gzip.compress(XYZ.encode())
    (folder / NAME).write_bytes(content)
    monkeypatch.setitem(_fetch.REGISTRY, NAME, hashlib.sha256(content).hexdigest())
    monkeypatch.delenv(_fetch.URL_VARIABLE, raising=False)
    return server


def test_fetch_water(published, tmp_path, capfd):
    _, url, stop = published
    X, y, groups = fetch_water(data_home=tmp_path / "home", base_url=url, return_groups=True)
    assert len(X) == 1 and groups.tolist() == [7]
    assert X[0].info["external_field"].tolist() == [0, 0.1, 0]
    assert y["energy"].tolist() == [-138] and y["charges"][0].tolist() == [-0.6, 0.3, 0.3]
    assert y["forces"][0].shape == (3, 3)
    assert "%" not in capfd.readouterr().err  # Without a request there is no progress bar.
    # The data are read from the downloaded file, without a server or URL.
    stop()
    again, _ = fetch_water(data_home=tmp_path / "home")
    assert again[0] == X[0]


def test_address_from_the_environment(published, tmp_path, monkeypatch):
    _, url, _ = published
    monkeypatch.setenv(_fetch.URL_VARIABLE, f"{url}/")
    assert len(fetch_water(data_home=str(tmp_path / "home"))[0]) == 1


def test_progress_bar(published, tmp_path, capfd):
    _, url, _ = published
    fetch_water(data_home=tmp_path / "home", base_url=url, progressbar=True)
    assert "100%" in capfd.readouterr().err


def test_wrong_checksum_leaves_nothing(published, tmp_path):
    folder, url, _ = published
    (folder / NAME).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="hash"):
        fetch_water(data_home=tmp_path / "home", base_url=url)
    assert not list((tmp_path / "home").iterdir())


def test_a_spoiled_copy_is_replaced(published, tmp_path):
    _, url, _ = published
    (tmp_path / NAME).write_bytes(b"half of it")
    assert len(fetch_water(data_home=tmp_path, base_url=url)[0]) == 1


def test_missing_file(published, tmp_path):
    folder, url, _ = published
    (folder / NAME).unlink()
    with pytest.raises(OSError, match=f"{url}/{NAME} cannot be downloaded"):
        fetch_water(data_home=tmp_path / "home", base_url=url)
    assert not list((tmp_path / "home").iterdir())


def test_missing_server(published, tmp_path):
    _, url, stop = published
    stop()
    with pytest.raises(OSError, match=f"{url}/{NAME} cannot be downloaded"):
        fetch_water(data_home=tmp_path / "home", base_url=url)
    assert not list((tmp_path / "home").iterdir())


def test_no_address(published, tmp_path):
    with pytest.raises(ValueError, match=r"SKQEQ_DATA_URL.*tools/make_water\.py"):
        fetch_water(data_home=tmp_path)


def test_no_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"skqeq\[data\]"):
        fetch_water()


def test_registry_has_checksums():
    assert all(len(value) == 64 and int(value, 16) for value in _fetch.REGISTRY.values())
