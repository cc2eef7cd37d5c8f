"""pyiceberg's reading of Arrow arrays, mended: arrays and maps keep what lies in them, and their nulls.

pyiceberg 0.12 builds lists and maps of records anew from their offsets alone, so that a null one comes out empty. Lists
and maps of lists or maps it casts by names, so that a renamed field of a record inside comes out null. Its scans take
the class from their own module, and offer no other way in: importing this module puts the mended one there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import pyarrow as scans

if TYPE_CHECKING:
    from pyiceberg.types import ListType, MapType


class WholeProjection(scans.ArrowProjectionVisitor):
    """Projects a file's arrays onto a schema as pyiceberg does, and keeps what lists and maps hold, and their nulls."""

    def list(self, list_type: ListType, list_array: pa.Array | None, value_array: pa.Array | None) -> pa.Array | None:
        """Project a list."""
        if value_array is None or not isinstance(list_array, pa.ListArray | pa.LargeListArray):
            return super().list(list_type, list_array, value_array)
        values = self._cast_if_needed(list_type.element_field, value_array)
        element = self._construct_field(list_type.element_field, values.type)
        kind = pa.large_list(element) if isinstance(list_array, pa.LargeListArray) else pa.list_(element)
        return type(list_array).from_arrays(
            _whole(list_array.offsets), values, type=kind, mask=list_array.is_null() if list_array.null_count else None
        )

    def map(
        self, map_type: MapType, map_array: pa.Array | None, key_result: pa.Array | None, value_result: pa.Array | None
    ) -> pa.Array | None:
        """Project a map."""
        if key_result is None or value_result is None or not isinstance(map_array, pa.MapArray):
            return super().map(map_type, map_array, key_result, value_result)
        keys = self._cast_if_needed(map_type.key_field, key_result)
        values = self._cast_if_needed(map_type.value_field, value_result)
        kind = pa.map_(
            self._construct_field(map_type.key_field, keys.type),
            self._construct_field(map_type.value_field, values.type),
        )
        mask = map_array.is_null() if map_array.null_count else None
        return pa.MapArray.from_arrays(_whole(map_array.offsets), keys, values, type=kind, mask=mask)


def _whole(offsets: pa.Array) -> pa.Array:
    # Arrow refuses offsets that are themselves a slice together with a mask.
    return pc.add(offsets, pa.scalar(0, offsets.type))


scans.ArrowProjectionVisitor = WholeProjection  # type: ignore[misc]
