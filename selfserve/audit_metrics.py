"""What ``headrace audit`` tells of itself: metrics and health, from the threads of its two halves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from headrace.schemas.errors import HeadraceError
    from headrace.selfserve.metrics import Health

__all__ = ["PARTS", "AuditReport"]

SCANNER, JUDGE = "scanner", "auditor"
PARTS = (SCANNER, JUDGE)


class AuditReport:
    """Turns what an audit tells into metrics and health; see :class:`headrace.governance.auditor.AuditWatcher`."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self.scanner = _Scanner(registry, health)
        self.judge = _Judge(registry, health)


class _Scanner:
    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._health = health
        self._leads = Gauge(
            "headrace_audit_scanning", "1 while this process scans, 0 while another one does.", registry=registry
        )
        self._seconds = Histogram(
            "headrace_audit_scan_seconds",
            "How long one look at everything took.",
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self._observations = Counter(
            "headrace_audit_observations", "Observations that were published.", registry=registry
        )

    def scanned(self, seconds: float, observations: int) -> None:
        """See :class:`headrace.governance.scanner.ScannerWatcher`."""
        self._leads.set(1)
        self._seconds.observe(seconds)
        self._observations.inc(observations)
        self._health.running(SCANNER)

    def standing_by(self) -> None:
        """See :class:`headrace.governance.scanner.ScannerWatcher`."""
        self._leads.set(0)
        self._health.running(SCANNER)

    def waiting(self, error: HeadraceError) -> None:
        """See :class:`headrace.governance.scanner.ScannerWatcher`."""
        self._health.waiting(SCANNER, error)


class _Judge:
    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._health = health
        self._leads = Gauge(
            "headrace_audit_judging", "1 while this process judges, 0 while another one does.", registry=registry
        )
        self._open = Gauge(
            "headrace_audit_open_findings", "Findings that are open; NaN while another one judges.", registry=registry
        )
        self._open.set(math.nan)
        self._opened = Counter("headrace_audit_findings_opened", "Findings that were opened.", registry=registry)
        self._closed = Counter("headrace_audit_findings_closed", "Findings that were closed.", registry=registry)

    def judging(self, open_findings: int) -> None:
        """See :class:`headrace.governance.judge.JudgeWatcher`."""
        self._leads.set(1)
        self._open.set(open_findings)
        self._health.running(JUDGE)

    def standing_by(self) -> None:
        """See :class:`headrace.governance.judge.JudgeWatcher`."""
        self._leads.set(0)
        self._open.set(math.nan)
        self._health.running(JUDGE)

    def judged(self, opened: int, closed: int) -> None:
        """See :class:`headrace.governance.judge.JudgeWatcher`."""
        self._opened.inc(opened)
        self._closed.inc(closed)
        self._health.running(JUDGE)

    def waiting(self, error: HeadraceError) -> None:
        """See :class:`headrace.governance.judge.JudgeWatcher`."""
        self._health.waiting(JUDGE, error)
