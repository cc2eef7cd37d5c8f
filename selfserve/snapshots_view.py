"""A table's past states as a person or a program is shown them, and what a rollback or a replay would do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from headrace.schemas.errors import UsageError
from headrace.selfserve.documents import time_json
from headrace.selfserve.output import console, fitted, say, table, visible
from headrace.sinks.rollback import Way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.schemas.product import Product
    from headrace.sinks.generation import Succession
    from headrace.sinks.past_snapshots import PastSnapshot
    from headrace.sinks.replay.boundary import Note
    from headrace.sinks.replay.plan import Plan
    from headrace.sinks.rollback import Rollback
    from headrace.streams.ledger import Ledger

__all__ = [
    "moment_of",
    "replay_left",
    "show_replay",
    "show_rollback",
    "show_snapshots",
    "show_succession",
    "snapshot_of",
    "time_text",
    "write_snapshots",
]

_COLUMNS = ("snapshot", "made (UTC)", "", "operation", "rows added", "rows", "generation", "positions", "by")
_NUMERIC = (True, False, False, False, True, True, True, False, False)
_STANDING = {"current": "now", "main": "", "left": "taken back"}
# A topic of hundreds of partitions has its positions in the JSON.
_MOST_POSITIONS = 8


def show_snapshots(product: Product, found: Sequence[PastSnapshot], replayed: Note | None, out: TextIO) -> None:
    """Write past states for people, the newest first, and what there is of a replay that was not ended."""
    if not found:
        say(f"{product.name} has no snapshot yet", file=out)
        return
    rows = [
        (
            str(past.snapshot_id),
            time_text(past.committed_ms),
            _STANDING[past.standing],
            past.operation,
            past.added_rows,
            past.rows,
            past.ledger.generation if past.ledger else None,
            _positions(past.ledger),
            past.author,
        )
        for past in found
    ]
    screen = console(out)
    screen.print(fitted(screen, _COLUMNS, rows, _NUMERIC))
    if replayed is not None:
        say(visible(replay_left(str(product.name), replayed.begin)), file=out)


def replay_left(product: str, begin: str) -> str:
    """Return what people are told of a replay that has not ended: it keeps its rows beside the table's."""
    command = f"headrace replay {product}"
    return (
        f"{product} has a replay from {begin} that is under way or was broken off: "
        f"{command} --from {begin} goes on, {command} --abandon gives it up"
    )


def write_snapshots(product: Product, found: Sequence[PastSnapshot], replayed: Note | None, out: TextIO) -> None:
    """Write past states as one JSON object, with where a replay began that was not ended."""
    document = {
        "product": str(product.name),
        "replay_from": replayed.begin if replayed else None,
        "snapshots": [
            {
                # As text: programs that read JSON's numbers as doubles would change it.
                "snapshot": str(past.snapshot_id),
                "made": _iso(past.committed_ms),
                "standing": past.standing,
                "operation": past.operation,
                "rows_added": past.added_rows,
                "rows": past.rows,
                "generation": past.ledger.generation if past.ledger else None,
                "topic_id": past.ledger.topic_id if past.ledger else None,
                "positions": {str(p): at.next for p, at in sorted(past.ledger.positions.items())}
                if past.ledger
                else None,
                "by": past.author,
            }
            for past in found
        ],
    }
    out.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def show_rollback(product: Product, plan: Rollback, rows_now: int | None, out: TextIO) -> None:
    """Write what a rollback does, for people."""
    target = plan.target
    say(
        f"{product.name} goes back to snapshot {target.snapshot_id} of {time_text(target.committed_ms)} UTC: "
        f"{_count(target.rows)} rows, in the place of {_count(rows_now)}",
        file=out,
    )
    if plan.undone:
        count = len(plan.undone)
        say(
            f"{count} snapshot{'s' if count != 1 else ''} in between changed or deleted rows: that is undone, and rows "
            "come back as they were written, masked as they were then",
            file=out,
        )
    if plan.redriven:
        letters = f"headrace dlq list {product.name}"
        say(f"dead letters that were redriven in between are out of the table again: {letters}", file=out)
    verb = "to read again" if plan.way is Way.REREAD else "skipped, on record"
    between = plan.between if plan.way is Way.SKIP or plan.before is not None else {}
    if between:
        lines = [(p, first, end, end - first) for p, (first, end) in between.items()]
        console(out).print(table(("partition", "position then", "position now", verb), lines, [True] * 4))
    elif plan.before is None:
        say("the ledger that is now cannot be read; the sink goes on from the snapshot's own", file=out)
    else:
        say("no position lies behind the snapshot's: nothing is read again or skipped", file=out)


def show_replay(product: Product, plan: Plan, out: TextIO) -> None:
    """Write what a replay does, for people."""
    note = plan.note
    begin = plan.resumed if plan.resumed is not None else note.boundary.offsets
    word = "goes on with the replay" if plan.resumed is not None else "is replayed"
    say(f"{product.name} {word} from {note.begin}: up to {plan.offsets:,} offsets are read again", file=out)
    rows = [
        (p, note.boundary.offsets.get(p), first, plan.ledger.next(p), max(plan.ledger.next(p) - first, 0))
        for p, first in sorted(begin.items())
    ]
    names = ("partition", "rows stay below", "read from", "up to", "offsets to read")
    console(out).print(table(names, rows, [True] * len(names)))
    say("until old snapshots expire, the table keeps both the old and the new rows", file=out)


def show_succession(product: Product, found: Succession, out: TextIO) -> None:
    """Write what following another topic means, for people."""
    known = found.known
    say(f"{product.topic} was made anew: the table follows {known.topic_id}, Kafka has {found.topic_id}", file=out)
    say(
        f"the rows that there are stay as generation {known.generation}; those of the new topic become generation "
        f"{found.generation}. Events of the old topic that were not in the table are lost with it",
        file=out,
    )
    rows = [(p, known.next(p), marks.low, marks.end) for p, marks in sorted(found.marks.items())]
    names = ("partition", "position in the old topic", "read from", "end of the new log")
    console(out).print(table(names, rows, [True] * len(names)))


def time_text(milliseconds: int) -> str:
    """Return a time for people, UTC."""
    return f"{datetime.fromtimestamp(milliseconds / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def snapshot_of(text: str) -> int | None:
    """Return the snapshot's id that a text is; None: it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def moment_of(text: str) -> datetime:
    """Return the moment that a text tells, in UTC; without a zone it is UTC already.

    Raises:
        UsageError: if it tells none.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{text!r} is neither a snapshot's id nor a time",
            hint="say an id of `headrace snapshots`, or a time such as 2026-11-20T07:30Z",
        ) from None


def _positions(ledger: Ledger | None) -> str | None:
    if ledger is None:
        return None
    shown = [f"{p}:{at.next}" for p, at in sorted(ledger.positions.items())]
    more = len(shown) - _MOST_POSITIONS
    return " ".join(shown[:_MOST_POSITIONS]) + (f" … {more} more" if more > 0 else "")


def _count(rows: int | None) -> str:
    return "an unknown number of" if rows is None else f"{rows:,}"


def _iso(milliseconds: int) -> str:
    return time_json(datetime.fromtimestamp(milliseconds / 1_000, UTC))
