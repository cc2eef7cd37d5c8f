"""Drift on a running cluster: whatever somebody does past the files is named, with what to do next."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from pyiceberg.table.update import SetLocationUpdate
from pyiceberg.types import LongType, StringType

from headrace.schemas.catalog import open_catalog
from headrace.selfserve.apply import apply, apply_each
from headrace.selfserve.drift import drift
from headrace.selfserve.main import main
from headrace.selfserve.plan import plan
from headrace.selfserve.resources.clients import Clients
from headrace.sinks.hold import hold
from headrace.streams.admin import Admin
from tests.support.amending import optional, reloaded, with_fields
from tests.support.meshes import ORDER, ORDERS, write_product
from tests.support.registries import registry_client
from tests.support.subscribing import register
from tests.support.topics import publish, table_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

RETURNS = "shop.returns"
WIDER = {**ORDER, "fields": [*ORDER["fields"], optional("gate")]}


class Hands:
    """What a person can do who knows nothing of headrace."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.product = mesh.product(ORDERS)

    @property
    def admin(self) -> Admin:
        return Admin(self.mesh.environment.kafka_config())

    @property
    def registry(self) -> SchemaRegistryClient:
        return registry_client(self.mesh.environment.registry_config())

    @property
    def catalog(self) -> Catalog:
        return open_catalog(self.mesh.environment, self.mesh.domain_of(self.product))

    def delete_topic(self) -> None:
        self.admin.delete(self.product.topic)

    def delete_letters(self) -> None:
        self.admin.delete(self.product.dead_letter_topic)

    def change_retention(self) -> None:
        self.admin.set_config(self.product.dead_letter_topic, {"retention.ms": "60000"})

    def change_policy(self) -> None:
        self.admin.set_config(self.product.topic, {"cleanup.policy": "compact,delete"})

    def set_what_no_contract_says(self) -> None:
        self.admin.set_config(self.product.topic, {"retention.ms": "60000", "segment.bytes": "2000000"})

    def lower_level(self) -> None:
        self.registry.set_compatibility(self.product.subject, "NONE")

    def delete_subject(self) -> None:
        self.registry.delete_subject(self.product.subject)

    def drop_table(self) -> None:
        self.catalog.drop_table(ORDERS)

    def add_column(self) -> None:
        with table_of(self.mesh).update_schema() as update:
            update.add_column("note", StringType())

    def drop_column(self) -> None:
        with table_of(self.mesh).update_schema() as update:
            update.delete_column("email")

    def narrow_column(self) -> None:
        with table_of(self.mesh).update_schema(allow_incompatible_changes=True) as update:
            update.delete_column("amount")
        with table_of(self.mesh).update_schema() as update:
            update.add_column("amount", StringType())

    def change_property(self) -> None:
        with table_of(self.mesh).transaction() as transaction:
            transaction.set_properties({"comment": "mine"})

    def move_table(self) -> None:
        table = table_of(self.mesh)
        update = SetLocationUpdate(location=f"{table.location()}_moved")
        self.catalog.commit_table(table, (), (update,))

    def move_namespace(self) -> None:
        elsewhere = f"file://{self.mesh.root}/elsewhere"
        self.catalog.update_namespace_properties("shop", updates={"location": elsewhere})

    def foreign_schema(self) -> None:
        self.registry.set_compatibility(self.product.subject, "BACKWARD")
        self.registry.register_schema(self.product.subject, Schema(json.dumps(WIDER), "AVRO"))

    def stray_topic(self) -> None:
        self.admin.create(f"{self.mesh.environment.topic_prefix}shop.scratch", partitions=1, config={})

    def stray_subject(self) -> None:
        subject = f"{self.mesh.environment.topic_prefix}shop.scratch-value"
        self.registry.register_schema(subject, Schema(json.dumps(ORDER), "AVRO"))

    def stray_table(self) -> None:
        self.catalog.create_table("shop.scratch", schema=table_of(self.mesh).schema())


CASES: dict[Callable[[Hands], None], list[str]] = {
    Hands.delete_topic: ["topic-missing"],
    Hands.delete_letters: ["dead-letters-missing"],
    Hands.change_retention: ["topic-setting"],
    Hands.change_policy: ["topic-setting"],
    Hands.set_what_no_contract_says: ["topic-setting"],
    Hands.lower_level: ["subject-level"],
    Hands.delete_subject: ["schema-missing"],
    Hands.drop_table: ["table-missing"],
    Hands.add_column: ["column-added"],
    Hands.drop_column: ["column-missing"],
    Hands.narrow_column: ["column-type"],
    Hands.change_property: ["table-property"],
    Hands.move_table: ["location-moved"],
    Hands.move_namespace: ["location-moved"],
    Hands.foreign_schema: ["foreign-version", "version-pending"],
    Hands.stray_topic: ["unowned-topic"],
    Hands.stray_subject: ["unowned-subject"],
    Hands.stray_table: ["unowned-table"],
}


