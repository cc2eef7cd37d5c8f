"""``headrace tail``: a product's last events, and what comes after them, for people to look at."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.selfserve.output import visible
from headrace.selfserve.sql import plain
from headrace.streams.admin import Admin
from headrace.streams.subscriber import Reading, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from headrace.schemas.mesh import Mesh
    from headrace.streams.admin import Watermarks
    from headrace.streams.subscriber import Place, Poison

# Offsets of transactions' marks lie between events: who finds too few looks back further, so many times as far.
_FURTHER = 4
_NO_TIME = dt.datetime.min.replace(tzinfo=dt.UTC)
# JSON leaves these as they are, and they can drive a terminal.
_CONTROLS = re.compile(r"[\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Shown:
    """An event and where it stands."""

    place: Place
    event: Mapping[str, Any]

    def line(self) -> str:
        """Return the event as a line for people: place, time, fields as JSON."""
        time = "-" if self.place.timestamp is None else str(plain(self.place.timestamp))
        return f"{self.place.partition}:{self.place.offset}  {time}  {visible(_json(plain(self.event)))}"

    def json(self) -> str:
        """Return the event with its place as one line of JSON."""
        place = self.place
        return _json(
            {
                "partition": place.partition,
                "offset": place.offset,
                "timestamp": plain(place.timestamp),
                "event": plain(self.event),
            }
        )


class Tail:
    """Reads a product's topic from near its end, without a group: nothing is committed.

    Args:
        mesh: the mesh.
        product: ``domain.product``.
        raw: show PII as it is; else the product's masks are put on.
        on_poison: is told of messages that are no events.

    Raises:
        UserError: no such product, no topic, or a missing secret.
        Unavailable: Kafka or the registry does not answer.
    """

    def __init__(self, mesh: Mesh, product: str, *, raw: bool, on_poison: Callable[[Poison], None]) -> None:
        self._mesh = mesh
        self._product = product
        self._masked = not raw
        self._tell = on_poison
        self._told: set[tuple[int, int]] = set()
        admin = Admin(mesh.environment.kafka_config())
        self._marks = admin.watermarks(admin.topic(mesh.product(product).topic))
        self._next = {partition: marks.end for partition, marks in self._marks.items()}

    def last(self, count: int) -> list[Shown]:
        """Return the last events of all partitions by their time, the newest last."""
        found: dict[int, list[Shown]] = {}
        back = count
        while missing := {p: marks for p, marks in self._marks.items() if p not in found and count}:
            starts = {partition: max(marks.low, marks.end - back) for partition, marks in missing.items()}
            for partition, some in self._between(starts, missing).items():
                if len(some) >= count or starts[partition] == missing[partition].low:
                    found[partition] = some[-count:]
            back *= _FURTHER
        everything = [shown for some in found.values() for shown in some]
        everything.sort(key=lambda shown: shown.place.timestamp or _NO_TIME)
        return everything[-count:] if count else []

    def following(self) -> Iterator[Shown]:
        """Yield what comes behind the events that `last` looked at, for ever."""
        reading = Reading(masked=self._masked, on_poison=self._on_poison)
        with Subscriber(self._mesh, self._product, group=None, start=self._next, reading=reading) as events:
            for event in events:
                if events.place is not None:
                    yield Shown(events.place, event)

    def _on_poison(self, poison: Poison) -> None:
        place = poison.partition, poison.offset
        if place not in self._told:
            # Who looks back further passes it again.
            self._told.add(place)
            self._tell(poison)

    def _between(self, starts: Mapping[int, int], marks: Mapping[int, Watermarks]) -> Mapping[int, list[Shown]]:
        """Read partitions from their starts to the ends that were asked for first."""
        found: dict[int, list[Shown]] = defaultdict(list, {partition: [] for partition in marks})
        begin = {**self._next, **starts}
        reading = Reading(masked=self._masked, until_end=True, on_poison=self._on_poison)
        with Subscriber(self._mesh, self._product, group=None, start=begin, reading=reading) as events:
            for event in events:
                place = events.place
                if place is not None and place.partition in marks and place.offset < self._next[place.partition]:
                    found[place.partition].append(Shown(place, event))
        return found


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return _CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
