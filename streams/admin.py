"""What a cluster is asked and told about its topics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public names that the package does not list as such
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from headrace.schemas.errors import HeadraceError, NotApplied, SettingsError, Unavailable
from headrace.streams.kafka import APPLY_HINT, UNKNOWN_TOPIC, Problems, client_config, settings_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

Answer = TypeVar("Answer")

# A healthy broker answers an admin request within a second; a controller that moves needs some more.
REQUEST_TIMEOUT_S = 15.0
_VISIBLE_S = 0.02
_OWN_SETTING = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # has no annotations
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # has no annotations


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker knows it.

    Attributes:
        name: its name.
        id: Kafka's UUID, another one when a topic is made anew.
        partitions: how many it has.
        replicas: how many copies each partition has, at least; 0: not known.
    """

    name: str
    id: str
    partitions: int
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """A topic's settings: those that hold now, defaults included, and the names of those that were set for it."""

    values: Mapping[str, str]
    own: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Watermarks:
    """A partition's log: its first offset, and the one behind its last committed record."""

    low: int
    end: int


class Admin:
    """Asks a cluster about topics and makes them. Use one for as long as it is needed; it needs no closing.

    Every method raises `Unavailable` (with the broker's address) if the cluster does not answer in time,
    `SettingsError` if it refuses the credentials, `UserError` if a right is missing.

    Args:
        config: the environment's librdkafka properties.
        request_timeout_s: how long to wait for an answer.

    Raises:
        SettingsError: if a property is unknown or has a wrong value.
    """

    def __init__(self, config: Mapping[str, str], *, request_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self._timeout = {"request_timeout": request_timeout_s}
        self.address = str(config.get("bootstrap.servers", ""))
        self._problems = Problems()
        full = client_config(config, self._problems)
        try:
            # The client must outlive its futures, else they end as destroyed: it is kept here.
            self._client = AdminClient(full)
        except KafkaException as error:
            raise settings_error(error, full) from None

    def find(self, *topics: str) -> Mapping[str, Topic]:
        """Return those of the topics that exist, by name."""
        if not topics:
            return {}
        futures = self._request(lambda: self._client.describe_topics(TopicCollection(list(topics)), **self._timeout))
        found = {}
        for name, future in futures.items():
            try:
                described = future.result()
            except KafkaException as error:
                if error.args[0].name() in UNKNOWN_TOPIC:
                    continue
                raise self._error(error, name) from None
            copies = min((len(partition.replicas) for partition in described.partitions), default=0)
            found[name] = Topic(name, _text(str(described.topic_id)), len(described.partitions), copies)
        return found

    def names(self) -> frozenset[str]:
        """Return the names of all topics that these credentials may see, Kafka's own left out."""
        metadata = self._request(lambda: self._client.list_topics(timeout=self._timeout["request_timeout"]))
        return frozenset(name for name in metadata.topics if not name.startswith("__"))

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            NotApplied: if there is none of that name.
        """
        found = self.find(name).get(name)
        if found is None:
            raise NotApplied("the topic does not exist", where=name, hint=APPLY_HINT)
        return found

    def watermarks(self, topic: Topic) -> Mapping[int, Watermarks]:
        """Return the bounds of every partition, as a read_committed reader sees them."""
        lows = self._offsets(topic, _EARLIEST)
        ends = self._offsets(topic, _LATEST)
        return {partition: Watermarks(lows[partition], ends[partition]) for partition in range(topic.partitions)}

    def log_ends(self, topic: Topic) -> Mapping[int, int]:
        """Return the end of every partition's log itself, open transactions included: never below a watermark's end."""
        return self._offsets(topic, _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def offsets_at(self, topic: Topic, timestamp_ms: int) -> Mapping[int, int]:
        """Return every partition's first offset of that time or later, where there is one."""
        found = self._offsets(topic, OffsetSpec.for_timestamp(timestamp_ms))
        return {partition: offset for partition, offset in found.items() if offset >= 0}

    def create(self, name: str, *, partitions: int, config: Mapping[str, str]) -> bool:
        """Make a topic with the broker's default replication; False if there is one of that name already.

        The topic can be used when this returns: brokers learn of a new one some milliseconds after it was made.

        Raises:
            UserError: if the broker refuses the topic.
        """
        new = NewTopic(name, num_partitions=partitions, config=dict(config))
        future = self._request(lambda: self._client.create_topics([new], **self._timeout))[name]
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].name() == "TOPIC_ALREADY_EXISTS":
                return False
            raise self._error(error, name) from None
        self._wait_until(lambda: name in self.find(name), "the topic was made and is not seen yet", name)
        return True

    def delete(self, name: str) -> bool:
        """Delete a topic and its events; False if there is none. It is gone when this returns.

        Raises:
            UserError: if the broker refuses.
        """
        future = self._request(lambda: self._client.delete_topics([name], **self._timeout))[name]
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].name() in UNKNOWN_TOPIC:
                return False
            raise self._error(error, name) from None
        self._wait_until(lambda: name not in self.find(name), "the topic was deleted and is still seen", name)
        return True

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's settings that hold now, defaults included."""
        return self.settings(topic)[topic].values

    def settings(self, *topics: str) -> Mapping[str, Settings]:
        """Return the settings of several topics that exist, in one request."""
        if not topics:
            return {}
        resources = {ConfigResource(ResourceType.TOPIC, topic): topic for topic in topics}
        futures = self._request(lambda: self._client.describe_configs(list(resources), **self._timeout))
        found = {}
        for resource, future in futures.items():
            entries = self._result(future, resource.name)
            own = (name for name, entry in entries.items() if entry.source == _OWN_SETTING)
            values = {name: str(entry.value) for name, entry in entries.items()}
            found[resources[resource]] = Settings(values, frozenset(own))
        return found

    def set_config(self, topic: str, config: Mapping[str, str]) -> None:
        """Set some of a topic's settings and leave the others.

        Raises:
            UserError: if the broker refuses a value.
        """
        changes = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changes)
        futures = self._request(lambda: self._client.incremental_alter_configs([resource], **self._timeout))
        self._result(futures[resource], topic)

    def _offsets(
        self, topic: Topic, spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> Mapping[int, int]:
        asked = {TopicPartition(topic.name, partition): spec for partition in range(topic.partitions)}
        futures = self._request(lambda: self._client.list_offsets(asked, isolation_level=isolation, **self._timeout))
        return {place.partition: self._result(future, topic.name).offset for place, future in futures.items()}

    def _wait_until(self, seen: Callable[[], bool], what: str, name: str) -> None:
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while not seen():
            if time.monotonic() > deadline:
                raise Unavailable(what, where=name, hint="try again")
            time.sleep(_VISIBLE_S)

    def _request(self, request: Callable[[], Answer]) -> Answer:
        try:
            return request()
        except KafkaException as error:
            raise self._error(error, self.address) from None

    def _result(self, future: Future[Answer], topic: str) -> Answer:
        try:
            return future.result()
        except KafkaException as error:
            raise self._error(error, topic) from None

    def _error(self, error: KafkaException, topic: str) -> HeadraceError:
        self._client.poll(0)  # serves error_cb
        mapped = self._problems.error(error, where=topic)
        if isinstance(mapped, Unavailable | SettingsError):
            mapped.where = self.address
        return mapped


def _text(uuid: str) -> str:
    # Kafka writes its UUIDs in the alphabet of base64 that is safe in URLs; the client writes the other one.
    return uuid.replace("+", "-").replace("/", "_")
