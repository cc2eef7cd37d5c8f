"""The commands of the person on call, typed as they would type them, on a running cluster and without one."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from pyiceberg.table.update import SetPropertiesUpdate

from headrace.governance.applied import applied_ids
from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.main import main
from headrace.selfserve.stack import Endpoints
from headrace.sinks.tables import ensure_table
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY
from tests.support.meshes import ORDER, ORDERS, ids, write_mesh, write_product
from tests.support.sinks import assert_exactly_once, caught_up
from tests.support.topics import delete_records, expire_by_another_engine, ledger_of, make_anew, publish, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.registry import RegisteredSchema
    from tests.support.meshes import Cluster

RETURNS = "shop.returns"


class Typed:
    """What a command line gave: exit status, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], mesh: Mesh) -> None:
        self._capsys = capsys
        self.mesh = mesh
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        self._capsys.readouterr()
        status = main(["--mesh", str(self.mesh.root), "--environment", "cluster", *words])
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.out + self.err
        return status

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def headrace(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    yield Typed(capsys, mesh)
    # The sink's command lets logs go to what is stderr during this test.
    structlog.reset_defaults()


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Typed:
    """A mesh with a table, whose broker and registry are out of reach."""
    write_mesh(tmp_path / "alone", Endpoints("127.0.0.1:1", "http://127.0.0.1:1"), "t.", {ORDERS: ORDER})
    mesh = load_mesh(tmp_path / "alone", environment="cluster")
    product = mesh.product(ORDERS)
    ensure_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    return Typed(capsys, mesh)


@pytest.fixture
def gapped(mesh: Mesh) -> Mesh:
    """A mesh whose partition 1 has lost offsets 10 to 14 of 20."""
    publish(mesh, ORDERS, range(10), partition=0)
    publish(mesh, ORDERS, range(10, 20), partition=1)
    assert all(caught_up(mesh).outcomes.values())
    publish(mesh, ORDERS, range(20, 30), partition=1)
    delete_records(mesh, mesh.product(ORDERS), {1: 15})
    return mesh


def answered(mesh: Mesh, answer: str, *words: str) -> tuple[int, str]:
    """Type a command at a terminal, and an answer to what it asks; return exit status and what was shown."""
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.root), "--environment", "cluster"]
    try:
        os.write(controller, f"{answer}\n".encode())
        ran = subprocess.run(
            [*command, *words], stdin=terminal, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(controller)
        os.close(terminal)
    return ran.returncode, ran.stdout + ran.stderr


# --- hold, release ---


def test_holding_and_releasing_need_no_broker(alone: Typed) -> None:
    assert alone("hold", ORDERS, "--reason", "its table is compacted") == 0
    assert alone.err == f"{ORDERS} is held: nothing more is committed to its table\nnext: headrace release {ORDERS}\n"
    assert alone("hold", ORDERS, "--reason", "another") == 0
    assert "was held since 20" in alone.err
    assert alone.err.endswith("its table is compacted; it stays so\n")
    assert alone("release", ORDERS) == 0
    assert "is released; it was held since 20" in alone.err
    assert alone("release", ORDERS) == 0
    assert alone.err == f"{ORDERS} was not held\n"


def test_a_held_product_s_sink_waits_for_the_release(headrace: Typed) -> None:
    headrace("hold", ORDERS)
    publish(headrace.mesh, ORDERS, range(10))
    assert headrace("ledger", "show", ORDERS) == 0
    assert "no reason given" in headrace.out
    assert headrace("release", ORDERS) == 0
    assert headrace("sink", "--until-caught-up", ORDERS) == 0
    assert len(ids(headrace.mesh)) == 10


def test_a_reason_drives_no_terminal(alone: Typed) -> None:
    alone("hold", ORDERS, "--reason", "red \x1b[31m")
    alone("hold", ORDERS)
    assert "red \\x1b[31m" in alone.err
    alone("ledger", "show", ORDERS)
    assert "\x1b" not in alone.out + alone.err


def test_a_reason_may_hold_bytes_that_are_no_text(alone: Typed) -> None:
    assert alone("hold", ORDERS, "--reason", "disk \udcff full") == 0
    assert alone("ledger", "show", ORDERS) == 0
    assert "disk ? full" in alone.out


def test_a_product_that_is_named_twice_is_served_once(headrace: Typed) -> None:
    publish(headrace.mesh, ORDERS, range(10))
    assert headrace("sink", "--until-caught-up", ORDERS, ORDERS) == 0
    assert "keeping 1 table up to date" in headrace.err
    assert headrace("verify", ORDERS, ORDERS, "--format", "json") == 0
    assert [each["product"] for each in headrace.json()["products"]] == [ORDERS]


def test_ledger_and_status_tell_of_a_hold_alike(headrace: Typed) -> None:
    headrace("hold", ORDERS, "--reason", "the lake moves")
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    held = headrace.json()["held"]
    assert held["reason"] == "the lake moves"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", held["since"])
    headrace("status", "--format", "json")
    assert {each["product"]: each["held"] for each in headrace.json()["products"]}[ORDERS] == held


# --- apply under a hold ---

NOTE = {"name": "note", "type": ["null", "string"], "default": None}
WIDER = {**ORDER, "fields": [*ORDER["fields"], NOTE]}


@pytest.fixture
def two(cluster: Cluster, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]) -> Typed:
    """A mesh of two applied products, of which the first one is held and both have a new version in their files."""
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, RETURNS: ORDER})
    typed = Typed(capsys, mesh)
    assert typed("hold", ORDERS, "--reason", "the lake moves") == 0
    for name in (ORDERS, RETURNS):
        write_product(mesh.root / "domains" / "shop" / name.partition(".")[2], name, WIDER)
    return typed


