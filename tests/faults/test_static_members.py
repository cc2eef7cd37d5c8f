"""Workers with an instance id: a restart takes nothing away from the others, and of each id there is one."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from headrace.schemas.errors import Stale
from headrace.schemas.registry import Registry
from headrace.sinks.landing import Step
from headrace.sinks.serve import ProductSink, Setting
from headrace.sinks.watch import Unwatched
from tests.support import amending
from tests.support.meshes import ORDERS
from tests.support.sinks import assert_exactly_once, eventually
from tests.support.topics import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed
    from headrace.streams.reader import KafkaReader, Rebalance

WITHIN_S = 120.0


@dataclass(frozen=True)
class Diary(Unwatched):
    """What a worker tells of itself: each rebalance, and how far it has committed which partitions."""

    assigned: list[set[int]] = field(default_factory=list)
    revoked: list[set[int]] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        self.ends.update({partition: landed.ledger.next(partition) for partition in landed.ledger.added})


@dataclass(frozen=True)
class _Told:
    """A session whose rebalances are written down."""

    session: Rebalance
    diary: Diary

    def assigned(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.diary.assigned.append(set(partitions))
        return self.session.assigned(partitions)

    def revoked(self, partitions: Sequence[int], *, lost: bool) -> None:
        self.diary.revoked.append(set(partitions))
        self.session.revoked(partitions, lost=lost)


@dataclass(frozen=True)
class _Watched(Setting):
    diary: Diary = field(default_factory=Diary)

    def open_reader(self, rebalance: Rebalance) -> KafkaReader:
        return super().open_reader(_Told(rebalance, self.diary))


@dataclass
class Member:
    """A worker with an instance id, in a thread."""

    diary: Diary
    stop: threading.Event
    thread: threading.Thread
    fine: list[bool]

    def ends(self) -> bool:
        """Stop it and wait for its end; tell whether it ended as told."""
        self.stop.set()
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()
        return self.fine == [True]

    def has(self, partitions: set[int]) -> bool:
        """Tell whether it has just these partitions."""
        now: set[int] = set()
        for each in list(self.diary.assigned):
            now |= each
        for each in list(self.diary.revoked):
            now -= each
        return now == partitions


@pytest.fixture
def patient(mesh: Mesh) -> Mesh:
    """A mesh whose workers are missed late: within that time nobody else gets the partitions of one that is away."""
    return amending.patient(mesh)


@contextmanager
def member(mesh: Mesh, instance_id: str, observe: Callable[[Step], None] = lambda _: None) -> Iterator[Member]:
    """Run a worker while the block lasts."""
    with Registry(mesh.environment.registry_config()) as registry:
        diary, stop, fine = Diary(), threading.Event(), list[bool]()
        setting = _Watched(
            mesh,
            mesh.product(ORDERS),
            registry,
            mesh.environment.hmac_key(),
            watcher=diary,
            observe=observe,
            instance_id=instance_id,
            diary=diary,
        )
        thread = threading.Thread(target=lambda: fine.append(ProductSink(setting).run(stop)), daemon=True)
        thread.start()
        worker = Member(diary, stop, thread, fine)
        try:
            yield worker
        finally:
            stop.set()
            thread.join(WITHIN_S)


def landed(worker: Member, partition: int, end: int) -> bool:
    return worker.diary.ends.get(partition, 0) >= end


def publish_to_both(mesh: Mesh, first: int, count: int) -> None:
    """Send so many events to each of the two partitions."""
    publish(mesh, ORDERS, range(first, first + count), partition=0)
    publish(mesh, ORDERS, range(first + count, first + 2 * count), partition=1)


def test_the_restart_of_a_static_member_takes_nothing_from_the_other(patient: Mesh) -> None:
    with member(patient, "a") as first:
        assert eventually(lambda: first.has({0, 1}), within_s=WITHIN_S)
        with member(patient, "b") as other:
            assert eventually(lambda: len(first.diary.revoked) == 1 and not other.has(set()), within_s=WITHIN_S)
            (lost,) = first.diary.revoked[0]
            (kept,) = {0, 1} - {lost}
            publish_to_both(patient, 0, 20)
            assert eventually(lambda: landed(first, kept, 20) and landed(other, lost, 20), within_s=WITHIN_S)
            before = (list(other.diary.assigned), list(other.diary.revoked))
            assert first.ends()
            # While it is away nobody reads its partition: that is the price.
            publish(patient, ORDERS, range(200, 220), partition=kept)
            publish(patient, ORDERS, range(300, 320), partition=lost)
            with member(patient, "a") as again:
                assert eventually(lambda: landed(again, kept, 40), within_s=WITHIN_S)
                assert again.has({kept})
                assert (other.diary.assigned, other.diary.revoked) == before, "the other one's partitions were touched"
                assert again.ends()
            assert eventually(lambda: landed(other, lost, 40), within_s=WITHIN_S)
            assert other.ends()
    assert_exactly_once(patient)


def test_a_session_of_a_static_member_that_starts_anew_has_its_place_again(patient: Mesh) -> None:
    dropped: list[Step] = []

    def drop_once(step: Step) -> None:
        if step is Step.STAGE and not dropped:
            dropped.append(step)
            raise Stale("[0:0]", "[0:1]")

    with capture_logs() as logs, member(patient, "a", drop_once) as worker:
        publish_to_both(patient, 0, 20)
        assert eventually(lambda: landed(worker, 0, 20) and landed(worker, 1, 20), within_s=WITHIN_S)
        assert len(worker.diary.assigned) == 2
        assert worker.ends()
    assert dropped
    assert not [line for line in logs if line["event"] == "stopped"]


def test_a_second_worker_of_the_same_id_fences_the_first(patient: Mesh) -> None:
    logs: list[MutableMapping[str, Any]]
    with capture_logs() as logs, member(patient, "a") as first:
        publish_to_both(patient, 0, 20)
        # All of it: a table that the second one moves would have the first one join anew, and fence it in its turn.
        assert eventually(lambda: landed(first, 0, 20) and landed(first, 1, 20), within_s=WITHIN_S)
        with member(patient, "a") as second:
            assert eventually(lambda: bool(first.fine), within_s=WITHIN_S)
            assert first.fine == [False]
            (stopped,) = [line for line in logs if line["event"] == "stopped"]
            assert stopped["what"] == "another worker has joined with the same instance id and has taken over"
            assert "--instance-id" in stopped["next"]
            publish_to_both(patient, 40, 20)
            assert eventually(lambda: landed(second, 0, 40) and landed(second, 1, 40), within_s=WITHIN_S)
            assert second.ends()
