"""How an audit is told: a table and a sentence for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from headrace.governance.proof import spans
from headrace.selfserve.documents import error_json
from headrace.selfserve.output import console, say, show_error, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.governance.proof import Verdict
    from headrace.governance.verify import Audit, ProductAudit

__all__ = ["show_audit", "write_audit"]

_FAULTS = ("missing", "pending", "doubled", "foreign")
_COLUMNS = (
    *("product", "generation", "partition", "events", "rows"),
    *_FAULTS,
    *("dead-lettered", "beyond retention"),
)
# Enough to look at a few by hand; how many there are, the numbers say.
_SPANS_SHOWN = 3
_SPANS_WRITTEN = 100
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
    for line in _places(audit):
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


def _row(product: str, verdict: Verdict) -> tuple[str | int, ...]:
    faults = (len(getattr(verdict, fault)) for fault in _FAULTS)
    # Of an earlier generation the topic is gone, and nobody can count its events any more.
    events: str | int = "gone" if verdict.events is None else verdict.events
    return (
        *(product, verdict.generation, verdict.partition, events, verdict.rows),
        *faults,
        *(verdict.dead_lettered, verdict.beyond_retention),
    )


def _places(audit: Audit) -> Iterator[str]:
    for product in audit.products:
        for verdict in product.verdicts:
            for fault in _FAULTS:
                found = list(spans(getattr(verdict, fault)))
                if found:
                    place = f"{product.product}, generation {verdict.generation}, partition {verdict.partition}"
                    yield f"{fault}: {place}, {_shown(fault, found)}"


def _shown(fault: str, found: list[tuple[int, int]]) -> str:
    if fault == "pending":
        # All that lies behind the last row; the gaps in it are Kafka's own records.
        return f"offsets {found[0][0]} to {found[-1][1]}"
    shown = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in found[:_SPANS_SHOWN])
    return f"offsets {shown}{' …' if len(found) > _SPANS_SHOWN else ''}"


def _totals(audit: Audit) -> Counter[str]:
    totals: Counter[str] = Counter()
    for product in audit.products:
        for verdict in product.verdicts:
            totals.update({fault: len(getattr(verdict, fault)) for fault in _FAULTS})
            totals["events"] += verdict.events or 0
            totals["dead-lettered"] += verdict.dead_lettered
            totals["beyond retention"] += verdict.beyond_retention
    return totals


def _sentence(audit: Audit, totals: Counter[str]) -> str:
    checked = [product for product in audit.products if product.fault is None]
    if audit.holds:
        rest = ", ".join(f"{totals[name]:,} {name}" for name in ("dead-lettered", "beyond retention") if totals[name])
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
        "partitions": [_verdict_json(verdict) for verdict in product.verdicts],
    }


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    """Counts by name; ``offsets`` holds the first 100 spans, first and last offset, of each fault."""
    return {
        "partition": verdict.partition,
        "generation": verdict.generation,
        "events": verdict.events,
        "rows": verdict.rows,
        **{fault: len(getattr(verdict, fault)) for fault in _FAULTS},
        "dead_lettered": verdict.dead_lettered,
        "beyond_retention": verdict.beyond_retention,
        "newer": verdict.newer,
        "offsets": {
            fault: [list(span) for span in islice(spans(getattr(verdict, fault)), _SPANS_WRITTEN)]
            for fault in _FAULTS
            if len(getattr(verdict, fault))
        },
    }
