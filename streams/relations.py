"""What other versions are to the one that events are read as: names of fields, strange symbols, what is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
from headrace.schemas.types import unsupported
from headrace.streams.naming import Naming
from headrace.streams.resolution import has_strange_symbols, unreadable

if TYPE_CHECKING:
    from headrace.schemas.product import Product
    from headrace.streams.naming import Names
    from headrace.streams.versions import Registered, Versions


class Relations:
    """What other versions of a subject are to a pinned one.

    Each is looked at once: what became of fields up to a version does not change with versions that come later.

    Args:
        product: the product.
        pinned: the version that events are read as.
        versions: all versions.
    """

    def __init__(self, product: Product, pinned: RegisteredSchema, versions: Versions) -> None:
        self._product = product
        self._pinned = pinned
        self._versions = versions
        # By schema id; None stands for one that the registry has lost.
        self._in_events: dict[int, Names] = {}
        self._in_rows: dict[tuple[int | None, int], Names] = {}
        self._strange: dict[int, bool] = {}
        self._judged: dict[int, RegisteredSchema | UserError] = {}

    def columns(self, held: int) -> frozenset[str]:
        """Return the columns of the table that are read, by their names there.

        Args:
            held: the newest version that the table has followed.

        Raises:
            UserError: if the subject was deleted and made anew meanwhile.
            Unavailable: if the registry does not answer.
        """
        self._versions.reach(held)
        return self._naming().columns(held)

    def in_event(self, written: RegisteredSchema) -> Names:
        """Return where the pinned version's fields stand in events of a version that is known."""
        if written.id not in self._in_events:
            self._in_events[written.id] = self._naming().in_event(written)
        return self._in_events[written.id]

    def in_row(self, written: RegisteredSchema | None, held: int) -> Names:
        """Return where they stand in rows of the table. See `Naming.in_row`."""
        key = written.id if written is not None else None, held
        if key not in self._in_rows:
            self._in_rows[key] = self._naming().in_row(written, held)
        return self._in_rows[key]

    def has_strange_symbols(self, written: RegisteredSchema) -> bool:
        """Tell whether a version has symbols, at any depth, that the pinned one does not have."""
        if written.id not in self._strange:
            records = written.schema.record, self._pinned.schema.record
            self._strange[written.id] = has_strange_symbols(*records, self.in_event(written))
        return self._strange[written.id]

    def of(self, schema_id: int) -> RegisteredSchema | Refusal | UserError:
        """Return the version that has this id, if its events can be read; else why not.

        Returns:
            The version; a `Refusal` if the id is no version's; a `UserError` if it is one's that cannot be read as the
            pinned version.

        Raises:
            UserError, Unavailable: as `columns`.
        """
        found = self._versions.find(schema_id)
        if isinstance(found, Refusal):
            return found
        if schema_id not in self._judged:
            self._judged[schema_id] = self._judge(found)
        return self._judged[schema_id]

    def _judge(self, written: Registered) -> RegisteredSchema | UserError:
        if isinstance(written, UnreadableSchema):
            return self._unreadable(written.version, written.what, "start behind them")
        found = faults(written, self._pinned, self.in_event(written))
        if not found:
            return written
        hint = f"pin a version that reads them, such as {written.version}, or start behind them"
        return self._unreadable(written.version, ": ".join(found[0]), hint)

    def _unreadable(self, version: int, why: str, hint: str) -> UserError:
        what = f"events of version {version} cannot be read as version {self._pinned.version}: {why}"
        return UserError(what, where=f"subject {self._product.subject}", hint=hint)

    def _naming(self) -> Naming:
        return Naming(self._versions.lineage, self._pinned)


def faults(written: RegisteredSchema, pinned: RegisteredSchema, names: Names) -> list[tuple[str, str]]:
    """Return what keeps events of a version from being read as another: path and what is wrong."""
    carried = [(path, what) for path, what, _ in unsupported(written.schema)]
    return carried or unreadable(written.schema.record, pinned.schema.record, names)
