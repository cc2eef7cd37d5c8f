"""Metrics of sinks: what they tell as they go, and what a look at topics and tables finds, now and then.

The second kind comes from the same survey as `headrace status`, in a thread of its own: a scrape never waits for it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from headrace.schemas.errors import Stale
from headrace.selfserve.crash import place_of
from headrace.selfserve.metrics import LOCAL, Endpoint, Health, new_registry
from headrace.selfserve.survey import Survey
from headrace.sinks.landing import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.selfserve.status import Look, ProductStatus
    from headrace.sinks.landing import Landed
    from headrace.sinks.watch import Watcher

__all__ = ["REFRESH_S", "SinkMetrics", "StatusMetrics", "serve_sink_metrics"]

# A look costs some requests a product. Prometheus scrapes each 15 s or more, so it meets a new one each time …
REFRESH_S = 5.0
# … and looking at a large mesh takes a tenth of one processor at most.
_RESTS = 9
# A commit takes some 20 ms with local files and 100 ms with a catalog and a store far away; one that waits takes long.
_COMMIT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_LOG = structlog.get_logger("headrace.metrics")


class SinkMetrics:
    """A watcher that counts what sinks do, and keeps their health. See :class:`headrace.sinks.watch.Watcher`.

    Args:
        registry: where the metrics go.
        health: is told what waits and what stopped.
        products: the names of the products that are served.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, products: Sequence[str]) -> None:
        self._health = health

        def counter(name: str, text: str) -> Counter:
            return Counter(f"headrace_sink_{name}", text, ["product"], registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"headrace_sink_{name}", text, ["product"], registry=registry)

        self._rows = counter("rows", "Rows committed by this process.")
        self._bytes = counter("bytes", "Size of the data files that this process committed.")
        self._read_bytes = counter("read_bytes", "Size of the keys and values that this process committed.")
        self._letters = Counter(
            "headrace_sink_dead_letters",
            "Messages that this process refused, repeats included.",
            ["product", "reason"],
            registry=registry,
        )
        self._commits = counter("commits", "Commits by this process.")
        self._conflicts = counter("conflicts", "Commits that were tried again because another writer was quicker.")
        self._fenced = counter("fenced", "Batches dropped because the table had moved: a stale worker, or a rollback.")
        self._seconds = Histogram(
            "headrace_sink_commit_seconds",
            "From a batch's turn to land until its commit, waits included.",
            ["product"],
            buckets=_COMMIT_BUCKETS_S,
            registry=registry,
        )
        self._steps = Counter(
            "headrace_sink_step_seconds",
            "Seconds that the landings spent in each of their steps.",
            ["product", "step"],
            registry=registry,
        )
        self._last = gauge("last_commit_timestamp_seconds", "When this process last committed; 0: not yet.")
        self._watermark = gauge(
            "watermark_timestamp_seconds",
            "What this process's partitions were sent until then is in the table; left out while that is not known.",
        )
        self._waiting = gauge("waiting", "1 while the sink waits: for its partitions, or for what does not answer.")
        self._stopped = gauge("stopped", "1 once the sink has stopped on a fault.")
        counters = (self._rows, self._bytes, self._read_bytes, self._commits, self._conflicts, self._fenced)
        for product in products:
            for metric in (*counters, self._seconds, self._last, self._stopped):
                metric.labels(product)
            for step in Step:
                self._steps.labels(product, step)
            self._waiting.labels(product).set(1)

    def running(self, product: Product) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.running`."""
        self._waiting.labels(str(product.name)).set(0)
        self._stopped.labels(str(product.name)).set(0)
        self._health.running(str(product.name))

    def waiting(self, product: Product, error: HeadraceError) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.waiting`."""
        self._waiting.labels(str(product.name)).set(1)
        self._stopped.labels(str(product.name)).set(0)
        if isinstance(error, Stale):
            self._fenced.labels(str(product.name)).inc()
        self._health.waiting(str(product.name), error)

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.landed`."""
        name = str(product.name)
        self._rows.labels(name).inc(landed.rows)
        self._bytes.labels(name).inc(landed.size_bytes)
        self._read_bytes.labels(name).inc(landed.read_bytes)
        for reason, count in landed.refused.items():
            self._letters.labels(name, reason).inc(count)
        self._commits.labels(name).inc()
        self._conflicts.labels(name).inc(landed.conflicts)
        for step, step_s in landed.steps_s.items():
            self._steps.labels(name, step).inc(step_s)
        self._seconds.labels(name).observe(seconds)
        self._last.labels(name).set(landed.at_s)

    def reached(self, product: Product, watermark_s: float | None) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.reached`."""
        if watermark_s is None:
            # No value is better than one of other partitions.
            self._watermark.remove(str(product.name))
        else:
            self._watermark.labels(str(product.name)).set(watermark_s)

    def ended(self, product: Product, fault: HeadraceError | None) -> None:
        """See :meth:`headrace.sinks.watch.Watcher.ended`."""
        self._waiting.labels(str(product.name)).set(0)
        self._stopped.labels(str(product.name)).set(0 if fault is None else 1)
        self._health.ended(str(product.name), fault)


class StatusMetrics(Collector):
    """What the last look found, as gauges. What it could not find out is left out: no value is better than an old one.

    Args:
        registry: where the metrics go.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._look: Look | None = None
        self._looked_s: dict[str, float] = {}
        registry.register(self)

    def show(self, look: Look, at_s: float) -> None:
        """Take a new look, made at so many seconds since 1970 UTC."""
        # A new mapping: a scrape may be reading the old one.
        self._looked_s = self._looked_s | {each.product: at_s for each in look.products if not each.unasked}
        self._look = look

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics."""
        products = self._look.products if self._look else ()
        looked_s = self._looked_s

        def family(name: str, text: str, value: Callable[[ProductStatus], float | None]) -> GaugeMetricFamily:
            gauge = GaugeMetricFamily(f"headrace_{name}", text, labels=["product"])
            for product in products:
                if (found := value(product)) is not None:
                    gauge.add_metric([product.product], found)
            return gauge

        yield family(
            "lag_rows",
            "Events that are not in the table yet; an upper bound where headrace_lag_exact is 0.",
            lambda product: product.lag.rows if product.lag else None,
        )
        yield family(
            "lag_exact",
            "1 if headrace_lag_rows was counted.",
            lambda product: product.lag.exact if product.lag else None,
        )
        yield family(
            "lag_seconds",
            "Age of the oldest event that is not in the table yet; 0: there is none.",
            lambda product: product.lag.seconds if product.lag else None,
        )
        yield family("table_rows", "Rows in the table.", lambda product: product.rows)
        yield family("table_snapshots", "Snapshots of the table.", lambda product: product.snapshots)
        yield family("table_files", "Data files of the table's newest snapshot.", lambda product: product.files)
        yield family("dead_letters", "Distinct dead letters of events that the topic has.", lambda p: p.dead_letters)
        yield family("held", "1 while an operator holds the product.", lambda product: product.held)
        yield family("faults", "What only a person can mend: a gap, a damaged ledger …", lambda p: len(p.faults))
        yield family(
            "looked_timestamp_seconds",
            "When the product was last found out whole; it stands still while something does not answer.",
            lambda product: looked_s.get(product.product),
        )


@contextmanager
def serve_sink_metrics(
    mesh: Mesh, products: Sequence[str], host: str | None, port: int
) -> Iterator[tuple[Watcher, str]]:
    """Serve metrics and health of sinks; yield the watcher for the sinks, and the address.

    Args:
        mesh: the mesh.
        products: the names of the products that the sinks serve.
        host: the address to listen at; None: this machine alone.
        port: the port; 0: a free one.

    Raises:
        UserError: if it cannot listen there; nothing was started.
    """
    registry, health, over = new_registry(), Health(products), Event()
    sinks, status = SinkMetrics(registry, health, products), StatusMetrics(registry)
    survey = Survey(mesh, [mesh.product(name) for name in products])

    def refresh() -> None:
        try:
            _refresh(survey, status, over)
        except Exception as error:  # noqa: BLE001 - the thread ends, which its health tells; the message may hold a value
            _LOG.error("looking stopped by a bug of headrace", kind=type(error).__name__, place=place_of(error))

    thread = Thread(target=refresh, name="status", daemon=True)
    with Endpoint(registry, health, host=host or LOCAL, port=port) as endpoint:
        thread.start()
        health.watch(thread)
        try:
            yield sinks, endpoint.url
        finally:
            over.set()


def _refresh(survey: Survey, status: StatusMetrics, over: Event) -> None:
    while not over.is_set():
        began_s = time.monotonic()
        look = survey.look()
        status.show(look, time.time())
        # A server that does not answer takes time and no processor.
        rest_s = 0.0 if look.unasked else _RESTS * (time.monotonic() - began_s)
        over.wait(max(REFRESH_S, rest_s))
