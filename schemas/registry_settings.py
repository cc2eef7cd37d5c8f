"""How the schema registry's client is set up: addresses, credentials, and how long it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from headrace.schemas.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "TIMEOUT_S", "client_properties"]

# The client waits for ever by default. A registry answers in milliseconds, also when it is busy.
TIMEOUT_S = 10.0
# Two more attempts within about a second carry a request over a load balancer's switch; a longer outage is the caller's
# to wait for, since only the caller can say what it waits for.
DEFAULTS: Mapping[str, float] = {
    "timeout": TIMEOUT_S,
    "max.retries": 2,
    "retries.wait.ms": 200,
    "retries.max.wait.ms": 1_000,
}
_NUMBERS = frozenset(DEFAULTS)


def client_properties(config: Mapping[str, str]) -> tuple[dict[str, object], str]:
    """Return the client's properties and the address to show: credentials in an address become a property.

    Raises:
        SettingsError: if an address is none of HTTP, or a number is none.
    """
    given = dict(config)
    addresses, user_info = [], None
    for url in given.get("url", "").split(","):
        parts = urlsplit(url.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                "the schema registry's url is not an http or https address",
                hint="write url: http://HOST:PORT in the environment's registry part of mesh.yaml",
            )
        if parts.username is not None:
            user_info = user_info or f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        addresses.append(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))
    given["url"] = address = ",".join(addresses)
    if user_info is not None:
        given.setdefault("basic.auth.user.info", user_info)
    numbers: dict[str, object] = {**DEFAULTS}
    for name in _NUMBERS & given.keys():
        try:
            numbers[name] = float(given[name])
        except ValueError:
            raise SettingsError(f"the schema registry's {name} is not a number", where=address) from None
    return {**given, **numbers}, address
