"""A program of the fault tests: a replay that kills itself before one of its steps, or of its landings' steps."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.own_hold import own_hold
from headrace.sinks.replay.drain import Drain
from headrace.sinks.replay.plan import plan_replay
from headrace.sinks.replay.steps import Replay

if TYPE_CHECKING:
    from enum import StrEnum
    from pathlib import Path


@dataclass(frozen=True)
class Deadly:
    """Kills the process before a step; ``step`` is the value of either kind."""

    step: str

    def __call__(self, step: StrEnum) -> None:
        """Observe a step that is about to be done."""
        if step.value == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main(root: Path, product: str, step: str) -> None:
    """Replay a product from its earliest event, and die before a step; without such a step, do all of it."""
    mesh = load_mesh(root, environment="cluster")
    chosen = mesh.product(product)
    catalog = open_catalog(mesh.environment, mesh.domain_of(chosen))
    deadly = Deadly(step)
    with Registry(mesh.environment.registry_config()) as registry:
        drain = Drain(mesh, chosen, registry, catalog, lambda _: None, observe=deadly)
        plan = plan_replay(load_table(catalog, chosen), chosen, None, drain.admin)
        Replay(drain, partial(own_hold, catalog, chosen, "headrace replay"), deadly).run(plan)
