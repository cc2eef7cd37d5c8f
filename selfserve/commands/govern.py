"""Commands of governance: ``audit``, ``findings``."""
# ruff: noqa: PLC0415 - imports wait until their command runs, so that `headrace --help` does not pay for them

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from headrace.selfserve.commands import FAILED, INTERRUPTED, epilog, session_of
from headrace.selfserve.commands.data import MetricsHost, MetricsPort, check_metrics, stopped_by_signals
from headrace.selfserve.commands.logged import logged
from headrace.selfserve.output import ReportFormat, say

app = typer.Typer()


@app.command(
    epilog=epilog(
        "headrace audit",
        "headrace audit --until-caught-up",
        ok="caught up, or stopped by SIGTERM; findings are no failure",
        failed="something could not be looked at, or it failed; the log says why",
    )
)
@logged
def audit(
    context: typer.Context,
    *,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all there is now has been looked at and judged.")
    ] = False,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = None,
) -> None:
    """Find what is against the mesh's rules, as a service.

    Looks at topics, schemas and tables all the time.

    Trusts neither producers nor sinks. What is seen becomes events of governance.observations whenever it changes, what
    is wrong with it events of governance.findings; a finding closes itself when its cause is gone. A sink keeps both in
    tables. Several processes may run at once: one works, another takes over when it dies.
    """
    from headrace.governance.auditor import audit as run_audit
    from headrace.selfserve.audit_metrics import PARTS, AuditReport
    from headrace.selfserve.metrics import LOCAL, Endpoint, Health, new_registry

    check_metrics(metrics_port, metrics_host)
    mesh = session_of(context).mesh()
    registry, health = new_registry(), Health(PARTS)
    with ExitStack() as stack:
        if metrics_port is not None:
            endpoint = stack.enter_context(Endpoint(registry, health, host=metrics_host or LOCAL, port=metrics_port))
            say(f"metrics are at {endpoint.url}/metrics")
        stopped = stack.enter_context(stopped_by_signals())
        say("auditing; Ctrl-C stops")
        report = AuditReport(registry, health)
        fine = run_audit(mesh, until_caught_up=until_caught_up, stop=stopped.event, watcher=report)
    if stopped.signal == signal.SIGINT:
        raise typer.Exit(INTERRUPTED)
    if not fine and stopped.signal is None:
        raise typer.Exit(FAILED)


@app.command(
    epilog=epilog(
        "headrace findings",
        "headrace findings --product operations.flights --open --format json",
        ok="the findings are shown, whatever they say",
    )
)
def findings(
    context: typer.Context,
    *,
    product: Annotated[
        str | None, typer.Option("--product", metavar="PRODUCT", help="Only those of a product.")
    ] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those whose cause is still there.")] = False,
    report: Annotated[ReportFormat, typer.Option("--format", help="How to write them.")] = ReportFormat.TABLE,
) -> None:
    """Show what the auditor has found, one row a finding.

    Reads the table of governance.findings and, behind it, the topic, so no sink need run. Where Kafka does not answer,
    it shows the table alone and says as of when that is. Times are UTC.
    """
    from headrace.governance.findings import look
    from headrace.selfserve.findings import chosen_findings, show_findings, show_trouble, write_findings

    mesh = session_of(context).mesh()
    name = str(mesh.product(product).name) if product is not None else None
    read = look(mesh)
    chosen = chosen_findings(read, name, only_open=only_open)
    show_trouble(read)
    if report is ReportFormat.JSON:
        write_findings(chosen, sys.stdout)
    else:
        show_findings(chosen, sys.stdout)
