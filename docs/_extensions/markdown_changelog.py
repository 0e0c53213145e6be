"""Fill the page ``changelog`` with CHANGELOG.md, turned into reStructuredText.

Only what a changelog needs is understood: headings, lists, code and links.
"""

import re
from pathlib import Path

UNDERLINES = {1: "=", 2: "-", 3: "~"}


def to_rst(markdown):
    """Headings, ``code`` and links as reStructuredText."""
    lines = []
    for line in markdown.splitlines():
        line = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line)
        line = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r"`\1 <\2>`__", line)
        heading = re.match(r"(#{1,3}) \[?([^\]]*)\]?(.*)", line)
        if heading:
            title = heading[2] + heading[3]
            line = f"{title}\n{UNDERLINES[len(heading[1])] * len(title)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def fill(app, docname, source):
    """Replace the text of the page."""
    if docname == "changelog":
        path = Path(app.srcdir).parent / "CHANGELOG.md"
        app.env.note_dependency(str(path))
        source[0] = to_rst(path.read_text(encoding="utf-8"))


def setup(app):
    """Hook in."""
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