def registered(mesh: Mesh, name: str) -> RegisteredSchema | None:
    with Registry(mesh.environment.registry_config()) as registry:
        return registry.lookup(mesh.product(name).subject, AvroSchema.parse(json.dumps(WIDER)))


def test_a_held_product_is_not_applied_and_the_others_are(two: Typed) -> None:
    assert two("apply") == 1
    warned = " ".join(two.err.split())
    assert f"warning: {ORDERS} was not changed because it is held since 20" in warned
    assert f"the lake moves; headrace release {ORDERS}, then headrace apply" in warned
    assert "note" in table_of(two.mesh, RETURNS).schema().column_names
    assert "note" not in table_of(two.mesh, ORDERS).schema().column_names
    assert registered(two.mesh, ORDERS) is None, "who publishes in it would wait for the release"
    two("release", ORDERS)
    assert two("apply") == 0
    assert "note" in table_of(two.mesh, ORDERS).schema().column_names
    two("hold", ORDERS)
    assert two("apply") == 0, "there is nothing to change"


def test_a_version_that_was_registered_before_the_hold_is_marked_after_the_release(two: Typed) -> None:
    product = two.mesh.product(ORDERS)
    with Registry(two.mesh.environment.registry_config()) as registry:
        version = registry.register(product.subject, AvroSchema.parse(json.dumps(WIDER)))
    assert two("apply") == 1
    assert version.id not in applied_ids(table_of(two.mesh))
    two("release", ORDERS)
    assert two("apply") == 0
    assert version.id in applied_ids(table_of(two.mesh))


@pytest.mark.parametrize("words", [["hold"], ["release"], ["accept-gap"], ["ledger", "show"], ["ledger", "repair"]])
def test_a_product_or_a_table_that_is_not_there_is_named_with_the_next_step(alone: Typed, words: list[str]) -> None:
    assert alone(*words, "shop.order") == 1
    assert "did you mean shop.orders?" in alone.err
    product = alone.mesh.product(ORDERS)
    open_catalog(alone.mesh.environment, alone.mesh.domain_of(product)).drop_table(("shop", "orders"))
    assert alone(*words, ORDERS) == 1
    assert "the table does not exist" in alone.err
    assert "headrace apply" in alone.err


# --- ledger show ---


