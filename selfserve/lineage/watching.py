"""Telling lineage: a thread that looks at tables and sends events, beside the sinks and never in their way.

A sink only leaves a note (`Outbox`). Whatever a catalog or a transport does (refuse, hang, fail each time), no sink
waits for it, and none ends for it. What was not delivered is counted and logged; the run's next event says all that it
would have said.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING

import structlog
from openlineage.client.uuid import generate_new_uuid

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.environment import BOOTSTRAP
from headrace.schemas.errors import HeadraceError
from headrace.selfserve.crash import place_of
from headrace.selfserve.lineage.events import Origin, RunState, TableFacts, kafka_namespace, run_event
from headrace.selfserve.lineage.outbox import Outbox
from headrace.selfserve.lineage.tables import facts_of
from headrace.selfserve.lineage.transport import Heard, is_switched_off
from headrace.sinks.watch import Unwatched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import RunEvent
    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.selfserve.lineage.outbox import Parcel
    from headrace.sinks.watch import Watcher

__all__ = ["CLOSE_S", "telling_lineage"]

# How long the end of a process waits for what is not delivered yet: a stop of the sinks has taken up to 10 s before,
# and whoever asked for it (Kubernetes after 30 s) ends the process soon.
CLOSE_S = 5.0
# OpenLineage's own integrations take the namespace of jobs from here.
NAMESPACE_VARIABLE = "OPENLINEAGE_NAMESPACE"

_LOG = structlog.get_logger("headrace.lineage")


@contextmanager
def telling_lineage(mesh: Mesh, client: OpenLineageClient) -> Iterator[Watcher]:
    """Send OpenLineage events of the sinks that the watcher is told of. What waits at the end is given up after 5 s.

    Args:
        mesh: the mesh.
        client: sends them; it is closed at the end.

    Raises:
        SettingsError: if a secret of the environment is missing; nothing was started.
        Unavailable: if the environment's own stack is not up.
    """
    if is_switched_off(client):
        _LOG.info("lineage is switched off by OpenLineage's settings")
        yield Unwatched()
        return
    outbox = Outbox(lambda: datetime.now(UTC), time.monotonic, lambda: str(generate_new_uuid()))
    teller = _Teller(mesh, client, outbox)
    # A transport that hangs must not keep the process from ending.
    thread = Thread(target=teller.run, name="lineage", daemon=True)
    thread.start()
    try:
        yield outbox
    finally:
        teller.close_by_s = time.monotonic() + CLOSE_S
        outbox.close()
        thread.join(CLOSE_S)
        lost = teller.lost + teller.held + outbox.lost + outbox.owed()
        if lost or thread.is_alive():
            # A transport with a queue of its own does not tell how many more wait there.
            _LOG.warning("lineage was not delivered whole", events=lost)


class _Teller:
    """Delivers what an outbox owes, in a thread of its own.

    Args:
        mesh: the mesh.
        client: the library's client.
        outbox: what is to be told.

    Attributes:
        close_by_s: when the end is to be reached, by the monotonic clock; None: it is not in sight.
        lost: how many moments were given up.
        held: how many moments were taken from the outbox and are neither delivered nor given up.
    """

    def __init__(self, mesh: Mesh, client: OpenLineageClient, outbox: Outbox) -> None:
        self.close_by_s: float | None = None
        self.lost = 0
        self.held = 0
        self._mesh = mesh
        self._client = client
        self._outbox = outbox
        self._version = version("headrace")
        self._job_namespace = os.environ.get(NAMESPACE_VARIABLE) or f"{mesh.name}.{mesh.environment.name}"
        self._kafka_namespace = kafka_namespace(mesh.environment.kafka_config()[BOOTSTRAP])
        self._heard = Heard()
        self._failing = False
        self._catalogs: dict[str, Catalog] = {}
        self._facts: dict[str, TableFacts] = {}

    def run(self) -> None:
        """Deliver until the outbox is closed and empty; then close the client."""
        with self._heard.listening():
            while (parcel := self._outbox.take()) is not None:
                self.held = len(parcel.moments)
                try:
                    self._deliver(parcel)
                except Exception as error:  # noqa: BLE001 - the next parcel may be told; the message may hold a value
                    _LOG.error("lineage met a bug of headrace", kind=type(error).__name__, place=place_of(error))
                self.lost += self.held
                self.held = 0
            self._close()

    def _deliver(self, parcel: Parcel) -> None:
        """Deliver moments in order, up to one that fails: each failure may take as long as the library is patient."""
        facts, origin = self._look(parcel.product), self._origin(parcel)
        for moment in parcel.moments:
            if not self._sent(run_event(origin, moment, facts)):
                if moment.state is RunState.START and self._outbox.keep(parcel):
                    self.held -= 1
                return
            self.held -= 1

    def _look(self, product: Product) -> TableFacts | None:
        """Look at the table; if that fails, what the last look found is told again."""
        name, domain = str(product.name), self._mesh.domain_of(product)
        try:
            if domain.name not in self._catalogs:
                self._catalogs[domain.name] = open_catalog(self._mesh.environment, domain)
            catalog = self._catalogs[domain.name]
            self._facts[name] = facts_of(load_table(catalog, product), product, catalog)
        except HeadraceError as error:
            _LOG.info("lineage is told without a new look at the table", product=name, what=error.what)
        return self._facts.get(name)

    def _sent(self, event: RunEvent) -> bool:
        errors = self._heard.errors
        try:
            self._client.emit(event)
        except Exception as error:  # noqa: BLE001 - transports raise anything; a message may repeat a password
            self._failed(type(error).__name__)
            return False
        if self._heard.errors > errors:
            self._failed("the transport logged an error")
            return False
        if self._failing:
            self._failing = False
            _LOG.info("lineage is delivered again", lost=self.lost)
        return True

    def _failed(self, kind: str) -> None:
        if not self._failing:
            self._failing = True
            _LOG.warning("lineage is not delivered", kind=kind, next="see OpenLineage's settings and its backend")

    def _origin(self, parcel: Parcel) -> Origin:
        return Origin(parcel.run_id, self._job_namespace, self._kafka_namespace, parcel.product, self._version)

    def _close(self) -> None:
        left_s = max(0.0, (self.close_by_s or 0.0) - time.monotonic())
        try:
            delivered = self._client.close(left_s)
        except Exception as error:  # noqa: BLE001 - as `_sent`
            self._failed(type(error).__name__)
            return
        if not delivered:
            self.lost += 1
