"""What librdkafka's properties mean to Faust, whose client is another one. Pure, but for reading certificates."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import faust
from yarl import URL

from headrace.schemas.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MECHANISMS = frozenset({"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"})
_SECONDS = {
    "session.timeout.ms": "broker_session_timeout",
    "heartbeat.interval.ms": "broker_heartbeat_interval",
    "max.poll.interval.ms": "broker_max_poll_interval",
}
# What tunes librdkafka alone: Faust's client has its own ways of fetching, batching and reconnecting.
_TUNING = (
    "batch.",
    "broker.address.",
    "compression.",
    "connections.",
    "debug",
    "fetch.",
    "linger.",
    "log",
    "message.timeout.",
    "metadata.",
    "queue.",
    "queued.",
    "reconnect.",
    "retry.",
    "socket.",
    "statistics.",
    "topic.metadata.",
)


def broker_settings(kafka: Mapping[str, str], *, where: str) -> dict[str, Any]:
    """Return the settings of ``faust.App`` that mean what these properties mean.

    Properties that only tune librdkafka are left out.

    Args:
        kafka: librdkafka's properties, secrets filled in.
        where: where they stand, for errors.

    Raises:
        SettingsError: if a property has no equal, or a certificate cannot be read. It names the property alone.
    """
    left = dict(kafka)
    settings: dict[str, Any] = {"broker": _brokers(left.pop("bootstrap.servers", ""), where)}
    for name, setting in _SECONDS.items():
        if name in left:
            settings[setting] = _seconds(left.pop(name), f"{where}.{name}")
    if "client.id" in left:
        settings["broker_client_id"] = left.pop("client.id")
    protocol = left.pop("security.protocol", "plaintext").upper()
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise _unmapped("security.protocol", where)
    context = _context(left, where) if protocol.endswith("SSL") else None
    if protocol.startswith("SASL"):
        settings["broker_credentials"] = _sasl(left, context, where)
    elif context is not None:
        settings["broker_credentials"] = faust.SSLCredentials(context)
    for name in left:
        if not name.startswith(_TUNING):
            raise _unmapped(name, where)
    return settings


def _brokers(addresses: str, where: str) -> list[URL]:
    brokers = [URL(f"kafka://{address.strip()}") for address in addresses.split(",") if address.strip()]
    if not brokers:
        raise SettingsError(
            "no broker is named", where=f"{where}.bootstrap.servers", hint="write bootstrap.servers: HOST:PORT"
        )
    return brokers


def _seconds(text: str, where: str) -> float:
    try:
        return int(text) / 1000
    except ValueError:
        raise SettingsError("this is not a number of milliseconds", where=where, hint="such as 6000") from None


def _sasl(left: dict[str, str], context: ssl.SSLContext | None, where: str) -> faust.SASLCredentials:
    given = left.pop("sasl.mechanisms", None), left.pop("sasl.mechanism", None)
    mechanism = given[0] or given[1] or "GSSAPI"
    if mechanism not in _MECHANISMS:
        raise SettingsError(
            f"Faust's client cannot log in with {mechanism}",
            where=f"{where}.sasl.mechanisms",
            hint=f"use {', '.join(sorted(_MECHANISMS))} for this environment",
        )
    return faust.SASLCredentials(
        username=left.pop("sasl.username", None),
        password=left.pop("sasl.password", None),
        ssl_context=context,
        mechanism=mechanism,
    )


def _context(left: dict[str, str], where: str) -> ssl.SSLContext:
    authority, pem = left.pop("ssl.ca.location", None), left.pop("ssl.ca.pem", None)
    certificate, key = left.pop("ssl.certificate.location", None), left.pop("ssl.key.location", None)
    password = left.pop("ssl.key.password", None)
    try:
        context = ssl.create_default_context(cafile=authority, cadata=pem)
        if certificate is not None:
            context.load_cert_chain(certificate, key, password)
    except (OSError, ssl.SSLError, ValueError) as error:
        raise SettingsError(
            f"the certificates cannot be read ({type(error).__name__})",
            where=f"{where}.ssl",
            hint="ssl.ca.location, ssl.certificate.location and ssl.key.location are paths of PEM files",
        ) from None
    context.check_hostname = left.pop("ssl.endpoint.identification.algorithm", "https").lower() != "none"
    if left.pop("enable.ssl.certificate.verification", "true").lower() == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unmapped(name: str, where: str) -> SettingsError:
    return SettingsError(
        f"Faust's client has no equal for {name}",
        where=f"{where}.{name}",
        hint="leave it out of an environment that runs Faust applications, or subscribe with headrace's Subscriber",
    )
