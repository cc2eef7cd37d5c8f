"""Workers that all commit to one table, all the time: each makes progress, and none writes a data file twice."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table
from headrace.schemas.errors import Unavailable
from headrace.schemas.masking import Masker
from headrace.sinks.files import Shape
from headrace.sinks.landing import Desk, Landing
from headrace.sinks.patience import FIRST_REST_S, LONGEST_REST_S, Rest
from headrace.sinks.tables import ensure_table
from headrace.streams.history import read_ledger
from headrace.streams.ledger import Ledger, Range
from tests.support.lake import TOPIC_ID, chunk_of, product_of
from tests.support.meshes import ORDER
from tests.support.sinks import eventually
from tests.support.workers import Mailbox, rows_in

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from headrace.schemas.product import Product

WORKERS = 5
# Each must land so many batches while the others go on landing theirs.
LANDINGS = 6
WITHIN_S = 120.0
EVENT = pa.struct([("id", pa.string()), ("amount", pa.int64()), ("email", pa.string())])


@dataclass(eq=False)
class Committer(threading.Thread):
    """Lands batches of one event of its own partition, one right after the other, until told to stop."""

    folder: Path
    product: Product
    partition: int
    over: threading.Event
    landed: list[int] = field(default_factory=list)
    conflicts: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it is told
            self.failure = error

    def _run(self) -> None:
        schema = self.product.schema
        shape = Shape(self.product, schema.record, Masker(self.product.masks, b"k" * 32), key_masked=False)
        desk = Desk(
            self.product,
            catalog_in(self.folder),
            Mailbox(),
            lambda _: shape,
            lambda: TOPIC_ID,
            rest=Rest(self.over),
        )
        base = Ledger.begin(TOPIC_ID, dict.fromkeys(range(WORKERS), 0))
        while not self.over.is_set():
            offset = len(self.landed)
            event = {"id": f"o{self.partition * 1_000 + offset}", "amount": offset, "email": None}
            chunk = chunk_of(pa.array([event], EVENT), offset, partition=self.partition)
            self._land(Landing(desk, base, {self.partition: Range(offset, offset + 1, offset)}, [chunk]))

    def _land(self, landing: Landing) -> None:
        while not self.over.is_set():
            try:
                for _ in landing:
                    pass
            except Unavailable:
                continue
            assert landing.landed is not None
            self.conflicts += landing.landed.conflicts
            self.landed.append(landing.landed.snapshot_id)
            return


def catalog_in(folder: Path) -> SqlCatalog:
    return SqlCatalog("shop", uri=f"sqlite:///{folder}/catalog.db?timeout=30", warehouse=f"file://{folder}/warehouse")


def test_each_of_many_workers_lands_while_all_commit_all_the_time(tmp_path: Path) -> None:
    product = product_of(AvroSchema.parse(json.dumps(ORDER)))
    catalog = catalog_in(tmp_path)
    ensure_table(catalog, product)
    over = threading.Event()
    workers = [Committer(tmp_path, product, partition, over) for partition in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        assert eventually(
            lambda: (
                any(worker.failure for worker in workers) or all(len(worker.landed) >= LANDINGS for worker in workers)
            ),
            within_s=WITHIN_S,
        ), [len(worker.landed) for worker in workers]
    finally:
        over.set()
        for worker in workers:
            worker.join(60)
    assert [worker.failure for worker in workers] == [None] * WORKERS
    # They were in each other's way all the time …
    assert sum(worker.conflicts for worker in workers) > WORKERS
    # … yet each landing wrote its file once; the last one of a worker may have been given up.
    landings = sum(len(worker.landed) for worker in workers)
    files = sum(1 for path in (tmp_path / "warehouse").rglob("*.parquet") if path.is_file())
    assert landings <= files <= landings + WORKERS
    expected = [(worker.partition, offset) for worker in workers for offset in range(len(worker.landed))]
    assert [place[:2] for place in rows_in(catalog, product)] == expected
    ledger = read_ledger(load_table(catalog, product), product)
    assert ledger is not None
    assert [ledger.next(worker.partition) for worker in workers] == [len(worker.landed) for worker in workers]


def test_who_loses_races_waits_longer_each_time_and_never_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            waits.append(timeout)
            return True

    monkeypatch.setattr("random.uniform", lambda _, highest: highest)
    rest = Rest(Over())
    for lost in (*range(1, 30), 5_000):
        rest(lost)
    assert waits[:3] == [FIRST_REST_S, 2 * FIRST_REST_S, 4 * FIRST_REST_S]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_REST_S


def test_nobody_waits_once_the_session_is_over() -> None:
    over = threading.Event()
    over.set()
    rest = Rest(over)
    began_s = time.monotonic()
    for _ in range(10_000):
        rest(30)
    # Waiting, it would be twenty minutes.
    assert time.monotonic() - began_s < 60
