"""A product's ledger as a person or a program is shown it, beside what Kafka has and what the table's rows say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import DamagedLedger, HeadraceError, NotApplied, ProductStopped, Unavailable
from headrace.selfserve.documents import error_json, hold_json, time_json
from headrace.selfserve.output import console, say, show_error, table, visible
from headrace.sinks.hold import hold_of
from headrace.sinks.repair import newest_readable
from headrace.streams.admin import Admin
from headrace.streams.history import find_ledger, last_rows
from headrace.streams.ledger import PROPERTY_KEY, Ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.table import Table

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.sinks.hold import Hold
    from headrace.sinks.repair import Repair
    from headrace.streams.admin import Watermarks
    from headrace.streams.history import Found
    from headrace.streams.ledger import Accepted

__all__ = ["LedgerView", "Log", "show_ledger", "show_repair", "view_ledger", "write_ledger"]

# A broker that runs answers within a second; the ledger itself needs none.
ASK_S = 5.0
_COLUMNS = ("partition", "position", "last row", "log start", "log end", "lag", "origin", "accepted as lost")
_BOTH_SIDES = ("partition", "position claimed", "last row claimed", "last row in the table", "log start", "log end")
_REPAIRED = ("partition", "position before", "position then", "last row", "log start", "log end", "offsets to read")


@dataclass(frozen=True, slots=True)
class Log:
    """What Kafka says of the topic.

    Attributes:
        topic_id: Kafka's UUID of it.
        marks: the bounds of its partitions.
        fault: why nothing is known of it; None: it is known.
    """

    topic_id: str | None
    marks: Mapping[int, Watermarks]
    fault: HeadraceError | None = None


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What is shown of a ledger.

    Attributes:
        product: the product.
        log: what Kafka says.
        held: the hold; None: it is not held.
        found: the ledger; None: nothing was ever committed, or it is damaged.
        repeated: what the table's property is to the ledger: ``agrees``, ``serves`` (no snapshot carries one any more),
            ``missing``, ``damaged``, ``differs``; empty where the ledger cannot be read.
        damage: why the ledger cannot be read.
        claimed: the newest ledger that can be read, where the one that counts cannot.
        rows: the last row of each partition, where the ledger cannot be read.
    """

    product: Product
    log: Log
    held: Hold | None
    found: Found | None
    repeated: str
    damage: DamagedLedger | None = None
    claimed: Ledger | None = None
    rows: Mapping[int, int] | None = None


def view_ledger(mesh: Mesh, product: Product) -> LedgerView:
    """Look at a product's ledger. A broker that does not answer, or that has no such topic, is part of what is seen.

    Raises:
        NotApplied: if there is no table.
        ProductStopped: if a newer headrace wrote the ledger.
        Unavailable: if catalog or storage does not answer.
    """
    handle = load_table(open_catalog(mesh.environment, mesh.domain_of(product)), product)
    log, held = _log(mesh, product), hold_of(handle)
    try:
        found = find_ledger(handle, product)
    except DamagedLedger as damage:
        rows = last_rows(handle, product).offsets
        return LedgerView(product, log, held, None, "", damage, newest_readable(handle), rows)
    return LedgerView(product, log, held, found, _repeated(handle, found))


def _log(mesh: Mesh, product: Product) -> Log:
    try:
        admin = Admin(mesh.environment.kafka_config(), request_timeout_s=ASK_S)
        topic = admin.topic(product.topic)
        return Log(topic.id, admin.watermarks(topic))
    except (Unavailable, NotApplied) as fault:
        return Log(None, {}, fault)


def _repeated(handle: Table, found: Found | None) -> str:
    text = handle.properties.get(PROPERTY_KEY)
    if text is None:
        return "agrees" if found is None else "missing"
    try:
        repeated = Ledger.from_json(text)
    except ProductStopped:
        return "damaged"
    if found is not None and found.snapshot_id is None:
        return "serves"
    return "agrees" if found is not None and repeated == found.ledger else "differs"


def show_ledger(view: LedgerView, out: TextIO) -> None:
    """Write the ledger for people."""
    for name, text in _facts(view):
        say(f"{name:<11}{visible(text)}", file=out)
    if view.damage is not None:
        rows = [_both_sides(view, partition) for partition in _partitions(view)]
        console(out).print(table(_BOTH_SIDES, rows, [True] * len(_BOTH_SIDES)))
    elif view.found is not None:
        lines = [_line(view, view.found.ledger, partition) for partition in _partitions(view)]
        console(out).print(table(_COLUMNS, lines, [column != _COLUMNS[-1] for column in _COLUMNS]))
    if view.log.fault is not None:
        show_error(view.log.fault)


