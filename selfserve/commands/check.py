"""Commands that judge files: ``check``, ``compat``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.schemas.product import Compatibility
from headrace.selfserve.commands import FAILED, epilog, session_of
from headrace.selfserve.output import say, visible

if TYPE_CHECKING:
    from collections.abc import Sized

    from headrace.selfserve.check_report import Checked

app = typer.Typer()


class CheckFormat(StrEnum):
    """How a check is written."""

    TEXT = "text"
    JSON = "json"
    GITHUB = "github"


class CompatFormat(StrEnum):
    """How a comparison of schemas is written."""

    TEXT = "text"
    JSON = "json"


# Typer reads a command's annotations when it runs: these names must be there then.
Against = Annotated[
    str | None,
    typer.Option(metavar="REF", help="Compare with a git ref, such as origin/main; or live: with what is applied."),
]
CheckForm = Annotated[CheckFormat, typer.Option("--format", help="How to write it.")]
Schemas = Annotated[list[Path], typer.Argument(metavar="OLD NEW", help="Two schemas or more, oldest first.")]
Mode = Annotated[Compatibility, typer.Option(help="What readers and writers are promised.")]
CompatForm = Annotated[CompatFormat, typer.Option("--format", help="How to write it.")]


@app.command(
    epilog=epilog(
        "headrace check",
        "headrace check --against origin/main --format github",
        "headrace check --against live --format json",
        ok="no faults in the files, and nothing that breaks anybody",
        failed="faults or findings; or there is no such ref, or what is applied cannot be asked",
    )
)
def check(context: typer.Context, *, against: Against = None, report: CheckForm = CheckFormat.TEXT) -> None:
    """Check the mesh's files: contracts, schemas, masks, names.

    Reads files only, needs no server and no secret, and shows all faults in one run.

    With --against every product is also compared with an older one: readers of old and of new events, logical types,
    the Iceberg table, PII tags and masks, and what the contract promises. A new product breaks nobody; one that is
    gone does, unless it was a draft or deprecated. A ref is read by git's plumbing, and the working tree is left alone.
    `live` asks registry and catalog of the environment, and writes nothing.

    JSON: ok, against, products, compared, faults (file, line, column, what, next), findings (product, against, file,
    line, column, layer, rule, path, old, new, breaks, next), unread (what, where, next: what could not be compared).
    github: a workflow command for each, which GitHub shows at its line in the pull request.
    """
    from headrace.selfserve.check_report import write_github, write_json_report, write_text
    from headrace.selfserve.checking import checked_mesh
    from headrace.selfserve.output import show_error

    session = session_of(context)
    found, error = checked_mesh(session.folder, session.environment, against)
    if report is CheckFormat.JSON:
        write_json_report(found, sys.stdout)
    elif report is CheckFormat.GITHUB:
        write_github(found, sys.stdout)
    else:
        write_text(found, sys.stdout)
        for unread in found.comparison.unread if found.comparison is not None else ():
            say(f"warning: {visible(str(unread))}")
    if error is not None and report is CheckFormat.TEXT:
        show_error(error)
    else:
        say(_summary(found))
    if not found.ok:
        raise typer.Exit(FAILED)


@app.command(
    epilog=epilog(
        "headrace compat old.avsc new.avsc --mode FULL",
        "headrace compat v1.avsc v2.avsc v3.avsc --mode BACKWARD_TRANSITIVE --format json",
        ok="the last schema breaks nobody",
        failed="it breaks somebody, or a file is no schema",
    )
)
def compat(schemas: Schemas, *, mode: Mode = Compatibility.BACKWARD, report: CompatForm = CompatFormat.TEXT) -> None:
    """Compare a schema with those before it, in every layer.

    The last file is the new version, the ones before it are the old versions, oldest first. Needs no mesh and no
    server.

    The mode decides what is asked of readers: plain modes look at the version before, the transitive ones at all,
    NONE at no reader. Logical types, the Iceberg table and PII tags are looked at in every mode.

    JSON: ok, compatible (what a schema registry would say), mode, findings (layer, rule, path, old, new, breaks, next,
    against: files), table (what the table would change, a list of words each).
    """
    from headrace.selfserve.compat import compare_files, write_compat_json, write_compat_text

    if len(schemas) < 2:
        raise typer.BadParameter("give two schemas at least, the older one first")
    found = compare_files(schemas, mode)
    write = write_compat_json if report is CompatFormat.JSON else write_compat_text
    write(found, sys.stdout)
    if not found.report.ok:
        raise typer.Exit(FAILED)


def _summary(found: Checked) -> str:
    things = f"{_count(found.domains, 'domain')}, {_count(found.products, 'product')}, {_or_no(found.faults, 'fault')}"
    text = f"mesh {found.name}: {things}"
    if found.comparison is None:
        return text
    # How many were there to compare with tells a mesh that the ref does not have from one that nothing broke in.
    compared = _count(found.comparison.compared, "product")
    return f"{text}; compared with {found.against}: {compared}, {_or_no(found.findings, 'finding')}"


def _or_no(things: Sized, noun: str) -> str:
    return _count(len(things), noun) if things else f"no {noun}s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
