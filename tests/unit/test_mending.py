"""When a product that stopped may go on by itself: what an operator mends shows, what other workers do does not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import identifier_of
from headrace.schemas.errors import Bug, NotApplied, ProductStopped, SettingsError, Unavailable, UserError
from headrace.sinks.commit import stage
from headrace.sinks.dead_letters.table import ensure_letter_table, filed
from headrace.sinks.draft import Draft
from headrace.sinks.mending import Mending, Signs, mendable, signs_of
from headrace.streams.admin import Topic, Watermarks
from headrace.streams.ledger import Accepted
from tests.support.lake import TOPIC_ID, Lake
from tests.support.meshes import ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.streams.admin import Admin

EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])
NOW_S = int(datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp())


@dataclass
class Cluster:
    """A cluster with one topic, as far as it is asked."""

    topic_id: str | None = TOPIC_ID
    lows: dict[int, int] = field(default_factory=lambda: {0: 0})

    def find(self, name: str) -> Mapping[str, Topic]:
        return {} if self.topic_id is None else {name: Topic(name, self.topic_id, len(self.lows))}

    def watermarks(self, topic: Topic) -> Mapping[int, Watermarks]:
        return {partition: Watermarks(low, low + 100) for partition, low in self.lows.items()}


class Bench:
    """A table, its topic, and what they show."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(folder, AvroSchema.parse(json.dumps(ORDER)))
        self.cluster = Cluster()
        self.add()
        self.add()

    def signs(self) -> Signs:
        return signs_of(self.lake.product, self.lake.catalog, cast("Admin", self.cluster))

    def add(self) -> None:
        self.lake.add(pa.array([{"id": "a", "amount": 1, "email": None}], EVENT))

    def commit(self, draft: Draft) -> None:
        staged = stage(self.lake.reload(), draft)
        self.lake.send(staged)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def tried(look: Callable[[], Signs]) -> Mending:
    """Return what has been tried again in vain."""
    mending = Mending(look)
    assert mending.seen()
    return mending


def accept_a_gap(bench: Bench) -> None:
    bench.commit(Draft(bench.lake.ledger.accepting({0: Accepted(1, 5, NOW_S)})))


def make_the_topic_anew(bench: Bench) -> None:
    bench.cluster.topic_id = "another"


def follow_another_topic(bench: Bench) -> None:
    bench.commit(Draft(replace(bench.lake.ledger, topic_id="another", generation=2)))


def add_a_column(bench: Bench) -> None:
    with bench.lake.reload().update_schema() as update:
        update.add_column("note", StringType())


def roll_the_table_back(bench: Bench) -> None:
    head = bench.lake.reload().current_snapshot()
    assert head is not None
    assert head.parent_snapshot_id is not None
    bench.lake.table.manage_snapshots().rollback_to_snapshot(head.parent_snapshot_id).commit()


def drop_the_table(bench: Bench) -> None:
    bench.lake.catalog.drop_table(("shop", "orders"))


def delete_the_topic(bench: Bench) -> None:
    bench.cluster.topic_id = None


MENDED = (
    accept_a_gap,
    make_the_topic_anew,
    follow_another_topic,
    add_a_column,
    roll_the_table_back,
    drop_the_table,
    delete_the_topic,
)


@pytest.mark.parametrize("mend", MENDED, ids=lambda mend: str(mend.__name__))
def test_what_an_operator_does_shows(bench: Bench, mend: Any) -> None:
    bench.cluster.lows = {0: 5}
    mending = tried(bench.signs)
    assert not mending.seen()
    mend(bench)
    assert mending.seen()


def test_what_others_do_meanwhile_does_not_show(bench: Bench) -> None:
    bench.cluster.lows = {0: 5, 1: 0}
    mending = tried(bench.signs)
    # Other workers commit, and Kafka goes on deleting.
    bench.add()
    bench.cluster.lows[0] = 50
    assert not mending.seen()
    bench.cluster.lows[1] = 3
    assert mending.seen(), "another partition has a gap now"


def test_what_becomes_of_the_table_of_dead_letters_shows(bench: Bench) -> None:
    lake = bench.lake
    letters = identifier_of(filed(lake.product))
    strange = Schema(NestedField(1, "id", StringType()))
    lake.catalog.create_table(letters, strange)
    mending = tried(bench.signs)
    assert not mending.seen()
    lake.catalog.rename_table(letters, ("shop", "away"))
    assert mending.seen(), "another's table was moved away"
    table = ensure_letter_table(lake.catalog, lake.product)
    assert mending.seen(), "there is one"
    table.append(table.schema().as_arrow().empty_table())
    assert not mending.seen(), "letters were entered"
    with table.refresh().update_schema() as update:
        update.rename_column("topic_id", "topic")
    assert mending.seen(), "its columns were changed"


def test_a_ledger_that_is_repaired_shows(bench: Bench) -> None:
    lake = bench.lake
    # Others have expired the history, and the property says something else than the rows.
    head = lake.reload().current_snapshot()
    assert head is not None
    lake.table.append(lake.table.schema().as_arrow().empty_table())
    lake.reload().maintenance.expire_snapshots().by_id(head.snapshot_id).commit()
    with lake.reload().transaction() as transaction:
        transaction.remove_properties("headrace.ledger.main")
    mending = tried(bench.signs)
    before = bench.signs()
    assert before.fault is not None
    assert not mending.seen()
    bench.commit(Draft(lake.ledger))
    assert bench.signs().fault is None
    assert mending.seen()


def test_a_manifest_that_is_restored_shows(bench: Bench) -> None:
    head = bench.lake.reload().current_snapshot()
    assert head is not None
    manifest = head.manifests(bench.lake.table.io)[-1]
    place = Path(manifest.manifest_path.removeprefix("file://"))
    away = place.rename(place.with_suffix(".away"))
    mending = tried(bench.signs)
    assert bench.signs().fault is not None
    assert not mending.seen()
    away.rename(place)
    assert mending.seen()
    assert bench.signs().fault is None


def test_what_is_mended_before_the_first_look_is_tried_and_then_only_what_changes(bench: Bench) -> None:
    mending = Mending(bench.signs)
    assert mending.seen()
    # It failed again, and nobody does anything.
    assert not mending.seen()
    assert not mending.seen()
    # It went on, and stopped again.
    mending.forget()
    assert mending.seen()


def test_what_does_not_answer_shows_nothing(bench: Bench) -> None:
    answers: list[Any] = [
        Unavailable("the catalog does not answer"),
        bench.signs(),
        Unavailable("again"),
        bench.signs(),
    ]

    def look() -> Signs:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast("Signs", answer)

    mending = Mending(look)
    assert [mending.seen() for _ in range(4)] == [False, True, False, False]


def test_settings_and_bugs_are_not_looked_at() -> None:
    assert mendable(ProductStopped("a gap"))
    assert mendable(NotApplied("the topic does not exist"))
    for fault in (SettingsError("a wrong password"), UserError("the right is missing"), Bug("an invariant")):
        assert not mendable(fault)
