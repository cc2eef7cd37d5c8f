"""Dead letters on real Kafka, a real registry and a real catalog: kept whole, told of, and put back once."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import apply
from headrace.selfserve.main import main
from headrace.streams.admin import Admin
from tests.support.meshes import ORDER, ORDERS, encoded, order, query, send, write_product
from tests.support.sinks import assert_exactly_once, caught_up, dead_letters, events, eventually, running
from tests.support.topics import make_anew

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh

LATER: dict[str, Any] = {
    **ORDER,
    "fields": [*ORDER["fields"], {"name": "note", "type": ["null", "string"], "default": None}],
}
LATER_SCHEMA = AvroSchema.parse(json.dumps(LATER))
# Not long ago, because the broker deletes what is older than its retention.
BEGIN_MS = int(time.time() * 1_000) - 3_600_000
WAIT_S = 60.0


def headrace(mesh: Mesh, *words: str) -> int:
    return main(["--mesh", str(mesh.root), "--environment", "cluster", *words])


def registered_by_others(mesh: Mesh) -> int:
    """Register the later schema under a subject of somebody else, and return its id: any other subject gives it too."""
    with Registry(mesh.environment.registry_config()) as registry:
        return registry.register(f"{mesh.environment.topic_prefix}others-value", LATER_SCHEMA).id


def send_early(mesh: Mesh, schema_id: int, numbers: range) -> None:
    """Send events of a schema that is not the product's yet, with headers and timestamps of their own."""
    producer = Producer(mesh.environment.kafka_config())
    for number in numbers:
        value = encoded(LATER_SCHEMA, schema_id, {**order(number), "note": "early"})
        headers: list[tuple[str, str | bytes | None]] = [("trace", b"t1"), ("headrace.offset", b"999"), ("empty", None)]
        producer.produce(
            mesh.product(ORDERS).topic, value, f"o{number}", 0, timestamp=BEGIN_MS + number, headers=headers
        )
    assert producer.flush(WAIT_S) == 0


@pytest.fixture
def early(mesh: Mesh) -> Mesh:
    """A mesh whose sink has refused five early events and a tombstone, all in partition 0, behind 20 sound events."""
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, range(20))), partition=0)
    send_early(mesh, registered_by_others(mesh), range(100, 105))
    send(mesh, product.topic, [("gone", None)], partition=0)
    send(mesh, product.topic, events(mesh, product, map(order, range(20, 40))), partition=0)
    assert caught_up(mesh).outcomes == {ORDERS: True}
    return mesh


def amended(mesh: Mesh) -> Mesh:
    """Make the early events' schema the product's next version."""
    write_product(mesh.root / "domains" / "shop" / "orders", ORDERS, LATER)
    later = load_mesh(mesh.root, environment="cluster")
    apply(later, lambda _: None)
    return later


