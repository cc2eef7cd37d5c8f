"""What pyiceberg 0.12 makes of partitions in manifests, mended.

Manifests are written deep inside a commit, which offers no other way in: importing this module mends the classes.

*Every partition value may be null*, as Iceberg's specification has it. pyiceberg takes one for required if its column
is. But a required field of an optional struct is null wherever the struct is, and then no manifest can be written.

*A named Avro type is defined once*, as Avro's specification has it. pyiceberg names decimals, UUIDs and fixed by their
size, so that two partitions of one such type make a manifest that only pyiceberg reads: DuckDB dies of it.

*A decimal that is rounded down may have a digit more than its type*: ``truncate`` makes -10.00 of -9.99. It fits the
type's bytes (`can_transform`), and pyiceberg writes it; but it refuses it as a bound in the manifest's summary.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pyiceberg import manifest
from pyiceberg.manifest import PartitionFieldStats, PartitionFieldSummary
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.types import DecimalType, StructType
from pyiceberg.utils.decimal import decimal_to_bytes
from pyiceberg.utils.schema_conversion import AvroSchemaConversion

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

_partition_type = PartitionSpec.partition_type
_iceberg_to_avro = AvroSchemaConversion.iceberg_to_avro


def optional_partition_type(spec: PartitionSpec, schema: Schema) -> StructType:
    """Return the struct of a spec's partition values, all of them optional."""
    fields = _partition_type(spec, schema).fields
    return StructType(*(field.model_copy(update={"required": False}) for field in fields))


def avro_with_distinct_names(conversion: AvroSchemaConversion, schema: Schema, schema_name: str | None = None) -> Any:
    """Return the Avro schema of a file, in which each type of a fixed size has a name of its own."""
    return _distinct(_iceberg_to_avro(conversion, schema, schema_name), Counter())


def _distinct(node: Any, names: Counter[str]) -> Any:
    if isinstance(node, list):
        return [_distinct(each, names) for each in node]
    if not isinstance(node, dict):
        return node
    found = {key: _distinct(value, names) for key, value in node.items()}
    if found.get("type") == "fixed":
        name = found["name"]
        names[name] += 1
        found["name"] = name if names[name] == 1 else f"{name}_again_{names[name]}"
    return found


class WideBounds(PartitionFieldStats):
    """The bounds of a partition's values in a manifest's summary: the values' own bytes, of decimals of any length."""

    def to_summary(self) -> PartitionFieldSummary:
        """Return what the summary says of a partition."""
        if not isinstance(self._type, DecimalType):
            return super().to_summary()
        lower, upper = (None if bound is None else decimal_to_bytes(bound) for bound in (self._min, self._max))
        return PartitionFieldSummary(self._contains_null, self._contains_nan, lower, upper)


PartitionSpec.partition_type = optional_partition_type  # type: ignore[assignment, method-assign]
AvroSchemaConversion.iceberg_to_avro = avro_with_distinct_names  # type: ignore[assignment, method-assign]
manifest.PartitionFieldStats = WideBounds  # type: ignore[misc]
