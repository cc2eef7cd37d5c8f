"""Fields of topics and columns of tables as OpenLineage names them, and which column comes from which field. Pure.

Nested types are written as in OpenLineage's schema facet: the fields of a struct, ``_element`` of an array, ``key`` and
``value`` of a map. Column lineage names a nested column by its path as contracts do: ``order.items[].price``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openlineage.client.facet_v2 import column_lineage_dataset as lineage
from openlineage.client.facet_v2 import schema_dataset
from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Enum, Fixed, Map, Primitive, Record
from headrace.schemas.changes import column_paths
from headrace.schemas.masks import Mask
from headrace.schemas.own_columns import METADATA_COLUMNS
from headrace.schemas.paths import around
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headrace.schemas.avro import AvroSchema

__all__ = ["Masked", "column_lineage", "table_fields", "topic_fields"]

KEY_COLUMN = "_kafka_key"
# The sink's own count: it comes from no message.
GENERATION_COLUMN = "_generation"
_ELEMENT, _KEY, _VALUE = "_element", "key", "value"

SchemaField = schema_dataset.SchemaDatasetFacetFields


@dataclass(frozen=True, slots=True)
class Masked:
    """What is masked in a table: its masks by path, and whether the messages' keys are."""

    masks: Mapping[str, Mask]
    key: bool

    def mask_of(self, path: str) -> Mask | None:
        """Return the mask on a column: its own, or that of a column that it lies in."""
        if path == KEY_COLUMN:
            return Mask.REPLACE_WITH_NULL if self.key else None
        return next((self.masks[each] for each in (*around(path), path) if each in self.masks), None)


def column_lineage(
    columns: Iterable[ice.NestedField], masked: Masked, *, namespace: str, topic: str, producer: str
) -> lineage.ColumnLineageDatasetFacet:
    """Return where a table's columns come from, at every depth.

    A column comes from the field of its own name; a metadata column from the message, whose partition, offset and the
    like are named as the column is, because no event may have a field of such a name.

    Args:
        columns: the table's columns.
        masked: what is masked in them.
        namespace: the topic's, as OpenLineage names datasets.
        topic: the topic's name.
        producer: who says so.
    """
    # A column is masked too if only a part of it is.
    holders = {path for mask in masked.masks for path in around(mask)}

    def origin(path: str) -> lineage.Fields:
        mask = masked.mask_of(path)
        hidden = mask is not None or path in holders
        how = lineage.Transformation("DIRECT", "TRANSFORMATION" if hidden else "IDENTITY", mask, masking=hidden)
        return lineage.Fields([lineage.InputField(namespace, topic, path, [how])])

    paths = (path for path in column_paths(columns) if path != GENERATION_COLUMN)
    return lineage.ColumnLineageDatasetFacet({path: origin(path) for path in paths}, producer=producer)


def table_fields(columns: Iterable[ice.NestedField]) -> list[SchemaField]:
    """Return a table's columns."""
    return [_column(column.name, column.field_type, column.doc) for column in columns]


def topic_fields(schema: AvroSchema) -> list[SchemaField]:
    """Return the fields of a topic's events, and what each message has beside: partition, offset, timestamp and key."""
    fields = [_field(field.name, field.type, field.doc) for field in schema.record.fields]
    return [*fields, *(_column(name, kind, doc) for name, kind, doc in _message_columns())]


def _message_columns() -> Iterator[tuple[str, ice.IcebergType, str]]:
    return ((name, kind, doc) for name, kind, _, doc in METADATA_COLUMNS if name != GENERATION_COLUMN)


def _column(name: str, kind: ice.IcebergType, doc: str | None) -> SchemaField:
    word, inner = str(kind), list[SchemaField]()
    match kind:
        case ice.StructType():
            word, inner = "struct", table_fields(kind.fields)
        case ice.ListType():
            word, inner = "array", [_column(_ELEMENT, kind.element_type, None)]
        case ice.MapType():
            word, inner = "map", [_column(_KEY, kind.key_type, None), _column(_VALUE, kind.value_type, None)]
        case _:
            pass
    return SchemaField(name, word, doc or None, fields=inner)


def _field(name: str, avro_type: AvroType, doc: str | None) -> SchemaField:
    # A union of several branches is named as its column is, or its branches' columns would come from nowhere.
    seen, _ = shape(avro_type)
    word, inner = _word(seen), list[SchemaField]()
    match seen:
        case Record():
            inner = [_field(field.name, field.type, field.doc) for field in seen.fields]
        case Array():
            inner = [_field(_ELEMENT, seen.items, None)]
        case Map():
            inner = [SchemaField(_KEY, "string"), _field(_VALUE, seen.values, None)]
        case _:
            pass
    return SchemaField(name, word, doc or None, fields=inner)


def _word(avro_type: AvroType) -> str:
    match avro_type:
        case Primitive() | Fixed():
            return avro_type.logical or (avro_type.name if isinstance(avro_type, Primitive) else "fixed")
        case Enum():
            return "enum"
        case Record():
            return "struct"
        case Array():
            return "array"
        case _:
            return "map"
