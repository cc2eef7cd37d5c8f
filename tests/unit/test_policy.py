"""The PII policy: which mask a category gets, and what a contract may choose instead."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from headrace.schemas.avro import Array, AvroType, Enum, Map, Primitive, Record, Union
from headrace.schemas.masks import Mask
from headrace.schemas.policy import STRENGTH, PiiPolicy, choose, is_masked

STRING = Primitive("string")
DATE = Primitive("int", "date")
NULLABLE = Union((Primitive("null"), STRING))

POLICY = PiiPolicy.model_validate(
    {
        "default": "replace-with-null",
        "categories": {"user.contact": "mask-alphanum", "user.contact.email": "hmac-sha-256"},
    }
)


@pytest.mark.parametrize(
    ("category", "mask"),
    [
        ("user.contact.email", Mask.HMAC_SHA_256),
        ("user.contact.email.work", Mask.HMAC_SHA_256),
        ("user.contact.phone_number", Mask.MASK_ALPHANUM),
        ("user.contact", Mask.MASK_ALPHANUM),
        # A prefix of the text is no prefix of the name.
        ("user.contacts", Mask.REPLACE_WITH_NULL),
        ("user", Mask.REPLACE_WITH_NULL),
        ("User.Contact", Mask.REPLACE_WITH_NULL),
        ("..", Mask.REPLACE_WITH_NULL),
        ("", Mask.REPLACE_WITH_NULL),
        (None, Mask.REPLACE_WITH_NULL),
    ],
)
def test_the_longest_rule_wins(category: str | None, mask: Mask) -> None:
    assert POLICY.mask_of(category) is mask


@pytest.mark.parametrize(
    "document", [{}, {"default": "none"}, {"default": "hmac-sha-256", "categories": {"User contact": "hmac-sha-256"}}]
)
def test_a_policy_needs_a_default_and_dotted_names(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PiiPolicy.model_validate(document)


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("contact", True),
        ("contact.email", True),
        ("contact.home.street", True),
        ("contacts", False),
        ("contacts.email", False),
        ("owner.contact", False),
        ("owner.mail", True),
        ("owner", False),
        ("items[].price", True),
        ("by{}.price", True),
        ("items", True),
        ("itemset[].price", False),
    ],
)
def test_a_field_is_masked_with_the_record_list_or_map_that_it_lies_in(path: str, masked: bool) -> None:
    masks = {"contact": Mask.REPLACE_WITH_NULL, "owner.mail": Mask.HMAC_SHA_256}
    assert is_masked(path, {**masks, "items": Mask.REPLACE_WITH_NULL, "by": Mask.REPLACE_WITH_NULL}) is masked


def test_every_mask_has_a_strength() -> None:
    assert set(STRENGTH) == set(Mask)


@pytest.mark.parametrize(
    ("default", "chosen", "avro_type", "mask"),
    [
        (Mask.MASK_ALPHANUM, None, STRING, Mask.MASK_ALPHANUM),
        (Mask.MASK_ALPHANUM, None, NULLABLE, Mask.MASK_ALPHANUM),
        (Mask.MASK_ALPHANUM, None, Array(STRING), Mask.MASK_ALPHANUM),
        (Mask.MASK_ALPHANUM, None, Map(NULLABLE), Mask.MASK_ALPHANUM),
        (Mask.MASK_ALPHANUM, None, Enum("Tier", ("A",)), Mask.MASK_ALPHANUM),
        (Mask.MASK_ALPHANUM, Mask.HMAC_SHA_256, STRING, Mask.HMAC_SHA_256),
        (Mask.MASK_ALPHANUM, Mask.SHOW_LAST_4, STRING, Mask.SHOW_LAST_4),
        (Mask.HMAC_SHA_256, Mask.MASK_TO_FIXED_VALUE, STRING, Mask.MASK_TO_FIXED_VALUE),
        (Mask.TRUNCATE_TO_MONTH, Mask.TRUNCATE_TO_YEAR, DATE, Mask.TRUNCATE_TO_YEAR),
        (Mask.REPLACE_WITH_NULL, None, Record("R", (), ""), Mask.REPLACE_WITH_NULL),
        (None, Mask.SHOW_FIRST_4, STRING, Mask.SHOW_FIRST_4),
        (None, None, STRING, None),
    ],
)
def test_a_contract_may_choose_a_mask_that_is_no_weaker(
    default: Mask | None, chosen: Mask | None, avro_type: AvroType, mask: Mask | None
) -> None:
    assert choose(default, chosen, avro_type) == (mask, "", "")


@pytest.mark.parametrize(
    ("default", "chosen", "avro_type", "what", "hint"),
    [
        (Mask.HMAC_SHA_256, Mask.SHOW_LAST_4, STRING, "weaker", "replace-with-null, mask-to-fixed-value, hmac-sha-256"),
        (Mask.REPLACE_WITH_NULL, Mask.HMAC_SHA_256, STRING, "weaker", "replace-with-null, mask-to-fixed-value"),
        (Mask.TRUNCATE_TO_YEAR, Mask.TRUNCATE_TO_MONTH, DATE, "weaker", "truncate-to-year"),
        (None, Mask.TRUNCATE_TO_YEAR, STRING, "the contract's mask truncate-to-year does not fit string", "hmac"),
        (Mask.HMAC_SHA_256, None, DATE, "the policy's mask hmac-sha-256 does not fit date", "mask-to-fixed-value"),
        (Mask.HMAC_SHA_256, None, Primitive("string", "uuid"), "does not fit uuid", "replace-with-null"),
        (Mask.MASK_ALPHANUM, None, Record("R", (), ""), "does not fit struct", "replace-with-null"),
    ],
)
def test_weaker_masks_and_masks_that_do_not_fit_are_refused(
    default: Mask | None, chosen: Mask | None, avro_type: AvroType, what: str, hint: str
) -> None:
    _, found, found_hint = choose(default, chosen, avro_type)
    assert what in found
    assert hint in found_hint
