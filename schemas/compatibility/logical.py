"""What changes the meaning of the same bytes: logical types, which Avro's rules of resolution ignore. Pure.

A decimal read with another scale is another amount, a timestamp of milliseconds read as microseconds another century,
and no reader notices.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from headrace.schemas.avro import Enum, Fixed, Primitive
from headrace.schemas.compatibility.findings import Breaks, Finding, Layer
from headrace.schemas.compatibility.graph import shown
from headrace.schemas.compatibility.pairs import leaves_of
from headrace.schemas.compatibility.resolution import PROMOTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.avro import AvroType
    from headrace.schemas.compatibility.graph import Graph
    from headrace.schemas.compatibility.pairs import TypePair

__all__ = ["logical_findings"]

_TIMESTAMP = re.compile(r"(?P<local>local-)?timestamp-(?P<unit>millis|micros|nanos)")
_ANOTHER_FIELD = "keep the old field as it is, and add one of another name with the new type"


def logical_findings(old: Graph, new: Graph, *, old_readers: bool) -> Iterator[Finding]:
    """Yield what changed in logical types.

    Args:
        old: the old version.
        new: the new version.
        old_readers: whether readers of the old version go on reading, so that wider decimals break them.
    """
    for pair in leaves_of(old, new):
        if _reads(pair.old, pair.new) or _reads(pair.new, pair.old):
            yield from _leaf(pair, old_readers=old_readers)


def _reads(writer: AvroType, reader: AvroType) -> bool:
    match writer, reader:
        case Primitive(name=written), Primitive(name=name):
            return written == name or name in PROMOTIONS.get(written, frozenset())
        case Fixed(size=written_size), Fixed(size=size):
            return written_size == size
        case _:
            return False


def _leaf(pair: TypePair, *, old_readers: bool) -> Iterator[Finding]:
    old, new = pair.old, pair.new
    if isinstance(old, Enum) or isinstance(new, Enum) or not isinstance(old, Primitive | Fixed):
        return
    if not isinstance(new, Primitive | Fixed):
        return
    if old.logical == new.logical == "decimal":
        yield from _decimal(pair, old, new, old_readers=old_readers)
        return
    was, now = _TIMESTAMP.fullmatch(old.logical or ""), _TIMESTAMP.fullmatch(new.logical or "")
    if was is None or now is None:
        if old.logical != new.logical:
            yield _finding("LOGICAL_TYPE_CHANGED", pair, _ANOTHER_FIELD)
        return
    if was["unit"] != now["unit"]:
        hint = "add a field of another name in the new unit: who has the other schema is wrong by a factor of thousands"
        yield _finding("TIMESTAMP_UNIT_CHANGED", pair, hint)
    if was["local"] != now["local"]:
        hint = "a moment and a time on the wall are different things: add a field of another name"
        yield _finding("TIMESTAMP_ZONE_CHANGED", pair, hint)


def _decimal(pair: TypePair, old: Primitive | Fixed, new: Primitive | Fixed, *, old_readers: bool) -> Iterator[Finding]:
    if old.scale != new.scale:
        yield _finding("DECIMAL_SCALE_CHANGED", pair, f"keep the scale {old.scale}, or add a field of another name")
    if new.precision < old.precision:
        yield _finding("DECIMAL_PRECISION_NARROWED", pair, f"keep the precision {old.precision}, or a larger one")
    elif new.precision > old.precision and old_readers:
        hint = "let the readers take the new version first, or add a field of another name"
        yield _finding("DECIMAL_PRECISION_WIDENED", pair, hint, Breaks.READER_OF_NEW_EVENTS)


def _finding(rule: str, pair: TypePair, hint: str, breaks: Breaks = Breaks.READER_OF_OLD_EVENTS) -> Finding:
    return Finding(Layer.LOGICAL, rule, pair.path, shown(pair.old), shown(pair.new), breaks, hint)
