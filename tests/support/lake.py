"""A real table in a folder: rows go in by the sink's own modules and come out by DuckDB."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from headrace.schemas.masking import Masker
from headrace.schemas.masks import Mask
from headrace.schemas.names import ProductName
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.product import Compatibility, Contract, Product
from headrace.schemas.registered import RegisteredSchema
from headrace.schemas.verdicts import Verdicts
from headrace.sinks.batch import Chunk
from headrace.sinks.commit import stage
from headrace.sinks.draft import Draft
from headrace.sinks.evolution import follow
from headrace.sinks.files import Shape, Written, write_rows
from headrace.sinks.tables import ensure_table
from headrace.streams.ledger import Ledger, Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from headrace.schemas.avro import AvroSchema
    from headrace.sinks.commit import Staged

TABLE = ("shop", "orders")
TOPIC_ID = "Zm9vYmFyYmF6cXV1eHF1dQ"


def product_of(schema: AvroSchema, masks: Mapping[str, Mask] | None = None) -> Product:
    """Return the product ``shop.orders`` of a schema."""
    contract = Contract("1.0.0", "active", "shop", "orders", ("id",), 1, Compatibility.BACKWARD, 10)
    return Product(ProductName(*TABLE), contract, schema, masks or {}, "shop.orders")


def chunk_of(events: pa.StructArray, first: int, *, partition: int = 0, schema_id: int = 1) -> Chunk:
    """Return events as a decoded frame, at consecutive offsets, a second apart."""
    offsets = np.arange(first, first + len(events))
    keys = pa.array([b"k"] * len(events), pa.binary())
    return Chunk(partition, schema_id, events, offsets, offsets * 1_000, keys)


def verdicts_of(product: Product, *schemas: AvroSchema, policy: PiiPolicy | None = None) -> Verdicts:
    """Return schemas, judged as versions 1, 2 … of the product's subject, with the same ids."""
    versions = [RegisteredSchema(n, n, product.subject, schema) for n, schema in enumerate(schemas, 1)]
    return Verdicts.of(product, policy or PiiPolicy(default=Mask.REPLACE_WITH_NULL), versions)


class Lake:
    """A table of one product. Every ``add`` is a batch of partition 0, committed as the sink commits it."""

    def __init__(self, folder: Path, schema: AvroSchema, masks: Mapping[str, Mask] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.catalog = SqlCatalog("shop", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}/warehouse")
        self.product = product_of(schema, masks)
        self.table: Table = ensure_table(self.catalog, self.product)
        self.reader = schema
        self.names: Mapping[int, Mapping[str, str | None]] = {}
        self.ledger = Ledger.begin(TOPIC_ID, {0: 0})

    def follow(self, *schemas: AvroSchema) -> None:
        """Let the table follow these schemas as versions 1, 2 …, with the same ids."""
        verdicts = verdicts_of(self.product, *schemas)
        self.table = follow(self.catalog, self.product, verdicts)
        self.reader = verdicts.versions[-1].schema
        held = verdicts.versions[-1].version
        self.names = {each.id: verdicts.lineage.column_names(held, each.version) for each in verdicts.versions}

    def write(self, events: pa.StructArray, schema_id: int = 1) -> Written:
        """Write a data file of events behind the ledger's position."""
        chunk = chunk_of(events, self.ledger.next(0), schema_id=schema_id)
        masker = Masker(self.product.masks, b"key")
        shape = Shape(self.product, self.reader.record, masker, key_masked=False, names=self.names)
        return write_rows(self.table, shape.rows(self.table, [chunk], 1), self.product)

    def staged(self, written: Written | None, rows: int) -> tuple[Staged, Ledger]:
        """Stage an append of that many rows, and return it with the ledger after it."""
        start = self.ledger.next(0)
        after = self.ledger.advanced({0: Range(start, start + rows, start + rows - 1 if rows else None)})
        files = written.files if written is not None else ()
        return stage(self.table, Draft(after, files)), after

    def send(self, staged: Staged) -> None:
        """Send a commit."""
        self.catalog.commit_table(self.table, staged.requirements, staged.updates)

    def add(self, events: pa.StructArray, schema_id: int = 1) -> int:
        """Write and commit events; return the snapshot's id."""
        staged, after = self.staged(self.write(events, schema_id), len(events))
        self.send(staged)
        self.ledger = after
        self.reload()
        return staged.snapshot_id

    def reload(self) -> Table:
        """Load the table as it is now."""
        self.table = self.catalog.load_table(TABLE)
        return self.table

    def rows(self, *columns: str) -> list[dict[str, Any]]:
        """Return what DuckDB reads of the table as it is now, in the order of offsets."""
        names = ", ".join(f'"{column}"' for column in columns) or "*"
        return self._query(f"SELECT {names} FROM {{table}} ORDER BY _kafka_offset")

    def count(self, where: str) -> int:
        """Return how many rows DuckDB finds of the table as it is now."""
        (row,) = self._query(f"SELECT count(*) AS found FROM {{table}} WHERE {where}")
        found: int = row["found"]
        return found

    def _query(self, query: str) -> list[dict[str, Any]]:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for name in ("avro", "iceberg"):
                package = next(p for p in map(Path, sys.path) if (p / f"duckdb_extension_{name}").is_dir())
                folder = package / f"duckdb_extension_{name}" / "extensions" / f"v{duckdb.__version__}"
                connection.execute(f"LOAD '{folder / name}.duckdb_extension'")
            result = connection.execute(query.format(table=f"iceberg_scan('{self.reload().metadata_location}')"))
            found: list[dict[str, Any]] = result.to_arrow_table().to_pylist()
            return found
