"""Where a replay begins, or how it goes on: what an operator is shown before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate

from headrace.schemas.errors import UserError
from headrace.sinks.kept import check_kept
from headrace.sinks.past_snapshots import by_id
from headrace.sinks.replay.boundary import BRANCH, Boundary, Note, head_of, note_of
from headrace.sinks.stops import gap, topic_made_anew
from headrace.sinks.table_changes import TableChange, change_table
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, gaps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin


@dataclass(frozen=True, slots=True)
class Plan:
    """A replay that is ready to be shown, and to be run if an operator agrees.

    Attributes:
        note: what the branch says of it, or will say.
        ledger: main's ledger.
        resumed: by partition, how far the branch is; None: the replay begins now.
    """

    note: Note
    ledger: Ledger
    resumed: Mapping[int, int] | None

    @property
    def offsets(self) -> int:
        """How many offsets are to be read."""
        begin = self.resumed or self.note.boundary.offsets
        return sum(max(self.ledger.next(p) - first, 0) for p, first in begin.items())


def plan_replay(table: Table, product: Product, begin: int | datetime | None, admin: Admin) -> Plan:
    """Plan a replay, or go on with the one whose branch there is.

    Args:
        table: the product's table.
        product: the product.
        begin: where to begin: at a snapshot's positions, at a moment; None: at the earliest event that Kafka has.
        admin: asks the broker for the topic.

    Raises:
        UserError: no sink has committed anything yet; there is no such snapshot, or it follows another topic; Kafka no
            longer has the events; or a branch is there that was begun otherwise.
        ProductStopped: the topic was made anew, or the ledger cannot be read.
        NotApplied: there is no topic.
        Unavailable: Kafka, catalog or storage does not answer.
    """
    ledger, head = read_ledger(table, product), table.metadata.current_snapshot_id
    if ledger is None or head is None:
        raise UserError(
            "no sink has committed anything yet: there is nothing to build anew",
            where=f"table {product.name}",
            hint=f"headrace sink {product.name}",
        )
    topic = admin.topic(product.topic)
    if topic.id != ledger.topic_id:
        raise topic_made_anew(product, ledger.topic_id, topic.id)
    lows = {partition: marks.low for partition, marks in admin.watermarks(topic).items()}
    for lost in gaps(ledger, lows):
        raise gap(product, *lost)
    if BRANCH in table.metadata.refs:
        return _resumed(table, product, begin, ledger, lows)
    offsets = _offsets(table, product, begin, ledger, admin)
    first = {p: max(low, ledger.origin.get(p, 0)) for p, low in lows.items()}
    # What the table has not read yet is not built anew.
    bounds = {p: min(max(offsets.get(p, first[p]), ledger.origin.get(p, 0)), ledger.next(p)) for p in first}
    check_kept(bounds, lows, product, f"begin later: headrace replay {product.name} --from earliest")
    return Plan(Note(_named(begin), Boundary(ledger.generation, bounds), head), ledger, None)


def abandon(catalog: Catalog, product: Product) -> bool:
    """Remove the branch of a replay; False: there is none.

    Raises:
        Unavailable: something does not answer; do it again.
    """

    def decide(table: Table) -> TableChange | None:
        head = head_of(table.metadata)
        if head is None:
            return None
        same = AssertRefSnapshotId.model_validate({"ref": BRANCH, "snapshot-id": head})
        return TableChange((same,), (RemoveSnapshotRefUpdate.model_validate({"ref-name": BRANCH}),))

    return change_table(catalog, product, decide)


def anew(product: Product) -> str:
    """Return how to begin a replay anew."""
    return f"begin anew, from what there is now: headrace replay {product.name} --restart --from earliest"


def _resumed(
    table: Table, product: Product, begin: int | datetime | None, ledger: Ledger, lows: Mapping[int, int]
) -> Plan:
    note, branch = note_of(table.metadata), read_ledger(table, product, BRANCH)
    where, command = f"table {product.name}", f"headrace replay {product.name}"
    restart = f"{command} --from {_named(begin)} --restart"
    if note is None or branch is None:
        hint = f"begin anew in its place: {restart}"
        raise UserError(f"there is a branch {BRANCH} that says of no replay", where=where, hint=hint)
    if note.boundary.generation != ledger.generation:
        what = f"a replay from {note.begin} was begun on a topic that the table does not follow any more"
        raise UserError(what, where=where, hint=f"begin anew: {restart}")
    if note.begin != _named(begin):
        hint = f"go on with that one: {command} --from {note.begin}; or begin anew: {restart}"
        raise UserError(f"a replay from {note.begin} was begun and not ended", where=where, hint=hint)
    positions = {p: branch.next(p) for p in lows} if note.cut else dict(note.boundary.offsets)
    check_kept(positions, lows, product, anew(product))
    return Plan(note, ledger, positions)


def _offsets(
    table: Table, product: Product, begin: int | datetime | None, ledger: Ledger, admin: Admin
) -> Mapping[int, int]:
    """Return where to begin, by partition; those that are left out begin where the log does."""
    if begin is None:
        return {}
    if isinstance(begin, datetime):
        topic = admin.topic(product.topic)
        # Kafka knows no time before 1970: -1 and -2 ask for something else.
        found = admin.offsets_at(topic, max(int(begin.timestamp() * 1_000), 0))
        # Nothing is so new: nothing is read again.
        return {partition: found.get(partition, ledger.next(partition)) for partition in range(topic.partitions)}
    then = by_id(table.metadata, begin, product).ledger
    if then is None or then.topic_id != ledger.topic_id or then.generation != ledger.generation:
        raise UserError(
            f"snapshot {begin} has no positions in the topic that the table follows",
            where=f"table {product.name}",
            hint=f"`headrace snapshots {product.name}` lists positions and generations",
        )
    return {partition: then.next(partition) for partition in ledger.positions}


def _named(begin: int | datetime | None) -> str:
    if isinstance(begin, datetime):
        return begin.astimezone(UTC).isoformat()
    return "earliest" if begin is None else str(begin)
