"""What `headrace check` and `headrace compat` found, written for people, for programs and for GitHub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from headrace.schemas.compatibility import Finding, Layer
from headrace.selfserve.documents import error_json
from headrace.selfserve.output import say, visible
from headrace.selfserve.places import Place, place_of_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.schemas.errors import Fault
    from headrace.selfserve.comparison import Comparison, ProductFinding

__all__ = ["Checked", "finding_json", "finding_text", "json_text", "write_github", "write_json_report", "write_text"]

_INDENT = "  "


@dataclass(frozen=True, slots=True)
class Checked:
    """A mesh that was checked.

    Attributes:
        name: the mesh's name; its folder's, where a fault hides it.
        domains: how many domains it has.
        products: how many products its files have without a fault.
        faults: those of its files.
        against: what it was compared with; None: nothing.
        comparison: what that found; None: nothing was compared.
        place: tells where in the files a finding stands.
        prefix: the mesh's folder in its repository, with a slash behind it; empty if it is its top.
    """

    name: str
    domains: int
    products: int
    faults: Sequence[Fault]
    against: str | None
    comparison: Comparison | None
    place: Callable[[ProductFinding], Place]
    prefix: str

    @property
    def ok(self) -> bool:
        """Whether there are no faults and no findings, and nothing was left unread that had to be read."""
        comparison = self.comparison
        lacking = comparison is not None and comparison.all_must_be_read and bool(comparison.unread)
        return not self.faults and not self.findings and not lacking

    @property
    def findings(self) -> Sequence[ProductFinding]:
        """What the comparison found."""
        return self.comparison.findings if self.comparison is not None else ()


def finding_text(finding: Finding, where: str, against: str) -> str:
    """Return a finding as a block of lines: ``breaks: …``, ``what: …``, ``where: …``, ``next: …``."""
    lines = [
        f"breaks {finding.breaks}: {finding.rule} ({finding.layer})",
        f"{_INDENT}what: {_change(finding)}, against {against}",
        f"{_INDENT}where: {where}",
        f"{_INDENT}next: {finding.hint}",
    ]
    return "\n".join(map(visible, lines))


def finding_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as JSON's values."""
    return {
        "layer": str(finding.layer),
        "rule": finding.rule,
        "path": finding.path,
        "old": finding.old,
        "new": finding.new,
        "breaks": str(finding.breaks),
        "next": finding.hint,
    }


def json_text(document: dict[str, Any]) -> str:
    """Return an object as a JSON text that UTF-8 can encode."""
    return _encodable(json.dumps(document, ensure_ascii=False, indent=2)) + "\n"


def write_text(checked: Checked, out: TextIO) -> None:
    """Write a block for each finding. Faults are not among them: `show_error` writes those."""
    for each in checked.findings:
        place = f"{checked.place(each)}{f' {each.finding.path}' if each.finding.path else ''}"
        say(finding_text(each.finding, f"{place} of {each.product}", each.against), file=out)


def write_json_report(checked: Checked, out: TextIO) -> None:
    """Write one object with everything."""
    comparison = checked.comparison
    document = {
        "ok": checked.ok,
        "against": checked.against,
        "products": checked.products,
        "compared": comparison.compared if comparison is not None else 0,
        "faults": [
            {**_place_json(place_of_fault(fault.where)), "what": fault.what, "next": fault.hint or None}
            for fault in checked.faults
        ],
        "findings": [
            {
                "product": str(each.product),
                "against": each.against,
                **_place_json(checked.place(each)),
                **finding_json(each.finding),
            }
            for each in checked.findings
        ],
        "unread": [error_json(error) for error in comparison.unread] if comparison is not None else [],
    }
    out.write(json_text(document))


def write_github(checked: Checked, out: TextIO) -> None:
    """Write a workflow command for each fault and finding, which GitHub shows at the line in the pull request.

    Source: GitHub Actions, "Workflow commands"; the escapes are those of actions/toolkit, ``command.ts``.
    """
    for fault in checked.faults:
        place = place_of_fault(fault.where)
        text = f"{fault.what}\nnext: {fault.hint}" if fault.hint else fault.what
        out.write(_command("error", place, checked.prefix, ("headrace check", text)))
    for each in checked.findings:
        found = each.finding
        title = f"{each.product}: {found.rule} breaks {found.breaks}"
        text = f"{_change(found)}, against {each.against} ({found.layer})\nnext: {found.hint}"
        out.write(_command("error", checked.place(each), checked.prefix, (title, text)))
    unread = checked.comparison.unread if checked.comparison is not None else ()
    out.writelines(_command("warning", None, "", ("headrace check", str(error))) for error in unread)


def _command(kind: str, place: Place | None, prefix: str, texts: tuple[str, str]) -> str:
    title, message = texts
    properties: dict[str, object] = {}
    if place is not None:
        properties["file"] = prefix + place.file
        if place.line is not None:
            properties["line"] = place.line
        if place.column is not None:
            properties["col"] = place.column
    properties["title"] = title
    shown = ",".join(f"{name}={_escaped(visible(str(value)), property_=True)}" for name, value in properties.items())
    lines = "\n".join(map(visible, message.split("\n")))
    return _encodable(f"::{kind} {shown}::{_escaped(lines)}\n")


def _escaped(text: str, *, property_: bool = False) -> str:
    text = text.replace("%", "%25").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property_ else text


def _encodable(text: str) -> str:
    # A schema's JSON can write half a surrogate pair, and a message quote it. In JSON the escape is one again.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _change(finding: Finding) -> str:
    nothing = "the product" if finding.layer is Layer.GOVERNANCE else "the event's record"
    return f"{finding.path or nothing} was {finding.old}, is {finding.new}"


def _place_json(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column}
