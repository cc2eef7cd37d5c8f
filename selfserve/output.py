"""How results and errors look: tables for people, JSON and CSV for programs. Nothing here decides anything.

Texts come from events, so they are foreign: no markup in them is obeyed, and control characters, which could drive a
terminal, are shown as escapes.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from headrace.schemas.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import RenderableType
    from structlog.typing import FilteringBoundLogger

    from headrace.schemas.errors import Fault, HeadraceError

__all__ = [
    "Format",
    "LogFormat",
    "ReportFormat",
    "console",
    "error_text",
    "fitted",
    "log_to_stderr",
    "progress",
    "say",
    "show_error",
    "show_rows",
    "table",
    "visible",
    "write_csv",
    "write_json",
]

# A terminal table is for looking at; whoever wants all rows wants CSV.
TABLE_ROWS = 1_000
# Wide enough for any row: without a terminal, nothing is folded or cut.
_UNBOUNDED = 1_000_000
# Control characters; and those that end a line, or turn the order of what stands around them (Unicode TR 36, 3.1.2).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class ReportFormat(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


def console(file: TextIO) -> Console:
    """Return a console: colours and the terminal's width on a terminal, neither of them elsewhere."""
    terminal = file.isatty()
    return Console(
        file=file,
        width=None if terminal else _UNBOUNDED,
        no_color=None if terminal else True,
        highlight=False,
        markup=False,
        emoji=False,
    )


def say(text: str, *, file: TextIO | None = None) -> None:
    """Write a line for people, to stderr unless told otherwise; where logs are JSON, stderr gets it as a log line."""
    log = _json_log() if file is None else None
    if log is not None:
        log.info(text)
    else:
        print(text, file=file or sys.stderr)


@contextmanager
def progress(first: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows what goes on: one line that changes on a terminal, a line a step elsewhere."""
    if not sys.stderr.isatty():
        yield say
        return
    with console(sys.stderr).status(first) as status:
        yield lambda text: status.update(Text(visible(text)))


def log_to_stderr(form: LogFormat = LogFormat.TEXT) -> None:
    """Let structured log lines go to stderr; times are UTC.

    Args:
        form: text: coloured on a terminal, logfmt elsewhere. JSON: an object a line, from then on for all that goes to
            stderr: `say` and `show_error`, warnings and other lines of libraries too.
    """
    import structlog  # noqa: PLC0415 - most commands log nothing

    from headrace.selfserve.logs import log_as_json  # noqa: PLC0415

    if form is LogFormat.JSON:
        log_as_json(sys.stderr)
        return

    render = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def show_error(error: HeadraceError, *, file: TextIO | None = None) -> None:
    """Write an error as ``error: what``, ``where: …``, ``next: …``; every fault of a mesh on its own."""
    log = _json_log() if file is None else None
    if log is not None:
        for each in error.faults if isinstance(error, MeshError) else (error,):
            log.error("failed", what=each.what, where=each.where, next=each.hint)
        return
    out = file or sys.stderr
    if not isinstance(error, MeshError):
        say(error_text(error), file=out)
        return
    for fault in error.faults:
        say(error_text(fault), file=out)
    count = len(error.faults)
    say(f"{count} fault{'s' if count != 1 else ''}", file=out)


def _json_log() -> FilteringBoundLogger | None:
    """Return where a line for people goes while this process logs as JSON."""
    if "headrace.selfserve.logs" not in sys.modules:
        return None
    import structlog  # noqa: PLC0415 - most commands log nothing

    from headrace.selfserve.logs import logs_are_json  # noqa: PLC0415

    return structlog.get_logger("headrace") if logs_are_json() else None


def error_text(error: HeadraceError | Fault) -> str:
    """Return an error as lines: ``error: what``, ``where: …``, ``next: …``."""
    # A text of several lines (DuckDB's, with its mark under the place) keeps its shape: all its lines move together.
    lines = ["error: " + visible(error.what, keep_lines=True).replace("\n", "\n  ")]
    lines += [f"  where: {visible(error.where)}"] if error.where else []
    lines += [f"  next: {visible(error.hint)}"] if error.hint else []
    return "\n".join(lines)


def visible(text: str, *, keep_lines: bool = False) -> str:
    r"""Return the text with control characters as escapes (``\n``, ``\x1b``)."""

    def escape(match: re.Match[str]) -> str:
        char = match.group()
        if keep_lines and char == "\n":
            return char
        return _SHORT_ESCAPES.get(char) or (f"\\x{ord(char):02x}" if char < "\u0100" else f"\\u{ord(char):04x}")

    return _CONTROL.sub(escape, text)


def write_json(columns: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Write an array with one object for each row, a row a line."""
    out.write("[")
    before = "\n"
    for row in rows:
        out.write(before + _json(dict(zip(columns, row, strict=True))))
        before = ",\n"
    out.write("\n]\n" if before == ",\n" else "]\n")


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], out: TextIO) -> None:
    """Write RFC 4180 with a header; null is an empty field, an empty text is ``""``, nested values are JSON."""
    out.write(",".join(map(_cell, columns)) + "\n")
    out.writelines(",".join(map(_cell, row)) + "\n" for row in rows)


def show_rows(columns: Sequence[str], rows: Iterator[Sequence[Any]], numeric: Sequence[bool], out: TextIO) -> None:
    """Write a table of at most 1,000 rows and their number; rows too wide for the terminal go one below another."""
    shown = list(islice(rows, TABLE_ROWS))
    more = next(rows, None) is not None
    screen = console(out)
    screen.print(fitted(screen, columns, shown, numeric))
    count = len(shown)
    say(f"{count:,} row{'s' if count != 1 else ''}", file=out)
    if more:
        say(f"only the first {TABLE_ROWS:,} rows are shown; --format csv and --format json write all of them")


def fitted(
    screen: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]], numeric: Sequence[bool]
) -> RenderableType:
    """Return a table; where it is too wide for the screen, its rows one below another."""
    grid = table(columns, rows, numeric)
    if screen.measure(grid).minimum <= screen.width and _width(columns, rows) <= screen.width:
        return grid
    records = ((Text(f"row {number}", style="bold"), _record(columns, row)) for number, row in enumerate(rows, start=1))
    return Group(*(part for record in records for part in record))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Sequence[bool]) -> Table:
    """Return a table; numeric columns are set to the right."""
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        grid.add_column(Text(visible(column)), justify="right" if right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(_text, row))
    return grid


def _record(columns: Sequence[str], row: Sequence[Any]) -> Table:
    record = Table.grid(padding=(0, 2))
    record.add_column(style="dim", no_wrap=True)
    record.add_column(overflow="fold")
    for column, value in zip(columns, row, strict=True):
        record.add_row(Text(visible(column)), _text(value))
    return record


def _width(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    widths = [len(column) for column in columns]
    for row in rows:
        widths = [max(width, _text(value).cell_len) for width, value in zip(widths, row, strict=True)]
    return sum(widths) + 3 * len(widths)


def _text(value: object) -> Text:
    return Text("NULL", style="dim") if value is None else Text(visible(_plain_text(value)))


def _plain_text(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = _plain_text(value)
    return '"' + text.replace('"', '""') + '"' if not text or any(char in text for char in ',"\r\n') else text


def _json(value: object) -> str:
    # Not a number can no longer be in here: it was turned into text where the value was read.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
