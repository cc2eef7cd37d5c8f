"""Two real processes on one product: the one that was frozen between its look and its commit is refused."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.support.meshes import ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, events, eventually, process
from tests.support.storms import let_sleepers_lie

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

COUNT = 200


def test_a_worker_that_wakes_up_after_another_took_over_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    let_sleepers_lie(mesh)
    product = mesh.product(ORDERS)
    send(mesh, product.topic, events(mesh, product, map(order, range(COUNT))))
    marker, log = tmp_path / "marker", tmp_path / "frozen.log"
    # RELOAD is done, its fence has held, manifests are written: only the commit is missing.
    frozen_at = {"step": "commit", "occurrence": 1, "signal": "SIGSTOP", "marker": marker}
    with process(mesh, ORDERS, log, **frozen_at) as frozen:
        assert eventually(marker.exists)
        with process(mesh, ORDERS, tmp_path / "other.log", until_caught_up=True) as other:
            assert other.wait() == 0
            assert sum(other.landed) == COUNT
        frozen.signal(signal.SIGCONT)
        assert eventually(lambda: frozen.logged("stale: expected ["))
        assert frozen.logged("committed [")
        # It goes on from the ledger: what comes next is landed by it, once.
        send(mesh, product.topic, events(mesh, product, map(order, range(COUNT, COUNT + 50))))
        assert eventually(lambda: sum(frozen.landed) == 50)
        frozen.signal(signal.SIGTERM)
        assert frozen.wait() == 0
    assert ids(mesh) == sorted(f"o{number}" for number in range(COUNT + 50))
    assert_exactly_once(mesh)
