"""A subscriber's session against a client that does what it is told: commits, rebalances, outages, slow history."""

from __future__ import annotations

import datetime as dt
import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import ProductStopped, Unavailable, UserError
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.registered import RegisteredSchema
from headrace.streams import arrivals, following, reader
from headrace.streams.admin import Admin, Topic, Watermarks
from headrace.streams.ahead import in_thread
from headrace.streams.beginnings import Beginnings, Course
from headrace.streams.following import Following
from headrace.streams.masked import Masking
from headrace.streams.opening import checked_start
from headrace.streams.past import Past
from headrace.streams.pinned import Pinned
from headrace.streams.starts import Start
from headrace.streams.versions import Versions
from tests.support.lake import TOPIC_ID, Lake, product_of
from tests.support.meshes import encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.streams.frames import Frame
    from headrace.streams.portions import Portion

SCHEMA = AvroSchema.parse(json.dumps({"type": "record", "name": "E", "fields": [{"name": "id", "type": "long"}]}))
PRODUCT = product_of(SCHEMA)
VERSION = RegisteredSchema(7, 1, "shop.orders-value", SCHEMA)
END = 4


class Message:
    """What the reader asks of confluent-kafka's message."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def key(self) -> None:
        return None

    def headers(self) -> None:
        return None

    def value(self) -> bytes:
        return encoded(SCHEMA, VERSION.id, {"id": self._offset})


class Client:
    """A consumer of one partition. What is put into ``next_polls`` is done by the next polls, one each."""

    def __init__(self) -> None:
        self.next_polls: list[Callable[[], None]] = []
        self.commits: list[dict[int, int]] = []
        self.refusals = 0
        self.polls = 0
        self.assigned: dict[int, int] = {}
        self.paused = False
        self.on: dict[str, Any] = {}

    def subscribe(self, _: list[str], **on: Any) -> None:
        # Each session has a client of its own.
        self.on, self.assigned, self.paused = on, {}, False
        self.next_polls.append(self.assign)

    def assign(self) -> None:
        self.on["on_assign"](self, [TopicPartition("t", 0)])

    def revoke(self) -> None:
        self.on["on_revoke"](self, [TopicPartition("t", 0)])

    def consume(self, *_: Any) -> list[Message]:
        self.polls += 1
        if self.next_polls:
            self.next_polls.pop(0)()
        if self.paused or 0 not in self.assigned:
            return []
        first, self.assigned[0] = self.assigned[0], END
        return [Message(offset) for offset in range(first, END)]

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        known = {p: at for commit in self.commits for p, at in commit.items()}
        return [TopicPartition("t", each.partition, known.get(each.partition, -1001)) for each in partitions]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        if not asynchronous and self.refusals:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))
        self.commits.append({each.partition: each.offset for each in offsets})

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.assigned |= {place.partition: place.offset for place in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for place in places:
            self.assigned.pop(place.partition, None)

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", partition) for partition in self.assigned]

    def pause(self, _: list[TopicPartition]) -> None:
        self.paused = True

    def resume(self, _: list[TopicPartition]) -> None:
        self.paused = False

    def close(self) -> None:
        if self.assigned:
            self.revoke()


class Cluster:
    """A cluster of one topic of one partition."""

    asked_ms: int | None = None
    found: Mapping[int, int] = {}

    def __init__(self, _: object = None) -> None:
        pass

    def topic(self, name: str) -> Topic:
        return Topic(name, TOPIC_ID, 1)

    def watermarks(self, _: Topic) -> dict[int, Watermarks]:
        return {0: Watermarks(0, END)}

    def offsets_at(self, _: Topic, timestamp_ms: int) -> Mapping[int, int]:
        type(self).asked_ms = timestamp_ms
        return self.found


MESH = cast("Mesh", SimpleNamespace(environment=SimpleNamespace(kafka_config=dict)))


def course_of(*, start: Any = Start.EARLIEST, autocommit: bool = True) -> Course:
    return Course(MESH, PRODUCT, "g", start, until_end=True, autocommit=autocommit)


def pinned_of() -> Pinned:
    versions = Versions(PRODUCT, [VERSION], lambda: [VERSION], lambda _: None)
    return Pinned(PRODUCT, VERSION, versions, Masking(False, None, PRODUCT, PiiPolicy(default=Mask.HMAC_SHA_256), b""))


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    made = Client()
    monkeypatch.setattr(reader, "Message", Message)
    monkeypatch.setattr(arrivals, "Message", Message)
    monkeypatch.setattr(reader, "open_consumer", lambda _: made)
    monkeypatch.setattr(following, "Admin", Cluster)
    monkeypatch.setattr(following, "WAIT_S", 0.0)
    return made


@pytest.fixture
def by_hand(client: Client) -> Following:
    """A subscriber that commits when it is told to."""
    return Following(course_of(autocommit=False), pinned_of())


def handed_out(follower: Following, handled: int) -> Iterator[Portion]:
    """Take the first portion with events, and handle some of them."""
    coming = follower.portions()
    portion = next(coming)
    follower.handled(portion, handled)
    return coming


def rest(follower: Following, coming: Iterator[Portion]) -> Iterator[tuple[int, bool]]:
    """Handle all that comes: yield ids, and whether they came from history."""
    for portion in coming:
        yield from ((number, portion.from_history) for number in portion.events.column("id").to_pylist())
        follower.handled(portion, portion.end)


def out_once(monkeypatch: pytest.MonkeyPatch, pinned: Pinned) -> None:
    """Let the registry be out of reach for one poll."""
    portions = pinned.portions

    def out(frames: Sequence[Frame]) -> Iterator[Portion]:
        monkeypatch.setattr(pinned, "portions", portions)
        raise Unavailable("the registry does not answer")

    monkeypatch.setattr(pinned, "portions", out)


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_outage_commits_only_for_who_lets_it(
    client: Client, monkeypatch: pytest.MonkeyPatch, *, autocommit: bool
) -> None:
    pinned = pinned_of()
    follower = Following(course_of(autocommit=autocommit), pinned)
    coming = handed_out(follower, 2)
    # Else a second may pass, and it commits as it goes on.
    monkeypatch.setattr(following, "COMMIT_S", 60.0)
    monkeypatch.setattr(following, "ALIVE_S", 0.0)
    out_once(monkeypatch, pinned)
    # What was handled does not come again within one subscriber, committed or not.
    assert list(rest(follower, coming)) == [(2, False), (3, False)]
    assert any(client.commits) is autocommit


def test_a_commit_that_a_rebalance_delays_is_made_in_the_end(client: Client, by_hand: Following) -> None:
    handed_out(by_hand, 3)
    client.refusals = 2
    by_hand.commit()
    assert client.commits == [{0: 3}]


def test_a_commit_of_partitions_that_are_taken_away_meanwhile_is_told(client: Client, by_hand: Following) -> None:
    handed_out(by_hand, 3)
    client.refusals = 1
    client.next_polls.append(client.revoke)
    with pytest.raises(Unavailable, match="partitions 0 were given to others before their positions were committed"):
        by_hand.commit()
    assert client.commits == []


def test_an_outage_in_a_commits_poll_starts_the_session_anew(client: Client, by_hand: Following) -> None:
    coming = handed_out(by_hand, 3)
    client.refusals = 1

    def out() -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    client.next_polls.append(out)
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        by_hand.commit()
    assert by_hand.current is None
    assert list(rest(by_hand, coming)) == [(3, False)]


def test_a_commit_that_comes_too_late_says_what_was_too_slow(client: Client, by_hand: Following) -> None:
    handed_out(by_hand, 3)
    client.refusals = 1

    def missed() -> None:
        raise reader.PollMissed("the reader has to start anew")

    client.next_polls.append(missed)
    with pytest.raises(UserError, match="the subscriber was too slow"):
        by_hand.commit()


def events_of(count: int) -> pa.StructArray:
    return pa.array([{"id": number} for number in range(count)], pa.struct({"id": pa.int64()}))


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A table of the topic's first three events."""
    lake = Lake(tmp_path, SCHEMA)
    lake.add(events_of(3), schema_id=VERSION.id)
    monkeypatch.setattr(Beginnings, "_load", lambda _: lake.table)
    return lake


