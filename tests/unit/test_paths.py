"""Paths of fields: what lies in what."""

from __future__ import annotations

import pytest

from headrace.schemas.paths import around, below, lies_in


def test_a_field_of_the_event_has_no_dot() -> None:
    assert below("", "id") == "id"
    assert below("items[]", "price") == "items[].price"


def test_a_path_lies_in_its_records_lists_and_maps() -> None:
    assert list(around("order.items[].by{}.price")) == [
        "order",
        "order.items",
        "order.items[]",
        "order.items[].by",
        "order.items[].by{}",
    ]
    assert list(around("id")) == []


@pytest.mark.parametrize(
    ("path", "outer", "lies"),
    [
        ("items[].x", "items", True),
        ("items[].x", "items[]", True),
        ("items[]", "items", True),
        ("m{}", "m", True),
        ("m{}.a[]", "m{}.a", True),
        ("items", "items", False),
        ("itemset.x", "items", False),
        ("x.items", "items", False),
    ],
)
def test_a_name_that_only_begins_alike_is_another(path: str, outer: str, lies: bool) -> None:
    assert lies_in(path, {outer}) is lies
