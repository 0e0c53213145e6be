"""Check all references on the pages, without a build of the pages and without network."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "skqeq", "tests", "tools", ".ci")
# Folders that Sphinx writes, which are not in the repository.
BUILT = ("docs/_build", "docs/auto_examples", "docs/generated")

DOC = re.compile(r":doc:`(?:[^`<]*<)?([^`>]+)>?`")
REF = re.compile(r":ref:`(?:[^`<]*<)?([^`>]+)>?`")
EQUATION = re.compile(r":eq:`([^`]+)`")
CITATION = re.compile(r"\[(\w+)\]_")
FILE = re.compile(r"(?::file:|\.\. (?:image|figure|include|literalinclude)::) +(\S+)")
TOCTREE = re.compile(r"^\.\. toctree::\n((?: +.*\n|\n)*)", re.MULTILINE)
MARKDOWN = re.compile(r"\]\(([^)\s]+)\)")
# Skips placeholders such as examples/plot_<name>.py.
PATH = re.compile(
    rf"(?<![\w/.~-])(?:\.\./)*((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w)(?![\w<*{{])"
)
SCRIPT = re.compile(r"``(\w+\.py)``")
EXAMPLE = re.compile(r"(?:sphx_glr_|\b)(plot_\w+?)(?:\.py|_\d{3}\.png)")
NAME = re.compile(r"(?<!`)`~?(skqeq(?:\.\w+)+)`(?!`)")
WEB = re.compile(r"\w+://[^\s`<>\"')\]]*[^\s`<>\"')\].,;:]")
HOST = re.compile(r"https://(?:[a-z0-9-]+\.)+[a-z]{2,}(?:/\S*)?")
PUBLISHERS = {
    "https://doi.org": re.compile(r"https://doi\.org/10\.\d{4,9}/\S+"),
    "https://arxiv.org": re.compile(r"https://arxiv\.org/(?:abs|pdf)/\d{4}\.\d{4,5}(?:v\d+)?"),
}
# Scripts that readers write themselves.
READERS_SCRIPTS = {"client.py"}


def read(root):
    """Return a dict of the files of a repository: the text of pages, None for other files."""
    files = {}
    for path in [*root.glob("*.*"), *(p for name in FOLDERS for p in (root / name).rglob("*"))]:
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(BUILT) and "__pycache__" not in name:
            files[name] = path.read_text(encoding="utf-8") if is_page(name) else None
    return files


def is_page(name):
    return (
        name.endswith(".md")
        or name.startswith("docs/")
        and name.endswith((".rst", "gallery_order.py"))
        or name.startswith("examples/")
        and name.endswith((".py", ".rst"))
    )


class Links:
    """Targets of references in a repository, which is a dict as `read` returns it."""

    def __init__(self, files):
        self.files = files
        self.places = set(files) | {str(p) for name in files for p in PurePosixPath(name).parents}
        self.scripts = {PurePosixPath(name).name for name in files if name.endswith(".py")}
        text = "\n".join(filter(None, files.values()))
        self.labels = set(re.findall(r"^\.\. _([\w-]+):", text, re.MULTILINE))
        examples = {PurePosixPath(name) for name in files if name.startswith("examples/")}
        self.examples = {path.stem for path in examples if path.suffix == ".py"}
        of_gallery = (page_of(str(path)).removeprefix("docs/") for path in examples)
        self.labels |= {"sphx_glr_" + name.replace("/", "_") for name in of_gallery}
        self.equations = set(re.findall(r":label: (\S+)", text))
        self.citations = set(re.findall(r"^\.\. \[(\w+)\]", text, re.MULTILINE))

    def problems(self):
        """List page, line and text of every broken reference."""
        return [
            f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            for name, text in self.files.items()
            if text is not None
            for pattern, is_valid in self.checks(name)
            for match in pattern.finditer(text)
            if not is_valid(match[1] if pattern.groups else match[0])
        ]

    def checks(self, name):
        """Yield patterns of references and functions that tell whether a match is valid."""
        yield WEB, well_formed
        yield PATH, lambda path: path.startswith(BUILT) or path in self.places
        yield EXAMPLE, self.examples.__contains__
        if name.endswith(".md"):
            yield MARKDOWN, lambda to: "://" in to or self.has_file(name, to.partition("#")[0])
            return
        page = page_of(name)
        yield DOC, lambda to: self.is_document(page, to)
        yield TOCTREE, lambda body: all(self.is_document(page, to) for to in entries(body))
        yield REF, lambda label: " ".join(label.split()).removeprefix("# ") in self.labels
        yield EQUATION, self.equations.__contains__
        yield CITATION, self.citations.__contains__
        yield SCRIPT, lambda script: script in self.scripts | READERS_SCRIPTS
        yield NAME, is_importable
        yield FILE, lambda to: EXAMPLE.search(to) or self.has_file(page, to)

    def has_file(self, page, to):
        """Tell whether a file exists at a path relative to a page."""
        return joined(PurePosixPath(page).parent, to) in self.places

    def is_document(self, page, to):
        """Tell whether a page exists, in docs or in the gallery."""
        path = joined("docs" if to.startswith("/") else PurePosixPath(page).parent, to.lstrip("/"))
        name = path.replace("docs/auto_examples/", "examples/", 1)
        if name == path:
            return f"{path}.rst" in self.files
        folder, _, example = name.rpartition("/")
        return folder in self.places if example == "index" else f"{name}.py" in self.files


def page_of(name):
    """Path of the page that Sphinx makes of a file; examples become pages of the gallery."""
    return re.sub("^examples/", "docs/auto_examples/", name)


def joined(folder, to):
    """Join two paths and remove `..`; the file need not exist."""
    parts = []
    for part in (PurePosixPath(folder) / to).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def entries(body):
    """List the pages in the body of a toctree."""
    lines = (line.strip() for line in body.splitlines())
    return [re.sub(r".*<(.+)>", r"\1", line) for line in lines if line and line[0] != ":"]


def well_formed(address):
    if not HOST.fullmatch(address):
        return False
    of = "/".join(address.split("/")[:3])
    return of not in PUBLISHERS or PUBLISHERS[of].fullmatch(address) is not None


@cache
def is_importable(name):
    """Tell whether a dotted name is a module, class, function or method of the package."""
    found, *rest = name.split(".")
    value = import_module(found)
    for part in rest:
        found = f"{found}.{part}"
        try:
            value = getattr(value, part) if hasattr(value, part) else import_module(found)
        except ModuleNotFoundError:
            return False
    return True


@pytest.fixture(scope="module")
def repository():
    return read(ROOT)


def test_no_reference_is_broken(repository):
    assert sum(text is not None for text in repository.values()) > 50
    assert not Links(repository).problems()


def test_links_to_a_removed_file_are_broken(repository):
    for removed in (
        "docs/install.rst",
        "docs/guide/flow.rst",
        "docs/howto/tune.rst",
        "docs/_static/scaling.png",
        "examples/water/plot_charge_flow.py",
        "benchmarks/flow_chains.py",
        "benchmarks/results/cv.csv",
        "tests/test_properties.py",
    ):
        assert removed in repository
        remaining = {name: text for name, text in repository.items() if name != removed}
        problems = Links(remaining).problems()
        assert any(PurePosixPath(removed).stem in problem for problem in problems), removed


PAGE = """
Title [A1]_
===========

