"""Metrics and health over HTTP, and how a sink's standing becomes both: no broker, but a real server on a free port."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as families

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Bug, ProductStopped, Stale, Unavailable, UserError
from headrace.selfserve.backlog import Lag
from headrace.selfserve.metrics import Endpoint, Health, new_registry
from headrace.selfserve.sink_metrics import SinkMetrics, StatusMetrics
from headrace.selfserve.status import Look, ProductStatus
from headrace.sinks.landing import Landed, Step
from headrace.sinks.watch import Standing, Unwatched, Wait, WatchedReader
from headrace.streams.ledger import Ledger
from headrace.streams.reader import Polled
from tests.support.lake import product_of
from tests.support.meshes import ORDER, ORDERS
from tests.support.sinks import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import CollectorRegistry

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.product import Product

GONE = Unavailable("the schema registry does not answer", where="http://127.0.0.1:9", hint="headrace up")
PRODUCT = product_of(AvroSchema.parse(json.dumps(ORDER)))


def answered(url: str, accept: str = "text/plain") -> tuple[int, str]:
    """Ask and return status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


def samples(page: str) -> Mapping[tuple[str, str | None], float]:
    """The page's values by name and product; parsed by Prometheus' own client."""
    return {
        (sample.name, sample.labels.get("product")): sample.value
        for family in families(page)
        for sample in family.samples
        if set(sample.labels) <= {"product"}
    }


class Served:
    """A process's pages."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self.registry = registry
        self.health = health
        self.url = ""

    def told(self, path: str) -> tuple[int, list[dict[str, Any]]]:
        """Ask for health; return the status and the reasons."""
        status, body = answered(self.url + path)
        document = json.loads(body)
        assert document["ok"] == (status == 200)
        return status, document["reasons"]

    def metrics(self) -> Mapping[tuple[str, str | None], float]:
        """Ask for the metrics."""
        return samples(self._page())

    def labelled(self, name: str, label: str) -> Mapping[str, float]:
        """Ask for a metric's values by a label beside the product."""
        found = (sample for family in families(self._page()) for sample in family.samples if sample.name == name)
        return {sample.labels[label]: sample.value for sample in found}

    def _page(self) -> str:
        status, page = answered(f"{self.url}/metrics")
        assert status == 200
        return page


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(new_registry(), Health([ORDERS]))
    with Endpoint(served.registry, served.health) as endpoint:
        served.url = endpoint.url
        yield served


def test_a_process_is_ready_when_every_part_has_begun(served: Served) -> None:
    assert served.told("/healthz") == (200, [])
    status, (reason,) = served.told("/readyz")
    assert (status, reason["part"], reason["what"]) == (503, ORDERS, "has not begun yet")
    served.health.running(ORDERS)
    assert served.told("/readyz") == (200, [])


def test_what_is_waited_for_is_named_and_forgotten(served: Served) -> None:
    served.health.running(ORDERS)
    served.health.waiting(ORDERS, GONE)
    assert served.told("/healthz") == (200, [])
    assert served.told("/readyz") == (
        503,
        [{"part": ORDERS, "what": GONE.what, "where": GONE.where, "next": "headrace up"}],
    )
    served.health.running(ORDERS)
    assert served.told("/readyz") == (200, [])


def test_a_part_that_stopped_on_a_fault_is_not_ready_and_no_reason_to_restart(served: Served) -> None:
    served.health.ended(ORDERS, ProductStopped("the topic was made anew", where="topic shop.orders"))
    assert served.told("/healthz") == (200, [])
    status, (reason,) = served.told("/readyz")
    assert (status, reason["what"]) == (503, "the topic was made anew")


def test_a_part_that_ended_as_told_is_waited_for_no_more(served: Served) -> None:
    served.health.ended(ORDERS)
    assert served.told("/readyz") == (200, [])


def test_a_bug_makes_the_process_unhealthy_and_unready(served: Served) -> None:
    served.health.ended(ORDERS, Bug("stopped by a bug of headrace (KeyError)"))
    for path in ("/healthz", "/readyz"):
        status, (reason,) = served.told(path)
        assert (status, reason["part"]) == (503, ORDERS)
        assert "KeyError" in reason["what"]


