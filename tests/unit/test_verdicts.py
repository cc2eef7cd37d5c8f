"""What becomes of registered versions in a table: followed, pending, refused; the same for whoever asks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pyiceberg.types import ListType, LongType, StringType, StructType

from headrace.schemas.changes import described
from headrace.schemas.masks import Mask
from headrace.schemas.product import RefusedVersions
from headrace.schemas.verdicts import pending
from headrace.selfserve.resources.following import refused_versions
from headrace.streams.masked import masks_of
from headrace.streams.versions import followed_version
from tests.support.lake import Lake, product_of, verdicts_of
from tests.support.mixed import field, record, schema_of, tagged

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.verdicts import Verdicts

ONE = schema_of(field("mail", "string"), field("n", "int"))
TWO = schema_of(field("email", "string", aliases=["mail"]), field("n", "int"))
REFUSED = schema_of(field("email", "string"), field("n", "double"))
FOUR = schema_of(field("n", "long"), field("email", "string"), field("note", ["null", "string"]))


def found(lake: Lake, verdicts: Verdicts) -> list[tuple[int, list[tuple[str, ...]]]]:
    """What is pending: versions with their changes, or with the path of what the table has no room for."""
    table = lake.reload()
    return [
        (each.version, [*map(described, each.step.changes), *((refused.path,) for refused in each.step.refused)])
        for each in pending(table.schema().fields, followed_version(table), verdicts, masks_of(table))
    ]


def test_what_is_pending_is_told_with_what_it_changes_and_what_is_refused_with_why(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    lake.follow(ONE)
    verdicts = verdicts_of(lake.product, ONE, TWO, REFUSED, FOUR)
    assert found(lake, verdicts) == [
        (2, [("rename", "mail", "email")]),
        (4, [("widen", "n", "int", "long"), ("add", "note", "string", "optional"), ("reorder",)]),
    ]
    (refused,) = verdicts.refused.values()
    assert str(refused).startswith("version 3: n: the table's column is int, the schema's field is double")
    lake.follow(ONE, TWO, REFUSED, FOUR)
    assert found(lake, verdicts) == []
    names = [each.name for each in lake.reload().schema().fields if not each.name.startswith("_")]
    assert names == ["id", "n", "email", "note"]


def test_a_refused_version_at_the_end_is_not_pending_and_the_table_never_says_that_it_followed_it(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path, ONE)
    lake.follow(ONE, TWO, REFUSED)
    assert followed_version(lake.table) == 2
    assert found(lake, verdicts_of(lake.product, ONE, TWO, REFUSED)) == []


@pytest.mark.parametrize("refused", RefusedVersions)
def test_nobody_is_told_to_set_what_the_contract_says_already(tmp_path: Path, refused: RefusedVersions) -> None:
    product = Lake(tmp_path, ONE).product
    product = replace(product, contract=replace(product.contract, refused_versions=refused))
    (told,) = refused_versions(product, {1, 2, 3}, verdicts_of(product, ONE, TWO, REFUSED))
    assert "delete version 3 of shop.orders-value" in told.next
    assert ("set sink.refusedVersions to dead-letter" in told.next) is (refused is RefusedVersions.WAIT)


def test_a_column_that_somebody_else_has_made_is_told_where_it_is_in_the_way(tmp_path: Path) -> None:
    lake = Lake(tmp_path, ONE)
    lake.follow(ONE)
    with lake.reload().update_schema() as update:
        update.add_column("note", LongType())
    assert found(lake, verdicts_of(lake.product, ONE, TWO, REFUSED, FOUR, FOUR))[1:] == [(4, [("note",)])]


def test_a_table_that_is_ahead_wants_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path, TWO)
    with lake.reload().update_schema() as update:
        update.add_column("note", StringType())
        update.update_column("n", LongType())
        update.move_first("n")
    lake.follow(TWO)
    assert found(lake, verdicts_of(lake.product, TWO, FOUR)) == [(2, [("reorder",)])]


def test_nulls_make_columns_optional_under_any_name_and_at_any_depth() -> None:
    contact = record("Contact", tagged("mail", "string"), field("tags", {"type": "array", "items": "string"}))
    old = schema_of(field("people", {"type": "array", "items": contact}))
    renamed = record("Contact", field("email", "string", aliases=["mail"]), contact["fields"][1])
    new = schema_of(field("people", {"type": "array", "items": renamed}), field("boss", ["null", "Contact"]))
    verdicts = verdicts_of(product_of(new), old, new)
    (people,) = [column for column in verdicts.lineage.columns if column.name == "people"]
    assert isinstance(people.field_type, ListType)
    assert isinstance(people.field_type.element_type, StructType)
    mail, tags = people.field_type.element_type.fields
    assert (mail.name, mail.required, tags.required) == ("email", False, True)
    assert verdicts.masks.at(verdicts.lineage.steps[2].placed) == {"people[].email": Mask.REPLACE_WITH_NULL}
