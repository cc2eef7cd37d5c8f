"""Removing snapshots in a commit, whatever others did to them between the reading of the table and the commit.

pyiceberg's own removal raises when another engine has expired one of them meanwhile, which would look like a fault of
the batch; and it drops a tag that was made meanwhile for one of them. A catalog that pyiceberg keeps itself (SQLite,
Postgres, Glue …) applies this one instead. A REST catalog applies its own: it takes no offence at what is gone already,
but drops such a tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.table.update import RemoveSnapshotsUpdate, _apply_table_update

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.update import _TableMetadataUpdateContext

__all__ = ["RemoveUnnamed", "removal_of"]


class RemoveUnnamed(RemoveSnapshotsUpdate):
    """Removes those of its snapshots that are still there and that neither a branch nor a tag names."""


def removal_of(snapshot_ids: Iterable[int]) -> RemoveUnnamed:
    """Return the update that removes snapshots."""
    return RemoveUnnamed.model_validate({"snapshot-ids": list(snapshot_ids)})


@_apply_table_update.register(RemoveUnnamed)
def _remove(update: RemoveUnnamed, base: TableMetadata, context: _TableMetadataUpdateContext) -> TableMetadata:
    named = {ref.snapshot_id for ref in base.refs.values()}
    there = {snapshot.snapshot_id for snapshot in base.snapshots} - named
    left = [snapshot_id for snapshot_id in update.snapshot_ids if snapshot_id in there]
    if not left:
        return base
    return _apply_table_update(RemoveSnapshotsUpdate.model_validate({"snapshot-ids": left}), base, context)
