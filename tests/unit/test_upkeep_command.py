"""``headrace upkeep``: what a person sees of a table's useless files, and deleting them without a sink."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import time_machine
from pyiceberg.table.update import SetPropertiesUpdate

from headrace.schemas.catalog import identifier_of, open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.main import main
from headrace.selfserve.stack import Endpoints
from headrace.sinks.commit import stage
from headrace.sinks.dead_letters.table import LETTERS_OF, ensure_letter_table, filed
from headrace.sinks.draft import Draft
from headrace.sinks.files import columns_of, write_rows
from headrace.sinks.hold import HOLD_PROPERTY
from headrace.sinks.tables import ensure_table
from headrace.sinks.upkeep.compaction import RESTS_AFTER_S
from headrace.sinks.upkeep.condemned import GRACE_S
from headrace.streams.ledger import Ledger, Range
from tests.support.meshes import ORDER, ORDERS, write_mesh
from tests.support.position_deletes import delete_positions

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

DAY_S = 86_400.0


def orphan_in(table: Table) -> Path:
    """Make an orphan of four days in a table's folder."""
    orphan = Path(table.location().removeprefix("file://")) / "data" / "orphan.parquet"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x" * 2_000_000)
    old_s = time.time() - 4 * DAY_S
    os.utime(orphan, (old_s, old_s))
    return orphan


