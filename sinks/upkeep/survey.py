"""What there is to delete of a table's files, for people: nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.catalog import catalog_errors
from headrace.sinks.upkeep.condemned import GRACE_S, Records
from headrace.sinks.upkeep.expiry import may_delete
from headrace.sinks.upkeep.needs import Needs
from headrace.sinks.upkeep.neighbours import neighbours_of
from headrace.sinks.upkeep.storage import folder_of
from headrace.sinks.upkeep.sweep import orphans_of

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.upkeep.storage import Listed

__all__ = ["Survey", "survey_of"]


@dataclass(frozen=True, slots=True)
class Survey:
    """A table's files that are of no use.

    Attributes:
        snapshots: how many snapshots the table has.
        waiting: files that are condemned, and wait for their hour.
        due_s: when the first of them may be deleted, seconds since 1970 UTC; None: none waits.
        orphans: files that nothing leads to, of the contract's age and older, whether condemned or not.
        shared: another table's metadata lie in the folder, so that no orphans are looked for.
        never: why no file of the table is ever deleted; empty: they are.
    """

    snapshots: int
    waiting: int = 0
    due_s: float | None = None
    orphans: tuple[Listed, ...] = ()
    shared: bool = False
    never: str = ""


def survey_of(table: Table, product: Product, now_s: float) -> Survey:
    """Return what there is to delete.

    Args:
        table: the table.
        product: the product; its contract says how old an orphan is.
        now_s: the time, seconds since 1970 UTC.

    Raises:
        Unavailable: storage does not answer.
        ProductStopped: the table's metadata is damaged.
    """
    snapshots = len(table.metadata.snapshots)
    if not may_delete(table.metadata):
        return Survey(snapshots, never="the table's property gc.enabled is false")
    folder, age_s = folder_of(table), product.contract.upkeep.orphan_after_s
    if folder is None:
        return Survey(snapshots, never="its storage cannot be listed: headrace lists local files, S3 and Google's")
    with catalog_errors(f"table {product.name}"):
        records, needs = Records(folder), Needs()
        neighbours = neighbours_of(table, folder, needs)
        lists = records.listing().lists
        found = [records.read(path) for _, path in lists]
        orphans = () if age_s is None else tuple(orphans_of(table, folder, needs, now_s - age_s, neighbours))
    waiting = {file for each in found if each is not None for file in each.files}
    due_s = lists[0][0] + GRACE_S if lists else None
    return Survey(snapshots, len(waiting), due_s, orphans, neighbours.have_files)
