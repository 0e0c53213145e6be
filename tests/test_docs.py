"""Everything that the documentation shows runs, and every public name says what it takes."""

import doctest
import inspect
import os
import pkgutil
import re
import warnings
from copy import deepcopy
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import datasets

from .public import PUBLIC, public_members, public_objects

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
# What pages show and not every installation has.
OPTIONAL = {"chemiscope", "dask", "pandas"}
# Checks of numpydoc's validation that are not made, all others are.
UNCHECKED = {
    "ES01": "one sentence often says everything",
    "RT02": "results have names, as in scikit-learn",
    "SA01": "related names stand in the text, as links",
    "SS05": "it takes nouns that end in s, such as charges, for verbs",
}
UNCHECKED_OF_METHODS = {"EX01": "the example of the class shows them at work"}


def modules():
    """Names of all modules that can be imported anywhere; kernels may need a compiler."""
    found = pkgutil.walk_packages(skqeq.__path__, "skqeq.")
    return ["skqeq", *(m.name for m in found if not m.name.endswith("__main__"))]


LOADERS = {name: cache(getattr(datasets, name)) for name in datasets.__all__}


def loaded(name, **options):
    """What a loader returns, read from disk only once; reading takes longer than most examples."""
    return deepcopy(LOADERS[name](**options))


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    """Examples write files, draw figures, and tell that they use fewer points than asked for."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    for name in ("load_molecules", "load_ions"):
        monkeypatch.setattr(datasets, name, partial(loaded, name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=", category=UserWarning)
        yield
    import_module("matplotlib.pyplot").close("all")


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    if name == "skqeq._explore":
        pytest.importorskip("chemiscope")
    module = import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for test in finder.find(module, name):
        # Each starts from nothing but builtins: what it needs, it must import before the reader.
        test.globs = {"__name__": "__main__"}
        runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def python_blocks(path):
    """Line number and text of the Python code on a page, apart from what is marked as skipped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    opening = r"```python" if path.suffix == ".md" else r"\s*\.\. code-block:: python"
    for start, line in enumerate(lines):
        if not re.fullmatch(opening, line) or lines[start - 1].strip() == ".. skip":
            continue
        block = []
        indent = len(line) - len(line.lstrip())
        for following in lines[start + 1 :]:
            if path.suffix == ".md":
                ended = following == "```"
            else:
                ended = following.strip() and len(following) - len(following.lstrip()) <= indent
            if ended:
                break
            block.append(following)
        yield start + 2, inspect.cleandoc("\n".join(["", *block]))


PAGES_WITH_CODE = [path for path in PAGES if any(python_blocks(path))]


