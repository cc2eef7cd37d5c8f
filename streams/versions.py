"""The versions of a product's subject, by schema id: those known, and those that the registry got since."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.schemas.errors import Refusal, SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema

# So long a schema id stays refused before the registry is asked for it again.
REFUSED_S = 5.0


class Versions:
    """The versions of a product's subject, by schema id.

    Args:
        product: the product.
        ask: returns the subject's versions as the registry has them now.
        known: the versions known so far.
        probe: asks the registry for an id that is none of them, and raises its `Refusal`.
        clock_s: tells seconds that never go back.
    """

    def __init__(
        self,
        product: Product,
        known: Sequence[RegisteredSchema],
        ask: Callable[[], Sequence[RegisteredSchema]],
        probe: Callable[[int], object],
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._product = product
        self._known = {version.id: version for version in known}
        self._ask = ask
        self._probe = probe
        self._clock_s = clock_s
        self._refusals: dict[int, tuple[float, Refusal]] = {}

    @property
    def all(self) -> Sequence[RegisteredSchema]:
        """All that are known now, in the order in which they were registered."""
        return sorted(self._known.values(), key=lambda version: version.version)

    def find(self, schema_id: int) -> RegisteredSchema | Refusal:
        """Return the version that has this id, or why there is none.

        Raises:
            SchemaError: if a version is no Avro, or Avro that headrace cannot carry.
            Unavailable: if the registry does not answer.
        """
        if schema_id in self._known:
            return self._known[schema_id]
        until_s, refusal = self._refusals.get(schema_id, (0.0, None))
        if refusal is not None and self._clock_s() < until_s:
            return refusal
        self._known |= {version.id: version for version in self._ask()}
        if schema_id in self._known:
            return self._known[schema_id]
        try:
            with suppress(SchemaError):
                self._probe(schema_id)
            refusal = Refusal("foreign-schema", f"schema id {schema_id} is no version of {self._product.subject}")
        except Refusal as unknown:
            refusal = unknown
        self._refusals[schema_id] = self._clock_s() + REFUSED_S, refusal
        return refusal

    def known(self, schema_id: int) -> RegisteredSchema | None:
        """Return the version that has this id, None if there is none."""
        found = self.find(schema_id)
        return None if isinstance(found, Refusal) else found
