"""Apply on real Kafka, a real registry and real catalogs: everything that the files promise, as often as one likes."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from headrace.governance.applied import applied_ids, mark_applied
from headrace.producers.positions import positions_topic
from headrace.schemas.avro import AvroSchema
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import Refusal, Unavailable, UserError
from headrace.schemas.mesh import load_mesh
from headrace.schemas.registry import Registry
from headrace.selfserve.apply import DEAD_LETTER_RETENTION_MS, apply
from headrace.selfserve.stack import stack_of
from headrace.streams.admin import Admin, Watermarks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.mesh import Mesh

AIRLINE = Path(__file__).parents[2] / "examples" / "airline"
FLIGHTS = "operations.flights"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example's folder, its servers up."""
    folder = tmp_path_factory.mktemp("mesh") / "airline"
    shutil.copytree(AIRLINE, folder)
    stack = stack_of(load_mesh(folder).environment)
    stack.up(die_with_parent=True, progress=lambda _: None)
    yield folder
    stack.down(lambda _: None)


@pytest.fixture
def root(servers: Path, request: pytest.FixtureRequest) -> Path:
    """The example as it is, with topics and tables of the test's own."""
    for part in ("domains", "policies"):
        shutil.rmtree(servers / part)
        shutil.copytree(AIRLINE / part, servers / part)
    prefix = "".join(character for character in request.node.name if character.isalnum())[:40].lower()
    text = (AIRLINE / "mesh.yaml").read_text()
    (servers / "mesh.yaml").write_text(
        text.replace("stack: embedded", f"stack: embedded\n    topic_prefix: {prefix}.", 1)
    )
    shutil.rmtree(servers / ".headrace" / "embedded" / "tables", ignore_errors=True)
    return servers


def apply_quietly(mesh: Mesh) -> tuple[str, ...]:
    told: list[str] = []
    applied = apply(mesh, told.append)
    assert tuple(told) == applied.made
    return applied.made


def test_everything_is_made_once(root: Path) -> None:
    mesh = load_mesh(root)
    made = apply_quietly(mesh)
    things = [thing.partition(" ")[0] for thing in made]
    count, domains = len(mesh.all_products), len(mesh.all_domains)
    # The positions of publishers have a topic of their own; a subject is given its level, then its first version; a
    # second table tells of dead letters.
    wanted = {"topic": 2 * count + 1, "subject": 2 * count, "namespace": domains, "table": 2 * count}
    assert {kind: things.count(kind) for kind in things} == wanted
    again = apply(mesh, lambda _: None)
    assert (again.made, again.found, again.warnings) == ((), 5 * count + domains + 1, ())


def test_topics_are_as_the_contract_says(root: Path) -> None:
    mesh = load_mesh(root)
    apply_quietly(mesh)
    admin = Admin(mesh.environment.kafka_config())
    flights = mesh.product(FLIGHTS)
    assert admin.topic(flights.topic).partitions == flights.contract.partitions == 4
    settings = admin.config(flights.topic)
    assert settings["retention.ms"] == str(flights.contract.retention_ms)
    letters = admin.config(flights.dead_letter_topic)
    assert letters["retention.ms"] == str(DEAD_LETTER_RETENTION_MS)
    assert int(letters["max.message.bytes"]) > int(settings["max.message.bytes"])
    positions = positions_topic(mesh.environment.topic_prefix)
    assert admin.topic(positions).partitions == 1
    assert admin.config(positions)["cleanup.policy"] == "compact"


def test_a_dead_letter_topic_takes_the_largest_message_with_its_headers(root: Path) -> None:
    mesh = load_mesh(root)
    apply_quietly(mesh)
    config = mesh.environment.kafka_config()
    admin = Admin(config)
    flights = mesh.product(FLIGHTS)
    # A larger limit of the product's topic is followed by its dead letters' at the next run.
    admin.set_config(flights.topic, {"max.message.bytes": "3000000"})
    (made,) = apply_quietly(mesh)
    assert made.startswith(f"topic {flights.dead_letter_topic}: max.message.bytes ")
    largest = b"x" * (3_000_000 - 200)
    producer = Producer({**config, "message.max.bytes": 4_000_000})
    producer.produce(flights.topic, largest)
    producer.produce(
        flights.dead_letter_topic, largest, headers={"headrace.topic": "t" * 249, "headrace.reason": "r" * 99}
    )
    assert producer.flush(30) == 0
    assert admin.watermarks(admin.topic(flights.dead_letter_topic)) == {0: Watermarks(0, 1)}


