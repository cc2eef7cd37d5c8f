"""What is there and belongs to no product of the mesh: of a product that was taken out of the files, or of nobody."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.catalog import drop_table, load_named, table_names
from headrace.schemas.environment import OWN_STACKS
from headrace.schemas.errors import HeadraceError, NotApplied
from headrace.schemas.names import (
    DEAD_LETTER_TABLE,
    ProductName,
    dead_letter_table_of,
    dead_letter_topic_of,
    subject_of,
)
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.sinks.dead_letters.table import LETTERS_OF
from headrace.sinks.hold import hold_of
from headrace.streams.versions import VERSION_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Domain
    from headrace.selfserve.resources.clients import Clients
    from headrace.sinks.hold import Hold

__all__ = ["Around", "LeftOver", "LeftThere", "left_overs", "look_around"]

_DEAD_LETTERS = dead_letter_topic_of("")
_SUBJECT = subject_of("")


@dataclass(frozen=True, slots=True)
class Around:
    """All that there is: topics, subjects, and tables by domain; catalogs that did not tell."""

    topics: frozenset[str]
    subjects: frozenset[str]
    tables: frozenset[ProductName]
    unseen: tuple[tuple[str, HeadraceError], ...] = ()


@dataclass(frozen=True, slots=True)
class LeftThere:
    """What there is under a name that no product has.

    Attributes:
        topic: whether there is a topic.
        letters: whether there is a topic of its dead letters.
        subject: whether there is a subject.
        table: whether there is a table …
        own: … that has followed versions, which only headrace's have.
        location: where the table's files lie.
        hold: why the table is held; None: it is not.
        letter_table: whether there is a table by the name of that of its dead letters …
        own_letters: … which headrace made.
    """

    topic: bool = False
    letters: bool = False
    subject: bool = False
    table: bool = False
    own: bool = False
    location: str = ""
    hold: Hold | None = None
    letter_table: bool = False
    own_letters: bool = False

    @property
    def of_a_product(self) -> bool:
        """Whether a product has left it: others make topics and subjects too, but no such tables or dead letters."""
        return self.own or self.letters or self.own_letters


@dataclass(frozen=True, slots=True)
class LeftOver:
    """A name that no product has (any more).

    Attributes:
        name: as a product's.
        topic: what its topic is called, behind the environment's prefix.
        domain: the domain whose catalog holds its table; None: the mesh has no such domain, so nothing is deleted.
        around: what there was when this was found.
    """

    name: ProductName
    topic: str
    domain: Domain | None
    around: Around

    def read(self, clients: Clients) -> LeftThere:
        """Return what is there.

        Raises:
            HeadraceError: if the domain's catalog does not answer: a hold may stand in it.
        """
        for domain, error in self.around.unseen:
            if self.domain is not None and self.domain.name == domain:
                raise error.with_traceback(None)
        table, letters = self._table(clients, self.name), self._table(clients, dead_letter_table_of(self.name))
        return LeftThere(
            topic=self.topic in self.around.topics,
            letters=dead_letter_topic_of(self.topic) in self.around.topics,
            subject=subject_of(self.topic) in self.around.subjects,
            table=table is not None,
            own=table is not None and VERSION_PROPERTY in table.properties,
            location=table.location() if table else "",
            hold=hold_of(table) if table else None,
            letter_table=letters is not None,
            own_letters=letters is not None and LETTERS_OF in letters.properties,
        )

    def _table(self, clients: Clients, name: ProductName) -> Table | None:
        if self.domain is not None and name in self.around.tables:
            with suppress(NotApplied):
                return load_named(clients.catalog(self.domain), (name.domain, name.product))
        return None

    def diff(self, there: LeftThere) -> tuple[Difference, ...]:
        """Return what is there and should not be: what tells that a product has left it comes last."""
        return tuple(self._differences(there))

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Delete one thing. Of a table only the catalog's entry is deleted, its files stay."""
        match difference.cause:
            case "unowned-subject":
                clients.registry.delete(subject_of(self.topic))
            case "unowned-topic":
                clients.admin.delete(self.topic)
            case "unowned-dead-letters":
                clients.admin.delete(dead_letter_topic_of(self.topic))
            case "unowned-letter-table" if self.domain is not None:
                name = dead_letter_table_of(self.name)
                drop_table(clients.catalog(self.domain), (name.domain, name.product))
            case "unowned-table" if self.domain is not None:
                drop_table(clients.catalog(self.domain), (self.name.domain, self.name.product))

    def _differences(self, there: LeftThere) -> Iterator[Difference]:
        if there.hold is not None:
            yield Difference(
                Kind.HELD,
                "held",
                f"product {self.name}",
                why=str(there.hold),
                next="take the property headrace.hold out of its table",
            )
            return
        if there.subject:
            yield self._left(there, "unowned-subject", f"subject {subject_of(self.topic)}")
        if there.topic:
            yield self._left(there, "unowned-topic", f"topic {self.topic}", "with all its events")
        if there.letters:
            yield self._left(there, "unowned-dead-letters", f"topic {dead_letter_topic_of(self.topic)}")
        if there.letter_table:
            thing = f"table {dead_letter_table_of(self.name)}"
            yield self._left(there, "unowned-letter-table", thing, deletable=there.own_letters)
        if there.table:
            files = f"its files stay at {there.location}"
            yield self._left(there, "unowned-table", f"table {self.name}", files, deletable=there.own)

    def _left(
        self, there: LeftThere, cause: str, thing: str, consequence: str = "", *, deletable: bool = True
    ) -> Difference:
        if self.domain is None:
            return Difference(
                Kind.NEVER,
                cause,
                thing,
                why=f"the mesh has no domain {self.name.domain}: it may be another mesh's, and if it was one of this "
                "mesh, its table and a hold may still be in that domain's catalog",
                next=f"leave it, or put domains/{self.name.domain}/domain.yaml back, then headrace apply "
                f"--allow-destroy {self.name}",
            )
        if not (deletable and there.of_a_product):
            return Difference(
                Kind.NEVER,
                cause,
                thing,
                why="it belongs to no product of this mesh, and nothing tells that headrace has made it",
                next=f"delete it, or make a product of it: headrace new {self.name.domain}/{self.name.product}",
            )
        why = "no product of this mesh has this name" + (f"; {consequence}" if consequence else "")
        return Difference(
            Kind.DESTROY, cause, thing, why=why, next=f"headrace apply --allow-destroy {self.name}, or keep it"
        )


