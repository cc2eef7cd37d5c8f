"""Iceberg's transforms, as contracts and partitions name them. Pure.

Source: Iceberg table specification, "Partition Transforms".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pyiceberg.transforms import (
    BucketTransform,
    IdentityTransform,
    Transform,
    TruncateTransform,
    parse_transform,
)
from pyiceberg.types import DecimalType
from pyiceberg.utils.decimal import decimal_required_bytes

if TYPE_CHECKING:
    from pyiceberg.types import IcebergType

TRANSFORMS = ("identity", "year", "month", "day", "hour", "bucket[N]", "truncate[W]")
# Nine digits fit Iceberg's int.
_TRANSFORM = re.compile(r"identity|year|month|day|hour|(bucket|truncate)\[[1-9][0-9]{0,8}\]")


def transform_of(text: str) -> Transform[Any, Any] | None:
    """Return the transform that a contract names; None: there is none of that name."""
    found: Transform[Any, Any] | None = parse_transform(text) if _TRANSFORM.fullmatch(text) else None
    return found


def can_transform(transform: Transform[Any, Any], kind: IcebergType) -> bool:
    """Tell whether a transform goes with every value of a column type.

    A decimal that is rounded down may leave the bytes that manifests have for its type.
    """
    if isinstance(transform, TruncateTransform) and isinstance(kind, DecimalType):
        lowest, width = 1 - 10**kind.precision, int(transform.width)
        bits = 8 * decimal_required_bytes(kind.precision)
        return bool(lowest - lowest % width >= -(1 << (bits - 1)))
    return bool(transform.can_transform(kind))


def suffix_of(transform: Transform[Any, Any]) -> str:
    """Return how Iceberg's libraries call a partition that is added to a table: by column, transform and width."""
    match transform:
        case IdentityTransform():
            return ""
        case BucketTransform(num_buckets=buckets):
            return f"_bucket_{buckets}"
        case TruncateTransform(width=width):
            return f"_trunc_{width}"
        case _:
            return f"_{transform}"
