"""``headrace upkeep``: small files put together, useless ones deleted, where no sink does it."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.schemas.errors import UserError
from headrace.selfserve.commands import FAILED, epilog, session_of
from headrace.selfserve.output import say, visible

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from headrace.schemas.names import ProductName
    from headrace.schemas.product import Product
    from headrace.sinks.upkeep.survey import Survey

app = typer.Typer()


@app.command(
    epilog=epilog(
        "headrace upkeep operations.flights --dry-run",
        "headrace upkeep operations.flights",
        ok="it is done; what is condemned now can be deleted in an hour",
        failed="some files could not be deleted, or it failed; the error says why",
    )
)
def upkeep(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="A name such as operations.flights.")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; list orphans on stdout, a path a line.")
    ] = False,
) -> None:
    """Put the small files of a product's table together, and delete those that no snapshot needs.

    Its sink does so by itself; this is for a table whose sink runs no more, and for looking. Which files are small says
    the contract's upkeep.compaction; none are if it is off. Files that nothing leads to and that are older than the
    contract's upkeep.orphans are condemned; what was condemned an hour ago or longer, and is still of no use, is
    deleted, in the table of dead letters too. So run it twice, an hour apart. No snapshot expires by it. A sink may run
    meanwhile. Works without Kafka.
    """
    from headrace.schemas.catalog import load_table, open_catalog
    from headrace.sinks.dead_letters.table import filed
    from headrace.sinks.hold import hold_of
    from headrace.sinks.upkeep.letter_files import letter_table_of

    mesh = session_of(context).mesh()
    chosen = mesh.product(product)
    catalog = open_catalog(mesh.environment, mesh.domain_of(chosen))
    table, failed = load_table(catalog, chosen), 0
    tables = [chosen] if letter_table_of(catalog, chosen) is None else [chosen, filed(chosen)]
    if not dry_run:
        if (held := hold_of(table)) is not None:
            # A held sink may keep written files for longer than an orphan lives.
            hint = f"`headrace release {chosen.name}` first, or look with --dry-run"
            raise UserError(visible(str(held)), where=f"table {chosen.name}", hint=hint)
        failed = sum(_look_after(catalog, each) for each in tables)
        _compact(catalog, chosen)
    for each in tables:
        _survey(catalog, each, lists_orphans=dry_run)
    if failed:
        raise typer.Exit(FAILED)


def _look_after(catalog: Catalog, product: Product) -> int:
    """Condemn and delete files of a table; return how many could not be deleted."""
    from headrace.schemas.catalog import load_table
    from headrace.sinks.upkeep.deletion import Deletion
    from headrace.sinks.upkeep.sightings import Sightings

    name = product.name
    look = Deletion(product, Sightings()).look(load_table(catalog, product), sweep=True)
    say(f"{name}: {look.deleted:,} files deleted, {look.condemned:,} condemned, {look.spared:,} spared")
    if look.failed:
        say(f"{name}: {look.failed:,} files could not be deleted; the next run tries again")
    return look.failed


def _compact(catalog: Catalog, product: Product) -> None:
    from headrace.schemas.catalog import load_table
    from headrace.sinks.upkeep.compaction import KEEPS_DELETES, compact_runs, has_deletes

    if product.contract.upkeep.compaction is None:
        return
    if has_deletes(load_table(catalog, product), product):
        say(f"{product.name}: small files are left as they are: {KEEPS_DELETES}")
        return
    for done in compact_runs(catalog, product):
        say(f"{product.name}: {done.files:,} small files with {done.rows:,} rows became {done.into:,}")


def _survey(catalog: Catalog, product: Product, *, lists_orphans: bool) -> None:
    from headrace.schemas.catalog import load_table
    from headrace.sinks.upkeep.survey import survey_of

    survey = survey_of(load_table(catalog, product), product, time.time())
    _show(product.name, survey)
    if lists_orphans:
        for file in survey.orphans:
            say(visible(file.path), file=sys.stdout)


def _show(name: ProductName, survey: Survey) -> None:
    from headrace.sinks.upkeep.neighbours import SHARED

    if survey.never:
        say(f"{name}: no file of its table is ever deleted: {survey.never}")
        return
    size = sum(file.size for file in survey.orphans)
    say(f"{name}: {survey.snapshots:,} snapshots; {len(survey.orphans):,} orphans of {size / 1e6:,.1f} MB")
    if survey.shared:
        say(f"{name}: no orphans are looked for: {SHARED}; move that table's files, or take its metadata files away")
    if survey.due_s is not None:
        due = f"{datetime.fromtimestamp(survey.due_s, UTC):%Y-%m-%d %H:%M:%S} UTC"
        say(f"{name}: {survey.waiting:,} files are condemned; the first can be deleted from {due} on")
