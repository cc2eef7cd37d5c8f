"""Lineage of real sinks: to a file and to Kafka at once, and to a backend that hangs, refuses and answers."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from openlineage.client.transport.http import HttpTransport
from structlog.testing import capture_logs

from headrace.selfserve.lineage import watching
from headrace.selfserve.lineage.transport import open_client
from headrace.selfserve.lineage.watching import telling_lineage
from headrace.selfserve.main import main
from headrace.sinks.serve import serve
from headrace.sinks.watch import Unwatched, Watchers
from headrace.streams.admin import Admin
from tests.support.meshes import ORDERS, send, write
from tests.support.openlineage import Backend, facets_of, no_settings_here, refused
from tests.support.sinks import assert_exactly_once, eventually
from tests.support.topics import publish, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed

# Long enough for a machine with two cores that runs three such tests.
WAIT_S = 60.0


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(watching, "CLOSE_S", WAIT_S)
    with no_settings_here(monkeypatch, tmp_path):
        yield


def read(mesh: Mesh, topic: str) -> list[Any]:
    """Return what a topic holds, as JSON."""
    admin = Admin(mesh.environment.kafka_config())
    marks = admin.watermarks(admin.topic(topic))
    consumer = Consumer({**mesh.environment.kafka_config(), "group.id": "unused", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, bound.low) for partition, bound in marks.items()])
    wanted, found = sum(bound.end - bound.low for bound in marks.values()), list[Any]()

    def is_read() -> bool:
        for message in consumer.consume(wanted - len(found), 1.0):
            assert not message.error()
            found.append((message.key(), json.loads(message.value() or b"")))
        return len(found) == wanted

    try:
        assert eventually(is_read, within_s=WAIT_S)
    finally:
        consumer.close()
    return found


def test_a_run_is_told_to_a_file_and_to_kafka(
    mesh: Mesh, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    product, out, topic = mesh.product(ORDERS), tmp_path / "events.jsonl", f"{prefix}lineage"
    write(
        tmp_path / "openlineage.yml",
        f"""
        transport:
          type: composite
          transports:
            - {{type: file, log_file_path: "{out}", append: true}}
            - {{type: kafka, topic: {topic}, config: {json.dumps(mesh.environment.kafka_config())}}}
        """,
    )
    Admin(mesh.environment.kafka_config()).create(topic, partitions=1, config={})
    described = (mesh.root / "mesh.yaml").read_text()
    write(mesh.root / "mesh.yaml", described.replace("sink: {", "sink: {openlineage: true, "))
    publish(mesh, ORDERS, range(20))
    send(mesh, product.topic, [("poison", b"\0")])
    command = ["--mesh", str(mesh.root), "--environment", "cluster", "sink", ORDERS, "--until-caught-up"]
    assert main(command) == 0, capsys.readouterr().err

    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert not [fault for event in told for fault in refused(event)]
    states = [event["eventType"] for event in told]
    assert (states[0], states[1], states[-1]) == ("START", "RUNNING", "COMPLETE")
    assert len({event["run"]["runId"] for event in told}) == 1
    end = told[-1]
    assert (end["job"]["namespace"], end["job"]["name"]) == ("test.cluster", f"sink.{ORDERS}")
    (source,), (table, letters) = end["inputs"], end["outputs"]
    servers = mesh.environment.kafka_config()["bootstrap.servers"]
    assert (source["namespace"], source["name"]) == (f"kafka://{servers}", product.topic)
    written = table["outputFacets"]["outputStatistics"]
    assert (written["rowCount"], written["size"] > 0) == (20, True)
    assert (letters["name"], letters["outputFacets"]["outputStatistics"]["rowCount"]) == (f"{product.topic}.dlq", 1)
    found = table_of(mesh)
    snapshot = found.current_snapshot()
    assert snapshot is not None
    assert facets_of(table)["version"] == {"datasetVersion": str(snapshot.snapshot_id)}
    assert f"file://{table['name']}" == found.location()
    columns = facets_of(table)["columnLineage"]["fields"]
    masked = {name for name, each in columns.items() if each["inputFields"][0]["transformations"][0]["masking"]}
    assert (columns.keys() >= {"id", "amount", "email", "_kafka_offset"}, masked) == (True, {"email"})

    in_kafka = read(mesh, topic)
    assert [event for _, event in in_kafka] == told
    assert {key for key, _ in in_kafka} == {f"run:test.cluster/sink.{ORDERS}".encode()}


class Rows(Unwatched):
    """Counts rows that have landed."""

    def __init__(self) -> None:
        self.landed_rows = 0

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        self.landed_rows += landed.rows


def test_a_backend_that_hangs_refuses_and_answers_holds_no_sink_up(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.selfserve.lineage.outbox.RUNNING_EACH_S", 0.0)
    rows, stop, outcome = Rows(), threading.Event(), list[bool]()

    def lands(count: int) -> None:
        before = rows.landed_rows
        publish(mesh, ORDERS, range(before, before + count))
        assert eventually(lambda: rows.landed_rows == before + count, within_s=WAIT_S)

    with Backend() as backend, capture_logs() as logs:
        transport = {"type": "http", "url": backend.url, "timeout": 1.0, "retry": {"total": 0}}
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(transport))
        backend.answers.clear()
        client = open_client()
        with telling_lineage(mesh, client) as lineage:
            watcher = Watchers([lineage, rows])
            sink = threading.Thread(
                target=lambda: outcome.append(serve(mesh, [ORDERS], until_caught_up=False, stop=stop, watcher=watcher))
            )
            sink.start()
            try:
                assert eventually(lambda: backend.asked > 0, within_s=WAIT_S)
                lands(10)
                backend.status = 500
                backend.answers.set()
                # What answers is given the time that a busy machine takes.
                assert isinstance(client.transport, HttpTransport)
                client.transport.timeout = WAIT_S
                lands(10)
                assert backend.told() == []
                backend.status = 200
                while "RUNNING" not in backend.told():
                    lands(1)
            finally:
                stop.set()
                sink.join(WAIT_S)
        assert outcome == [True]
        assert (backend.told()[0], backend.told()[-1]) == ("START", "COMPLETE")
        assert not [fault for event in backend.events for fault in refused(event)]
        assert backend.events[-1]["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == rows.landed_rows
    assert not [line for line in logs if line["log_level"] == "error"]
    assert_exactly_once(mesh)
