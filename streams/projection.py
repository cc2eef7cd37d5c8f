"""pyiceberg's reading of Arrow arrays, mended: null arrays and maps of records stay null.

pyiceberg 0.12 builds lists and maps of records anew from their offsets alone, so that a null one comes out empty. Its
scans take the class from their own module, and offer no other way in: importing this module puts the mended one there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import pyarrow as scans

if TYPE_CHECKING:
    from pyiceberg.types import ListType, MapType


class NullKeepingProjection(scans.ArrowProjectionVisitor):
    """Projects a file's arrays onto a schema as pyiceberg does, and keeps the nulls of lists and maps."""

    def list(self, list_type: ListType, list_array: pa.Array | None, value_array: pa.Array | None) -> pa.Array | None:
        """Project a list."""
        made = super().list(list_type, list_array, value_array)
        if made is None or list_array is None or made.null_count == list_array.null_count:
            return made
        build = pa.LargeListArray if isinstance(made, pa.LargeListArray) else pa.ListArray
        return build.from_arrays(_whole(made.offsets), made.values, type=made.type, mask=list_array.is_null())

    def map(
        self, map_type: MapType, map_array: pa.Array | None, key_result: pa.Array | None, value_result: pa.Array | None
    ) -> pa.Array | None:
        """Project a map."""
        made = super().map(map_type, map_array, key_result, value_result)
        if made is None or map_array is None or made.null_count == map_array.null_count:
            return made
        return pa.MapArray.from_arrays(
            _whole(made.offsets), made.keys, made.items, type=made.type, mask=map_array.is_null()
        )


def _whole(offsets: pa.Array) -> pa.Array:
    # Arrow refuses offsets that are themselves a slice together with a mask.
    return pc.add(offsets, pa.scalar(0, offsets.type))


scans.ArrowProjectionVisitor = NullKeepingProjection  # type: ignore[misc]
