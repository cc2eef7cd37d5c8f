"""``headrace apply``: make what the mesh's files promise, as often as one likes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.errors import UserError
from headrace.schemas.names import ProductName
from headrace.selfserve.resources.clients import Clients
from headrace.selfserve.resources.difference import DONE, Difference, Kind
from headrace.selfserve.resources.left_over import left_overs, look_around
from headrace.selfserve.resources.parts import Part, parts_of, topics_of, walk
from headrace.selfserve.resources.topic import DEAD_LETTER_RETENTION_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.resources.parts import Resource

__all__ = ["DEAD_LETTER_RETENTION_MS", "Applied", "apply", "apply_each"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run of `apply` did.

    Attributes:
        made: what was made or changed, in order, as people call it: ``topic operations.flights``.
        found: how many things were there already, and as the files want them.
        undone: what was not done, by the name of its part, with why and what to do.
        failures: what could not be done, by the name of its part.
        complete: whether everything that the files promise is there.
    """

    made: tuple[str, ...]
    found: int
    undone: tuple[tuple[str, Difference], ...] = ()
    failures: tuple[tuple[str, HeadraceError], ...] = ()
    complete: bool = True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know, a sentence each."""
        return tuple(_warning(name, difference) for name, difference in self.undone)

    @property
    def held(self) -> tuple[str, ...]:
        """Products that were not changed because an operator holds them; each is among the warnings too."""
        return tuple(name for name, difference in self.undone if difference.kind is Kind.HELD)


def apply(mesh: Mesh, progress: Callable[[str], None], allow_destroy: Collection[str] = ()) -> Applied:
    """Do what `apply_each` does, and raise what went wrong once everything else is done.

    Raises:
        HeadraceError: the first of what `apply_each` returns as failures.
        UserError: if a schema was not registered because it is not compatible.
        Unavailable, SettingsError: as `apply_each`.
    """
    applied = apply_each(mesh, progress, allow_destroy)
    for _, failure in applied.failures:
        raise failure
    for _, difference in applied.undone:
        if difference.cause == "schema-refused":
            where = difference.thing.removeprefix("subject ")
            raise UserError("; ".join([difference.why, *difference.details]), where=where, hint=difference.next)
    return applied


def apply_each(mesh: Mesh, progress: Callable[[str], None], allow_destroy: Collection[str] = ()) -> Applied:
    """Make what `plan` shows: topics, dead-letter topics, subjects, namespaces and tables of every product.

    Schemas are registered here and nowhere else; the subject's level is set first, so that it holds for the first
    registration already. Trouble with one product stops no other. A run that fails half way may simply be repeated.
    A product whose table would change, and which an operator holds, is left as it is and told of.

    Args:
        mesh: the mesh in its environment.
        progress: is told each thing that was made or changed, after it was.
        allow_destroy: the names of products of which events, or all there is, may be destroyed.

    Raises:
        Unavailable: if Kafka or the registry does not answer.
        SettingsError: if a secret is missing, or Kafka refuses the credentials.
        UserError: if a name in ``allow_destroy`` is none of a product.
    """
    allowed = {_product_name(name) for name in allow_destroy}
    with Clients(mesh.environment) as clients:
        run = _Run(clients, progress, allowed)
        clients.look_at_topics(topics_of(mesh))
        for part in parts_of(mesh):
            run.part(part)
        left = left_overs(mesh, look_around(mesh, clients))
        for each in left:
            run.left_over(Part(str(each.name), (each,)))
        known = {product.name for product in mesh.all_products} | {each.name for each in left}
        for name in sorted(allowed - known):
            run.nothing_of(name)
        return run.applied()


class _Run:
    """Mends what differs, and collects what it did."""

    def __init__(self, clients: Clients, progress: Callable[[str], None], allowed: Collection[ProductName]) -> None:
        self._clients = clients
        self._progress = progress
        self._allowed = {str(name) for name in allowed}
        self._made: list[str] = []
        self._found = 0
        self._undone: list[tuple[str, Difference]] = []
        self._failures: list[tuple[str, HeadraceError]] = []
        self._complete = True

    def part(self, part: Part) -> None:
        """Mend a part of the mesh."""
        left = self._mend(part)
        self._undone += [(part.name, difference) for difference in left]
        if any(difference.kind is not Kind.WARNING for difference in left):
            self._complete = False

    def left_over(self, part: Part) -> None:
        """Delete what a product has left, if that is allowed. The files promise nothing of it."""
        named = part.name in self._allowed
        left = [each for each in self._mend(part, left_over=True) if named or each.kind is Kind.DESTROY]
        self._undone += [(part.name, difference) for difference in left]
        if named and left:
            self._complete = False

    def nothing_of(self, name: ProductName) -> None:
        """Note that something may be destroyed that is not there: a name misspelt, or a run that is repeated."""
        why = "nothing of it is there to destroy"
        self._undone.append((str(name), Difference(Kind.WARNING, "nothing-left", f"product {name}", why=why)))

    def applied(self) -> Applied:
        """Return what was done."""
        return Applied(
            tuple(self._made),
            self._found,
            tuple(self._undone),
            tuple(self._failures),
            complete=self._complete and not self._failures,
        )

    def _mend(self, part: Part, *, left_over: bool = False) -> list[Difference]:
        """Mend what may be mended of a part; return what differs still."""
        mended: list[Difference] = []

        def mend(resource: Resource, differences: tuple[Difference, ...]) -> None:
            for difference in differences:
                if difference.kind in DONE or (difference.kind is Kind.DESTROY and part.name in self._allowed):
                    resource.apply(self._clients, difference)
                    mended.append(difference)
                    self._made.append(str(difference))
                    self._progress(str(difference))
            if not left_over and all(difference.kind is Kind.WARNING for difference in differences):
                self._found += 1

        section = walk(part, self._clients, mend)
        if section.trouble is not None:
            self._failures.append((part.name, section.trouble))
        # What stands behind a trouble was not tried, and the trouble says what is to be done.
        done = DONE if section.trouble is not None else frozenset()
        return [each for each in section.differences if each not in mended and each.kind not in done]


def _warning(name: str, difference: Difference) -> str:
    if difference.kind is Kind.HELD:
        return f"{name} was not changed because it is {difference.why}; {difference.next}"
    if difference.kind is Kind.WARNING:
        return f"{difference}: {difference.why}"
    reasons = "; ".join([difference.why, *difference.details])
    return f"{difference}: not done, because {reasons}; {difference.next}"


def _product_name(text: str) -> ProductName:
    try:
        return ProductName.parse(text)
    except ValueError as error:
        raise UserError(str(error), hint="name a product as plan does") from None
