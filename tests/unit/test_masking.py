"""Each mask against a few lines of plain Python, on arrays of every shape."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas import masking
from headrace.schemas.errors import Bug
from headrace.schemas.masking import Masker, map_items, map_values, nulls
from headrace.schemas.masks import Mask

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = b"a mesh's secret"
EXAMPLES = settings(max_examples=60, deadline=None)
STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["+1 (555) 010-7788", "zoë@exämple.org", "a\nb", "٣٤٥", "👩‍🚀🚀", "x" * 500]
)


def masked(mask: Mask, array: pa.Array, key: bytes = KEY) -> pa.Array:
    result = Masker({"f": mask}, key).masked("f", array)
    result.validate(full=True)
    assert result.type == array.type
    assert len(result) == len(array)
    return result


def keyed_hash(value: str) -> str:
    return hmac.new(KEY, value.encode(), hashlib.sha256).hexdigest()


def alphanum(value: str) -> str:
    return "".join("n" if c in "0123456789" else c if c in "(),.-@" else "x" for c in value)


def first_4(value: str) -> str:
    return "x" * len(value) if len(value) <= 4 else value[:4] + "x" * (len(value) - 4)


def last_4(value: str) -> str:
    return "x" * len(value) if len(value) <= 4 else "x" * (len(value) - 4) + value[-4:]


TEXT_MASKS: dict[Mask, Callable[[str], str]] = {
    Mask.HMAC_SHA_256: keyed_hash,
    Mask.MASK_ALPHANUM: alphanum,
    Mask.SHOW_FIRST_4: first_4,
    Mask.SHOW_LAST_4: last_4,
    Mask.MASK_TO_FIXED_VALUE: lambda _: "",
}


@pytest.mark.parametrize("mask", TEXT_MASKS)
@EXAMPLES
@given(values=st.lists(st.none() | STRINGS, max_size=8), data=st.data())
def test_a_mask_on_text_and_on_lists_and_maps_of_text(
    mask: Mask, values: list[str | None], data: st.DataObject
) -> None:
    reference = TEXT_MASKS[mask]
    expected = [None if value is None else reference(value) for value in values]
    assert masked(mask, pa.array(values, pa.string())).to_pylist() == expected
    start = data.draw(st.integers(0, len(values)))
    assert masked(mask, pa.array(values, pa.string()).slice(start)).to_pylist() == expected[start:]
    lists = pa.array([values, None, [], values[start:]], pa.list_(pa.string()))
    assert masked(mask, lists).to_pylist() == [expected, None, [], expected[start:]]
    assert masked(mask, lists.slice(1)).to_pylist() == [None, [], expected[start:]]
    pairs = [(str(place), value) for place, value in enumerate(values)]
    hidden = [(str(place), value) for place, value in enumerate(expected)]
    maps = pa.array([pairs, None, [], pairs[start:]], pa.map_(pa.string(), pa.string()))
    assert masked(mask, maps).to_pylist() == [hidden, None, [], hidden[start:]]
    assert masked(mask, maps.slice(3)).to_pylist() == [hidden[start:]]
    nested = pa.array([[pairs], [], None], pa.list_(pa.map_(pa.string(), pa.string())))
    assert masked(mask, nested.slice(0, 2)).to_pylist() == [[hidden], []]


@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
def test_hmac_takes_keys_of_any_length(length: int) -> None:
    key = bytes(range(length))
    found = masked(Mask.HMAC_SHA_256, pa.array(["zoë@example.org"]), key).to_pylist()
    assert found == [hmac.new(key, "zoë@example.org".encode(), hashlib.sha256).hexdigest()]


def test_equal_values_join_and_other_keys_do_not() -> None:
    values = pa.array(["a", "b", "a"])
    first, second, third = masked(Mask.HMAC_SHA_256, values).to_pylist()
    assert first == third != second
    assert masked(Mask.HMAC_SHA_256, values, b"another").to_pylist()[0] != first


def test_hmac_of_many_values() -> None:
    values = [f"user{number}" for number in range(20_000)]
    found = masked(Mask.HMAC_SHA_256, pa.array(values)).to_pylist()
    assert found[::1_000] == [keyed_hash(value) for value in values[::1_000]]


def test_an_error_holds_neither_key_nor_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def from_arrow(self, table: pa.Table) -> None:
            raise ValueError(f"cannot hash {table.to_pylist()} with {KEY!r}")

    monkeypatch.setattr(masking, "SessionContext", lambda _: Broken())
    with pytest.raises(Bug) as caught:
        masked(Mask.HMAC_SHA_256, pa.array(["raw.secret@example.org"]))
    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert "secret" not in shown.lower()
    assert caught.value.__suppress_context__


# --- dates and times ---

DATES = st.dates()
MOMENTS = st.datetimes()


@EXAMPLES
@given(st.lists(st.none() | DATES, max_size=8), st.lists(st.none() | MOMENTS, max_size=8))
def test_dates_and_times_are_truncated(dates: list[dt.date | None], moments: list[dt.datetime | None]) -> None:
    days = pa.array(dates, pa.date32())
    assert masked(Mask.TRUNCATE_TO_MONTH, days).to_pylist() == [d and d.replace(day=1) for d in dates]
    assert masked(Mask.TRUNCATE_TO_YEAR, days).to_pylist() == [d and d.replace(month=1, day=1) for d in dates]
    months = [m and dt.datetime(m.year, m.month, 1) for m in moments]  # noqa: DTZ001
    years = [m and dt.datetime(m.year, 1, 1) for m in moments]  # noqa: DTZ001
    for zone in (None, "UTC"):
        kind = pa.timestamp("us", tz=zone)
        times = pa.array(moments, pa.timestamp("us")).cast(kind) if zone is None else _utc(moments)
        expected = (pa.array(months, pa.timestamp("us")), pa.array(years, pa.timestamp("us")))
        assert masked(Mask.TRUNCATE_TO_MONTH, times).cast(pa.int64()).equals(expected[0].cast(pa.int64()))
        assert masked(Mask.TRUNCATE_TO_YEAR, times).cast(pa.int64()).equals(expected[1].cast(pa.int64()))


def _utc(moments: list[dt.datetime | None]) -> pa.Array:
    return pa.array(moments, pa.timestamp("us")).cast(pa.int64()).cast(pa.timestamp("us", tz="UTC"))


# --- constants and nulls ---

CONSTANTS: list[tuple[pa.DataType, Any, Any]] = [
    (pa.bool_(), True, False),
    (pa.int32(), 5, 0),
    (pa.int64(), 5, 0),
    (pa.float32(), 5.0, 0.0),
    (pa.float64(), 5.0, 0.0),
    (pa.string(), "x", ""),
    (pa.binary(), b"x", b""),
    (pa.decimal128(38, 10), Decimal(5), Decimal(0)),
    (pa.date32(), dt.date(2020, 5, 5), dt.date(1970, 1, 1)),
    (pa.timestamp("us"), dt.datetime(2020, 5, 5), dt.datetime(1970, 1, 1)),  # noqa: DTZ001
    (pa.timestamp("us", tz="UTC"), dt.datetime(2020, 5, 5, tzinfo=dt.UTC), dt.datetime(1970, 1, 1, tzinfo=dt.UTC)),
]


@pytest.mark.parametrize(("kind", "value", "constant"), CONSTANTS, ids=[str(row[0]) for row in CONSTANTS])
def test_one_constant_a_type(kind: pa.DataType, value: Any, constant: Any) -> None:
    array = pa.array([value, None, value], kind)
    assert masked(Mask.MASK_TO_FIXED_VALUE, array).to_pylist() == [constant, None, constant]
    assert masked(Mask.REPLACE_WITH_NULL, array).to_pylist() == [None] * 3
    lists = pa.array([[value], None, []], pa.list_(kind))
    assert masked(Mask.MASK_TO_FIXED_VALUE, lists).to_pylist() == [[constant], None, []]
    assert masked(Mask.REPLACE_WITH_NULL, lists).to_pylist() == [None] * 3


def test_a_path_without_a_mask_is_left_as_it_is() -> None:
    array = pa.array(["a"])
    assert Masker({"other": Mask.HMAC_SHA_256}, KEY).masked("f", array) is array


def test_nulls_of_a_struct_hold_no_null_in_required_children() -> None:
    leaf = pa.field("r", pa.decimal128(9, 2), nullable=False)
    inner = pa.struct([leaf, pa.field("l", pa.list_(pa.struct([leaf])), nullable=False), pa.field("o", pa.string())])
    kind = pa.struct([pa.field("s", inner, nullable=False), pa.field("m", pa.map_(pa.string(), inner), nullable=False)])
    array = nulls(3, kind)
    array.validate(full=True)
    assert array.to_pylist() == [None] * 3
    assert array.field(0).null_count == array.field(1).null_count == array.field(0).field(0).null_count == 0
    assert nulls(0, kind).to_pylist() == []


# --- lists and maps ---


@EXAMPLES
@given(st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3), max_size=5), st.data())
def test_map_items_and_map_values_keep_lengths_and_nulls(
    values: list[list[int | None] | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    chosen = values[start:stop]
    lists = pa.array(values, pa.list_(pa.int32())).slice(start, stop - start)
    assert map_items(lists, lambda items: items.cast(pa.int64())).to_pylist() == chosen
    pairs = [None if value is None else [(str(i), n) for i, n in enumerate(value)] for value in values]
    maps = pa.array(pairs, pa.map_(pa.string(), pa.int32())).slice(start, stop - start)
    assert map_values(maps, lambda items: items.cast(pa.int64())).to_pylist() == pairs[start:stop]
