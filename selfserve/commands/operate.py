"""Commands of the person on call: ``hold``, ``release``, ``ledger``, ``accept-gap``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.selfserve.commands import FAILED, epilog, session_of
from headrace.selfserve.commands.questions import confirm
from headrace.selfserve.output import ReportFormat, say, show_error, visible

if TYPE_CHECKING:
    from headrace.schemas.product import Product
    from headrace.sinks.acceptance import Gap

app = typer.Typer()
ledger_app = typer.Typer(no_args_is_help=True)

# Typer reads a command's annotations when it runs: these names must be there then.
Name = Annotated[str, typer.Argument(metavar="PRODUCT", help="A name such as operations.flights.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask: for scripts.")]


def tell_of_sinks(product: Product) -> None:
    """Say who does what is now to be done."""
    say(f"running sinks go on by themselves within 30 s; else: headrace sink {product.name}")


@app.command(
    epilog=epilog(
        'headrace hold operations.flights --reason "its table is being compacted"',
        ok="it is held, or was before",
    )
)
def hold(
    context: typer.Context,
    product: Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; everybody who reads the table can read it.")
    ] = "",
) -> None:
    """Keep a product's table as it is, until it is released.

    When this returns, no further row is committed, whatever was under way. The sinks go on running: they keep their
    partitions and one open batch, and say that they wait. Works without Kafka.
    """
    from headrace.schemas.catalog import open_catalog
    from headrace.sinks.hold import hold as hold_product

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog = open_catalog(mesh.environment, mesh.domain_of(chosen))
    before = hold_product(catalog, chosen, reason, datetime.now(UTC))
    if before is not None:
        say(f"{chosen.name} was {visible(str(before))}; it stays so")
        return
    say(f"{chosen.name} is held: nothing more is committed to its table")
    say(f"next: headrace release {chosen.name}")


@app.command(
    epilog=epilog("headrace release operations.flights", ok="it is not held, or was not before"),
)
def release(context: typer.Context, product: Name) -> None:
    """Let a held product's sinks go on.

    They do so within two seconds. Works without Kafka.
    """
    from headrace.schemas.catalog import open_catalog
    from headrace.sinks.hold import release as release_product

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    before = release_product(open_catalog(mesh.environment, mesh.domain_of(chosen)), chosen)
    if before is None:
        say(f"{chosen.name} was not held")
    else:
        say(f"{chosen.name} is released; it was {visible(str(before))}")


@app.command(
    name="accept-gap",
    epilog=epilog(
        "headrace accept-gap operations.flights",
        "headrace accept-gap operations.flights --yes",
        ok="the gap is accepted, or there was none",
        failed="nothing was changed, or it failed; the error says why",
    ),
)
def accept_gap(context: typer.Context, product: Name, *, yes: Yes = False) -> None:
    """Go on without events that Kafka has deleted too early.

    A sink stops when Kafka has deleted events before they were in the table. This shows what is lost and asks. The
    acceptance is a snapshot of the table, and its ledger records it; rolling the table back takes it back. Running
    sinks go on by themselves.
    """
    from headrace.schemas.catalog import open_catalog
    from headrace.sinks.acceptance import accept, find_gaps
    from headrace.streams.admin import Admin

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog, config = open_catalog(mesh.environment, mesh.domain_of(chosen)), mesh.environment.kafka_config()
    admin = Admin(config)
    found = find_gaps(catalog, chosen, admin, config)
    if not found.gaps:
        say(f"{chosen.name} has no gap: Kafka still has all that is not in the table")
        return
    for gap in found.gaps:
        say(_lost(gap))
    lost = sum(gap.end - gap.first for gap in found.gaps)
    say(f"up to {lost:,} events of {chosen.name} are lost: Kafka has deleted them, and they will never be in the table")
    confirm("go on without them?", yes=yes)
    snapshot_id = accept(catalog, chosen, found, admin, datetime.now(UTC))
    say(f"accepted in snapshot {snapshot_id}")
    if find_gaps(catalog, chosen, admin, config).gaps:
        say("Kafka has deleted more meanwhile: run this again; the contract's retention is too short")
    else:
        tell_of_sinks(chosen)


app.add_typer(
    ledger_app,
    name="ledger",
    help="Show or repair how far a table has come.",
    epilog=epilog("headrace ledger show operations.flights", "headrace ledger repair operations.flights"),
)


@ledger_app.command(
    name="show",
    epilog=epilog(
        "headrace ledger show operations.flights",
        "headrace ledger show operations.flights --format json",
        ok="the ledger can be read",
        failed="it cannot, or it failed; the error says why",
    ),
)
def ledger_show(
    context: typer.Context,
    product: Name,
    report: Annotated[ReportFormat, typer.Option("--format", help="How to write the ledger.")] = ReportFormat.TABLE,
) -> None:
    """Show how far a table has come with its topic.

    Positions, last rows, lag, accepted gaps, and whether it is held. The ledger is read from the table's own snapshots,
    as its sink reads it. Works without Kafka, but then the ends of the log are missing.
    """
    from headrace.selfserve.ledgers import show_ledger, view_ledger, write_ledger

    mesh = session_of(context).mesh()
    view = view_ledger(mesh, mesh.product(product))
    if report is ReportFormat.JSON:
        write_ledger(view, sys.stdout)
    else:
        show_ledger(view, sys.stdout)
    if view.damage is not None:
        show_error(view.damage)
        raise typer.Exit(FAILED)


@ledger_app.command(
    name="repair",
    epilog=epilog(
        "headrace ledger repair operations.flights",
        "headrace ledger repair operations.flights --yes",
        ok="it is repaired, or there was nothing to repair",
        failed="it is not certain what the ledger should be, or it failed; the error says why",
    ),
)
def ledger_repair(context: typer.Context, product: Name, *, yes: Yes = False) -> None:
    """Make a ledger that is damaged from the table's rows.

    Each partition goes on behind its last row. Rows that somebody has deleted from the table behind that one come back;
    what was refused there is refused again. Shows what would change and asks. A ledger that is fine is left as it is.
    """
    from headrace.schemas.catalog import open_catalog
    from headrace.selfserve.ledgers import show_repair
    from headrace.sinks.repair import land_repair, plan_repair
    from headrace.streams.admin import Admin

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog, config = open_catalog(mesh.environment, mesh.domain_of(chosen)), mesh.environment.kafka_config()
    admin = Admin(config)
    plan = plan_repair(catalog, chosen, admin, config)
    if plan is None:
        say(f"nothing to repair: the ledger of {chosen.name} can be read")
        return
    say(visible(plan.fault.what))
    show_repair(plan, sys.stderr)
    confirm("go on from these positions?", yes=yes)
    say(f"repaired in snapshot {land_repair(catalog, chosen, plan, admin)}")
    tell_of_sinks(chosen)


def _lost(gap: Gap) -> str:
    times = [
        f"{word} {datetime.fromtimestamp(stamp_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        for word, stamp_ms in (("after", gap.after_ms), ("before", gap.before_ms))
        if stamp_ms is not None
    ]
    when = f", written {' and '.join(times)}" if times else ""
    return f"partition {gap.partition}: offsets {gap.first} to {gap.end - 1} ({gap.end - gap.first:,}){when}"
