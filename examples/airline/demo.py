"""The demo: real events of four domains through the mesh, one question across them, and the proof.

Run it with ``make demo``. It does what any program can do with headrace: start the stack, apply, publish, run the
sinks, query, verify. A second run takes up where the first ended. Ctrl-C at any moment stops every process that was
started here, and so does the end of the demo by any other cause.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

import source
from headrace.governance.duck import tables_of
from headrace.governance.verify import verify
from headrace.producers.resumable import publish_all
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.environment import ensure_hmac_key
from headrace.schemas.errors import HeadraceError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.apply import apply
from headrace.selfserve.output import show_error, show_rows
from headrace.selfserve.report import show_audit
from headrace.selfserve.sql import select
from headrace.selfserve.stack import stack_of
from headrace.sinks.serve import serve
from headrace.sinks.watch import Unwatched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Task

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.selfserve.stack import Stack
    from headrace.sinks.landing import Landed

QUESTION = """\
SELECT f.carrier,
       count(DISTINCT f.flight_id)     AS flights,
       round(avg(f.dep_delay), 1)      AS minutes_late,
       count(DISTINCT b.contact.email) AS travellers,
       sum(b.fare)                     AS fares
FROM operations.flights   AS f
JOIN weather.observations AS w ON w.origin = f.origin
                              AND w.observed_at = date_trunc('hour', f.scheduled_departure)
JOIN fleet.aircraft       AS a ON a.tailnum = f.tailnum
JOIN loyalty.bookings     AS b ON b.flight_id = f.flight_id
WHERE w.visib < 2 AND a.year < 2000 AND f.dep_delay > 0
GROUP BY f.carrier ORDER BY fares DESC LIMIT 5"""

TRY_NEXT = """
What to try next:
  .venv/bin/headrace --mesh examples/airline sql "SELECT tier, avg(fare) FROM loyalty.bookings GROUP BY ALL"
  .venv/bin/headrace --mesh examples/airline up      # then: headrace sink, headrace publish, headrace status
  less examples/airline/README.md                    # what is in the mesh, and how to add a domain"""

INTERRUPTED = 130
console = Console(soft_wrap=True, highlight=False)


class RateColumn(ProgressColumn):
    """Events a second, over the last seconds that the bar has been moving."""

    def render(self, task: Task) -> Text:
        """Return the rate; nothing while the bar stands."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="cyan")


class Bars(Unwatched):
    """Two bars a product: events published, rows in the table."""

    def __init__(self, mesh: Mesh, progress: Progress) -> None:
        self._progress = progress
        self._published: dict[str, TaskID] = {}
        self._committed: dict[str, TaskID] = {}
        for product in sourced(mesh):
            name, rows = str(product.name), rows_in(mesh, product)
            total = source.count(name)
            self._published[name] = progress.add_task(f"{name} published", total=total)
            self._committed[name] = progress.add_task(f"{name} in its table", total=total, completed=rows)

    def published(self, name: str, events: int) -> None:
        """Move a product's first bar."""
        self._progress.advance(self._published[name], events)

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:  # noqa: ARG002 - Watcher's signature
        """Move a product's second bar."""
        self._progress.advance(self._committed[str(product.name)], landed.rows)


def sourced(mesh: Mesh) -> list[Product]:
    """Return the products that have a source here; what is made from them has an application of its own."""
    return [product for product in mesh.products if str(product.name) in source.COUNTS]


def rows_in(mesh: Mesh, product: Product) -> int:
    """Return the number of rows that the product's table holds."""
    snapshot = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product).current_snapshot()
    summary = snapshot.summary if snapshot else None
    return int(summary["total-records"] or 0) if summary else 0


@contextmanager
def running(stack: Stack) -> Iterator[None]:
    """Start the servers; afterwards stop those that did not run before. They end with this process, however it ends."""
    ran_before = {server.name for server in stack.status() if server.state == "running"}
    try:
        stack.up(die_with_parent=True, progress=console.print)
        yield
    finally:
        if ran_before:
            console.print("the servers ran before the demo and go on: `headrace down` stops them")
        else:
            stack.down(console.print)
            console.print("every process that the demo started is stopped; the data stay in examples/airline/.headrace")


def stream(mesh: Mesh) -> bool:
    """Publish all events while the sinks keep the tables up to date; False if a sink stopped on a fault."""
    stop = threading.Event()
    columns = (TextColumn("{task.description:<33}"), BarColumn(), MofNCompleteColumn(), RateColumn())
    names = [str(product.name) for product in sourced(mesh)]
    with (
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
        ThreadPoolExecutor(1 + len(names)) as threads,
    ):
        bars = Bars(mesh, progress)
        try:
            sinks = threads.submit(serve, mesh, names, until_caught_up=False, stop=stop, watcher=bars)
            for publisher in [threads.submit(publish, mesh, name, bars, stop) for name in names]:
                publisher.result()
        finally:
            stop.set()
        fine = sinks.result()
        return serve(mesh, names, until_caught_up=True, stop=threading.Event(), watcher=bars) and fine


def publish(mesh: Mesh, name: str, bars: Bars, stop: threading.Event) -> None:
    """Publish a product's events from where an earlier run ended, until told to stop."""
    events = enumerate(source.events(name), start=1)
    try:
        published = publish_all(
            mesh,
            name,
            until(stop, events),
            identity=f"airline-demo/{name}",
            on_progress=lambda count: bars.published(name, count),
        )
    except InterruptedError:
        return
    bars.published(name, published.before)


def until(stop: threading.Event, events: Iterable[tuple[int, object]]) -> Iterator[tuple[int, object]]:
    """Yield events; raise rather than end when told to stop, because an ended source counts as published whole."""
    for event in events:
        if stop.is_set():
            raise InterruptedError
        yield event


def answer(mesh: Mesh) -> None:
    """Show the question and its answer."""
    console.print(
        "\nOld aircraft leaving late in bad visibility: how late, and whose fares were on them?\n", highlight=False
    )
    console.print(QUESTION, style="dim")
    console.print()
    with tables_of(mesh) as duck:
        result = select(duck, [product.name for product in mesh.products], QUESTION)
        names = [column.name for column in result.columns]
        show_rows(names, result.rows, [column.numeric for column in result.columns], sys.stdout)


def demo() -> bool:
    """Run it all; True if every event is proved to be in its table exactly once."""
    mesh = load_mesh(Path(__file__).parent)
    if ensure_hmac_key(mesh.root):
        console.print("made the mesh's secret key, which masks personal data")
    with running(stack_of(mesh.environment)):
        applied = apply(mesh, lambda made: console.print(f"  {made}"))
        console.print(f"applied: {len(applied.made)} things made, {applied.found} found as they should be")
        fine = stream(mesh)
        answer(mesh)
        console.print("\nThe proof: topics read again, compared with the tables offset by offset.\n")
        audit = verify(mesh, sourced(mesh), lambda _: None)
        show_audit(audit, sys.stdout)
    return fine and audit.holds


def main() -> int:
    """Run the demo and return its exit code: 0 proved, 1 a fault, 130 interrupted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        proved = demo()
    except KeyboardInterrupt:
        console.print("interrupted: run it again, it takes up where it ended")
        return INTERRUPTED
    except HeadraceError as error:
        show_error(error)
        return 1
    console.print(TRY_NEXT)
    return 0 if proved else 1


if __name__ == "__main__":
    sys.exit(main())
