"""Publishing on real Kafka and a real registry: what arrives, what does not, and runs that are killed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace.producers.files import publish_file
from headrace.producers.positions import positions_topic
from headrace.producers.publisher import Publisher
from headrace.producers.resumable import Published, publish_all
from headrace.schemas.errors import Bug, EventError, NotApplied, Unavailable, UserError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.selfserve.stack import stack_of
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.schemas.mesh import Mesh

AIRLINE = Path(__file__).parents[2] / "examples" / "airline"
PRODUCT = "fleet.aircraft"
# Enough for several transactions of 10,000.
MANY = 45_000
# What takes seconds on a quiet machine may take minutes where three test processes and their servers share two cores.
WAIT_S = 240.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example's folder with one of its domains, its servers up."""
    folder = tmp_path_factory.mktemp("mesh") / "airline"
    shutil.copytree(AIRLINE, folder, ignore=shutil.ignore_patterns("loyalty", "marketing", "operations", "weather"))
    stack = stack_of(load_mesh(folder).environment)
    stack.up(die_with_parent=True, progress=lambda _: None)
    yield folder
    stack.down(lambda _: None)


@pytest.fixture
def mesh(root: Path, request: pytest.FixtureRequest) -> Mesh:
    """The example with topics of the test's own, applied."""
    prefix = "".join(character for character in request.node.name.lower() if character.isalnum())[:40]
    fresh = mesh_with_prefix(root, f"{prefix}.")
    apply(fresh, lambda _: None)
    return fresh


def mesh_with_prefix(root: Path, prefix: str) -> Mesh:
    settings = root / "mesh.yaml"
    text = (AIRLINE / "mesh.yaml").read_text()
    settings.write_text(text.replace("stack: embedded", f"stack: embedded\n    topic_prefix: {prefix}"))
    return load_mesh(root)


def aircraft(number: int) -> dict[str, Any]:
    return {
        "tailnum": f"N{number}",
        "year": None if number % 3 else 2000,
        "type": "Fixed wing",
        "manufacturer": "ACME",
        "model": "A1",
        "engines": 2,
        "seats": number,
        "engine": "Turbo-fan",
    }


def source(count: int) -> Iterator[tuple[int, object]]:
    return ((number, aircraft(number)) for number in range(count))


@dataclass(frozen=True)
class Arrived:
    partition: int
    key: bytes
    event: dict[str, Any]


def arrived(mesh: Mesh, product: str = PRODUCT) -> list[Arrived]:
    """Everything committed in the product's topic, by a consumer that knows nothing of headrace."""
    found = mesh.product(product)
    consumer = Consumer(
        {
            **mesh.environment.kafka_config(),
            "group.id": "test",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    partitions = found.contract.partitions
    consumer.assign([TopicPartition(found.topic, partition, 0) for partition in range(partitions)])
    messages: list[Arrived] = []
    ended: set[int | None] = set()
    deadline = time.monotonic() + 60
    while len(ended) < partitions:
        assert time.monotonic() < deadline, "the end of the topic is not reached"
        for message in consumer.consume(10_000, 0.2):
            if message.error() is not None:
                ended.add(message.partition())
                continue
            value, partition, key = message.value(), message.partition(), message.key()
            assert value is not None
            assert partition is not None
            assert isinstance(key, bytes)
            assert message.headers() is None
            event: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), found.schema.parsed, None)
            messages.append(Arrived(partition, key, event))
    consumer.close()
    return messages


def seats(mesh: Mesh) -> Counter[int]:
    return Counter(message.event["seats"] for message in arrived(mesh))


