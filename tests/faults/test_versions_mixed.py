"""Versions that rename, widen, add and give up fields, mixed in one topic: every value in its column, none in clear."""

from __future__ import annotations

import json
import signal
import struct
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from confluent_kafka.schema_registry import Schema

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import apply
from headrace.sinks.evolution import followed_version
from tests.support.amending import with_properties
from tests.support.meshes import ORDER, ORDERS, encoded, ids, query, send
from tests.support.registries import registry_client
from tests.support.sinks import assert_exactly_once, caught_up, dead_letters, eventually, process, running

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

# On a busy machine with others' tests beside it.
pytestmark = pytest.mark.timeout(600)

RETURNS = "shop.returns"
PARTITIONS = 3
BIG = 1 << 40
PII = {"confluent:tags": ["PII", "user.contact.email"]}


def schema_of(*fields: tuple[str, Any] | dict[str, Any]) -> dict[str, Any]:
    members = [each if isinstance(each, dict) else {"name": each[0], "type": each[1]} for each in fields]
    return {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "string"}, *members]}


VERSIONS = (
    schema_of(("amount", "int"), {"name": "mail", "type": "string", **PII}, ("gone", "string")),
    schema_of(
        {"name": "email", "type": "string", "aliases": ["mail"]},
        ("amount", "long"),
        ("gone", "string"),
        {"name": "note", "type": ["null", "string"], "default": None},
    ),
    schema_of(("email", "string"), ("amount", "long"), {"name": "tier", "type": "string", "default": "basic"}),
    schema_of(
        ("email", "string"),
        ("amount", "long"),
        {"name": "tier", "type": "string", "default": "basic"},
        {"name": "mail", "type": ["null", "boolean"], "default": None},
    ),
)


def event(number: int, version: int) -> dict[str, Any]:
    """An event of a version, with all that the version has."""
    mail = f"ann{number}@example.org"
    whole = {
        "id": f"o{number}",
        "amount": number + (BIG if version > 1 else 0),
        "email": mail,
        "mail": mail if version == 1 else number % 2 == 0,
        "gone": f"g{number}",
        "note": f"n{number}",
        "tier": "gold",
    }
    return {field["name"]: whole[field["name"]] for field in VERSIONS[version - 1]["fields"]}


