"""What a schema's version asks of an existing table. Pure: one function predicts the change, and the sink makes it.

A table follows every version of its subject, so that events of any version have a place in it: columns are added
(always optional: rows from before have no value), widened as Iceberg allows, renamed where the schema names the old
name as an alias, put into the schema's order, and made optional. Nothing is ever removed or narrowed: a field that was
removed and comes back is its old column. Source: Iceberg table specification, "Schema Evolution"; Avro 1.12
specification, "Aliases".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Field, Map, Record
from headrace.schemas.changes import (
    AddColumn,
    Change,
    MakeOptional,
    RefusedChange,
    Rename,
    Reorder,
    Widen,
    column_ids,
    shown,
)
from headrace.schemas.matching import match_columns
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape
from headrace.schemas.types import METADATA_NAMES, ColumnTypes, column_doc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ANOTHER_NAME = "give the field another name, or take the change back"


@dataclass(frozen=True, slots=True)
class Step:
    """What following one version does to a table.

    Attributes:
        changes: what changes, outermost first; empty if the table has room for the version already.
        refused: what no table can do. If there is anything, nothing of the version is applied.
        columns: the event's columns afterwards; as they were, if the version is refused.
        placed: the id of the column of each of the version's fields, by path (``items[].qty``).
    """

    changes: tuple[Change, ...]
    refused: tuple[RefusedChange, ...]
    columns: tuple[ice.NestedField, ...]
    placed: Mapping[str, int]


def step(
    columns: Sequence[ice.NestedField],
    record: Record,
    nulled: frozenset[str],
    *,
    wider_has_room: bool = False,
    first_id: int = 1,
) -> Step:
    """Return what must change in a table so that it can hold events of a version, and what of it no table can do.

    Args:
        columns: the table's columns; metadata columns are left out of account.
        record: the version's record.
        nulled: paths of fields whose mask is null: their columns are optional.
        wider_has_room: whether a column that is wider than the field is room enough. It is for a version that was
            judged already, when the table is ahead of it; a new version that narrows is refused.
        first_id: new columns get ids from here on, or behind those that there are.
    """
    events = tuple(column for column in columns if column.name not in METADATA_NAMES)
    walk = _Walk(nulled, wider_has_room, count(max(first_id, 1 + max(column_ids(columns), default=0))))
    after = walk.struct(events, record, (), "")
    refused = tuple(walk.refused)
    return Step(() if refused else tuple(walk.changes), refused, events if refused else after, walk.placed)


def first_step(record: Record, nulled: frozenset[str], *, first_id: int = 1) -> Step:
    """Return the columns of a new table, which are required where the version says so; or why it cannot be made."""
    made = step((), record, nulled, first_id=first_id)
    if made.refused:
        return made
    ids = count(first_id)
    walk = _Walk(nulled, wider_has_room=False, ids=ids)
    columns = ColumnTypes(lambda: next(ids), nulled).struct(record).fields
    walk.place(ice.StructType(*columns), record, "")
    return Step((), (), columns, walk.placed)


@dataclass(slots=True)
class _Walk:
    nulled: frozenset[str]
    wider_has_room: bool
    ids: Iterator[int]
    changes: list[Change] = field(default_factory=list)
    refused: list[RefusedChange] = field(default_factory=list)
    placed: dict[str, int] = field(default_factory=dict)

    def struct(
        self, columns: tuple[ice.NestedField, ...], record: Record, at: tuple[str, ...], path: str
    ) -> tuple[ice.NestedField, ...]:
        """Compare a record with its columns; return them as they are then."""
        if not record.fields:
            self._refuse_empty("struct", path)
            return columns
        matched = match_columns(columns, record, path)
        self.refused += matched.refused
        kept = {column.field_id: column for column in columns}
        order: list[tuple[str, ice.NestedField]] = []
        before: str | None = None
        for each in record.fields:
            here = below(path, each.name)
            column = matched.columns.get(each.name)
            if column is None:
                added = self._added(each, at, here, before)
                if added is not None:
                    order.append((each.name, added))
                    before = each.name
                continue
            changed = self._changed(column, each, at, here)
            kept.pop(column.field_id)
            order.append((column.name, changed))
            before = column.name
        missing = [self._without(column, at, path) for column in columns if column.field_id in kept]
        return self._ordered(columns, order, missing, (at, path))

    def _changed(self, column: ice.NestedField, each: Field, at: tuple[str, ...], path: str) -> ice.NestedField:
        here = (*at, column.name)
        self.placed[path] = column.field_id
        if column.name != each.name:
            parent = path[: -len(each.name)]
            self.changes.append(Rename(path, here, f"{parent}{column.name}", each.name))
        optional = shape(each.type)[1] or each.has_default or path in self.nulled
        if column.required and optional:
            self.changes.append(MakeOptional(path, here))
        kind = self._inside(column.field_type, each.type, here, path)
        return _with(column, name=each.name, kind=kind, required=column.required and not optional)

    def _without(self, column: ice.NestedField, at: tuple[str, ...], path: str) -> ice.NestedField:
        """Return a column that the version does not have as it is then."""
        if not column.required:
            return column
        self.changes.append(MakeOptional(below(path, column.name), (*at, column.name)))
        return _with(column, name=column.name, kind=column.field_type, required=False)

    def _added(self, each: Field, at: tuple[str, ...], path: str, before: str | None) -> ice.NestedField | None:
        self._check_new(each.type, path)
        try:
            number = next(self.ids)
            kind = ColumnTypes(lambda: next(self.ids), self.nulled).type(each.type, path)
        except ValueError:
            self._refuse("UNSUPPORTED_TYPE", path, ("", _named(each.type)), "this type has no column type")
            return None
        self.placed[path] = number
        self.place(kind, each.type, path)
        doc = column_doc(each)
        self.changes.append(AddColumn(path, (*at, each.name), kind, doc, before))
        return ice.NestedField(field_id=number, name=each.name, field_type=kind, required=False, doc=doc)

    def _check_new(self, avro_type: AvroType, path: str) -> None:
        """Refuse what no new column can hold, at every depth."""
        match shape(avro_type)[0]:
            case Record() as record:
                if not record.fields:
                    self._refuse_empty("", path)
                self.refused += match_columns((), record, path).refused
                for each in record.fields:
                    self._check_new(each.type, f"{path}.{each.name}")
            case Array(items=items):
                self._check_new(items, f"{path}[]")
            case Map(values=values):
                self._check_new(values, f"{path}{{}}")
            case _:
                pass

    def place(self, kind: ice.IcebergType, avro_type: AvroType, path: str) -> None:
        """Note the ids of what stands inside a new column."""
        match kind, shape(avro_type)[0]:
            case ice.StructType(fields=fields), Record(fields=members):
                for column, each in zip(fields, members, strict=True):
                    here = below(path, each.name)
                    self.placed[here] = column.field_id
                    self.place(column.field_type, each.type, here)
            case ice.ListType(), Array(items=items):
                self.place(kind.element_type, items, f"{path}[]")
            case ice.MapType(), Map(values=values):
                self.place(kind.value_type, values, f"{path}{{}}")
            case _:
                pass

    def _inside(self, kind: ice.IcebergType, avro_type: AvroType, at: tuple[str, ...], path: str) -> ice.IcebergType:
        inner, _ = shape(avro_type)
        match kind, inner:
            case ice.StructType(fields=fields), Record():
                return ice.StructType(*self.struct(fields, inner, at, path))
            case ice.ListType(), Array(items=items):
                element = self._element(kind.element_field, items, (*at, "element"), f"{path}[]")
                return ice.ListType(element.field_id, element.field_type, element_required=element.required)
            case ice.MapType(), Map(values=values):
                value = self._element(kind.value_field, values, (*at, "value"), f"{path}{{}}")
                key = kind.key_field
                return ice.MapType(
                    key.field_id, key.field_type, value.field_id, value.field_type, value_required=value.required
                )
            case _:
                return self._leaf(kind, inner, at, path)

    def _element(self, column: ice.NestedField, avro_type: AvroType, at: tuple[str, ...], path: str) -> ice.NestedField:
        optional = column.required and shape(avro_type)[1]
        if optional:
            self.changes.append(MakeOptional(path, at))
        kind = self._inside(column.field_type, avro_type, at, path)
        return _with(column, name=column.name, kind=kind, required=column.required and not optional)

    def _leaf(self, column: ice.IcebergType, inner: AvroType, at: tuple[str, ...], path: str) -> ice.IcebergType:
        ids = count(1)
        try:
            event = ColumnTypes(lambda: next(ids), self.nulled).type(inner, path)
        except ValueError:
            self._refuse("UNSUPPORTED_TYPE", path, (shown(column), _named(inner)), "this type has no column type")
            return column
        if shown(event) == shown(column) or (self.wider_has_room and widens(event, column)):
            return column
        if isinstance(column, ice.PrimitiveType) and isinstance(event, ice.PrimitiveType) and widens(column, event):
            self.changes.append(Widen(path, at, column, event))
            return event
        sides = shown(column), shown(event)
        what = f"the table's column is {sides[0]}, the schema's field is {sides[1]}"
        self._refuse("UNSUPPORTED_TYPE_CHANGE", path, sides, f"{what}: no change that Iceberg allows leads there")
        return column

    def _ordered(
        self,
        columns: tuple[ice.NestedField, ...],
        order: list[tuple[str, ice.NestedField]],
        missing: list[ice.NestedField],
        place: tuple[tuple[str, ...], str],
    ) -> tuple[ice.NestedField, ...]:
        """Return a record's columns in the version's order; those that it does not have stay behind what they followed.

        ``order`` holds the version's own columns, each with its name in the table as it was.
        """
        there = {column.field_id for column in columns}
        known = [column.field_id for _, column in order if column.field_id in there]
        moved = known != [column.field_id for column in columns if column.field_id in set(known)]
        names, after = [name for name, _ in order], [column for _, column in order]
        for column in missing:
            where = [each.field_id for each in columns].index(column.field_id)
            before = columns[where - 1].field_id if where else None
            index = next((i for i, each in enumerate(after) if each.field_id == before), -1) + 1
            # A new column stands right behind the one before it in the version.
            while index < len(after) and after[index].field_id not in there:
                index += 1
            names.insert(index, column.name)
            after.insert(index, column)
        if moved:
            at, path = place
            self.changes.append(Reorder(path, at, tuple(names)))
        return tuple(after)

    def _refuse_empty(self, old: str, path: str) -> None:
        self._refuse("EMPTY_STRUCT", path, (old, "struct<>"), "a record without fields has no column type")

    def _refuse(self, rule: str, path: str, sides: tuple[str, str], what: str) -> None:
        self.refused.append(RefusedChange(rule, path, *sides, what, _ANOTHER_NAME))


def widens(narrow: ice.IcebergType, wide: ice.IcebergType) -> bool:
    """Tell whether Iceberg lets a column of the narrow type become one of the wide type."""
    match narrow, wide:
        case (ice.IntegerType(), ice.LongType()) | (ice.FloatType(), ice.DoubleType()):
            return True
        case ice.DecimalType(precision=p, scale=s), ice.DecimalType(precision=P, scale=S):  # noqa: N806
            return s == S and p <= P
        case _:
            return False


def _with(column: ice.NestedField, *, name: str, kind: ice.IcebergType, required: bool) -> ice.NestedField:
    return ice.NestedField(field_id=column.field_id, name=name, field_type=kind, required=required, doc=column.doc)


def _named(avro_type: AvroType) -> str:
    return type(shape(avro_type)[0]).__name__.lower()
