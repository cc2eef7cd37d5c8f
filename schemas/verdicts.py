"""What becomes of each registered version in a product's table: followed, still to be followed, or refused. Pure.

Versions are judged by the subject's own history, never by what a table happens to be: a table that another engine has
changed, or that was made late, comes to the same verdicts. So `plan`, `apply` and every sink agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pyiceberg import types as ice

from headrace.schemas.changes import Change, MakeOptional, column_ids
from headrace.schemas.evolution import Step, step
from headrace.schemas.lineage import Lineage, fold
from headrace.schemas.mask_lineage import ColumnMasks, column_masks
from headrace.schemas.masks import Mask
from headrace.schemas.registered import UnreadableSchema
from headrace.schemas.types import METADATA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema


@dataclass(frozen=True, slots=True)
class RefusedVersion:
    """A registered version that no table of the product can follow.

    Attributes:
        version: its number.
        schema_id: the id in its events.
        path: the field at fault; "" if it is the schema as a whole.
        what: what is wrong, for people.
        hint: what to do instead; "" if there is nothing to say.
    """

    version: int
    schema_id: int
    path: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"version {self.version}: {self.fault}"

    @property
    def fault(self) -> str:
        """The field and what is wrong with it."""
        return f"{self.path}: {self.what}" if self.path else self.what

    def next_step(self, product: Product) -> str:
        """Return what lets a product go on whose sink waits before events of this version."""
        instead = f"{self.hint}: apply a version that does so, and publish with that one; " if self.hint else ""
        return (
            f"{instead}for the events that are in the topic already, set sink.refusedVersions to dead-letter in the "
            f"contract and start the sink again: they go to {product.dead_letter_topic}, all others into the table"
        )


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version that is registered, and that a table has not followed yet.

    Attributes:
        version: its number.
        schema_id: the id in its events.
        step: what following it does to the table. If something in it is refused, somebody else has changed the table:
            the product stops, because neither this version nor one behind it can be followed.
    """

    version: int
    schema_id: int
    step: Step


@dataclass(frozen=True)
class Verdicts:
    """A subject's versions, judged.

    Attributes:
        versions: the versions that a table follows, in order.
        refused: those that it does not, by number.
        lineage: what became of their fields.
        masks: the masks that the contract and all versions ask for, refused ones among them.
    """

    versions: tuple[RegisteredSchema, ...]
    refused: Mapping[int, RefusedVersion]
    lineage: Lineage
    masks: ColumnMasks

    @classmethod
    def of(
        cls, product: Product, policy: PiiPolicy, versions: Iterable[RegisteredSchema | UnreadableSchema]
    ) -> Verdicts:
        """Judge all versions of a product's subject. The product's masks are the contract's own, by its own paths."""
        known = sorted(versions, key=lambda each: each.version)
        readable = [each for each in known if not isinstance(each, UnreadableSchema)]
        records = [(each.version, each.schema.record) for each in readable]
        plain = fold(records, frozenset())
        masks = column_masks(product, policy, {each.version: each.schema for each in readable}, plain)
        lineage = fold(records, masks.nulled(plain))
        refused = {each.version: _refused(each, lineage) for each in known}
        return cls(
            tuple(each for each in readable if refused[each.version] is None),
            {number: verdict for number, verdict in refused.items() if verdict is not None},
            lineage,
            masks,
        )

    @cached_property
    def by_id(self) -> Mapping[int, RegisteredSchema]:
        """The versions that a table follows, by schema id: of several with one schema, the first."""
        return {each.id: each for each in reversed(self.versions)}

    def refusal(self, schema_id: int) -> RefusedVersion | None:
        """Return why events of this id become no rows, None if they do."""
        if schema_id in self.by_id:
            return None
        return next((each for each in self.refused.values() if each.schema_id == schema_id), None)

    def held(self, followed: int) -> RegisteredSchema | None:
        """Return the newest known version among those that a table has followed; None: there is none.

        Args:
            followed: the newest version that the table says it has followed; the registry may have lost it since.
        """
        return next((each for each in reversed(self.versions) if each.version <= followed), None)

    def masks_with(self, noted: Mapping[str, Mask], followed: int) -> ColumnMasks:
        """Return the masks, with those that a table has noted which has followed versions up to ``followed``."""
        held = self.held(followed)
        return self.masks.including(noted, self.lineage, held.version if held else None)


def pending(
    columns: Sequence[ice.NestedField], followed: int, verdicts: Verdicts, noted: Mapping[str, Mask]
) -> Iterator[PendingVersion]:
    """Yield the versions that a table has still to follow, in order, each with what that does to it.

    Args:
        columns: the table's columns; metadata columns are left out of account.
        followed: the newest version that it has followed.
        verdicts: the subject's versions, judged.
        noted: the masks that the table has noted.

    Yields:
        One step a version, which begins at the columns that the one before it leaves. It ends with the first version
        that the table has no room for, because somebody else has changed the table.
    """
    nulled = verdicts.masks_with(noted, followed).nulled(verdicts.lineage)
    # New columns get ids behind those of metadata columns too.
    last_id = max(column_ids(columns), default=0)
    for version in verdicts.versions:
        if version.version > followed:
            record = version.schema.record
            made = step(columns, record, nulled, wider_has_room=True, first_id=last_id + 1)
            yield PendingVersion(version.version, version.id, made)
            if made.refused:
                return
            columns = made.columns


def nulls_wanted(columns: Iterable[ice.NestedField], masks: Mapping[str, Mask]) -> tuple[Change, ...]:
    """Return what must become optional in a table because its mask is null now; the masks are by the columns' paths."""
    events = (column for column in columns if column.name not in METADATA_NAMES)
    return tuple(_optional(events, frozenset(p for p, mask in masks.items() if mask is Mask.REPLACE_WITH_NULL), (), ""))


def _optional(
    columns: Iterable[ice.NestedField], nulled: frozenset[str], at: tuple[str, ...], path: str
) -> Iterator[Change]:
    for column in columns:
        below = f"{path}.{column.name}" if path else column.name
        if column.required and below in nulled:
            yield MakeOptional(below, (*at, column.name))
        yield from _optional_inside(column.field_type, nulled, (*at, column.name), below)


def _optional_inside(kind: ice.IcebergType, nulled: frozenset[str], at: tuple[str, ...], path: str) -> Iterator[Change]:
    match kind:
        case ice.StructType(fields=fields):
            yield from _optional(fields, nulled, at, path)
        case ice.ListType():
            yield from _optional_inside(kind.element_type, nulled, (*at, "element"), f"{path}[]")
        case ice.MapType():
            yield from _optional_inside(kind.value_type, nulled, (*at, "value"), f"{path}{{}}")
        case _:
            pass


def _refused(each: RegisteredSchema | UnreadableSchema, lineage: Lineage) -> RefusedVersion | None:
    if isinstance(each, UnreadableSchema):
        return RefusedVersion(each.version, each.id, "", each.what, each.hint)
    found = lineage.steps[each.version].refused
    if not found:
        return None
    return RefusedVersion(each.version, each.id, found[0].path, found[0].what, found[0].hint)
