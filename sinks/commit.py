"""The one seam for commits of data.

pyiceberg's ``Transaction.commit_transaction`` must not be used: its retries append again unguarded, and without
retries it deletes the manifests of a commit that landed when the same request arrives twice. This module stages the
snapshot, the ledger and the requirements, and the caller hands them to ``catalog.commit_table`` itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotRefUpdate,
    SetPropertiesUpdate,
)

from headrace.schemas.errors import Bug, Stale
from headrace.sinks.snapshots import new_snapshot
from headrace.sinks.upkeep.removal import removal_of
from headrace.streams.ledger import BEGINNING_KEY, BRANCH_KEY, PROPERTY_KEY, SUMMARY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyiceberg.table import CommitTableResponse, Table
    from pyiceberg.table.update import TableRequirement, TableUpdate

    from headrace.sinks.draft import Draft
    from headrace.streams.ledger import Ledger, Range


@dataclass(frozen=True, slots=True)
class Staged:
    """A commit that is ready to be sent.

    Attributes:
        snapshot_id: the id that the snapshot will have: known before, so that its fate can be looked up afterwards.
        requirements: what must still hold of the table: its identity, the branch's head, the schema, the partitioning.
        updates: the snapshot, the branch's new head, properties: the ledger's among them; what it removes.
    """

    snapshot_id: int
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


def stage(table: Table, draft: Draft) -> Staged:
    """Write a draft's manifests and return its commit.

    Nothing is visible before the commit lands. A draft without files makes an empty append, because a position never
    moves without a snapshot: commits of properties alone are not fenced.

    Args:
        table: the handle that the ledger's fence was checked on; the commit holds only if the table still is as here.
        draft: what to commit.

    Raises:
        ProductStopped: if the ledger is too large.
        Unavailable: if a file that is to be replaced is not there any more.
    """
    if draft.ledger is None and not draft.ledgerless and (draft.files or draft.replaced or draft.removed):
        raise Bug("rows were to be committed without a ledger")
    snapshot, updates = new_snapshot(table, draft, _summary(draft))
    return Staged(snapshot.snapshot_id, _requirements(table, draft), (*updates, *_changes(draft, snapshot.snapshot_id)))


def _requirements(table: Table, draft: Draft) -> tuple[TableRequirement, ...]:
    metadata = table.metadata
    heads = {name: metadata.refs.get(name) for name in (draft.branch, *draft.retired)}
    return (
        AssertTableUUID(uuid=metadata.table_uuid),
        *(
            AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": head.snapshot_id if head else None})
            for name, head in heads.items()
        ),
        AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id}),
        AssertDefaultSpecId.model_validate({"default-spec-id": metadata.default_spec_id}),
    )


def _changes(draft: Draft, snapshot_id: int) -> Iterator[TableUpdate]:
    properties = dict(draft.properties)
    # Other branches' snapshots are never expired, so their ledgers are not repeated.
    if draft.ledger is not None and draft.branch == MAIN_BRANCH:
        properties[PROPERTY_KEY] = draft.ledger.to_json(snapshot_id=snapshot_id)
    if properties:
        yield SetPropertiesUpdate(updates=properties)
    for branch in draft.retired:
        yield RemoveSnapshotRefUpdate.model_validate({"ref-name": branch})
    # Last: a requirement on the head holds for all of it, so snapshots are never removed on a stale handle.
    if draft.expired:
        yield removal_of(draft.expired)


def _summary(draft: Draft) -> dict[str, str]:
    notes = dict(draft.notes)
    if draft.branch != MAIN_BRANCH:
        notes[BRANCH_KEY] = draft.branch
    if draft.ledger is not None:
        return notes | {SUMMARY_KEY: draft.ledger.to_json()}
    return notes | ({BEGINNING_KEY: "true"} if draft.beginning else {})


def has_landed(table: Table | CommitTableResponse, snapshot_id: int) -> bool:
    """Tell whether a snapshot is in a table's history, whatever happened after it: as loaded, or as replied."""
    metadata = table.metadata
    return metadata.snapshot_by_id(snapshot_id) is not None or any(
        entry.snapshot_id == snapshot_id for entry in metadata.snapshot_log
    )


def check_fence(ledger: Ledger, base: Ledger, ranges: Mapping[int, Range], *, where: str) -> None:
    """Check that the table's ledger equals the batch's start in every partition of the batch.

    Args:
        ledger: the ledger in the table now.
        base: the ledger that the worker started from.
        ranges: the batch's ranges.
        where: the product.

    Raises:
        Stale: another worker, or an operator, has moved the table since; both sides are shown.
    """
    expected = {partition: covered.start for partition, covered in sorted(ranges.items())}
    committed = {partition: ledger.next(partition) for partition in expected}
    same_topic = (ledger.topic_id, ledger.generation) == (base.topic_id, base.generation)
    if expected != committed or not same_topic:
        raise Stale(_shown(expected, base), _shown(committed, ledger), where=where)


def _shown(positions: Mapping[int, int], ledger: Ledger) -> str:
    places = ", ".join(f"{partition}:{position}" for partition, position in positions.items())
    return f"[{places}] of generation {ledger.generation}"
