"""pyiceberg's partition types, mended: every partition value may be null, as Iceberg's specification has it.

pyiceberg 0.12 takes a partition value for required if its column is. But a required field of an optional struct is null
wherever the struct is, and then no manifest can be written. Manifests are written deep inside a commit, which offers no
other way in: importing this module mends the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.types import StructType

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

_made_by_pyiceberg = PartitionSpec.partition_type


def optional_partition_type(spec: PartitionSpec, schema: Schema) -> StructType:
    """Return the struct of a spec's partition values, all of them optional."""
    fields = _made_by_pyiceberg(spec, schema).fields
    return StructType(*(field.model_copy(update={"required": False}) for field in fields))


PartitionSpec.partition_type = optional_partition_type  # type: ignore[assignment, method-assign]
