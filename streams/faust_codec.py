"""Faust applications on a mesh: an application that knows the mesh's broker, and topics that know a product's codec.

What Faust 0.15 does by itself, and what is changed here so that an agent is given every event at least once:

- It reads uncommitted records. Publishers of a mesh use transactions, so an aborted event would be an event: here it
  reads committed ones.
- It acknowledges an event when the agent's loop ends, by an exception too, and its default supervisor then starts the
  agent anew behind it: here an event is acknowledged when the agent asks for the next one, and an exception ends the
  worker, so that whoever starts it again is given the event again.
- With several agents at work side by side it commits behind an event that is not acknowledged yet, and where offsets
  have gaps (every transaction leaves one) it counts the event behind a gap as handled when it arrives: here a position
  is committed when everything before it was acknowledged.
- An event that cannot be decoded kills the agent: here it is told to the caller, or logged and counted, and skipped.

Offsets are committed every 2.8 s, behind whatever agents have sent by then: an agent is given events again after a
crash, and publishes through `headrace.producers.once.OncePublisher`. Faust's own tables and ``topic.send`` are not made
safer: what the broker refuses in the background is logged by Faust, and the event behind it committed. Faust's
``exactly_once`` is not (it doubled events when it was killed). State is best restored from products themselves.
"""

from __future__ import annotations

import asyncio
import logging
import re
import struct
import tempfile
from typing import TYPE_CHECKING, Any

import faust
from faust.exceptions import ValueDecodeError
from mode.supervisors import CrashingSupervisor

from headrace.schemas.errors import Refusal, Unavailable, UserError
from headrace.schemas.registered import UnreadableSchema
from headrace.schemas.registry import Registry
from headrace.streams.admin import Admin
from headrace.streams.decode import HEADER_BYTES, MAGIC
from headrace.streams.faust_broker import broker_settings
from headrace.streams.faust_worker import MeshApp, SafeStream
from headrace.streams.naming import Naming
from headrace.streams.pinned import NO_SCHEMA_ID, NULL_VALUE
from headrace.streams.portions import Poison
from headrace.streams.relations import faults
from headrace.streams.values import EventReader
from headrace.streams.versions import Versions, contract_version, lineage_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from faust.types import TopicT

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.versions import Registered

