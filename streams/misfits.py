"""Where a value does not fit its schema: the path of a field, and never what stands there.

For one message that a person looks at: fields are tried one after the other, each time from the first.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import fastavro
import pyarrow as pa

from headrace.streams.storable import unstorable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["unheld_path", "unread_path"]


def unread_path(fields: Sequence[dict[str, Any]], body: bytes) -> str | None:
    """Return the path of the first field that cannot be read; empty: bytes are left behind the last one; None: none.

    Records are entered, also optional ones; lists, maps and unions of several branches are not.

    Args:
        fields: the writer's fields, spelt out (`headrace.schemas.plain.Speller`).
        body: the value without its header.
    """

    def end_of(some: Sequence[dict[str, Any]]) -> int | None:
        stream = io.BytesIO(body)
        schema = {"type": "record", "name": "headrace.value", "fields": list(some)}
        try:
            fastavro.schemaless_reader(stream, fastavro.parse_schema(schema), None)
        except Exception:  # noqa: BLE001 - fastavro raises all kinds of errors for bytes that do not fit
            return None
        return stream.tell()

    path = _path(fields, lambda some: end_of(some) is not None)
    if path:
        return ".".join(path)
    return "" if end_of(fields) != len(body) else None


def _path(fields: Sequence[dict[str, Any]], fit: Callable[[Sequence[dict[str, Any]]], bool]) -> tuple[str, ...]:
    place = next((place for place in range(len(fields)) if not fit(fields[: place + 1])), None)
    if place is None:
        return ()
    field = fields[place]
    record = _record_in(field["type"])
    if record is None:
        return (field["name"],)

    def fit_inside(inner: Sequence[dict[str, Any]]) -> bool:
        shorter = {**record, "fields": list(inner)}
        kind = ["null" if each == "null" else shorter for each in field["type"]] if optional else shorter
        return fit([*fields[:place], {**field, "type": kind}])

    optional = isinstance(field["type"], list)
    return (field["name"], *_path(record["fields"], fit_inside))


def _record_in(kind: Any) -> dict[str, Any] | None:
    """Return the record that a field is, required or optional."""
    branches = [each for each in kind if each != "null"] if isinstance(kind, list) else [kind]
    only = branches[0] if len(branches) == 1 else None
    return only if isinstance(only, dict) and only["type"] == "record" else None


def unheld_path(events: pa.StructArray) -> str | None:
    """Return the path of the first field of one event whose value no table can hold; None: there is none."""
    for field, array in zip(events.type, events.flatten(), strict=True):
        if len(unstorable(array)):
            below = unheld_path(array) if pa.types.is_struct(array.type) else None
            return f"{field.name}.{below}" if below else str(field.name)
    return None
