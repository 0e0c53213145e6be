"""Every reference on a page leads somewhere; nothing is built, and no network is needed."""

import re
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "docs", "examples", "skqeq", "tests", "tools", ".ci")
# What Sphinx writes there is not in the repository.
BUILT = ("docs/_build", "docs/auto_examples", "docs/generated")

DOC = re.compile(r":doc:`(?:[^`<]*<)?([^`>]+)>?`")
REF = re.compile(r":ref:`(?:[^`<]*<)?([^`>]+)>?`")
EQUATION = re.compile(r":eq:`([^`]+)`")
CITATION = re.compile(r"\[(\w+)\]_")
FILE = re.compile(r"(?::file:|\.\. (?:image|figure|include|literalinclude)::) +(\S+)")
TOCTREE = re.compile(r"^\.\. toctree::\n((?: +.*\n|\n)*)", re.MULTILINE)
MARKDOWN = re.compile(r"\]\(([^)\s]+)\)")
# No names with a part left open, such as examples/plot_<name>.py.
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
# Scripts that readers write.
THEIRS = {"client.py"}


def read(root):
    """The repository as a dict of its files; the text of those that are pages, None for others."""
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
    """What can be referred to in a repository, given as by `read`."""

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
        """Page, line and text of every reference that leads nowhere."""
        return [
            f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
            for name, text in self.files.items()
            if text is not None
            for pattern, leads_somewhere in self.checks(name)
            for match in pattern.finditer(text)
            if not leads_somewhere(match[1] if pattern.groups else match[0])
        ]

    def checks(self, name):
        """Patterns, and whether what they find on a page leads somewhere."""
        yield WEB, well_formed
        yield PATH, lambda path: path.startswith(BUILT) or path in self.places
        yield EXAMPLE, self.examples.__contains__
        if name.endswith(".md"):
            yield MARKDOWN, lambda to: "://" in to or self.beside(name, to.partition("#")[0])
            return
        page = page_of(name)
        yield DOC, lambda to: self.is_document(page, to)
        yield TOCTREE, lambda body: all(self.is_document(page, to) for to in entries(body))
        yield REF, lambda label: " ".join(label.split()).removeprefix("# ") in self.labels
        yield EQUATION, self.equations.__contains__
        yield CITATION, self.citations.__contains__
        yield SCRIPT, lambda script: script in self.scripts | THEIRS
        yield NAME, is_importable
        yield FILE, lambda to: EXAMPLE.search(to) or self.beside(page, to)

    def beside(self, page, to):
        """Whether a file has a path relative to a page."""
        return joined(PurePosixPath(page).parent, to) in self.places

    def is_document(self, page, to):
        """Whether there is a page to read, of the gallery or our own."""
        path = joined("docs" if to.startswith("/") else PurePosixPath(page).parent, to.lstrip("/"))
        name = path.replace("docs/auto_examples/", "examples/", 1)
        if name == path:
            return f"{path}.rst" in self.files
        folder, _, example = name.rpartition("/")
        return folder in self.places if example == "index" else f"{name}.py" in self.files


def page_of(name):
    """What Sphinx makes of a file: the pages of examples are in the folder of the gallery."""
    return re.sub("^examples/", "docs/auto_examples/", name)


def joined(folder, to):
    """A path without `..`: those of files that do not exist, too."""
    parts = []
    for part in (PurePosixPath(folder) / to).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def entries(body):
    """What a toctree lists."""
    lines = (line.strip() for line in body.splitlines())
    return [re.sub(r".*<(.+)>", r"\1", line) for line in lines if line and line[0] != ":"]


def well_formed(address):
    if not HOST.fullmatch(address):
        return False
    of = "/".join(address.split("/")[:3])
    return of not in PUBLISHERS or PUBLISHERS[of].fullmatch(address) is not None


@cache
def is_importable(name):
    """Whether the package has a module, a class, a function or a method of this name."""
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


def test_every_reference_leads_somewhere(repository):
    assert sum(text is not None for text in repository.values()) > 50
    assert not Links(repository).problems()


@pytest.mark.parametrize(
    "removed",
    [
        "docs/install.rst",
        "docs/guide/flow.rst",
        "docs/howto/tune.rst",
        "docs/_static/scaling.png",
        "examples/plot_charge_flow.py",
        "benchmarks/flow_chains.py",
        "benchmarks/results/cv.csv",
        "tests/test_properties.py",
    ],
)
def test_a_file_that_pages_need_is_missed(repository, removed):
    assert removed in repository
    left = {name: text for name, text in repository.items() if name != removed}
    assert any(PurePosixPath(removed).stem in p for p in Links(left).problems())


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


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
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
    ],
)
def test_a_broken_page_has_one_problem(whole, broken):
    assert PAGE.count(whole) == 1
    page = PAGE.replace(whole, broken)
    [problem] = Links(WHOLE | {"docs/guide/page.rst": page}).problems()
    assert problem.startswith("docs/guide/page.rst:")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("README.md", "[the guide](docs/guide/pages.rst)"),
        ("README.md", "`python benchmarks/a.py`"),
        ("README.md", "<http://a.example/x>"),
        ("examples/plot_a.py", '"""\n:doc:`../guide/pages`\n"""\n'),
        ("examples/plot_a.py", "# %%\n# :ref:`there`\n"),
        ("examples/plot_a.py", 'open("../benchmarks/results/e.csv")\n'),
    ],
)
def test_other_pages_are_checked_too(name, text):
    problems = Links(WHOLE | {name: text}).problems()
    assert problems
    assert all(problem.startswith(name) for problem in problems)
