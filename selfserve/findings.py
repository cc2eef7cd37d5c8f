"""How findings are shown: a table for people, an array of objects for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from headrace.selfserve.output import say, show_rows, visible, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.governance.findings import Finding, FindingsRead

__all__ = ["chosen_findings", "show_findings", "show_trouble", "write_findings"]

_COLUMNS = ("opened", "status", "rule", "product", "what", "next")
_FIELDS = (
    *("finding_id", "status", "opened_at", "at", "rule", "topic", "product", "matter", "what", "next"),
    *("observation_id", "sequence"),
)


def chosen_findings(read: FindingsRead, product: str | None, *, only_open: bool) -> Sequence[Finding]:
    """Return the findings that were asked for."""
    return [
        finding
        for finding in read.findings
        if (product is None or finding.product == product) and (finding.open or not only_open)
    ]


def show_findings(findings: Sequence[Finding], out: TextIO) -> None:
    """Write a table, and how many are open; a finding of no product stands under its topic."""
    rows = [
        (
            finding.opened_at.strftime("%Y-%m-%d %H:%M:%S"),
            finding.status.lower(),
            finding.rule,
            finding.product or f"topic {finding.topic}",
            finding.what,
            finding.next,
        )
        for finding in findings
    ]
    if rows:
        show_rows(_COLUMNS, iter(rows), [False] * len(_COLUMNS), out)
        say(f"{sum(finding.open for finding in findings):,} open", file=out)
    else:
        say("no findings", file=out)


def write_findings(findings: Sequence[Finding], out: TextIO) -> None:
    """Write all fields; times are ISO 8601, UTC."""
    write_json(_FIELDS, (_row(finding) for finding in findings), out)


def show_trouble(read: FindingsRead) -> None:
    """Say that the topic was not read, and as of when the table is; to stderr."""
    if read.trouble is not None:
        as_of = f"as of {read.as_of:%Y-%m-%d %H:%M:%S} UTC" if read.as_of is not None else "which is still empty"
        say(f"warning: {visible(read.trouble.what)}: this is the table alone, {as_of}")


def _row(finding: Finding) -> tuple[object, ...]:
    times = {"opened_at": finding.opened_at.isoformat(), "at": finding.at.isoformat()}
    return tuple(times.get(name, getattr(finding, name)) for name in _FIELDS)
