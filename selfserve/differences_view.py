"""How a plan and a drift look: a diff by product for people, a document for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headrace.selfserve.documents import error_json
from headrace.selfserve.drift import next_step
from headrace.selfserve.output import error_text, say, visible
from headrace.selfserve.resources.difference import DONE, SYMBOLS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from headrace.selfserve.plan import Plan
    from headrace.selfserve.resources.difference import Difference
    from headrace.selfserve.resources.parts import Section

__all__ = ["show_drift", "show_plan"]


def show_plan(plan: Plan, out: TextIO, *, as_json: bool) -> None:
    """Write what `apply` would do; what could not be looked at goes to stderr, in JSON it is part of the document."""
    if as_json:
        document = {"sections": [_section_json(section) for section in plan.sections], "summary": _counts(plan)}
        out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    for section in plan.sections:
        _write(out, section, [line for difference in section.differences for line in _plan_lines(difference)])
    _write_troubles(plan)
    counts = _counts(plan)
    asked = f", {counts['destroy']} only with --allow-destroy" if counts["destroy"] else ""
    others = f", {counts['not done']} that apply does not do" if counts["not done"] else ""
    if not (any(counts.values()) or plan.troubles):
        say("nothing to do: all is as the files say", file=out)
        return
    say(f"{counts['create']} to make, {counts['change']} to change{asked}{others}", file=out)


def show_drift(found: Plan, out: TextIO, *, as_json: bool) -> None:
    """Write what is otherwise than the files say; what was not seen goes to stderr, in JSON it is in the document."""
    if as_json:
        sections = [_section_json(section, drift=True) for section in found.sections]
        document = {"sections": sections, "summary": {"differences": len(found.differences)}}
        out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
        return
    for section in found.sections:
        _write(out, section, [line for difference in section.differences for line in _drift_lines(difference)])
    _write_troubles(found)
    count = len(found.differences)
    unseen = f", {len(found.troubles)} not seen" if found.troubles else ""
    say(f"{count or 'no'} difference{'s' if count != 1 else ''}{unseen}", file=out)


def _write(out: TextIO, section: Section, lines: list[str]) -> None:
    if lines:
        say("\n".join([visible(section.name), *lines]), file=out)


def _write_troubles(plan: Plan) -> None:
    for name, trouble in plan.troubles:
        say(f"not all of {visible(name)} was seen:")
        say(error_text(trouble))


def _plan_lines(difference: Difference) -> Iterator[str]:
    yield f"  {SYMBOLS[difference.kind]} {visible(str(difference))}"
    yield from (f"      {visible(detail)}" for detail in difference.details)
    if difference.why:
        yield f"      {visible(difference.why)}"
    if difference.next:
        yield f"      next: {visible(difference.next)}"


def _drift_lines(difference: Difference) -> Iterator[str]:
    yield f"  {visible(_there_and_files(difference))}"
    if difference.kind is not Kind.CREATE:
        yield from (f"      {visible(detail)}" for detail in difference.details)
    if difference.why and difference.kind not in DONE:
        yield f"      {visible(difference.why)}"
    yield f"      next: {visible(next_step(difference))}"


def _there_and_files(difference: Difference) -> str:
    """Return a difference as seen from what is there."""
    name = f"{difference.thing}: {difference.what}" if difference.what else difference.thing
    if difference.kind is Kind.CREATE:
        return f"{name} is missing"
    if difference.cause == "version-pending":
        # Without a reason to wait, the version is not registered yet either.
        behind = "is registered" if difference.why else "is the contract's"
        return f"{difference.thing} has followed version {difference.old}, and version {difference.new} {behind}"
    if difference.old is None and difference.new is None:
        return name if difference.what else f"{name} is there"
    if difference.new is None:
        return f"{name} {difference.old} is there"
    return f"{name} is {difference.old or 'not there'}, the files say {difference.new}"


def _section_json(section: Section, *, drift: bool = False) -> dict[str, Any]:
    differences = [difference.to_dict() for difference in section.differences]
    if drift:
        for document, difference in zip(differences, section.differences, strict=True):
            document["next"] = next_step(difference)
    error = None if section.trouble is None else error_json(section.trouble)
    return {"name": section.name, "differences": differences, "error": error}


def _counts(plan: Plan) -> dict[str, int]:
    kinds = [difference.kind for difference in plan.differences]
    counts = {str(kind): kinds.count(kind) for kind in (Kind.CREATE, Kind.CHANGE, Kind.DESTROY)}
    return {**counts, "not done": len(kinds) - sum(counts.values())}
