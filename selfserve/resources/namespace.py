"""A domain's namespace in its catalog, and where its tables should lie."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.catalog import make_namespace, namespace_properties
from headrace.selfserve.resources.difference import Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.environment import Environment
    from headrace.schemas.product import Domain
    from headrace.selfserve.resources.clients import Clients

__all__ = ["Namespace", "lies_in", "same_place"]

_LOCATION = "location"


@dataclass(frozen=True, slots=True)
class Namespace:
    """A domain's namespace.

    Attributes:
        domain: the domain.
        location: where the environment has its tables lie; None: the catalog's server decides.
    """

    domain: Domain
    location: str | None

    @classmethod
    def of(cls, environment: Environment, domain: Domain) -> Namespace:
        """Return the namespace of a domain in an environment.

        Raises:
            SettingsError: if a secret of the catalog is missing.
        """
        warehouse = environment.catalog_properties(domain).get("warehouse", "")
        # Without a scheme it is the name that a server knows a catalog by.
        return cls(domain, f"{warehouse.rstrip('/')}/{domain.name}" if "://" in warehouse else None)

    def read(self, clients: Clients) -> Mapping[str, str] | None:
        """Return the namespace's properties; None: there is none."""
        return namespace_properties(clients.catalog(self.domain), self.domain)

    def diff(self, there: Mapping[str, str] | None) -> tuple[Difference, ...]:
        """Return what differs."""
        thing = f"namespace {self.domain.name}"
        if there is None:
            details = (f"location {self.location}",) if self.location else ()
            return (Difference(Kind.CREATE, "namespace-missing", thing, details=details),)
        found = there.get(_LOCATION)
        if self.location is None or found is None or same_place(found, self.location):
            return ()
        return (
            Difference(
                Kind.NEVER,
                "location-moved",
                thing,
                _LOCATION,
                found,
                self.location,
                "tables would lie in two places",
                "set the namespace's location back in its catalog, or correct storage in domain.yaml or the catalog's "
                "warehouse in mesh.yaml",
            ),
        )

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Make the namespace; nothing else is ever done to it."""
        if difference.kind is Kind.CREATE:
            make_namespace(clients.catalog(self.domain), self.domain, self.location)

    def base(self, there: Mapping[str, str] | None) -> str | None:
        """Return where its tables should lie; None: not known."""
        return self.location or (there or {}).get(_LOCATION)


def same_place(one: str, other: str) -> bool:
    """Tell whether two addresses are the same place: one writes ``file:/x/``, another ``file:///x``."""
    return _plain(one) == _plain(other)


def lies_in(place: str, base: str) -> bool:
    """Tell whether a place is another, or lies in it."""
    return f"{_plain(place)}/".startswith(f"{_plain(base)}/")


def _plain(place: str) -> str:
    without = re.sub(r"^file:/+", "/", place)
    # Hadoop's names of the one kind of storage that pyiceberg calls s3.
    return re.sub(r"^s3[an]://", "s3://", without).rstrip("/")
