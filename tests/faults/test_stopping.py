"""How a sink ends: caught up under load, told to stop in the middle of a slow commit, interrupted without a broker."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from headrace.schemas.catalog import open_catalog
from headrace.sinks.landing import Step
from headrace.sinks.pipeline import Pipeline
from tests.support.meshes import ORDERS, order, send
from tests.support.sinks import assert_exactly_once, caught_up, events, eventually, running
from tests.support.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh


@pytest.fixture
def trickle(mesh: Mesh) -> Iterator[Callable[[], None]]:
    """A producer that never pauses for as long as a poll waits; what is yielded ends it, its last event included."""
    stop = threading.Event()

    def produce() -> None:
        product = mesh.product(ORDERS)
        number = 1000
        while not stop.wait(0.02):
            send(mesh, product.topic, events(mesh, product, [order(number)]))
            number += 1

    thread = threading.Thread(target=produce, daemon=True)

    def end() -> None:
        stop.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()

    thread.start()
    yield end
    end()


def test_a_sink_catches_up_with_the_start_while_others_go_on_publishing(
    mesh: Mesh, trickle: Callable[[], None]
) -> None:
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, range(100))))
    done = threading.Event()
    sinks: list[Any] = []

    def run() -> None:
        sinks.append(caught_up(mesh))
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert done.wait(240), "it never catches up while anybody publishes"
    assert sinks[0].rows(ORDERS) >= 100
    trickle()
    caught_up(mesh)
    assert_exactly_once(mesh)


class Slow:
    """A catalog whose commits take as long as the test wants. Everything else is the real one's."""

    def __init__(self, catalog: Catalog, release: threading.Event) -> None:
        self._catalog = catalog
        self._release = release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def commit_table(self, *arguments: Any) -> Any:
        self._release.wait()
        return self._catalog.commit_table(*arguments)


def test_a_stop_does_not_wait_for_a_commit_that_does_not_answer(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    caught_up(mesh)
    send(mesh, product.topic, events(mesh, product, map(order, range(50))))
    release, committing = threading.Event(), threading.Event()
    slow: Any = Slow(open_catalog(mesh.environment, mesh.domain_of(product)), release)

    def observe(step: Step) -> None:
        if step is Step.COMMIT:
            committing.set()

    try:
        with running(mesh, catalogs={ORDERS: slow}, observe=observe) as sink:
            assert committing.wait(PATIENCE_S)
            sink.stop.set()
            # The commit answers after that only.
            assert eventually(lambda: sink.ended(ORDERS))
        assert "before the last batch was committed" in str(sink.logged("stopped while waiting"))
    finally:
        release.set()
    # The late commit lands or is refused; either way each event is there once.
    caught_up(mesh)
    assert_exactly_once(mesh)


INTERRUPTED = """
import sys, threading
from pathlib import Path
from headrace.schemas.mesh import load_mesh
from headrace.sinks.serve import serve
mesh = load_mesh(Path(sys.argv[1]), environment="cluster")
print("serving", flush=True)
serve(mesh, [], until_caught_up=True, stop=threading.Event())
"""


def test_ctrl_c_ends_a_program_whose_broker_is_out_of_reach(mesh: Mesh) -> None:
    settings = mesh.root / "mesh.yaml"
    bootstrap = mesh.environment.kafka_config()["bootstrap.servers"]
    settings.write_text(settings.read_text().replace(bootstrap, "127.0.0.1:1"))
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(mesh.root)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "serving\n"
            # It says what it waits for, so it is inside.
            assert any("waiting" in line for line in program.stdout)
            program.send_signal(signal.SIGINT)
            assert program.wait(PATIENCE_S) != 0
        finally:
            program.kill()


def test_a_pipeline_works_in_order_and_lets_go_of_what_it_has_not_begun() -> None:
    pipeline = Pipeline("test")
    release, begun = threading.Event(), threading.Event()

    def first() -> int:
        begun.set()
        release.wait(30)
        return 1

    results = [pipeline.submit(first), pipeline.submit(lambda: 2)]
    assert begun.wait(30)
    pipeline.close(0.0)
    release.set()
    assert results[0].result(30) == 1
    assert results[1].cancelled()


def test_a_pipeline_hands_on_what_a_job_raised(tmp_path: Path) -> None:
    pipeline = Pipeline("test")
    failing = pipeline.submit((tmp_path / "missing").read_bytes)
    with pytest.raises(FileNotFoundError):
        failing.result(30)
    assert pipeline.submit(lambda: 3).result(30) == 3
    pipeline.close(30)
