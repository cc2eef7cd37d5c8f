"""How an audit is told: a table and a sentence for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from headrace.selfserve.documents import error_json, time_json
from headrace.selfserve.output import console, say, show_error, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.governance.marks import Spans
    from headrace.governance.proof import Verdict
    from headrace.governance.verify import Audit, ProductAudit
    from headrace.streams.ledger import Accepted

__all__ = ["show_audit", "write_audit"]

_FAULTS = ("missing", "pending", "doubled", "foreign")
# What is not in the table and need not be, or cannot be compared any more: the proof holds with them.
_ALLOWED = ("dead-lettered", "skipped", "beyond retention")
_COLUMNS = (*("product", "generation", "partition", "events", "rows"), *_FAULTS, *_ALLOWED)
# Enough to look at a few by hand; how many there are, the numbers say.
_SPANS_SHOWN = 3
_NEXT = {
    "missing": "an event behind them is in the table, they are not: keep the topic, and report it",
    "pending": "headrace sink --until-caught-up commits them",
    "doubled": "a row that is there twice: report it",
    "foreign": "rows that no event of this topic made: was the topic made anew, or did another program write?",
}


def show_audit(audit: Audit, out: TextIO) -> None:
    """Write the table, where the faults are and what to do about them, and a last line with the sentence."""
    rows = [_row(product.product, verdict) for product in audit.products for verdict in product.verdicts]
    if rows:
        console(out).print(table(_COLUMNS, rows, [column != "product" for column in _COLUMNS]))
    for product in audit.products:
        for verdict in product.verdicts:
            for line in _lines(product, verdict):
                say(line, file=out)
    totals = _totals(audit)
    for fault in _FAULTS:
        if totals[fault]:
            say(f"  next: {_NEXT[fault]}", file=out)
    for product in audit.products:
        if product.fault is not None:
            show_error(product.fault)
    say(_sentence(audit, totals), file=out)


def write_audit(audit: Audit, out: TextIO) -> None:
    """Write the audit as one JSON object; what it holds is said in `_product_json`."""
    document = {"proved": audit.holds, "products": [_product_json(product) for product in audit.products]}
    out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _counts(verdict: Verdict) -> dict[str, int]:
    found = {fault: getattr(verdict, fault).count for fault in _FAULTS}
    allowed = (verdict.dead_lettered, verdict.skipped.count, verdict.beyond_retention)
    return found | dict(zip(_ALLOWED, allowed, strict=True))


def _row(product: str, verdict: Verdict) -> tuple[str | int, ...]:
    # Of an earlier generation the topic is gone, and nobody can count its events any more.
    events: str | int = "gone" if verdict.events is None else verdict.events
    return (product, verdict.generation, verdict.partition, events, verdict.rows, *_counts(verdict).values())


def _lines(product: ProductAudit, verdict: Verdict) -> Iterator[str]:
    """Yield where to look for what was found, and what cannot be compared any more."""
    place = f"{product.product}, generation {verdict.generation}, partition {verdict.partition}"
    for fault in _FAULTS:
        if found := getattr(verdict, fault):
            yield f"{fault}: {place}, {_shown(fault, found)}"
    if verdict.start:
        yield f"not compared: {place}, Kafka keeps nothing below offset {verdict.start:,}: {_gone(verdict)}"
    if verdict.skipped:
        yield f"skipped: {place}, {_shown('skipped', verdict.skipped)}"
    if accepted := _accepted(product, verdict):
        first = ", ".join(f"{lost.first}-{lost.end - 1} ({_time(lost)})" for lost in accepted[:_SPANS_SHOWN])
        yield f"accepted as lost: {place}, offsets {first}{_more(len(accepted) - _SPANS_SHOWN)}"


def _shown(fault: str, found: Spans) -> str:
    if fault == "pending":
        # All that lies behind the last row; the gaps in it are Kafka's own records.
        return f"offsets {found.kept[0][0]} to {found.last}"
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found.kept[:_SPANS_SHOWN])
    return f"offsets {shown}{_more(found.runs - _SPANS_SHOWN)}"


def _more(count: int) -> str:
    return f" and {count:,} more place{'s' if count != 1 else ''}" if count > 0 else ""


def _gone(verdict: Verdict) -> str:
    gone = verdict.gone
    if gone.first is None:
        return "the table has none of it"
    rows = f"{gone.rows:,} row{'s' if gone.rows != 1 else ''} of it, offsets {gone.first} to {gone.last}"
    if not verdict.not_known:
        return rows
    return f"{rows}; {verdict.not_known:,} offsets from there on have no row, and whether they had events none can say"


def _accepted(product: ProductAudit, verdict: Verdict) -> Sequence[Accepted]:
    # Records are of the topic that is there now.
    return () if verdict.events is None else product.accepted.get(verdict.partition, ())


def _time(lost: Accepted) -> str:
    return time_json(datetime.fromtimestamp(lost.at_s, UTC))


def _totals(audit: Audit) -> Counter[str]:
    totals: Counter[str] = Counter()
    for product in audit.products:
        for verdict in product.verdicts:
            totals.update(_counts(verdict))
            totals["events"] += verdict.events or 0
    return totals


def _sentence(audit: Audit, totals: Counter[str]) -> str:
    checked = [product for product in audit.products if product.fault is None]
    if audit.holds:
        names = {name: name for name in _ALLOWED} | {"skipped": "skipped on record"}
        rest = ", ".join(f"{totals[name]:,} {names[name]}" for name in _ALLOWED if totals[name])
        count = len(checked)
        return (
            f"proved: {totals['events']:,} events of {count} product{'s' if count != 1 else ''}, "
            f"each in its table exactly once{f' ({rest})' if rest else ''}"
        )
    faults = [f"{totals[fault]:,} {fault}" for fault in _FAULTS if totals[fault]]
    unread = len(audit.products) - len(checked)
    faults += [f"{unread} product{'s' if unread != 1 else ''} could not be checked"] if unread else []
    return f"not proved: {', '.join(faults)}"


def _product_json(product: ProductAudit) -> dict[str, object]:
    fault = product.fault
    return {
        "product": product.product,
        "topic": product.topic,
        "topic_id": product.topic_id,
        "proved": product.holds,
        "error": None if fault is None else error_json(fault),
        "partitions": [_verdict_json(product, verdict) for verdict in product.verdicts],
    }


def _verdict_json(product: ProductAudit, verdict: Verdict) -> dict[str, object]:
    """Counts by name.

    ``offsets`` holds the first 1,000 spans, first and last offset, of each fault and of what was skipped; ``more`` how
    many spans there are besides. ``not_compared`` tells what lies below the log's start, null if that is 0: the rows,
    and how many offsets from the first of them on have none. ``accepted`` are losses that operators put on record, from
    the first offset up to, not including, the end.
    """
    found = {name: spans for name in (*_FAULTS, "skipped") if (spans := getattr(verdict, name))}
    gone = verdict.gone
    return {
        "partition": verdict.partition,
        "generation": verdict.generation,
        "events": verdict.events,
        "rows": verdict.rows,
        **{name.replace("-", "_").replace(" ", "_"): count for name, count in _counts(verdict).items()},
        "newer": verdict.newer,
        "offsets": {name: [list(span) for span in spans.kept] for name, spans in found.items()},
        "more": {name: spans.runs - len(spans.kept) for name, spans in found.items() if spans.runs > len(spans.kept)},
        "not_compared": {
            "below": verdict.start,
            "rows": gone.rows,
            "first": gone.first,
            "last": gone.last,
            "without_row": verdict.not_known,
        }
        if verdict.start
        else None,
        "accepted": [{"first": lost.first, "end": lost.end, "at": _time(lost)} for lost in _accepted(product, verdict)],
    }
