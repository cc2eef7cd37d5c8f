"""The example's voucher worker as a person runs it: to its end, until Ctrl-C, two at once, and where it cannot run."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from headrace.producers.once import OncePublisher
from headrace.streams.subscriber import Reading, Start, Subscriber
from tests.support.meshes import send
from tests.support.sinks import caught_up, eventually
from tests.support.vouchers import BOOKINGS, FLIGHTS, VOUCHERS, Event, Inputs, airline, in_table, in_topic, worker

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster


@pytest.fixture
def example(cluster: Cluster, tmp_path: Path, prefix: str) -> Mesh:
    """The example mesh on the test's cluster, applied."""
    return airline(tmp_path / "airline", cluster.endpoints, prefix)


def test_until_caught_up_it_works_out_tables_and_topics_and_ends(example: Mesh) -> None:
    inputs = Inputs.of(2_000)
    inputs.part(0, 2).publish(example, "in tables")
    caught_up(example, FLIGHTS, BOOKINGS)
    inputs.part(1, 2).publish(example, "in topics")
    due = inputs.vouchers()
    for published in (len(due), 0):
        with worker(example, "--until-caught-up") as running:
            assert running.ends() == 0, running.text()
            assert running.said == [f"ready: {published:,} vouchers were due and are published\n"]
    assert in_table(example) == due
    assert len(due) > 100


def test_event_by_event_until_ctrl_c(example: Mesh) -> None:
    inputs = Inputs.of(500)
    due = inputs.vouchers()
    with worker(example) as running:
        assert running.ready(), running.text()
        inputs.publish(example, "live")
        assert eventually(lambda: in_topic(example) >= len(due), within_s=60), running.text()
        running.popen.send_signal(signal.SIGINT)
        assert running.ends() == 0, running.text()
        assert "Traceback" not in running.text()
    assert in_table(example) == due


def test_a_second_worker_takes_over_and_the_vouchers_are_the_same(example: Mesh) -> None:
    inputs = Inputs.of(1_000)
    due = inputs.vouchers()
    with worker(example, log="one.log") as one, worker(example, log="two.log") as two:
        assert eventually(lambda: bool(one.said or two.said), within_s=60), one.text() + two.text()
        inputs.part(0, 2).publish(example, "before")
        first, second = (one, two) if one.said else (two, one)
        first.popen.send_signal(signal.SIGKILL)
        inputs.part(1, 2).publish(example, "after")
        assert eventually(lambda: in_topic(example) >= len(due), within_s=90), second.text()
    assert in_table(example) == due


def test_what_is_no_event_is_passed_over_with_a_line_and_stops_nothing(example: Mesh) -> None:
    inputs = Inputs.of(500)
    inputs.publish(example, "all")
    topics = [example.product(name).topic for name in (FLIGHTS, BOOKINGS)]
    for topic in topics:
        send(example, topic, [("k", b"junk: ann@example.org")])
    for _ in range(2):
        with worker(example, "--until-caught-up") as running:
            assert running.ends() == 0, running.text()
        for name in (FLIGHTS, BOOKINGS):
            assert f"{name}: passed over a message that is no event: partition " in running.text()
        assert "ann@example.org" not in running.text()
    assert in_topic(example) == len(inputs.vouchers()) > 0


def test_whoever_publishes_in_its_place_ends_it_with_an_error(example: Mesh) -> None:
    with worker(example) as running:
        assert running.ready(), running.text()
        OncePublisher(example, VOUCHERS, identity="airline-vouchers", id_field="voucher_id")
        Inputs.of(300).publish(example, "live")
        assert running.ends() == 1, running.text()
        assert "another process does the same work and has taken over" in running.text()
        assert "Traceback" not in running.text()
    assert in_topic(example) == 0


def test_no_voucher_holds_anything_personal(example: Mesh) -> None:
    inputs = Inputs.of(500)
    inputs.publish(example, "all")
    with worker(example, "--until-caught-up") as running:
        assert running.ends() == 0, running.text()
    personal = {
        value for b in inputs.bookings for value in (b["traveller"], b["passport"], b["card"], *b["contact"].values())
    }
    with Subscriber[Event](
        example, VOUCHERS, group=None, start=Start.EARLIEST, reading=Reading(until_end=True)
    ) as vouchers:
        for voucher in vouchers:
            assert personal.isdisjoint(voucher.values())


def test_what_keeps_it_from_running_is_said_without_a_traceback(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = airline(tmp_path / "airline", cluster.endpoints, prefix)
    text = (mesh.root / "mesh.yaml").read_text(encoding="utf-8")
    (mesh.root / "mesh.yaml").write_text(text.replace(prefix, "not-applied."), encoding="utf-8")
    with worker(mesh, "--until-caught-up") as running:
        assert running.ends() == 1, running.text()
        assert "headrace apply" in running.text()
        assert "Traceback" not in running.text()