@pytest.mark.parametrize("path", PAGES_WITH_CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_code_on_pages(path):
    # One namespace for a page: its blocks are meant to be pasted one after the other.
    namespace = {"__name__": "__main__"}
    for line, block in python_blocks(path):
        code = compile("\n" * (line - 1) + block, os.fspath(path), "exec")
        try:
            exec(code, namespace)
        except ImportError as error:
            if str(error.name).partition(".")[0] not in OPTIONAL:
                raise
            pytest.skip(f"needs {error.name}")


def refusals(folder):
    """Mistakes that readers make with files of their own."""
    water, methane, ion, clash, wire = map(molecule, ("H2O", "CH4", "H2O", "H2O", "H2O"))
    ion.info |= {"charge": 1, "total_charge": 0}
    clash.positions[1] = clash.positions[0]
    wire.cell, wire.pbc = [9.0, 9.0, 9.0], (True, False, False)
    D, packed = [[0.0, 0.0, -0.4]], folder / "train.xyz.gz"
    packed.touch()
    model = make_pipeline(
        skqeq.SOAPFeaturizer(r_cut=3.0, n_max=2, l_max=1, species=["H", "C", "O"]),
        skqeq.CURSparsifier(n_points=1),
        skqeq.KQEqRegressor(),
    ).fit([water], D)
    classical = skqeq.QEqRegressor()
    charges = skqeq.make_targets(charges=[np.zeros(3), np.zeros(4)])
    return [
        lambda: skqeq.targets_from_atoms([water], ["dipole"]),
        lambda: classical.fit([water, methane], charges),
        lambda: skqeq.check_structures([ion]),
        lambda: skqeq.check_structures([clash]),
        lambda: model.predict([methane]),
        lambda: skqeq.check_structures([wire]),
        lambda: classical.fit([bulk("MgO", "rocksalt", a=4.2)], D),
        lambda: classical.fit([water], [1.0]),
        lambda: skqeq.check_structures(water),
        lambda: datasets.open_structures(packed),
    ]


def test_common_errors_say_what_the_page_quotes(tmp_path):
    page = (ROOT / "docs/howto/own_data.rst").read_text(encoding="utf-8")
    quoted = re.findall(r"^   \* - \*(.+)\*$", page, re.MULTILINE)
    calls = refusals(tmp_path)
    assert len(quoted) == len(calls)
    for message, call in zip(quoted, calls, strict=True):
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            call()


def test_pages_have_code():
    assert len(PAGES_WITH_CODE) > 5


@pytest.mark.parametrize("name", PUBLIC)
def test_api_page_lists_every_public_name(name):
    page = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    listed = {word.rpartition(".")[2] for word in re.findall(r"[\w.]+", page)}
    missing = set(import_module(name).__all__) - listed
    assert not missing


def symbols():
    """Rows of the table in theory.rst: variables and the files that hold them."""
    page = (ROOT / "docs" / "theory.rst").read_text(encoding="utf-8")
    table = page.partition(".. _symbols:")[2].partition("\nReferences\n")[0]
    for row in table.split("   * - ")[2:]:
        symbol, _, variables, files = re.split(r"\n     - ", row.strip())
        yield symbol, re.findall("``(.+?)``", variables), re.findall("``(.+?)``", files)


def test_symbols_are_where_the_theory_says():
    rows = list(symbols())
    assert len(rows) > 30
    for symbol, variables, files in rows:
        text = ""
        for file in files:
            path = Path(skqeq.__file__).parent / file
            assert path.exists(), f"{symbol}: {file}"
            for source in [path] if path.is_file() else path.glob("*.py"):
                text += source.read_text(encoding="utf-8")
        for variable in variables:
            for name in re.findall(r"\w+", variable.partition("<")[0]):
                assert re.search(rf"\b{name}", text), f"{symbol}: {name} is not in {files}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_compile(path):
    source = path.read_text(encoding="utf-8")
    compile(source, os.fspath(path), "exec")
    # sphinx-gallery makes a page of a docstring with a title, and runs files of this name.
    assert re.match(r'"""\n.+\n={3,}\n', source)
    assert path.name.startswith("plot_")


def test_table_of_reproductions_is_that_of_the_results(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    reproductions = import_module("reproductions")
    committed = (ROOT / "benchmarks" / "results" / "reproductions.csv").read_text(encoding="utf-8")
    monkeypatch.setattr(reproductions, "TABLE", Path("reproductions.csv"))
    reproductions.main()
    assert Path("reproductions.csv").read_text(encoding="utf-8") == committed


@pytest.mark.parametrize("molecule", ["LiF", "NaCl", "CsI"])
def test_charges_of_alkali_halides_are_those_published(monkeypatch, molecule):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    classical = import_module("classical")
    published = classical.HALIDES[molecule][1]
    assert classical.slater_charge(molecule) == pytest.approx(published, abs=6e-4)
    assert classical.gaussian_charge(molecule) == pytest.approx(published, abs=0.025)


def described():
    """Names of all that the API reference describes, and whether they are parts of a class."""
    for value in public_objects().values():
        name = f"{value.__module__}.{value.__qualname__}"
        yield name, False
        if inspect.isclass(value):
            for member, function in public_members(value):
                # What overrides a method may inherit its docstring, which help and Sphinx show.
                if function.__doc__ or not inspect.getdoc(function):
                    yield f"{name}.{member}", True


@pytest.mark.parametrize(("name", "of_class"), list(described()), ids=str)
def test_docstrings_follow_numpydoc(name, of_class):
    validate = pytest.importorskip("numpydoc.validate").validate
    left_out = UNCHECKED | UNCHECKED_OF_METHODS if of_class else UNCHECKED
    errors = [": ".join(error) for error in validate(name)["errors"] if error[0] not in left_out]
    assert not errors, "\n".join(errors)
