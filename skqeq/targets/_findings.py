"""The result of a check of labels, and a table of such results."""

from __future__ import annotations

import textwrap

from ..structures import Finding

SEVERITIES = ("ok", "note", "warning")


class Report:
    """A table of findings.

    Parameters
    ----------
    findings : list of Finding
        One per check.

    Attributes
    ----------
    findings : list of Finding
        The same list.

    Examples
    --------
    >>> from skqeq.structures import Finding
    >>> from skqeq.targets import Report
    >>> print(Report([Finding("sum of charges", "ok", 12)]))
    check                     result   structures  first  value
    sum of charges            ok               12
    """

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    @property
    def warnings(self) -> list[Finding]:
        """The findings that are very probably mistakes."""
        return [finding for finding in self.findings if finding.severity == "warning"]

    def __bool__(self) -> bool:
        """Whether there is no warning."""
        return not self.warnings

    def __str__(self) -> str:
        lines = [f"{'check':<26}{'result':<9}{'structures':>10}  {'first':>5}  value"]
        for name, severity, n, first, value, _ in self.findings:
            index = "" if first is None else first
            result = severity if n else "-"  # no structure has what this check compares
            lines.append(f"{name:<26}{result:<9}{n:>10}  {index:>5}  {value}".rstrip())
        for finding in self.findings:
            if finding.advice:
                text = f"{finding.severity}: {finding.name}: {finding.advice}"
                lines += ["", *textwrap.wrap(text, 100, subsequent_indent="  ")]
        if not self.findings:
            lines = ["no check applies to these labels"]
        return "\n".join(lines)

    __repr__ = __str__
