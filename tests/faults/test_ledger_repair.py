"""Ledgers that somebody else's commits have spoilt: repaired from the rows, or left alone where that is not certain."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from pyiceberg.table.update import RemovePropertiesUpdate, RemoveSnapshotRefUpdate, SetPropertiesUpdate

from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import DamagedLedger, ProductStopped, Unavailable
from headrace.sinks.repair import Repair, land_repair, plan_repair
from headrace.streams.admin import Admin
from headrace.streams.ledger import PROPERTY_KEY, SUMMARY_KEY, Position
from tests.support.faulty import CommitFault, Crash
from tests.support.meshes import ORDERS, ids, send
from tests.support.sinks import assert_exactly_once, caught_up, eventually, running
from tests.support.topics import (
    delete_records,
    expire_by_another_engine,
    faulty_catalog,
    ledger_of,
    make_anew,
    publish,
    table_of,
)

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table.update import TableUpdate

    from headrace.schemas.mesh import Mesh

ALL = sorted(f"o{number}" for number in range(40))


@pytest.fixture
def full(mesh: Mesh) -> Mesh:
    """A mesh with 20 rows in each of two partitions, landed in two commits."""
    for numbers, partition in ((range(20), 0), (range(20, 40), 1)):
        publish(mesh, ORDERS, numbers, partition)
        assert all(caught_up(mesh).outcomes.values())
    return mesh


def catalog_of(mesh: Mesh) -> Catalog:
    return open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))


def planned(mesh: Mesh, catalog: Catalog | None = None) -> Repair | None:
    config = mesh.environment.kafka_config()
    return plan_repair(catalog or catalog_of(mesh), mesh.product(ORDERS), Admin(config), config)


def repaired(mesh: Mesh) -> Repair:
    plan = planned(mesh)
    assert plan is not None
    land_repair(catalog_of(mesh), mesh.product(ORDERS), plan, Admin(mesh.environment.kafka_config()))
    assert planned(mesh) is None
    assert ledger_of(mesh) == plan.new
    return plan


def change(mesh: Mesh, update: TableUpdate) -> None:
    catalog_of(mesh).commit_table(table_of(mesh), (), (update,))


def set_property(mesh: Mesh, text: str | None) -> None:
    if text is None:
        change(mesh, RemovePropertiesUpdate(removals=[PROPERTY_KEY]))
    else:
        change(mesh, SetPropertiesUpdate(updates={PROPERTY_KEY: text}))


def damage_head(mesh: Mesh, text: str = "{") -> None:
    table = table_of(mesh)
    table.append(table.schema().as_arrow().empty_table(), snapshot_properties={SUMMARY_KEY: text})


def foreign_row(mesh: Mesh, partition: int, offset: int) -> None:
    """A row that another program wrote, of no event."""
    table = table_of(mesh)
    row = table.scan(f"_kafka_partition = {partition}", limit=1).to_arrow().to_pylist()[0]
    row |= {"_kafka_offset": offset, "id": "foreign"}
    schema = table.schema().as_arrow()
    table.append(pa.Table.from_pylist([row], schema=schema))


def test_rows_that_others_deleted_come_back_after_a_repair(full: Mesh) -> None:
    table_of(full).delete("_kafka_offset >= 10")
    expire_by_another_engine(full)
    (stopped,) = caught_up(full).logged("stopped")
    assert f"`headrace ledger repair {ORDERS}`" in stopped["next"]

    plan = repaired(full)
    assert "property 0:19, 1:19, rows 0:9, 1:9" in plan.fault.what
    assert plan.new.positions == {0: Position(10, 9), 1: Position(10, 9)}
    sink = caught_up(full)
    assert sink.rows(ORDERS) == 20
    assert ids(full) == ALL
    assert_exactly_once(full)


def test_a_ledger_that_is_gone_altogether_is_made_anew_from_rows_that_kafka_still_has(full: Mesh) -> None:
    before = ledger_of(full)
    expire_by_another_engine(full)
    set_property(full, None)
    assert not caught_up(full).outcomes[ORDERS]
    plan = repaired(full)
    assert plan.known is None
    assert (plan.new.topic_id, plan.new.positions) == (before.topic_id, before.positions)
    publish(full, ORDERS, range(40, 50), partition=0)
    sink = caught_up(full)
    assert sink.rows(ORDERS) == 10
    assert_exactly_once(full)


def test_one_partition_s_event_proves_the_topic_for_all(full: Mesh) -> None:
    delete_records(full, full.product(ORDERS), {0: 20})
    expire_by_another_engine(full)
    set_property(full, None)
    repaired(full)
    publish(full, ORDERS, range(40, 50), partition=0)
    assert caught_up(full).rows(ORDERS) == 10
    assert_exactly_once(full)


def test_without_any_proof_nothing_is_guessed(full: Mesh) -> None:
    delete_records(full, full.product(ORDERS), {0: 20, 1: 20})
    expire_by_another_engine(full)
    set_property(full, None)
    with pytest.raises(ProductStopped, match="no ledger is left that names its topic") as caught:
        planned(full)
    assert "headrace apply" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["{", '{"v":1}'])
def test_a_damaged_ledger_in_the_history_is_put_right(full: Mesh, text: str) -> None:
    before = ledger_of(full)
    damage_head(full, text)
    assert not caught_up(full).outcomes[ORDERS]
    plan = repaired(full)
    assert plan.known is not None
    assert plan.known.positions == before.positions == plan.new.positions
    publish(full, ORDERS, range(40, 50), partition=0)
    assert caught_up(full).rows(ORDERS) == 10
    assert_exactly_once(full)


def test_a_partition_without_rows_goes_on_behind_what_was_refused(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(20), partition=0)
    send(mesh, mesh.product(ORDERS).topic, [("k", b"poison")] * 5, partition=1)
    assert all(caught_up(mesh).outcomes.values())
    assert ledger_of(mesh).positions == {0: Position(20, 19), 1: Position(5)}
    damage_head(mesh)
    assert repaired(mesh).new.positions == {0: Position(20, 19), 1: Position(5)}
    assert_exactly_once(mesh)


def test_a_partition_of_which_nothing_is_known_starts_where_its_log_does(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(20), partition=0)
    assert all(caught_up(mesh).outcomes.values())
    publish(mesh, ORDERS, range(20, 40), partition=1)
    delete_records(mesh, mesh.product(ORDERS), {1: 5})
    expire_by_another_engine(mesh)
    set_property(mesh, None)
    plan = repaired(mesh)
    assert plan.new.positions == {0: Position(20, 19), 1: Position(5)}
    assert plan.new.origin == {1: 5}
    assert caught_up(mesh).rows(ORDERS) == 15
    assert_exactly_once(mesh)


def test_a_ledger_that_is_fine_is_left_alone(full: Mesh) -> None:
    set_property(full, "{")
    before = table_of(full).metadata_location
    assert planned(full) is None, "the snapshot counts, whatever the property says"
    assert table_of(full).metadata_location == before


def test_a_property_that_serves_is_left_alone(full: Mesh) -> None:
    expire_by_another_engine(full)
    assert planned(full) is None
    set_property(full, "{")
    assert planned(full) is not None


def test_a_table_that_holds_nothing_needs_no_repair(mesh: Mesh) -> None:
    assert planned(mesh) is None


def test_rows_of_another_topic_are_not_taken_for_this_one_s(full: Mesh) -> None:
    expire_by_another_engine(full)
    set_property(full, None)
    make_anew(full, full.product(ORDERS))
    with pytest.raises(ProductStopped, match="row at offset 19 of partition 0, whose log ends at 0"):
        planned(full)
    publish(full, ORDERS, range(100, 130), partition=0)
    publish(full, ORDERS, range(130, 160), partition=1)
    with pytest.raises(ProductStopped, match="offset 19 of partition 0 is not the event that Kafka has there"):
        planned(full)


def test_a_known_ledger_tells_that_the_topic_was_made_anew(full: Mesh) -> None:
    damage_head(full)
    make_anew(full, full.product(ORDERS))
    with pytest.raises(ProductStopped, match="the topic was made anew"):
        planned(full)


def test_a_row_of_no_event_is_seen(full: Mesh) -> None:
    foreign_row(full, 0, 50)
    expire_by_another_engine(full)
    with pytest.raises(ProductStopped, match="row at offset 50 of partition 0, whose log ends at 20"):
        planned(full)


def test_a_ledger_of_a_newer_headrace_is_not_repaired(full: Mesh) -> None:
    damage_head(full, json.dumps({**json.loads(ledger_of(full).to_json()), "v": 9}))
    with pytest.raises(ProductStopped, match="has format 9") as caught:
        planned(full)
    assert not isinstance(caught.value, DamagedLedger)


def test_a_table_without_its_branch_is_left_alone(full: Mesh) -> None:
    change(full, RemoveSnapshotRefUpdate.model_validate({"ref-name": "main"}))
    with pytest.raises(ProductStopped, match="branch main was removed"):
        planned(full)


def test_a_repair_is_refused_once_the_table_has_moved(full: Mesh) -> None:
    damage_head(full)
    plan = planned(full)
    assert plan is not None
    table_of(full).append(table_of(full).schema().as_arrow().empty_table())
    before = table_of(full).metadata_location
    with pytest.raises(Unavailable, match="moved since the repair was planned"):
        land_repair(catalog_of(full), full.product(ORDERS), plan, Admin(full.environment.kafka_config()))
    assert table_of(full).metadata_location == before


def test_a_sink_that_runs_while_its_ledger_is_repaired_goes_on(full: Mesh) -> None:
    with running(full) as sink:
        publish(full, ORDERS, range(40, 50), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 10)
        damage_head(full)
        repaired(full)
        publish(full, ORDERS, range(50, 60), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 20)
        assert not sink.logged("another worker has moved the table: starting from its ledger")
    assert_exactly_once(full)


def test_a_sink_whose_positions_a_repair_takes_back_starts_from_it(full: Mesh) -> None:
    with running(full) as sink:
        publish(full, ORDERS, range(40, 50), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 10)
        table_of(full).delete("_kafka_partition = 0 and _kafka_offset >= 15")
        expire_by_another_engine(full)
        repaired(full)
        publish(full, ORDERS, range(50, 60), partition=0)
        assert eventually(lambda: sink.rows(ORDERS) == 35)
        assert sink.logged("another worker has moved the table: starting from its ledger")
    assert ids(full) == sorted(f"o{number}" for number in range(60))
    assert_exactly_once(full)


@pytest.mark.parametrize("fault", CommitFault)
def test_a_repair_lands_once_whatever_happens_to_its_request(full: Mesh, fault: CommitFault) -> None:
    damage_head(full)
    catalog, admin = faulty_catalog(full), Admin(full.environment.kafka_config())
    before = len(table_of(full).snapshots())
    plan = planned(full, catalog)
    assert plan is not None
    catalog.fault = fault
    with suppress(Unavailable, Crash):
        land_repair(catalog, full.product(ORDERS), plan, admin)
    if (again := planned(full, catalog)) is not None:
        with suppress(Unavailable):
            land_repair(catalog, full.product(ORDERS), again, admin)
    assert len(table_of(full).snapshots()) == before + 1
    assert ledger_of(full) == plan.new


def test_a_table_without_rows_and_without_any_ledger_begins_where_the_log_does(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(20), partition=0)
    publish(mesh, ORDERS, range(20, 40), partition=1)
    delete_records(mesh, mesh.product(ORDERS), {1: 5})
    for _ in range(2):
        table = table_of(mesh)
        table.append(table.schema().as_arrow().empty_table())
    expire_by_another_engine(mesh)
    assert not caught_up(mesh).outcomes[ORDERS]
    plan = repaired(mesh)
    assert plan.new.positions == {0: Position(0), 1: Position(5)}
    assert plan.new.origin == {1: 5}
    assert all(caught_up(mesh).outcomes.values())
    assert ids(mesh) == sorted(f"o{number}" for number in (*range(20), *range(25, 40)))
    assert_exactly_once(mesh)
