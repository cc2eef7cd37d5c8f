"""Symbols that an event's writer knew and its reader does not, column-wise. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.schemas.avro import Array, AvroType, Enum, Map, Record
from headrace.schemas.masking import map_items, map_values
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape

if TYPE_CHECKING:
    from collections.abc import Container

    from numpy.typing import NDArray


def with_symbols(
    array: pa.Array, reader: AvroType, masked: Container[str] = (), path: str = ""
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Put the reader's default in place of symbols that its enums do not have, at any depth.

    Args:
        array: values, shaped and named as the reader's columns are.
        reader: the reader's type of them.
        masked: paths of fields that hold what a mask made of symbols.
        path: the values' own path.

    Returns:
        The values, and which of them hold a symbol that no default stands in for.
    """
    inner, _ = shape(reader)
    none = np.zeros(len(array), bool)
    if path in masked:
        return array, none
    inside: list[NDArray[np.bool_]] = []

    def change(values: pa.Array, avro_type: AvroType, here: str) -> pa.Array:
        changed, strange = with_symbols(values, avro_type, masked, here)
        inside.append(strange)
        return changed

    match inner:
        case Enum(symbols=symbols, default=default):
            texts = array.cast(pa.string())
            strange = pc.and_(texts.is_valid(), pc.invert(pc.is_in(texts, pa.array(symbols, pa.string()))))
            if default is None:
                return texts, strange.to_numpy(zero_copy_only=False)
            return pc.if_else(strange, pa.scalar(default), texts), none
        case Record() if pa.types.is_struct(array.type):
            children, fields = [], []
            for place, each in enumerate(array.type):
                field = inner.field(each.name)
                child = array.field(place)
                if field is not None:
                    here = below(path, each.name)
                    child, strange = with_symbols(child, field.type, masked, here)
                    none |= strange
                children.append(child)
                fields.append(each.with_type(child.type))
            return _struct(array, children, fields), none & _valid(array)
        case Array(items=items) if pa.types.is_list(array.type):
            changed = map_items(array, lambda each: change(each, items, f"{path}[]"))
            return changed, _any(array, inside[0])
        case Map(values=values) if pa.types.is_map(array.type):
            changed = map_values(array, lambda each: change(each, values, f"{path}{{}}"))
            return changed, _any(array, inside[0])
        case _:
            return array, none


def _struct(like: pa.StructArray, children: list[pa.Array], fields: list[pa.Field]) -> pa.StructArray:
    return pa.StructArray.from_arrays(children, fields=fields, mask=like.is_null() if like.null_count else None)


def _any(lists: pa.ListArray | pa.MapArray, strange: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which lists hold something strange."""
    before = np.concatenate([[0], np.cumsum(strange)])
    offsets = lists.offsets.to_numpy()
    offsets = offsets - offsets[0]
    found: NDArray[np.bool_] = (before[offsets[1:]] > before[offsets[:-1]]) & _valid(lists)
    return found


def _valid(array: pa.Array) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return found
