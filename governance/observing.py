"""What is seen of a topic, its subject and its table, as values; and in words what two of them differ in. Pure.

An observation holds the whole state. Its id is made of topic and sequence, so that whoever publishes it again, after a
crash too, publishes the same one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

# Drawn once, at random: the ids of governance's events are made inside it.
NAMESPACE = UUID("6f0f8e0e-6c1d-4f5e-9a57-2c2f7a3e51b4")


@dataclass(frozen=True, slots=True, order=True)
class Seen:
    """A schema id in a partition, with the offset of the first message that was seen with it."""

    schema_id: int
    kafka_partition: int
    first_offset: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What the mesh's files promise. ``schema_id`` is that of the contract's schema, None if it is not registered."""

    version: str
    compatibility: str
    schema_id: int | None
    masked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a subject. ``pii``: the columns that it or one before it tags, by their paths in a table then."""

    version: int
    schema_id: int
    deleted: bool
    pii: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What the registry holds of a subject: the level in force, and at least one version."""

    compatibility: str
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class TableState:
    """What the catalog says of a table: the version it has followed, its masked fields, the ids that apply made."""

    schema_version: int
    masked: tuple[str, ...]
    applied: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicState:
    """All that is seen of a topic.

    Attributes:
        topic: its name.
        product: ``domain.product``; None: it belongs to none, and what follows ``topic_id`` is empty.
        topic_id: Kafka's UUID; None: there is no such topic (any more).
        seen: the schema ids of its messages, sorted.
        contract: what the mesh's files promise.
        subject: what the registry holds; None: no version.
        lake: what the catalog says of the table; None: there is none.
    """

    topic: str
    product: str | None = None
    topic_id: str | None = None
    seen: tuple[Seen, ...] = ()
    contract: Promise | None = None
    subject: Subject | None = None
    lake: TableState | None = None


_Value = TypeVar("_Value", Seen, Promise, Version, TableState)


