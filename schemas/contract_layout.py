"""How a contract wants its table laid out: the fields to partition by, and those to sort by.

A field is named by its path in the Avro schema, or it is one of the table's own columns (``_kafka_timestamp``).

Partitions and order are made of what is in the table, so a masked field counts with its masked value. With
``hmac-sha-256`` that serves queries that look for one value: ``bucket[N]`` spreads the hashes evenly, ``identity``
makes a partition of every value. ``truncate-to-year`` and ``truncate-to-month`` go with ``year``, ``month`` or
``identity``; the others leave few values to tell apart. A mask that leaves nothing, null or one fixed value, puts all
rows in one place and is refused.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.schemas.avro import Record, Union, optional_of
from headrace.schemas.avro_types import branch_record
from headrace.schemas.masks import Mask
from headrace.schemas.policy import is_masked
from headrace.schemas.product import PartitionField, SortField
from headrace.schemas.transforms import TRANSFORMS, can_transform, transform_of
from headrace.schemas.types import METADATA_COLUMNS, METADATA_NAMES, leaf_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.types import IcebergType

    from headrace.schemas.avro import AvroSchema, AvroType
    from headrace.schemas.contract_fields import ContractField
    from headrace.schemas.contract_settings import Custom
    from headrace.schemas.documents import DocumentFaults, Key

SORT_ORDER = "iceberg.sortOrder"
TRANSFORM = "iceberg.transform"
_DIRECTIONS = ("asc", "desc")
_NULLS = ("first", "last")
_EMPTYING = frozenset({Mask.REPLACE_WITH_NULL, Mask.MASK_TO_FIXED_VALUE})
# The attributes of a property that speak of partitions, and those in which a complete document says what the column is.
_ASKED = ("name", "description", "partitioned", "partitionKeyPosition", "customProperties")
_DESCRIBED = ("logicalType", "logicalTypeOptions", "physicalType", "required")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """The columns that a contract's table will have, as far as partitions and order are made of them.

    Attributes:
        schema: the product's Avro schema.
        masks: the mask of every masked field.
        key: the paths of the fields that make the message's key.
    """

    schema: AvroSchema
    masks: Mapping[str, Mask]
    key: Sequence[str]

    def known(self) -> list[str]:
        """Return the paths of all fields, and the names of the table's own columns."""
        return [*(path for path, _ in self.schema.walk()), *METADATA_NAMES]

    def has(self, path: str) -> bool:
        """Tell whether there is such a field, branch of a union, or column of the table's own."""
        return path in self.known() or _inside(self.schema.record, path) is not None

    def type_of(self, path: str) -> IcebergType | None:
        """Return the type of a column that has one value a row; None: it has none, or there is no such column."""
        for name, kind, *_ in METADATA_COLUMNS:
            if name == path:
                return kind
        found = _inside(self.schema.record, path)
        try:
            return leaf_type(found) if found is not None else None
        except ValueError:
            return None

    def is_emptied(self, path: str) -> bool:
        """Tell whether a mask leaves one value for all rows."""
        if path == "_kafka_key":
            return any(is_masked(part, self.masks) for part in self.key)
        emptied = {masked for masked, mask in self.masks.items() if mask in _EMPTYING}
        return is_masked(path, emptied)

    def refusal(self, path: str) -> tuple[str, str]:
        """Return why no table is partitioned or sorted by a field, and what to do; both "" if it may be."""
        if not self.has(path):
            near = difflib.get_close_matches(path, self.known(), n=1)
            return "the Avro schema has no such field", f"did you mean {near[0]}?" if near else "name one of its fields"
        if _within_many(path):
            return "a field inside a list or map has many values a row", "choose a field that has one"
        if self.type_of(path) is None:
            return "a list, map or record is no single value", "choose a field of a record, or another one"
        if self.is_emptied(path):
            return "the mask of this field leaves one value for all rows", "choose another field, or another mask"
        return "", ""


def _within_many(path: str) -> bool:
    return "[]" in path or "{}" in path


def _inside(record: Record, path: str) -> AvroType | None:
    """Return the type at a path through records, without its null; a union of several branches counts as a record."""
    name, _, rest = path.partition(".")
    field = record.field(name)
    if field is None:
        return None
    inner, _ = optional_of(field.type)
    if isinstance(inner, Union):
        inner = branch_record(inner)
    if not rest:
        return inner
    return _inside(inner, rest) if isinstance(inner, Record) else None


def partitioning_of(
    properties: Sequence[ContractField], columns: TableColumns, faults: DocumentFaults
) -> tuple[PartitionField, ...]:
    """Return what the table is partitioned by, in order; what is wrong is a fault at its place."""
    parts = [found for found in properties if found.value.partitioned]
    for found in properties:
        if found.path in METADATA_NAMES:
            _check_own_column(found, faults)
        if not found.value.partitioned:
            _check_unasked(found, faults)
    transforms = {part.path: _transform(part, columns, faults) for part in parts}
    _check_positions(parts, faults)
    parts.sort(key=lambda part: part.value.partitionKeyPosition or 0)
    return tuple(PartitionField(part.path, transforms[part.path]) for part in parts)


