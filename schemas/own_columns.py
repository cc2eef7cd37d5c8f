"""Columns that every table has beside its events' own, and names that no event's field may have for that. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg import types as ice

if TYPE_CHECKING:
    from collections.abc import Callable

# Reserved by the Iceberg specification or by an engine: Spark refuses a table that has a column of such a name.
RESERVED_COLUMNS = frozenset({"_file", "_pos", "_deleted", "_spec_id", "_partition", "_row_id"})
METADATA_COLUMNS: tuple[tuple[str, ice.IcebergType, bool, str], ...] = (
    ("_kafka_partition", ice.IntegerType(), True, "partition of the event's topic"),
    (
        "_kafka_offset",
        ice.LongType(),
        True,
        "offset in that partition; with partition and generation, the row's identity",
    ),
    ("_kafka_timestamp", ice.TimestamptzType(), False, "the broker's or producer's timestamp of the event"),
    ("_kafka_key", ice.BinaryType(), False, "the message's key; null where the key holds a masked field"),
    ("_schema_id", ice.IntegerType(), True, "the registry's id of the schema that the event was written with"),
    ("_generation", ice.IntegerType(), True, "counts the topics that this table has followed"),
)
METADATA_NAMES = frozenset(name for name, *_ in METADATA_COLUMNS)


def metadata_fields(next_id: Callable[[], int]) -> tuple[ice.NestedField, ...]:
    """Return the metadata columns that every table carries after the event's own fields."""
    return tuple(
        ice.NestedField(field_id=next_id(), name=name, field_type=kind, required=required, doc=doc)
        for name, kind, required, doc in METADATA_COLUMNS
    )
