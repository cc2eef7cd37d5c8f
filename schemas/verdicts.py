"""What becomes of each registered version in a product's table: followed, still to be followed, or refused. Pure.

Versions are judged by the subject's own history, never by what a table happens to be: a table that another engine has
changed, or that was made late, comes to the same verdicts. So `plan`, `apply` and every sink agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from pyiceberg import types as ice
from pyiceberg.partitioning import validate_partition_name
from pyiceberg.schema import Schema

from headrace.schemas.changes import Change, MakeOptional, RefusedChange, column_ids, column_paths
from headrace.schemas.evolution import Step, step
from headrace.schemas.lineage import Lineage, fold
from headrace.schemas.mask_lineage import ColumnMasks, column_masks
from headrace.schemas.masks import Mask
from headrace.schemas.paths import below
from headrace.schemas.registered import UnreadableSchema
from headrace.schemas.types import METADATA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pyiceberg.partitioning import PartitionField
    from pyiceberg.table.metadata import TableMetadata

    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema


# The one refusal that is a table's own: other tables of the product, partitioned otherwise, would have room.
PARTITION_NAME_TAKEN = "PARTITION_NAME_TAKEN"


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
        step: what following it does to the table. If something in it is refused, somebody else has changed the table,
            or a new column would have the name of a partition: the product stops, because neither this version nor one
            behind it can be followed.
    """

    version: int
    schema_id: int
    step: Step


@dataclass(frozen=True, slots=True)
class TablePast:
    """What a table was, as far as that counts for what it becomes.

    Attributes:
        columns: the paths of all columns that it has or had.
        partitions: the fields of all partition specs that it has or had: no column may have their names.
        present: the paths of the columns that it has.
        renamed: of each column that was called otherwise its path and those that it had.
    """

    columns: frozenset[str]
    partitions: tuple[PartitionField, ...]
    present: frozenset[str]
    renamed: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, metadata: TableMetadata) -> TablePast:
        """Read it from a table's metadata."""
        names: dict[int, set[str]] = {}
        for schema in metadata.schemas:
            for path, number in column_paths(schema.fields).items():
                names.setdefault(number, set()).add(path)
        present = column_paths(metadata.schema().fields)
        return cls(
            frozenset(path for some in names.values() for path in some),
            tuple(field for spec in metadata.partition_specs for field in spec.fields),
            frozenset(present),
            {path: frozenset(names[number] - {path}) for path, number in present.items() if names[number] != {path}},
        )

    def astray(self, columns: Mapping[str, AbstractSet[str]]) -> frozenset[str]:
        """Return the columns that the table has renamed, as far as the versions that are known tell nothing of it.

        Either it has followed a version that the registry does not know (any more, or yet), or another engine has
        renamed them. Values of such a column would be lost, or put where another column has taken its name.

        Args:
            columns: the columns that the table has by those versions: of each its path, and all paths that it had.
        """
        return frozenset(
            before
            for path, former in self.renamed.items()
            for before in former & columns.keys()
            if path not in columns or (before not in self.present and before not in columns[path])
        )


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

    def columns_at(self, version: RegisteredSchema) -> AbstractSet[str]:
        """Return the paths of the columns of a table that has followed the versions up to this one."""
        return column_paths(self.lineage.steps[version.version].columns).keys()

    def former_paths(self, version: RegisteredSchema) -> Mapping[str, AbstractSet[str]]:
        """Return the columns of a table that has followed the versions up to this one: path, and all paths so far."""
        steps = self.lineage.steps
        paths: dict[int, set[str]] = {}
        for number, made in steps.items():
            if number <= version.version:
                for path, column in column_paths(made.columns).items():
                    paths.setdefault(column, set()).add(path)
        return {path: paths[column] for path, column in column_paths(steps[version.version].columns).items()}

    def masks_with(self, noted: Mapping[str, Mask], followed: int) -> ColumnMasks:
        """Return the masks, with those that a table has noted which has followed versions up to ``followed``."""
        held = self.held(followed)
        return self.masks.including(noted, self.lineage, held.version if held else None)


def pending(
    columns: Sequence[ice.NestedField],
    followed: int,
    verdicts: Verdicts,
    noted: Mapping[str, Mask],
    past: TablePast | None = None,
) -> Iterator[PendingVersion]:
    """Yield the versions that a table has still to follow, in order, each with what that does to it.

    Args:
        columns: the table's columns; metadata columns are left out of account.
        followed: the newest version that it has followed.
        verdicts: the subject's versions, judged.
        noted: the masks that the table has noted.
        past: what the table was; None: nothing of it stands in the way, and it has followed what it says. A registry
            that has lost versions gives their numbers again. So where the newest version that the table is said to
            have followed has columns that it never had, that version is followed now.

    Yields:
        One step a version, which begins at the columns that the one before it leaves. It ends with the first version
        that the table has no room for.
    """
    nulled = verdicts.masks_with(noted, followed).nulled(verdicts.lineage)
    # New columns get ids behind those of metadata columns too.
    last_id = max(column_ids(columns), default=0)
    again = verdicts.held(followed)
    if again is not None and (past is None or verdicts.columns_at(again) <= past.columns):
        again = None
    for version in verdicts.versions:
        if version.version > followed or version is again:
            record = version.schema.record
            made = step(columns, record, nulled, wider_has_room=True, first_id=last_id + 1)
            made = _beside_partitions(made, past.partitions if past else (), columns)
            yield PendingVersion(version.version, version.id, made)
            if made.refused:
                return
            columns = made.columns


def _beside_partitions(made: Step, partitions: Sequence[PartitionField], before: Sequence[ice.NestedField]) -> Step:
    """Return the step, refused if a column would have a partition's name: engines could not load the table."""
    refused = tuple(_named_alike(made.columns, partitions)) if made.changes else ()
    return replace(made, changes=(), refused=refused, columns=tuple(before)) if refused else made


def _named_alike(columns: Sequence[ice.NestedField], partitions: Sequence[PartitionField]) -> Iterator[RefusedChange]:
    schema = Schema(*columns)
    for name, transform, source in {(each.name, each.transform, each.source_id): None for each in partitions}:
        try:
            validate_partition_name(name, transform, source, schema, set())
        except ValueError:
            yield RefusedChange(
                PARTITION_NAME_TAKEN,
                name,
                f"{transform} of {schema.find_column_name(source) or 'another column'}",
                name,
                f"a partition of the table is called {name} already",
                "give the field another name",
            )


def nulls_wanted(columns: Iterable[ice.NestedField], masks: Mapping[str, Mask]) -> tuple[Change, ...]:
    """Return what must become optional in a table because its mask is null now; the masks are by the columns' paths."""
    events = (column for column in columns if column.name not in METADATA_NAMES)
    return tuple(_optional(events, frozenset(p for p, mask in masks.items() if mask is Mask.REPLACE_WITH_NULL), (), ""))


def _optional(
    columns: Iterable[ice.NestedField], nulled: frozenset[str], at: tuple[str, ...], path: str
) -> Iterator[Change]:
    for column in columns:
        here = below(path, column.name)
        if column.required and here in nulled:
            yield MakeOptional(here, (*at, column.name))
        yield from _optional_inside(column.field_type, nulled, (*at, column.name), here)


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
