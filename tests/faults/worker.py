"""A program of the fault tests: one product's sink, which kills or stops itself at a step. See support/sinks.py."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.output import log_to_stderr
from headrace.sinks.landing import Step
from headrace.sinks.serve import ProductSink, Setting
from headrace.sinks.watch import Unwatched
from tests.support.workers import At

if TYPE_CHECKING:
    from headrace.schemas.product import Product
    from headrace.sinks.landing import Landed


class Teller(Unwatched):
    """Tells the parent of each commit."""

    def landed(self, product: Product, landed: Landed, seconds: float) -> None:
        print(landed.rows, flush=True)  # noqa: T201 - the parent reads it


def main() -> int:
    """Run the sink. Options: see ``options`` below, given as JSON."""
    options = json.loads(sys.argv[1])
    log_to_stderr()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    mesh = load_mesh(Path(options["mesh"]), environment="cluster")

    def act() -> None:
        if "marker" in options:
            Path(options["marker"]).write_text("here", encoding="utf-8")
        os.kill(os.getpid(), signal.Signals[options["signal"]])

    at = At(Step(options.get("step", "landed")), options.get("occurrence", 0), act)
    with Registry(mesh.environment.registry_config()) as registry:
        setting = Setting(
            mesh,
            mesh.product(options["product"]),
            registry,
            mesh.environment.hmac_key(),
            watcher=Teller(),
            observe=at,
        )
        return 0 if ProductSink(setting).run(stop, until_caught_up=options.get("until_caught_up", False)) else 1


if __name__ == "__main__":
    sys.exit(main())
