"""A sink without Kafka: frames of any version in, batches committed as the sink commits them, real tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from headrace.schemas.avro import AvroSchema
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.types import METADATA_NAMES
from headrace.sinks.decoding import Decoding
from headrace.sinks.files import write_rows
from headrace.streams.frames import Frame
from tests.support.lake import Lake
from tests.support.meshes import encoded
from tests.support.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry

POLICY = PiiPolicy(default=Mask.HMAC_SHA_256)
PII = {"confluent:tags": ["PII"]}


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    """Return a field of a schema."""
    return {"name": name, "type": kind, **more}


def tagged(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    """Return a field that is tagged as personal data."""
    return {"name": name, "type": kind, **PII, **more}


def record(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    """Return a record's schema."""
    return {"type": "record", "name": name, "fields": list(fields)}


def schema_of(*fields: dict[str, Any]) -> AvroSchema:
    """Return the schema of events with these fields, behind an id."""
    return AvroSchema.parse(json.dumps(record("Event", field("id", "long"), *fields)))


class Sink:
    """One sink of a product: frames of any version in, batches committed as the sink commits them."""

    def __init__(self, folder: Path, *versions: AvroSchema, product: Product | None = None) -> None:
        self.shelf = Shelf(*versions)
        self.lake = Lake(folder, versions[0])
        self.product = product or self.lake.product
        self.start()

    def start(self) -> None:
        """Start the sink: it knows nothing but the table."""
        registry = cast("Registry", self.shelf)
        self.decoding = Decoding(self.product, POLICY, self.lake.catalog, registry, b"k" * 32)

    def land(self, version: int, *events: dict[str, Any]) -> None:
        """Land a batch of events of one version."""
        self.land_all([(version, event) for event in events])

    def land_all(self, events: Sequence[tuple[int, dict[str, Any]]]) -> None:
        """Land a batch of events of several versions."""
        first = self.lake.ledger.next(0)
        frames = [self.frame(first + row, version, event) for row, (version, event) in enumerate(events)]
        chunks = [self.decoding.chunk(frame) for frame in frames]
        table = self.lake.reload()
        rows = self.decoding.shape(table).rows(table, chunks, 1)
        staged, after = self.lake.staged(write_rows(table, rows, self.product), len(events))
        self.lake.send(staged)
        self.lake.ledger = after

    def frame(self, offset: int, version: int, event: dict[str, Any]) -> Frame:
        """Return one event as a frame."""
        values = pa.array([encoded(self.shelf.held[version], 100 + version, event)], pa.binary())
        keys = pa.array([str(event["id"]).encode()], pa.binary())
        return Frame(0, 100 + version, np.array([offset]), np.array([0]), keys, values)

    def rows(self) -> list[dict[str, Any]]:
        """Return what DuckDB reads: the events' columns."""
        return [{k: v for k, v in row.items() if k not in METADATA_NAMES} for row in self.lake.rows()]
