"""The one seam for commits of data.

pyiceberg's ``Transaction.commit_transaction`` must not be used: its retries append again unguarded, and without
retries it deletes the manifests of a commit that landed when the same request arrives twice. This module stages the
snapshot, the ledger and the requirements, and the caller hands them to ``catalog.commit_table`` itself. It uses private
parts of pyiceberg, which is why pyiceberg's version is pinned and tests/unit/test_commit.py checks what it relies on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import (
    AssertCurrentSchemaId,
    AssertDefaultSpecId,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
)
from pyiceberg.table.update.snapshot import _MergeAppendFiles

from headrace.schemas.errors import Bug, Stale
from headrace.sinks import partition_types  # noqa: F401 - mends what manifests hold
from headrace.streams.ledger import BEGINNING_KEY, PROPERTY_KEY, SUMMARY_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.update import TableRequirement, TableUpdate

    from headrace.streams.ledger import Ledger, Range


@dataclass(frozen=True, slots=True)
class Staged:
    """A commit that is ready to be sent.

    Attributes:
        snapshot_id: the id that the snapshot will have: known before, so that its fate can be looked up afterwards.
        requirements: what must still hold of the table: its identity, the branch's head, the schema, the partitioning.
        updates: the snapshot, the branch's new head, properties: the ledger's among them.
    """

    snapshot_id: int
    requirements: tuple[TableRequirement, ...]
    updates: tuple[TableUpdate, ...]


class _Handle:
    """What a snapshot producer needs of a transaction, without the deep copies that pyiceberg's own makes."""

    def __init__(self, table: Table) -> None:
        self._table = table

    @property
    def table_metadata(self) -> TableMetadata:
        return self._table.metadata


def stage(
    table: Table,
    files: Sequence[DataFile],
    ledger: Ledger | None,
    properties: Mapping[str, str] | None = None,
    *,
    beginning: bool = False,
) -> Staged:
    """Write manifests and manifest list of an append to the branch ``main`` and return the commit.

    Nothing is visible before the commit lands. No files make an empty append, because a position never moves without a
    snapshot: commits of properties alone are not fenced.

    Args:
        table: the handle that the ledger's fence was checked on; the commit holds only if the table still is as here.
        files: data files written for the handle's schema and partition spec.
        ledger: the ledger after the batch. None: the table has none, or its own cannot be read, and the snapshot says
            nothing of it, as another engine's; only for appends without files.
        properties: properties of the table that the same commit sets.
        beginning: the table has no ledger, which the snapshot says for the time when its parents are expired.

    Raises:
        ProductStopped: if the ledger is too large.
    """
    if ledger is None and files:
        raise Bug("rows were to be committed without a ledger")
    append = _MergeAppendFiles(
        operation=Operation.APPEND,
        transaction=cast("Transaction", _Handle(table)),
        io=table.io,
        branch=MAIN_BRANCH,
        snapshot_properties=_summary(ledger, beginning=beginning),
    )
    for file in files:
        append.append_data_file(file)
    updates, requirements = append._commit()  # noqa: SLF001 - see the module's docstring
    metadata = table.metadata
    guards: dict[type[TableRequirement], TableRequirement] = {type(guard): guard for guard in requirements}
    if AssertRefSnapshotId not in guards:
        raise Bug("pyiceberg staged an append without a requirement on the branch's head")
    guards[AssertTableUUID] = AssertTableUUID(uuid=metadata.table_uuid)
    guards[AssertCurrentSchemaId] = AssertCurrentSchemaId.model_validate(
        {"current-schema-id": metadata.current_schema_id}
    )
    guards[AssertDefaultSpecId] = AssertDefaultSpecId.model_validate({"default-spec-id": metadata.default_spec_id})
    repeated = {} if ledger is None else {PROPERTY_KEY: ledger.to_json(snapshot_id=append.snapshot_id)}
    set_properties = SetPropertiesUpdate(updates={**repeated, **(properties or {})})
    return Staged(append.snapshot_id, tuple(guards.values()), (*updates, set_properties))


def _summary(ledger: Ledger | None, *, beginning: bool) -> dict[str, str]:
    if ledger is not None:
        return {SUMMARY_KEY: ledger.to_json()}
    return {BEGINNING_KEY: "true"} if beginning else {}


def has_landed(table: Table, snapshot_id: int) -> bool:
    """Tell whether a snapshot is in the table's history, whatever happened after it."""
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
