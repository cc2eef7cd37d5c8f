"""Which mask fits which column type, and that every mask is there to be put on."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg import types as ice

from headrace.schemas.masking import Masker
from headrace.schemas.masks import APPLICABLE, Mask, fits
from headrace.schemas.types import arrow_type

TEXT_ONLY = {Mask.MASK_ALPHANUM, Mask.SHOW_FIRST_4, Mask.SHOW_LAST_4, Mask.HMAC_SHA_256}
DATES_ONLY = {Mask.TRUNCATE_TO_YEAR, Mask.TRUNCATE_TO_MONTH}
MOMENT = dt.datetime(2020, 5, 5, tzinfo=dt.UTC)
VALUES: dict[ice.PrimitiveType, Any] = {
    ice.BooleanType(): True,
    ice.IntegerType(): 1,
    ice.LongType(): 1,
    ice.FloatType(): 1.0,
    ice.DoubleType(): 1.0,
    ice.StringType(): "x",
    ice.BinaryType(): b"x",
    ice.DecimalType(9, 2): Decimal(1),
    ice.DateType(): MOMENT.date(),
    ice.TimestampType(): MOMENT.replace(tzinfo=None),
    ice.TimestamptzType(): MOMENT,
    ice.UUIDType(): bytes(16),
    ice.FixedType(3): b"abc",
}


def test_every_mask_says_what_it_fits() -> None:
    assert set(APPLICABLE) == set(Mask)
    assert {mask for mask in Mask if fits(mask, "string") and not fits(mask, "long")} == TEXT_ONLY
    assert {mask for mask in Mask if fits(mask, "date") and not fits(mask, "long")} == DATES_ONLY


@pytest.mark.parametrize("mask", Mask)
@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_a_mask_that_fits_can_be_put_on(mask: Mask, kind: ice.PrimitiveType) -> None:
    """The table of what fits and the code that masks agree, whatever the type's name carries in brackets."""
    array = pa.array([VALUES[kind], None], arrow_type(kind))
    if fits(mask, str(kind)):
        result = Masker({"f": mask}, b"key").masked("f", array)
        assert result.type == array.type
        assert result[1].as_py() is None


@pytest.mark.parametrize("mask", Mask)
def test_only_null_fits_a_record(mask: Mask) -> None:
    assert fits(mask, "struct") is (mask is Mask.REPLACE_WITH_NULL)


@pytest.mark.parametrize(("name", "fitting"), [("decimal(38, 10)", True), ("fixed[3]", False), ("uuid", False)])
def test_a_constant_fits_what_has_one(name: str, fitting: bool) -> None:
    assert fits(Mask.MASK_TO_FIXED_VALUE, name) is fitting