def listed(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert headrace(mesh, "dlq", "list", ORDERS, "--format", "json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_letter_is_kept_whole_and_the_table_tells_all_but_its_bytes(
    early: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    product = early.product(ORDERS)
    topic_id = Admin(early.environment.kafka_config()).topic(product.topic).id
    headers, key, _ = next(letter for letter in dead_letters(early, product) if letter[1] == b"o102")
    assert key == b"o102"
    assert {name: text for name, text in headers.items() if name != "headrace.schema-id"} == {
        "headrace.reason": "foreign-schema",
        "headrace.topic": product.topic,
        "headrace.topic-id": topic_id,
        "headrace.generation": "1",
        "headrace.partition": "0",
        "headrace.offset": "22",
        "headrace.timestamp-ms": str(BEGIN_MS + 102),
        "trace": "t1",
    }
    columns = "_kafka_partition, _kafka_offset, epoch_ms(_kafka_timestamp), _generation, topic_id, reason, header_names"
    assert headrace(early, "sql", "--format", "json", f"SELECT {columns} FROM {ORDERS}__dlq ORDER BY 2") == 0
    rows = [tuple(row.values()) for row in json.loads(capsys.readouterr().out)]
    names = ["trace", "headrace.offset", "empty"]
    assert rows[:5] == [(0, 20 + n, BEGIN_MS + 100 + n, 1, topic_id, "foreign-schema", names) for n in range(5)]
    assert (rows[5][1], rows[5][5], rows[5][6]) == (25, "null-value", [])
    assert headrace(early, "sql", "--format", "csv", f"DESCRIBE {ORDERS}__dlq") == 0
    described = capsys.readouterr().out
    assert "BLOB" not in described, "bytes of messages stay in the topic"
    assert "key_bytes" in described


def test_letters_are_listed_shown_and_put_back_once(early: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(early, capsys)
    assert (found["open"], found["in_table"], found["ahead"], found["of_other_topics"]) == (6, 0, 0, 0)
    assert {each["reason"]: each["open"] for each in found["reasons"]} == {"foreign-schema": 5, "null-value": 1}
    assert headrace(early, "dlq", "show", ORDERS, "0:22") == 0
    shown = capsys.readouterr().out
    assert "foreign-schema" in shown
    assert "o102" not in shown
    assert headrace(early, "dlq", "show", ORDERS, "0:22", "--unmasked") == 0
    assert "ann" not in shown
    assert "6f 31 30 32" in capsys.readouterr().out
    assert headrace(early, "dlq", "redrive", ORDERS, "--yes") == 0
    assert "5 are still refused: foreign-schema" in capsys.readouterr().out

    mesh = amended(early)
    assert headrace(mesh, "dlq", "show", ORDERS, "0:22") == 0
    assert "can be read as version 2" in capsys.readouterr().out
    assert headrace(mesh, "dlq", "redrive", ORDERS, "--reason", "foreign-schema", "--yes") == 0
    assert capsys.readouterr().out.splitlines() == ["5 put back into shop.orders"]
    assert headrace(mesh, "dlq", "redrive", ORDERS, "--yes") == 0
    told = capsys.readouterr().out
    assert told.startswith("0 put back into shop.orders\n5 were in the table already\n1 is still refused: null-value\n")
    rows = query(
        mesh,
        f"SELECT _kafka_partition, _kafka_offset, epoch_ms(_kafka_timestamp), _generation, id, note FROM {ORDERS} "
        "WHERE amount >= 100 ORDER BY 2",
    )
    assert rows == [(0, 20 + n, BEGIN_MS + 100 + n, 1, f"o{100 + n}", "early") for n in range(5)]
    assert query(mesh, f"SELECT count(*), count(DISTINCT _kafka_offset) FROM {ORDERS}") == [(45, 45)]
    assert listed(mesh, capsys)["in_table"] == 5
    assert headrace(mesh, "status", "--format", "json") == 0
    (status,) = [each for each in json.loads(capsys.readouterr().out)["products"] if each["product"] == ORDERS]
    assert (status["rows"], status["dead_letters"]) == (45, 1)
    assert_exactly_once(mesh, ORDERS)


def test_no_byte_of_a_letter_stands_anywhere_but_in_its_topic(mesh: Mesh, capfd: pytest.CaptureFixture[str]) -> None:
    key, value, header = canaries = ("canary-key", "canary-value", "canary-header")
    topics = (mesh.product(ORDERS).topic, mesh.product(ORDERS).dead_letter_topic)
    ((_, sound),) = events(mesh, mesh.product(ORDERS), [{**order(1), "id": value}])
    assert sound is not None
    unknown = (2**31).to_bytes(5, "big") + sound[5:]
    early = encoded(LATER_SCHEMA, registered_by_others(mesh), {**order(2), "id": value, "note": value})
    producer = Producer(mesh.environment.kafka_config())
    for topic, poison in [*((topics[0], each) for each in (sound[:-2], unknown, early, value)), (topics[1], value)]:
        # What others write into the topic of letters may be no letter, or one with numbers that no topic has.
        forged = [("headrace.reason", key), ("headrace.topic-id", "t"), ("headrace.partition", "9" * 99)]
        headers = [("trace", header), *(forged if topic == topics[1] else ())]
        producer.produce(topic, poison, key, 0, headers=[*headers, ("headrace.offset", "9" * 99)])
    producer.produce(topics[0], None, key, 0)
    assert producer.flush(WAIT_S) == 0
    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: True}
    words = [["list", ORDERS], ["list", ORDERS, "--format", "json"], ["redrive", ORDERS, "--yes"]]
    words += [["show", ORDERS, f"0:{offset}", "--format", form] for offset in range(5) for form in ("json", "table")]
    assert [headrace(mesh, "dlq", *each) for each in words] == [0] * len(words)
    assert headrace(mesh, "verify", ORDERS) == 0
    assert headrace(mesh, "sql", "--format", "json", f"SELECT * FROM {ORDERS}__dlq") == 0
    told = capfd.readouterr()
    assert "5 dead letters of shop.orders" in told.out
    files = [file for file in mesh.root.rglob("*") if file.is_file()]
    assert any("orders__dlq" in str(file) for file in files)
    for canary in canaries:
        assert canary not in told.out + told.err + repr(sink.logs)
        assert [file for file in files if canary.encode() in file.read_bytes()] == []
    # The topic of letters has them all, and so has who asks for them.
    assert headrace(mesh, "dlq", "show", ORDERS, "0:3", "--unmasked", "--format", "json") == 0
    shown = json.loads(capfd.readouterr().out)
    assert (bytes.fromhex(shown["key"]), bytes.fromhex(shown["value"])) == (key.encode(), value.encode())


def test_letters_outlive_the_topic_that_they_came_from(early: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    make_anew(early, early.product(ORDERS))
    assert headrace(early, "accept-topic", ORDERS, "--yes") == 0
    send(early, early.product(ORDERS).topic, events(early, early.product(ORDERS), map(order, range(30))), partition=0)
    assert caught_up(early).outcomes == {ORDERS: True}
    found = listed(early, capsys)
    assert (found["open"], found["ahead"], found["of_other_topics"]) == (6, 0, 0)
    assert {each["generation"] for each in found["letters"]} == {1}

    mesh = amended(early)
    assert headrace(mesh, "dlq", "show", ORDERS, "0:22") == 0
    assert "can be read as version 2" in capsys.readouterr().out
    for put_back in (5, 0):
        assert headrace(mesh, "dlq", "redrive", ORDERS, "--yes") == 0
        assert capsys.readouterr().out.startswith(f"{put_back} put back into shop.orders\n")
    rows = query(mesh, f"SELECT _kafka_offset, _generation, note FROM {ORDERS} WHERE amount >= 100 ORDER BY 1")
    assert rows == [(20 + n, 1, "early") for n in range(5)]
    assert query(mesh, f"SELECT _generation, count(*) FROM {ORDERS} GROUP BY 1 ORDER BY 1") == [(1, 45), (2, 30)]
    assert_exactly_once(mesh, ORDERS)


def test_redrives_beside_a_sink_and_behind_a_roll_back(early: Mesh) -> None:
    mesh = amended(early)
    product = mesh.product(ORDERS)
    before = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product).metadata.current_snapshot_id
    assert before is not None
    with running(mesh, [ORDERS]) as sink:
        with ThreadPoolExecutor(2) as pool:
            send(mesh, product.topic, events(mesh, product, map(order, range(200, 260))))
            redrives = [pool.submit(headrace, mesh, "dlq", "redrive", ORDERS, "--yes") for _ in range(2)]
            send(mesh, product.topic, events(mesh, product, map(order, range(260, 320))))
            assert [each.result(WAIT_S) for each in redrives] == [0, 0]
        assert eventually(lambda: sink.rows(ORDERS) == 120, within_s=WAIT_S)
    assert query(mesh, f"SELECT count(*) FROM {ORDERS}") == [(165,)]
    assert_exactly_once(mesh, ORDERS)

    table = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    table.manage_snapshots().rollback_to_snapshot(before).commit()
    assert headrace(mesh, "dlq", "redrive", ORDERS, "--yes") == 0
    assert caught_up(mesh, ORDERS).outcomes == {ORDERS: True}
    assert query(mesh, f"SELECT count(*), count(DISTINCT id) FROM {ORDERS}") == [(165, 165)]
    assert_exactly_once(mesh, ORDERS)


def test_a_dead_letter_topic_that_is_missing_is_told_at_once(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    Admin(mesh.environment.kafka_config()).delete(product.dead_letter_topic)
    send(mesh, product.topic, [("gone", None)])
    sink = caught_up(mesh)
    assert sink.outcomes == {ORDERS: False}
    (stopped,) = sink.logged("stopped")
    assert (stopped["what"], stopped["where"]) == ("the topic does not exist", product.dead_letter_topic)
    assert stopped["next"] == "headrace apply"
