"""How dead letters are shown: tables and sentences for people, JSON for programs.

Keys, values and headers' values may hold personal data: none of them is written unless it is asked for.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import numpy as np

from headrace.schemas.stamps import holdable
from headrace.selfserve.dead_letters import Facts, State
from headrace.selfserve.documents import time_json
from headrace.selfserve.output import console, say, table, visible
from headrace.sinks.dead_letters.verdict import next_step

if TYPE_CHECKING:
    from headrace.schemas.product import Product
    from headrace.selfserve.dead_letters import Letters
    from headrace.sinks.dead_letters.message import Kept
    from headrace.sinks.dead_letters.redriving import Tally
    from headrace.sinks.dead_letters.verdict import LetterVerdict

__all__ = [
    "show_bytes",
    "show_letter",
    "show_letters",
    "show_put_back",
    "show_tally",
    "write_letter",
    "write_letters",
]

_HEX_BYTES = 16


def show_letters(letters: Letters, out: TextIO) -> None:
    """Write counts, the newest letters and a sentence, for people."""
    reasons, wish = sorted({reason for reason, _ in letters.counts}), visible(str(letters.wish))
    if not reasons:
        say(f"{letters.product.name} has no dead letters{wish}{_others(letters.others)}", file=out)
        return
    counts = [(reason, *(letters.counts.get((reason, state), 0) for state in State)) for reason in reasons]
    console(out).print(table(("reason", *State), counts, [False, True, True, True]))
    rows = [
        (
            *(facts.generation, facts.partition, facts.offset, _time(facts.timestamp_ms), facts.reason),
            *(facts.schema_id, facts.key_bytes, facts.value_bytes, str(state)),
        )
        for facts, state in letters.newest
    ]
    if rows:
        places, sizes = ("generation", "partition", "offset"), ("schema id", "key bytes", "value bytes")
        numeric = [True, True, True, False, False, True, True, True, False]
        console(out).print(table((*places, "time", "reason", *sizes, "where"), rows, numeric))
    total = sum(letters.counts.values())
    shown = f", the newest {len(rows)} are shown" if len(rows) < total else ""
    kind = "dead letter" if total == 1 else "dead letters"
    say(f"{total:,} {kind} of {letters.product.name}{wish}{shown}{_others(letters.others)}", file=out)
    if letters.total(State.OPEN):
        say(f"  next: headrace dlq show {letters.product.name} PARTITION:OFFSET tells why", file=out)


def write_letters(letters: Letters, out: TextIO) -> None:
    """Write them as one JSON object."""
    document = {
        "product": str(letters.product.name),
        "topic": letters.product.dead_letter_topic,
        "open": letters.total(State.OPEN),
        "in_table": letters.total(State.IN_TABLE),
        "ahead": letters.total(State.AHEAD),
        "of_other_topics": letters.others,
        "reasons": [
            {
                "reason": reason,
                "open": letters.counts.get((reason, State.OPEN), 0),
                "in_table": letters.counts.get((reason, State.IN_TABLE), 0),
                "ahead": letters.counts.get((reason, State.AHEAD), 0),
            }
            for reason in sorted({reason for reason, _ in letters.counts})
        ],
        "letters": [_facts_json(facts, state) for facts, state in letters.newest],
    }
    out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def show_letter(kept: Kept, state: State, verdict: LetterVerdict, product: Product, out: TextIO) -> None:
    """Write all of a letter but its bytes, for people."""
    facts = Facts.of(kept)
    lines = [
        ("letter", f"partition {facts.partition}, offset {facts.offset} of {product.topic}, {state}"),
        ("time", _time(facts.timestamp_ms) or "none"),
        ("refused", f"{_time(facts.refused_ms)}: {facts.reason}"),
        ("schema id", "none" if facts.schema_id is None else str(facts.schema_id)),
        ("key", "none" if facts.key_bytes is None else f"{facts.key_bytes:,} bytes"),
        ("value", "none" if facts.value_bytes is None else f"{facts.value_bytes:,} bytes"),
        ("headers", ", ".join(facts.header_names) or "none"),
        ("topic id", kept.topic_id),
        ("generation", "not said" if kept.generation is None else str(kept.generation)),
        ("now", verdict.what if verdict.reason is None else f"{verdict.reason}: {verdict.what}"),
    ]
    if state is State.OPEN:
        ready = f"headrace dlq redrive {product.name} puts it back"
        lines.append(("next", ready if verdict.reason is None else next_step(product, verdict.reason)))
    for name, text in lines:
        say(f"{name:<11}{visible(text)}", file=out)


def write_letter(kept: Kept, state: State, verdict: LetterVerdict, *, unmasked: bool, out: TextIO) -> None:
    """Write all of a letter as one JSON object; its key and value, as hexadecimal digits, only if asked for."""
    document = {
        **_facts_json(Facts.of(kept), state),
        "topic_id": kept.topic_id,
        "now": {"reason": verdict.reason, "what": verdict.what, "path": verdict.path},
    }
    if unmasked:
        key, value = kept.letter.key, kept.letter.value
        document |= {"key": None if key is None else key.hex(), "value": None if value is None else value.hex()}
    out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def show_bytes(name: str, data: bytes | None, out: TextIO) -> None:
    """Write bytes as a hexadecimal dump."""
    if data is None:
        say(f"{name}: none", file=out)
        return
    say(f"{name}, {len(data):,} bytes:", file=out)
    for first in range(0, len(data), _HEX_BYTES):
        part = data[first : first + _HEX_BYTES]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        say(f"  {first:08x}  {part.hex(' '):<{3 * _HEX_BYTES}} {text}", file=out)


def show_put_back(tally: Tally, product: Product, out: TextIO) -> None:
    """Write how many letters became rows."""
    say(f"{tally.put_back:,} put back into {product.name}", file=out)


def show_tally(tally: Tally, product: Product, out: TextIO) -> None:
    """Write what a redrive did, and what is to be done about what is left."""
    show_put_back(tally, product, out)
    if tally.held:
        say(f"{tally.held:,} {'were' if tally.held != 1 else 'was'} in the table already", file=out)
    if tally.ahead:
        say(f"{tally.ahead:,} are not yet passed by the sink, which reads them itself", file=out)
    for reason, count in sorted(tally.refused.items()):
        say(f"{count:,} {'are' if count != 1 else 'is'} still refused: {visible(reason)}", file=out)
        say(f"  next: {visible(tally.hints.get(reason) or next_step(product, reason))}", file=out)
    if tally.untimed:
        say(
            f"{tally.untimed:,} do not say their timestamp: an earlier headrace wrote them; publish them anew", file=out
        )
    if tally.others:
        say(f"{tally.others:,} came from an earlier topic of this name", file=out)


def _facts_json(facts: Facts, state: State) -> dict[str, object]:
    return {
        "partition": facts.partition,
        "offset": facts.offset,
        "generation": facts.generation,
        "time": _time(facts.timestamp_ms),
        "reason": facts.reason,
        "schema_id": facts.schema_id,
        "key_bytes": facts.key_bytes,
        "value_bytes": facts.value_bytes,
        "header_names": list(facts.header_names),
        "refused": _time(facts.refused_ms),
        "state": state.name.lower(),
    }


def _others(count: int) -> str:
    return f", and {count:,} of an earlier topic of this name" if count else ""


def _time(milliseconds: int) -> str | None:
    if not holdable(np.array([milliseconds], np.int64))[0]:
        return None
    return time_json(datetime.fromtimestamp(milliseconds / 1_000, UTC))
