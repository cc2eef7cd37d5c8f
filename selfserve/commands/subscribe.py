"""Commands of subscribers: ``tail``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.selfserve.commands import INTERRUPTED, epilog, session_of
from headrace.selfserve.output import ReportFormat, log_to_stderr, say

if TYPE_CHECKING:
    from headrace.streams.subscriber import Poison

app = typer.Typer()

# More than a person looks at; whoever wants more queries the table, or subscribes.
MAX_EVENTS = 10_000


@app.command(
    epilog=epilog(
        "headrace tail operations.flights",
        "headrace tail operations.flights -n 100 --format json",
        "headrace tail operations.flights --follow",
    )
)
def tail(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="A name such as operations.flights.")],
    *,
    count: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, max=MAX_EVENTS, help="How many of the last events.")
    ] = 5,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Show PII as it is, instead of masked.")] = False,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="How to write the events; json: one object a line.")
    ] = ReportFormat.TABLE,
) -> None:
    """Show a product's last events, personal data masked.

    They come from its topic: the newest of all partitions by their time.

    PII is masked as in the table. Nothing is committed, so others' positions do not move. Messages that are no events
    are named on stderr.
    """
    from headrace.selfserve.tail import Tail

    mesh = session_of(context).mesh()
    log_to_stderr()
    if raw:
        say("warning: PII is shown as it is")

    def poisoned(poison: Poison) -> None:
        say(f"{poison.partition}:{poison.offset}  no event ({poison.reason}): {poison.what}")

    tailing = Tail(mesh, product, raw=raw, on_poison=poisoned)
    try:
        for shown in tailing.last(count):
            say(shown.json() if output is ReportFormat.JSON else shown.line(), file=sys.stdout)
        sys.stdout.flush()
        for shown in tailing.following() if follow else ():
            say(shown.json() if output is ReportFormat.JSON else shown.line(), file=sys.stdout)
            sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