def look_around(mesh: Mesh, clients: Clients) -> Around:
    """Read the names of all topics, subjects and tables.

    Raises:
        Unavailable: if Kafka or the registry does not answer; a catalog that does not is kept in `Around.unseen`.
    """
    tables: set[ProductName] = set()
    unseen = []
    for domain in mesh.all_domains:
        try:
            names = table_names(clients.catalog(domain), domain)
        except HeadraceError as error:
            unseen.append((domain.name, error))
        else:
            tables |= {ProductName(domain.name, name) for name in names}
    return Around(clients.admin.names(), frozenset(clients.registry.subjects()), frozenset(tables), tuple(unseen))


def left_overs(mesh: Mesh, around: Around) -> tuple[LeftOver, ...]:
    """Return the names that look like products' and are none's, sorted."""
    prefix = mesh.environment.topic_prefix
    domains = {domain.name: domain for domain in mesh.all_domains}
    topics = {topic.removesuffix(_DEAD_LETTERS) for topic in around.topics}
    topics |= {subject.removesuffix(_SUBJECT) for subject in around.subjects if subject.endswith(_SUBJECT)}
    # A table of dead letters is its product's.
    tables = {ProductName(table.domain, table.product.removesuffix(DEAD_LETTER_TABLE)) for table in around.tables}
    names = set(_names(topics, prefix)) | tables
    names -= {product.name for product in mesh.all_products}
    # On servers that others use too, and without a prefix, what stands in another domain may be another mesh's.
    ours = prefix or mesh.environment.stack in OWN_STACKS
    known: Collection[str] = {name.domain for name in names} if ours else domains
    return tuple(
        LeftOver(name, name.topic(prefix), domains.get(name.domain), around)
        for name in sorted(names)
        if name.domain in known
    )


def _names(topics: Iterable[str], prefix: str) -> Iterator[ProductName]:
    for topic in topics:
        if topic.startswith(prefix):
            with suppress(ValueError):
                yield ProductName.parse(topic.removeprefix(prefix))
