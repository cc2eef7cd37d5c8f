"""What others do past apply, and what apply then makes of it: no value is lost without a word."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from headrace.governance.applied import applied_ids
from headrace.schemas.catalog import open_catalog
from headrace.selfserve.apply import apply, apply_each
from headrace.selfserve.drift import drift
from headrace.selfserve.plan import plan
from headrace.sinks.evolution import VERSION_PROPERTY
from headrace.streams.admin import Admin
from tests.support.amending import optional, reloaded, with_fields
from tests.support.meshes import ORDER, ORDERS, ids, order, query
from tests.support.registries import registry_client
from tests.support.sinks import caught_up
from tests.support.subscribing import register, send_as
from tests.support.topics import publish, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from tests.support.meshes import Cluster

GATE = optional("gate")


def delete_for_good(mesh: Mesh, *numbers: int) -> None:
    """Delete versions as one may who wants their numbers back."""
    registry, subject = registry_client(mesh.environment.registry_config()), mesh.product(ORDERS).subject
    for permanent in (False, True):
        for number in numbers:
            registry.delete_version(subject, number, permanent=permanent)


@pytest.mark.parametrize("deleted", [[3], [2, 3], [1, 2, 3]], ids=str)
def test_a_number_that_the_registry_gives_again_is_followed_again(mesh: Mesh, deleted: list[int]) -> None:
    """The table notes numbers: a new version must not pass for one of that number that it has followed."""
    apply(with_fields(mesh, ORDERS, optional("first")), lambda _: None)
    apply(with_fields(mesh, ORDERS, optional("second")), lambda _: None)
    assert table_of(mesh).properties[VERSION_PROPERTY] == "3"
    delete_for_good(mesh, *deleted)
    changed = with_fields(mesh, ORDERS, GATE)
    planned = list(map(str, plan(changed).done_by_apply))
    assert list(apply(changed, lambda _: None).made) == planned
    assert plan(changed).differences == ()
    assert drift(changed).differences == ()
    table = table_of(changed)
    assert "gate" in table.schema().column_names
    schema = {**ORDER, "fields": [*ORDER["fields"], optional("first"), optional("second"), GATE]}
    schema_id = max(applied_ids(table))
    send_as(changed, schema, schema_id, [{**order(1), "gate": "B7", "first": "1", "second": "2"}])
    caught_up(changed)
    assert query(changed, f"SELECT first, second, gate FROM {ORDERS}") == [("1", "2", "B7")]


def test_a_table_that_is_made_anew_knows_its_contract_s_earlier_versions(mesh: Mesh) -> None:
    """They stand in the registry because earlier runs of apply registered them; the marks went with the table."""
    changed = with_fields(mesh, ORDERS, GATE)
    apply(changed, lambda _: None)
    alien = register(changed, {**ORDER, "fields": [*ORDER["fields"], GATE, optional("alien")]})
    open_catalog(mesh.environment, mesh.domains["shop"]).drop_table(ORDERS)
    apply(changed, lambda _: None)
    assert [(each.cause, each.old) for each in drift(changed).differences if each.cause == "foreign-version"] == [
        ("foreign-version", f"3 (schema id {alien})")
    ]


def test_a_column_that_another_engine_has_renamed_is_not_to_be_dropped(mesh: Mesh) -> None:
    with table_of(mesh).update_schema() as update:
        update.rename_column("email", "mail")
    (renamed,) = drift(mesh).differences
    assert (renamed.cause, renamed.what, renamed.old, renamed.new) == ("column-renamed", "column mail", "mail", "email")
    assert "drop" not in renamed.next


def test_dead_letters_that_somebody_keeps_for_longer_are_kept(mesh: Mesh) -> None:
    admin = Admin(mesh.environment.kafka_config())
    letters = mesh.product(ORDERS).dead_letter_topic
    admin.set_config(letters, {"retention.ms": "-1", "max.message.bytes": "20000000"})
    assert plan(mesh).differences == ()
    assert apply_each(mesh, lambda _: None).made == ()
    assert admin.config(letters)["retention.ms"] == "-1"


def test_what_a_removed_domain_has_left_is_not_half_deleted(cluster: Cluster, tmp_path: Path, prefix: str) -> None:
    """Its table would outlive its topic, and stop the product when it comes back."""
    rosters = "crew.rosters"
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, rosters: ORDER})
    topic = mesh.product(rosters).topic
    (mesh.root / "domains" / "crew").rename(mesh.root / "crew")
    less = reloaded(mesh)
    assert plan(less).differences == ()
    assert {each.cause for each in drift(less).differences} == {
        "unowned-subject",
        "unowned-topic",
        "unowned-dead-letters",
    }
    applied = apply_each(less, lambda _: None, (rosters,))
    assert (applied.made, applied.complete) == ((), False)
    assert "put domains/crew/domain.yaml back" in applied.warnings[0]
    (mesh.root / "crew").rename(mesh.root / "domains" / "crew")
    shutil.rmtree(mesh.root / "domains" / "crew" / "rosters")
    assert len(apply_each(reloaded(mesh), lambda _: None, (rosters,)).made) == 5
    assert topic not in Admin(mesh.environment.kafka_config()).names()


def test_nothing_is_deleted_while_the_catalog_cannot_say_whether_it_is_held(
    cluster: Cluster, tmp_path: Path, prefix: str
) -> None:
    returns = "shop.returns"
    mesh = cluster.applied(tmp_path / "mesh", prefix=prefix, schemas={ORDERS: ORDER, returns: ORDER})
    topic = mesh.product(returns).topic
    shutil.rmtree(mesh.root / "domains" / "shop" / "returns")
    database = mesh.root / "tables" / "shop" / "catalog.db"
    database.rename(database.with_name("kept"))
    database.mkdir()
    applied = apply_each(reloaded(mesh), lambda _: None, (returns,))
    assert returns in {name for name, _ in applied.failures}
    assert topic in Admin(mesh.environment.kafka_config()).names()


def test_a_topic_that_was_made_anew_is_drift_until_the_table_begins_anew(mesh: Mesh) -> None:
    publish(mesh, ORDERS, range(3))
    caught_up(mesh)
    Admin(mesh.environment.kafka_config()).delete(mesh.product(ORDERS).topic)
    assert [each.cause for each in drift(mesh).differences] == ["topic-missing"]
    apply(mesh, lambda _: None)
    (anew,) = drift(mesh).differences
    assert (str(anew.kind), anew.cause) == ("never", "topic-made-anew")
    assert "headrace accept-topic shop.orders" in anew.next
    open_catalog(mesh.environment, mesh.domains["shop"]).drop_table(ORDERS)
    apply(mesh, lambda _: None)
    assert drift(mesh).differences == ()
    publish(mesh, ORDERS, range(3, 5))
    caught_up(mesh)
    assert ids(mesh) == ["o3", "o4"]
