"""What the processes of the fault tests do: one product's sink, which may kill or freeze itself at a step.

See ``tests/support/forked.py``, which starts them.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.output import log_to_stderr
from headrace.sinks.landing import Step
from headrace.sinks.serve import ProductSink, Setting
from headrace.sinks.watch import Unwatched
from tests.support.workers import At

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed


@dataclass(frozen=True)
class Options:
    """What a process is to do.

    Attributes:
        root: the mesh's folder.
        environment: the mesh's environment.
        product: the product.
        log: the file that its stderr goes to.
        until_caught_up: end when all that was there at the start has landed.
        step: the step before which it acts, and never again; with ``occurrence`` 0 it does not.
        occurrence: at the how-manieth time.
        after: act right after the step instead.
        signal: what it sends itself then.
        marker: the file that it writes before.
        instance_id: the static member of the group that it is; None: it is none.
        file_limit_bytes: no file of its may grow beyond; 0: any may.
    """

    root: Path
    environment: str
    product: str
    log: Path
    until_caught_up: bool = False
    step: str = Step.LANDED
    occurrence: int = 0
    after: bool = False
    signal: str = "SIGKILL"
    marker: Path | None = None
    instance_id: str | None = None
    file_limit_bytes: int = 0

    def act(self) -> None:
        """Do to this process what the test asks for."""
        if self.marker is not None:
            self.marker.write_text("here", encoding="utf-8")
        os.kill(os.getpid(), signal.Signals[self.signal])


@dataclass(frozen=True)
class Teller(Unwatched):
    """Tells the parent of each commit."""

    tell: Connection

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        self.tell.send(landed.rows)


def main(options: Options, tell: Connection) -> None:
    """Run the sink; tell the parent first that signals are heard. Exits with 1 if the product stopped on a fault."""
    with options.log.open("ab") as log:
        os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    log_to_stderr()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    tell.send(None)
    if options.file_limit_bytes:
        # Without a handler the signal would end the process; so the write fails, as it does on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit_bytes, resource.RLIM_INFINITY))
    mesh = load_mesh(options.root, environment=options.environment)
    at = At(Step(options.step), options.occurrence, options.act, after=options.after)
    with Registry(mesh.environment.registry_config()) as registry:
        setting = Setting(
            mesh,
            mesh.product(options.product),
            registry,
            mesh.environment.hmac_key(),
            watcher=Teller(tell),
            observe=at,
            instance_id=options.instance_id,
        )
        ended_well = ProductSink(setting).run(stop, until_caught_up=options.until_caught_up)
    sys.exit(0 if ended_well else 1)
