"""Masks put on Arrow arrays, whole columns at a time. Pure: values in, masked values out."""

from __future__ import annotations

import decimal
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from datafusion import SessionConfig, SessionContext, functions, lit
from datafusion import col as column

from headrace.schemas.errors import Bug
from headrace.schemas.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# RFC 2104: keys are padded to SHA-256's block size, longer ones are hashed first.
_BLOCK_BYTES = 64
# How many characters the show-… masks leave readable.
_SHOWN = 4


class Masker:
    """Puts a product's masks on its columns.

    Args:
        masks: mask by field path.
        hmac_key: the mesh's secret; never logged, never part of an error.
    """

    def __init__(self, masks: Mapping[str, Mask], hmac_key: bytes) -> None:
        self._masks = dict(masks)
        self._hmac = _Hmac(hmac_key)

    def masked(self, path: str, array: pa.Array) -> pa.Array:
        """Return the array with the mask of ``path`` put on it; the same array where the path has none."""
        mask = self._masks.get(path)
        return array if mask is None else self._put(mask, array)

    def _put(self, mask: Mask, array: pa.Array) -> pa.Array:
        if mask is Mask.REPLACE_WITH_NULL:
            return nulls(len(array), array.type)
        if pa.types.is_list(array.type):
            return map_items(array, lambda items: self._put(mask, items), array.type)
        if pa.types.is_map(array.type):
            return map_values(array, lambda values: self._put(mask, values), array.type)
        if mask is Mask.HMAC_SHA_256:
            return self._hmac(array)
        return _VECTORISED[mask](array)


def nulls(length: int, kind: pa.DataType) -> pa.Array:
    """Return an array of nulls whose required children, at any depth, hold none.

    Parquet's writer refuses a null in a required child, although the null above it already says all.
    """
    if not pa.types.is_struct(kind):
        return pa.nulls(length, kind)
    return pa.StructArray.from_arrays(_blanks(length, kind), fields=list(kind), mask=pa.repeat(pa.scalar(True), length))


def _blanks(length: int, kind: pa.StructType) -> list[pa.Array]:
    return [nulls(length, child.type) if child.nullable else _blank(length, child.type) for child in kind]


def _blank(length: int, kind: pa.DataType) -> pa.Array:
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays(_blanks(length, kind), fields=list(kind))
    return without_nulls(pa.nulls(length, kind))


def without_nulls(array: pa.Array) -> pa.Array:
    """Return the array with what lies under its nulls: zeros, empty texts, empty lists."""
    kind = array.type
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([array.field(at) for at in range(kind.num_fields)], fields=list(kind))
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(*_rebased(array.offsets, array.values), type=kind)
    if pa.types.is_map(kind):
        offsets, keys = _rebased(array.offsets, array.keys)
        return pa.MapArray.from_arrays(offsets, keys, _rebased(array.offsets, array.items)[1], type=kind)
    return pa.Array.from_buffers(kind, len(array), [None, *array.buffers()[1:]], null_count=0, offset=array.offset)


def map_items(
    array: pa.ListArray, change: Callable[[pa.Array], pa.Array], kind: pa.ListType | None = None
) -> pa.ListArray:
    """Return a list array with ``change`` put on its items; lengths and nulls stay. ``kind`` is the result's type."""
    offsets, items = _rebased(array.offsets, array.values)
    return pa.ListArray.from_arrays(offsets, change(items), type=kind, mask=_null_mask(array))


def map_values(
    array: pa.MapArray, change: Callable[[pa.Array], pa.Array], kind: pa.MapType | None = None
) -> pa.MapArray:
    """Return a map array with ``change`` put on its values; keys, lengths and nulls stay. ``kind`` as above."""
    offsets, keys = _rebased(array.offsets, array.keys)
    _, values = _rebased(array.offsets, array.items)
    return pa.MapArray.from_arrays(offsets, keys, change(values), type=kind, mask=_null_mask(array))


