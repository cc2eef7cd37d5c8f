"""A real limit of the operating system: no file of the worker may grow beyond it, as on a disk that is full."""

from __future__ import annotations

import random
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.forked import process
from tests.support.meshes import ORDERS, ids, order, send
from tests.support.sinks import assert_exactly_once, events, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh

# The catalog's database and small data files are smaller.
LIMIT_BYTES = 256 << 10


@pytest.mark.parametrize(
    ("count", "text_bytes"),
    [
        pytest.param(600, 2_000, id="for a data file"),
        pytest.param(3, 300_000, id="to decode one event in"),
    ],
)
def test_a_worker_whose_files_may_not_grow_waits_and_another_lands_its_batch(
    mesh: Mesh, tmp_path: Path, count: int, text_bytes: int
) -> None:
    # What is sent at once lands at once.
    file = mesh.root / "mesh.yaml"
    file.write_text(file.read_text().replace("commit_interval_s: 0.2", "commit_interval_s: 5"))
    product = mesh.product(ORDERS)
    dice = random.Random(1)
    with process(mesh, ORDERS, tmp_path / "limited.log", file_limit_bytes=LIMIT_BYTES) as limited:
        send(mesh, product.topic, events(mesh, product, map(order, range(50))))
        assert eventually(lambda: sum(limited.landed) == 50), limited.text()
        # What no compression makes smaller: a text of hexadecimal digits keeps half its size.
        big = [{**order(n), "id": f"o{n}-{dice.randbytes(text_bytes).hex()}"} for n in range(50, 50 + count)]
        # Without their keys, which would be as large once more: Kafka takes a mebibyte.
        send(mesh, product.topic, ((None, value) for _, value in events(mesh, product, big)), partition=0)
        assert eventually(lambda: limited.text().count("File too large") >= 2), limited.text()
        assert "event=waiting" in limited.text()
        assert "next=" in limited.text()
        assert sum(limited.landed) == 50
        limited.signal(signal.SIGKILL)
        assert limited.wait() == -signal.SIGKILL
    with process(mesh, ORDERS, tmp_path / "free.log", until_caught_up=True) as free:
        assert free.wait() == 0, free.text()
        assert sum(free.landed) == count
    assert ids(mesh) == sorted([*(f"o{n}" for n in range(50)), *(event["id"] for event in big)])
    assert_exactly_once(mesh)
