"""Whose mask is whose column's: the contract's, the policy's, and what only the table remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.lineage import fold
from headrace.schemas.mask_lineage import tagged_columns
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from tests.support.lake import product_of, verdicts_of
from tests.support.mixed import field, record, schema_of, tagged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.avro import AvroSchema

HMAC, FIRST, NULL = Mask.HMAC_SHA_256, Mask.SHOW_FIRST_4, Mask.REPLACE_WITH_NULL
POLICY = PiiPolicy(default=HMAC, categories={"user.name": FIRST})
MAIL = schema_of(tagged("mail", "string"))
EMAIL = schema_of(field("email", "string", aliases=["mail"]))
TAKEN = schema_of(field("email", "string"), field("mail", ["null", "boolean"]))


def masks_at(
    version: int,
    *schemas: AvroSchema,
    own: AvroSchema | None = None,
    masks: Mapping[str, Mask] | None = None,
    noted: Mapping[str, Mask] | None = None,
    held: int = 0,
) -> dict[str, Mask]:
    """The masks of a version's fields, for a contract's own schema and masks, and for what a table notes."""
    verdicts = verdicts_of(product_of(own or schemas[-1], masks), *schemas, policy=POLICY)
    return verdicts.masks_with(noted or {}, held).at(verdicts.lineage.steps[version].placed)


@pytest.mark.parametrize(("version", "path"), [(1, "mail"), (2, "email"), (3, "email")])
def test_a_tag_masks_the_field_in_every_version(version: int, path: str) -> None:
    assert masks_at(version, MAIL, EMAIL, TAKEN) == {path: HMAC}


def test_the_contracts_mask_goes_before_the_policys_whichever_version_the_contract_is_at() -> None:
    for own, path in ((MAIL, "mail"), (EMAIL, "email")):
        assert masks_at(2, MAIL, EMAIL, own=own, masks={path: NULL}) == {"email": NULL}
    # A registry may have rewritten the text: the version with the same fields is meant.
    documented = schema_of(field("email", "string", aliases=["mail"], doc="where to write to"))
    assert masks_at(1, MAIL, EMAIL, own=documented, masks={"email": NULL}) == {"mail": NULL}


def test_a_mask_of_a_contract_that_is_not_registered_yet_masks_what_it_can_name() -> None:
    unknown = schema_of(field("mail", "string"), field("phone", "string"))
    assert masks_at(1, MAIL, own=unknown, masks={"mail": NULL, "phone": NULL}) == {"mail": NULL}
    assert masks_at(2, MAIL, unknown, own=unknown, masks={"phone": FIRST}) == {"mail": HMAC, "phone": FIRST}


def test_a_category_of_the_version_that_tags_first_counts() -> None:
    named = schema_of({**tagged("mail", "string"), "confluent:tags": ["PII", "user.name"]})
    assert masks_at(2, named, MAIL) == {"mail": FIRST}
    assert masks_at(2, MAIL, named) == {"mail": HMAC}


def test_a_mask_that_does_not_fit_the_column_leaves_nothing() -> None:
    assert masks_at(1, schema_of(tagged("age", "int"))) == {"age": NULL}
    assert masks_at(1, schema_of(tagged("to", {"type": "array", "items": "string"}))) == {"to": HMAC}
    assert masks_at(1, schema_of(tagged("who", record("Who", field("name", "string"))))) == {"who": NULL}


def test_what_a_table_notes_masks_what_it_was_noted_of() -> None:
    plain = schema_of(field("mail", "string"))
    assert masks_at(2, plain, EMAIL, noted={"mail": FIRST}, held=1) == {"email": FIRST}
    assert masks_at(1, plain, EMAIL, noted={"email": FIRST, "mail": FIRST}, held=2) == {"mail": FIRST}
    # The name is another field's in a version that the table has not followed yet, and in one that it has.
    assert masks_at(3, plain, EMAIL, TAKEN, noted={"email": FIRST, "mail": FIRST}, held=2) == {"email": FIRST}
    assert masks_at(3, plain, EMAIL, TAKEN, noted={"email": FIRST}, held=3) == {"email": FIRST}


def test_what_a_table_notes_of_versions_that_the_registry_has_lost_masks_whoever_comes_by_that_name() -> None:
    plain = schema_of(field("other", "string"))
    for held in (0, 1, 7):
        assert masks_at(2, plain, schema_of(field("mail", "string")), noted={"mail": FIRST}, held=held) == {
            "mail": FIRST
        }


def test_what_is_noted_names_no_column_that_is_not_masked() -> None:
    for number, expected in ((1, {"mail"}), (2, {"mail", "email"}), (3, {"email"})):
        verdicts = verdicts_of(product_of(TAKEN), MAIL, EMAIL, TAKEN, policy=POLICY)
        assert verdicts.masks.noted(verdicts.lineage, number).keys() == expected


def test_what_is_tagged_is_a_column_whatever_it_is_called() -> None:
    refused = schema_of(tagged("email", "int"), tagged("later", "string"))
    versions = dict(enumerate((MAIL, EMAIL, TAKEN, refused, schema_of(field("later", ["null", "string"]))), 1))
    lineage = fold([(number, schema.record) for number, schema in versions.items()], frozenset())
    found = tagged_columns(versions, lineage)
    assert [sorted(found[number]) for number in versions] == [
        ["mail"],
        ["email"],
        ["email"],
        ["email"],
        ["email", "later"],
    ]


def test_a_contract_without_versions_masks_by_its_paths() -> None:
    verdicts = verdicts_of(product_of(MAIL, {"mail": NULL}))
    assert verdicts.masks.by_path == {"mail": NULL}
    assert verdicts.masks.mask_key(["mail"], verdicts.lineage)
    assert not replace(verdicts.masks, by_path={}).mask_key(["mail"], verdicts.lineage)
