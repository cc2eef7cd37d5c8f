"""What differs between the mesh's files and what is there, as values. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["DONE", "SYMBOLS", "Difference", "Kind"]


class Kind(StrEnum):
    """What `apply` does about a difference."""

    CREATE = "create"
    CHANGE = "change"
    # Something is lost by it: only where the product was named with --allow-destroy.
    DESTROY = "destroy"
    # The files ask for what would break something: not before the files, or what is there, are corrected.
    REFUSED = "refused"
    # Not while an operator holds the product.
    HELD = "held"
    # Only a person can do it.
    NEVER = "never"
    # Nothing is to be done: a person should know.
    WARNING = "warning"


SYMBOLS = {
    Kind.CREATE: "+",
    Kind.CHANGE: "~",
    Kind.DESTROY: "-",
    Kind.REFUSED: "!",
    Kind.HELD: "!",
    Kind.NEVER: "!",
    Kind.WARNING: "·",
}
# What `apply` does without being asked twice.
DONE = frozenset({Kind.CREATE, Kind.CHANGE})


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        kind: what `apply` does about it.
        cause: a stable code for programs, such as ``topic-setting``.
        thing: what it is about, as people call it: ``topic shop.orders``.
        what: which part of the thing: ``retention.ms``; empty: all of it.
        old: what is there; None: nothing.
        new: what the files say; None: nothing.
        why: why `apply` does not simply do it, or what follows from it.
        next: what a person should do.
        details: what it consists of, a line each.
    """

    kind: Kind
    cause: str
    thing: str
    what: str = ""
    old: str | None = None
    new: str | None = None
    why: str = ""
    next: str = ""
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.what:
            return f"{self.thing} (deleted)" if self.kind is Kind.DESTROY else self.thing
        if self.old is None and self.new is None:
            return f"{self.thing}: {self.what}"
        if self.old is None:
            return f"{self.thing}: {self.what} {self.new}"
        return f"{self.thing}: {self.what} {self.old} → {'nothing' if self.new is None else self.new}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": str(self.kind),
            "cause": self.cause,
            "thing": self.thing,
            "what": self.what or None,
            "there": self.old,
            "files": self.new,
            "why": self.why or None,
            "next": self.next or None,
            "details": list(self.details),
        }
