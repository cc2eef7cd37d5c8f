"""Plan on a running cluster: it shows exactly what apply then does, and nothing is left of it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pyiceberg.table.update import SetPropertiesUpdate

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import UserError
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import apply, apply_each
from headrace.selfserve.main import main
from headrace.selfserve.plan import plan
from headrace.sinks.hold import hold, release
from headrace.streams.admin import Admin
from tests.support.amending import amended, optional, reloaded, with_fields, with_properties, with_retention
from tests.support.meshes import ORDER, ORDERS, encoded, ids, order, send, write_product
from tests.support.sinks import caught_up
from tests.support.subscribing import register
from tests.support.topics import publish, table_of
from tests.support.vouchers import airline

if TYPE_CHECKING:
    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.plan import Plan
    from tests.support.meshes import Cluster

RETURNS = "shop.returns"


def causes(found: Plan) -> list[tuple[str, str]]:
    """Return the kind and cause of all that a plan shows."""
    return [(str(each.kind), each.cause) for each in found.differences]


def applied_as_planned(mesh: Mesh) -> tuple[str, ...]:
    """Apply a mesh; what is done is what plan has shown, and nothing is left to do."""
    planned = tuple(map(str, plan(mesh).done_by_apply))
    told: list[str] = []
    applied = apply(mesh, told.append)
    assert applied.made == tuple(told) == planned
    assert plan(mesh).differences == ()
    assert plan(mesh).troubles == ()
    return planned


def test_a_new_mesh(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.mesh(tmp_path / "mesh", prefix=prefix)
    shown = applied_as_planned(mesh)
    assert shown[:2] == (f"topic {prefix}headrace.publish-positions", "namespace shop")
    assert [line for line in shown if ORDERS in line] == [
        f"topic {prefix}{ORDERS}",
        f"topic {prefix}{ORDERS}.dlq",
        f"subject {prefix}{ORDERS}-value: level BACKWARD",
        f"subject {prefix}{ORDERS}-value: schema version 1",
        f"table {ORDERS}",
        f"table {ORDERS}__dlq",
    ]


def test_the_airline(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    applied_as_planned(airline(tmp_path / "airline", cluster.endpoints, prefix))


def test_everything_that_a_contract_may_change(mesh: Mesh) -> None:
    # The broker's default keeps events for ever.
    assert apply_each(with_retention(mesh, ORDERS, 30), lambda _: None, (ORDERS,)).complete
    with_retention(mesh, ORDERS, 60)
    with_properties(
        mesh,
        ORDERS,
        kafka_cleanup_policy="delete",
        kafka_min_insync_replicas=1,
        avro_compatibility="FULL",
        iceberg_sortOrder=[{"field": "amount", "direction": "desc"}],
        iceberg_tableProperties={"write.target-file-size-bytes": "1048576"},
    )

    def change(contract: dict[str, Any]) -> None:
        contract["description"] = {"purpose": "another one"}
        contract["schema"][0]["properties"].append(
            {
                "name": "_kafka_timestamp",
                "partitioned": True,
                "partitionKeyPosition": 1,
                "customProperties": [{"property": "iceberg.transform", "value": "day"}],
            }
        )

    amended(mesh, ORDERS, change)
    changed = with_fields(
        mesh, ORDERS, {"name": "amount", "type": "long", "doc": "in cents"}, optional("gate", doc="where")
    )
    shown = applied_as_planned(changed)
    assert [line.partition(": ")[2].split(" ")[0] for line in shown] == [
        "retention.ms",
        "level",
        "schema",
        "version",
        "doc",
        "partitions",
        "sort",
        "write.target-file-size-bytes",
        "comment",
    ]
    table = table_of(changed)
    assert table.schema().find_field("amount").doc == "in cents"
    assert table.schema().find_field("gate").doc == "where"
    assert [str(field.transform) for field in table.spec().fields] == ["day"]
    assert len(table.sort_order().fields) == 1
    assert table.properties["comment"] == "another one"
    # And back: nothing of it is for ever.
    shutil.rmtree(mesh.root / "domains" / "shop" / "orders")
    write_product(
        mesh.root / "domains" / "shop" / "orders", ORDERS, {**ORDER, "fields": [*ORDER["fields"], optional("gate")]}
    )
    with_retention(mesh, ORDERS, 90)
    assert "table shop.orders: partitions day(_kafka_timestamp) → none" in applied_as_planned(reloaded(mesh))


def test_a_changed_doc_of_an_inner_field(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    def schema(doc: str) -> dict[str, Any]:
        item = {"type": "record", "name": "Item", "fields": [{"name": "n", "type": "int", "doc": doc}]}
        return {
            "type": "record",
            "name": "E",
            "fields": [
                {"name": "id", "type": "string"},
                {"name": "items", "type": {"type": "array", "items": item}},
                {"name": "by_name", "type": {"type": "map", "values": "Item"}},
            ],
        }

    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: schema("one")})
    write_product(mesh.root / "domains" / "shop" / "orders", ORDERS, schema("two"))
    shown = applied_as_planned(reloaded(mesh))
    assert [line for line in shown if "doc of" in line] == [
        "table shop.orders: doc of column items.element.n one → two",
        "table shop.orders: doc of column by_name.value.n one → two",
    ]


def test_a_version_that_is_registered_and_not_followed_is_pending(mesh: Mesh) -> None:
    register(mesh, {**ORDER, "fields": [*ORDER["fields"], optional("gate")]})
    level, pending = plan(mesh).differences
    assert level.cause == "subject-level"
    assert str(pending) == "table shop.orders: version 1 → 2"
    assert "pending" in pending.why
    assert pending.details == ("add gate string optional",)
    assert applied_as_planned(mesh)[1:] == ("table shop.orders: version 1 → 2",)


def test_a_version_that_the_table_cannot_follow_is_refused_with_what_to_do(mesh: Mesh) -> None:
    with Registry(mesh.environment.registry_config()) as registry:
        registry.set_compatibility(mesh.product(ORDERS).subject, "NONE")
    wrong = [field | ({"type": "string"} if field["name"] == "amount" else {}) for field in ORDER["fields"]]
    register(mesh, {**ORDER, "fields": wrong})
    level, refused = plan(mesh).differences
    assert level.cause == "subject-level"
    assert (str(refused.kind), refused.cause, refused.what) == ("refused", "version-refused", "version 2")
    assert any("UNSUPPORTED_TYPE_CHANGE amount" in reason for reason in refused.details)
    assert "delete version 2" in refused.next
    before = table_of(mesh).schema()
    assert not apply_each(mesh, lambda _: None).complete
    assert table_of(mesh).schema() == before
    assert [each.cause for each in plan(mesh).differences] == ["version-refused"]


def test_a_schema_that_the_table_could_not_follow_is_refused_before_it_is_registered(mesh: Mesh) -> None:
    """The registry would take it: its level is NONE."""
    changed = with_properties(mesh, ORDERS, avro_compatibility="NONE")
    changed = with_fields(mesh, ORDERS, {"name": "amount", "type": "string"})
    (level, refused) = plan(changed).differences
    assert (level.cause, refused.cause) == ("subject-level", "schema-refused")
    with pytest.raises(UserError, match="UNSUPPORTED_TYPE_CHANGE amount"):
        apply(changed, lambda _: None)
    with Registry(mesh.environment.registry_config()) as registry:
        assert len(registry.versions(mesh.product(ORDERS).subject)) == 1
    # What speaks against one product stops no other.
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    applied = apply_each(reloaded(mesh), lambda _: None)
    assert f"table {RETURNS}" in applied.made
    assert not applied.complete


def test_a_schema_that_breaks_readers_is_refused_with_the_findings(mesh: Mesh) -> None:
    changed = with_fields(mesh, ORDERS, {"name": "must", "type": "string"})
    (refused,) = plan(changed).differences
    assert refused.cause == "schema-refused"
    assert any("READER_FIELD_MISSING_DEFAULT_VALUE must" in reason for reason in refused.details)


def test_a_held_product_is_told_and_left(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    hold(catalog, product, "it is compacted", datetime.now(UTC))
    assert plan(mesh).differences == ()
    changed = with_fields(mesh, ORDERS, optional("gate", doc="where"))
    (held,) = plan(changed).differences
    assert (str(held.kind), held.next) == ("held", f"headrace release {ORDERS}, then headrace apply")
    applied = apply_each(changed, lambda _: None)
    assert (applied.made, applied.held, applied.complete) == ((), (ORDERS,), False)
    release(catalog, product)
    applied_as_planned(changed)


def test_less_retention_is_made_only_for_the_product_that_is_named(mesh: Mesh) -> None:
    assert apply_each(with_retention(mesh, ORDERS, 30), lambda _: None, (ORDERS,)).complete
    shorter = with_retention(mesh, ORDERS, 1)
    topic = mesh.product(ORDERS).topic
    admin = Admin(mesh.environment.kafka_config())
    assert causes(plan(shorter)) == [("destroy", "topic-setting")]
    for allowed in ((), (RETURNS,)):
        applied = apply_each(shorter, lambda _: None, allowed)
        assert (applied.made, applied.complete) == ((), False)
        assert admin.config(topic)["retention.ms"] == str(30 * 86_400_000)
        assert f"--allow-destroy {ORDERS}" in applied.warnings[0]
    applied = apply_each(shorter, lambda _: None, (ORDERS,))
    assert (len(applied.made), applied.complete) == (1, True)
    assert admin.config(topic)["retention.ms"] == str(86_400_000)
    assert plan(shorter).differences == ()


def test_a_policy_that_deletes_more_needs_leave_and_one_that_deletes_less_does_not(mesh: Mesh) -> None:
    compacted = with_properties(mesh, ORDERS, kafka_cleanup_policy="compact,delete")
    assert causes(plan(compacted)) == [("destroy", "topic-setting")]
    assert apply_each(compacted, lambda _: None, (ORDERS,)).complete
    back = with_properties(mesh, ORDERS, kafka_cleanup_policy="delete")
    assert causes(plan(back)) == [("change", "topic-setting")]
    applied_as_planned(back)


def test_more_replicas_in_sync_than_there_are_would_refuse_every_event(mesh: Mesh) -> None:
    changed = with_properties(mesh, ORDERS, kafka_min_insync_replicas=3)
    found = plan(changed)
    assert found.differences == ()
    (warning,) = [each for section in found.sections for each in section.differences]
    assert "1 replica a partition" in warning.why
    assert apply_each(changed, lambda _: None).complete
    publish(changed, ORDERS, range(3))


def test_a_product_that_was_taken_out_of_the_files(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    both = reloaded(mesh)
    apply(both, lambda _: None)
    returns = both.product(RETURNS)
    table = table_of(both, RETURNS)
    # Made by somebody else, in the same namespace and under the same prefix.
    foreign = open_catalog(mesh.environment, mesh.domains["shop"])
    foreign.create_table("shop.notes", schema=table.schema())
    admin = Admin(mesh.environment.kafka_config())
    admin.create(f"{mesh.environment.topic_prefix}shop.scratch", partitions=1, config={})
    shutil.rmtree(mesh.root / "domains" / "shop" / "returns")
    less = reloaded(mesh)
    assert causes(plan(less)) == [
        ("destroy", "unowned-subject"),
        ("destroy", "unowned-topic"),
        ("destroy", "unowned-dead-letters"),
        ("destroy", "unowned-letter-table"),
        ("destroy", "unowned-table"),
    ]
    assert apply_each(less, lambda _: None).complete
    assert load_table(foreign, returns).metadata_location
    # What nothing tells to be headrace's is not deleted, whatever is named.
    refused = apply_each(less, lambda _: None, ("shop.notes", "shop.scratch"))
    assert (refused.made, refused.complete) == ((), False)
    assert foreign.table_exists("shop.notes")
    run = ["--mesh", str(mesh.root), "--environment", "cluster"]
    assert main([*run, "apply", "--allow-destroy", RETURNS]) == 0
    assert "5 made or changed" in capsys.readouterr().err
    assert not admin.find(returns.topic, returns.dead_letter_topic)
    assert not foreign.table_exists(RETURNS)
    assert Path(table.metadata_location.removeprefix("file://")).exists()
    with Registry(mesh.environment.registry_config()) as registry:
        assert returns.subject not in registry.subjects()
    assert plan(less).differences == ()
    # Repeated, it finds nothing and says so.
    assert main([*run, "apply", "--allow-destroy", RETURNS]) == 0
    assert "nothing of it is there to destroy" in capsys.readouterr().err
    # And the product may come back: its subject's versions go on.
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    applied_as_planned(reloaded(mesh))


def test_a_table_that_is_made_anew_has_the_columns_of_all_versions(mesh: Mesh) -> None:
    product = mesh.product(ORDERS)
    publish(mesh, ORDERS, range(5))
    renamed = [field for field in ORDER["fields"] if field["name"] != "amount"]
    (mesh.root / "domains" / "shop" / "orders" / "schema.avsc").write_text(
        json.dumps({**ORDER, "fields": [*renamed, {"name": "total", "type": "long", "aliases": ["amount"]}]})
    )
    changed = reloaded(mesh)
    apply(changed, lambda _: None)
    before = [field.name for field in table_of(changed).schema().fields]
    open_catalog(mesh.environment, mesh.domain_of(product)).drop_table(("shop", "orders"))
    assert applied_as_planned(changed) == (f"table {ORDERS}",)
    assert [field.name for field in table_of(changed).schema().fields] == before


def test_the_command(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--mesh", str(mesh.root), "--environment", "cluster"]
    assert main([*run, "plan"]) == 0
    assert capsys.readouterr().out == "nothing to do: all is as the files say\n"
    with_fields(mesh, ORDERS, optional("gate"))
    with_properties(mesh, ORDERS, kafka_partitions=3)
    assert main([*run, "plan"]) == 2
    subject, topic = mesh.product(ORDERS).subject, mesh.product(ORDERS).topic
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.splitlines() == [
        "shop.orders",
        f"  ! topic {topic}: partitions 2 → 3",
        "      keys would move to other partitions",
        "      next: correct the contract, or publish a product of a new name",
        f"  + subject {subject}: schema version 1 → version 2",
        "  ~ table shop.orders: version 1 → 2",
        "      add gate string optional",
        "1 to make, 1 to change, 1 that apply does not do",
    ]
    assert main([*run, "plan", "--format", "json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert [each["cause"] for each in document["sections"][0]["differences"]] == [
        "topic-partitions",
        "schema-missing",
        "version-pending",
    ]
    assert document["summary"] == {"create": 1, "change": 1, "destroy": 0, "not done": 1}
    assert main([*run, "apply"]) == 1
    assert "2 made or changed" in capsys.readouterr().err
    assert main([*run, "apply", "--allow-destroy", "orders"]) == 1
    assert "write domain.product" in capsys.readouterr().err


def test_a_table_whose_metadata_are_gone_hides_no_other_product(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    Path(table_of(mesh).metadata_location.removeprefix("file://")).unlink()
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    run = ["--mesh", str(mesh.root), "--environment", "cluster"]
    assert main([*run, "plan"]) == 1
    shown = capsys.readouterr()
    assert f"+ table {RETURNS}" in shown.out
    assert "metadata is gone" in shown.err
    assert main([*run, "apply"]) == 1
    assert "shop.orders failed:" in capsys.readouterr().err
    assert table_of(reloaded(mesh), RETURNS).schema()


def test_what_apply_changes_harms_no_row(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(6))
    assert all(caught_up(mesh).outcomes.values())
    changed = with_fields(mesh, ORDERS, optional("gate"))
    applied_as_planned(changed)
    product = changed.product(ORDERS)
    with Registry(changed.environment.registry_config()) as registry:
        found = registry.lookup(product.subject, product.schema)
    assert found is not None
    send(changed, product.topic, [("o9", encoded(product.schema, found.id, {**order(9), "gate": "B4"}))])
    assert all(caught_up(changed).outcomes.values())
    assert list(ids(changed)) == ["o0", "o1", "o2", "o3", "o4", "o5", "o9"]


def test_a_property_that_somebody_has_changed_is_set_back(mesh: Mesh) -> None:
    table = table_of(mesh)
    update = SetPropertiesUpdate(updates={"write.parquet.compression-codec": "gzip", "theirs": "kept"})
    table.catalog.commit_table(table, (), (update,))
    assert applied_as_planned(mesh) == ("table shop.orders: write.parquet.compression-codec gzip → zstd",)
    assert table_of(mesh).properties["theirs"] == "kept"