class Shop:
    """A mesh whose table has one orphan of four days."""

    def __init__(self, root: Path) -> None:
        self.root = root
        write_mesh(root, Endpoints("127.0.0.1:9", "http://127.0.0.1:9"), "t.", {ORDERS: ORDER})
        mesh = load_mesh(root, environment="cluster")
        self.product = mesh.product(ORDERS)
        self.catalog: Catalog = open_catalog(mesh.environment, mesh.domain_of(self.product))
        table = ensure_table(self.catalog, self.product)
        self.orphan = orphan_in(table)

    def run(self, *arguments: str) -> int:
        return main(["--mesh", str(self.root), "--environment", "cluster", "upkeep", ORDERS, *arguments])

    def table(self) -> Table:
        return self.catalog.load_table(identifier_of(self.product))

    def set(self, name: str, value: str) -> None:
        self.catalog.commit_table(self.table(), (), (SetPropertiesUpdate(updates={name: value}),))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_a_dry_run_shows_orphans_and_changes_nothing(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.run("--dry-run") == 0
    said = capsys.readouterr()
    assert said.out == f"file://{shop.orphan}\n"
    assert "0 snapshots; 1 orphans of 2.0 MB" in said.err
    assert "condemned" not in said.err
    assert shop.orphan.exists()


def test_twice_an_hour_apart_deletes(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert shop.run() == 0
    assert "0 files deleted, 1 condemned" in capsys.readouterr().err
    assert shop.run() == 0
    again = capsys.readouterr().err
    assert "0 files deleted, 0 condemned" in again
    assert "1 files are condemned; the first can be deleted from" in again
    assert shop.orphan.exists()
    with time_machine.travel(time.time() + GRACE_S + 60, tick=True):
        assert shop.run() == 0
    said = capsys.readouterr().err
    assert "1 files deleted, 0 condemned" in said
    assert "0 orphans" in said
    assert not shop.orphan.exists()


def letters_with_an_orphan(shop: Shop) -> Path:
    """Make the table of the product's dead letters, and an orphan of four days in it."""
    table = ensure_letter_table(shop.catalog, shop.product)
    return orphan_in(table)


def test_the_table_of_dead_letters_is_looked_after_too(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    orphan = letters_with_an_orphan(shop)
    assert shop.run("--dry-run") == 0
    said = capsys.readouterr()
    assert said.out == f"file://{shop.orphan}\nfile://{orphan}\n"
    assert f"{ORDERS}__dlq: 0 snapshots; 1 orphans of 2.0 MB" in said.err
    assert shop.run() == 0
    assert f"{ORDERS}__dlq: 0 files deleted, 1 condemned" in capsys.readouterr().err
    with time_machine.travel(time.time() + GRACE_S + 60, tick=True):
        assert shop.run() == 0
    assert f"{ORDERS}__dlq: 1 files deleted" in capsys.readouterr().err
    assert not orphan.exists()


def test_a_table_of_that_name_that_headrace_has_not_made_is_left_alone(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    orphan = letters_with_an_orphan(shop)
    letters = shop.catalog.load_table(identifier_of(filed(shop.product)))
    with letters.transaction() as transaction:
        transaction.remove_properties(LETTERS_OF)
    for arguments in (["--dry-run"], []):
        assert shop.run(*arguments) == 0
        assert "__dlq" not in capsys.readouterr().err
    assert orphan.exists()


def test_a_held_table_is_left_as_it_is(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.set(HOLD_PROPERTY, '{"reason": "an audit", "since": null}')
    assert shop.run() == 1
    said = capsys.readouterr().err
    assert "held: an audit" in said
    assert f"headrace release {ORDERS}" in said
    assert shop.run("--dry-run") == 0


def test_an_owner_may_forbid_it(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.set("gc.enabled", "false")
    assert shop.run() == 0
    assert "no file of its table is ever deleted: the table's property gc.enabled is false" in capsys.readouterr().err
    assert shop.orphan.exists()


def add_small_files(shop: Shop, files: int = 8) -> None:
    ledger = Ledger.begin("topic", {0: 0})
    for number in range(files):
        table = shop.table()
        row = {
            "id": "a",
            "amount": 7,
            "_kafka_partition": 0,
            "_kafka_offset": number,
            "_schema_id": 1,
            "_generation": 1,
        }
        written = write_rows(table, pa.Table.from_pylist([row], columns_of(table)), shop.product)
        ledger = ledger.advanced({0: Range(number, number + 1, number)})
        staged = stage(table, Draft(ledger, written.files))
        shop.catalog.commit_table(table, staged.requirements, staged.updates)


def test_small_files_are_put_together(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    add_small_files(shop)
    assert shop.run("--dry-run") == 0
    assert "became" not in capsys.readouterr().err
    assert shop.run() == 0
    assert f"{ORDERS}: 8 small files with 8 rows became 1" in capsys.readouterr().err
    assert shop.table().scan().to_arrow()["_kafka_offset"].to_pylist() == list(range(8))
    assert shop.run() == 0
    assert "became" not in capsys.readouterr().err


def test_few_small_files_are_put_together_once_the_table_rests(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    add_small_files(shop, 3)
    assert shop.run() == 0
    assert "became" not in capsys.readouterr().err
    with time_machine.travel(time.time() + RESTS_AFTER_S + 60, tick=True):
        assert shop.run() == 0
    assert f"{ORDERS}: 3 small files with 3 rows became 1" in capsys.readouterr().err
    assert shop.table().scan().to_arrow()["_kafka_offset"].to_pylist() == list(range(3))


def test_small_files_are_left_if_the_contract_says_so(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    add_small_files(shop)
    contract = next(shop.root.rglob("contract.odcs.yaml"))
    text = contract.read_text(encoding="utf-8")
    off = "{property: upkeep.compaction, value: off}"
    contract.write_text(text.replace("customProperties: [", f"customProperties: [{off}, "), encoding="utf-8")
    assert shop.run() == 0
    assert "became" not in capsys.readouterr().err
    assert len(list(shop.table().scan().plan_files())) == 8


def test_small_files_are_left_beside_deletes_of_another_engine(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    add_small_files(shop)
    file, *_ = (task.file for task in shop.table().scan().plan_files())
    delete_positions(shop.table(), file, [0])
    assert shop.run() == 0
    assert "another engine keeps deletes beside the table's files" in capsys.readouterr().err
    assert len(list(shop.table().scan().plan_files())) == 8