def test_a_ledger_is_shown_with_what_kafka_has(headrace: Typed) -> None:
    mesh = headrace.mesh
    publish(mesh, ORDERS, range(10), partition=0)
    delete_records(mesh, mesh.product(ORDERS), {0: 3})
    assert all(caught_up(mesh).outcomes.values())
    publish(mesh, ORDERS, range(10, 14), partition=0)
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    shown = headrace.json()
    head = table_of(mesh).current_snapshot()
    assert head is not None
    assert (shown["product"], shown["topic"]) == (ORDERS, mesh.product(ORDERS).topic)
    assert shown["topic_id"] == shown["kafka_topic_id"] == ledger_of(mesh).topic_id
    assert (shown["generation"], shown["snapshot"], shown["property"]) == (1, head.snapshot_id, "agrees")
    assert shown["committed"].endswith("Z")
    assert (shown["held"], shown["error"], shown["kafka_error"]) == (None, None, None)
    first, second = shown["partitions"]
    assert first == {
        "partition": 0,
        "position": 10,
        "last_row": 9,
        "log_start": 3,
        "log_end": 14,
        "lag": 4,
        "origin": 3,
        "accepted": [],
    }
    assert (second["position"], second["last_row"], second["lag"], second["origin"]) == (0, None, 0, 0)
    assert headrace("ledger", "show", ORDERS) == 0
    assert "as in Kafka" in headrace.out
    assert "agrees with the snapshot" in headrace.out
    assert "not held" in headrace.out


def test_a_table_that_nothing_was_committed_to_is_shown_too(headrace: Typed) -> None:
    assert headrace("ledger", "show", ORDERS) == 0
    assert "nothing was committed yet" in headrace.out
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    shown = headrace.json()
    assert (shown["topic_id"], shown["generation"], shown["snapshot"]) == (None, None, None)
    assert [row["position"] for row in shown["partitions"]] == [None, None]


def test_a_ledger_is_shown_without_a_broker(headrace: Typed) -> None:
    mesh = headrace.mesh
    publish(mesh, ORDERS, range(10), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    settings = mesh.root / "mesh.yaml"
    settings.write_text(
        settings.read_text().replace(mesh.environment.kafka_config()["bootstrap.servers"], "127.0.0.1:1")
    )
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    shown = headrace.json()
    assert (shown["kafka_topic_id"], shown["partitions"][0]["position"]) == (None, 10)
    assert (shown["partitions"][0]["log_end"], shown["partitions"][0]["lag"]) == (None, None)
    assert "127.0.0.1:1" in shown["kafka_error"]
    assert headrace("ledger", "show", ORDERS) == 0
    assert "Kafka's is not known" in headrace.out
    assert "error: Kafka does not answer" in headrace.err


def test_a_topic_made_anew_is_seen_in_the_ledger(headrace: Typed) -> None:
    mesh = headrace.mesh
    publish(mesh, ORDERS, range(10))
    assert all(caught_up(mesh).outcomes.values())
    _, after = make_anew(mesh, mesh.product(ORDERS))
    assert headrace("ledger", "show", ORDERS) == 0
    assert f"made anew: Kafka has {after}" in headrace.out


def test_a_rolled_back_table_s_property_differs_and_does_not_count(headrace: Typed) -> None:
    mesh = headrace.mesh
    heads = []
    for burst in (range(10), range(10, 20)):
        publish(mesh, ORDERS, burst, partition=0)
        assert all(caught_up(mesh).outcomes.values())
        head = table_of(mesh).current_snapshot()
        assert head is not None
        heads.append(head.snapshot_id)
    table_of(mesh).manage_snapshots().rollback_to_snapshot(heads[0]).commit()
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    shown = headrace.json()
    assert (shown["snapshot"], shown["property"], shown["partitions"][0]["position"]) == (heads[0], "differs", 10)


# --- accept-gap ---


def test_a_gap_is_shown_and_accepted_for_a_script(headrace: Typed, gapped: Mesh) -> None:
    assert headrace("sink", "--until-caught-up", ORDERS) == 1
    assert f"headrace accept-gap {ORDERS}" in headrace.err
    assert headrace("accept-gap", ORDERS) == 1, "nobody is there to ask"
    assert "partition 1: offsets 10 to 14 (5), written after 20" in headrace.err
    assert "up to 5 events of shop.orders are lost" in headrace.err
    assert "next: say --yes" in headrace.err
    assert ledger_of(gapped).accepted == {}

    assert headrace("accept-gap", ORDERS, "--yes") == 0
    assert f"else: headrace sink {ORDERS}" in headrace.err
    assert headrace("sink", "--until-caught-up", ORDERS) == 0
    assert_exactly_once(gapped)
    assert headrace("ledger", "show", ORDERS) == 0
    assert "10-14 (20" in headrace.out
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 0
    (accepted,) = headrace.json()["partitions"][1]["accepted"]
    assert (accepted["first"], accepted["end"]) == (10, 15)
    assert headrace("accept-gap", ORDERS) == 0
    assert "has no gap" in headrace.err


def test_a_person_is_asked_before_a_gap_is_accepted(gapped: Mesh) -> None:
    status, shown = answered(gapped, "n", "accept-gap", ORDERS)
    assert (status, "nothing was changed" in shown) == (1, True)
    assert ledger_of(gapped).accepted == {}
    # The end of what is typed, which typer takes for Ctrl-C.
    status, shown = answered(gapped, "\x04", "accept-gap", ORDERS)
    assert (status, "interrupted" in shown, "Aborted" in shown) == (130, True, False)
    assert ledger_of(gapped).accepted == {}
    status, shown = answered(gapped, "y", "accept-gap", ORDERS)
    assert (status, "accepted in snapshot" in shown) == (0, True)
    assert list(ledger_of(gapped).accepted) == [1]


# --- ledger repair ---


def damage(mesh: Mesh) -> None:
    table = table_of(mesh)
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: "{"})