class Producing:
    """Registers versions, and sends events of those that are registered, evenly over the partitions."""

    def __init__(self, mesh: Mesh, name: str) -> None:
        self._mesh, self._product = mesh, mesh.product(name)
        self._ids: dict[int, tuple[AvroSchema, int]] = {}
        self.sent = 0
        self.versions: dict[int, int] = {}

    def register(self, document: Mapping[str, Any] | None = None) -> int:
        """Register the next version, whatever the level says; return its schema id."""
        number = len(self._ids) + 1
        schema = AvroSchema.parse(json.dumps(document or VERSIONS[number - 1]))
        with Registry(self._mesh.environment.registry_config()) as registry:
            registry.set_compatibility(self._product.subject, "NONE")
            self._ids[number] = schema, registry.register(self._product.subject, schema).id
        return self._ids[number][1]

    def send(self, count: int, *versions: int) -> None:
        """Send that many events of the versions in turn."""
        for partition in range(PARTITIONS):
            numbers = [n for n in range(self.sent, self.sent + count) if n % PARTITIONS == partition]
            # Neighbours in a partition differ in their versions.
            self.versions |= {n: versions[n // PARTITIONS % len(versions)] for n in numbers}
            messages = [self.message(n, event(n, self.versions[n]), self.versions[n]) for n in numbers]
            send(self._mesh, self._product.topic, messages, partition=partition)
        self.sent += count

    def message(self, number: int, body: Mapping[str, Any], version: int) -> tuple[str, bytes]:
        """Return an event as a message."""
        schema, schema_id = self._ids[version]
        return f"o{number}", encoded(schema, schema_id, body)

    def version_of(self, schema_id: int) -> int:
        """Return the version of an id."""
        return next(number for number, (_, known) in self._ids.items() if known == schema_id)


def mesh_of(cluster: Cluster, folder: Path, prefix: str, **properties: object) -> Mesh:
    mesh = cluster.mesh(folder / "mesh", prefix=prefix, schemas={ORDERS: VERSIONS[0]})
    mesh = with_properties(mesh, ORDERS, kafka_partitions=PARTITIONS, **properties)
    apply(mesh, lambda _: None)
    return mesh


def assert_all_is_in_its_column(mesh: Mesh, producing: Producing) -> None:
    rows = query(mesh, f"SELECT id, amount, email, gone, note, tier, mail, _schema_id FROM {ORDERS}")
    assert len(rows) == producing.sent
    found = {int(row[0][1:]): row[1:] for row in rows}
    assert found.keys() == producing.versions.keys()
    for number, (amount, email, gone, note, tier, mail, schema_id) in found.items():
        version = producing.versions[number]
        assert producing.version_of(schema_id) == version
        assert amount == number + (BIG if version > 1 else 0)
        assert len(email) == 64
        assert gone == (f"g{number}" if version < 3 else None)
        assert note == (f"n{number}" if version == 2 else None)
        assert tier in (("gold",) if version > 2 else ("basic", None))
        assert mail == (number % 2 == 0 if version == 4 else None)
    assert len({email for _, email, *_ in found.values()}) == producing.sent
    assert_exactly_once(mesh, ORDERS)


def assert_nothing_is_clear(mesh: Mesh) -> None:
    files = list((mesh.root / "tables").rglob("*.parquet"))
    assert files
    for path in files:
        assert b"@example" not in path.read_bytes()
        for batch in pq.ParquetFile(path).iter_batches():
            assert "@example" not in str(batch.to_pydict())


def test_four_versions_interleaved_over_three_partitions_land_in_one_table(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = mesh_of(cluster, tmp_path, prefix)
    producing = Producing(mesh, ORDERS)
    producing.register()
    with running(mesh, [ORDERS, ORDERS]) as sinks:
        for newest in range(1, 5):
            producing.send(120, *range(1, newest + 1))
            assert eventually(lambda: sinks.rows(ORDERS) == producing.sent), sinks.logs[-3:]
            if newest < 4:
                producing.register()
        # A producer that was never updated.
        producing.send(30, 1)
        assert eventually(lambda: sinks.rows(ORDERS) == producing.sent), sinks.logs[-3:]
    assert_all_is_in_its_column(mesh, producing)
    assert_nothing_is_clear(mesh)
    columns = [row[0] for row in query(mesh, f"DESCRIBE {ORDERS}") if not row[0].startswith("_")]
    assert columns == ["id", "email", "amount", "tier", "mail", "gone", "note"]


def test_workers_killed_while_the_table_follows_lose_nothing_and_show_nothing(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = mesh_of(cluster, tmp_path, prefix)
    producing = Producing(mesh, ORDERS)
    producing.register()
    producing.send(60, 1)
    for newest, step in ((2, "files"), (3, "commit"), (4, "outcome")):
        producing.register()
        producing.send(60, *range(1, newest + 1))
        log = tmp_path / f"{step}.log"
        with process(mesh, ORDERS, log, step=step, occurrence=1, signal="SIGKILL") as worker:
            assert worker.wait() == -signal.SIGKILL, log.read_text()
    product = mesh.product(ORDERS)
    table = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    # The table follows before a row needs it, so it has followed although nothing may have landed.
    assert followed_version(table) == 4
    with process(mesh, ORDERS, tmp_path / "last.log", until_caught_up=True) as worker:
        assert worker.wait() == 0, (tmp_path / "last.log").read_text()
    assert_all_is_in_its_column(mesh, producing)
    assert_nothing_is_clear(mesh)


def test_a_refused_version_waits_until_the_contract_sends_it_to_the_dead_letters(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: schema_of(("n", "int")), RETURNS: ORDER})
    product, producing = mesh.product(ORDERS), Producing(mesh, ORDERS)
    producing.register(schema_of(("n", "int")))
    refused_id = producing.register(schema_of(("n", "double")))
    of_one = [producing.message(n, {"id": f"o{n}", "n": n}, 1) for n in range(3)]
    of_two = [producing.message(n, {"id": f"o{n}", "n": n / 2}, 2) for n in range(100, 300)]
    send(mesh, product.topic, of_one, partition=0)
    assert all(caught_up(mesh).outcomes.values())
    send(mesh, product.topic, of_two, partition=0)
    returns = Producing(mesh, RETURNS)
    returns.register(ORDER)
    send(mesh, mesh.product(RETURNS).topic, [returns.message(1, {"id": "r1", "amount": 1, "email": None}, 1)])

    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: False, RETURNS: True}
    (stopped,) = sink.logged("stopped")
    assert "cannot follow version 2" in stopped["what"]
    assert "n: " in stopped["what"]
    assert "sink.refusedVersions to dead-letter" in stopped["next"]
    assert product.dead_letter_topic in stopped["next"]
    assert ids(mesh, RETURNS) == ["r1"]
    assert ids(mesh) == ["o0", "o1", "o2"]

    # What the error says: a version with another name for the field, and the dead letters for what is there.
    corrected = schema_of({"name": "n_exact", "type": ["null", "double"], "default": None})
    (mesh.root / "domains/shop/orders/schema.avsc").write_text(json.dumps(corrected), encoding="utf-8")
    mesh = with_properties(mesh, ORDERS, sink_refusedVersions="dead-letter")
    apply(mesh, lambda _: None)
    producing.register(corrected)
    send(mesh, product.topic, [producing.message(300, {"id": "o300", "n_exact": 0.5}, 3)], partition=0)
    assert caught_up(mesh).outcomes == {ORDERS: True, RETURNS: True}
    assert query(mesh, f"SELECT id, n, n_exact FROM {ORDERS} ORDER BY n NULLS LAST") == [
        *(("o0", 0, None), ("o1", 1, None), ("o2", 2, None)),
        ("o300", None, 0.5),
    ]
    letters = dead_letters(mesh, product)
    assert {headers["headrace.reason"] for headers, _, _ in letters} == {"refused-version"}
    assert {headers["headrace.schema-id"] for headers, _, _ in letters} == {str(refused_id)}
    assert [value for _, _, value in letters] == [value for _, value in of_two]
    assert_exactly_once(mesh)


def test_a_version_that_is_no_avro_at_all_is_refused_like_any_other(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    mesh = mesh_of(cluster, tmp_path, prefix, sink_refusedVersions="dead-letter")
    product, producing = mesh.product(ORDERS), Producing(mesh, ORDERS)
    producing.register()
    node = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
    client = registry_client(mesh.environment.registry_config())
    recursive = client.register_schema(product.subject, Schema(json.dumps(node), "AVRO"))
    client.close()
    send(mesh, product.topic, [("o7", struct.pack(">bI", 0, recursive) + b"\0")], partition=0)
    producing.send(6, 1)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    assert len(ids(mesh)) == 6
    ((headers, key, _),) = dead_letters(mesh, product)
    assert (headers["headrace.reason"], key) == ("refused-version", b"o7")
    assert_exactly_once(mesh)
