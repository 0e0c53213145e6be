"""The code in the documentation runs, and the docstrings of all public names are complete."""

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
from ase.calculators.singlepoint import SinglePointCalculator
from sklearn.pipeline import make_pipeline

import skqeq
from skqeq import datasets

from .public import PUBLIC, public_members, public_objects

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
# Packages that pages use and that not every installation has.
OPTIONAL = {"chemiscope", "dask", "pandas"}
# Checks of numpydoc's validation that are switched off, with the reason.
UNCHECKED = {
    "ES01": "a one-sentence summary is often enough",
    "RT02": "return values have names, as in scikit-learn",
    "SA01": "related names are linked in the text",
    "SS05": "it mistakes nouns that end in s, such as charges, for verbs",
}
UNCHECKED_OF_METHODS = {"EX01": "the example of the class uses its methods"}


def modules():
    """Names of all modules, grouped by their top-level module or sub-package of skqeq."""
    walked = pkgutil.walk_packages(skqeq.__path__, "skqeq.")
    groups = {"skqeq": ["skqeq"]}
    for module in walked:
        if not module.name.endswith("__main__"):
            groups.setdefault(".".join(module.name.split(".")[:2]), []).append(module.name)
    return groups


LOADERS = {name: cache(getattr(datasets, name)) for name in datasets.__all__}


def loaded(name, **options):
    """Return a copy of a data set; it is read from disk only once, because reading takes long."""
    return deepcopy(LOADERS[name](**options))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Run in an empty folder, without windows, with cached data sets and fewer warnings."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    for name in ("load_molecules", "load_ions"):
        monkeypatch.setattr(datasets, name, partial(loaded, name))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_points=", category=UserWarning)
        yield
    import_module("matplotlib.pyplot").close("all")


@pytest.mark.parametrize("group", modules())
def test_docstring_examples(group, scratch):
    if group == "skqeq._explore":
        pytest.importorskip("chemiscope")
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report = []
    for name in modules()[group]:
        for test in finder.find(import_module(name), name):
            # An example must import all that it uses, so that readers can paste it.
            test.globs = {"__name__": "__main__"}
            runner.run(test, out=report.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def python_blocks(path):
    """Line number and text of the Python blocks on a page, without those marked as skipped."""
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
def test_code_on_pages(path, scratch):
    # The blocks of a page share a namespace, because readers paste them one after the other.
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
    """Calls that fail in the ways that `docs/howto/own_data.rst` quotes, in the same order."""
    water, methane, ion, clash, wire = map(molecule, ("H2O", "CH4", "H2O", "H2O", "H2O"))
    word, turned = molecule("H2O"), molecule("H2O")
    word.info["charge"] = True
    turned.calc = SinglePointCalculator(turned, energy=-1.0)
    turned.rotate(90, "x")
    ion.info |= {"charge": 1, "total_charge": 0}
    clash.positions[1] = clash.positions[0]
    wire.cell, wire.pbc = [9.0, 9.0, 9.0], (True, False, False)
    D, packed = [[0.0, 0.0, -0.4]], folder / "train.xyz.gz"
    packed.touch()
    names, count = folder / "names.xyz", folder / "count.xyz"
    names.write_text("3\n\nO 0 0 0\nH 1 0 0\nH2 0 1 0\n")
    count.write_text("2\n\nO 0 0 0\nH 1 0 0\nH 0 1 0\n")
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
        lambda: skqeq.check_structures([word]),
        lambda: skqeq.targets_from_atoms([turned], ["energy"]),
        lambda: model.predict([methane]),
        lambda: skqeq.check_structures([wire]),
        lambda: classical.fit([bulk("MgO", "rocksalt", a=4.2)], D),
        lambda: classical.fit([water], [1.0]),
        lambda: skqeq.check_structures(water),
        lambda: datasets.open_structures(names)[0],
        lambda: datasets.open_structures(count),
        lambda: datasets.open_structures(packed),
    ]


def test_quoted_error_messages_are_the_real_ones(tmp_path):
    page = (ROOT / "docs/howto/own_data.rst").read_text(encoding="utf-8")
    quoted = re.findall(r"^   \* - \*(.+?)\*$", page, re.MULTILINE | re.DOTALL)
    calls = refusals(tmp_path)
    assert len(quoted) == len(calls)
    for message, call in zip(quoted, calls, strict=True):
        with pytest.raises((ValueError, TypeError), match=re.escape(" ".join(message.split()))):
            call()


def test_pages_have_code():
    assert len(PAGES_WITH_CODE) > 5


def test_api_pages_list_every_public_name():
    pages = sorted((ROOT / "docs" / "api").glob("*.rst"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    listed = {word.rpartition(".")[2] for word in re.findall(r"[\w.]+", text)}
    missing = {name: sorted(set(import_module(name).__all__) - listed) for name in PUBLIC}
    assert not any(missing.values()), missing


def symbols():
    """Yield the rows of the symbol table in theory.rst: symbol, variables, files."""
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


def test_examples_compile():
    for path in EXAMPLES:
        source = path.read_text(encoding="utf-8")
        compile(source, os.fspath(path), "exec")
        # sphinx-gallery needs a docstring with a title, and runs only files with this prefix.
        assert re.match(r'"""\n.+\n={3,}\n', source), path
        assert path.name.startswith("plot_"), path


def test_gallery_order_names_every_example(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extensions")
    assert sorted(import_module("gallery_order").ORDER) == sorted(path.name for path in EXAMPLES)


def test_changelog_becomes_rst(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_extensions")
    to_rst = import_module("markdown_changelog").to_rst
    markdown = "## [1.0]\n\n| Old | New |\n|---|---|\n| `a` | `b`, [c](d.rst) |\n\nEnd"
    assert to_rst(markdown).splitlines() == [
        "1.0",
        "---",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - Old",
        "     - New",
        "   * - ``a``",
        "     - ``b``, `c <d.rst>`__",
        "",
        "End",
    ]


def test_committed_table_of_reproductions_is_current(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    reproductions = import_module("reproductions")
    committed = (ROOT / "benchmarks" / "results" / "reproductions.csv").read_text(encoding="utf-8")
    monkeypatch.setattr(reproductions, "TABLE", Path("reproductions.csv"))
    reproductions.main()
    assert Path("reproductions.csv").read_text(encoding="utf-8") == committed


def test_charges_of_alkali_halides_are_the_published_ones(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    classical = import_module("classical")
    for halide in ("LiF", "NaCl", "CsI"):
        published = classical.HALIDES[halide][1]
        assert classical.slater_charge(halide) == pytest.approx(published, abs=6e-4)
        assert classical.gaussian_charge(halide) == pytest.approx(published, abs=0.025)


def described():
    """Yield name, value and whether it is a member of a class, for all of the API reference."""
    for value in public_objects().values():
        name = f"{value.__module__}.{value.__qualname__}"
        yield name, value, False
        if inspect.isclass(value):
            for member, function in public_members(value):
                yield f"{name}.{member}", function, True


def test_docstrings_follow_numpydoc():
    validate = pytest.importorskip("numpydoc.validate").validate
    errors = []
    for name, value, is_member in described():
        if is_member and not value.__doc__ and inspect.getdoc(value):
            continue  # an override that has the docstring of the base class
        ignored = UNCHECKED | UNCHECKED_OF_METHODS if is_member else UNCHECKED
        errors += [f"{name}: {c}: {m}" for c, m in validate(name)["errors"] if c not in ignored]
    assert not errors, "\n".join(errors)
