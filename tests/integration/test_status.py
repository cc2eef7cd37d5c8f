"""``headrace status`` on a real broker and registry: what it shows is what ``headrace verify`` counts."""

from __future__ import annotations

import datetime as dt
import json
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.governance.judge import FINDINGS
from headrace.producers import Publisher
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import HeadraceError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.selfserve.backlog import COUNTED_OFFSETS, DeadLetterBox
from headrace.selfserve.main import main
from headrace.selfserve.overview import Overview
from headrace.selfserve.stack import Endpoints
from headrace.selfserve.survey import Survey
from headrace.sinks.hold import hold
from headrace.streams.admin import Admin
from tests.support.meshes import ORDER, ORDERS, order, send, write_mesh
from tests.support.sinks import caught_up, events, eventually
from tests.support.topics import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

WAIT_S = 60.0
FLIGHTS = "air.flights"


def publish(mesh: Mesh, numbers: Iterable[int], *, partition: int = -1, name: str = ORDERS) -> None:
    product = mesh.product(name)
    send(mesh, product.topic, events(mesh, product, map(order, numbers)), partition=partition)


def poison(mesh: Mesh, count: int, *, partition: int = 0) -> None:
    send(mesh, mesh.product(ORDERS).topic, [("k", b"poison")] * count, partition=partition)


def letter(mesh: Mesh, partition: int, offset: int, topic_id: str) -> None:
    """Send a dead letter by hand, as a sink that died before its commit leaves it."""
    headers = {"headrace.topic-id": topic_id, "headrace.partition": partition, "headrace.offset": offset}
    producer = Producer(mesh.environment.kafka_config())
    producer.produce(
        mesh.product(ORDERS).dead_letter_topic,
        b"event",
        headers=[(name, str(value).encode()) for name, value in headers.items()],
    )
    assert producer.flush(WAIT_S) == 0


