"""Random schemas over every type that headrace carries, with values: as they are published, and as they are read."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from headrace.schemas.avro import (
    Array,
    AvroType,
    Fixed,
    Map,
    Primitive,
    Record,
    Union,
    branch_record,
    is_null,
    optional_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MICROSECOND = dt.timedelta(microseconds=1)
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001
_MILLIS = dt.timedelta(milliseconds=1)


@dataclass(frozen=True)
class Kind:
    """A type: its JSON, the name of its branch in a union, and pairs of a published and a read value."""

    avro: Any
    branch: str
    values: st.SearchStrategy[tuple[Any, Any]] = field(repr=False)


def alone(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, Any]]:
    """Values that are read as they were published."""
    return values.map(lambda value: (value, value))


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """Decimals of up to that many digits, all of them among them."""
    most = 10**precision - 1
    return (st.integers(-most, most) | st.sampled_from([-most, most])).map(
        lambda n: Decimal((int(n < 0), tuple(map(int, str(abs(n)))), -scale))
    )


def moments(unit: dt.timedelta) -> st.SearchStrategy[dt.datetime]:
    """Times from the year 1 to 9999, to the unit."""
    limits = st.sampled_from([dt.datetime.min, dt.datetime.max, dt.datetime(1969, 12, 31, 23, 59, 59, 999_999)])  # noqa: DTZ001, DTZ901
    return (st.datetimes() | limits).map(lambda t: t - (t - dt.datetime.min) % unit)  # noqa: DTZ901


def times(unit: dt.timedelta) -> st.SearchStrategy[tuple[Any, Any]]:
    """Times of day, and the text that is read."""
    found = (st.times() | st.just(dt.time.max)).map(
        lambda t: t.replace(microsecond=t.microsecond - t.microsecond % (unit // MICROSECOND))
    )
    return found.map(lambda t: (t, t.isoformat("microseconds")))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
INTS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), 2**31 - 1])
LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1])
COUNTS = st.integers(0, 2**32 - 1) | st.just(2**32 - 1)
DURATIONS = st.fixed_dictionaries({"months": COUNTS, "days": COUNTS, "millis": COUNTS})
SINGLES = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])
DOUBLES = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0])


def _logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


PRIMITIVES = [
    Kind("boolean", "boolean", alone(st.booleans())),
    Kind("int", "int", alone(INTS)),
    Kind("long", "long", alone(LONGS)),
    Kind("float", "float", alone(SINGLES)),
    Kind("double", "double", alone(DOUBLES)),
    Kind("bytes", "bytes", alone(st.binary(max_size=12))),
    Kind("string", "string", alone(TEXTS)),
    Kind(_logical("bytes", "decimal", precision=9, scale=2), "bytes", alone(decimals(9, 2))),
    Kind(_logical("bytes", "decimal", precision=38, scale=10), "bytes", alone(decimals(38, 10))),
    Kind(_logical("bytes", "decimal", precision=38, scale=38), "bytes", alone(decimals(38, 38))),
    Kind(_logical("string", "uuid"), "string", alone(st.uuids())),
    Kind(_logical("int", "date"), "int", alone(st.dates() | st.sampled_from([dt.date.min, dt.date.max]))),
    Kind(_logical("int", "time-millis"), "int", times(_MILLIS)),
    Kind(_logical("long", "time-micros"), "long", times(MICROSECOND)),
    Kind(
        _logical("long", "timestamp-millis"),
        "long",
        alone(moments(_MILLIS).map(lambda t: t.replace(tzinfo=dt.UTC))),
    ),
    Kind(
        _logical("long", "timestamp-micros"),
        "long",
        alone(moments(MICROSECOND).map(lambda t: t.replace(tzinfo=dt.UTC))),
    ),
    Kind(_logical("long", "local-timestamp-millis"), "long", alone(moments(_MILLIS))),
    Kind(_logical("long", "local-timestamp-micros"), "long", alone(moments(MICROSECOND))),
    Kind(_logical("long", "timestamp-nanos"), "long", alone(LONGS)),
    Kind(_logical("long", "local-timestamp-nanos"), "long", alone(LONGS)),
    Kind(_logical("string", "mystery"), "string", alone(TEXTS)),
]


def named(names: Iterator[int]) -> st.SearchStrategy[Kind]:
    """Types with a name of their own, which hold no other."""

    def of(kind: str, values: st.SearchStrategy[tuple[Any, Any]], **more: Any) -> st.SearchStrategy[Kind]:
        def build(number: int) -> Kind:
            return Kind({"type": kind, "name": f"N{number}", **more}, f"N{number}", values)

        return st.builds(lambda: build(next(names)))

    return st.one_of(
        of("enum", alone(st.sampled_from("ABC")), symbols=["A", "B", "C"]),
        of("fixed", alone(st.binary(min_size=3, max_size=3)), size=3),
        of("fixed", alone(st.uuids()), size=16, logicalType="uuid"),
        of("fixed", alone(decimals(9, 2)), size=4, logicalType="decimal", precision=9, scale=2),
        of("fixed", alone(decimals(38, 0)), size=32, logicalType="decimal", precision=38, scale=0),
        of("fixed", alone(DURATIONS), size=12, logicalType="duration"),
    )


def is_union(kind: Kind) -> bool:
    """Tell whether it is a union, an optional type included."""
    return isinstance(kind.avro, list)


def _several(kind: Kind) -> Kind:
    pairs = st.lists(kind.values, max_size=3).map(lambda found: ([p for p, _ in found], [r for _, r in found]))
    return Kind({"type": "array", "items": kind.avro}, "array", pairs)


def _by_key(kind: Kind) -> Kind:
    keys = st.text("abcé", max_size=3)
    pairs = st.dictionaries(keys, kind.values, max_size=3).map(
        lambda found: ({key: p for key, (p, _) in found.items()}, {key: r for key, (_, r) in found.items()})
    )
    return Kind({"type": "map", "values": kind.avro}, "map", pairs)


def _optional(kind: Kind, *, first: bool) -> Kind:
    return Kind(["null", kind.avro] if first else [kind.avro, "null"], "", st.just((None, None)) | kind.values)


def record_of(kinds: list[Kind], name: str, namespace: str | None = None) -> Kind:
    """Return a record of these types, as fields ``f0``, ``f1`` …"""
    avro: dict[str, Any] = {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{place}", "type": kind.avro} for place, kind in enumerate(kinds)],
    }
    if namespace is not None:
        avro["namespace"] = namespace
    pairs = st.tuples(*(kind.values for kind in kinds)).map(
        lambda found: (
            {f"f{place}": p for place, (p, _) in enumerate(found)},
            {f"f{place}": r for place, (_, r) in enumerate(found)},
        )
    )
    return Kind(avro, name, pairs)


def union_of(kinds: list[Kind], null: int | None) -> Kind:
    """Return a union of these types, with null at a place; values name their branch."""
    names = [kind.branch for kind in kinds]

    def branch(kind: Kind) -> st.SearchStrategy[tuple[Any, Any]]:
        return kind.values.map(lambda pair: ((kind.branch, pair[0]), {**dict.fromkeys(names), kind.branch: pair[1]}))

    values: st.SearchStrategy[tuple[Any, Any]] = st.one_of([branch(kind) for kind in kinds])
    avro = [kind.avro for kind in kinds]
    if null is not None:
        avro.insert(min(null, len(avro)), "null")
        values |= st.just((None, None))
    return Kind(avro, "", values)


def kinds(names: Iterator[int]) -> st.SearchStrategy[Kind]:
    """Types of all kinds, nested."""

    def extend(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
        plain = inner.filter(lambda kind: not is_union(kind))
        return st.one_of(
            inner.map(_several),
            inner.map(_by_key),
            st.builds(lambda inside: record_of(inside, f"N{next(names)}"), st.lists(inner, min_size=1, max_size=3)),
            st.builds(lambda kind, first: _optional(kind, first=first), plain, st.booleans()),
            st.builds(
                union_of,
                st.lists(plain, min_size=1, max_size=3, unique_by=lambda kind: kind.branch).filter(
                    lambda found: len(found) > 1
                ),
                st.none() | st.integers(0, 3),
            ),
        )

    return st.recursive(st.one_of(*map(st.just, PRIMITIVES), named(names)), extend, max_leaves=6)


def json_default(avro_type: AvroType, read: Any) -> Any:
    """Return the JSON default that stands for a value as it is read; of a union, for one of its first branch.

    Raises:
        ValueError: if no JSON does: for NaN, infinities, and values of other branches.
    """
    match avro_type:
        case Union():
            return _union_default(avro_type, read)
        case Record(fields=fields):
            return {field.name: json_default(field.type, read[field.name]) for field in fields}
        case Array(items=items):
            return [json_default(items, item) for item in read]
        case Map(values=values):
            return {key: json_default(values, value) for key, value in read.items()}
        case Primitive() | Fixed() if avro_type.logical:
            return _logical_default(avro_type.logical, avro_type, read)
        case _:
            return _plain_default(read)


def _plain_default(read: Any) -> Any:
    if isinstance(read, float) and not math.isfinite(read):
        raise ValueError("no number of JSON")
    return read.decode("latin-1") if isinstance(read, bytes) else read


def _union_default(union: Union, read: Any) -> Any:
    inner, optional = optional_of(union)
    first = read if optional or read is None else read[branch_record(union).fields[0].name]
    if is_null(union.branches[0]) != (read is None) or (first is None and read is not None):
        raise ValueError("a value of another branch")
    return None if read is None else json_default(inner if optional else union.others[0], first)


def _logical_default(logical: str, leaf: Primitive | Fixed, read: Any) -> Any:
    kind, _, unit = logical.rpartition("-")
    match logical:
        case "decimal":
            unscaled = int(read.scaleb(leaf.scale, Context(prec=40)))
            size = leaf.size if isinstance(leaf, Fixed) else 20
            return unscaled.to_bytes(size, "big", signed=True).decode("latin-1")
        case "uuid":
            return read.bytes.decode("latin-1") if isinstance(leaf, Fixed) else str(read)
        case "date":
            return (read - _EPOCH.date()).days
        case "duration":
            return b"".join(
                number.to_bytes(4, "little") for number in map(read.get, ("months", "days", "millis"))
            ).decode("latin-1")
        case _ if unit == "nanos":
            return read
        case _ if kind == "time":
            since = dt.datetime.fromisoformat(f"1970-01-01T{read}") - _EPOCH
        case _:
            since = read.replace(tzinfo=None) - _EPOCH
    return since // (_MILLIS if unit == "millis" else MICROSECOND)