def test_a_thread_that_has_died_makes_the_process_unhealthy(served: Served) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="worker", daemon=True)
    thread.start()
    served.health.watch(thread)
    assert served.told("/healthz") == (200, [])
    over.set()
    thread.join(60)
    status, (reason,) = served.told("/healthz")
    assert (status, reason["part"], reason["what"]) == (503, "worker", "the thread has died")


def test_the_page_is_text_or_openmetrics_as_the_client_asks(served: Served) -> None:
    SinkMetrics(served.registry, served.health, [ORDERS])
    StatusMetrics(served.registry)
    status, page = answered(f"{served.url}/metrics")
    assert status == 200
    assert {"headrace_sink_rows", "headrace_sink_commit_seconds", "process_cpu_seconds"} <= {
        family.name for family in families(page)
    }
    status, page = answered(f"{served.url}/metrics", "application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert page.endswith("# EOF\n")
    assert "headrace_build" in {family.name for family in open_families(page)}  # type: ignore[no-untyped-call]  # has none


def test_other_paths_are_answered_with_the_right_ones(served: Served) -> None:
    status, body = answered(f"{served.url}/")
    assert (status, json.loads(body)["paths"]) == (404, ["/metrics", "/healthz", "/readyz"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_where_it_is_told(host: str) -> None:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with Endpoint(new_registry(), Health(), host=host) as endpoint:
        assert answered(f"{endpoint.url}/healthz")[0] == 200


def test_a_port_that_is_taken_is_told_before_anything_starts(served: Served) -> None:
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(UserError, match="metrics cannot be served") as error:
        Endpoint(new_registry(), Health(), port=port)
    assert error.value.where == f"127.0.0.1:{port}"
    assert "--metrics-port" in (error.value.hint or "")


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "..", "a" * 64])
def test_an_address_that_is_not_this_machines(host: str) -> None:
    with pytest.raises(UserError, match="metrics cannot be served"):
        Endpoint(new_registry(), Health(), host=host)


def test_two_processes_in_one_have_metrics_of_their_own() -> None:
    first, second = new_registry(), new_registry()
    SinkMetrics(first, Health(), [ORDERS])
    SinkMetrics(second, Health(), [ORDERS])


def test_what_a_sink_tells_is_counted(served: Served) -> None:
    sink = SinkMetrics(served.registry, served.health, [ORDERS])
    before = served.metrics()
    assert before["headrace_sink_rows_total", ORDERS] == 0
    assert before["headrace_sink_last_commit_timestamp_seconds", ORDERS] == 0
    assert before["headrace_sink_waiting", ORDERS] == 1
    sink.running(PRODUCT)
    first = Landed(
        7,
        Ledger.begin("t", {0: 0}),
        rows=40,
        refused={"undecodable": 2, "null-value": 1},
        size_bytes=3_000,
        conflicts=2,
        read_bytes=5_000,
        steps_s={Step.FILES: 0.2, Step.COMMIT: 0.05},
    )
    sink.landed(PRODUCT, first, 0.3)
    sink.landed(PRODUCT, Landed(8, Ledger.begin("t", {0: 0}), rows=2, size_bytes=500, steps_s={Step.FILES: 0.1}), 0.1)
    after = served.metrics()
    assert after["headrace_sink_rows_total", ORDERS] == 42
    assert (after["headrace_sink_bytes_total", ORDERS], after["headrace_sink_read_bytes_total", ORDERS]) == (
        3_500,
        5_000,
    )
    assert after["headrace_sink_conflicts_total", ORDERS] == 2
    assert served.labelled("headrace_sink_dead_letters_total", "reason") == {"undecodable": 2, "null-value": 1}
    seconds = served.labelled("headrace_sink_step_seconds_total", "step")
    assert seconds.keys() == {step.value for step in Step}
    assert (seconds["files"], seconds["commit"], seconds["reload"]) == pytest.approx((0.3, 0.05, 0))
    assert after["headrace_sink_commits_total", ORDERS] == 2
    assert after["headrace_sink_commit_seconds_count", ORDERS] == 2
    assert after["headrace_sink_commit_seconds_sum", ORDERS] == pytest.approx(0.4)
    assert after["headrace_sink_last_commit_timestamp_seconds", ORDERS] > 1e9
    assert after["headrace_sink_waiting", ORDERS] == 0
    sink.waiting(PRODUCT, GONE)
    assert served.metrics()["headrace_sink_waiting", ORDERS] == 1
    sink.ended(PRODUCT, ProductStopped("a gap"))
    ended = served.metrics()
    assert (ended["headrace_sink_stopped", ORDERS], ended["headrace_sink_waiting", ORDERS]) == (1, 0)


@pytest.mark.parametrize("waits", [False, True])
def test_a_product_that_goes_on_after_a_fault_has_not_stopped_any_more(served: Served, waits: bool) -> None:
    standing = Standing(PRODUCT, SinkMetrics(served.registry, served.health, [ORDERS]))
    standing.goes_on(Wait.SESSION)
    standing.ended(ProductStopped("a gap"))
    assert served.told("/readyz")[1][0]["what"] == "a gap"
    assert served.metrics()["headrace_sink_stopped", ORDERS] == 1
    standing.opening()
    if waits:
        standing.waits(Wait.SESSION, GONE)
    else:
        standing.goes_on(Wait.SESSION)
    assert "a gap" not in str(served.told("/readyz")[1])
    assert served.metrics()["headrace_sink_stopped", ORDERS] == 0


def test_batches_that_a_stale_worker_drops_are_counted(served: Served) -> None:
    sink = SinkMetrics(served.registry, served.health, [ORDERS])
    sink.waiting(PRODUCT, GONE)
    assert served.metrics()["headrace_sink_fenced_total", ORDERS] == 0
    sink.waiting(PRODUCT, Stale("[0:4]", "[0:8]"))
    assert served.metrics()["headrace_sink_fenced_total", ORDERS] == 1


def test_a_watermark_is_left_out_while_it_is_not_known(served: Served) -> None:
    sink = SinkMetrics(served.registry, served.health, [ORDERS])
    name = ("headrace_sink_watermark_timestamp_seconds", ORDERS)
    assert name not in served.metrics()
    sink.reached(PRODUCT, None)
    assert name not in served.metrics()
    sink.reached(PRODUCT, 1_700_000_000.5)
    assert served.metrics()[name] == 1_700_000_000.5
    sink.reached(PRODUCT, None)
    assert name not in served.metrics()


def test_gauges_tell_the_last_look_and_nothing_that_it_could_not_find_out(served: Served) -> None:
    status = StatusMetrics(served.registry)
    assert ("headrace_lag_rows", ORDERS) not in served.metrics()
    known = ProductStatus(
        ORDERS,
        "t",
        2,
        Lag(12, exact=False, seconds=3.5),
        rows=40,
        snapshots=7,
        files=3,
        dead_letters=2,
        held=False,
        faults=(GONE,),
    )
    status.show(Look((known,), ()), 1_700_000_000.0)
    page = served.metrics()
    assert {name: page[f"headrace_{name}", ORDERS] for name in ("lag_rows", "lag_exact", "lag_seconds", "faults")} == {
        "lag_rows": 12, "lag_exact": 0, "lag_seconds": 3.5, "faults": 1,
    }  # fmt: skip
    assert (page["headrace_table_rows", ORDERS], page["headrace_dead_letters", ORDERS]) == (40, 2)
    assert (page["headrace_table_snapshots", ORDERS], page["headrace_table_files", ORDERS]) == (7, 3)
    assert page["headrace_looked_timestamp_seconds", ORDERS] == 1_700_000_000
    status.show(Look((ProductStatus(ORDERS, "t", unasked=(GONE,)),), (GONE,)), 1_700_000_005.0)
    page = served.metrics()
    assert not {name for name, product in page if product and name in ("headrace_lag_rows", "headrace_table_rows")}
    assert page["headrace_looked_timestamp_seconds", ORDERS] == 1_700_000_000, "a look that failed is no news"
    status.show(Look((known,), ()), 1_700_000_010.0)
    assert served.metrics()["headrace_looked_timestamp_seconds", ORDERS] == 1_700_000_010


class Diary(Unwatched):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def running(self, product: Product) -> None:
        self.told.append("running")

    def waiting(self, product: Product, error: HeadraceError) -> None:
        self.told.append(error.what)


def test_a_sink_goes_on_when_it_waits_nowhere_any_longer() -> None:
    diary = Diary()
    standing = Standing(PRODUCT, diary)
    standing.goes_on(Wait.WORK)
    assert diary.told == []
    standing.goes_on(Wait.SESSION)
    assert diary.told == ["running"]
    standing.waits(Wait.WORK, Unavailable("registry"))
    standing.waits(Wait.READING, Unavailable("broker"))
    standing.goes_on(Wait.READING)
    assert diary.told == ["running", "registry", "broker"]
    standing.goes_on(Wait.WORK)
    assert diary.told == ["running", "registry", "broker", "running"]


def test_a_new_session_forgets_what_the_last_one_waited_for() -> None:
    diary = Diary()
    standing = Standing(PRODUCT, diary)
    standing.goes_on(Wait.SESSION)
    standing.waits(Wait.WORK, Unavailable("registry"))
    standing.waits(Wait.SESSION, Unavailable("the session broke off"))
    standing.opening()
    standing.goes_on(Wait.SESSION)
    assert diary.told == ["running", "registry", "the session broke off", "running"]


def test_trouble_in_reading_is_told_once_although_the_session_repeats_it() -> None:
    diary = Diary()
    standing = Standing(PRODUCT, diary)
    trouble = Unavailable("broker")
    standing.waits(Wait.READING, trouble)
    standing.waits(Wait.WORK, trouble)
    standing.goes_on(Wait.SESSION)
    standing.goes_on(Wait.READING)
    assert diary.told == ["broker", "running"]


def test_a_landing_that_was_given_up_tells_nothing_after_the_end() -> None:
    health = Health([ORDERS])
    standing = Standing(PRODUCT, SinkMetrics(new_registry(), health, [ORDERS]))
    standing.goes_on(Wait.SESSION)
    standing.ended(None)
    standing.waits(Wait.WORK, GONE)
    assert health.unready() == ()


class Told:
    """A reader that brings what it is told to."""

    def __init__(self) -> None:
        self.next = Polled()

    def poll(self, timeout_s: float) -> Polled:
        polled, self.next = self.next, Polled()
        return polled

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def announce(self, positions: Mapping[int, int]) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("reached", [True, False])
def test_a_reader_in_trouble_asks_until_the_broker_answers(reached: bool) -> None:
    diary, told = Diary(), Told()
    standing = Standing(PRODUCT, diary)
    standing.goes_on(Wait.SESSION)
    asked = threading.Semaphore(0)

    def ask() -> None:
        asked.release()
        if not reached:
            raise GONE

    reader = WatchedReader(told, standing, ask)
    told.next = Polled(trouble=Unavailable("broker"))

    def polled() -> bool:
        reader.poll(0.0)
        return diary.told[-1] == "running" if reached else asked.acquire(blocking=False)

    polled()
    assert eventually(polled, within_s=60)
    assert diary.told == ["running", "broker", *["running"] * reached]
    told.next = Polled(ends={0: 3})
    reader.poll(0.0)
    assert diary.told == ["running", "broker", "running"]
    reader.close()


def test_a_question_that_new_trouble_has_overtaken_is_not_put() -> None:
    """While a broker is away one question hangs: those behind it must not be put one after the other afterwards."""
    standing, told = Standing(PRODUCT, Diary()), Told()
    asked, answer = threading.Semaphore(0), threading.Event()
    begun = 0

    def ask() -> None:
        nonlocal begun
        begun += 1
        asked.release()
        answer.wait(120)

    reader = WatchedReader(told, standing, ask)

    def troubled() -> None:
        told.next = Polled(trouble=Unavailable("broker"))
        reader.poll(0.0)

    def waits_for_an_answer() -> bool:
        reader.poll(0.0)
        return reader._probe is not None

    try:
        troubled()
        assert eventually(waits_for_an_answer, within_s=60)
        assert asked.acquire(timeout=60)
        for _ in range(2):
            troubled()
            assert eventually(waits_for_an_answer, within_s=60)
        answer.set()
        assert asked.acquire(timeout=60), "the question behind the last trouble"
        assert not asked.acquire(timeout=0.5)
        assert begun == 2
    finally:
        answer.set()
        reader.close()