def write_ledger(view: LedgerView, out: TextIO) -> None:
    """Write the ledger as one JSON object."""
    ledger, found, held, damage = _ledger(view), view.found, view.held, view.damage
    document = {
        "product": str(view.product.name),
        "topic": view.product.topic,
        "topic_id": ledger.topic_id if ledger else None,
        "kafka_topic_id": view.log.topic_id,
        "generation": ledger.generation if ledger else None,
        "snapshot": found.snapshot_id if found else None,
        "committed": _time(found.committed_ms) if found and found.committed_ms else None,
        "property": view.repeated or None,
        "held": None if held is None else hold_json(held),
        "error": None if damage is None else error_json(damage),
        "kafka_error": None if view.log.fault is None else str(view.log.fault),
        "partitions": [_partition_json(view, ledger, partition) for partition in _partitions(view)],
    }
    out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def show_repair(plan: Repair, out: TextIO) -> None:
    """Write what a repair would change, for people."""
    rows = []
    for partition, at in sorted(plan.new.positions.items()):
        mark, before = plan.marks.get(partition), plan.known.positions.get(partition) if plan.known else None
        to_read = max(mark.end - max(at.next, mark.low), 0) if mark else None
        bounds = (mark.low, mark.end) if mark else (None, None)
        rows.append((partition, before.next if before else None, at.next, at.last_row, *bounds, to_read))
    console(out).print(table(_REPAIRED, rows, [True] * len(_REPAIRED)))


def _facts(view: LedgerView) -> Sequence[tuple[str, str]]:
    ledger, log = _ledger(view), view.log
    facts = [("product", str(view.product.name)), ("topic", f"{view.product.topic}{_identity(ledger, log)}")]
    if view.damage is None and view.found is None:
        facts.append(("ledger", "none: nothing was committed yet; the first start begins where the log does"))
    if view.found is not None:
        facts.append(("generation", str(view.found.ledger.generation)))
        facts.append(("snapshot", _standing(view.found)))
        facts.append(("property", _PROPERTY[view.repeated]))
    facts.append(("sink", str(view.held) if view.held else "not held"))
    return facts


_PROPERTY = {
    "serves": "serves: it agrees with the last rows in the table",
    "agrees": "agrees with the snapshot",
    "differs": "differs from the snapshot, which counts (the table was rolled back, or somebody changed the property)",
    "missing": "missing; the snapshot counts",
    "damaged": "cannot be read; the snapshot counts",
}


def _identity(ledger: Ledger | None, log: Log) -> str:
    if ledger is None:
        return f", id {log.topic_id}" if log.topic_id else ""
    if log.topic_id is None:
        return f", id {ledger.topic_id} (Kafka's is not known)"
    same = ledger.topic_id == log.topic_id
    return f", id {ledger.topic_id} ({'as in Kafka' if same else f'made anew: Kafka has {log.topic_id}'})"


def _standing(found: Found) -> str:
    if found.snapshot_id is None:
        return "none carries it any more: others have expired the history"
    return f"{found.snapshot_id}, committed {_time(found.committed_ms) if found.committed_ms else 'at an unknown time'}"


def _ledger(view: LedgerView) -> Ledger | None:
    return view.found.ledger if view.found else view.claimed


def _partitions(view: LedgerView) -> Sequence[int]:
    ledger = _ledger(view)
    return sorted({*(ledger.positions if ledger else ()), *view.log.marks, *(view.rows or ())})


def _line(view: LedgerView, ledger: Ledger, partition: int) -> tuple[object, ...]:
    at, mark = ledger.positions.get(partition), view.log.marks.get(partition)
    return (
        partition,
        ledger.next(partition),
        at.last_row if at else None,
        *((mark.low, mark.end, _lag(ledger.next(partition), mark)) if mark else (None, None, None)),
        ledger.origin.get(partition, 0),
        ", ".join(map(_lost, ledger.accepted.get(partition, ()))),
    )


def _both_sides(view: LedgerView, partition: int) -> tuple[object, ...]:
    at = view.claimed.positions.get(partition) if view.claimed else None
    mark = view.log.marks.get(partition)
    claimed = (at.next, at.last_row) if at else (None, None)
    return (partition, *claimed, (view.rows or {}).get(partition), *((mark.low, mark.end) if mark else (None, None)))


def _partition_json(view: LedgerView, ledger: Ledger | None, partition: int) -> dict[str, object]:
    at = ledger.positions.get(partition) if ledger else None
    mark = view.log.marks.get(partition)
    position = ledger.next(partition) if ledger else None
    accepted = ledger.accepted.get(partition, ()) if ledger else ()
    return {
        "partition": partition,
        "position": position,
        "last_row": at.last_row if at else None,
        "log_start": mark.low if mark else None,
        "log_end": mark.end if mark else None,
        "lag": None if mark is None or position is None else _lag(position, mark),
        "origin": ledger.origin.get(partition, 0) if ledger else None,
        "accepted": [{"first": gap.first, "end": gap.end, "at": _time(gap.at_s * 1_000)} for gap in accepted],
        **({"last_row_in_table": view.rows.get(partition)} if view.rows is not None else {}),
    }


def _lag(position: int, mark: Watermarks) -> int:
    return max(mark.end - max(position, mark.low), 0)


def _lost(gap: Accepted) -> str:
    return f"{gap.first}-{gap.end - 1} ({_time(gap.at_s * 1_000)})"


def _time(milliseconds: int) -> str:
    return time_json(datetime.fromtimestamp(milliseconds / 1_000, UTC))
