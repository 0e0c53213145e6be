"""Sphinx extension: fill the page ``changelog`` with CHANGELOG.md as reStructuredText.

It converts headings, lists, tables, code and links, which is all that the changelog uses.
"""

import re
from itertools import groupby
from pathlib import Path

UNDERLINES = {1: "=", 2: "-", 3: "~", 4: "^"}


def to_rst(markdown):
    """Convert Markdown to reStructuredText."""
    lines = []
    for is_table, group in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        converted = [heading(inline(line)) for line in group]
        lines += table(converted) if is_table else converted
    return "\n".join(lines) + "\n"


def inline(line):
    """Convert code and links."""
    line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"`\1 <\2>`__", line)


def heading(line):
    """Underline a heading; return any other line unchanged."""
    match = re.match(r"(#{1,4}) \[?([^\]]*)\]?(.*)", line)
    if not match:
        return line
    title = match[2] + match[3]
    return f"{title}\n{UNDERLINES[len(match[1])] * len(title)}"


def table(rows):
    """Convert the lines of a table; the second one separates the header from the body."""
    header, _, *body = rows
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (header, *body):
        first, *others = (cell.strip() for cell in row.strip("|").split("|"))
        lines += [f"   * - {first}", *(f"     - {cell}" for cell in others)]
    return lines


def fill(app, docname, source):
    """Replace the text of the page."""
    if docname == "changelog":
        path = Path(app.srcdir).parent / "CHANGELOG.md"
        app.env.note_dependency(str(path))
        source[0] = to_rst(path.read_text(encoding="utf-8"))


def setup(app):
    """Register the extension."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
