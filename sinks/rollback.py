"""Rolling a table back: one new snapshot with the rows of an earlier one, and a ledger that says how to go on from it.

The snapshot is new, although it shows nothing new. Were main set back to the earlier one itself, a request of a sink
that is still under way could find the head that it asks for and land, long after everybody has forgotten it.

To *reread*, the ledger is that of the earlier snapshot: the sink reads from Kafka what the table has lost, as it does
when others roll a table back. To *skip*, the positions stay where they are, and what lies between is on record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from headrace.schemas.errors import Bug, DamagedLedger, Unavailable, UserError
from headrace.sinks.attempts import land
from headrace.sinks.draft import Draft
from headrace.sinks.kept import check_kept
from headrace.sinks.past_snapshots import REPLAYED_KEY, ROLLBACK_KEY, ancestors_of, ledger_at, line_of, said_by
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import FIRST_GENERATION, read_ledger
from headrace.streams.ledger import BRANCH_KEY, REDRIVE_KEY, Accepted, Ledger, Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from headrace.schemas.product import Product
    from headrace.sinks.past_snapshots import PastSnapshot
    from headrace.streams.admin import Admin

# Operations that may change rows that were there before; a `replace` changes none.
_CHANGING = frozenset({"overwrite", "delete"})


class Way(StrEnum):
    """How the sink goes on from an earlier snapshot."""

    REREAD = "reread"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback that is ready to be shown, and to be landed if an operator agrees.

    Attributes:
        target: the state to go back to.
        way: how the sink goes on.
        head: main's head that it was planned on; None: somebody has removed the branch.
        before: the ledger now; None: it cannot be read.
        then: the ledger of the target.
        after: the ledger that the table will have.
        undone: snapshots between the target and the head that changed or deleted rows: these rows come back.
        redriven: those that brought dead letters into the table: they are dead letters again.
    """

    target: PastSnapshot
    way: Way
    head: int | None
    before: Ledger | None
    then: Ledger
    after: Ledger
    undone: Sequence[int]
    redriven: Sequence[int]

    @property
    def between(self) -> Mapping[int, tuple[int, int]]:
        """By partition, what lies between the positions then and now: first offset, and the one behind the last."""
        if self.before is None:
            return {}
        return _between(self.then, self.before)


def plan_rollback(table: Table, product: Product, target: PastSnapshot, way: Way, now: datetime) -> Rollback:
    """Plan to roll a table back.

    Raises:
        UserError: nothing was ever committed, it is not known how far the table was then, or its topic is gone.
        ProductStopped: the ledger cannot be read.
        Unavailable: storage does not answer.
    """
    metadata = table.metadata
    before = _now(table, product, way)
    then = _then(table, product, target, before)
    after = then if way is Way.REREAD else skipping(then, _known(before), int(now.timestamp()))
    if before is not None and not _same_topic(then, before):
        _check_generation(product, then, before, way)
    between = _line_behind(metadata, target.snapshot_id)
    undone = [each.snapshot_id for each in between if _changes(each)]
    redriven = [each.snapshot_id for each in between if REDRIVE_KEY in said_by(each)]
    return Rollback(target, way, metadata.current_snapshot_id, before, then, after.adding_nothing(), undone, redriven)


def _line_behind(metadata: TableMetadata, target: int) -> Sequence[Snapshot]:
    """Return what led from a snapshot, or from where it was left, to main's head; what has expired is not known."""
    line = line_of(metadata)
    older = {snapshot.snapshot_id for snapshot in ancestors_of(metadata, target)}
    found = metadata.snapshot_by_id(target)
    made = found.sequence_number or 0 if found else 0
    return [
        each
        for each in metadata.snapshots
        if each.snapshot_id in line - older and (each.sequence_number or 0) > made and BRANCH_KEY not in said_by(each)
    ]


def _changes(snapshot: Snapshot) -> bool:
    changing = snapshot.summary is not None and snapshot.summary.operation.value in _CHANGING
    return changing or REPLAYED_KEY in said_by(snapshot)


def check_rereadable(plan: Rollback, product: Product, admin: Admin) -> None:
    """Check that Kafka still has what is to be read again.

    Raises:
        UserError: it has deleted some of it.
        ProductStopped: the topic was made anew.
        NotApplied: there is no topic.
        Unavailable: Kafka does not answer.
    """
    topic = admin.topic(product.topic)
    if topic.id != plan.after.topic_id:
        raise topic_made_anew(product, plan.after.topic_id, topic.id)
    lows = {partition: marks.low for partition, marks in admin.watermarks(topic).items()}
    hint = (
        f"choose a newer one (`headrace snapshots {product.name}` lists them), or --skip goes on without these events"
    )
    check_kept({partition: plan.after.next(partition) for partition in lows}, lows, product, hint)