@dataclass(frozen=True, slots=True)
class Observation:
    """A topic's state at one time. ``sequence`` counts the observations of its topic, from 1."""

    sequence: int
    observed_at: datetime
    changes: tuple[str, ...]
    state: TopicState

    @property
    def observation_id(self) -> str:
        """The UUID that every repeat of this observation carries."""
        return str(uuid5(NAMESPACE, f"{self.state.topic} {self.sequence}"))

    def to_event(self) -> dict[str, Any]:
        """Return the event of ``governance.observations``."""
        return {
            "observation_id": self.observation_id,
            "observed_at": self.observed_at,
            "sequence": self.sequence,
            "changes": list(self.changes),
            **asdict(self.state),
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Observation:
        """Read an event of ``governance.observations``."""
        contract, subject, lake = event["contract"], event["subject"], event["lake"]
        state = TopicState(
            topic=event["topic"],
            product=event["product"],
            topic_id=event["topic_id"],
            seen=tuple(_of(Seen, each) for each in event["seen"]),
            contract=contract and _of(Promise, contract),
            subject=subject
            and Subject(subject["compatibility"], tuple(_of(Version, each) for each in subject["versions"])),
            lake=lake and _of(TableState, lake),
        )
        return cls(event["sequence"], event["observed_at"], tuple(event["changes"]), state)


def _of(kind: type[_Value], found: Mapping[str, Any]) -> _Value:
    """Return a value of an event's record; fields that a later version of the schema has are left out."""
    values: dict[str, Any] = {each.name: found[each.name] for each in fields(kind)}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return kind(**{**values, **lists})


class Known:
    """The newest observation of every topic: a fold of the observations in any order, repeats included."""

    def __init__(self) -> None:
        self._newest: dict[str, Observation] = {}

    def take(self, observation: Observation) -> None:
        """Take an observation that was published."""
        before = self._newest.get(observation.state.topic)
        if before is None or before.sequence < observation.sequence:
            self._newest[observation.state.topic] = observation

    def state(self, topic: str) -> TopicState:
        """Return what was seen of a topic last; empty if it never was."""
        newest = self._newest.get(topic)
        return newest.state if newest is not None else TopicState(topic)

    def topics(self) -> frozenset[str]:
        """Return the topics of which something was there when they were seen last."""
        return frozenset(topic for topic, newest in self._newest.items() if newest.state != TopicState(topic))

    def next(self, state: TopicState, now: datetime) -> Observation | None:
        """Return the observation that a state makes; None if nothing differs from what was seen last."""
        before = self._newest.get(state.topic)
        known = self.state(state.topic)
        if state == known:
            return None
        return Observation(before.sequence + 1 if before else 1, now, tuple(changes(known, state)), state)


def changes(before: TopicState, after: TopicState) -> Iterator[str]:
    """Yield in words what differs between two states of a topic."""
    if before.product != after.product:
        yield f"it belongs to {after.product}" if after.product else "it belongs to no product"
    if before.topic_id != after.topic_id:
        yield _topic_change(before.topic_id, after.topic_id)
    same_log = before.topic_id == after.topic_id
    known = {(each.schema_id, each.kafka_partition) for each in before.seen} if same_log else set()
    held = {(each.schema_id, each.kafka_partition) for each in after.seen}
    for each in after.seen:
        if (each.schema_id, each.kafka_partition) not in known:
            yield f"schema id {each.schema_id} in partition {each.kafka_partition} from offset {each.first_offset} on"
    for schema_id, partition in sorted(known - held):
        yield f"no message with schema id {schema_id} in partition {partition} any more"
    yield from _contract_changes(before.contract, after.contract)
    yield from _subject_changes(before.subject, after.subject)
    yield from _lake_changes(before.lake, after.lake)


def _topic_change(before: str | None, after: str | None) -> str:
    if after is None:
        return "the topic is gone"
    return "the topic is there" if before is None else "the topic was made anew"


def _contract_changes(before: Promise | None, after: Promise | None) -> Iterator[str]:
    if before == after:
        return
    if before is None or after is None:
        yield "the contract is gone" if after is None else f"contract {after.version}"
        return
    if before.version != after.version:
        yield f"contract {before.version} became {after.version}"
    if before.compatibility != after.compatibility:
        yield f"the contract's level {before.compatibility} became {after.compatibility}"
    if before.schema_id != after.schema_id:
        yield "the contract's schema is " + ("not registered" if after.schema_id is None else f"id {after.schema_id}")
    yield from _set_changes("the contract masks", before.masked, after.masked)


def _subject_changes(before: Subject | None, after: Subject | None) -> Iterator[str]:
    if before == after:
        return
    if after is None:
        yield "the registry has no version of the subject"
        return
    if before is not None and before.compatibility != after.compatibility:
        yield f"level {before.compatibility} became {after.compatibility}"
    known = {version.version: version for version in before.versions} if before is not None else {}
    for version in after.versions:
        if version.version not in known:
            yield f"version {version.version} has schema id {version.schema_id}"
        elif known[version.version] != version:
            yield f"version {version.version} {'was deleted softly' if version.deleted else 'is another one'}"
    for number in sorted(known.keys() - {version.version for version in after.versions}):
        yield f"version {number} was deleted"


def _lake_changes(before: TableState | None, after: TableState | None) -> Iterator[str]:
    if before == after:
        return
    if before is None or after is None:
        yield "the table is gone" if after is None else f"the table follows version {after.schema_version}"
        return
    if before.schema_version != after.schema_version:
        yield f"the table follows version {after.schema_version}"
    yield from _set_changes("the table masks", before.masked, after.masked)
    yield from _set_changes("apply has registered schema id", before.applied, after.applied)


def _set_changes(words: str, before: tuple[object, ...], after: tuple[object, ...]) -> Iterator[str]:
    for each in after:
        if each not in before:
            yield f"{words} {each}"
    for each in before:
        if each not in after:
            yield f"no longer: {words} {each}"