def eventually(condition: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_published_events_arrive_keyed_once_and_in_order(mesh: Mesh) -> None:
    with Publisher(mesh, PRODUCT) as planes:
        for number in range(5_000):
            planes.publish(aircraft(number % 100) | {"seats": number})
    found = arrived(mesh)
    assert sorted(message.event["seats"] for message in found) == list(range(5_000))
    for tailnum in range(100):
        own = [message for message in found if message.key == f"N{tailnum}".encode()]
        assert [message.event["seats"] for message in own] == list(range(tailnum, 5_000, 100))
        assert len({message.partition for message in own}) == 1
    # Java's murmur2, masked to be positive, of "N0" … "N4", modulo 2 partitions.
    assert {message.key: message.partition for message in found}[b"N0"] == murmur2(b"N0") % 2
    assert {message.key: message.partition for message in found}[b"N17"] == murmur2(b"N17") % 2


def murmur2(data: bytes) -> int:
    """Kafka's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), masked to be positive."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    for start in range(0, len(data) - len(data) % 4, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = value * multiplier & mask ^ word
    if rest := data[len(data) - len(data) % 4 :]:
        value = (value ^ int.from_bytes(rest, "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return (value ^ value >> 15) & 0x7FFFFFFF


def test_a_refused_event_does_not_leave_and_the_others_do(mesh: Mesh) -> None:
    def publish() -> None:
        with Publisher(mesh, PRODUCT) as planes:
            planes.publish(aircraft(1))
            planes.publish(aircraft(2) | {"seats": "many"})

    with pytest.raises(EventError, match="seats: expected an Avro int, found str"):
        publish()
    assert seats(mesh) == {1: 1}


def test_an_event_that_is_too_large_is_refused(mesh: Mesh) -> None:
    with pytest.raises(UserError, match="MSG_SIZE_TOO_LARGE"), Publisher(mesh, PRODUCT) as planes:
        planes.publish(aircraft(1) | {"model": "x" * 2_000_000})
    with pytest.raises(UserError, match="MSG_SIZE_TOO_LARGE"):
        publish_all(mesh, PRODUCT, [(1, aircraft(1) | {"model": "x" * 2_000_000})], identity="large")
    assert arrived(mesh) == []


def test_what_the_broker_refuses_reaches_the_caller(mesh: Mesh) -> None:
    Admin(mesh.environment.kafka_config()).set_config(mesh.product(PRODUCT).topic, {"max.message.bytes": "100"})
    publisher = Publisher(mesh, PRODUCT)
    for number in range(3):
        publisher.publish(aircraft(number))
    with pytest.raises(UserError, match="not delivered"):
        publisher.flush()
    publisher.close()
    with pytest.raises(UserError, match="closed"):
        publisher.publish(aircraft(1))


def test_nothing_is_published_where_nothing_was_applied(root: Path) -> None:
    fresh = mesh_with_prefix(root, "never.")
    with pytest.raises(NotApplied, match="headrace apply"):
        Publisher(fresh, PRODUCT)
    with pytest.raises(NotApplied, match="headrace apply"):
        publish_all(fresh, PRODUCT, [], identity="x")
    # With the topic there, the schema is missing still, and no producer registers it.
    admin = Admin(fresh.environment.kafka_config())
    for topic in (fresh.product(PRODUCT).topic, positions_topic("never.")):
        admin.create(topic, partitions=1, config={})
    for _ in range(2):
        with pytest.raises(NotApplied, match="the schema is not registered"):
            Publisher(fresh, PRODUCT)
        with pytest.raises(NotApplied, match="the schema is not registered"):
            publish_all(fresh, PRODUCT, [], identity="x")


def test_an_unknown_product_is_a_mistake(mesh: Mesh) -> None:
    with pytest.raises(UserError, match=r"did you mean fleet\.aircraft"):
        Publisher(mesh, "fleet.aircrafts")


def test_a_source_is_published_once(mesh: Mesh) -> None:
    told: list[int] = []
    assert publish_all(mesh, PRODUCT, source(MANY), identity="a", on_progress=told.append) == Published(MANY, 0)
    assert sum(told) == MANY
    assert len(told) > 3

    unread = source(MANY)
    assert publish_all(mesh, PRODUCT, unread, identity="a") == Published(0, MANY)
    assert next(iter(unread))[0] == 0
    assert seats(mesh) == dict.fromkeys(range(MANY), 1)
    # Another identity is another source.
    assert publish_all(mesh, PRODUCT, source(3), identity="b") == Published(3, 0)


def test_a_source_that_fails_is_continued_behind_its_last_commit(mesh: Mesh) -> None:
    def failing() -> Iterator[tuple[int, object]]:
        yield from source(25_000)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk"):
        publish_all(mesh, PRODUCT, failing(), identity="a")
    committed = sum(seats(mesh).values())
    assert 0 < committed < 25_000
    with pytest.raises(EventError):
        publish_all(mesh, PRODUCT, [*source(20_001), (20_001, {})], identity="a")
    assert publish_all(mesh, PRODUCT, source(MANY), identity="a") == Published(MANY - committed, committed)
    assert seats(mesh) == dict.fromkeys(range(MANY), 1)


def test_positions_must_rise(mesh: Mesh) -> None:
    with pytest.raises(Bug, match="rise"):
        publish_all(mesh, PRODUCT, [(1, aircraft(1)), (1, aircraft(2))], identity="a")
    assert arrived(mesh) == []


CHILD = """
import sys
from pathlib import Path
from headrace.producers.resumable import publish_all
from headrace.schemas.mesh import load_mesh
from tests_source import source
publish_all(load_mesh(Path(sys.argv[1])), sys.argv[2], source(int(sys.argv[3])), identity="a",
            on_progress=lambda count: print(count, flush=True))
print("done", flush=True)
"""


@pytest.mark.timeout(900)
def test_a_killed_run_is_continued_without_loss_or_double(mesh: Mesh, tmp_path: Path) -> None:
    count = 150_000
    (tmp_path / "tests_source.py").write_text(
        f"import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('publish_tests', {str(Path(__file__))!r})\n"
        f"module = importlib.util.module_from_spec(spec)\n"
        f"import sys; sys.modules['publish_tests'] = module\n"
        f"spec.loader.exec_module(module)\n"
        f"source = module.source\n"
    )
    admin = Admin(mesh.environment.kafka_config())
    topic = admin.topic(mesh.product(PRODUCT).topic)

    def in_a_transaction() -> bool:
        ends = admin.log_ends(topic)
        committed = admin.watermarks(topic)
        return any(ends[partition] > committed[partition].end for partition in ends)

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CHILD, str(mesh.root), PRODUCT, str(count)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)

    for commits in (0, 1, 2):
        with start() as child:
            assert child.stdout is not None
            for _ in range(commits):
                assert child.stdout.readline().strip().isdigit()
            eventually(in_a_transaction)
            child.kill()
    with start() as child:
        output, _ = child.communicate(timeout=WAIT_S)
    assert output.split()[-1] == b"done"
    sent = sum(int(line) for line in output.split()[:-1])
    assert 0 < sent < count, "the killed runs committed something, and the last one the rest"
    assert seats(mesh) == dict.fromkeys(range(count), 1)


@pytest.mark.timeout(900)
def test_a_second_process_fences_the_first(mesh: Mesh) -> None:
    reached, go_on = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def blocking() -> Iterator[tuple[int, object]]:
        for position, event in source(MANY):
            if position == 15_000:
                reached.set()
                assert go_on.wait(WAIT_S)
            yield position, event

    def first() -> None:
        try:
            publish_all(mesh, PRODUCT, blocking(), identity="a")
        except BaseException as error:  # noqa: BLE001 - handed to the test
            outcome.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    eventually(lambda: reached.is_set() or outcome != [])
    assert outcome == []
    second = publish_all(mesh, PRODUCT, source(MANY), identity="a")
    go_on.set()
    thread.join(WAIT_S)
    (error,) = outcome
    assert isinstance(error, UserError)
    assert "has taken over" in str(error)
    assert (second.before > 0, second.sent + second.before) == (True, MANY)
    assert seats(mesh) == dict.fromkeys(range(MANY), 1)


def test_a_position_is_found_behind_another_sources_open_transaction(mesh: Mesh) -> None:
    positions = positions_topic(mesh.environment.topic_prefix)
    other = Producer({**mesh.environment.kafka_config(), "transactional.id": "other"})
    other.init_transactions(30)
    other.begin_transaction()
    other.produce(positions, b"{}", b"another|source")
    other.flush(30)
    # This position is committed behind the open transaction, where a read_committed reader does not look yet.
    committed = threading.Event()
    results: list[Published] = []

    def twice() -> None:
        results.append(publish_all(mesh, PRODUCT, source(3), identity="a", on_progress=lambda _: committed.set()))
        results.append(publish_all(mesh, PRODUCT, source(3), identity="a"))

    thread = threading.Thread(target=twice)
    thread.start()
    other.abort_transaction(30)
    thread.join(WAIT_S)
    assert results == [Published(3, 0), Published(0, 3)]


def test_a_topic_made_anew_is_published_into_again(mesh: Mesh) -> None:
    assert publish_all(mesh, PRODUCT, source(3), identity="a") == Published(3, 0)
    topic = mesh.product(PRODUCT).topic
    client = AdminClient({**mesh.environment.kafka_config()})
    client.delete_topics([topic])[topic].result(30)
    admin = Admin(mesh.environment.kafka_config())
    eventually(lambda: not admin.find(topic))
    apply(mesh, lambda _: None)
    assert publish_all(mesh, PRODUCT, source(3), identity="a") == Published(3, 0)
    assert seats(mesh) == dict.fromkeys(range(3), 1)


def test_a_file_is_published_once_whatever_its_name(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "planes.jsonl"
    file.write_text("".join(json.dumps(aircraft(number)) + "\n" for number in range(12_000)))
    result = publish_file(mesh, PRODUCT, file)
    assert (result.published, result.good, result.bad_lines) == (Published(12_000, 0), 12_000, 0)
    other = file.rename(tmp_path / "copy.ndjson")
    assert publish_file(mesh, PRODUCT, other).published == Published(0, 12_000)
    assert seats(mesh) == dict.fromkeys(range(12_000), 1)


def test_bad_lines_keep_a_file_back_unless_they_are_skipped(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "planes.csv"
    header = list(aircraft(1))
    rows = [",".join("" if value is None else str(value) for value in aircraft(n).values()) for n in range(4)]
    file.write_text("\n".join([",".join(header), rows[0], rows[1].replace(",1,", ",one,"), rows[2], "x", rows[3], ""]))
    kept = publish_file(mesh, PRODUCT, file)
    assert (kept.published, kept.good, kept.bad_lines) == (None, 3, 2)
    assert [str(line) for line in kept.bad] == [
        "line 3: seats: the text is no integer",
        "line 5: there are 1 cells, the header has 8",
    ]
    assert arrived(mesh) == []
    sent = publish_file(mesh, PRODUCT, file, skip_bad=True)
    assert (sent.published, sent.bad) == (Published(3, 0), kept.bad)
    assert seats(mesh) == dict.fromkeys((0, 2, 3), 1)


@pytest.mark.parametrize("name", ["missing.csv", "planes.parquet", "folder.jsonl"])
def test_a_file_that_is_none_is_a_mistake(mesh: Mesh, tmp_path: Path, name: str) -> None:
    (tmp_path / "planes.parquet").touch()
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError) as caught:
        publish_file(mesh, PRODUCT, tmp_path / name)
    assert caught.value.where == str(tmp_path / name)


def test_a_broker_that_is_down_is_waited_for_and_then_told(mesh: Mesh) -> None:
    """Last in this file: it stops the servers and starts them again."""
    stack = stack_of(mesh.environment)
    with Publisher(mesh, PRODUCT) as planes:
        planes.publish(aircraft(1))
    publisher = Publisher(mesh, PRODUCT, delivery_timeout_s=1.0)
    stack.down(lambda _: None)
    publisher.publish(aircraft(2))
    with pytest.raises(Unavailable, match="1 event was not delivered"):
        publisher.flush()
    publisher.close()
    with pytest.raises(Unavailable, match="headrace up"):
        Publisher(mesh, PRODUCT)
    with pytest.raises(Unavailable, match="headrace up"):
        publish_all(mesh, PRODUCT, [], identity="x")
    stack.up(die_with_parent=True, progress=lambda _: None)
    with Publisher(mesh, PRODUCT) as planes:
        planes.publish(aircraft(3))
    assert seats(mesh) == {1: 1, 3: 1}
