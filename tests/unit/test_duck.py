"""DuckDB over real Iceberg tables: views, lazy opening, types, and the mapping of errors."""

from __future__ import annotations

import inspect
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from headrace.governance.duck import Duck, duck_errors, tables_of
from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import Bug, HeadraceError, NoSuchName, NotApplied, ProductStopped, QueryError, Unavailable
from headrace.schemas.mesh import load_mesh
from headrace.schemas.names import ProductName
from headrace.selfserve.init import init_mesh
from headrace.sinks.tables import ensure_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLIGHTS = ProductName("operations", "flights")
PLANES = ProductName("fleet", "aircraft")
BROKEN = ProductName("fleet", "broken")
MISSING = ProductName("weather", "missing")


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    # A quotation mark and a space: paths are people's own.
    folder = tmp_path / "it's a mesh"
    folder.mkdir()
    catalog = SqlCatalog("mesh", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
    for name, rows in (
        (FLIGHTS, pa.table({"tailnum": ["N1", "N2", "N1"], "delay": [1.5, None, -2.0]})),
        (PLANES, pa.table({"tailnum": ["N1", "N2"], "seats": [100, 200]})),
    ):
        catalog.create_namespace_if_not_exists(name.domain)
        catalog.create_table((name.domain, name.product), schema=rows.schema).append(rows)
    return catalog


@pytest.fixture
def duck(catalog: SqlCatalog) -> Iterator[Duck]:
    def locate(product: ProductName) -> str:
        if product == BROKEN:
            return "/nowhere/v1.metadata.json"
        if product == MISSING:
            raise NotApplied("the table does not exist", where=str(product))
        return str(catalog.load_table((product.domain, product.product)).metadata_location)

    with Duck([FLIGHTS, PLANES, BROKEN, MISSING], locate) as session:
        yield session


def rows(duck: Duck, sql: str) -> list[tuple[object, ...]]:
    answer = duck.query(sql)
    assert answer is not None
    return [
        row for batch in answer.batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]


def test_tables_of_two_domains_join_under_their_products_names(duck: Duck) -> None:
    duck.attach(FLIGHTS)
    duck.attach(PLANES)
    joined = "SELECT seats, count(*) FROM operations.flights JOIN fleet.aircraft USING (tailnum) GROUP BY 1 ORDER BY 1"
    assert rows(duck, joined) == [(100, 2), (200, 1)]


def test_an_attached_table_stays_at_its_snapshot(duck: Duck, catalog: SqlCatalog) -> None:
    duck.attach(PLANES)
    catalog.load_table(("fleet", "aircraft")).append(pa.table({"tailnum": ["N3"], "seats": [300]}))
    duck.attach(PLANES)
    assert rows(duck, "SELECT count(*) FROM fleet.aircraft") == [(2,)]


def test_a_table_without_rows_can_be_read(duck: Duck, catalog: SqlCatalog) -> None:
    catalog.load_table(("fleet", "aircraft")).delete()
    duck.attach(PLANES)
    assert rows(duck, "FROM fleet.aircraft") == []


def test_a_broken_table_and_a_missing_one_leave_the_others_alone(duck: Duck) -> None:
    with pytest.raises(Unavailable, match="No such file") as broken:
        duck.attach(BROKEN)
    assert broken.value.where == "table fleet.broken"
    with pytest.raises(NotApplied):
        duck.attach(MISSING)
    duck.attach(FLIGHTS)
    assert rows(duck, "SELECT count(*) FROM operations.flights") == [(3,)]


@pytest.mark.parametrize("content", ["", "{", '{"format-version": 2}'])
def test_a_damaged_table_of_a_mesh_is_told_without_its_content(tmp_path: Path, content: str) -> None:
    init_mesh(tmp_path / "mesh")
    mesh = load_mesh(tmp_path / "mesh")
    product = mesh.product("shop.orders")
    table = ensure_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    with tables_of(mesh) as session:
        session.attach(product.name)
        assert rows(session, "SELECT count(*) FROM shop.orders") == [(0,)]
    Path(table.metadata_location.removeprefix("file://")).write_text(content)
    with tables_of(mesh) as session, pytest.raises(ProductStopped) as error:
        session.attach(product.name)
    assert (error.value.what, error.value.where) == ("the table's metadata file is damaged", "table shop.orders")


def test_a_session_that_is_left_ends_its_query(duck: Duck) -> None:
    ended: list[BaseException] = []

    def ask() -> None:
        try:
            rows(duck, "SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE a.range * b.range = 7")
        except (HeadraceError, CancelledError, RuntimeError) as error:  # during a step, before one, between two
            ended.append(error)

    thread = Thread(target=ask)
    thread.start()
    duck.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_the_tables_cannot_be_changed(duck: Duck) -> None:
    duck.attach(PLANES)
    for statement in (
        "INSERT INTO fleet.aircraft VALUES ('N9', 1)",
        "DELETE FROM fleet.aircraft",
        "UPDATE fleet.aircraft SET seats = 0",
    ):
        with pytest.raises(QueryError):
            duck.query(statement)
    assert rows(duck, "SELECT sum(seats)::INT FROM fleet.aircraft") == [(300,)]


def test_a_name_never_means_a_variable_of_the_program(duck: Duck) -> None:
    some_table = pa.table({"a": [1]})
    assert some_table.num_rows == 1
    with pytest.raises(NoSuchName):
        duck.query("FROM some_table")


def test_times_are_utc_and_statements_without_rows_have_no_answer(duck: Duck) -> None:
    assert rows(duck, "SELECT current_setting('TimeZone')") == [("UTC",)]
    assert duck.query("SET threads = 1") is None
    assert rows(duck, "CREATE TEMP TABLE t AS SELECT 1 AS a; SELECT a + 1 FROM t") == [(2,)]


def test_what_arrow_does_not_carry_comes_as_duckdbs_text(duck: Duck) -> None:
    query = """
        SELECT sum(i), INTERVAL 3 DAY, '101'::BIT, '12:00:00+02'::TIMETZ, union_value(a := 1), map {1: 2},
               [INTERVAL 1 DAY], TIMESTAMP_NS '2020-01-01 00:00:00.123456789',
               340282366920938463463374607431768211455::UHUGEINT
        FROM range(3) t(i)
    """
    assert rows(duck, query) == [
        ("3", "3 days", "101", "12:00:00+02", "1", "{1=2}", "[1 day]", "2020-01-01 00:00:00.123456789",
         "340282366920938463463374607431768211455")
    ]  # fmt: skip


def test_duckdbs_text_reaches_the_person_with_its_mark(duck: Duck) -> None:
    duck.attach(PLANES)
    with pytest.raises(NoSuchName) as binding:
        duck.query("SELECT seets FROM fleet.aircraft")
    assert 'Referenced column "seets" not found' in binding.value.what
    assert '"seats"' in binding.value.what
    with pytest.raises(QueryError) as syntax:
        duck.query("SELECT seats FORM fleet.aircraft")
    _, line, mark = syntax.value.what.splitlines()
    assert line == "LINE 1: SELECT seats FORM fleet.aircraft"
    assert mark.index("^") == line.index("fleet")


def test_a_wrapper_of_ours_does_not_show_in_an_error(duck: Duck) -> None:
    with pytest.raises(QueryError) as error:
        rows(duck, "SELECT sum(CAST(s AS INT)) FROM (VALUES ('1'), ('x')) t(s)")
    assert "Could not convert string 'x'" in error.value.what
    assert "VARCHAR" not in error.value.what


def test_nothing_is_fetched_from_a_network(duck: Duck) -> None:
    with pytest.raises(QueryError, match="httpfs"):
        duck.query("FROM 'http://127.0.0.1:9/a.parquet'")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (duckdb.CatalogException, NoSuchName),
        (duckdb.BinderException, NoSuchName),
        (duckdb.ParserException, QueryError),
        (duckdb.IOException, Unavailable),
        (duckdb.HTTPException, Unavailable),
        (duckdb.OutOfMemoryException, Unavailable),
        (duckdb.InternalException, Bug),
        (duckdb.FatalException, Bug),
    ],
)
def test_errors_have_their_place_in_the_tree(raised: Callable[[str], Exception], expected: type[HeadraceError]) -> None:
    with pytest.raises(HeadraceError) as error, duck_errors():
        raise raised("text")
    assert type(error.value) is expected


def test_no_error_of_duckdb_is_left_unmapped() -> None:
    kinds = [kind for _, kind in inspect.getmembers(duckdb, inspect.isclass) if issubclass(kind, duckdb.Error)]
    assert len(kinds) > 20
    for kind in kinds:
        with pytest.raises(HeadraceError), duck_errors():
            raise kind("text")
