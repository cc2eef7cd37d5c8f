"""What a commit of data is to do, as a value: policies make drafts, `headrace.sinks.commit` stages them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from pyiceberg.table.refs import MAIN_BRANCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.manifest import DataFile

    from headrace.streams.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot that is to be made, and what its commit changes beside it.

    Attributes:
        ledger: the ledger that the snapshot carries. None: the table has none, or its own cannot be read, and the
            snapshot says nothing of it, as another engine's; only for snapshots that add and replace nothing, or where
            the draft is ``ledgerless``.
        files: data files that it adds, written for the schema and the partition spec of the handle.
        properties: properties of the table that the commit sets.
        beginning: the table has no ledger, which the snapshot says for the time when its parents are expired.
        branch: the branch that it becomes the head of; one that is not there is made.
        base: the snapshot whose rows it goes on from; None: the branch's head.
        replaced: data files of the base whose rows ``files`` hold: the snapshot changes no row (it is a `replace`).
        removed: data files of the base that go, with those of their rows that ``files`` do not hold (an `overwrite`).
        notes: more that its summary says.
        expired: snapshots that the commit removes from the table; none of them may be a branch's head, or a tag's.
        retired: branches that the commit removes, as they are on the handle.
        ledgerless: the table follows no topic, so that it never has a ledger: a table of dead letters.
    """

    ledger: Ledger | None
    files: tuple[DataFile, ...] = ()
    properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    beginning: bool = False
    branch: str = MAIN_BRANCH
    base: int | None = None
    replaced: tuple[DataFile, ...] = ()
    removed: tuple[DataFile, ...] = ()
    notes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    expired: tuple[int, ...] = ()
    retired: tuple[str, ...] = ()
    ledgerless: bool = False
