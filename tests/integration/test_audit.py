"""The auditor on a real broker and registry: each cause becomes one finding within seconds, and closes when mended."""

from __future__ import annotations

import json
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from prometheus_client.parser import text_string_to_metric_families
from pyiceberg.table.update import RemovePropertiesUpdate, SetPropertiesUpdate

from headrace.governance.docket import Finding
from headrace.governance.scanner import OBSERVATIONS
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import apply
from headrace.streams.admin import Admin
from tests.support.audits import Audit, FoundSoFar, auditing
from tests.support.meshes import ORDER, order, send, write_product
from tests.support.registries import registry_client
from tests.support.sinks import events, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from tests.support.meshes import Cluster

# What is promised for a small mesh, from the cause to the event in the topic.
PROMISE_S = 5.0
NAMES = ("shop.strangers", "shop.registered", "shop.posted", "shop.levels", "shop.masked", "shop.quiet")


@pytest.fixture(scope="module")
def mesh(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """A mesh with a product for each test."""
    root = tmp_path_factory.mktemp("audited") / "mesh"
    return cluster.applied(root, prefix=f"a{uuid.uuid4().hex[:8]}.", schemas=dict.fromkeys(NAMES, ORDER))


@pytest.fixture(scope="module")
def running(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audit]:
    """An audit that runs beside the tests."""
    with auditing(mesh, tmp_path_factory.mktemp("log") / "audit.log", "--metrics-port", "0") as audit:
        yield audit


@pytest.fixture(scope="module")
def found(mesh: Mesh, running: Audit) -> Iterator[FoundSoFar]:
    """What it finds."""
    with FoundSoFar(mesh) as found:
        yield found


def rogue(mesh: Mesh, product: Product, schema: Mapping[str, Any], event: Mapping[str, Any], **conf: Any) -> None:
    """Publish an event as a service does that knows nothing of headrace."""
    client = registry_client(mesh.environment.registry_config())
    serialize = AvroSerializer(client, json.dumps(schema), conf={"auto.register.schemas": True, **conf})
    value = serialize(event, SerializationContext(product.topic, MessageField.VALUE))
    producer = Producer(mesh.environment.kafka_config())
    producer.produce(product.topic, value)
    assert producer.flush(30) == 0


def deleted(admin: AdminClient, topic: str) -> None:
    """Delete a topic."""
    admin.delete_topics([topic])[topic].result()


def with_field(**field: Any) -> dict[str, Any]:
    return {**ORDER, "fields": [*ORDER["fields"], field]}


def test_a_rogue_producers_schema_is_found_until_its_messages_are_gone(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.strangers")
    schema = {"type": "record", "name": f"R{uuid.uuid4().hex}", "fields": [{"name": "x", "type": "string"}]}
    strategy = {"subject.name.strategy": record_subject_name_strategy}
    (opened,) = found.within(PROMISE_S, lambda: rogue(mesh, product, schema, {"x": "y"}, **strategy), product.topic)
    assert (opened.rule, opened.open, opened.product) == ("unknown-schema-id", True, "shop.strangers")
    # More of the same is the same.
    rogue(mesh, product, schema, {"x": "z"}, **strategy)
    admin = AdminClient({**mesh.environment.kafka_config()})
    ends = Admin(mesh.environment.kafka_config()).watermarks(
        Admin(mesh.environment.kafka_config()).topic(product.topic)
    )

    def purge() -> None:
        deleted = admin.delete_records([TopicPartition(product.topic, p, marks.end) for p, marks in ends.items()])
        for future in deleted.values():
            future.result()

    (closed,) = found.within(PROMISE_S, purge, product.topic)
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_a_version_that_a_producer_registers_is_one_finding_and_not_two(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.registered")
    schema = with_field(name="sneaked", type=["null", "string"], default=None)
    event = {**order(1), "sneaked": "in"}
    (opened,) = found.within(PROMISE_S, lambda: rogue(mesh, product, schema, event), product.topic)
    assert (opened.rule, opened.open) == ("version-past-apply", True)
    client = registry_client(mesh.environment.registry_config())
    (closed,) = found.within(PROMISE_S, lambda: client.delete_version(product.subject, 2), product.topic)
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_a_schema_that_is_posted_to_the_registry_is_found_until_it_is_applied(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.posted")
    schema = with_field(name="posted", type=["null", "long"], default=None)

    def post() -> None:
        url = f"{mesh.environment.registry_config()['url']}/subjects/{product.subject}/versions"
        body = json.dumps({"schema": json.dumps(schema)}).encode()
        headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            assert answer.status == 200

    (opened,) = found.within(PROMISE_S, post, product.topic)
    assert (opened.rule, opened.open) == ("version-past-apply", True)

    def adopt() -> None:
        (mesh.root / "domains" / "shop" / "posted" / "schema.avsc").write_text(json.dumps(schema))
        apply(load_mesh(mesh.root, environment="cluster"), lambda _: None)

    # The files say what the registry holds from the moment on in which they are written: apply has to follow.
    (closed,) = found.within(PROMISE_S + 5, adopt, product.topic)
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_a_lowered_level_is_found_until_it_is_raised(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.levels")
    with Registry(mesh.environment.registry_config()) as registry:
        (opened,) = found.within(PROMISE_S, lambda: registry.set_compatibility(product.subject, "NONE"), product.topic)
        assert (opened.rule, opened.open) == ("compatibility-differs", True)
        (closed,) = found.within(
            PROMISE_S,
            lambda: registry.set_compatibility(product.subject, product.contract.compatibility),
            product.topic,
        )
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_a_topic_made_by_hand_is_found_until_it_is_deleted(mesh: Mesh, found: FoundSoFar) -> None:
    config = mesh.environment.kafka_config()
    name = f"{mesh.environment.topic_prefix}by_hand"
    (opened,) = found.within(PROMISE_S, lambda: Admin(config).create(name, partitions=1, config={}), name)
    assert (opened.rule, opened.open, opened.product) == ("foreign-topic", True, None)
    admin = AdminClient({**config})
    (closed,) = found.within(PROMISE_S, lambda: deleted(admin, name), name)
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)
    # One of the same name is another topic, and another finding.
    (again,) = found.within(PROMISE_S, lambda: Admin(config).create(name, partitions=1, config={}), name)
    assert again.finding_id != opened.finding_id


def test_a_mask_that_is_taken_from_a_table_is_found_until_it_is_back(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.masked")
    catalog = open_catalog(mesh.environment, mesh.domain_of(product))
    mask = {"headrace.mask.email": "hmac-sha-256"}
    table = load_table(catalog, product)
    assert mask.items() <= table.properties.items()
    (opened,) = found.within(
        PROMISE_S,
        lambda: catalog.commit_table(table, (), (RemovePropertiesUpdate(removals=list(mask)),)),
        product.topic,
    )
    assert (opened.rule, opened.matter, opened.open) == ("unmasked-pii", "email", True)
    (closed,) = found.within(
        PROMISE_S, lambda: catalog.commit_table(table, (), (SetPropertiesUpdate(updates=mask),)), product.topic
    )
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_what_is_in_order_is_no_finding(mesh: Mesh, found: FoundSoFar) -> None:
    product = mesh.product("shop.quiet")
    send(mesh, product.topic, events(mesh, product, [order(number) for number in range(50)]))
    assert found.of(product.topic) == []


def test_what_somebody_writes_into_governances_own_topics_is_found_and_stops_nothing(
    mesh: Mesh, found: FoundSoFar, tmp_path: Path
) -> None:
    topic = mesh.product(OBSERVATIONS).topic
    (opened,) = found.within(PROMISE_S, lambda: send(mesh, topic, [(None, b"\0\0\1\0\0garbage"), (None, b"x")]), topic)
    assert (opened.rule, opened.matter) == ("unknown-schema-id", str(1 << 16))
    # Whoever begins now reads it, too.
    with auditing(mesh, tmp_path / "second.log", "--until-caught-up", warm=False) as second:
        assert second.wait(60) == 0, second.text()


def test_a_product_that_the_files_promise_is_found_until_it_is_applied(mesh: Mesh, found: FoundSoFar) -> None:
    topic = f"{mesh.environment.topic_prefix}shop.promised"
    folder = mesh.root / "domains" / "shop" / "promised"
    (opened,) = found.within(PROMISE_S, lambda: write_product(folder, "shop.promised", ORDER), topic)
    assert (opened.rule, opened.open, opened.product) == ("contract-not-registered", True, "shop.promised")
    (closed,) = found.within(
        PROMISE_S + 5, lambda: apply(load_mesh(mesh.root, environment="cluster"), lambda _: None), topic
    )
    assert (closed.finding_id, closed.open) == (opened.finding_id, False)


def test_while_the_files_have_faults_the_mesh_is_what_it_was(mesh: Mesh, found: FoundSoFar) -> None:
    level = mesh.root / "domains" / "shop" / "quiet" / "contract.odcs.yaml"
    text = level.read_text()
    level.write_text("nothing: of the kind")
    name = f"{mesh.environment.topic_prefix}by_hand_too"
    # Every product would be a stranger otherwise.
    (opened,) = found.within(
        PROMISE_S, lambda: Admin(mesh.environment.kafka_config()).create(name, partitions=1, config={}), name
    )
    level.write_text(text)
    assert opened.rule == "foreign-topic"
    assert found.of(mesh.product("shop.quiet").topic) == []


def test_metrics_and_health_tell_of_both_halves(mesh: Mesh, found: FoundSoFar, running: Audit) -> None:
    url = next(line for line in running.text().splitlines() if line.startswith("metrics are at ")).split()[-1]

    def values() -> dict[str, float]:
        with urllib.request.urlopen(url, timeout=60) as answer:
            families = text_string_to_metric_families(answer.read().decode())
            return {family.name: family.samples[0].value for family in families if family.samples}

    # It may have begun just now, if no other test came before in this process.
    assert eventually(lambda: values()["headrace_audit_observations"] > 0)

    def counts_what_is_open() -> bool:
        counted = values()["headrace_audit_open_findings"]
        open_ones = {finding.finding_id: finding.open for finding in map(Finding.from_event, found.look())}
        return counted == sum(open_ones.values())

    assert eventually(counts_what_is_open)
    assert values()["headrace_audit_scanning"] == values()["headrace_audit_judging"] == 1
    with urllib.request.urlopen(url.replace("metrics", "readyz"), timeout=60) as answer:
        assert json.load(answer) == {"ok": True, "reasons": []}
