"""The versions of a product's subject, by schema id: those known, and those that the registry got since."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from headrace.schemas.errors import Refusal, SchemaError, UserError
from headrace.schemas.lineage import fold
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pyiceberg.table import Table

    from headrace.schemas.lineage import Lineage
    from headrace.schemas.product import Product

# The newest version of the subject that a table has followed. It never goes back.
VERSION_PROPERTY = "headrace.schema-version"
Registered: TypeAlias = RegisteredSchema | UnreadableSchema

# No registry gives such an id.
NOT_REGISTERED = -1
# So long a schema id stays refused before the registry is asked for it again.
REFUSED_S = 5.0


def followed_version(table: Table) -> int:
    """Return the newest version of the subject that the table has followed; 0: none yet."""
    return int(table.properties.get(VERSION_PROPERTY, "0"))


def lineage_of(versions: Iterable[RegisteredSchema]) -> Lineage:
    """Return what became of fields over versions, in any order."""
    records = {version.version: version.schema.record for version in versions}
    # Masks make columns optional, and none another.
    return fold(sorted(records.items(), key=lambda pair: pair[0]), frozenset())


def contract_version(product: Product, versions: Sequence[RegisteredSchema]) -> RegisteredSchema:
    """Return the version that the contract's schema is; one that comes behind all of them, if it is none yet."""
    own = [version for version in versions if version.schema.record == product.schema.record]
    if own:
        # Of several versions with one schema the first, as `Versions.find` has it.
        return next(version for version in versions if version.id == own[-1].id)
    newest = max((version.version for version in versions), default=0)
    return RegisteredSchema(NOT_REGISTERED, newest + 1, product.subject, product.schema)


class Versions:
    """The versions of a product's subject, by schema id.

    Args:
        product: the product.
        known: the versions known so far.
        ask: returns the subject's versions as the registry has them now.
        probe: asks the registry for an id that is none of them, and raises its `Refusal`.
        clock_s: tells seconds that never go back.

    Attributes:
        lineage: what became of fields over all versions that are known and can be read.
    """

    def __init__(
        self,
        product: Product,
        known: Sequence[Registered],
        ask: Callable[[], Sequence[Registered]],
        probe: Callable[[int], object],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._product = product
        # By number: one schema may be several versions.
        self._known: dict[int, Registered] = {}
        self._by_id: dict[int, Registered] = {}
        self.lineage = lineage_of(())
        self._note(known)
        self._ask = ask
        self._probe = probe
        self._clock_s = clock_s
        self._refusals: dict[int, tuple[float, Refusal]] = {}

    @property
    def all(self) -> Sequence[RegisteredSchema]:
        """All that are known now and can be read, in the order in which they were registered."""
        found = sorted(self._known.items(), key=lambda pair: pair[0])
        return [version for _, version in found if isinstance(version, RegisteredSchema)]

    def reach(self, version: int) -> None:
        """Ask the registry for its versions, if this one would be newer than all that are known.

        Raises:
            UserError: if the subject was deleted and made anew meanwhile.
            Unavailable: if the registry does not answer.
        """
        if version > max(self._known, default=0):
            self._note(self._ask())

    def find(self, schema_id: int) -> Registered | Refusal:
        """Return the version that has this id, or why there is none.

        Of several versions with one schema it is the first that a table follows: a sink takes it for that one too.

        Raises:
            UserError, Unavailable: as `reach`.
        """
        if schema_id in self._by_id:
            return self._by_id[schema_id]
        until_s, refusal = self._refusals.get(schema_id, (0.0, None))
        if refusal is not None and self._clock_s() < until_s:
            return refusal
        self._note(self._ask())
        if schema_id in self._by_id:
            return self._by_id[schema_id]
        try:
            with suppress(SchemaError):
                self._probe(schema_id)
            refusal = Refusal("foreign-schema", f"schema id {schema_id} is no version of {self._product.subject}")
        except Refusal as unknown:
            refusal = unknown
        self._refusals[schema_id] = self._clock_s() + REFUSED_S, refusal
        return refusal

    def _note(self, versions: Sequence[Registered]) -> None:
        if any(each.version in self._known and self._known[each.version].id != each.id for each in versions):
            raise UserError(
                "the subject was deleted in the registry and made anew",
                where=f"subject {self._product.subject}",
                hint="start again: what was read so far is committed, or comes again",
            )
        self._known |= {version.version: version for version in versions}
        if len(self.all) != len(self.lineage.steps):
            self.lineage = lineage_of(self.all)
        followed = [version for version in self.all if not self.lineage.steps[version.version].refused]
        for some in (list(self._known.values()), self.all, followed):
            self._by_id |= {version.id: version for version in reversed(some)}
