"""Publishing a file of events: JSON Lines or CSV."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.producers.csv_rows import csv_rows
from headrace.producers.events import event_converter
from headrace.producers.lines import BadLine, Row, json_rows
from headrace.producers.resumable import Published, publish_all
from headrace.producers.values import json_reader
from headrace.schemas.errors import EventError, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

# More bad lines than a person reads are counted, not kept.
MAX_BAD_LINES = 1_000
JSON_SUFFIXES = (".jsonl", ".ndjson")
CSV_SUFFIXES = (".csv",)


@dataclass(frozen=True, slots=True)
class FilePublished:
    """What publishing a file came to.

    Attributes:
        published: what was sent; None if bad lines kept all of it back.
        good: how many events the file holds.
        bad_lines: how many lines cannot be published. The command ends with 1 if there is any.
        bad: the first 1,000 of them.
    """

    published: Published | None
    good: int
    bad_lines: int
    bad: tuple[BadLine, ...]


def publish_file(
    mesh: Mesh,
    product: str,
    path: Path,
    *,
    skip_bad: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> FilePublished:
    """Publish a file of events, whole or not at all, once.

    The whole file is checked before the first event leaves. Bad lines keep all of it back, unless ``skip_bad`` sends
    the others. The file's content is its identity (its name is not): a killed run is continued by the next, and a file
    that was published to its end sends nothing again. A file whose content has changed is another file, and all of its
    events are sent, those that an earlier state of it held included: to publish what was added, put it into a file of
    its own.

    Args:
        mesh: the mesh.
        product: the product's name.
        path: JSON Lines (``.jsonl``, ``.ndjson``) or CSV (``.csv``), UTF-8. How values are written, `values` says.
        skip_bad: send the other lines.
        on_progress: called after each commit with the number of events that it held.

    Raises:
        UserError: if the file cannot be read, is of another kind, changes meanwhile, or its header does not fit.
        NotApplied: as `publish_all`.
        Unavailable: as `publish_all`.
    """
    found = mesh.product(product)
    rows = _reader(found, path)
    with _opened(path) as file:
        before = os.fstat(file.fileno())
        identity = f"file:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        good, count, bad = _check(found, rows(_from_start(file)))
        _refuse_change(file, before, path)
        if count and not skip_bad:
            return FilePublished(None, good, count, bad)

        def source() -> Iterator[tuple[int, object]]:
            for row in _checked(found, rows(_from_start(file))):
                if row.bad is None:
                    yield row.last_line, row.event
            # Asked before the last batch is committed.
            _refuse_change(file, before, path)

        published = publish_all(mesh, product, source(), identity=identity, on_progress=on_progress)
    return FilePublished(published, good, count, bad)


def _from_start(file: BufferedReader) -> BufferedReader:
    file.seek(0)
    return file


def _refuse_change(file: BufferedReader, before: os.stat_result, path: Path) -> None:
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise UserError("the file changes while it is read", where=str(path), hint="publish it when it is complete")


def _reader(product: Product, path: Path) -> Callable[[BufferedReader], Iterator[Row]]:
    suffix = path.suffix.lower()
    if suffix in JSON_SUFFIXES:
        read = json_reader(product.schema.record)
        return lambda file: json_rows(file, read)
    if suffix in CSV_SUFFIXES:
        return lambda file: csv_rows(file, product.schema.record, str(path))
    raise UserError(
        "this is neither JSON Lines nor CSV", where=str(path), hint=f"name it {', '.join(JSON_SUFFIXES + CSV_SUFFIXES)}"
    )


def _opened(path: Path) -> BufferedReader:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise UserError("this is no ordinary file, and it is read twice", where=str(path), hint="save it as a file")
    return file


def _check(product: Product, rows: Iterator[Row]) -> tuple[int, int, tuple[BadLine, ...]]:
    """Return how many rows are good, how many bad, and the first of the bad."""
    good, count = 0, 0
    bad: list[BadLine] = []
    for row in _checked(product, rows):
        if row.bad is None:
            good += 1
            continue
        count += 1
        if len(bad) < MAX_BAD_LINES:
            bad.append(row.bad)
    return good, count, tuple(bad)


def _checked(product: Product, rows: Iterator[Row]) -> Iterator[Row]:
    convert = event_converter(product.schema, where=str(product.name))
    for row in rows:
        if row.bad is None:
            try:
                convert(row.event)
            except EventError as error:
                yield replace(row, bad=BadLine(row.line, error.field, error.what.removeprefix(f"{error.field}: ")))
                continue
        yield row
