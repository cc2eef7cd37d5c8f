"""A product's subject: its compatibility level, and the contract's schema as one of its versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.registered import RegisteredSchema
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.selfserve.resources.verdict import TableNow, judge
from headrace.sinks.hold import hold_of
from headrace.streams.masked import masks_of
from headrace.streams.versions import VERSION_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Domain, Product
    from headrace.schemas.registered import UnreadableSchema
    from headrace.selfserve.resources.clients import Clients
    from headrace.sinks.hold import Hold

__all__ = ["Subject", "SubjectThere", "followed_in", "held_difference"]

# The registry gives an id when it takes a schema; until then it has none.
NO_ID = 0


@dataclass(frozen=True, slots=True)
class SubjectThere:
    """A subject as it is, and what of the product's table has a say in it.

    Attributes:
        own_level: the level that was set for it; None: none was.
        level: the level in force.
        versions: its versions, those deleted softly too, since their events are still in the topic …
        live: … and the numbers of those that are not deleted, with which a new version is compared.
        found: the version that is the contract's schema; None: there is none.
        table: the product's table; None: there is none.
        hold: why the product is held; None: it is not.
    """

    own_level: str | None
    level: str
    versions: tuple[RegisteredSchema | UnreadableSchema, ...]
    live: frozenset[int]
    found: RegisteredSchema | None
    table: TableNow | None = None
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A product's subject as the files want it."""

    domain: Domain
    product: Product
    policy: PiiPolicy

    @property
    def thing(self) -> str:
        """What it is called."""
        return f"subject {self.product.subject}"

    def read(self, clients: Clients) -> SubjectThere:
        """Return the subject as it is."""
        table = clients.table(self.domain, self.product)
        registry, subject = clients.registry, self.product.subject
        own, found = registry.own_compatibility(subject), registry.lookup(subject, self.product.schema)
        return SubjectThere(
            own_level=own,
            level=own or registry.compatibility(subject),
            versions=registry.all_versions(subject),
            live=registry.live(subject),
            found=found,
            table=TableNow(table.metadata, followed_in(table.properties), masks_of(table)) if table else None,
            hold=hold_of(table) if table else None,
        )

    def diff(self, there: SubjectThere) -> tuple[Difference, ...]:
        """Return what differs. Nobody should publish in a version that a held table must not follow yet."""
        if there.found is None and there.hold is not None:
            return (held_difference(self.product, there.hold),)
        return tuple(self._differences(there))

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Set the level, or register the schema.

        Raises:
            UserError: if the registry finds the schema incompatible.
        """
        if difference.cause == "subject-level":
            clients.registry.set_compatibility(self.product.subject, str(difference.new))
        else:
            clients.registry.register(self.product.subject, self.product.schema)

    def planned(self, there: SubjectThere) -> RegisteredSchema | None:
        """Return the version that `apply` would register now; None: none, because it is there, or must not be."""
        if not any(each.cause == "schema-missing" for each in self.diff(there)):
            return None
        return self._next(there)

    def _next(self, there: SubjectThere) -> RegisteredSchema:
        number = max((version.version for version in there.versions), default=0) + 1
        return RegisteredSchema(NO_ID, number, self.product.subject, self.product.schema)

    def _differences(self, there: SubjectThere) -> Iterator[Difference]:
        level = str(self.product.contract.compatibility)
        if there.own_level != level:
            # An equal level of the registry's own is set all the same: somebody else may change it.
            yield Difference(Kind.CHANGE, "subject-level", self.thing, "level", there.own_level, level)
        if there.found is None:
            yield from self._schema(there)

    def _schema(self, there: SubjectThere) -> Iterator[Difference]:
        judgement = judge(self._next(there), there.versions, there.live, self.product, self.policy, there.table)
        old = f"version {there.versions[-1].version}" if there.versions else None
        new = f"version {self._next(there).version}"
        if judgement.refused:
            yield Difference(
                Kind.REFUSED,
                "schema-refused",
                self.thing,
                "schema",
                old,
                new,
                "the schema is not compatible with the versions before it, so it is not registered",
                f"correct {self.product.name}'s schema.avsc, then headrace check --against live",
                judgement.refused,
            )
            return
        yield Difference(Kind.CREATE, "schema-missing", self.thing, "schema", old, new)
        for warning in judgement.warnings:
            yield Difference(Kind.WARNING, "compatibility", self.thing, "schema", why=warning)


def held_difference(product: Product, hold: Hold) -> Difference:
    """Return what a person is told of a change that an operator's hold keeps from being made."""
    return Difference(
        Kind.HELD,
        "held",
        f"product {product.name}",
        why=str(hold),
        next=f"headrace release {product.name}, then headrace apply",
    )


def followed_in(properties: Mapping[str, str]) -> int:
    """Return the newest version that a table has followed; what is no number there counts as none."""
    text = properties.get(VERSION_PROPERTY, "")
    return int(text) if text.isascii() and text.isdecimal() else 0
