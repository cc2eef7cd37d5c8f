"""Has a table followed the version of a number, or another one that had the number before?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.transforms import BucketTransform

from headrace.selfserve.resources.following import truly_followed
from headrace.sinks.evolution import VERSION_PROPERTY
from tests.support.lake import product_of, verdicts_of
from tests.unit.test_evolution import ALLOWED, parse
from tests.unit.test_resources import ONE, TWO, brief, table, table_there

if TYPE_CHECKING:
    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.verdicts import Verdicts

CASES = [(parse(*old), parse(*new), bool(changes)) for _, old, new, changes in ALLOWED]
NAMES = [name for name, *_ in ALLOWED]


def following_both(old: AvroSchema, new: AvroSchema) -> tuple[Verdicts, Schema, Schema]:
    """Return two versions, judged, and a table's columns after the first and after the second."""
    verdicts = verdicts_of(product_of(new), old, new)
    assert not verdicts.refused
    before, after = (Schema(*verdicts.lineage.steps[number].columns) for number in (1, 2))
    return verdicts, before, after


@pytest.mark.parametrize(("old", "new", "changes"), CASES, ids=NAMES)
def test_a_table_that_has_followed_a_version_is_not_sent_back(old: AvroSchema, new: AvroSchema, changes: bool) -> None:
    verdicts, _, after = following_both(old, new)
    assert truly_followed(after, 2, 2, verdicts, {}) == 2


@pytest.mark.parametrize(("old", "new", "changes"), CASES, ids=NAMES)
def test_a_table_that_has_followed_another_version_of_that_number_is(
    old: AvroSchema, new: AvroSchema, changes: bool
) -> None:
    verdicts, before, _ = following_both(old, new)
    for noted in (2, 3):
        assert truly_followed(before, noted, 2, verdicts, {}) == (1 if changes else noted)


def test_only_the_newest_version_can_have_been_given_again() -> None:
    old, new = parse(("a", "int")), parse(("a", "int"), {"name": "b", "type": ["null", "int"], "default": None})
    verdicts, before, _ = following_both(old, new)
    # The contract went back to version 1, which another engine's changes may keep from fitting: it is followed.
    assert truly_followed(before, 2, 1, verdicts, {}) == 2
    # Not followed yet, by its number.
    assert truly_followed(before, 1, 2, verdicts, {}) == 1


def test_a_plan_shows_that_a_version_is_followed_again() -> None:
    numbered = {VERSION_PROPERTY: "2"}
    (unmarked,) = table(TWO).diff(table_there(ONE, TWO, properties={**numbered, "headrace.applied.42": None}))
    assert brief([unmarked]) == [("change", "version 1 → 2")]
    assert unmarked.details == ("add gate string optional",)
    # Marked by a run that did not see it, or registered past apply and taken over.
    (marked,) = table(TWO).diff(table_there(ONE, TWO, properties=numbered))
    assert (marked.cause, marked.what, marked.details) == (
        "version-again",
        "version 2 again",
        ("add gate string optional",),
    )


def test_a_plan_shows_that_a_partition_has_the_name_of_a_new_column() -> None:
    plain = table_there(ONE, TWO)
    assert plain.metadata is not None
    spec = PartitionSpec(PartitionField(2, 1000, BucketTransform(4), "gate"))
    there = replace(
        plain,
        metadata=new_table_metadata(
            plain.metadata.schema(), spec, UNSORTED_SORT_ORDER, plain.metadata.location, plain.metadata.properties
        ),
    )
    stuck = next(each for each in table(TWO).diff(there) if each.cause == "version-stuck")
    assert "PARTITION_NAME_TAKEN" in stuck.details[0]
