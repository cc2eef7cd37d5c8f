"""``headrace sql``: which tables a query opens, and what its values look like."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.memory import InMemoryCatalog

from headrace.governance.duck import Duck
from headrace.schemas.errors import NoSuchName, NotApplied, QueryError, Unavailable, UserError
from headrace.schemas.names import DEAD_LETTER_TABLE, ProductName
from headrace.selfserve.sql import Value, named_in, plain, select

if TYPE_CHECKING:
    from collections.abc import Iterator

FLIGHTS = ProductName("operations", "flights")
PLANES = ProductName("fleet", "aircraft")
BROKEN = ProductName("fleet", "broken")
MISSING = ProductName("weather", "observations")
PRODUCTS = [FLIGHTS, PLANES, BROKEN, MISSING]


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Duck]:
    catalog = InMemoryCatalog("mesh", warehouse=f"file://{tmp_path_factory.mktemp('warehouse')}")
    for name, table in (
        (FLIGHTS, pa.table({"tailnum": ["N1", "N2"]})),
        (PLANES, pa.table({"tailnum": ["N1"], "seats": [100]})),
    ):
        catalog.create_namespace(name.domain)
        catalog.create_table((name.domain, name.product), schema=table.schema).append(table)

    def locate(product: ProductName) -> str:
        if product == MISSING or product.product.endswith(DEAD_LETTER_TABLE):
            raise NotApplied("the table does not exist", hint="headrace apply")
        if product == BROKEN:
            return "/nowhere/v1.metadata.json"
        return str(catalog.load_table((product.domain, product.product)).metadata_location)

    with Duck(PRODUCTS, locate) as session:
        yield session


def value(duck: Duck, expression: str) -> Value:
    return next(select(duck, PRODUCTS, f"SELECT {expression} AS v").rows)[0]


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SELECT * FROM operations.flights", [FLIGHTS]),
        ('from "Operations"."FLIGHTS" join fleet . aircraft using (tailnum)', [FLIGHTS, PLANES]),
        ("USE fleet; SELECT * FROM aircraft", [PLANES]),
        ("SHOW ALL TABLES", []),
    ],
)
def test_the_tables_that_a_query_may_use(sql: str, named: list[ProductName]) -> None:
    assert named_in(sql, PRODUCTS) == named


def test_a_join_across_domains(duck: Duck) -> None:
    result = select(duck, PRODUCTS, "FROM operations.flights LEFT JOIN fleet.aircraft USING (tailnum) ORDER BY 1")
    assert [(column.name, column.numeric) for column in result.columns] == [("tailnum", False), ("seats", True)]
    assert list(result.rows) == [("N1", 100), ("N2", None)]


def test_names_are_found_in_any_case(duck: Duck) -> None:
    assert list(select(duck, PRODUCTS, 'SELECT count(*) FROM Operations."FLIGHTS"').rows) == [(2,)]


def test_all_tables_are_shown_that_can_be(duck: Duck) -> None:
    result = select(duck, PRODUCTS, "SELECT schema, name FROM (SHOW ALL TABLES) ORDER BY 1")
    assert list(result.rows) == [("fleet", "aircraft"), ("operations", "flights")]


def test_a_table_that_was_not_made_yet(duck: Duck) -> None:
    with pytest.raises(NotApplied) as error:
        select(duck, PRODUCTS, "SELECT * FROM operations.flights, weather.observations")
    assert error.value.hint == "headrace apply"


def test_a_table_that_is_broken(duck: Duck) -> None:
    with pytest.raises(Unavailable) as error:
        select(duck, PRODUCTS, "FROM fleet.broken")
    assert error.value.where == "table fleet.broken"


def test_a_broken_table_that_is_only_mentioned_stops_nothing(duck: Duck) -> None:
    assert list(select(duck, PRODUCTS, "SELECT 'fleet.broken', count(*) FROM fleet.aircraft").rows) == [
        ("fleet.broken", 1)
    ]


def test_a_name_that_is_not_there_comes_with_those_that_are(duck: Duck) -> None:
    with pytest.raises(NoSuchName) as error:
        select(duck, PRODUCTS, "SELECT * FROM operations.fligths")
    assert error.value.hint is not None
    assert "operations.flights, fleet.aircraft" in error.value.hint


@pytest.mark.parametrize("sql", ["", "  \n"])
def test_an_empty_query_is_refused(duck: Duck, sql: str) -> None:
    with pytest.raises(UserError, match="empty"):
        select(duck, PRODUCTS, sql)


def test_a_query_that_is_no_text_is_refused(duck: Duck) -> None:
    with pytest.raises(UserError, match="UTF-8"):
        select(duck, PRODUCTS, b"SELECT '\xff'".decode("utf-8", "surrogateescape"))


def test_nonsense_is_refused_in_duckdbs_words(duck: Duck) -> None:
    with pytest.raises(QueryError, match="syntax error"):
        select(duck, PRODUCTS, "SELEC 1")


def test_a_statement_without_rows_has_no_columns(duck: Duck) -> None:
    result = select(duck, PRODUCTS, "CREATE TEMP TABLE t (a INT)")
    assert (result.columns, list(result.rows)) == ((), [])


def test_repeated_names_get_numbers(duck: Duck) -> None:
    result = select(duck, PRODUCTS, "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a")
    assert [column.name for column in result.columns] == ["a", "a_3", "a_2", "a_4"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("NULL", None),
        ("true", True),
        ("9223372036854775807", 9223372036854775807),
        ("sum(9223372036854775807) FROM range(3)", 27670116110564327421),
        ("199.90::DECIMAL(10, 2)", "199.90"),
        ("0.0000001::DECIMAL(10, 7)", "0.0000001"),
        ("0.1::FLOAT", 0.1),
        ("0.1::DOUBLE", 0.1),
        ("'NaN'::DOUBLE", "NaN"),
        ("'NaN'::FLOAT", "NaN"),
        ("'-Infinity'::DOUBLE", "-Infinity"),
        ("'Infinity'::FLOAT", "Infinity"),
        ("TIMESTAMPTZ '2013-01-01 05:15:00-05'", "2013-01-01T10:15:00Z"),
        ("TIMESTAMPTZ '2013-01-01 05:15:00.000001-05'", "2013-01-01T10:15:00.000001Z"),
        ("TIMESTAMP '2013-01-01 05:15:00'", "2013-01-01T05:15:00"),
        ("DATE '2013-01-01'", "2013-01-01"),
        ("TIME '10:15:00.5'", "10:15:00.500000"),
        ("'00000000-0000-0000-0000-000000000001'::UUID", "00000000-0000-0000-0000-000000000001"),
        (r"'N1\xFF\x5C\x00'::BLOB", r"N1\xFF\x5C\x00"),
        ("'a'::ENUM('a', 'b')", "a"),
        ("INTERVAL 3 DAY", "3 days"),
        ("[1.50, NULL]", ["1.50", None]),
        ("{'at': TIMESTAMPTZ '2013-01-01 00:00:00+00'}", {"at": "2013-01-01T00:00:00Z"}),
        ("{'x': ['NaN'::DOUBLE]}", {"x": ["NaN"]}),
        ("map {'a': 1}", {"a": 1}),
        ("[map {'a': DATE '2013-01-01'}]", [{"a": "2013-01-01"}]),
        ("DATE '20000-01-01'", "20000-01-01"),
        ("[DATE '20000-01-01']", ["20000-01-01"]),
    ],
)  # fmt: skip
def test_values(duck: Duck, expression: str, expected: Value) -> None:
    assert value(duck, expression) == expected
    json.dumps(expected, allow_nan=False)


def test_a_date_that_no_calendar_has_is_still_a_text(duck: Duck) -> None:
    assert isinstance(value(duck, "'infinity'::TIMESTAMP"), str)


def test_bytes_are_duckdbs_text_of_them(duck: Duck) -> None:
    everything = bytes(range(256))
    text = plain(everything)
    assert isinstance(text, str)
    assert list(select(duck, PRODUCTS, f"SELECT '{text.replace(chr(39), chr(39) * 2)}'::BLOB").rows) == [(text,)]
    assert value(duck, f"CAST(unhex('{everything.hex()}') AS VARCHAR)") == text


@given(st.recursive(st.none() | st.floats() | st.binary() | st.decimals() | st.datetimes(), st.lists))
def test_every_value_is_valid_json(value: object) -> None:
    json.loads(json.dumps(plain(value), allow_nan=False))
