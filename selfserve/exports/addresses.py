"""Where an environment's servers are, as a document for others may say it: addresses, never a secret. Pure.

Placeholders stay as ``mesh.yaml`` writes them. What an address may hold besides the place (a user, a password, a query)
is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.environment import BOOTSTRAP

if TYPE_CHECKING:
    from headrace.schemas.environment import Environment
    from headrace.schemas.product import Domain

__all__ = ["Addresses", "RestCatalog", "addresses_of"]

# A placeholder may hold a path, and with it slashes.
_USER_INFO = re.compile(r"(?<=://)(?:\$\{[^{}]*\}|[^/@])*@")
_QUERY = re.compile(r"[?#].*")
_PLACE = re.compile(r"https?://[^\s{}$]+")


@dataclass(frozen=True, slots=True)
class RestCatalog:
    """An Iceberg REST catalog, and the warehouse that it keeps a domain's tables in."""

    url: str
    warehouse: str


@dataclass(frozen=True, slots=True)
class Addresses:
    """The servers of an environment that has servers of its own.

    Attributes:
        environment: its name.
        brokers: Kafka's bootstrap servers, ``host:port`` each.
        encrypted: whether clients speak TLS with them.
        mechanism: how clients prove who they are, by its SASL name; None: they need not.
        registry: the schema registry's address.
        catalog: the catalog of the domain's tables; None: it is none that others can reach by REST.
    """

    environment: str
    brokers: tuple[str, ...]
    encrypted: bool
    mechanism: str | None
    registry: str
    catalog: RestCatalog | None


def addresses_of(environment: Environment, domain: Domain) -> Addresses | None:
    """Return the addresses of a domain's servers; None where headrace runs the servers, on ports that change."""
    if environment.stack != "external":
        return None
    settings = environment.settings
    protocol = str(settings.kafka.get("security.protocol", "plaintext")).upper()
    mechanism = settings.kafka.get("sasl.mechanisms", settings.kafka.get("sasl.mechanism", "GSSAPI"))
    return Addresses(
        environment=environment.name,
        brokers=tuple(each.strip() for each in str(settings.kafka[BOOTSTRAP]).split(",") if each.strip()),
        encrypted=protocol.endswith("SSL"),
        mechanism=str(mechanism).upper() if protocol.startswith("SASL") else None,
        registry=_bare(str(settings.registry["url"])),
        catalog=_catalog(environment, domain),
    )


def _catalog(environment: Environment, domain: Domain) -> RestCatalog | None:
    catalog = environment.settings.catalog
    url, warehouse = (
        str(catalog.get(key, "")).replace("{domain}", domain.name).replace("{storage}", domain.storage)
        for key in ("uri", "warehouse")
    )
    rest = catalog.get("type", "rest") == "rest" and _PLACE.fullmatch(_bare(url))
    return RestCatalog(_bare(url), _bare(warehouse)) if rest else None


def _bare(address: str) -> str:
    return _QUERY.sub("", _USER_INFO.sub("", address))
