"""All names of a product follow from ``domain.product``."""

from __future__ import annotations

import pytest

from headrace.schemas.names import ProductName, dead_letter_topic_of, sink_group_of, subject_of


@pytest.mark.parametrize("text", ["loyalty.bookings", "a.b", "a1_.b_2", f"{'a' * 63}.{'b' * 63}"])
def test_a_name_is_read_and_written_alike(text: str) -> None:
    assert str(ProductName.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a",
        "a.",
        ".b",
        "a.b.c",
        "A.b",
        "a.B",
        "1a.b",
        "_a.b",
        "a-b.c",
        "a.b ",
        " a.b",
        "a.b\n",
        "ä.b",
        "a.é",
        f"{'a' * 64}.b",
        "a.b-value",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write domain\.product"):
        ProductName.parse(text)


def test_what_follows_from_a_name() -> None:
    topic = ProductName("loyalty", "bookings").topic("dev.")
    assert topic == "dev.loyalty.bookings"
    assert ProductName("loyalty", "bookings").topic() == "loyalty.bookings"
    assert subject_of(topic) == "dev.loyalty.bookings-value"
    assert dead_letter_topic_of(topic) == "dev.loyalty.bookings.dlq"
    assert sink_group_of(topic) == "headrace.sink.dev.loyalty.bookings"


def test_names_sort_by_domain_then_product() -> None:
    assert sorted([ProductName("b", "a"), ProductName("a", "z"), ProductName("a", "b")]) == [
        ProductName("a", "b"),
        ProductName("a", "z"),
        ProductName("b", "a"),
    ]