def _rebased(offsets: pa.Array, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    # A slice's offsets need not start at 0, and Arrow refuses offsets that themselves are a slice together with a mask.
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    return pc.subtract(offsets, pa.scalar(first, offsets.type)), values.slice(first, last - first)


def _null_mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


class _Hmac:
    """HMAC-SHA-256 (RFC 2104) as lower-case hexadecimal digits, computed column-wise by DataFusion."""

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_BYTES:
            key = hashlib.sha256(key).digest()
        padded = key.ljust(_BLOCK_BYTES, b"\0")
        # One partition: with more, DataFusion gives the rows back in another order, and hashes to the wrong rows.
        self._context = SessionContext(SessionConfig().with_target_partitions(1))
        inner = functions.concat(lit(bytes(byte ^ 0x36 for byte in padded)), column("v"))
        outer = functions.concat(lit(bytes(byte ^ 0x5C for byte in padded)), functions.sha256(inner))
        self._digest = functions.encode(functions.sha256(outer), "hex").alias("h")

    def __call__(self, array: pa.Array) -> pa.Array:
        if not len(array):
            return array
        table = pa.table({"v": array.cast(pa.binary())})
        try:
            hashed = self._context.from_arrow(table).select(self._digest).to_arrow_table().column("h").combine_chunks()
        except Exception as error:  # noqa: BLE001 - whatever DataFusion raises, its message may print the key
            raise Bug(f"hmac-sha-256 could not be computed ({type(error).__name__})") from None
        # DataFusion's concat reads a null as an empty value: nulls are put back.
        return pc.if_else(array.is_valid(), hashed.cast(pa.string()), pa.scalar(None, pa.string()))


def _alphanum(array: pa.Array) -> pa.Array:
    letters = pc.replace_substring_regex(array, r"[^0-9(),.\-@]", "x")
    return pc.replace_substring_regex(letters, r"[0-9]", "n")


def _hidden(array: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the ``x`` that stand for hidden characters, and which values are too short to show anything of."""
    length = pc.utf8_length(array)
    short = pc.less_equal(length, _SHOWN)
    return pc.binary_repeat("x", pc.if_else(short, length, pc.subtract(length, _SHOWN))), short


def _show_first(array: pa.Array) -> pa.Array:
    hidden, short = _hidden(array)
    shown = pc.utf8_slice_codeunits(array, 0, _SHOWN)
    return pc.if_else(short, hidden, pc.binary_join_element_wise(shown, hidden, ""))


def _show_last(array: pa.Array) -> pa.Array:
    hidden, short = _hidden(array)
    shown = pc.utf8_slice_codeunits(array, -_SHOWN)
    return pc.if_else(short, hidden, pc.binary_join_element_wise(hidden, shown, ""))


def _fixed(array: pa.Array) -> pa.Array:
    kind = array.type
    value: Any = 0
    if pa.types.is_string(kind):
        value = ""
    elif pa.types.is_binary(kind):
        value = b""
    elif pa.types.is_boolean(kind):
        value = False
    elif pa.types.is_decimal(kind):
        value = decimal.Decimal(0)
    constant = pa.scalar(value, pa.int32()).cast(kind) if pa.types.is_date32(kind) else pa.scalar(value, kind)
    return pc.if_else(array.is_valid(), constant, pa.scalar(None, kind))


_VECTORISED: Mapping[Mask, Callable[[pa.Array], pa.Array]] = {
    Mask.MASK_TO_FIXED_VALUE: _fixed,
    Mask.MASK_ALPHANUM: _alphanum,
    Mask.SHOW_FIRST_4: _show_first,
    Mask.SHOW_LAST_4: _show_last,
    Mask.TRUNCATE_TO_YEAR: partial(pc.floor_temporal, unit="year"),
    Mask.TRUNCATE_TO_MONTH: partial(pc.floor_temporal, unit="month"),
}
