"""Deleting the files that no snapshot needs any more, an hour after they became unneeded.

Three steps, each by itself safe to repeat and safe beside other workers and engines:

*Condemn.* What snapshots needed that are gone, and what those that stay do not need, is written down.
*Delete.* An hour later every condemned file is compared with all that the table needs *then*, since it may have been
rolled back and branched meanwhile. What is still unneeded is deleted, and then the list.
*Sweep.* Once a day, files that nothing leads to are condemned: what a failed commit left, or a process that died
between a commit and its list. Only where the table is alone in its folder.

What cannot be read whole ends the look: nothing is deleted on the strength of half an answer. Outside of the table's
own folder nothing is ever deleted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING, ClassVar

import structlog

from headrace.schemas.catalog import catalog_errors
from headrace.sinks.upkeep.condemned import MOST_FILES, Condemned, Records
from headrace.sinks.upkeep.expiry import may_delete
from headrace.sinks.upkeep.needs import Needs, lists_of, live_paths
from headrace.sinks.upkeep.neighbours import SHARED, neighbours_of
from headrace.sinks.upkeep.storage import Folder, folder_of, name_of
from headrace.sinks.upkeep.sweep import orphans_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

    from headrace.schemas.product import Product
    from headrace.sinks.upkeep.condemned import Listing
    from headrace.sinks.upkeep.needs import Manifest
    from headrace.sinks.upkeep.sightings import Gone, Sightings

__all__ = ["LOOK_S", "SWEEP_S", "Deletion", "Look"]

# How often a session looks. A snapshot lives for 30 commits at least, so few are made and gone between two looks.
LOOK_S = 60.0
# How often a table's folder is swept; it reads all of the table's manifests.
SWEEP_S = 86_400.0

_LOG = structlog.get_logger("headrace.upkeep")


@dataclass(frozen=True, slots=True)
class Look:
    """What a look did, in files.

    Attributes:
        condemned: that became unneeded.
        deleted: deleted, an hour after they had become unneeded.
        spared: condemned before, and needed again.
        failed: the storage did not delete them; the next look tries again.
        orphans: of those condemned, found by a sweep.
    """

    condemned: int = 0
    deleted: int = 0
    spared: int = 0
    failed: int = 0
    orphans: int = 0


@dataclass(slots=True)
class Deletion:
    """Looks after a table's files. One task of a session's keeper; see :class:`headrace.sinks.upkeep.task.Task`.

    Attributes:
        product: the product.
        seen: the snapshots that this process has seen in its table.
        ended: is set when the session ends.
        now_s: the time, seconds since 1970 UTC.
        looked: what the last look did.
    """

    name: ClassVar[str] = "deletion"

    product: Product
    seen: Sightings
    ended: Event = field(default_factory=Event)
    now_s: Callable[[], float] = time.time
    looked: Look = Look()
    _needs: Needs = field(default_factory=Needs)
    _again_s: float = float("-inf")
    _told: bool = False

    def due(self, now_s: float) -> bool:
        """Tell whether it is time for a look, on a clock that never goes back."""
        if now_s < self._again_s:
            return False
        self._again_s = now_s + LOOK_S
        return True

    def run(self, table: Table) -> None:
        """Look after the files once.

        Raises:
            Unavailable: storage does not answer.
            ProductStopped: the table's metadata is damaged. Nothing was deleted.
        """
        self.looked = self.look(table)
        if self.looked != Look():
            look = self.looked
            log = _LOG.bind(product=str(self.product.name))
            log.info("files", condemned=look.condemned, deleted=look.deleted, spared=look.spared, failed=look.failed)

    def look(self, table: Table, *, sweep: bool = False) -> Look:
        """Look after the files once; return what was done.

        Args:
            table: the table, just loaded.
            sweep: sweep its folder, though it may not be time.

        Raises:
            Unavailable, ProductStopped: as `run`.
        """
        folder = folder_of(table)
        if folder is None or not may_delete(table.metadata):
            self._tell(folder)
            return Look()
        records, look, now_s = Records(folder), Look(), self.now_s()
        self.seen.see(table.metadata)
        with catalog_errors(f"table {self.product.name}"):
            listing = records.listing()
            look = replace(look, condemned=self._condemn(table, records, now_s))
            look = self._delete(table, records, listing.due(now_s), look)
            if sweep or self._is_sweep_due(listing, now_s):
                orphans = self._sweep(table, records, listing, now_s)
                look = replace(look, condemned=look.condemned + orphans, orphans=orphans)
        return look

    def _condemn(self, table: Table, records: Records, now_s: float) -> int:
        gone = self.seen.gone_from(table.metadata)
        statistics = self.seen.statistics_gone_from(table.metadata)
        if not gone and not statistics:
            return 0
        files, data = _left_by(table, gone, self._needs)
        own, whose = records.folder.holds, str(table.metadata.table_uuid)
        lists = [Condemned(whose, tuple(filter(own, (*files, *sorted(statistics)))), metadata_only=True)]
        if data is not None:
            lists.append(Condemned(whose, tuple(filter(own, data.files)), data.since))
        condemned = sum(records.condemn(each, now_s) for each in lists)
        self.seen.forget(gone, statistics)
        return condemned

    def _delete(self, table: Table, records: Records, due: Iterable[str], look: Look) -> Look:
        """Delete what is still unneeded of the lists whose time has come, some lists at once."""
        lists: dict[str, Condemned] = {}
        for path in due:
            if sum(len(each.files) for each in lists.values()) >= MOST_FILES:
                break
            found = records.read(path)
            # Of another table that lay here once: it may be in use elsewhere, so only the sweep judges its files.
            mine = found is not None and found.table == str(table.metadata.table_uuid)
            lists[path] = found if found is not None and mine else Condemned("", ())
        if not lists or self.ended.is_set():
            return look
        unneeded = self._unneeded(table, tuple(lists.values()))
        files = [file for each in lists.values() for file in each.files]
        doomed = [file for file in dict.fromkeys(files) if name_of(file) in unneeded and records.folder.holds(file)]
        failed = records.folder.delete(doomed)
        if failed:
            error = next(iter(failed.values()))
            _LOG.warning("files were not deleted", product=str(self.product.name), files=len(failed), what=str(error))
        records.folder.delete([path for path, each in lists.items() if not failed.keys() & set(each.files)])
        deleted, spared = len(doomed) - len(failed), len(set(files)) - len(doomed)
        return replace(look, deleted=deleted, spared=spared, failed=len(failed))

    def _unneeded(self, table: Table, lists: tuple[Condemned, ...]) -> set[str]:
        names = {name_of(file) for each in lists for file in each.files} - self._needs.metadata_names(table)
        data = {name_of(file) for each in lists if not each.metadata_only for file in each.files} & names
        since = min((each.since for each in lists if not each.metadata_only), default=0)
        return names - (data - _without_needed(data, table, self._needs, since))

    def _is_sweep_due(self, listing: Listing, now_s: float) -> bool:
        if self.product.contract.upkeep.orphan_after_s is None or self.ended.is_set():
            return False
        # A clock that was far ahead is no reason not to sweep until then.
        return listing.swept_s is None or abs(now_s - listing.swept_s) >= SWEEP_S

    def _sweep(self, table: Table, records: Records, listing: Listing, now_s: float) -> int:
        age_s = self.product.contract.upkeep.orphan_after_s
        if age_s is None:
            return 0
        neighbours = neighbours_of(table, records.folder, self._needs)
        if neighbours.have_files:
            _LOG.warning("no orphans are looked for", product=str(self.product.name), what=SHARED)
        waiting = {file for _, path in listing.lists if (each := records.read(path)) is not None for file in each.files}
        found = orphans_of(table, records.folder, self._needs, now_s - age_s, neighbours)
        orphans, condemned = (file.path for file in found if file.path not in waiting), 0
        while portion := tuple(islice(orphans, MOST_FILES)):
            condemned += records.condemn(Condemned(str(table.metadata.table_uuid), portion), now_s)
        records.swept(listing, now_s)
        return condemned

    def _tell(self, folder: Folder | None) -> None:
        if not self._told:
            what = "this storage cannot be listed" if folder is None else "the table has gc.enabled=false"
            _LOG.info("no file is ever deleted", product=str(self.product.name), what=what)
            self._told = True


@dataclass(frozen=True, slots=True)
class _Data:
    """Data files that nothing needs; none was added by a snapshot of a lower number than ``since``."""

    files: tuple[str, ...]
    since: int


def _left_by(table: Table, gone: tuple[Gone, ...], needs: Needs) -> tuple[list[str], _Data | None]:
    """Return what only snapshots needed that are gone: manifest lists and manifests, and data files, if there are any.

    A manifest goes in each merge while its files live on in the merged one; so files are compared with those of the
    manifests that stay.
    """
    io, lists = table.io, set(lists_of(table.metadata))
    stay = needs.manifests(io, lists)
    left = [each for each in gone if each.manifest_list not in lists]
    dropped: dict[str, Manifest] = {}
    to_read: dict[str, Manifest] = {}
    for each in left:
        found = {path: at for path, at in _there(needs, io, each.manifest_list).items() if path not in stay}
        dropped |= found
        if not each.outlived:
            to_read |= found
    names = {name_of(path): path for manifest in to_read for path in _live_there(io, manifest)}
    files = [*(each.manifest_list for each in left), *dropped]
    if not names:
        return files, None
    since = min(each.first for each in to_read.values())
    unneeded = _without_needed(set(names), table, needs, since)
    return files, _Data(tuple(sorted(names[name] for name in unneeded)), since)


def _there(needs: Needs, io: FileIO, manifest_list: str) -> dict[str, Manifest]:
    """Return the manifests of a snapshot that is gone; none, if another worker, or engine, has deleted its list."""
    try:
        return needs.manifests(io, (manifest_list,))
    except FileNotFoundError:
        return {}


def _live_there(io: FileIO, manifest: str) -> list[str]:
    try:
        return list(live_paths(io, manifest))
    except FileNotFoundError:
        return []


def _without_needed(names: set[str], table: Table, needs: Needs, since: int) -> set[str]:
    """Return those names that no live data file of the table has."""
    left = set(names)
    if left:
        for path in needs.data_paths(table, since):
            left.discard(name_of(path))
            if not left:
                break
    return left
