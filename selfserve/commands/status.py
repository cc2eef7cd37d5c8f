"""The command ``status``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.selfserve.commands import FAILED, INTERRUPTED, epilog, session_of
from headrace.selfserve.output import ReportFormat

if TYPE_CHECKING:
    from headrace.selfserve.status import MeshStatus

app = typer.Typer()

# How often --watch looks, and how long it rests at least, however long a look took.
REFRESH_S = 1.0
_REST_S = 0.2


@app.command(
    epilog=epilog(
        "headrace status",
        "headrace status --watch",
        "headrace status --format json",
        ok="all servers run and answer, and no product has a fault; events that are not in a table yet are no fault",
        failed="a server does not run or answer, or a product has a fault: no topic, no table, a gap, a damaged ledger",
    )
)
def status(
    context: typer.Context,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again each second until Ctrl-C (JSON: a line a look).")
    ] = False,
    report: Annotated[ReportFormat, typer.Option("--format", help="How to write the report.")] = ReportFormat.TABLE,
) -> None:
    """Show the servers, and how far each product's table has come.

    The lag is what the topic holds behind the position in the table's own ledger: events, and the age in seconds of the
    oldest of them. Behind 200,000 offsets it is an upper bound (≤). A question mark stands for what did not answer.
    """
    from headrace.selfserve.overview import Overview
    from headrace.selfserve.stack import stack_of
    from headrace.selfserve.status_view import show_status, watch_status

    mesh = session_of(context).mesh()
    stack = stack_of(mesh.environment)
    overview = Overview(mesh)

    def look() -> MeshStatus:
        return overview.look(stack.status())

    if watch:
        try:
            watch_status(look, report, sys.stdout, _Pace())
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    found = look()
    show_status(found, report, sys.stdout)
    if not found.fine:
        raise typer.Exit(FAILED)


class _Pace:
    """Rests until the next look is due."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + REFRESH_S

    def __call__(self) -> None:
        now_s = time.monotonic()
        rest_s = max(self._due_s - now_s, _REST_S)
        self._due_s = now_s + rest_s + REFRESH_S
        time.sleep(rest_s)
