"""Lines of a file of events: each with its number and either its event or why it has none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.producers.scalars import Mismatch
from headrace.producers.values import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader

# A message holds a megabyte by default; nothing longer than this can become one.
MAX_LINE_BYTES = 16 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be published. ``field`` is the field's path, empty where the line as a whole is bad."""

    line: int
    field: str
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field + ': ' if self.field else ''}{self.what}"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: its first line, its last (the position of its event), and its event or fault."""

    line: int
    last_line: int
    event: Any = None
    bad: BadLine | None = None


def json_rows(file: BufferedReader, read: Callable[[Any], Any]) -> Iterator[Row]:
    """Yield the rows of JSON Lines: one object a line, UTF-8; empty lines are skipped."""
    for number, line in enumerate(lines(file), start=1):
        if line is None:
            fault = BadLine(number, "", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
            yield Row(number, number, bad=fault)
            continue
        if not line.strip():
            continue
        try:
            event = read(parse_json(line.decode().rstrip("\r\n")))
        except UnicodeDecodeError:
            yield Row(number, number, bad=BadLine(number, "", "the line is not UTF-8"))
        except Mismatch as mismatch:
            yield Row(number, number, bad=BadLine(number, mismatch.path, mismatch.what))
        except ValueError as error:
            yield Row(number, number, bad=BadLine(number, "", str(error)))
        else:
            yield Row(number, number, event)


def lines(file: BufferedReader) -> Iterator[bytes | None]:
    """Yield lines without the mark that some editors put before the first; None in place of one that is too long."""
    first = True
    while line := file.readline(MAX_LINE_BYTES + 1):
        line, first = line.removeprefix(_BOM) if first else line, False
        if len(line) <= MAX_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE_BYTES)
        yield None
