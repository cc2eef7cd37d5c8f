"""Reading what was found: the newest state of every finding, from the table and the topic behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from headrace.governance.docket import Finding
from headrace.governance.duck import tables_of
from headrace.governance.judge import FINDINGS
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import Unavailable
from headrace.streams.admin import Admin
from headrace.streams.subscriber import Reading, Start, Subscriber

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headrace.schemas.mesh import Mesh

__all__ = ["Finding", "FindingsRead", "look", "newest"]

# Somebody waits for the answer: a broker that is there answers within this.
ADMIN_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class FindingsRead:
    """What was read.

    Attributes:
        findings: the newest state of each, in the order in which they were opened.
        trouble: why the topic was not read; None if it was.
        as_of: then: when the table that was read was committed; None: it is empty.
    """

    findings: Sequence[Finding]
    trouble: Unavailable | None = None
    as_of: datetime | None = None


def look(mesh: Mesh) -> FindingsRead:
    """Read the table and what is behind it in the topic; the table alone if broker or registry do not answer.

    Needs no running sink, and no broker where the table is enough.

    Raises:
        NotApplied: if governance's topics, schemas or tables do not exist yet.
        Unavailable: if broker or registry do not answer, and the catalog does not either.
    """
    try:
        # A subscriber waits for a broker that does not answer, which a person would not.
        Admin(mesh.environment.kafka_config(), request_timeout_s=ADMIN_TIMEOUT_S).topic(mesh.product(FINDINGS).topic)
        return FindingsRead(newest(_events(mesh)))
    except Unavailable as trouble:
        findings, as_of = _table(mesh)
        return FindingsRead(findings, trouble, as_of)


def newest(events: Iterable[Mapping[str, Any]]) -> Sequence[Finding]:
    """Return the newest state of each finding; repeats, and events in any order, do no harm."""
    found: dict[str, Finding] = {}
    for event in events:
        finding = Finding.from_event(event)
        before = found.get(finding.finding_id)
        if before is None or before.open:
            found[finding.finding_id] = finding
    return sorted(found.values(), key=lambda finding: (finding.opened_at, finding.topic, finding.finding_id))


def _events(mesh: Mesh) -> Iterator[Mapping[str, Any]]:
    # What somebody else has written there and is no event, is no finding: the sink keeps it as a dead letter.
    reading = Reading(until_end=True, on_poison=lambda _: None)
    with Subscriber(mesh, FINDINGS, group=None, start=Start.HISTORY, reading=reading) as events:
        yield from events


def _table(mesh: Mesh) -> tuple[Sequence[Finding], datetime | None]:
    product = mesh.product(FINDINGS)
    table = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    snapshot = table.current_snapshot()
    as_of = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot is not None else None
    with tables_of(mesh) as duck:
        duck.attach(product.name)
        answer = duck.query(f"FROM {product.name} ORDER BY _kafka_partition, _kafka_offset")
        batches = answer.batches if answer is not None else iter(())
        return newest(row for batch in batches for row in batch.to_pylist()), as_of
