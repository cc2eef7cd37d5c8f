"""The one tree of errors. Every error a person sees says what, where, and what to do next.

::

    HeadraceError
    ├── UserError            a person's mistake: contract, settings, command
    │   ├── UsageError       a command line that contradicts itself, or says what cannot be understood
    │   ├── MeshError        faults of a mesh folder, all of them in one run
    │   ├── SchemaError      an Avro schema that does not parse or that headrace cannot carry
    │   ├── SettingsError    an environment, a secret, a file that settings name
    │   ├── EventError       an event that its contract refuses (names the field, never the value)
    │   ├── NotApplied       the mesh's files promise what was never applied
    │   └── QueryError       a query that DuckDB refuses
    │       └── NoSuchName   … because it does not know a name in it
    ├── Refusal              one record cannot become a row: it goes to the dead-letter topic
    ├── Stale                another worker has taken over: drop the batch, read the ledger again
    ├── Unavailable          a server or a disk does not answer: wait and try again
    │   └── Held             … because an operator holds the product
    ├── ProductStopped       only an operator can decide how this product goes on
    │   ├── DamagedLedger    … because its ledger cannot be read, or contradicts the rows
    │   └── LostFile         … because a file of its table's metadata is gone
    └── Bug                  an invariant of headrace does not hold

An unknown outcome (a commit was sent and nothing certain came back) is no error of its own: whoever sent it asks, as
``sinks.landing`` does, and raises what the answer says.

Foreign exceptions are mapped to this tree at one seam for each library: ``schemas.registry`` (schema registry),
``schemas.catalog`` (Iceberg catalog and storage), ``streams.kafka`` (confluent-kafka), ``governance.duck`` (DuckDB).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class HeadraceError(Exception):
    """Root of the tree.

    Args:
        what: what is wrong, in one sentence, without any value of an event and without secrets.
        where: the place: ``file:line``, a path inside a file, a product, a server's address.
        hint: the next step for the person who reads it.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text


class UserError(HeadraceError):
    """A person's mistake: it is shown without a traceback and nothing was done."""


class UsageError(UserError):
    """A command line that contradicts itself, leaves out what is needed, or says what cannot be understood."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of a mesh folder.

    Attributes:
        where: ``path[:line[:column]]``, the path relative to the mesh.
        what: what is wrong.
        hint: what to write instead.
    """

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class MeshError(UserError):
    """Faults of a mesh folder. ``faults`` holds every one that a single run finds, in the order of their places."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=_place))
        count = len(self.faults)
        super().__init__(
            "\n".join([f"the mesh has {count} fault{'s' if count != 1 else ''}:", *map(str, self.faults)]),
        )


def _place(fault: Fault) -> tuple[list[str | int], str]:
    """Return what puts line 2 before line 19."""
    parts = re.split(r"(\d+)", fault.where)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], fault.what


class SchemaError(UserError):
    """An Avro schema that does not parse, or that no table can hold. ``path`` is the place inside the schema."""

    def __init__(self, what: str, *, path: str = "", where: str | None = None, hint: str | None = None) -> None:
        super().__init__(f"{path}: {what}" if path else what, where=where, hint=hint)
        self.path = path


class SettingsError(UserError):
    """An environment or a secret is missing or contradicts itself."""


class EventError(UserError):
    """An event that its schema refuses. ``field`` is the path (``contact.email``); the value is never shown."""

    def __init__(self, what: str, *, field: str, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where=where, hint=hint)
        self.field = field


class NotApplied(UserError):
    """A topic, subject or table that the contract promises does not exist yet: ``headrace apply`` makes it."""


class QueryError(UserError):
    """A query that DuckDB refuses: the text is DuckDB's own, with its position marks."""


class NoSuchName(QueryError):
    """A query that names a table, column or function that is not there."""


class Refusal(HeadraceError):
    """One record that cannot become a row.

    Args:
        reason: a stable kebab-case code, written to the dead letter (``null-value``, ``unknown-schema`` …).
        what: the reason for people, without any value of the event.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason


class Stale(HeadraceError):
    """The table's ledger has moved past this worker's batch: ``expected`` and ``committed`` are shown side by side."""

    def __init__(self, expected: str, committed: str, *, where: str | None = None) -> None:
        super().__init__(f"stale: expected {expected}, committed {committed}", where=where)
        self.expected = expected
        self.committed = committed


class Unavailable(HeadraceError):
    """A server or a disk does not answer now. Nothing was decided; the same call may be made again."""


class Held(Unavailable):
    """An operator holds the product: nothing is committed to its table until it is released."""


class ProductStopped(HeadraceError):
    """A product that only an operator can let go on (a gap, a topic made anew, a ledger that contradicts its table)."""


class DamagedLedger(ProductStopped):
    """A table's ledger that cannot be read, or that contradicts the table's rows: it can be repaired."""


class LostFile(ProductStopped):
    """A file of a table's metadata that is gone; on an old handle that is no damage: ``schemas.catalog.on_handle``."""


class Bug(HeadraceError):
    """An invariant of headrace does not hold. Always worth a report."""
