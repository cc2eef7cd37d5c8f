"""The reader against a client that does what it is told: bounds of a poll, rebalances, errors."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headrace.governance import logs
from headrace.schemas.errors import Unavailable, UserError
from headrace.streams import arrivals, reader, scan
from headrace.streams.admin import Topic, Watermarks
from headrace.streams.assigned import AssignedReader
from headrace.streams.kafka import CONSUME_ROWS
from headrace.streams.reader import KafkaReader, PollMissed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


# Headers that the client cannot give, because a name is not UTF-8.
UNREADABLE: list[tuple[str, bytes | None]] = []


class Message:
    """What the reader asks of confluent-kafka's message."""

    def __init__(self, offset: int, value: bytes = b"v", partition: int = 0, stamp: int = 0) -> None:
        self._offset, self._value, self._partition, self._stamp = offset, value, partition, stamp

        self._error: KafkaError | None = None
        self._headers: list[tuple[str, bytes | None]] | None = None

    def error(self) -> KafkaError | None:
        return self._error

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, self._stamp

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self._value

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        if self._headers is UNREADABLE:
            raise SystemError
        return self._headers


def failed(name: str) -> Message:
    """Return an error that comes among messages."""
    message = Message(0)
    message._error = KafkaError(getattr(KafkaError, name))
    return message


class Client:
    """A consumer whose answers a test gives; what is named in ``broken`` fails."""

    def __init__(self, *answers: Callable[[], list[Any]]) -> None:
        self.answers = list(answers)
        self.broken: set[str] = set()
        self.calls: list[str] = []
        self.on: dict[str, Any] = {}

    def subscribe(self, _: list[str], **on: Any) -> None:
        self.on = on

    def consume(self, *_: Any, **__: Any) -> list[Any]:
        return self.answers.pop(0)() if self.answers else []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", 0)]

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: Any) -> None:
            self.calls.append(name)
            if name in self.broken:
                raise KafkaException(KafkaError(KafkaError._TRANSPORT))

        return call


class Owner:
    """Starts every partition at 0 and gives all up."""

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        pass


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Client], KafkaReader]:
    # So that messages of a test may stand in for confluent-kafka's, which nobody but the client can make.
    monkeypatch.setattr(reader, "Message", Message)
    monkeypatch.setattr(arrivals, "Message", Message)

    def open_reader(client: Client) -> KafkaReader:
        monkeypatch.setattr(reader, "open_consumer", lambda _: client)
        return KafkaReader({}, "t", "g", Owner())

    return open_reader


@pytest.fixture(params=["group", "no group"])
def either(
    request: pytest.FixtureRequest, opened: Callable[[Client], KafkaReader], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Client], KafkaReader | AssignedReader]:
    """Open a reader of either kind: what holds for the one holds for the other."""

    def open_reader(client: Client) -> AssignedReader:
        monkeypatch.setattr(reader, "open_consumer", lambda _: client)
        return AssignedReader({}, "t", range(1), Owner())

    return opened if request.param == "group" else open_reader


def full(first: int, value: bytes = b"v") -> Callable[[], list[Message]]:
    return lambda: [Message(offset, value) for offset in range(first, first + CONSUME_ROWS)]


def test_a_poll_ends_at_its_bytes_while_the_client_has_more(
    either: Callable[[Client], KafkaReader | AssignedReader],
) -> None:
    client = Client(*(full(place * CONSUME_ROWS, bytes(70_000)) for place in range(5)))
    polled = either(client).poll(60)
    # Two calls bring 67 MiB.
    assert [len(frame) for frame in polled.frames] == [2 * CONSUME_ROWS]
    assert len(client.answers) == 3