def asked(mesh: Mesh, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    ended = main(["--mesh", str(mesh.root), "--environment", "cluster", *words, "--format", "json"])
    return ended, json.loads(capsys.readouterr().out)


def shown(mesh: Mesh, capsys: pytest.CaptureFixture[str], name: str = ORDERS) -> dict[str, Any]:
    """What status says of a product."""
    _, document = asked(mesh, capsys, "status")
    (found,) = [each for each in document["products"] if each["product"] == name]
    return dict(found)


def assert_agreed(mesh: Mesh, capsys: pytest.CaptureFixture[str], **expected: int) -> dict[str, Any]:
    """Check that status and verify count the same, and that it is what is expected."""
    _, proof = asked(mesh, capsys, "verify", ORDERS)
    (product,) = proof["products"]
    assert product["error"] is None
    proved = {name: sum(each[name] for each in product["partitions"]) for name in ("pending", "rows", "dead_lettered")}
    assert all(each["missing"] == each["doubled"] == each["foreign"] == 0 for each in product["partitions"])
    found = shown(mesh, capsys)
    assert (found["lag_rows"], found["rows"], found["dead_letters"]) == tuple(proved.values())
    assert found["lag_exact"] is True
    assert {name: found[name] for name in expected} == expected
    return found


def test_a_table_that_holds_everything_has_no_lag(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, range(100))
    sink = caught_up(mesh)
    found = assert_agreed(mesh, capsys, lag_rows=0, rows=100, dead_letters=0)
    assert found["lag_seconds"] == 0
    assert found["snapshot_id"] == sink.landed[-1][1].snapshot_id
    assert found["last_commit"].endswith("Z")
    assert found["partitions"] == 2
    assert found["held"] is None
    assert found["faults"] == []


def test_a_table_that_nothing_was_committed_to(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    found = assert_agreed(mesh, capsys, lag_rows=0, rows=0, dead_letters=0)
    assert (found["snapshot_id"], found["last_commit"], found["lag_seconds"]) == (None, None, 0)
    publish(mesh, range(7))
    assert assert_agreed(mesh, capsys, lag_rows=7, rows=0)["lag_seconds"] > 0


def test_pending_events_are_counted_among_aborted_ones_and_ends_of_transactions(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, range(20))
    transaction(mesh, ORDERS, range(100, 110), commit=True)
    caught_up(mesh)
    assert_agreed(mesh, capsys, lag_rows=0, rows=30)
    transaction(mesh, ORDERS, range(200, 250), commit=False)
    assert_agreed(mesh, capsys, lag_rows=0, rows=30)
    transaction(mesh, ORDERS, range(300, 304), commit=True)
    publish(mesh, range(3), partition=1)
    found = assert_agreed(mesh, capsys, lag_rows=7, rows=30)
    assert 0 < found["lag_seconds"] < 300
    caught_up(mesh)
    assert_agreed(mesh, capsys, lag_rows=0, rows=37)


def test_an_open_transaction_is_no_lag(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    product = mesh.product(ORDERS)
    publish(mesh, range(3), partition=0)
    producer = Producer({**mesh.environment.kafka_config(), "transactional.id": product.topic})
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    producer.produce(product.topic, b"event", partition=0)
    producer.flush(WAIT_S)
    assert_agreed(mesh, capsys, lag_rows=3)
    producer.abort_transaction(WAIT_S)


def test_dead_letters_count_once_and_are_no_lag(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, range(10), partition=0)
    poison(mesh, 3)
    ledger = caught_up(mesh).landed[-1][1].ledger
    assert_agreed(mesh, capsys, lag_rows=0, rows=10, dead_letters=3)
    letter(mesh, 0, 11, ledger.topic_id)  # a repeat
    letter(mesh, 0, 12, "another-topic")
    letter(mesh, 0, 4, ledger.topic_id)  # of an event that is in the table: the table wins
    assert_agreed(mesh, capsys, lag_rows=0, rows=10, dead_letters=3)
    poison(mesh, 2)
    publish(mesh, range(4), partition=0)
    assert_agreed(mesh, capsys, lag_rows=6, dead_letters=3)
    letter(mesh, 0, 13, ledger.topic_id)  # its sink died before the commit
    assert_agreed(mesh, capsys, lag_rows=5, dead_letters=4)
    caught_up(mesh)
    assert_agreed(mesh, capsys, lag_rows=0, rows=14, dead_letters=5)


def test_a_survey_that_goes_on_sees_what_is_new_and_what_is_gone(mesh: Mesh) -> None:
    survey = Survey(mesh, [mesh.product(ORDERS)])

    def look() -> tuple[Any, ...]:
        (found,) = survey.look().products
        assert found.lag is not None
        return found.lag.rows, found.rows, found.dead_letters, found.held

    assert look() == (0, 0, 0, False)
    publish(mesh, range(5), partition=0)
    poison(mesh, 2)
    assert look() == (7, 0, 0, False)
    caught_up(mesh)
    assert look() == (0, 5, 2, False)
    poison(mesh, 1)
    caught_up(mesh)
    assert look() == (0, 5, 3, False)
    deleted_below(mesh, mesh.product(ORDERS).dead_letter_topic, 0, 1)
    assert look() == (0, 5, 2, False)
    deleted_below(mesh, mesh.product(ORDERS).topic, 0, 7)
    assert look() == (0, 5, 1, False)
    catalog = open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))
    hold(catalog, mesh.product(ORDERS), "the lake moves", dt.datetime.now(dt.UTC))
    assert look() == (0, 5, 1, True)


def deleted_below(mesh: Mesh, topic: str, partition: int, offset: int) -> None:
    admin = AdminClient({**mesh.environment.kafka_config()})
    for future in admin.delete_records([TopicPartition(topic, partition, offset)]).values():
        future.result(WAIT_S)


def test_many_letters_are_compared_with_the_table_too(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, range(300), partition=1)
    ledger = caught_up(mesh).landed[-1][1].ledger
    product = mesh.product(ORDERS)
    headers = [("headrace.topic-id", ledger.topic_id.encode()), ("headrace.partition", b"1")]
    producer = Producer(mesh.environment.kafka_config())
    for offset in range(250):
        producer.produce(
            product.dead_letter_topic, b"event", headers=[*headers, ("headrace.offset", str(offset).encode())]
        )
    assert producer.flush(WAIT_S) == 0
    assert_agreed(mesh, capsys, lag_rows=0, rows=300, dead_letters=0)


def test_far_behind_the_lag_is_a_bound_and_says_so(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    transaction(mesh, ORDERS, range(140), commit=False)  # further than the first window that is looked into
    send(mesh, mesh.product(ORDERS).topic, repeat(("k", b"event"), COUNTED_OFFSETS), partition=0)
    found = shown(mesh, capsys)
    assert (found["lag_rows"], found["lag_exact"]) == (COUNTED_OFFSETS + 141, False)
    assert 0 < found["lag_seconds"] < 300
    main(["--mesh", str(mesh.root), "--environment", "cluster", "status"])
    assert "≤ 200,141" in capsys.readouterr().out


def test_one_products_fault_stops_no_other(
    cluster: Cluster, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schemas = dict.fromkeys((ORDERS, FLIGHTS, "air.gates", "air.seats"), ORDER)
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas=schemas)
    assert asked(mesh, capsys, "status")[0] == 0
    for name in schemas:
        publish(mesh, range(4), name=name, partition=0)
    caught_up(mesh, ORDERS, "air.seats")
    publish(mesh, range(6), name="air.seats", partition=0)
    deleted_below(mesh, mesh.product("air.seats").topic, 0, 6)
    open_catalog(mesh.environment, mesh.domain_of(mesh.product(FLIGHTS))).drop_table(("air", "flights"))
    admin = AdminClient({**mesh.environment.kafka_config()})
    for future in admin.delete_topics([mesh.product("air.gates").topic]).values():
        future.result(WAIT_S)
    assert eventually(lambda: shown(mesh, capsys, "air.gates")["partitions"] == 0)
    ended, document = asked(mesh, capsys, "status")
    assert (ended, document["fine"], document["unasked"]) == (1, False, [])
    found = {each["product"]: each for each in document["products"]}
    faults = {name: each["faults"][0] for name, each in found.items() if each["faults"]}
    assert set(faults) == {FLIGHTS, "air.gates", "air.seats"}
    assert (found[ORDERS]["lag_rows"], found[ORDERS]["rows"]) == (0, 4)
    assert faults[FLIGHTS]["what"] == "the table does not exist"
    assert (found[FLIGHTS]["rows"], found[FLIGHTS]["lag_rows"]) == (None, None)
    assert faults["air.gates"]["what"] == "the topic does not exist"
    assert (found["air.gates"]["rows"], found["air.gates"]["lag_rows"]) == (0, None)
    assert "deleted offsets 4 to 5 of partition 0" in faults["air.seats"]["what"]
    assert found["air.seats"]["lag_rows"] == 4
    assert all(fault["next"] for fault in faults.values())


def test_a_topic_made_anew_and_a_damaged_ledger(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    product = mesh.product(ORDERS)
    publish(mesh, range(4))
    caught_up(mesh)
    admin = AdminClient({**mesh.environment.kafka_config()})
    for future in admin.delete_topics([product.topic]).values():
        future.result(WAIT_S)

    def anew() -> bool:
        apply(mesh, lambda _: None)
        return bool(shown(mesh, capsys)["faults"]) and shown(mesh, capsys)["partitions"] == 2

    assert eventually(anew)
    found = shown(mesh, capsys)
    assert "the topic was made anew" in found["faults"][0]["what"]
    assert (found["rows"], found["lag_rows"]) == (4, None)
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    table = load_table(catalog, product)
    table.append(table.scan().to_arrow(), snapshot_properties={"headrace.ledger": "{"})
    found = shown(mesh, capsys)
    assert "ledger" in found["faults"][0]["what"]
    assert (found["rows"], found["lag_rows"], found["last_commit"]) == (8, None, None)


def test_with_the_servers_down_it_shows_what_it_can(
    cluster: Cluster, mesh: Mesh, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, range(9))
    caught_up(mesh)
    # Port 9 is "discard", which nothing listens on.
    write_mesh(mesh.root, Endpoints("127.0.0.1:9", "http://127.0.0.1:9/apis"), prefix, {ORDERS: ORDER})
    ended, document = asked(mesh, capsys, "status")
    assert ended == 1
    (found,) = [each for each in document["products"] if each["product"] == ORDERS]
    assert (found["rows"], found["lag_rows"], found["dead_letters"], found["partitions"]) == (9, None, None, None)
    assert found["snapshot_id"] is not None
    assert found["faults"] == []
    kafka, registry = document["unasked"]
    assert kafka["where"] == "127.0.0.1:9"
    assert kafka["what"].startswith("Kafka does not answer")
    assert registry["what"].startswith("the schema registry does not answer")
    assert main(["--mesh", str(mesh.root), "--environment", "cluster", "status"]) == 1
    text = capsys.readouterr().out
    assert "no answer" in text
    assert "Kafka does not answer" in text


def test_with_a_catalog_down_the_topic_is_shown(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, range(3))
    tables = mesh.root / "tables" / "shop"
    (tables / "catalog.db").write_bytes(b"no database" * 1_000)
    found = shown(mesh, capsys)
    assert (found["partitions"], found["rows"], found["lag_rows"]) == (2, None, None)
    _, document = asked(mesh, capsys, "status")
    assert any("catalog does not answer" in error["what"] for error in document["unasked"])


def finding(number: int, status: str, product: str | None) -> dict[str, object]:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return {
        "event_id": f"{number}{status}", "finding_id": str(number), "status": status, "at": now, "opened_at": now,
        "rule": "a-rule", "topic": "a.topic", "product": product, "matter": "1", "what": "it is wrong",
        "next": "mend it", "observation_id": "o", "sequence": number,
    }  # fmt: skip


def test_open_findings_are_counted_where_they_belong(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(mesh, capsys)["open_findings"] == 0
    with Publisher(mesh, FINDINGS) as findings:
        findings.publish(finding(1, "OPEN", ORDERS))
        findings.publish(finding(2, "OPEN", None))
        findings.publish(finding(3, "OPEN", ORDERS))
    overview = Overview(mesh)

    def counted() -> tuple[int | None, int | None]:
        status = overview.look(())
        (found,) = [each for each in status.products if each.product == ORDERS]
        return found.open_findings, status.stray_findings

    assert counted() == (2, 1)
    with Publisher(mesh, FINDINGS) as findings:
        findings.publish(finding(1, "CLOSED", ORDERS))
    assert counted() == (1, 1)
    caught_up(mesh, FINDINGS)
    assert counted() == (1, 1)
    assert shown(mesh, capsys)["open_findings"] == 1


def test_without_the_registry_open_findings_are_not_known(
    cluster: Cluster, mesh: Mesh, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may be in the topic alone, which cannot be read then: none would be untrue."""
    with Publisher(mesh, FINDINGS) as findings:
        findings.publish(finding(1, "OPEN", ORDERS))
    away = Endpoints(cluster.endpoints.bootstrap_servers, "http://127.0.0.1:9/apis")
    write_mesh(mesh.root, away, prefix, {ORDERS: ORDER})
    overview = Overview(load_mesh(mesh.root, environment="cluster"))
    status = overview.look(())
    assert {each.open_findings for each in status.products} == {None}
    assert status.stray_findings is None
    assert any("schema registry does not answer" in error.what for error in status.unasked)
    write_mesh(mesh.root, cluster.endpoints, prefix, {ORDERS: ORDER})
    assert shown(mesh, capsys)["open_findings"] == 1


def test_findings_that_cannot_be_read_take_nothing_else_away(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    """Governance's own subject is gone: nobody can read its topic, and the mesh is shown all the same."""
    with Publisher(mesh, FINDINGS) as findings:
        findings.publish(finding(1, "OPEN", ORDERS))
    subject = mesh.product(FINDINGS).subject
    url = mesh.environment.registry_config()["url"]
    with urlopen(Request(f"{url}/subjects/{subject}", method="DELETE"), timeout=WAIT_S) as answer:
        assert answer.status == 200
    ended, document = asked(mesh, capsys, "status")
    (found,) = [each for each in document["products"] if each["product"] == ORDERS]
    assert (found["lag_rows"], found["open_findings"]) == (0, None)
    assert (ended, bool(document["unasked"])) == (1, True)


def test_the_last_commit_is_not_moved_by_a_hold(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, range(5))
    caught_up(mesh)
    before = shown(mesh, capsys)
    product = mesh.product(ORDERS)
    hold(open_catalog(mesh.environment, mesh.domain_of(product)), product, "", dt.datetime.now(dt.UTC))
    after = shown(mesh, capsys)
    assert after["held"]["reason"] == "no reason given"
    assert [after[name] for name in ("snapshot_id", "last_commit")] == [
        before[name] for name in ("snapshot_id", "last_commit")
    ]


def test_letters_that_could_not_be_read_once_are_not_forgotten(mesh: Mesh) -> None:
    box, admin = DeadLetterBox(), Admin(mesh.environment.kafka_config())
    topic = admin.topic(mesh.product(ORDERS).topic)
    letters = admin.topic(mesh.product(ORDERS).dead_letter_topic)
    for offset in range(3):
        letter(mesh, 0, offset, topic.id)
    known = partial(box.offsets, mesh.environment.kafka_config(), letters=letters, bounds=admin.watermarks(letters))
    assert len(known(topic)[0]) == 3
    # Of a topic that was made anew meanwhile, nothing can be read just now.
    anew = replace(topic, id="another-topic")
    with pytest.raises(HeadraceError):
        box.offsets({"no.such.setting": "1"}, anew, letters, admin.watermarks(letters))
    letter(mesh, 0, 7, anew.id)
    bounds = admin.watermarks(letters)
    assert box.offsets(mesh.environment.kafka_config(), anew, letters, bounds)[0].tolist() == [7]
    with pytest.raises(HeadraceError):
        box.offsets({"no.such.setting": "1"}, topic, letters, bounds)
    assert box.offsets(mesh.environment.kafka_config(), topic, letters, bounds)[0].tolist() == [0, 1, 2]


def watching(mesh: Mesh, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.root), "--environment", "cluster"]
    return subprocess.Popen(
        [*command, "status", "--watch", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_watch_writes_a_line_of_json_a_look_until_ctrl_c(mesh: Mesh) -> None:
    with watching(mesh, "--format", "json") as ran:
        assert ran.stdout is not None
        try:
            seen = []
            publish(mesh, range(5))
            for line in ran.stdout:
                (found,) = [each for each in json.loads(line)["products"] if each["product"] == ORDERS]
                seen.append((found["lag_rows"], found["rows"]))
                if seen[-1] == (5, 0):
                    caught_up(mesh)
                if seen[-1] == (0, 5):
                    break
            ran.send_signal(signal.SIGINT)
            _, err = ran.communicate(timeout=WAIT_S)
        finally:
            ran.kill()
    assert (5, 0) in seen
    assert ran.returncode == 130
    assert "Traceback" not in err


def test_watch_without_a_terminal_writes_one_report_after_the_other(mesh: Mesh) -> None:
    with watching(mesh) as ran:
        assert ran.stdout is not None
        try:
            reports = 0
            for line in ran.stdout:
                assert "\x1b" not in line
                reports += line.startswith("product ")
                if reports == 2:
                    break
        finally:
            ran.terminate()
    assert reports == 2