def causes(mesh: Mesh) -> list[str]:
    found = drift(mesh)
    assert found.troubles == ()
    return [each.cause for each in found.differences]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_each_change_is_named_with_what_to_do(
    mesh: Mesh, case: Callable[[Hands], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert causes(mesh) == []
    case(Hands(mesh))
    assert causes(mesh) == CASES[case]
    assert main(["--mesh", str(mesh.root), "--environment", "cluster", "drift"]) == 2
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("next: ") == len(CASES[case])
    assert shown.out.endswith(f"{len(CASES[case])} difference{'s' if len(CASES[case]) > 1 else ''}\n")


def test_what_apply_can_mend_is_mended(mesh: Mesh) -> None:
    hands = Hands(mesh)
    hands.delete_letters()
    hands.lower_level()
    hands.drop_table()
    assert set(causes(mesh)) == {"dead-letters-missing", "subject-level", "table-missing"}
    apply(mesh, lambda _: None)
    assert causes(mesh) == []


def test_the_files_are_ahead(mesh: Mesh) -> None:
    changed = with_fields(mesh, ORDERS, optional("gate"))
    assert causes(changed) == ["schema-missing", "version-pending"]


def test_a_schema_of_another_language_hides_nothing(mesh: Mesh) -> None:
    hands = Hands(mesh)
    hands.lower_level()
    json_schema = Schema('{"type": "object", "properties": {"x": {"type": "string"}}}', "JSON")
    hands.registry.register_schema(hands.product.subject, json_schema)
    hands.add_column()
    assert set(causes(mesh)) == {"foreign-version", "subject-level", "version-refused", "column-added"}


def test_a_foreign_version_that_was_deleted_or_taken_over_is_none(mesh: Mesh) -> None:
    hands = Hands(mesh)
    hands.foreign_schema()
    hands.registry.delete_version(hands.product.subject, 2)
    assert "foreign-version" not in causes(mesh)
    hands.foreign_schema()
    assert "foreign-version" in causes(mesh)
    taken = with_fields(mesh, ORDERS, optional("gate"))
    apply(taken, lambda _: None)
    assert causes(taken) == []


def test_a_hold_hides_no_drift_and_is_none(mesh: Mesh) -> None:
    hands = Hands(mesh)
    hold(hands.catalog, hands.product, "to look at it", datetime.now(UTC))
    assert causes(mesh) == []
    hands.change_property()
    assert causes(mesh) == ["table-property"]


def test_a_product_that_was_taken_out_of_the_files(mesh: Mesh) -> None:
    write_product(mesh.root / "domains" / "shop" / "returns", RETURNS, ORDER)
    apply(reloaded(mesh), lambda _: None)
    shutil.rmtree(mesh.root / "domains" / "shop" / "returns")
    less = reloaded(mesh)
    wanted = ["unowned-subject", "unowned-topic", "unowned-dead-letters", "unowned-letter-table", "unowned-table"]
    assert causes(less) == wanted
    Admin(mesh.environment.kafka_config()).delete(f"{mesh.environment.topic_prefix}{RETURNS}")
    assert causes(less) == [cause for cause in wanted if cause != "unowned-topic"]


def test_a_moved_table_is_not_moved_back(mesh: Mesh) -> None:
    Hands(mesh).move_table()
    (moved,) = plan(mesh).differences
    assert str(moved.kind) == "never"
    assert not apply_each(mesh, lambda _: None).complete
    assert table_of(mesh).location().endswith("_moved")


def test_a_widened_column_is_drift_until_the_contract_says_so_too(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    narrow = {**ORDER, "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": "int"}]}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: narrow})
    with table_of(mesh).update_schema() as update:
        update.update_column("n", LongType())
    assert causes(mesh) == ["column-type"]
    wide = with_fields(mesh, ORDERS, {"name": "n", "type": "long"})
    apply(wide, lambda _: None)
    assert causes(wide) == []


def test_one_catalog_that_does_not_answer_hides_no_other_domain(
    cluster: Cluster, tmp_path: Path, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    schemas = {ORDERS: ORDER, "crew.rosters": ORDER}
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas=schemas)
    database = mesh.root / "tables" / "crew" / "catalog.db"
    database.unlink()
    database.mkdir()
    Hands(mesh).add_column()
    found = drift(mesh)
    assert [each.cause for each in found.differences] == ["column-added"]
    assert {name for name, _ in found.troubles} == {"domain crew", "crew.rosters"}
    run = ["--mesh", str(mesh.root), "--environment", "cluster"]
    assert main([*run, "drift"]) == 1
    shown = capsys.readouterr()
    assert "column note" in shown.out
    assert "not all of crew.rosters was seen" in shown.err
    assert main([*run, "drift", "--format", "json"]) == 1
    sections = {section["name"]: section for section in json.loads(capsys.readouterr().out)["sections"]}
    assert sections["crew.rosters"]["error"]["what"]
    assert sections[ORDERS]["differences"][0]["cause"] == "column-added"
    assert main([*run, "plan"]) == 1


def test_nothing_is_changed_by_looking(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(3))
    hands = Hands(mesh)
    hands.lower_level()
    hands.change_retention()
    register(mesh, WIDER)

    def state() -> tuple[object, ...]:
        with Clients(mesh.environment) as clients:
            product = hands.product
            return (
                clients.topic(product.topic),
                clients.topic(product.dead_letter_topic),
                clients.registry.all_versions(product.subject),
                clients.registry.own_compatibility(product.subject),
                table_of(mesh).metadata_location,
            )

    before = state()
    drift(mesh)
    plan(mesh)
    assert state() == before