def test_a_poll_ends_at_its_deadline_while_the_client_has_more(
    either: Callable[[Client], KafkaReader | AssignedReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(*(full(place * CONSUME_ROWS) for place in range(5)))
    ticks = iter([100.0, *(100.0 + tick / 10 for tick in range(100))])
    polling = either(client)
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    assert sum(map(len, polling.poll(0.25).frames)) < 5 * CONSUME_ROWS
    assert client.answers


@pytest.mark.parametrize("name", ["pause", "resume"])
def test_a_client_that_fails_to_pause_is_unavailable(
    either: Callable[[Client], KafkaReader | AssignedReader], name: str
) -> None:
    client = Client()
    polling = either(client)
    if name == "resume":
        polling.pause()
    client.broken.add(name)
    with pytest.raises(Unavailable, match="Kafka does not answer") as caught:
        getattr(polling, name)()
    assert caught.value.where == "t"


@pytest.mark.parametrize(
    ("event", "call"), [("on_assign", "incremental_assign"), ("on_revoke", "incremental_unassign")]
)
def test_a_rebalance_that_the_client_fails_is_raised_from_poll(
    opened: Callable[[Client], KafkaReader], event: str, call: str
) -> None:
    client = Client()
    polling = opened(client)

    def rebalanced() -> list[Message]:
        client.on[event](client, [TopicPartition("t", 0)])
        return []

    client.answers.append(rebalanced)
    client.broken.add(call)
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        polling.poll(1)
    assert client.calls == [call]
    assert polling.poll(0).frames == ()


def test_a_partition_that_goes_and_comes_within_one_call_is_read_from_its_new_position(
    opened: Callable[[Client], KafkaReader],
) -> None:
    client = Client(full(10))
    polling = opened(client)

    def rebalanced() -> list[Message]:
        client.on["on_revoke"](client, [TopicPartition("t", 0)])
        client.on["on_assign"](client, [TopicPartition("t", 0)])
        return [Message(0), Message(1)]

    client.answers.append(rebalanced)
    polled = polling.poll(60)
    assert [frame.offsets.tolist() for frame in polled.frames] == [[0, 1]]


def test_a_closed_reader_tells_nobody_what_its_client_calls_back(
    opened: Callable[[Client], KafkaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes longer to leave than it may does so in another thread, while a new session is under way."""
    told: list[object] = []
    client = Client()
    polling = opened(client)
    monkeypatch.setattr(Owner, "assigned", lambda self, partitions: told.append(partitions))
    monkeypatch.setattr(Owner, "revoked", lambda self, partitions, *, lost: told.append(partitions))
    polling.close()
    for event in ("on_revoke", "on_lost", "on_assign"):
        client.on[event](client, [TopicPartition("t", 0)])
    assert told == []
    assert client.calls == ["close", "incremental_unassign", "incremental_unassign", "incremental_assign"]


def test_without_a_group_the_first_poll_assigns_and_a_pause_before_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(list, list)
    monkeypatch.setattr(reader, "open_consumer", lambda _: client)
    polling = AssignedReader({}, "t", range(2), Owner())
    polling.pause()
    polling.poll(0)
    polling.poll(0)
    assert client.calls == ["pause", "assign", "pause"]


def test_a_group_that_is_shared_in_another_way_is_the_persons_mistake(opened: Callable[[Client], KafkaReader]) -> None:
    client = Client(lambda: [failed("INCONSISTENT_GROUP_PROTOCOL")])
    with pytest.raises(UserError, match="share partitions out in another way"):
        opened(client).poll(1)


def test_polls_too_far_apart_are_told_from_other_outages(opened: Callable[[Client], KafkaReader]) -> None:
    with pytest.raises(PollMissed):
        opened(Client(lambda: [failed("_MAX_POLL_EXCEEDED")])).poll(1)


def test_a_commit_in_the_midst_of_a_rebalance_is_made_in_the_same_thread(
    opened: Callable[[Client], KafkaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client lets no other thread in while a poll is under way: a commit in one would wait for the poll's end."""
    threads = []
    client = Client()
    polling = opened(client)
    monkeypatch.setattr(client, "commit", lambda **_: threads.append(threading.current_thread()), raising=False)
    monkeypatch.setattr(Owner, "revoked", lambda self, partitions, *, lost: polling.commit({0: 7}))

    def rebalanced() -> list[Message]:
        client.on["on_revoke"](client, [TopicPartition("t", 0)])
        return []

    client.answers.append(rebalanced)
    polling.poll(1)
    polling.commit({0: 8})
    assert threads[0] is threading.current_thread()
    assert threads[1] is not threading.current_thread()


def test_a_commit_that_fails_is_unavailable(
    opened: Callable[[Client], KafkaReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client()

    def fail(**_: Any) -> None:
        raise KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS))

    monkeypatch.setattr(client, "commit", fail, raising=False)
    with pytest.raises(Unavailable, match="the group's positions were not committed"):
        opened(client).commit({0: 1})


def test_the_auditor_reads_timestamps_as_a_table_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an event that stands in the table would be called missing, and its row foreign."""
    stamps = [-(2**63), -1, 0, 253_402_300_799_999, 253_402_300_800_000, 2**62]
    messages = [
        confluent_kafka.Message(topic="t", partition=0, offset=offset, timestamp=(1, stamp))
        for offset, stamp in enumerate(stamps)
    ]
    monkeypatch.setattr(scan, "open_consumer", lambda _: Client(lambda: messages))
    marks = logs.read_marks({}, Topic("t", "id", 1), {0: Watermarks(0, len(stamps))})
    assert marks[0].timestamps_ms.tolist() == [-1, -1, 0, 253_402_300_799_999, -1, -1]


def test_headers_come_along_and_those_that_cannot_be_read_harm_no_others(
    either: Callable[[Client], KafkaReader | AssignedReader],
) -> None:
    some = [Message(offset) for offset in range(6)]
    some[1]._headers = [("trace", b"1"), ("trace", None)]
    some[2]._headers = some[4]._headers = UNREADABLE
    some[5]._headers = [("last", b"")]
    with either(Client(lambda: some)) as polling:
        (frame,) = polling.poll(0).frames
    headers = [frame.headers_of(row) for row in range(len(frame))]
    assert headers == [(), (("trace", b"1"), ("trace", None)), (), (), (), (("last", b""),)]


def test_messages_without_headers_cost_no_array(either: Callable[[Client], KafkaReader | AssignedReader]) -> None:
    with either(Client(full(0))) as polling:
        (frame,) = polling.poll(0).frames
    assert frame.headers is None