def land_rollback(catalog: Catalog, product: Product, plan: Rollback) -> int:
    """Land a rollback as it was planned; return its snapshot.

    Raises:
        Unavailable: the table has moved since, or something does not answer: plan again.
        ProductStopped: the ledger would become too large, or the table is damaged.
    """
    target = plan.target.snapshot_id

    def decide(table: Table) -> Draft:
        metadata = table.metadata
        if metadata.current_snapshot_id != plan.head or metadata.snapshot_by_id(target) is None:
            raise Unavailable(
                "the table has moved since the rollback was planned, and nothing was changed",
                where=f"table {product.name}",
                hint=f"`headrace rollback {product.name}` looks again",
            )
        return Draft(plan.after, base=target, notes={ROLLBACK_KEY: f"{target} ({plan.way})"})

    landed = land(catalog, product, decide)
    if landed is None:
        raise Bug("a rollback ended without a snapshot")
    return landed


def skipping(then: Ledger, now: Ledger, at_s: int) -> Ledger:
    """Return the ledger of a table with the rows of then that goes on where it is now. Pure.

    What lies between is recorded as accepted. A partition that was further then than it is now stays there, because its
    rows are in the table.
    """
    between = _between(then, now)
    if _same_topic(then, now):
        return then.accepting({p: Accepted(first, end, at_s) for p, (first, end) in between.items()})
    # Rows of another generation say nothing of this one's offsets: it has none yet.
    return replace(
        now,
        positions={partition: Position(at.next) for partition, at in now.positions.items()},
        added={},
        accepted={p: (Accepted(first, end, at_s),) for p, (first, end) in between.items()},
    )


def _same_topic(then: Ledger, now: Ledger) -> bool:
    return (then.topic_id, then.generation) == (now.topic_id, now.generation)


def _between(then: Ledger, now: Ledger) -> Mapping[int, tuple[int, int]]:
    same = _same_topic(then, now)
    starts = {p: then.next(p) if same else now.origin.get(p, 0) for p in now.positions}
    return {p: (start, now.next(p)) for p, start in sorted(starts.items()) if start < now.next(p)}


def _now(table: Table, product: Product, way: Way) -> Ledger | None:
    try:
        ledger = read_ledger(table, product)
    except DamagedLedger:
        # Going back is one way to mend it, as long as nothing has to be known of the present.
        if way is Way.SKIP:
            raise
        return None
    if ledger is None:
        raise UserError(
            "no sink has committed anything yet: there is nothing to go back from",
            where=f"table {product.name}",
            hint=f"headrace sink {product.name}",
        )
    return ledger


def _known(ledger: Ledger | None) -> Ledger:
    if ledger is None:
        raise Bug("positions are to be kept that are not known")
    return ledger


def _then(table: Table, product: Product, target: PastSnapshot, before: Ledger | None) -> Ledger:
    ledger, known = ledger_at(table.metadata, target.snapshot_id)
    if ledger is not None:
        return ledger
    if not known or before is None or before.generation != FIRST_GENERATION:
        raise UserError(
            f"it is not known how far the table was at snapshot {target.snapshot_id}",
            where=f"table {product.name}",
            hint=f"choose one with positions: `headrace snapshots {product.name}` lists them",
        )
    return before.at_origin()


def _check_generation(product: Product, then: Ledger, before: Ledger, way: Way) -> None:
    if way is Way.REREAD and then.generation <= before.generation:
        raise UserError(
            f"the snapshot is of generation {then.generation}, the table of generation {before.generation}: "
            "the topic of that time was deleted, and its events cannot be read again",
            where=f"topic {product.topic}",
            hint="--skip goes back and keeps the positions; `headrace replay` afterwards reads today's topic again",
        )
    if way is Way.SKIP and then.generation >= before.generation:
        raise UserError(
            f"the snapshot is of generation {then.generation}, the table of generation {before.generation}: "
            "the table's positions are those of an earlier topic, and cannot be kept",
            where=f"topic {product.topic}",
            hint="--reread goes on from the snapshot's own positions",
        )
