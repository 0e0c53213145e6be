"""Which modules of the package import which others."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.once


def test_layers():
    """The contract in pyproject.toml, checked on the sources of the checkout."""
    pytest.importorskip("importlinter")
    command = Path(sys.executable).with_name("lint-imports")
    report = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert report.returncode == 0, report.stdout + report.stderr


def used_names(source, package):
    """Yield the line and the absolute name of everything that a module imports.

    Imports for type checkers and inside functions count. Attributes of imported modules also count,
    because ``from .. import models; models._base`` uses a private module of ``models``.
    """
    tree = ast.parse(source)
    absolute = {}  # names in this module -> absolute names
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                root = alias.name.partition(".")[0]
                absolute[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) + 1 - node.level] if node.level else []
            for alias in node.names:
                name = ".".join([*parents, *filter(None, [node.module]), alias.name])
                yield node.lineno, name
                absolute[alias.asname or alias.name] = name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in absolute:
                yield node.lineno, absolute[first] + dot + rest


def is_private_elsewhere(name, sub_package):
    """Whether `name` is private to a sub-package of skqeq other than `sub_package`."""
    parts = name.split(".")
    return (
        len(parts) > 2
        and parts[0] == "skqeq"
        and parts[1] != sub_package
        and parts[2].startswith("_")
        and not parts[2].startswith("__")
    )


def private_names(source, path):
    """Return the private names of other sub-packages that a module, `path`, uses."""
    package = ["skqeq", *path.parts[:-1]]
    sub_package = path.with_suffix("").parts[0]
    return [
        f"skqeq/{path}:{line}: {name}"
        for line, name in used_names(source, package)
        if is_private_elsewhere(name, sub_package)
    ]


def test_private_modules_stay_private():
    """A module imports from another sub-package only what its ``__init__`` exports."""
    folder = ROOT / "skqeq"
    modules = sorted(folder.rglob("*.py"))
    assert len(modules) > 100
    found = []
    for path in modules:
        found += private_names(path.read_text(encoding="utf-8"), path.relative_to(folder))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "from ..models._base import ChargeModel",
        "from ..models import _base",
        "from skqeq.models._base import ChargeModel",
        "import skqeq.models._base",
        "import skqeq.models as m; m._base",
        "import skqeq; skqeq.models._base.ChargeModel",
        "from .. import models; models._base.ChargeModel",
        "if TYPE_CHECKING:\n    from ..models._base import ChargeModel",
    ],
)
def test_private_imports_are_found(line):
    assert private_names(line, Path("targets/_labels.py"))


def test_other_imports_are_allowed():
    source = "from ..structures import Structure; from . import _labels"
    assert not private_names(source, Path("targets/_labels.py"))
