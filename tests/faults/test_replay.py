"""Replays beside running sinks, and killed at every step: nobody sees half a table, and nothing is lost or doubled."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
from typing import TYPE_CHECKING, Self

from headrace.selfserve.main import main
from headrace.sinks.hold import hold_of
from headrace.sinks.landing import Step as LandingStep
from headrace.sinks.replay.boundary import BRANCH
from headrace.sinks.replay.steps import Step
from tests.faults import replayer
from tests.support.forked import preload
from tests.support.meshes import ORDERS, ids, query
from tests.support.sinks import assert_exactly_once, caught_up, eventually, running
from tests.support.topics import delete_records, make_anew, publish, table_of

if TYPE_CHECKING:
    import pytest

    from headrace.schemas.mesh import Mesh

_CONTEXT = multiprocessing.get_context("forkserver")
preload(replayer.__name__)


def replay(mesh: Mesh, *options: str) -> int:
    """Run the command."""
    return main(["--mesh", str(mesh.root), "--environment", "cluster", "replay", ORDERS, "--yes", *options])


def killed_at(mesh: Mesh, step: str) -> int | None:
    """Run a replay in a process of its own that dies before a step; return its exit status."""
    process = _CONTEXT.Process(target=replayer.main, args=[mesh.root, ORDERS, step])
    process.start()
    process.join(120)
    return process.exitcode


def numbers(count: int) -> list[str]:
    return sorted(f"o{number}" for number in range(count))


class Readers:
    """Counts the table's rows over and over, as analysts do."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.counts: list[int] = []

    def _read(self) -> None:
        while not self._stop.is_set():
            self.counts.append(int(table_of(self._mesh).scan().count()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_a_replay_beside_a_running_sink_is_seen_at_once_or_not_at_all(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, ORDERS, range(300))
    with running(mesh) as sink:
        assert eventually(lambda: sink.rows(ORDERS) == 300)
        before = query(mesh, f"SELECT * FROM {ORDERS} ORDER BY id")
        with Readers(mesh) as readers:
            publish(mesh, ORDERS, range(300, 400))
            assert replay(mesh, "--from", "earliest") == 0
            publish(mesh, ORDERS, range(400, 450))
            assert eventually(lambda: len(ids(mesh)) == 450)
    assert readers.counts == sorted(readers.counts), "a reader has seen rows go"
    assert min(readers.counts) >= 300
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == numbers(450)
    assert query(mesh, f"SELECT * FROM {ORDERS} WHERE amount < 300 ORDER BY id") == before
    assert BRANCH not in table_of(mesh).metadata.refs
    assert hold_of(table_of(mesh)) is None
    assert_exactly_once(mesh)
    said = capsys.readouterr().err
    assert "is replayed from earliest" in said
    assert "rows anew" in said


def test_a_replay_that_is_killed_at_every_step_goes_on(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    publish(mesh, ORDERS, range(60))
    assert all(caught_up(mesh).outcomes.values())
    count = 60
    steps = (
        Step.BEGIN,
        Step.CUT,
        Step.DRAIN,
        LandingStep.COMMIT,
        LandingStep.OUTCOME,
        Step.HOLD,
        Step.LAST_DRAIN,
        Step.SWAP,
        Step.RELEASE,
    )
    with running(mesh) as sink:
        for step in steps:
            assert killed_at(mesh, step.value) == -signal.SIGKILL, step
            # Nobody sees the branch: neither readers nor the proof.
            assert set(ids(mesh)) >= set(numbers(60)), step
            assert (hold_of(table_of(mesh)) is not None) is (step in (Step.LAST_DRAIN, Step.SWAP, Step.RELEASE)), step
            if step is LandingStep.COMMIT:
                assert replay(mesh, "--from", "2020-01-01T00:00Z") == 1
                said = capsys.readouterr().err
                assert "a replay from earliest was begun and not ended" in said
                assert "--restart" in said
            publish(mesh, ORDERS, range(count, count + 10))
            count += 10
        # Whoever runs it again has the hold that was left behind, and releases it.
        assert replay(mesh, "--from", "earliest") == 0
        assert hold_of(table_of(mesh)) is None
        assert eventually(lambda: len(ids(mesh)) == count)
    assert sink.outcomes == {ORDERS: True}
    assert ids(mesh) == numbers(count)
    assert_exactly_once(mesh)


def test_masks_and_columns_are_todays_and_below_the_beginning_all_stays(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(40))
    assert all(caught_up(mesh).outcomes.values())
    first = table_of(mesh).current_snapshot()
    assert first is not None
    publish(mesh, ORDERS, range(40, 80))
    assert all(caught_up(mesh).outcomes.values())
    path = mesh.root / "domains" / "shop" / "orders" / "schema.avsc"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["fields"].append({"name": "note", "type": "string", "default": "none"})
    path.write_text(json.dumps(schema), encoding="utf-8")
    policy = "default: replace-with-null\ncategories: {user.contact.email: replace-with-null}\n"
    (mesh.root / "policies" / "pii.yaml").write_text(policy, encoding="utf-8")
    command = ["--mesh", str(mesh.root), "--environment", "cluster"]
    assert main([*command, "apply"]) == 0
    assert replay(mesh, "--from", str(first.snapshot_id)) == 0
    emails = "count(*) FILTER (email IS NOT NULL)"
    rows = query(mesh, f"SELECT amount < 40, count(*), {emails}, count(note) FROM {ORDERS} GROUP BY ALL ORDER BY 1")
    assert rows == [(False, 40, 0, 40), (True, 40, 20, 0)]
    assert ids(mesh) == numbers(80)
    assert_exactly_once(mesh)


def test_what_kafka_has_no_more_and_what_the_table_began_without(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, ORDERS, range(20), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    first = table_of(mesh).current_snapshot()
    assert first is not None
    publish(mesh, ORDERS, range(20, 40), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    delete_records(mesh, mesh.product(ORDERS), {0: 30})

    assert replay(mesh, "--from", str(first.snapshot_id)) == 1
    said = capsys.readouterr().err
    assert "Kafka has deleted offsets 20 to 29 of partition 0, which would have to be read again" in said
    assert "--from earliest" in said
    assert killed_at(mesh, Step.DRAIN.value) == -signal.SIGKILL
    assert replay(mesh, "--from", "earliest", "--restart") == 0
    assert "given up" in capsys.readouterr().err
    assert ids(mesh) == numbers(40), "rows that Kafka has no more stay"
    assert_exactly_once(mesh)


def test_a_replay_of_another_topic_is_refused_and_of_an_accepted_one_leaves_the_old_rows(
    mesh: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(mesh, ORDERS, range(30))
    assert all(caught_up(mesh).outcomes.values())
    make_anew(mesh, mesh.product(ORDERS))
    publish(mesh, ORDERS, range(30, 50))
    assert replay(mesh, "--from", "earliest") == 1
    assert f"headrace accept-topic {ORDERS}" in capsys.readouterr().err
    command = ["--mesh", str(mesh.root), "--environment", "cluster", "accept-topic", ORDERS, "--yes"]
    assert main(command) == 0
    assert f"else: headrace sink {ORDERS}" in capsys.readouterr().err
    assert main(command) == 0
    assert "nothing to accept" in capsys.readouterr().err
    assert all(caught_up(mesh).outcomes.values())
    generations = query(mesh, f"SELECT _generation, count(*) FROM {ORDERS} GROUP BY ALL ORDER BY 1")
    assert generations == [(1, 30), (2, 20)]
    assert replay(mesh, "--from", "earliest") == 0
    assert query(mesh, f"SELECT _generation, count(*) FROM {ORDERS} GROUP BY ALL ORDER BY 1") == generations
    assert ids(mesh) == numbers(50)
    assert_exactly_once(mesh)
