"""DuckDB over the mesh's Iceberg tables, in place, and the one seam where DuckDB's errors enter headrace's tree.

A session knows every product's name but opens a table only when it is asked to: one table that cannot be read never
stands in the way of the others. Nothing is fetched from a network: the extensions come with the package.
"""

from __future__ import annotations

import importlib.util
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

import duckdb
from duckdb.sqltypes import DuckDBPyType

from headrace.schemas.catalog import catalog_errors, open_catalog
from headrace.schemas.errors import Bug, NoSuchName, QueryError, SettingsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    import pyarrow as pa
    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.names import ProductName

__all__ = ["Answer", "Duck", "NoSuchName", "QueryError", "tables_of"]

T = TypeVar("T")

# Iceberg's manifests are Avro files: the iceberg extension needs the avro extension to be there first.
_EXTENSIONS = ("avro", "iceberg")
# No extension is fetched or loaded behind the user's back, and a table's name never means a variable of this program.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
}
# Types whose values Arrow carries to Python without loss. What is not here comes as DuckDB's own text: Arrow has no
# integer of 128 bits and no time with a zone, and Python no nanoseconds.
_CARRIED = frozenset(
    {
        *("boolean", "tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint"),
        *("float", "double", "decimal", "varchar", "json", "uuid", "enum", "blob"),
        *("date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
    }
)
_NESTED = frozenset({"list", "array", "struct", "map"})
_WRAPPER = "CAST(#"
_BATCH_ROWS = 10_000
_INTERRUPT_EACH_S = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query.

    Attributes:
        columns: the columns' names, as DuckDB gives them (a name may occur twice).
        types: DuckDB's type of each column, before types that Arrow does not carry were turned into text.
        batches: the rows; they are computed while they are read, once. Reading raises what `Duck.query` raises.
    """

    columns: tuple[str, ...]
    types: tuple[DuckDBPyType, ...]
    batches: Iterator[pa.RecordBatch]


class Duck:
    """A DuckDB session in which every attached product is a view named ``domain.product``. Time zone: UTC.

    Not for several threads. Leaving the block, by Ctrl-C too, ends a running query.

    Args:
        products: the products that the session knows.
        locate: returns the place of a product's current table metadata; raises what a catalog raises.
        settings: DuckDB's own settings beyond headrace's, by name.
    """

    def __init__(
        self,
        products: Iterable[ProductName],
        locate: Callable[[ProductName], str],
        settings: Mapping[str, str | bool | int | float | list[str]] = MappingProxyType({}),
    ) -> None:
        self._locate = locate
        self._attached: set[ProductName] = set()
        # Queries run on a thread of their own, so that Ctrl-C reaches the main thread while DuckDB works.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="duckdb")
        self._working = Lock()
        self._closed = False
        with duck_errors():
            self._connection = duckdb.connect(":memory:", config={**_CONFIG, **settings})
            for extension in _EXTENSIONS:
                self._connection.execute(f"LOAD {_text(str(_extension_file(extension)))}")
            self._connection.execute("SET TimeZone='UTC'")
            for domain in sorted({product.domain for product in products}):
                self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_name(domain)}")

    def attach(self, product: ProductName) -> None:
        """Make the product's table, as it is now, the view ``domain.product``. Does nothing when that is done already.

        Raises:
            NotApplied: if the table does not exist.
            Unavailable: if the catalog or the storage does not answer, or the table's files cannot be read.
        """
        if product in self._attached:
            return
        place = self._locate(product)
        view = f"{_name(product.domain)}.{_name(product.product)}"
        try:
            with duck_errors():
                self._connection.execute(f"CREATE VIEW {view} AS FROM iceberg_scan({_text(place)})")
        except (QueryError, Unavailable) as error:
            raise Unavailable(
                f"the table cannot be read: {error.what.splitlines()[0]}",
                where=f"table {product}",
                hint="look at the storage",
            ) from error
        self._attached.add(product)

    def query(self, sql: str, batch_rows: int = _BATCH_ROWS) -> Answer | None:
        """Run one or more statements; return the rows of the last one, None if it has none.

        Args:
            sql: the statements.
            batch_rows: how many rows each of the answer's batches has at most.

        Raises:
            NoSuchName: if the query names what is not there.
            QueryError: if DuckDB refuses the query for any other reason.
            Unavailable: if a file cannot be read or the memory does not suffice.
        """
        # DuckDB's annotations do not say that there may be no relation.
        relation: duckdb.DuckDBPyRelation | None = self._run(lambda: self._connection.sql(sql))
        if relation is None:
            return None
        columns, types = tuple(relation.columns), tuple(relation.types)
        carried = relation
        if not all(_carried(column) for column in types):
            carried = self._run(lambda: relation.project(_as_text(columns, types)))
        reader = self._run(lambda: carried.to_arrow_reader(batch_rows))
        return Answer(columns, types, self._batches(reader))

    def close(self) -> None:
        """Interrupt what still runs and close the session; closing twice does nothing."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        # An interrupt that comes just before a query begins is lost: it is repeated until the worker is through.
        while not self._working.acquire(timeout=_INTERRUPT_EACH_S):
            self._connection.interrupt()
        self._closed = True
        self._connection.close()
        self._working.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        while (batch := self._run(lambda: next(reader, None))) is not None:
            yield batch

    def _run(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            with self._working:
                if self._closed:
                    raise CancelledError
                return work()

        with duck_errors():
            return self._worker.submit(alone).result()


def tables_of(mesh: Mesh) -> Duck:
    """Return a session over the mesh's tables, those of dead letters too (`dead_letter_table_of`).

    Catalogs are opened when the first of their tables is attached.
    """
    catalogs: dict[str, Catalog] = {}

    def locate(name: ProductName) -> str:
        if name.domain not in catalogs:
            domain = next(each for each in mesh.all_domains if each.name == name.domain)
            catalogs[name.domain] = open_catalog(mesh.environment, domain)
        with catalog_errors(f"table {name}"):
            return str(catalogs[name.domain].load_table((name.domain, name.product)).metadata_location)

    return Duck((product.name for product in mesh.all_products), locate)


@contextmanager
def duck_errors() -> Iterator[None]:
    """Map DuckDB's errors to headrace's tree.

    Raises:
        NoSuchName: for names that are not there.
        Unavailable: for files, memory and network.
        Bug: for an invariant of DuckDB's own.
        QueryError: for everything else.
    """
    try:
        yield
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise NoSuchName(_message(error)) from None
    except duckdb.OutOfMemoryException as error:
        raise Unavailable(_message(error), hint="ask for less at once, or free memory") from None
    except duckdb.IOException as error:
        raise Unavailable(_message(error), hint="see that the file is there and may be read, then ask again") from None
    except (duckdb.InternalException, duckdb.FatalException) as error:
        raise Bug(_message(error)) from error
    except duckdb.Error as error:
        raise QueryError(_message(error)) from None


def _message(error: duckdb.Error) -> str:
    """Return DuckDB's text without its empty lines; the mark under the place in the query stays."""
    lines = [line.rstrip() for line in str(error).splitlines() if line.strip()]
    # Where a wrapper of ours was around the query, its text and the mark in it tell nobody anything.
    ours = next(
        (place for place, line in enumerate(lines) if line.startswith("LINE ") and _WRAPPER in line), len(lines)
    )
    return "\n".join(lines[:ours])


def _extension_file(extension: str) -> Path:
    package = f"duckdb_extension_{extension}"
    found = importlib.util.find_spec(package)
    version = f"v{duckdb.__version__}"
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder, "extensions", version, f"{extension}.duckdb_extension")
        if file.is_file():
            return file
    distribution = package.replace("_", "-")
    raise SettingsError(
        f"DuckDB's extension {extension} for version {duckdb.__version__} is not installed",
        hint=f"install the package {distribution}=={duckdb.__version__}",
    )


def _carried(column: DuckDBPyType) -> bool:
    if column.id not in _NESTED:
        return column.id in _CARRIED
    # An array's children are its items' type and its size.
    inner = {name: child for name, child in column.children if isinstance(child, DuckDBPyType)}
    if column.id == "map" and inner["key"].id != "varchar":
        return False  # such a map is no object of JSON
    return all(map(_carried, inner.values()))


def _as_text(columns: tuple[str, ...], types: tuple[DuckDBPyType, ...]) -> str:
    # By position, because two columns may have one name.
    return ", ".join(
        (f"#{place}" if _carried(kind) else f"{_WRAPPER}{place} AS VARCHAR)") + f" AS {_name(column)}"
        for place, (column, kind) in enumerate(zip(columns, types, strict=True), start=1)
    )


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
