"""Commands that take a table back or build it anew: ``snapshots``, ``rollback``, ``replay``, ``accept-topic``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.schemas.errors import HeadraceError, UsageError
from headrace.selfserve.commands import epilog, session_of
from headrace.selfserve.commands.operate import Name, Yes, tell_of_sinks
from headrace.selfserve.commands.questions import check_answerable, confirm
from headrace.selfserve.output import ReportFormat, progress, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.past_snapshots import PastSnapshot
    from headrace.sinks.replay.steps import Step
    from headrace.sinks.rollback import Rollback

app = typer.Typer()

# What its hold is told by.
_REPLAY = "headrace replay"


@app.command(
    epilog=epilog(
        "headrace snapshots operations.flights",
        "headrace snapshots operations.flights --format json",
        ok="they are listed",
    )
)
def snapshots(
    context: typer.Context,
    product: Name,
    report: Annotated[ReportFormat, typer.Option("--format", help="How to write the list.")] = ReportFormat.TABLE,
) -> None:
    """List the states of a table that it can be taken back to.

    When each was made, what it did, how many rows the table had, and how far it was with its topic: the newest first.
    Those that were taken back are listed too, until they expire; and a replay that was not ended. Works without Kafka.
    """
    from headrace.schemas.catalog import load_table, open_catalog
    from headrace.selfserve.snapshots_view import show_snapshots, write_snapshots
    from headrace.sinks.past_snapshots import past_snapshots
    from headrace.sinks.replay.boundary import note_of

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    metadata = load_table(open_catalog(mesh.environment, mesh.domain_of(chosen)), chosen).metadata
    found, replayed = past_snapshots(metadata), note_of(metadata)
    if report is ReportFormat.JSON:
        write_snapshots(chosen, found, replayed, sys.stdout)
    else:
        show_snapshots(chosen, found, replayed, sys.stdout)


@app.command(
    epilog=epilog(
        "headrace rollback operations.flights --to 2026-11-20T07:30Z --reread",
        "headrace rollback operations.flights --to 4129871112233445566 --skip --yes",
        ok="the table is back there",
        failed="nothing was changed, or it failed; the error says why",
    )
)
def rollback(
    context: typer.Context,
    product: Name,
    to: Annotated[
        str,
        typer.Option("--to", metavar="SNAPSHOT|TIME", help="A snapshot's id, or a time: what the table was then."),
    ],
    *,
    reread: Annotated[bool, typer.Option("--reread", help="Read from Kafka again what the table loses by it.")] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave that out for good, on record; events go on as now.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Take a table back to an earlier snapshot.

    Shows what would happen and asks. The product is held meanwhile, and released at the end, unless somebody else held
    it before; its sinks go on by themselves. Rows come back as they were written: also those that were deleted, or
    masked by a replay, since. What was taken back can be had again until it expires. --skip works without Kafka.
    """
    from headrace.schemas.catalog import load_table, open_catalog
    from headrace.selfserve.own_hold import own_hold
    from headrace.selfserve.snapshots_view import show_rollback
    from headrace.sinks.rollback import Way, check_rereadable, land_rollback, plan_rollback
    from headrace.streams.admin import Admin

    if reread == skip:
        raise UsageError(
            "say what is to become of the events that the table loses",
            hint="--reread reads them again, --skip leaves them out",
        )
    way = Way.REREAD if reread else Way.SKIP
    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog = open_catalog(mesh.environment, mesh.domain_of(chosen))
    target = _state(load_table(catalog, chosen), chosen, to)

    def planned() -> tuple[Table, Rollback]:
        table = load_table(catalog, chosen)
        plan = plan_rollback(table, chosen, target, way, datetime.now(UTC))
        if reread:
            check_rereadable(plan, chosen, Admin(mesh.environment.kafka_config()))
        return table, plan

    planned()
    check_answerable(yes=yes)
    # What the person agrees to is what is done: nothing lands between the question and the answer.
    with own_hold(catalog, chosen, "headrace rollback") as released:
        table, plan = planned()
        show_rollback(chosen, plan, _rows(table), sys.stderr)
        confirm("take the table back?", yes=yes)
        with _told_where_to_look(chosen):
            say(f"taken back in snapshot {land_rollback(catalog, chosen, plan)}")
    if released:
        tell_of_sinks(chosen)
    else:
        say(f"next: headrace release {chosen.name}")


@app.command(
    name="accept-topic",
    epilog=epilog(
        "headrace accept-topic operations.flights",
        ok="the table follows the topic that there is, or did before",
        failed="nothing was changed, or it failed; the error says why",
    ),
)
def accept_topic(context: typer.Context, product: Name, *, yes: Yes = False) -> None:
    """Let a table go on with a topic that was deleted and made anew.

    A sink stops when its topic has another id than before. This shows both and asks. The rows that there are stay as an
    earlier generation; the new topic is read from its beginning, as the next one. Running
    sinks do so by themselves.
    """
    from headrace.schemas.catalog import open_catalog
    from headrace.selfserve.snapshots_view import show_succession
    from headrace.sinks import generation
    from headrace.streams.admin import Admin

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog, admin = open_catalog(mesh.environment, mesh.domain_of(chosen)), Admin(mesh.environment.kafka_config())
    found = generation.find_succession(catalog, chosen, admin)
    if found is None:
        say(f"{chosen.name} follows the topic that Kafka has: nothing to accept")
        return
    show_succession(chosen, found, sys.stderr)
    confirm("go on with the new topic?", yes=yes)
    snapshot_id = generation.accept_topic(catalog, chosen, found, admin)
    say("somebody else has accepted it meanwhile" if snapshot_id is None else f"accepted in snapshot {snapshot_id}")
    tell_of_sinks(chosen)


