"""A real limit of the operating system: no file of the worker may grow beyond it, as on a disk that is full."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

from tests.support.forked import process
from tests.support.meshes import ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, events, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

# The catalog's database and small data files are smaller, the big data file is larger.
LIMIT_BYTES = 256 << 10
BIG = 600
# What no compression makes smaller: a text of hexadecimal digits keeps half its size.
TEXT_BYTES = 2_000


def test_a_worker_whose_files_may_not_grow_waits_and_another_lands_its_batch(mesh: Mesh, tmp_path: Path) -> None:
    product = mesh.product(ORDERS)
    dice = random.Random(1)
    with process(mesh, ORDERS, tmp_path / "limited.log", file_limit_bytes=LIMIT_BYTES) as limited:
        send(mesh, product.topic, events(mesh, product, map(order, range(50))))
        assert eventually(lambda: sum(limited.landed) == 50), limited.text()
        big = [{**order(n), "id": f"o{n}-{dice.randbytes(TEXT_BYTES).hex()}"} for n in range(50, 50 + BIG)]
        send(mesh, product.topic, events(mesh, product, big), partition=0)
        assert eventually(lambda: limited.text().count("File too large") >= 2), limited.text()
        assert "event=waiting" in limited.text()
        assert "next=" in limited.text()
        limited.signal(signal.SIGKILL)
        assert limited.wait() == -signal.SIGKILL
    # A slow broker gives the first of the big events away alone; what is left never fits.
    landed = sum(limited.landed)
    assert 50 <= landed < 50 + BIG
    with process(mesh, ORDERS, tmp_path / "free.log", until_caught_up=True) as free:
        assert free.wait() == 0, free.text()
        assert sum(free.landed) == 50 + BIG - landed
    assert ids(mesh) == sorted([*(f"o{n}" for n in range(50)), *(event["id"] for event in big)])
    assert_exactly_once(mesh)