def test_history_that_is_slow_to_read_keeps_the_membership(
    client: Client, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ALIVE_S", 0.0)
    polled = threading.Event()
    rows = Past.rows

    def slow(self: Past, spans: Any) -> Iterator[tuple[int, pa.RecordBatch]]:
        # Done once the member has been polled three times more.
        client.next_polls += [lambda: None, lambda: None, polled.set]
        assert polled.wait(60)
        yield from rows(self, spans)

    monkeypatch.setattr(Past, "rows", slow)
    follower = Following(course_of(start=Start.HISTORY), pinned_of())
    assert list(rest(follower, follower.portions())) == [(0, True), (1, True), (2, True), (3, False)]


def test_what_fails_while_history_is_read_is_told(client: Client, lake: Lake) -> None:
    (task,) = lake.table.scan().plan_files()
    with lake.table.io.new_output(task.file.file_path).create(overwrite=True) as stream:
        stream.write(b"no Parquet")
    with pytest.raises(ProductStopped, match="a data file cannot be read"):
        list(Following(course_of(start=Start.HISTORY), pinned_of()).portions())


def test_a_thread_fetches_one_item_at_a_time_and_only_when_asked() -> None:
    go, fetched = threading.Event(), list[int]()

    def items() -> Iterator[int]:
        for number in range(3):
            assert go.wait(60)
            fetched.append(number)
            yield number

    coming = in_thread(items())
    assert next(coming) is None
    go.set()
    assert next(each for each in coming if each is not None) == 0
    assert fetched == [0]
    assert [each for each in coming if each is not None] == [1, 2]


def start_at(start: Any) -> int:
    cluster = cast("Admin", Cluster())
    begun = Beginnings(course_of(start=checked_start(start)), cluster, pinned_of()).of({0: None})
    return begun.positions[0]


def test_a_time_before_1970_begins_with_the_first_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka takes -1 and -2 ms for the end and the beginning."""
    monkeypatch.setattr(Cluster, "found", {0: 0})
    assert start_at(dt.datetime(1, 1, 1, tzinfo=dt.UTC)) == 0
    assert Cluster.asked_ms == 0


def test_a_time_whose_first_event_came_just_now_begins_at_the_end_that_was_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Cluster, "found", {0: END + 2})
    assert start_at(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)) == END


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ({9: 5}, "cannot start in partition 9, which the topic does not have"),
        ({0: -5}, "cannot start at offset -5 of partition 0"),
        ({"0": 5}, "cannot start at offset 5 of partition '0'"),
        ({0: 1.5}, "cannot start at offset 1.5 of partition 0"),
        ({0: True}, "cannot start at offset True of partition 0"),
        ({0: END + 1}, "lies behind the topic's end 4"),
    ],
)
def test_offsets_that_cannot_be_are_told(start: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        start_at(start)
    assert caught.value.hint


def test_offsets_begin_where_they_say() -> None:
    assert start_at({0: 2}) == 2
    assert start_at({}) == 0