.. _here:

:doc:`other`, :doc:`text </guide/other>`, :doc:`../auto_examples/plot_a`, :ref:`here`, :ref:`text
<sphx_glr_auto_examples_plot_a.py>`, :eq:`energy`, ``benchmarks/b.py``, ``b.py``, `skqeq.load`.
`DOI <https://doi.org/10.1063/5.0000000>`__, https://arxiv.org/abs/2501.01234, https://a.example/x

.. toctree::
   :maxdepth: 1

   other
   text <other>

.. math::
   :label: energy

.. image:: ../_static/c.png
.. figure:: ../auto_examples/images/sphx_glr_plot_a_001.png
.. csv-table::
   :file: ../../benchmarks/results/d.csv
.. code-block:: console

   $ python benchmarks/b.py; sphinx-build docs docs/_build/html

.. [A1] Somebody.
"""
WHOLE = {
    "README.md": "Run `benchmarks/b.py`, see [the guide](docs/guide/page.rst#title).",
    "docs/guide/page.rst": PAGE,
    "docs/guide/other.rst": "Other\n=====\n",
    "docs/_static/c.png": None,
    "examples/plot_a.py": '"""\nA\n=\n\n:doc:`../guide/page`\n"""\n# %%\n# :ref:`here`\n',
    "examples/more/plot_z.py": '"""\n:doc:`../../guide/page` :doc:`/auto_examples/more/plot_z`"""',
    "benchmarks/b.py": None,
    "benchmarks/results/d.csv": None,
}


def test_a_whole_page_has_no_problems():
    assert not Links(WHOLE).problems()


def test_a_broken_page_has_one_problem():
    for whole, broken in (
        (":doc:`other`", ":doc:`others`"),
        ("</guide/other>", "</other>"),
        ("../auto_examples/plot_a`", "../auto_examples/plot_b`"),
        (":ref:`here`", ":ref:`there`"),
        ("<sphx_glr_auto_examples_plot_a.py>", "<sphx_glr_auto_examples_plot_b.py>"),
        (":eq:`energy`", ":eq:`enthalpy`"),
        ("``benchmarks/b.py``", "``benchmarks/a.py``"),
        ("``b.py``", "``a.py``"),
        ("`skqeq.load`", "`skqeq.loads`"),
        ("`skqeq.load`", "`skqeq.nothing.load`"),
        ("10.1063/5.0000000", "5.0000000"),
        ("abs/2501.01234", "abs/2501.0"),
        ("https://a.example/x", "http://a.example/x"),
        ("https://a.example/x", "https://example"),
        ("   other\n", "   others\n"),
        ("text <other>", "text <others>"),
        ("../_static/c.png", "_static/c.png"),
        ("sphx_glr_plot_a_001.png", "sphx_glr_plot_b_001.png"),
        ("../../benchmarks/results/d.csv", "../benchmarks/results/d.csv"),
        ("python benchmarks/b.py", "python benchmarks/a.py"),
        ("Title [A1]_", "Title [A2]_"),
    ):
        assert PAGE.count(whole) == 1
        page = PAGE.replace(whole, broken)
        problems = Links(WHOLE | {"docs/guide/page.rst": page}).problems()
        assert len(problems) == 1, (broken, problems)
        assert problems[0].startswith("docs/guide/page.rst:")


def test_other_pages_are_checked_too():
    for name, text in (
        ("README.md", "[the guide](docs/guide/pages.rst)"),
        ("README.md", "`python benchmarks/a.py`"),
        ("README.md", "<http://a.example/x>"),
        ("examples/plot_a.py", '"""\n:doc:`../guide/pages`\n"""\n'),
        ("examples/plot_a.py", "# %%\n# :ref:`there`\n"),
        ("examples/plot_a.py", 'open("../benchmarks/results/e.csv")\n'),
    ):
        problems = Links(WHOLE | {name: text}).problems()
        assert problems, text
        assert all(problem.startswith(name) for problem in problems)
