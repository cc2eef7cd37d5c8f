"""``headrace plan``: what ``headrace apply`` would do, and what it would not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.selfserve.resources.clients import Clients
from headrace.selfserve.resources.difference import DONE, Kind
from headrace.selfserve.resources.left_over import left_overs, look_around
from headrace.selfserve.resources.parts import Part, Section, parts_of, topics_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.resources.difference import Difference

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What differs between the mesh's files and what is there, part by part."""

    sections: tuple[Section, ...]

    @property
    def differences(self) -> tuple[Difference, ...]:
        """All differences that are something to do, for `apply` or for a person."""
        return tuple(each for each in self._all() if each.kind is not Kind.WARNING)

    @property
    def done_by_apply(self) -> tuple[Difference, ...]:
        """Those that `apply` makes without being allowed to destroy."""
        return tuple(each for each in self._all() if each.kind in DONE)

    @property
    def troubles(self) -> tuple[tuple[str, HeadraceError], ...]:
        """What could not be looked at, by the part's name."""
        return tuple((section.name, section.trouble) for section in self.sections if section.trouble is not None)

    def _all(self) -> Iterator[Difference]:
        for section in self.sections:
            yield from section.differences


def plan(mesh: Mesh) -> Plan:
    """Compare a mesh's files with what is there. Nothing is changed.

    What of one product or domain does not answer is noted with it, and the others are compared all the same.

    Raises:
        Unavailable: if Kafka or the registry does not answer.
        SettingsError: if a secret is missing, or Kafka refuses the credentials.
    """
    with Clients(mesh.environment) as clients:
        clients.look_at_topics(topics_of(mesh))
        sections = [walk(part, clients) for part in parts_of(mesh)]
        around = look_around(mesh, clients)
        for left in left_overs(mesh, around):
            section = walk(Part(str(left.name), (left,)), clients)
            if section.trouble or any(each.kind is not Kind.NEVER for each in section.differences):
                sections.append(section)
        return Plan(tuple(section for section in sections if section.differences or section.trouble))