def contradict(mesh: Mesh) -> None:
    """Have another engine delete rows, and expire the history behind it."""
    table_of(mesh).delete("_kafka_offset >= 4")
    expire_by_another_engine(mesh)


@pytest.mark.parametrize("spoil", [damage, contradict])
def test_a_spoilt_ledger_is_shown_from_both_sides_and_repaired(headrace: Typed, spoil: Callable[[Mesh], None]) -> None:
    mesh = headrace.mesh
    publish(mesh, ORDERS, range(10), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    spoil(mesh)
    for words in (["ledger", "show", ORDERS], ["sink", "--until-caught-up", ORDERS]):
        assert headrace(*words) == 1
        assert f"headrace ledger repair {ORDERS}" in headrace.err
    assert headrace("ledger", "show", ORDERS, "--format", "json") == 1
    shown = headrace.json()
    rows = 3 if spoil is contradict else 9
    assert (shown["partitions"][0]["last_row"], shown["partitions"][0]["last_row_in_table"]) == (9, rows)
    assert shown["error"]["next"]

    assert headrace("ledger", "repair", ORDERS) == 1, "nobody is there to ask"
    assert "next: say --yes" in headrace.err
    assert headrace("ledger", "repair", ORDERS, "--yes") == 0
    assert "position before" in headrace.err
    assert headrace("ledger", "show", ORDERS) == 0
    assert headrace("sink", "--until-caught-up", ORDERS) == 0
    assert ids(mesh) == sorted(f"o{number}" for number in range(10))
    assert_exactly_once(mesh)
    assert headrace("ledger", "repair", ORDERS) == 0
    assert headrace.err == f"nothing to repair: the ledger of {ORDERS} can be read\n"


def test_a_property_that_does_not_count_is_only_told_of(headrace: Typed) -> None:
    mesh = headrace.mesh
    publish(mesh, ORDERS, range(10), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    catalog = open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))
    catalog.commit_table(table_of(mesh), (), (SetPropertiesUpdate(updates={PROPERTY_KEY: "{"}),))
    assert headrace("ledger", "show", ORDERS) == 0
    assert "cannot be read; the snapshot counts" in headrace.out
    assert headrace("ledger", "repair", ORDERS) == 0
