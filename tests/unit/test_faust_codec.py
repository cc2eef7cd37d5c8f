"""What an environment's Kafka properties mean to Faust, and what an application of a mesh is."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import faust
import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.protocol.metadata import MetadataResponse_v0
from faust.types.tuples import Message

from headrace.schemas.errors import SettingsError, UserError
from headrace.schemas.mesh import load_mesh
from headrace.streams.faust_broker import broker_settings
from headrace.streams.faust_codec import ProductSchema, faust_app
from headrace.streams.faust_worker import OneWorker
from headrace.streams.portions import Poison
from tests.support.lake import product_of
from tests.support.meshes import ORDER, ORDERS, encoded, write_mesh
from tests.support.shelf import Shelf
from tests.support.versions import schema_of

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.mesh import Mesh

HERE = "mesh.yaml: environments.production.kafka"
SASL = {
    "bootstrap.servers": "a.example:9093, b.example:9094",
    "security.protocol": "SASL_SSL",
    "sasl.mechanisms": "SCRAM-SHA-512",
    "sasl.username": "headrace",
    "sasl.password": "a secret",
}


def settings(**properties: str) -> dict[str, Any]:
    given = {name.replace("__", "."): value for name, value in properties.items()}
    return broker_settings({"bootstrap.servers": "a.example:9092", **given}, where=HERE)


def test_addresses_and_time_outs_are_carried_over() -> None:
    found = settings(session__timeout__ms="9000", heartbeat__interval__ms="1500", max__poll__interval__ms="60000")
    assert [str(url) for url in found.pop("broker")] == ["kafka://a.example:9092"]
    assert found == {
        "broker_session_timeout": 9.0,
        "broker_heartbeat_interval": 1.5,
        "broker_max_poll_interval": 60.0,
    }


def test_what_only_tunes_librdkafka_is_left_out() -> None:
    found = settings(linger__ms="5", queued__min__messages="10", socket__keepalive__enable="true", log_level="7")
    assert list(found) == ["broker"]


def test_passwords_and_encryption_are_carried_over() -> None:
    found = broker_settings(SASL, where=HERE)
    assert [str(url) for url in found["broker"]] == ["kafka://a.example:9093", "kafka://b.example:9094"]
    credentials = found["broker_credentials"]
    assert isinstance(credentials, faust.SASLCredentials)
    assert (credentials.username, credentials.password) == ("headrace", "a secret")
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_SSL", "SCRAM-SHA-512")
    context = credentials.ssl_context
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    plain = broker_settings({**SASL, "security.protocol": "sasl_plaintext"}, where=HERE)["broker_credentials"]
    assert plain.ssl_context is None
    assert plain.protocol.value == "SASL_PLAINTEXT"


def test_checks_of_certificates_can_be_taken_back_as_in_librdkafka() -> None:
    def context(**more: str) -> ssl.SSLContext:
        found = settings(security__protocol="SSL", **more)["broker_credentials"].context
        assert isinstance(found, ssl.SSLContext)
        return found

    assert context().check_hostname
    assert not context(ssl__endpoint__identification__algorithm="none").check_hostname
    assert context(enable__ssl__certificate__verification="false").verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("properties", "where"),
    [
        ({"security.protocol": "QUIC"}, "security.protocol"),
        ({"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "GSSAPI"}, "sasl.mechanisms"),
        ({"security.protocol": "SASL_PLAINTEXT"}, "sasl.mechanisms"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/nowhere.pem"}, "ssl"),
        ({"security.protocol": "SSL", "ssl.key.pem": "a secret"}, "ssl.key.pem"),
        ({"sasl.password": "a secret"}, "sasl.password"),
        ({"session.timeout.ms": "a secret"}, "session.timeout.ms"),
        ({"isolation.level": "read_uncommitted"}, "isolation.level"),
        ({"bootstrap.servers": " "}, "bootstrap.servers"),
    ],
)
def test_what_has_no_equal_is_refused_by_name_and_without_its_value(properties: dict[str, str], where: str) -> None:
    with pytest.raises(SettingsError) as refused:
        broker_settings({"bootstrap.servers": "a.example:9092", **properties}, where=HERE)
    assert refused.value.where == f"{HERE}.{where}"
    assert refused.value.hint
    assert "a secret" not in str(refused.value)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    class Nowhere:
        bootstrap_servers = "127.0.0.1:1"
        registry_url = "http://127.0.0.1:1"

    endpoints: Any = Nowhere()
    write_mesh(tmp_path, endpoints, "stage.", {ORDERS: ORDER})
    return load_mesh(tmp_path, environment="cluster")


def test_an_application_is_known_as_the_mesh_s_own_and_keeps_to_itself(mesh: Mesh) -> None:
    app = faust_app(mesh, "vouchers")
    assert app.conf.id == "stage.headrace.faust.vouchers"
    assert not app.conf.web_enabled
    assert not app.conf.worker_redirect_stdouts
    assert app.conf.topic_disable_leader
    assert app.conf.datadir.is_relative_to(mesh.root / ".headrace")
    assert app.conf.consumer_auto_offset_reset == "earliest"
    # A topic that a broker does not know when it comes up would have no worker for five minutes.
    assert app.conf.consumer_metadata_max_age_ms == 5_000
    # The environment says 6 s, and a worker must be missed soon.
    assert app.conf.broker_session_timeout == 6
    assert faust_app(mesh, "vouchers", broker_session_timeout=30.0).conf.broker_session_timeout == 30


@pytest.mark.parametrize("name", ["", "Vouchers", "a.b", "a b", "x" * 64])
def test_a_name_that_no_topic_may_bear_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(UserError, match="is no name of an application"):
        faust_app(mesh, name)


class Group:
    """A group of standby workers, each with an assignor of its own, as the client asks them."""

    def __init__(self) -> None:
        self.members: dict[str, type[OneWorker]] = {}
        self.cluster = ClusterMetadata()
        partitions = [(0, number, 0, [0], [0]) for number in range(3)]
        self.cluster.update_metadata(MetadataResponse_v0([(0, "a.example", 9092)], [(0, "orders", partitions)]))

    def join(self, member: str, assignor: type[OneWorker] | None = None) -> None:
        self.members[member] = assignor or OneWorker.for_one_consumer()

    def working(self) -> dict[str, int]:
        """Assign anew, and return how many partitions each has that has any."""
        told = {member: assignor.metadata(["orders"]) for member, assignor in self.members.items()}
        given = OneWorker.assign(self.cluster, told)
        for member, assignor in self.members.items():
            assignor.on_assignment(given[member])
        return {member: len(found.partitions()) for member, found in given.items() if found.partitions()}


def test_the_worker_that_works_keeps_the_work_whoever_comes() -> None:
    group = Group()
    group.join("m")
    assert group.working() == {"m": 3}
    for newcomer in ("a", "z", "b"):
        group.join(newcomer)
        assert group.working() == {"m": 3}
    del group.members["m"]
    assert group.working() == {"a": 3}
    assert group.working() == {"a": 3}


def test_a_worker_that_was_thrown_out_comes_back_without_a_claim() -> None:
    group = Group()
    group.join("m")
    group.join("x")
    assert group.working() == {"m": 3}
    thrown_out = group.members.pop("m")
    assert group.working() == {"x": 3}
    group.join("a", thrown_out)
    assert group.working() == {"x": 3}


def field(name: str, *aliases: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "string", "aliases": list(aliases), **more}


CHAIN = [[field("a")], [field("b", "a")], [field("b"), field("a", default="new")]]


def decoded(mesh: Mesh, contract: AvroSchema, versions: list[AvroSchema], *events: tuple[int, dict[str, Any]]) -> Any:
    """Return what an agent is given for events, each of a version."""
    product = product_of(contract)
    registry: Any = Shelf(*versions)
    decode = ProductSchema(product, registry, list[Poison]().append).compile(faust_app(mesh, "vouchers"))

    async def values() -> list[Any]:
        found = []
        for version, event in events:
            value = encoded(versions[version - 1], 100 + version, event)
            message = Message(product.topic, 0, 0, 0.0, 0, None, b"k", value, None)
            found.append((await decode(message)).value)
        return found

    return asyncio.run(values())


def test_events_of_all_versions_are_read_along_renames(mesh: Mesh) -> None:
    versions = [schema_of(*fields) for fields in CHAIN]
    events = [(1, {"id": "x", "a": "1"}), (2, {"id": "x", "b": "2"}), (3, {"id": "x", "b": "3", "a": "-"})]
    assert decoded(mesh, versions[0], versions, *events) == [{"id": "x", "a": n} for n in "123"]
    newest = [{"id": "x", "b": "1", "a": "new"}, {"id": "x", "b": "2", "a": "new"}, {"id": "x", "b": "3", "a": "-"}]
    assert decoded(mesh, versions[2], versions, *events) == newest
    # A contract that is ahead of the registry follows behind all versions.
    assert decoded(mesh, versions[2], versions[:2], *events[:2]) == newest[:2]


def test_what_cannot_be_read_ends_the_worker(mesh: Mesh) -> None:
    old, new = schema_of(field("a")), schema_of(field("a"), field("must"))
    with pytest.raises(UserError, match="version 1 cannot be read as the contract has them: must: it is not in them"):
        decoded(mesh, new, [old, new], (1, {"id": "x", "a": "1"}))
