"""All of a mesh's resources, in the order in which they are made, and a walk over what differs in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headrace.schemas.errors import Bug, HeadraceError, Held
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.selfserve.resources.letter_table import LetterTable
from headrace.selfserve.resources.namespace import Namespace
from headrace.selfserve.resources.subject import Subject
from headrace.selfserve.resources.table import Table
from headrace.selfserve.resources.topic import DeadLetters, Topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.resources.clients import Clients

__all__ = ["Part", "Resource", "Section", "parts_of", "topics_of", "walk"]


class Resource(Protocol):
    """A thing of the mesh as the files want it."""

    def read(self, clients: Clients) -> Any:
        """Return the thing as it is."""
        ...

    def diff(self, there: Any) -> tuple[Difference, ...]:
        """Return what differs, in the order in which it should be mended. Pure."""
        ...

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Mend one difference. Safe to repeat, and to run beside others."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Resources that stand or fall together: of a product, or of a domain."""

    name: str
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """What differs in one part.

    Attributes:
        name: ``domain.product``, ``domain NAME``, or ``mesh``.
        differences: in order.
        trouble: why not all of it could be seen or mended; None: it could.
    """

    name: str
    differences: tuple[Difference, ...]
    trouble: HeadraceError | None = None


def parts_of(mesh: Mesh) -> Iterator[Part]:
    """Yield the parts of a mesh in the order in which they are made.

    Raises:
        SettingsError: if a secret of a domain's catalog is missing.
    """
    environment = mesh.environment
    yield Part("mesh", (Topic.of_positions(environment.topic_prefix),))
    for domain in mesh.all_domains:
        namespace = Namespace.of(environment, domain)
        yield Part(f"domain {domain.name}", (namespace,))
        for product in domain.products.values():
            subject = Subject(domain, product, mesh.policy)
            tables = (Table(subject, namespace), LetterTable(domain, product))
            resources = (Topic.of(product), DeadLetters.of(product), subject, *tables)
            yield Part(str(product.name), resources)


def topics_of(mesh: Mesh) -> tuple[str, ...]:
    """Return the names of all topics that the files want."""
    own = (name for product in mesh.all_products for name in (product.topic, product.dead_letter_topic))
    return (Topic.of_positions(mesh.environment.topic_prefix).name, *own)


def walk(
    part: Part, clients: Clients, see: Callable[[Resource, tuple[Difference, ...]], None] = lambda _, __: None
) -> Section:
    """Read a part's resources one after the other; trouble with one ends the part.

    Args:
        part: the part.
        clients: the servers.
        see: is told each resource and what differs, and may mend it before the next is read.

    Raises:
        Unavailable: if Kafka or the registry, which all parts share, does not answer.
        Bug: always.
    """
    found: list[Difference] = []
    try:
        for resource in part.resources:
            differences = resource.diff(resource.read(clients))
            # A product is held once, whatever of it would have to change.
            differences = tuple(each for each in differences if each.kind is not Kind.HELD or each not in found)
            found += differences
            see(resource, differences)
    except Bug:
        raise
    except Held as error:
        # Somebody has set the hold since this was read.
        hint = f"headrace release {part.name}, then headrace apply"
        found.append(Difference(Kind.HELD, "held", f"product {part.name}", why=error.what, next=hint))
    except HeadraceError as error:
        clients.check_shared(error)
        return Section(part.name, tuple(found), error)
    return Section(part.name, tuple(found))
