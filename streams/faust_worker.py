"""Faust's own parts, mended where it loses events: which records are read, when they are acknowledged and committed.

The one module that touches private parts of Faust and its client (their versions are pinned by range; the tests of
`headrace.streams.faust_codec` hold what is relied on).
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import faust
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from faust.transport.drivers import aiokafka as driver
from mode.threads import WorkerThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

# Whatever they tell stays off the terminal of a program that has not set up logging; an agent's error ends the worker.
for _name in ("faust", "mode", "aiokafka"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class SafeStream(faust.Stream[Any]):
    """A stream that acknowledges an event when the next one is asked for, and not when its loop is broken off."""

    _after = False

    def __aiter__(self) -> AsyncIterator[Any]:
        if self.enable_acks:  # False too for a stream of noack(), which stays as it is
            self.enable_acks, self._after = False, True
        events = super().__aiter__()
        return self._acknowledging(events) if self._after else events

    async def _acknowledging(self, events: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for value in events:
            event = self.current_event
            yield value
            if event is not None:
                await self.ack(event)


class OneWorker(RoundRobinPartitionAssignor):  # type: ignore[misc]  # has no annotations
    """Gives all partitions to one member of the group, and leaves them there while it is a member.

    A member tells as whom it was given them. Who was thrown out comes back as another, and has no claim any more.
    """

    name = "headrace-one"
    # As whom this worker has them. Of the class, because the client makes no object of it: each consumer has a class.
    owner = b""

    @classmethod
    def for_one_consumer(cls) -> type[OneWorker]:
        """Return a class for one consumer."""
        return type(cls.__name__, (cls,), {"owner": b""})

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> Any:
        """Return what this member tells the group when it joins; called by the client."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), cls.owner)

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Return what each member is given; called by the client, in the member that leads the group."""
        owners = [member for member, told in members.items() if told.user_data == member.encode()]
        chosen = min(owners or members)
        empty = ConsumerProtocolMemberAssignment(cls.version, [], b"")
        given = super().assign(cluster, {chosen: members[chosen]})[chosen]
        everything = ConsumerProtocolMemberAssignment(cls.version, given.assignment, chosen.encode())
        return {**dict.fromkeys(members, empty), chosen: everything}

    @classmethod
    def on_assignment(cls, assignment: Any) -> None:
        """Note what this member was given; called by the client."""
        cls.owner = assignment.user_data


class _Worker(WorkerThread):
    """The consumer's thread, which neither keeps the process nor shows a trace when it is cut off while it stops."""

    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    def run(self) -> None:
        with suppress(asyncio.CancelledError):
            super().run()


class _Thread(driver.AIOKafkaConsumerThread):
    Worker = _Worker

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust asks for committed records only together with its exactly_once, and chooses the assignor by its tables.
        # The consumer reads both when it starts.
        consumer._isolation_level = "read_committed"  # noqa: SLF001 - no public way
        if getattr(self.app, "standby", False):
            consumer._partition_assignment_strategy = [OneWorker.for_one_consumer()]  # noqa: SLF001 - no public way
        return consumer


class _Consumer(driver.Consumer):
    """A consumer that commits what stands before the first message that is not acknowledged.

    Faust's own arithmetic over offsets and gaps commits one unacknowledged message too many when a later one is done
    first, and counts a message behind a gap as acknowledged. The order in which messages came needs no arithmetic.
    """

    def on_init(self) -> None:
        super().on_init()
        self._order: defaultdict[Any, deque[int]] = defaultdict(deque)

    async def perform_seek(self) -> None:
        # What comes next comes from the committed positions, again.
        self._order.clear()
        await super().perform_seek()

    async def seek(self, partition: Any, offset: int) -> None:
        self._order.pop(partition, None)
        await super().seek(partition, offset)

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        for partition in revoked:
            self._order.pop(partition, None)
        await super().on_partitions_revoked(revoked)

    def _to_message(self, tp: Any, record: Any) -> Any:
        order = self._order[tp]
        if self.app.topics.acks_enabled_for(tp.topic) and (not order or record.offset > order[-1]):
            order.append(record.offset)
        return super()._to_message(tp, record)

    def _new_offset(self, tp: Any) -> int | None:
        order, acknowledged, position = self._order[tp], self._acked_index[tp], None
        while order and order[0] in acknowledged:
            offset = order.popleft()
            acknowledged.discard(offset)
            position = offset + 1
        self._acked[tp] = sorted(acknowledged)
        return position

    async def _add_gap(self, tp: Any, offset_from: int, offset_to: int) -> None:
        """Gaps mean nothing to this consumer."""

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(driver.Transport):
    Consumer = _Consumer


class MeshApp(faust.App):
    """An application whose consumer is as above. ``standby``: one worker is given all partitions, the others wait."""

    standby: bool = False

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)
