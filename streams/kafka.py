"""Kafka's client, behind one seam: clients that log where Python logs, and their errors in headrace's tree.

librdkafka retries by itself and tells of a wrong password only on the side (``error_cb``); a request then ends in a
bare time-out. `Problems` keeps what was said there, so that the error a person sees names the cause.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer, KafkaException, Producer

from headrace.schemas.errors import Bug, HeadraceError, NotApplied, SettingsError, Unavailable, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import KafkaError

# librdkafka's own lines. The null handler keeps them off the terminal of a program that has not set up logging.
LOGGER = logging.getLogger("headrace.librdkafka")
LOGGER.addHandler(logging.NullHandler())

# Measured: a message costs 230 ns if 500 are taken at a time and let go at once, 870 ns if 65,000 are held together,
# because they fall out of the processor's cache.
CONSUME_ROWS = 500
# What librdkafka retries by itself and tells a consumer only as news.
NEWS = frozenset({"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "_MSG_TIMED_OUT"})

UP_HINT = "start it (embedded: headrace up) or correct its address in mesh.yaml"
APPLY_HINT = "headrace apply"

# Errors by the name of their code (librdkafka's own start with an underscore). What is not named here is waited for.
_CREDENTIALS = frozenset(
    {"_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE"}
)
_RIGHTS = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "CLUSTER_AUTHORIZATION_FAILED",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
    }
)
UNKNOWN_TOPIC = frozenset({"UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
_FENCED = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "FENCED_INSTANCE_ID"})
_REFUSED = frozenset(
    {
        "MSG_SIZE_TOO_LARGE",
        "RECORD_LIST_TOO_LARGE",
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "POLICY_VIOLATION",
        "INVALID_CONFIG",
        "INVALID_PARTITIONS",
        "INVALID_REPLICATION_FACTOR",
        "INVALID_TRANSACTION_TIMEOUT",
        "TOPIC_EXCEPTION",
        "UNSUPPORTED_VERSION",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
        "_UNSUPPORTED_FEATURE",
    }
)
# Calls in a wrong order or with wrong arguments: only our own code can cause them.
_OURS = frozenset(
    {
        "_INVALID_ARG",
        "_INVALID_TYPE",
        "_STATE",
        "_CONFLICT",
        "_DESTROY",
        "_NOT_CONFIGURED",
        "_NOT_IMPLEMENTED",
        "_EXISTING_SUBSCRIPTION",
        "INVALID_TXN_STATE",
        "INVALID_REQUEST",
    }
)


_Client = TypeVar("_Client", Consumer, Producer)


def kafka_error(error: KafkaException | KafkaError, *, where: str) -> HeadraceError:
    """Map a foreign error to the tree; what is neither a person's nor our own mistake is `Unavailable`.

    Args:
        error: what confluent-kafka raised or handed to a callback.
        where: the topic, or the broker's address.
    """
    cause: KafkaError = error.args[0] if isinstance(error, KafkaException) else error
    code, text = cause.name(), f"{cause.str()} [{cause.name()}]"
    if code in _CREDENTIALS:
        return SettingsError(
            f"the broker refuses the connection: {text}",
            where=where,
            hint="correct the Kafka credentials of this environment in mesh.yaml",
        )
    if code in _RIGHTS:
        return UserError(f"the right is missing: {text}", where=where, hint="ask the platform team for the ACL")
    if code in UNKNOWN_TOPIC:
        return NotApplied("the topic does not exist", where=where, hint=APPLY_HINT)
    if code == "FENCED_INSTANCE_ID":
        return UserError(
            "another worker has joined with the same instance id and has taken over",
            where=where,
            hint="give each worker an id of its own with --instance-id, such as its pod's name; then start it again",
        )
    if code in _FENCED:
        return UserError(
            "another process does the same work and has taken over", where=where, hint="let it finish, or stop it first"
        )
    if code in _REFUSED:
        return UserError(f"the broker refuses this: {text}", where=where)
    if code in _OURS:
        return Bug(f"Kafka's client was used wrongly: {text}", where=where)
    return Unavailable(f"Kafka does not answer: {text}", where=where, hint=UP_HINT)


class Problems:
    """What a client reports on the side; give it as ``error_cb``. ``last`` is the cause that was reported last."""

    def __init__(self) -> None:
        self.last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Note an error; called by librdkafka while the client is polled."""
        LOGGER.info("%s", error)
        if error.name() != "_ALL_BROKERS_DOWN":  # a sum of the others, without a cause
            self.last = error

    def error(self, error: KafkaException | KafkaError, *, where: str) -> HeadraceError:
        """Map an error like `kafka_error`; a bare time-out is told by the cause that was reported on the side."""
        mapped = kafka_error(error, where=where)
        if isinstance(mapped, Unavailable) and self.last is not None:
            return kafka_error(self.last, where=where)
        return mapped


def client_config(base: Mapping[str, str], problems: Problems, **properties: object) -> dict[str, Any]:
    """Return a client's configuration: the environment's properties, then ours (dots written as underscores)."""
    ours = {name.replace("_", "."): value for name, value in properties.items()}
    return {**base, **ours, "error_cb": problems, "logger": LOGGER}


def producer_config(base: Mapping[str, str], problems: Problems, **properties: object) -> dict[str, Any]:
    """Return the configuration of a producer whose events are acknowledged by all replicas, in order, once.

    The partitioner is Java's, so that every client puts a key into the same partition; null keys spread.
    """
    defaults: dict[str, object] = {
        "acks": "all",
        "enable_idempotence": True,
        "partitioner": "murmur2_random",
        "compression_type": "lz4",
        # Idle for 20 ms at most: batches fill up under load, and a single event is still fast.
        "linger_ms": 20,
    }
    return client_config(base, problems, **{**defaults, **properties})


def open_producer(config: Mapping[str, Any]) -> Producer:
    """Open a producer.

    Raises:
        SettingsError: if a property is unknown or has a wrong value.
    """
    return _opened(Producer, config)


def open_consumer(config: Mapping[str, Any]) -> Consumer:
    """Open a consumer.

    Raises:
        SettingsError: if a property is unknown or has a wrong value.
    """
    return _opened(Consumer, config)


def _opened(client: Callable[[dict[str, Any]], _Client], config: Mapping[str, Any]) -> _Client:
    try:
        return client(dict(config))
    except KafkaException as error:
        raise settings_error(error, config) from None


def cause_of(client: Producer, error: KafkaException) -> KafkaException:
    """Return what is behind a producer's error: the client tells the cause of a fatal one only to the next poll."""
    try:
        client.poll(0)  # serves error_cb, too
    except KafkaException as cause:
        return cause
    return error


def settings_error(error: KafkaException, config: Mapping[str, Any]) -> SettingsError:
    """Map the refusal of a client's configuration: librdkafka names the property, and values only of enumerations."""
    return SettingsError(
        f"Kafka's settings are refused: {error.args[0].str()}",
        where=str(config.get("bootstrap.servers", "")),
        hint="correct the Kafka properties of this environment in mesh.yaml",
    )
