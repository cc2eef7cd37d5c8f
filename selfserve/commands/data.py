"""Commands of the data: ``publish``, ``sink``, ``sql``, ``verify``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.schemas.errors import UsageError, UserError
from headrace.selfserve.commands import FAILED, INTERRUPTED, epilog, session_of
from headrace.selfserve.commands.logged import logged
from headrace.selfserve.output import (
    Format,
    ReportFormat,
    progress,
    say,
    show_rows,
    visible,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.watch import Watcher

app = typer.Typer()

# More than a person reads at once; how many there are is said too.
BAD_LINES_SHOWN = 20

# Typer reads a command's annotations when it runs: these names must be there then.
File = Annotated[Path, typer.Argument(metavar="FILE", help="JSON Lines (.jsonl) or CSV with a header (.csv).")]
Products = Annotated[
    list[str] | None,
    typer.Argument(metavar="PRODUCT", help="Names such as operations.flights; none: all of the mesh."),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        metavar="PORT", min=0, max=65_535, help="Serve /metrics, /healthz and /readyz by HTTP; 0: at a free port."
    ),
]
MetricsHost = Annotated[
    str | None,
    typer.Option(
        metavar="HOST", help="The address that --metrics-port listens at; else 127.0.0.1, this machine alone."
    ),
]
InstanceId = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        envvar="HEADRACE_INSTANCE_ID",
        help="Keep this worker's partitions over a restart within 45 s; one that no other worker has, as a pod's name.",
    ),
]


@app.command(
    epilog=epilog(
        "headrace publish operations.flights flights.jsonl",
        "headrace publish operations.flights flights.csv --skip-bad",
        ok="every line is published, or was before",
        failed="the file has bad lines (with --skip-bad: the good ones are published), or it failed",
    )
)
def publish(
    context: typer.Context,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="A name such as operations.flights.")],
    file: File,
    *,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Publish the good lines of a file with bad ones.")
    ] = False,
) -> None:
    """Publish a file's lines as events of a product.

    The whole file is checked against the product's schema first; bad lines are shown by number, and nothing is sent.
    A run that was stopped takes up where it ended when it is run again: nothing is lost and nothing is sent twice.
    """
    from headrace.producers.files import publish_file

    mesh = session_of(context).mesh()
    sent = 0
    with progress(f"checking {file}") as tell:

        def on_progress(count: int) -> None:
            nonlocal sent
            sent += count
            tell(f"published {sent:,} events")

        result = publish_file(mesh, product, file, skip_bad=skip_bad, on_progress=on_progress)
    for bad in result.bad[:BAD_LINES_SHOWN]:
        say(f"{file}: {visible(str(bad))}")
    if result.bad_lines > BAD_LINES_SHOWN:
        say(f"… and {result.bad_lines - BAD_LINES_SHOWN:,} more")
    if result.published is not None:
        before = f", {result.published.before:,} were published before" if result.published.before else ""
        say(f"published {result.published.sent:,} events of {product}{before}")
    if result.bad_lines:
        raise _bad_lines(result.bad_lines, file, skipped=result.published is not None)


@app.command(
    epilog=epilog(
        "headrace sink",
        "headrace sink operations.flights --until-caught-up",
        "headrace sink --metrics-port 9108 --log-format json",
        ok="caught up, or stopped by SIGTERM: what could not be committed in time is logged, and read again",
        failed="a product stopped or failed; the log says why",
    )
)
@logged
def sink(
    context: typer.Context,
    products: Products = None,
    *,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that was in the topics at the start is committed.")
    ] = False,
    instance_id: InstanceId = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
) -> None:
    """Keep the tables up to date with the topics, until stopped.

    Each event becomes a row exactly once. A fault in one product stops no other. Several processes may run at once and
    share the partitions. A product that is held is waited for, with --until-caught-up too. One that stopped on a fault
    is looked at every 30 s, and goes on once its topic, table or ledger were mended. Ctrl-C and SIGTERM commit what is
    open (at most 10 s); a second one ends at once, and nothing is lost by it. If the environment in mesh.yaml says
    `sink: {openlineage: true}`, OpenLineage events are sent as that library's own settings say.
    """
    from headrace.sinks.serve import serve

    check_metrics(metrics_port, metrics_host)
    mesh = session_of(context).mesh()
    chosen = chosen_products(mesh, products)
    names = [str(product.name) for product in chosen]
    with _watched(mesh, names, metrics_host, metrics_port) as watcher, stopped_by_signals() as stopped:
        say(f"keeping {len(names)} table{'s' if len(names) != 1 else ''} up to date; Ctrl-C stops")
        fine = serve(
            mesh, names, until_caught_up=until_caught_up, stop=stopped.event, watcher=watcher, instance_id=instance_id
        )
    if stopped.signal == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)
    if not fine:
        raise typer.Exit(FAILED)


@app.command(
    epilog=epilog(
        'headrace sql "SELECT origin, count(*) FROM operations.flights GROUP BY ALL"',
        'headrace sql --format csv "FROM fleet.aircraft" > aircraft.csv',
        "headrace sql - < query.sql",
    )
)
def sql(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL as DuckDB reads it; - reads it from stdin.")],
    output: Annotated[Format, typer.Option("--format", help="How to write the rows.")] = Format.TABLE,
) -> None:
    """Query the tables in place with DuckDB. A product's table is called domain.product, in every domain.

    Needs no server: the tables are files. `SHOW ALL TABLES` lists them, `DESCRIBE domain.product` shows one. Decimals,
    timestamps (ISO 8601, UTC), bytes and NaN are text in JSON and CSV, so that nothing is lost.
    """
    from headrace.governance.duck import tables_of
    from headrace.selfserve.sql import select

    mesh = session_of(context).mesh()
    text = sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape") if query == "-" else query
    with tables_of(mesh) as duck:
        result = select(duck, [product.name for product in mesh.all_products], text)
        names = [column.name for column in result.columns]
        if output is Format.JSON:
            write_json(names, result.rows, sys.stdout)
        elif output is Format.CSV:
            write_csv(names, result.rows, sys.stdout)
        elif names:
            show_rows(names, result.rows, [column.numeric for column in result.columns], sys.stdout)


@app.command(
    epilog=epilog(
        "headrace verify",
        "headrace verify operations.flights --format json",
        ok="every event is in its table exactly once, is a dead letter, or was skipped on record",
        failed="something is missing, not yet committed, doubled or foreign; or it could not be found out",
    )
)
def verify(
    context: typer.Context,
    products: Products = None,
    report: Annotated[ReportFormat, typer.Option("--format", help="How to write the report.")] = ReportFormat.TABLE,
) -> None:
    """Prove that each event is in its table exactly once.

    Reads the topics with a consumer of its own and the tables with DuckDB, and compares partition by partition; what
    the sinks believe is not asked. An event behind a partition's last row is pending, one before it is missing. What
    Kafka no longer keeps is said, and so is what an operator has accepted as lost. Needs 16 bytes of temporary disk for
    each row (TMPDIR says where), and no more memory for a large table than for a small one.
    """
    from headrace.governance.verify import verify as verify_products
    from headrace.selfserve.ending import ended_by_signals
    from headrace.selfserve.report import show_audit, write_audit

    mesh = session_of(context).mesh()
    chosen = chosen_products(mesh, products)
    # Gigabytes of temporary files would stay behind a time-out's SIGTERM.
    with ended_by_signals(), progress("reading") as tell:
        audit = verify_products(mesh, chosen, tell)
    if report is ReportFormat.JSON:
        write_audit(audit, sys.stdout)
    else:
        show_audit(audit, sys.stdout)
    if not audit.holds:
        raise typer.Exit(FAILED)


def chosen_products(mesh: Mesh, names: Sequence[str] | None) -> list[Product]:
    """Return the products of these names, each once; without names all of the mesh."""
    return [mesh.product(name) for name in dict.fromkeys(names or ())] or list(mesh.all_products)


def check_metrics(port: int | None, host: str | None) -> None:
    """Refuse an address to serve metrics at without a port, which would serve nothing."""
    if host is not None and port is None:
        raise UsageError(
            "--metrics-host says where to serve metrics, and nothing says that they are served",
            hint="add --metrics-port PORT (0: a free port)",
        )


@contextmanager
def _watched(mesh: Mesh, names: Sequence[str], metrics_host: str | None, metrics_port: int | None) -> Iterator[Watcher]:
    """Tell of these products' sinks what was asked for: lineage, metrics, both or nothing."""
    from headrace.sinks.watch import Watchers

    watchers: list[Watcher] = []
    with ExitStack() as telling:
        if mesh.environment.openlineage:
            from headrace.selfserve.lineage.transport import open_client

            # It says what to do if the optional package is missing, which the next module imports.
            client = open_client()
            from headrace.selfserve.lineage.watching import telling_lineage

            watchers.append(telling.enter_context(telling_lineage(mesh, client)))
        if metrics_port is not None:
            from headrace.selfserve.sink_metrics import serve_sink_metrics

            metrics, address = telling.enter_context(serve_sink_metrics(mesh, names, metrics_host, metrics_port))
            watchers.append(metrics)
            say(f"metrics at {address}/metrics")
        yield Watchers(watchers)


def _bad_lines(count: int, file: Path, *, skipped: bool) -> UserError:
    lines = "line" if count == 1 else "lines"
    if skipped:
        return UserError(
            f"{count:,} bad {lines} left out", where=str(file), hint="mend them and publish them as a file"
        )
    return UserError(
        f"{count:,} bad {lines}: nothing was published",
        where=str(file),
        hint="mend the file, or publish the other lines with --skip-bad",
    )


class Stopped:
    """A stop that was asked for: ``event`` is set then, ``signal`` says by which signal."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None


@contextmanager
def stopped_by_signals() -> Iterator[Stopped]:
    """Let the first SIGINT or SIGTERM ask for a stop; a second one ends the process at once, as the system does it."""
    stopped = Stopped()

    def ask(number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        stopped.signal = number
        stopped.event.set()
        say("stopping: what is open is committed first; Ctrl-C ends at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