def test_changed_settings_are_mended_and_partitions_are_left(root: Path) -> None:
    mesh = load_mesh(root)
    admin = Admin(mesh.environment.kafka_config())
    topic = mesh.product(FLIGHTS).topic
    admin.create(topic, partitions=2, config={"retention.ms": "60000", "segment.bytes": "2000000"})
    applied = apply(mesh, lambda _: None)
    retention_ms = str(mesh.product(FLIGHTS).contract.retention_ms)
    assert f"topic {topic}: retention.ms 60000 → {retention_ms}" in applied.made
    assert admin.config(topic)["retention.ms"] == retention_ms
    assert admin.config(topic)["segment.bytes"] == "2000000"
    (warning,) = applied.warnings
    assert warning.startswith(f"topic {topic}: partitions 2 → 4: not done, because keys would move")
    assert not applied.complete
    assert admin.topic(topic).partitions == 2


def test_schemas_and_levels_are_registered(root: Path) -> None:
    mesh = load_mesh(root)
    apply_quietly(mesh)
    with Registry(mesh.environment.registry_config()) as registry:
        for product in mesh.products:
            (version,) = registry.versions(product.subject)
            assert registry.lookup(product.subject, product.schema) == version
            assert registry.compatibility(product.subject) == product.contract.compatibility
            found = registry.schema(version.id)
            assert found == version.schema
            # The fields, their types and their tags came through, whatever the registry did to the text.
            assert [(path, field.tags) for path, field in found.walk()] == [
                (path, field.tags) for path, field in product.schema.walk()
            ]
            assert found.pii == product.schema.pii


def test_a_new_optional_field_is_a_new_version_and_a_required_one_is_refused(root: Path) -> None:
    first = load_mesh(root)
    apply_quietly(first)
    add_field(root, {"name": "gate", "type": ["null", "string"], "default": None, "doc": "gate"})
    second = load_mesh(root)
    subject = second.product(FLIGHTS).subject
    assert apply_quietly(second) == (
        f"subject {subject}: schema version 1 → version 2",
        "table operations.flights: version 1 → 2",
    )
    with Registry(second.environment.registry_config()) as registry:
        assert [version.version for version in registry.versions(subject)] == [1, 2]
        one, two = registry.versions(subject)
        assert registry.lookup(subject, first.product(FLIGHTS).schema) == one
        assert registry.lookup(subject, second.product(FLIGHTS).schema) == two
    add_field(root, {"name": "stand", "type": "string"})
    with pytest.raises(UserError, match="not compatible") as caught:
        apply_quietly(load_mesh(root))
    assert caught.value.where == subject


def add_field(root: Path, field: dict[str, object]) -> None:
    path = root / "domains" / "operations" / "flights" / "schema.avsc"
    schema = json.loads(path.read_text())
    schema["fields"].append(field)
    path.write_text(json.dumps(schema))


def test_a_registered_schema_is_told_from_its_like(root: Path) -> None:
    """What a registry takes for the same schema, it finds; a tag, a default or a type makes another."""
    mesh = load_mesh(root)

    def schema(**more: object) -> AvroSchema:
        fields = [
            {"name": "a", "type": "string", "doc": "as it is"} | more,
            {"name": "b", "type": "long", "default": 0},
        ]
        return AvroSchema.parse(json.dumps({"type": "record", "name": "E", "fields": fields}))

    with Registry(mesh.environment.registry_config()) as registry:
        subject = f"{mesh.environment.topic_prefix}likes-value"
        assert registry.lookup(subject, schema()) is None
        assert registry.versions(subject) == ()
        tagged = schema(**{"confluent:tags": ["PII", "user.name"]})
        registered = registry.register(subject, tagged)
        assert registry.register(subject, tagged) == registered
        assert registry.schema(registered.id).pii == {"a": "user.name"}
        for other in (
            schema(),
            schema(**{"confluent:tags": ["PII", "user.contact.email"]}),
            schema(**{"confluent:tags": ["PII", "user.name"], "default": ""}),
            schema(**{"confluent:tags": ["PII", "user.name"], "type": "bytes"}),
        ):
            assert registry.lookup(subject, other) is None
        with pytest.raises(Refusal):
            registry.schema(2**31 - 1)
        with pytest.raises(UserError, match="SIDEWAYS"):
            registry.set_compatibility(subject, "SIDEWAYS")


