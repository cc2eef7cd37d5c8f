"""Topics: of a product's events, of its dead letters, and of publishers' positions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from headrace.producers.positions import positions_topic
from headrace.selfserve.resources.difference import Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.product import Product
    from headrace.selfserve.resources.clients import Clients

__all__ = ["DEAD_LETTER_RETENTION_MS", "DeadLetters", "LettersThere", "Topic", "TopicThere"]

# A dead letter waits for a person: three months outlast any absence.
DEAD_LETTER_RETENTION_MS = 90 * 24 * 3_600_000
# Letters are few, and one partition shows them in the order in which they were refused.
DEAD_LETTER_PARTITIONS = 1
# A letter is its message and six headers, of which the longest holds a topic's name of up to 249 bytes.
DEAD_LETTER_EXTRA_BYTES = 16 * 1024
_MAX_BYTES = "max.message.bytes"
_RETENTION = "retention.ms"
_CLEANUP = "cleanup.policy"
_MIN_INSYNC = "min.insync.replicas"
_LOST = "dead-letters-missing"
# What a contract may speak of; a limit in bytes undoes what it says of time.
_SPOKEN = (_RETENTION, "retention.bytes", _CLEANUP, _MIN_INSYNC)


@dataclass(frozen=True, slots=True)
class TopicThere:
    """A topic as it is.

    Attributes:
        partitions: how many it has.
        replicas: how many copies each has, at least; 0: not known.
        config: the settings that hold …
        own: … and the names of those that were set for this topic.
    """

    partitions: int
    replicas: int
    config: Mapping[str, str]
    own: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the files want it.

    Attributes:
        name: its name.
        partitions: how many it has.
        config: its settings; those not named here are nobody's business.
        product: the product that would lose events; empty: none would.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    product: str = ""

    @classmethod
    def of(cls, product: Product) -> Topic:
        """Return the topic of a product's events."""
        contract = product.contract
        wanted = {_CLEANUP: contract.cleanup_policy}
        if contract.retention_ms is not None:
            wanted[_RETENTION] = str(contract.retention_ms)
        if contract.min_insync_replicas is not None:
            wanted[_MIN_INSYNC] = str(contract.min_insync_replicas)
        return cls(product.topic, contract.partitions, wanted, str(product.name))

    @classmethod
    def of_positions(cls, prefix: str) -> Topic:
        """Return the topic of publishers' positions."""
        return cls(positions_topic(prefix), 1, {_CLEANUP: "compact"})

    @property
    def thing(self) -> str:
        """What it is called."""
        return f"topic {self.name}"

    def read(self, clients: Clients) -> TopicThere | None:
        """Return the topic as it is; None: there is none."""
        found = clients.topic(self.name)
        if found is None:
            return None
        topic, settings = found
        return TopicThere(topic.partitions, topic.replicas, settings.values, settings.own)

    def diff(self, there: TopicThere | None) -> tuple[Difference, ...]:
        """Return what differs."""
        return tuple(self._differences(there))

    def unsaid(self, there: TopicThere | None) -> tuple[Difference, ...]:
        """Return the settings that a contract may speak of, that this one does not, and that somebody has set."""
        own = there.own if there else frozenset()
        return tuple(
            Difference(
                Kind.NEVER,
                "topic-setting",
                self.thing,
                name,
                old=there.config.get(name),
                why="the files do not speak of it: somebody has set it for this topic, or they spoke of it once",
                next="say so in the contract, or take the setting off the topic with Kafka's own tools",
            )
            for name in _SPOKEN
            if there is not None and name in own and name not in self.config
        )

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Make the topic, or set one of its settings.

        Raises:
            UserError: if the broker refuses it.
        """
        try:
            if difference.kind is Kind.CREATE:
                self._create(clients)
            else:
                clients.admin.set_config(self.name, {difference.what: str(difference.new)})
        finally:
            clients.forget(self.name)

    def _create(self, clients: Clients) -> None:
        # More replicas in sync than there are would refuse every event, so the number waits until they are known.
        at_once = {name: value for name, value in self.config.items() if name != _MIN_INSYNC}
        clients.admin.create(self.name, partitions=self.partitions, config=at_once)
        if _MIN_INSYNC in self.config:
            clients.forget(self.name)
            for difference in self.diff(self.read(clients)):
                if difference.what == _MIN_INSYNC and difference.kind is Kind.CHANGE:
                    self.apply(clients, difference)

    def _differences(self, there: TopicThere | None) -> Iterator[Difference]:
        if there is None:
            yield Difference(Kind.CREATE, "topic-missing", self.thing, details=self._details())
            return
        if there.partitions != self.partitions:
            yield Difference(
                Kind.NEVER,
                "topic-partitions",
                self.thing,
                "partitions",
                str(there.partitions),
                str(self.partitions),
                "keys would move to other partitions",
                "correct the contract, or publish a product of a new name",
            )
        for name, value in self.config.items():
            yield from self._setting(there, name, value)

    def _details(self) -> tuple[str, ...]:
        return (f"partitions {self.partitions}", *(f"{name} {value}" for name, value in self.config.items()))

    def _setting(self, there: TopicThere, name: str, value: str) -> Iterator[Difference]:
        if name == _MIN_INSYNC and 0 < there.replicas < int(value):
            yield Difference(
                Kind.WARNING,
                "topic-replicas",
                self.thing,
                name,
                why=f"the contract says {value}, and the topic has {_replicas(there.replicas)} a partition: more in "
                "sync than there are would refuse every event, so it is as many as there are",
            )
            value = str(there.replicas)
        old = there.config.get(name)
        if old == value or (name == _CLEANUP and _policies(old) == _policies(value)):
            return
        changed = Difference(Kind.CHANGE, "topic-setting", self.thing, name, old, value)
        lost = self._lost(name, old, value) if self.product else ""
        if lost:
            changed = replace(changed, kind=Kind.DESTROY, why=lost, next=_allow(self.product))
        yield changed

    def _lost(self, name: str, old: str | None, new: str) -> str:
        """Return what is lost by a change of a setting; empty: nothing is."""
        if name == _RETENTION and _kept_ms(new) < _kept_ms(old):
            return "Kafka deletes events that it would have kept, also those that no table or subscriber has read yet"
        added = _policies(new) - _policies(old)
        if name == _CLEANUP and added:
            reason = "all but the newest event of each key" if "compact" in added else "events that are old"
            return f"Kafka deletes {reason}, also those that no table or subscriber has read yet"
        return ""


@dataclass(frozen=True, slots=True)
class LettersThere:
    """A dead-letter topic as it is, and the largest message of its product's topic, None where there is none yet."""

    topic: TopicThere | None
    source_bytes: int | None


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """The topic of what a product's sink had to refuse: it takes the largest message of the product's topic."""

    name: str
    source: str

    @classmethod
    def of(cls, product: Product) -> DeadLetters:
        """Return the dead letters of a product."""
        return cls(product.dead_letter_topic, product.topic)

    def read(self, clients: Clients) -> LettersThere:
        """Return them as they are."""
        source = clients.topic(self.source)
        return LettersThere(self._topic(None).read(clients), int(source[1].values[_MAX_BYTES]) if source else None)

    def diff(self, there: LettersThere) -> tuple[Difference, ...]:
        """Return what differs."""
        found = self._topic(there.source_bytes).diff(there.topic)
        return tuple(
            replace(each, cause=_LOST) if each.kind is Kind.CREATE else each for each in found if not _is_more(each)
        )

    def unsaid(self, there: LettersThere) -> tuple[Difference, ...]:
        """Return what `Topic.unsaid` does."""
        return self._topic(there.source_bytes).unsaid(there.topic)

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Make the topic, or set one of its settings."""
        self._topic(self.read(clients).source_bytes).apply(clients, difference)

    def _topic(self, source_bytes: int | None) -> Topic:
        # At least: who keeps letters for longer, lets larger ones in or spreads them harms nobody.
        config = {_RETENTION: str(DEAD_LETTER_RETENTION_MS)}
        if source_bytes is not None:
            config[_MAX_BYTES] = str(source_bytes + DEAD_LETTER_EXTRA_BYTES)
        return Topic(self.name, DEAD_LETTER_PARTITIONS, config)


def _is_more(difference: Difference) -> bool:
    """Tell whether there is more than is wanted of a setting that is a least one."""
    match difference:
        case Difference(what="retention.ms", old=old, new=new):
            return _kept_ms(old) >= _kept_ms(new)
        case Difference(what="max.message.bytes" | "partitions", old=str(old), new=str(new)):
            return int(old) >= int(new)
        case _:
            return False


def _policies(text: str | None) -> frozenset[str]:
    return frozenset(part.strip() for part in (text or "").split(",") if part.strip())


def _kept_ms(text: str | None) -> float:
    """Return how long events are kept; -1 is for ever. What is no number keeps nothing."""
    try:
        number = int(text or "0")
    except ValueError:
        return 0.0
    return float("inf") if number < 0 else float(number)


def _replicas(number: int) -> str:
    return f"{number} replica{'s' if number != 1 else ''}"


def _allow(product: str) -> str:
    return f"headrace apply --allow-destroy {product}, or correct the contract"
