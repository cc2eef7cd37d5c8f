"""``headrace check --against live``: the files against a registry and tables that are there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import Schema
from pyiceberg.types import LongType

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import Unavailable
from headrace.schemas.mesh import Mesh, load_mesh
from headrace.selfserve.against_live import against_live
from headrace.selfserve.apply import apply
from headrace.selfserve.main import main
from tests.support.meshes import ORDER, ORDERS, Cluster, write, write_product
from tests.support.registries import registry_client

if TYPE_CHECKING:
    from pathlib import Path


def rewritten(mesh: Mesh, *fields: dict[str, Any]) -> Mesh:
    """Give shop.orders other fields."""
    write_product(mesh.root / "domains" / "shop" / "orders", ORDERS, {**ORDER, "fields": list(fields)})
    return load_mesh(mesh.root, environment="cluster")


def rules(mesh: Mesh) -> list[tuple[str, str, str]]:
    return [(each.finding.rule, each.finding.path, each.against) for each in against_live(mesh).findings]


ID, AMOUNT, EMAIL = ORDER["fields"]
NOTE = {"name": "note", "type": ["null", "string"], "default": None}


def test_what_is_applied_is_no_finding_and_what_is_not_is_new(mesh: Mesh, cluster: Cluster) -> None:
    assert against_live(mesh).findings == ()
    assert against_live(mesh).compared == 1
    write_product(mesh.root / "domains" / "shop" / "returns", "shop.returns", ORDER)
    both = load_mesh(mesh.root, environment="cluster")
    assert (against_live(both).findings, against_live(both).compared) == ((), 1)


def test_a_mesh_that_was_never_applied_makes_no_catalog(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    mesh = cluster.mesh(tmp_path / "new", prefix=prefix)
    assert against_live(mesh).compared == 0
    assert not (mesh.root / "tables").exists()


def test_all_layers_are_compared_with_what_is_there(mesh: Mesh) -> None:
    changed = rewritten(mesh, ID, {**AMOUNT, "type": "int"}, {**EMAIL, "confluent:tags": []})
    assert rules(changed) == [
        ("TYPE_MISMATCH", "amount", "version 1"),
        ("UNSUPPORTED_TYPE_CHANGE", "amount", "version 1"),
        ("PII_TAG_REMOVED", "email", "version 1"),
    ]


def test_the_table_counts_as_it_is(mesh: Mesh) -> None:
    """Somebody has widened a column: the schema that made it asks for less than it is."""
    catalog = open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))
    with load_table(catalog, mesh.product(ORDERS)).update_schema() as update:
        update.rename_column("amount", "Total")
    changed = rewritten(mesh, ID, AMOUNT, EMAIL, {"name": "total", "type": ["null", "long"], "default": None})
    assert rules(changed) == [("FIELD_NAME_CASE_COLLISION", "total", "version 1")]


def test_a_column_that_somebody_has_widened_has_room(mesh: Mesh) -> None:
    shop = open_catalog(mesh.environment, mesh.domain_of(mesh.product(ORDERS)))
    count = {"name": "count", "type": ["null", "int"], "default": None}
    counting = rewritten(mesh, ID, AMOUNT, EMAIL, count)
    apply(counting, lambda _: None)
    with load_table(shop, mesh.product(ORDERS)).update_schema() as update:
        update.update_column("count", LongType())
    assert rules(rewritten(mesh, ID, AMOUNT, EMAIL, count, NOTE)) == []


def test_versions_that_no_table_follows_and_those_that_are_deleted_stand_in_nobodys_way(mesh: Mesh) -> None:
    """The table is behind the registry, which has a version that it will never follow, and had one that is wrong."""
    client = registry_client(mesh.environment.registry_config())
    subject = mesh.product(ORDERS).subject
    client.set_compatibility(subject, "NONE")
    for fields in (
        [ID, {**AMOUNT, "type": "double"}, EMAIL],
        [ID, AMOUNT, EMAIL, NOTE],
        [ID, AMOUNT, EMAIL, NOTE, {"name": "shop", "type": "int"}],
    ):
        client.register_schema(subject, Schema(json.dumps({**ORDER, "fields": fields}), "AVRO"))
    client.set_compatibility(subject, "BACKWARD")
    client.delete_version(subject, 4)
    more = {"name": "more", "type": ["null", "int"], "default": None}
    assert rules(rewritten(mesh, ID, AMOUNT, EMAIL, NOTE, more)) == []
    assert rules(rewritten(mesh, ID, AMOUNT, EMAIL, {**NOTE, "type": ["null", "int"]})) == [
        ("MISSING_UNION_BRANCH", "note", "version 3"),
        ("UNSUPPORTED_TYPE_CHANGE", "note", "version 3"),
    ]


def test_a_mask_that_the_table_has_may_not_be_weakened(mesh: Mesh) -> None:
    write(mesh.root / "policies" / "pii.yaml", "default: show-first-4\n")
    assert rules(load_mesh(mesh.root, environment="cluster")) == [("MASK_WEAKENED", "email", "what is applied")]


def test_a_level_that_promises_less_than_the_registrys(mesh: Mesh) -> None:
    contract = mesh.root / "domains" / "shop" / "orders" / "contract.odcs.yaml"
    lowered = contract.read_text().replace(
        "customProperties: [", "customProperties: [{property: avro.compatibility, value: NONE}, "
    )
    contract.write_text(lowered)
    assert rules(load_mesh(mesh.root, environment="cluster")) == [
        ("COMPATIBILITY_LOWERED", "customProperties.avro.compatibility", "what is applied")
    ]


def test_each_version_that_is_there_counts_in_a_transitive_level(mesh: Mesh) -> None:
    client = registry_client(mesh.environment.registry_config())
    subject = mesh.product(ORDERS).subject
    second = {**ORDER, "fields": [ID, {**AMOUNT, "default": 0}, EMAIL]}
    client.register_schema(subject, Schema(json.dumps(second), "AVRO"))
    client.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    changed = rewritten(mesh, ID, AMOUNT, EMAIL, {"name": "shop", "type": "string"})
    assert rules(changed) == [
        ("READER_FIELD_MISSING_DEFAULT_VALUE", "shop", "versions 1, 2"),
        ("COMPATIBILITY_LOWERED", "customProperties.avro.compatibility", "what is applied"),
    ]


def test_a_version_that_no_table_could_follow_fails_the_check(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    client = registry_client(mesh.environment.registry_config())
    subject = mesh.product(ORDERS).subject
    client.set_compatibility(subject, "NONE")
    client.register_schema(subject, Schema('"string"', "AVRO"))
    assert len(against_live(mesh).unread) == 1
    assert main(["--mesh", str(mesh.root), "--environment", "cluster", "check", "--against", "live"]) == 1
    said = capsys.readouterr().err
    assert "warning: " in said
    assert "an event's schema is a record" in said


def test_nothing_is_written(mesh: Mesh) -> None:
    changed = rewritten(mesh, ID, AMOUNT, EMAIL, {"name": "shop", "type": ["null", "string"], "default": None})
    tables = mesh.root / "tables"
    before = {path: path.read_bytes() for path in sorted(tables.rglob("*")) if path.is_file()}
    assert rules(changed) == []
    assert {path: path.read_bytes() for path in sorted(tables.rglob("*")) if path.is_file()} == before
    made: list[str] = []
    apply(changed, made.append)
    assert any("subject" in thing or "version" in thing or "table" in thing for thing in made), (
        "there was something to do"
    )


def test_a_registry_that_does_not_answer_is_no_clean_check(mesh: Mesh) -> None:
    path = mesh.root / "mesh.yaml"
    address = mesh.environment.registry_config()["url"]
    path.write_text(path.read_text().replace(address, "http://127.0.0.1:1"))
    with pytest.raises(Unavailable):
        against_live(load_mesh(mesh.root, environment="cluster"))