def test_tables_are_in_their_domains_own_catalogs(root: Path) -> None:
    mesh = load_mesh(root)
    apply_quietly(mesh)
    for domain in mesh.domains.values():
        catalog = open_catalog(mesh.environment, domain)
        names = {name for (name,) in catalog.list_namespaces()}
        assert names == {domain.name}
        for product in domain.products.values():
            columns = {field.name for field in load_table(catalog, product).schema().fields}
            assert {field.name for field in product.schema.record.fields} < columns


def test_what_apply_has_registered_is_marked_and_what_others_have_is_not(root: Path) -> None:
    mesh = load_mesh(root)
    flights = mesh.product(FLIGHTS)
    apply_quietly(mesh)
    catalog = open_catalog(mesh.environment, mesh.domain_of(flights))
    with Registry(mesh.environment.registry_config()) as registry:
        first = registry.lookup(flights.subject, flights.schema)
        assert first is not None
        assert applied_ids(load_table(catalog, flights)) == {first.id}
        past = registry.register(flights.subject, with_another(flights.schema, "past"))
        # The table follows it, as a sink would have it do; nobody has applied it.
        assert apply_quietly(mesh) == (f"table {FLIGHTS}: version 1 → 2",)
        assert applied_ids(load_table(catalog, flights)) == {first.id}
        # What the files say by now is the contract's, whoever has registered it.
        add_field(root, with_another(flights.schema, "past").document["fields"][-1])
        assert apply_quietly(load_mesh(root)) == (f"table {FLIGHTS}: mark version 2 as applied",)
        assert applied_ids(load_table(catalog, flights)) == {first.id, past.id}
    assert apply_quietly(load_mesh(root)) == ()


def test_two_runs_at_once_mark_what_each_has_registered(root: Path) -> None:
    mesh = load_mesh(root)
    apply_quietly(mesh)
    flights = mesh.product(FLIGHTS)
    domain = mesh.domain_of(flights)
    with ThreadPoolExecutor(8) as pool:
        marked = list(
            pool.map(lambda id_: mark_applied(open_catalog(mesh.environment, domain), flights, id_), [7] * 4 + [8] * 4)
        )
    assert applied_ids(load_table(open_catalog(mesh.environment, domain), flights)) >= {7, 8}
    assert sum(marked) >= 2
    assert not mark_applied(open_catalog(mesh.environment, domain), flights, 7)


def with_another(schema: AvroSchema, name: str) -> AvroSchema:
    """Return the schema with one more optional field."""
    field = {"name": name, "type": ["null", "string"], "default": None, "doc": "one more"}
    return AvroSchema.parse(json.dumps({**schema.document, "fields": [*schema.document["fields"], field]}))


def test_servers_that_are_down_are_named_with_the_next_step(root: Path) -> None:
    """Last in this file: it stops the servers."""
    mesh = load_mesh(root)
    stack = stack_of(mesh.environment)
    endpoints = mesh.environment.state / "endpoints.json"
    text = endpoints.read_text()
    stack.down(lambda _: None)
    with pytest.raises(Unavailable, match="headrace up"):
        apply_quietly(mesh)
    # A file that a crash left behind leads to servers that do not answer.
    endpoints.write_text(text)
    with pytest.raises(Unavailable, match="headrace up"):
        apply_quietly(mesh)
    endpoints.unlink()