LOGGER = logging.getLogger("headrace.faust")
# Measured: with these a worker that was killed is missed after 6 s, the broker's lowest default bound; with Faust's own
# it takes a minute.
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 2.0
REQUEST_TIMEOUT_S = 20.0
# A broker that has just come up may not know a topic yet, and then nobody is given its partitions; by default the
# client asks again after five minutes.
METADATA_MAX_AGE_S = 5.0
_REGISTRY_RETRY_S = 1.0
_HEADER = struct.Struct(">bI")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def faust_app(mesh: Mesh, name: str, *, standby: bool = False, **options: Any) -> faust.App:
    """Return a Faust application on the mesh's broker. Start it with ``faust.Worker`` or ``await app.start()``.

    Its id, which is its consumer group and begins the names of its own topics, is ``headrace.faust.<name>`` behind the
    environment's topic prefix. It opens no port, sets up no logging, makes no topic of its own unless it has tables,
    and keeps its files in the mesh's ``.headrace``.

    Args:
        mesh: the mesh.
        name: the application's name: lower-case letters, digits, ``_`` and ``-``.
        standby: one worker is given all partitions and keeps them while it lives; every other one waits to take over.
            For an application whose agents share state in memory. Not for one with tables. Whenever a worker comes
            or goes, the group pauses, and ``on_partitions_assigned`` is sent again to all: to the one that works with
            all partitions, to the others with none.
        options: settings of ``faust.App`` that take the place of these.

    Raises:
        UserError: if this is no name.
        SettingsError: if the environment's Kafka properties hold one that Faust's client has no equal for.
        Unavailable: if the environment's own stack is not up.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of an application", hint="use lower-case letters, digits, _ and -")
    environment = mesh.environment
    settings: dict[str, Any] = {
        "broker_session_timeout": SESSION_TIMEOUT_S,
        "broker_heartbeat_interval": HEARTBEAT_S,
        "broker_request_timeout": REQUEST_TIMEOUT_S,
        **broker_settings(environment.kafka_config(), where=f"mesh.yaml: environments.{environment.name}.kafka"),
        "consumer_auto_offset_reset": "earliest",
        "consumer_metadata_max_age_ms": int(METADATA_MAX_AGE_S * 1000),
        "datadir": _folder(environment.state),
        "web_enabled": False,
        "topic_disable_leader": True,
        "worker_redirect_stdouts": False,
        "agent_supervisor": CrashingSupervisor,
        "Stream": SafeStream,
        "Topic": _Topic,
    }
    app = MeshApp(f"{environment.topic_prefix}headrace.faust.{name}", **{**settings, **options})
    app.standby = standby
    return app


def _folder(state: Path) -> str:
    """Return the folder of the application's files; a temporary one where the mesh's folder cannot be written."""
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError:
        return tempfile.mkdtemp(prefix="headrace-faust-")
    return str(state / "faust")


def faust_topic(
    app: faust.App, mesh: Mesh, product: str, *, on_poison: Callable[[Poison], None] | None = None
) -> TopicT:
    """Return a product's topic for an application: agents are given its events as dicts, keys as bytes.

    Events of every version of the product's subject are read as the version of the mesh's contract: fields are followed
    through renames by alias, those that it does not have are left out, defaults fill those that an event lacks. Values
    are those that a `Subscriber` gives: datetime with UTC, date, Decimal, UUID, bytes. PII is not masked. What a
    subscriber refuses as poison is poison here, and an event of a version that cannot be read as the contract's ends
    the worker with a `UserError`, and comes again.

    Each event is decoded by itself, in some tens of microseconds, because Faust hands them over one at a time. A
    schema id that is new is looked up in a thread, and the loop goes on.

    Args:
        app: the application, of `faust_app`.
        mesh: the mesh.
        product: the product's name.
        on_poison: is told of a message that is no event; it may hold PII. What it raises ends the worker, and the
            message comes again. By default it is logged without its content. ``topic.schema.refused`` counts them.

    Raises:
        UserError: if the mesh has no such product.
        NotApplied: if its topic does not exist: Faust would wait for it for ever, and say nothing.
        SettingsError: if the settings of broker or registry are refused.
        Unavailable: if the broker does not answer.
    """
    found = mesh.product(product)
    Admin(mesh.environment.kafka_config()).topic(found.topic)
    registry = Registry(mesh.environment.registry_config())
    schema = ProductSchema(found, registry, on_poison or _log_poison)
    return app.topic(found.topic, schema=schema, partitions=None)


class ProductSchema(faust.Schema[Any, Any]):
    """A product's codec for Faust. ``refused`` counts the messages that were no events."""

    def __init__(self, product: Product, registry: Registry, on_poison: Callable[[Poison], None]) -> None:
        super().__init__(key_serializer="raw")
        self.refused = 0
        self._product = product
        self._on_poison = on_poison
        self._versions = Versions(product, (), lambda: registry.all_versions(product.subject), registry.schema)
        self._readers: dict[int, EventReader] = {}

    def compile(self, app: Any, **handlers: Any) -> Any:  # noqa: ARG002 - what Faust's own handlers do is not wanted
        """Return the function that makes an event of a message; called by Faust."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:  # noqa: ARG001 - part of Faust's interface
            try:
                value = await self._value(message.value)
            except Refusal as refusal:
                self.refused += 1
                schema_id = _schema_id(message.value)
                self._on_poison(
                    Poison(
                        message.partition,
                        message.offset,
                        refusal.reason,
                        refusal.what,
                        schema_id,
                        message.key,
                        message.value,
                    )
                )
                # Faust acknowledges the message and calls the topic's handler.
                raise ValueDecodeError(refusal.what) from None
            return app.create_event(message.key, value, message.headers, message)

        return decode

    async def _value(self, data: bytes | None) -> dict[str, Any]:
        schema_id = _schema_id(data)
        if data is None:
            raise Refusal(NULL_VALUE, "the message has no value")
        if schema_id is None:
            raise Refusal(NO_SCHEMA_ID, "the value does not begin with a schema id")
        if schema_id not in self._readers:
            self._readers[schema_id] = self._reader(await self._look_up(schema_id))
        return self._readers[schema_id].read(data)

    def _reader(self, version: Registered) -> EventReader:
        """Return what reads events of a version; raises UserError if nothing can read them as the contract's."""
        if isinstance(version, UnreadableSchema):
            raise self._unreadable(version, version.what, "start it behind them")
        own = contract_version(self._product, self._versions.all)
        names = Naming(lineage_of([*self._versions.all, own]), own).in_event(version)
        found = faults(version, own, names)
        if found:
            hint = "bring this mesh's folder up to date, and start the application again"
            raise self._unreadable(version, ": ".join(found[0]), hint)
        return EventReader(version.schema, version.id, self._product.schema, names)

    def _unreadable(self, version: Registered, why: str, hint: str) -> UserError:
        what = f"events of version {version.version} cannot be read as the contract has them: {why}"
        return UserError(what, where=f"subject {self._product.subject}", hint=hint)

    async def _look_up(self, schema_id: int) -> Registered:
        """Return the version behind an id; waits for the registry as long as it does not answer."""
        told = False
        while True:
            try:
                found = await asyncio.to_thread(self._versions.find, schema_id)
            except Unavailable as error:
                if not told:
                    LOGGER.warning("waiting for the schema registry: %s", error)
                told = True
                await asyncio.sleep(_REGISTRY_RETRY_S)
            else:
                if isinstance(found, Refusal):
                    raise found
                return found


def _schema_id(data: bytes | None) -> int | None:
    if data is None or len(data) < HEADER_BYTES:
        return None
    magic, schema_id = _HEADER.unpack_from(data)
    return int(schema_id) if magic == MAGIC else None


def _log_poison(poison: Poison) -> None:
    LOGGER.warning(
        "skipped a message that is no event: partition %d offset %d: %s (%s)",
        poison.partition,
        poison.offset,
        poison.what,
        poison.reason,
    )


class _Topic(faust.Topic):
    """A topic on which poison is no error: `ProductSchema` has told of it."""

    async def on_value_decode_error(self, exc: Exception, message: Any) -> None:
        if not isinstance(self.schema, ProductSchema):
            await super().on_value_decode_error(exc, message)
