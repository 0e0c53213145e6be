"""The type annotations of public functions are complete and correct."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import skqeq

from .public import function_of, public_members, public_objects

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
# Users call these methods by operators and other syntax.
SPECIAL = ("__init__", "__call__", "__getitem__", "__iter__", "__len__", "__matmul__")

PROGRAM = """
from collections.abc import Sequence

from ase import Atoms
from ase.io import iread
from numpy import ndarray
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import CURSparsifier, KQEqCalculator, KQEqRegressor, QEq, SOAPFeaturizer
from skqeq.datasets import open_structures

X: list[Atoms] = list(iread("train.xyz"))
y = skqeq.make_targets(dipole=[[0.0, 0.0, 0.4], None], charges=[[-0.4, 0.4], [0.1, -0.1]])
model = make_pipeline(
    SOAPFeaturizer(r_cut=(1.7, 3.5), species=["H", "O"]),
    CURSparsifier(n_points=10, method="fps"),
    KQEqRegressor(sigma_dipole=0.01, response=QEq({"H": 1.0, "O": 2}), store_triangles=True),
)
model.fit(X, y)
charges: list[ndarray] = skqeq.predict_charges(model, X)
charges = skqeq.predict_charges(model, open_structures("test.xyz"), start=charges)
energy: ndarray = skqeq.predict_energy(model, tuple(X))
continued: KQEqRegressor = skqeq.partial_fit(KQEqRegressor(), SOAPFeaturizer().fit_transform(X), y)
one: Atoms = skqeq.strip(X)[0]
one.calc = KQEqCalculator(model)
skqeq.save(model, "model.skqeq")
one.calc = KQEqCalculator(skqeq.load("model.skqeq"))


def of_anything(structures: Sequence[Atoms]) -> float:
    features = SOAPFeaturizer().fit_transform(structures)
    return float(features[0].sum()) * len(features[1:])
"""
HEADER = """
from ase import Atoms
import skqeq

model, atoms = skqeq.QEqRegressor(), Atoms("H2")
"""
MISTAKES = {
    "skqeq.predict_charges(model)": "call-arg",
    "skqeq.predict_charges(model, atoms)": "arg-type",
    "skqeq.predict_charges([atoms], model)": "arg-type",
    'skqeq.make_targets(dipole="x")': "arg-type",
    "skqeq.make_targets(charges=1.0)": "arg-type",
    'model.fit([atoms], {"dipole": [[0.0, 0.0, 0.1]]})': "arg-type",
    'model.predict_std([atoms], names="dipole", y=1)': "call-arg",
    'skqeq.QEq(solver="fast")': "arg-type",
    "skqeq.KQEqRegressor(sigma_diploe=0.1)": "call-arg",
    "skqeq.save(model, 3)": "arg-type",
    "skqeq.predict_energy(model, [atoms]).charge": "attr-defined",
    "skqeq.check_structures([atoms])[0].charges": "attr-defined",
}


@pytest.fixture
def mypy(tmp_path):
    """Run mypy with the options of the project, away from the checkout; later runs are quick."""
    api = pytest.importorskip("mypy.api")
    folder = tmp_path / "mypy"
    folder.mkdir()

    def run(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            place = Path(skqeq.__file__).parents[1]
            if place.name != "site-packages":  # an editable installation, which mypy cannot follow
                patch.setenv("MYPYPATH", str(place))
            return api.run(
                [
                    f"--config-file={ROOT / 'pyproject.toml'}",
                    f"--cache-dir={folder / 'cache'}",
                    f"--python-executable={sys.executable}",
                    f"--python-version={sys.version_info.major}.{sys.version_info.minor}",
                    "--no-error-summary",
                    *map(str, arguments),
                ]
            )

    return run


def functions():
    """All functions and methods that have a signature, with their names."""
    for name, value in public_objects().items():
        if not inspect.isclass(value):
            yield name, value
            continue
        for member, function in public_members(value):
            yield f"{name}.{member}", function_of(function)
        for special in SPECIAL:
            function = getattr(value, special, None)
            if getattr(function, "__module__", "").startswith("skqeq"):
                yield f"{name}.{special}", function


def test_annotations_are_complete():
    n_functions, missing = 0, []
    for name, function in functions():
        n_functions += 1
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        if parameters and parameters[0].name in ("self", "cls"):
            del parameters[0]
        missing += [f"{name}({p.name})" for p in parameters if p.annotation is p.empty]
        if signature.return_annotation is signature.empty:
            missing.append(f"{name} -> ?")
    assert missing == []
    assert n_functions > 200


def test_package_is_typed():
    assert (Path(skqeq.__file__).parent / "py.typed").is_file()


def test_package_and_programs_of_users(mypy, tmp_path):
    """This is one test, because the second and third run of mypy read the cache of the first."""
    report, trouble, status = mypy("-p", "skqeq")
    assert status == 0, report + trouble
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    report, trouble, status = mypy(program)
    assert status == 0, report + trouble
    # A type checker must find these mistakes.
    program.write_text(HEADER + "\n".join(MISTAKES))
    report, _, _ = mypy(program)
    first = HEADER.count("\n") + 1
    for number, (line, kind) in enumerate(MISTAKES.items(), start=first):
        found = [text for text in report.splitlines() if f"program.py:{number}: error" in text]
        assert any(f"[{kind}]" in text for text in found), f"{line}\n{report}"


def test_types_cost_no_import():
    code = "import skqeq, sys; assert 'skqeq._typing' not in sys.modules"
    # With -P, Python imports the installed package instead of the sources in the checkout.
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