@app.command(
    epilog=epilog(
        "headrace replay operations.flights --from earliest",
        "headrace replay operations.flights --from 2026-11-20T07:30Z --yes",
        "headrace replay operations.flights --abandon",
        ok="the table holds the rows that were built anew, or what was built is given up",
        failed="the table is as it was, or it failed; the error says why",
    )
)
def replay(
    context: typer.Context,
    product: Name,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="earliest|TIME|SNAPSHOT",
            help="From all that Kafka has, from a time, or from where the table was at a snapshot.",
        ),
    ] = None,
    *,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, where a replay was broken off.")] = False,
    abandon: Annotated[
        bool,
        typer.Option("--abandon", help="Give up what a replay that was broken off has built. Works without Kafka."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Build a table's rows anew from Kafka, with today's schema, masks and defaults.

    They are built on a branch while the sinks go on, and take the place of the old ones in one commit: nobody ever
    reads half a table. Rows below the beginning and those of earlier topics stay as they were written. What was skipped
    behind the beginning is read; rows that were deleted there come back; what Kafka has compacted away is gone. Broken
    off, it goes on when it is run again.
    """
    from headrace.schemas.catalog import load_table, open_catalog
    from headrace.schemas.registry import Registry
    from headrace.selfserve.own_hold import own_hold, release_left_behind
    from headrace.selfserve.snapshots_view import show_replay
    from headrace.sinks.replay.drain import Drain
    from headrace.sinks.replay.plan import plan_replay
    from headrace.sinks.replay.steps import Replay

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog = open_catalog(mesh.environment, mesh.domain_of(chosen))
    where = _beginning(begin, abandon=abandon, restart=restart)
    if abandon:
        _give_up(catalog, chosen, yes=yes)
        return
    with Registry(mesh.environment.registry_config()) as registry:
        drain = Drain(mesh, chosen, registry, catalog, say)
        if restart:
            _give_up(catalog, chosen, yes=yes)
        plan = plan_replay(load_table(catalog, chosen), chosen, where, drain.admin)
        show_replay(chosen, plan, sys.stderr)
        confirm("build these rows anew?", yes=yes)
        release_left_behind(catalog, chosen, _REPLAY)
        steps: list[Step] = []
        with progress(f"{chosen.name}: looking through the table") as tell, _told_of_break(chosen, begin or "", steps):
            drain.tell = tell
            held = partial(own_hold, catalog, chosen, _REPLAY)
            swapped = Replay(drain, held, steps.append).run(plan)
    say(f"built {drain.rows:,} rows anew; the table shows them from snapshot {swapped} on")


@contextmanager
def _told_where_to_look(product: Product) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say(f"broken off. next: headrace snapshots {product.name} shows whether the table was taken back")
        raise


@contextmanager
def _told_of_break(product: Product, begin: str, steps: Sequence[str]) -> Iterator[None]:
    going_on = f"headrace replay {product.name} --from {quote(begin)} goes on, --abandon gives it up"
    try:
        yield
    except KeyboardInterrupt:
        if "release" in steps:
            say("broken off at the very end: the table shows the new rows")
        else:
            say(f"broken off. next: {going_on}")
        raise
    except HeadraceError as error:
        # From the swap on the error alone knows, and some errors tell how to begin anew instead.
        if steps and "swap" not in steps and "headrace replay" not in (error.hint or ""):
            say(f"broken off, and the table is as it was; once the fault below is mended: {going_on}")
        raise


def _give_up(catalog: Catalog, product: Product, *, yes: bool) -> None:
    from headrace.schemas.catalog import load_table
    from headrace.selfserve.own_hold import release_left_behind
    from headrace.sinks.replay.boundary import BRANCH
    from headrace.sinks.replay.plan import abandon

    if BRANCH in load_table(catalog, product).metadata.refs:
        confirm("give up what a replay has built so far?", yes=yes)
    release_left_behind(catalog, product, _REPLAY)
    say("given up" if abandon(catalog, product) else "no replay was under way")


def _beginning(text: str | None, *, abandon: bool, restart: bool) -> int | datetime | None:
    from headrace.selfserve.snapshots_view import moment_of, snapshot_of

    if abandon and (restart or text is not None):
        raise UsageError("--abandon builds nothing", hint="leave --from and --restart out")
    if text is None:
        if abandon:
            return None
        raise UsageError("say where to begin", hint="--from earliest, --from TIME or --from SNAPSHOT")
    if text == "earliest":
        return None
    try:
        return snapshot_of(text) or moment_of(text)
    except UsageError as error:
        raise UsageError(error.what, hint=f"{error.hint}, or --from earliest") from None


def _state(table: Table, product: Product, text: str) -> PastSnapshot:
    from headrace.selfserve.snapshots_view import moment_of, snapshot_of
    from headrace.sinks.past_snapshots import at_moment, by_id

    snapshot_id = snapshot_of(text)
    if snapshot_id is not None:
        return by_id(table.metadata, snapshot_id, product)
    return at_moment(table.metadata, moment_of(text), product)


def _rows(table: Table) -> int | None:
    from headrace.sinks.past_snapshots import past_snapshots

    return next((past.rows for past in past_snapshots(table.metadata) if past.standing == "current"), None)