def _check_own_column(found: ContractField, faults: DocumentFaults) -> None:
    for attribute in sorted(found.value.model_fields_set - {*_ASKED, *_DESCRIBED}):
        faults.add(
            (*found.place, attribute),
            f"{found.path} is the table's own column: a contract says of it only how it partitions the table",
            f"take {attribute} out",
        )
    if not found.value.partitioned:
        faults.add(
            found.place, f"{found.path} stands here for partitioning alone", "write partitioned: true, or take it out"
        )
    if "mask" in found.custom:
        faults.add(found.custom["mask"][1], f"{found.path} takes no mask", "mask the key's fields: their key is null")


def _check_unasked(found: ContractField, faults: DocumentFaults) -> None:
    hint = "write partitioned: true, or take it out"
    # The standard's own default of a field that is no partition key is -1.
    if found.value.partitionKeyPosition not in {None, -1}:
        faults.add((*found.place, "partitionKeyPosition"), "the table is not partitioned by this field", hint)
    if TRANSFORM in found.custom:
        faults.add(found.custom[TRANSFORM][1], "the table is not partitioned by this field", hint)


def _transform(part: ContractField, columns: TableColumns, faults: DocumentFaults) -> str:
    value, place = part.custom.get(TRANSFORM, ("identity", (*part.place, "partitioned")))
    text = value if isinstance(value, str) else ""
    transform = transform_of(text)
    if transform is None:
        faults.add(place, "this transform is not known", f"choose {', '.join(TRANSFORMS)}")
    if not columns.has(part.path):
        # The check of all fields tells of it.
        return text
    what, hint = columns.refusal(part.path)
    kind = columns.type_of(part.path)
    if what:
        faults.add((*part.place, "partitioned"), f"{part.path}: {what}", hint)
    elif transform is not None and kind is not None and not can_transform(transform, kind):
        faults.add(place, f"{text} does not fit {kind}", f"choose {', '.join(_fitting(kind))}")
    return text


def _fitting(kind: IcebergType) -> list[str]:
    found = []
    for name in TRANSFORMS:
        transform = transform_of(name.replace("N", "16").replace("W", "4"))
        if transform is not None and can_transform(transform, kind):
            found.append(name)
    return found


def _check_positions(parts: Sequence[ContractField], faults: DocumentFaults) -> None:
    seen: set[int] = set()
    for part in parts:
        position = part.value.partitionKeyPosition
        place = (*part.place, "partitionKeyPosition")
        if position is None:
            if len(parts) > 1:
                faults.add(place, "the partitions have no order", "give each field partitionKeyPosition: 1, 2, …")
        elif not 1 <= position <= len(parts):
            faults.add(place, f"partitionKeyPosition goes from 1 to {len(parts)}", "count the partitioned fields")
        elif position in seen:
            faults.add(place, f"partitionKeyPosition {position} stands twice", "give each field its own")
        else:
            seen.add(position)


def sorting_of(custom: Custom, columns: TableColumns, faults: DocumentFaults) -> tuple[SortField, ...]:
    """Return what the table is sorted by, in order; what is wrong is a fault at its place."""
    if SORT_ORDER not in custom:
        return ()
    listed, place = custom[SORT_ORDER]
    if not isinstance(listed, list):
        faults.add(place, f"{SORT_ORDER} is a list", "write value: [{field: …, direction: asc, nulls: last}]")
        return ()
    found: dict[str, SortField] = {}
    for index, value in enumerate(listed):
        entry = _sort_field(value, (*place, index), columns, faults)
        if entry is None:
            continue
        if entry.path in found:
            faults.add((*place, index, "field"), f"{entry.path} stands twice", "keep one of the two")
        found.setdefault(entry.path, entry)
    return tuple(found.values())


def _sort_field(value: Any, place: tuple[Key, ...], columns: TableColumns, faults: DocumentFaults) -> SortField | None:
    if not isinstance(value, dict) or not isinstance(value.get("field"), str):
        faults.add(place, "an entry of the sort order names a field", "write {field: …, direction: asc, nulls: last}")
        return None
    for key in sorted(value.keys() - {"field", "direction", "nulls"}):
        faults.add((*place, key), f"unknown key {key}", "a sort order has field, direction and nulls")
    path: str = value["field"]
    direction = value.get("direction", "asc")
    # Iceberg's own default: nulls count as the smallest value.
    nulls = value.get("nulls", "last" if direction == "desc" else "first")
    for key, given, allowed in (("direction", direction, _DIRECTIONS), ("nulls", nulls, _NULLS)):
        if given not in allowed:
            faults.add((*place, key), f"{key} is {' or '.join(allowed)}", f"write {key}: {allowed[0]}")
    what, hint = columns.refusal(path)
    if what:
        faults.add((*place, "field"), what, hint)
    return SortField(path, descending=direction == "desc", nulls_first=nulls == "first")
