"""``headrace drift``: what is there and not in the files, and the other way round."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.governance.applied import applied_ids
from headrace.governance.registrations import Registrations
from headrace.schemas.errors import Bug, HeadraceError, ProductStopped
from headrace.schemas.verdicts import Verdicts
from headrace.selfserve.plan import Plan
from headrace.selfserve.resources.clients import Clients
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.selfserve.resources.foreign import foreign_columns, foreign_versions
from headrace.selfserve.resources.left_over import left_overs, look_around
from headrace.selfserve.resources.parts import Part, Section, parts_of, topics_of, walk
from headrace.selfserve.resources.subject import Subject, SubjectThere
from headrace.selfserve.resources.table import Table, TableThere
from headrace.selfserve.resources.topic import DeadLetters, Topic
from headrace.sinks.stops import topic_made_anew
from headrace.streams.history import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.mesh import Mesh
    from headrace.selfserve.resources.parts import Resource

__all__ = ["drift", "next_step"]

_APPLY = "headrace apply"
# What to do about a difference that `apply` mends, where more is to be said than that it does.
_NEXT = {
    "topic-missing": "headrace apply makes it anew and empty; where the table has rows of the old one, its sink then "
    "stops, because offsets of two topics must not be mixed",
    "dead-letters-missing": "headrace apply makes it anew; the letters that it held are gone",
    "table-missing": "headrace apply makes it anew, and its sink fills it with what Kafka still holds; to have the old "
    "rows back, register the table's last metadata file in its catalog instead",
    "schema-missing": "headrace apply registers it",
    "version-pending": "headrace apply, or the sink's next event of it, makes the table follow",
}


def drift(mesh: Mesh) -> Plan:
    """Compare a mesh's files with what is there, and look for what nobody has asked for. Nothing is changed.

    A hold is no drift, and hides none. What of one product or domain does not answer is noted with it, and the others
    are compared all the same.

    Raises:
        Unavailable: if Kafka or the registry does not answer.
        SettingsError: if a secret is missing, or Kafka refuses the credentials.
    """
    environment = mesh.environment
    with Clients(environment) as clients, Registrations(environment.registry_config()) as registrations:
        clients.look_at_topics(topics_of(mesh))
        sections = [_look(part, clients, registrations) for part in parts_of(mesh)]
        around = look_around(mesh, clients)
        sections += [walk(Part(str(left.name), (left,)), clients) for left in left_overs(mesh, around)]
        return Plan(tuple(section for section in sections if section.differences or section.trouble))


def next_step(difference: Difference) -> str:
    """Return what a person should do about a difference."""
    return difference.next or _NEXT.get(difference.cause, _APPLY)


def _look(part: Part, clients: Clients, registrations: Registrations) -> Section:
    found: list[Difference] = []
    trouble: HeadraceError | None = None
    for resource in part.resources:
        try:
            for difference in _differences(resource, clients, registrations):
                found.append(difference)  # noqa: PERF402 - what was found before a trouble counts
        except Bug:
            raise
        except HeadraceError as error:
            clients.check_shared(error)
            trouble = trouble or error
    return Section(part.name, tuple(found), trouble)


def _differences(resource: Resource, clients: Clients, registrations: Registrations) -> Iterator[Difference]:
    if isinstance(resource, Subject):
        # First, and by a reader that takes any version: one that is no Avro keeps all others from being read.
        table = clients.table(resource.domain, resource.product)
        seen = registrations.look(resource.product)
        if table is not None and seen.subject is not None:
            known = {*applied_ids(table), seen.contract_id}
            yield from foreign_versions(resource.product, seen.subject.versions, known)
    there = resource.read(clients)
    if isinstance(there, SubjectThere | TableThere):
        there = replace(there, hold=None)
    for difference in resource.diff(there):
        if difference.kind is not Kind.WARNING:
            yield difference
    if isinstance(resource, Topic | DeadLetters):
        yield from resource.unsaid(there)
    if isinstance(resource, Table) and there.metadata is not None:
        verdicts = Verdicts.of(resource.subject.product, resource.subject.policy, there.versions)
        followed = resource.followed(there, verdicts)
        yield from foreign_columns(resource.subject.product, there.metadata, verdicts, followed)
        yield from _another_topic(resource, clients)


def _another_topic(resource: Table, clients: Clients) -> Iterator[Difference]:
    """Yield that a table follows a topic that is gone, while there is one of its name."""
    domain, product = resource.subject.domain, resource.subject.product
    table, found = clients.table(domain, product), clients.topic(product.topic)
    if table is None or found is None:
        return
    # What is wrong with the ledger itself, status and the sink tell.
    with suppress(ProductStopped):
        ledger = read_ledger(table, product)
        if ledger is not None and ledger.topic_id != found[0].id:
            stopped = topic_made_anew(product, ledger.topic_id, found[0].id)
            why, hint = stopped.what, stopped.hint or ""
            yield Difference(Kind.NEVER, "topic-made-anew", resource.thing, "topic", why=why, next=hint)
