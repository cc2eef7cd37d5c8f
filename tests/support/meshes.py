"""Small meshes for tests: one cluster serves many, each with its own topic prefix and its own tables."""

from __future__ import annotations

import io
import json
import struct
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fastavro
from confluent_kafka import Producer

from headrace.governance.duck import tables_of
from headrace.schemas.mesh import Mesh, load_mesh
from headrace.selfserve.apply import apply
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from headrace.schemas.avro import AvroSchema
    from headrace.selfserve.stack import Endpoints

ORDER: Mapping[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "email", "type": ["null", "string"], "default": None, "confluent:tags": ["PII", "user.contact.email"]},
    ],
}
ORDERS = "shop.orders"


@dataclass(frozen=True)
class Cluster:
    """A running broker and registry."""

    endpoints: Endpoints

    def mesh(self, root: Path, *, prefix: str, schemas: Mapping[str, Mapping[str, Any]] | None = None) -> Mesh:
        """Write a mesh (default: of ``shop.orders`` alone) and load it in an environment on this cluster."""
        write_mesh(root, self.endpoints, prefix, schemas or {ORDERS: ORDER})
        return load_mesh(root, environment="cluster")

    def applied(self, root: Path, *, prefix: str, schemas: Mapping[str, Mapping[str, Any]] | None = None) -> Mesh:
        """Write, load and apply a mesh."""
        mesh = self.mesh(root, prefix=prefix, schemas=schemas)
        apply(mesh, lambda _: None)
        return mesh


def write_mesh(
    root: Path,
    endpoints: Endpoints,
    prefix: str,
    schemas: Mapping[str, Mapping[str, Any]],
    commit_interval_s: float = 0.2,
) -> None:
    """Write a mesh's files. A file that is there already is replaced."""
    tables = root / "tables"
    write(
        root / "mesh.yaml",
        f"""
        name: test
        environments:
          cluster:
            stack: external
            topic_prefix: {prefix}
            sink: {{commit_interval_s: {commit_interval_s}}}
            kafka: {{bootstrap.servers: "{endpoints.bootstrap_servers}", session.timeout.ms: 6000}}
            registry: {{url: "{endpoints.registry_url}"}}
            masking: {{hmac_key: "${{file:hmac.key}}"}}
            catalog:
              type: sql
              uri: "sqlite:///{tables}/{{storage}}/catalog.db"
              warehouse: "file://{tables}/{{storage}}/warehouse"
        """,
    )
    write(root / "hmac.key", "5e" * 32)
    write(
        root / "policies" / "pii.yaml", "default: replace-with-null\ncategories: {user.contact.email: hmac-sha-256}\n"
    )
    for name, schema in schemas.items():
        domain, product = name.split(".")
        write(root / "domains" / domain / "domain.yaml", f"owner: {domain}-team\ndescription: a test's domain\n")
        write_product(root / "domains" / domain / product, name, schema)


def write_product(folder: Path, name: str, schema: Mapping[str, Any]) -> None:
    """Write a product's contract and schema; its first field is the key, its topic has two partitions."""
    domain, product = name.split(".")
    write(
        folder / "contract.odcs.yaml",
        f"""
        apiVersion: v3.2.0
        kind: DataContract
        id: {name}
        name: {product}
        version: 1.0.0
        status: active
        domain: {domain}
        description: {{purpose: to be tested}}
        team: {{name: {domain}-team}}
        schema:
          - name: {product}
            physicalName: {name}
            authoritativeDefinitions: [{{type: schema, url: schema.avsc}}]
            properties: [{{name: {schema["fields"][0]["name"]}, primaryKey: true, primaryKeyPosition: 1}}]
        slaProperties: [{{property: latency, value: 5, unit: s}}]
        customProperties: [{{property: kafka.partitions, value: 2}}]
        """,
    )
    write(folder / "schema.avsc", json.dumps(schema))


def write(path: Path, text: str) -> None:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip(), encoding="utf-8")


def order(number: int) -> dict[str, Any]:
    """Return an event of ``shop.orders``."""
    return {"id": f"o{number}", "amount": number, "email": f"ann{number}@example.org" if number % 2 else None}


def encoded(schema: AvroSchema, schema_id: int, event: Mapping[str, Any]) -> bytes:
    """Return an event in the wire format."""
    body = io.BytesIO()
    body.write(struct.pack(">bI", 0, schema_id))
    fastavro.schemaless_writer(body, schema.parsed, event)
    return body.getvalue()


def send(mesh: Mesh, topic: str, messages: Iterable[tuple[str | None, bytes | None]], *, partition: int = -1) -> None:
    """Send raw messages (key, value) and wait until all are acknowledged."""
    failures: list[object] = []
    producer = Producer({**mesh.environment.kafka_config(), "partitioner": "murmur2_random", "linger.ms": 5})
    for key, value in messages:
        while True:
            try:
                producer.produce(
                    topic,
                    value,
                    key,
                    partition,
                    on_delivery=lambda error, _: failures.append(error) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(PATIENCE_S) == 0
    assert not failures


def query(mesh: Mesh, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a query over the mesh's tables, read by DuckDB."""
    with tables_of(mesh) as duck:
        for product in mesh.products:
            duck.attach(product.name)
        answer = duck.query(sql)
        assert answer is not None
        return [tuple(row.values()) for batch in answer.batches for row in batch.to_pylist()]


def ids(mesh: Mesh, product: str = ORDERS) -> Sequence[str]:
    """Return the ids in a product's table, sorted."""
    return [row[0] for row in query(mesh, f"SELECT id FROM {product} ORDER BY id")]
