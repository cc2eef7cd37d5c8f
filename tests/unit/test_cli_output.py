"""How rows, reports and errors are written."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from hypothesis import given
from hypothesis import strategies as st

from headrace.governance.marks import Gone, Spans
from headrace.governance.proof import Verdict
from headrace.governance.verify import Audit, ProductAudit
from headrace.schemas.errors import NotApplied
from headrace.selfserve.output import log_to_stderr, show_rows, visible, write_csv, write_json
from headrace.selfserve.report import show_audit, write_audit
from headrace.streams.ledger import Accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pytest

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
tables = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[values] * width), max_size=5))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(write: Callable[..., None], *arguments: Any) -> str:
    out = io.StringIO()
    write(*arguments, out)
    return out.getvalue()


@given(tables)
def test_json_is_an_array_of_objects(rows: list[tuple[Any, ...]]) -> None:
    columns = [f"column {number}" for number in range(len(rows[0]) if rows else 1)]
    text = written(write_json, columns, iter(rows))
    assert json.loads(text) == [dict(zip(columns, row, strict=True)) for row in rows]
    assert text.endswith("]\n")


@given(st.lists(st.tuples(st.text(), st.none() | st.integers()), max_size=5))
def test_csv_reads_back(rows: list[tuple[str, int | None]]) -> None:
    text = written(write_csv, ["a", 'b,"c"'], iter(rows))
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read == [["a", 'b,"c"'], *([text, "" if number is None else str(number)] for text, number in rows)]


def test_csv_tells_null_from_an_empty_text_and_nests_json() -> None:
    assert written(write_csv, ["a", "b", "c", "d"], iter([(None, "", [1, "x"], True)])) == (
        'a,b,c,d\n,"","[1, ""x""]",true\n'
    )


def test_a_table_without_a_terminal_has_no_colours_and_is_never_cut() -> None:
    long = "x" * 500
    text = written(show_rows, ["name", "n"], iter([(long, 1), (None, 20)]), [False, True])
    assert "\x1b" not in text
    header, _, first, second, count = text.splitlines()
    assert header.split() == ["name", "n"]
    assert first == f"{long}    1"
    assert second.split() == ["NULL", "20"]
    assert count == "2 rows"


def test_a_table_that_fits_no_terminal_goes_one_row_below_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    columns = [f"column_{number}" for number in range(9)]
    show_rows(columns, iter([tuple(range(9))]), [True] * 9, terminal)
    lines = [line.rstrip() for line in terminal.getvalue().splitlines()]
    assert lines[0] == "row 1"
    assert lines[1:10] == [f"column_{number}  {number}" for number in range(9)]


def test_a_large_result_is_shown_in_part_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def endless() -> Iterator[tuple[int]]:
        number = 0
        while True:
            yield (number,)
            number += 1

    text = written(show_rows, ["n"], endless(), [True])
    assert text.endswith("1,000 rows\n")
    assert "--format csv" in capsys.readouterr().err


def test_a_value_cannot_drive_the_terminal() -> None:
    text = written(show_rows, ["a\x1b"], iter([("\x1b[31m[bold]red[/bold]\n\x07",)]), [False])
    assert "\x1b" not in text
    assert r"\x1b[31m[bold]red[/bold]\n\x07" in text


@given(st.text())
def test_nothing_invisible_is_left(text: str) -> None:
    shown = visible(text)
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in shown)


def test_no_text_turns_the_order_of_what_stands_around_it() -> None:
    assert visible("lag 7\u202e1 rows\u2028next \u2066x\u2069") == r"lag 7\u202e1 rows\u2028next \u2066x\u2069"
    assert visible("naïve, 日本 🐢") == "naïve, 日本 🐢"


def test_logs_go_to_stderr_as_logfmt(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    try:
        structlog.get_logger("headrace.test").info("committed", rows=3, product="a.b")
    finally:
        structlog.reset_defaults()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("timestamp=2")
    assert shown.err.endswith("Z level=info event=committed rows=3 product=a.b\n")


def said_by(code: str) -> list[dict[str, Any]]:
    """What a process that logs as JSON writes to stderr, line by line."""
    start = "from headrace.selfserve.output import *; from headrace.selfserve.output import LogFormat\n"
    ran = subprocess.run(
        [sys.executable, "-c", f"{start}log_to_stderr(LogFormat.JSON)\n{textwrap.dedent(code)}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.stdout == ""
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    assert all(list(line)[:3] == ["timestamp", "level", "event"] for line in lines)
    assert all(line["timestamp"].endswith("Z") for line in lines)
    return lines


def test_a_log_line_as_json_has_its_fields() -> None:
    (line,) = said_by(
        """
        import structlog
        structlog.get_logger("headrace.sink").bind(product="a.b").info("committed", rows=3, lag_s=None)
        """
    )
    line.pop("timestamp")
    assert line == {"level": "info", "event": "committed", "product": "a.b", "rows": 3, "lag_s": None}


def test_lines_for_people_and_errors_become_log_lines_too() -> None:
    lines = said_by(
        """
        from headrace.schemas.errors import Fault, MeshError, UserError
        say("keeping 2 tables up to date")
        show_error(UserError("it is gone\\x1b[31m\\nand more", where="there", hint="wait"))
        show_error(MeshError([Fault("a.yaml:1", "wrong"), Fault("b.yaml:2", "bad", "write x")]))
        """
    )
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "keeping 2 tables up to date"), *[("error", "failed")] * 3,
    ]  # fmt: skip
    assert (lines[1]["what"], lines[1]["where"], lines[1]["next"]) == ("it is gone\x1b[31m\nand more", "there", "wait")
    assert [line["where"] for line in lines[2:]] == ["a.yaml:1", "b.yaml:2"]


def test_lines_of_libraries_do_not_break_json_lines() -> None:
    lines = said_by(
        """
        import logging, sys, threading, warnings
        library = logging.getLogger("some.library")
        library.info("not worth a line")
        library.warning("two\\nlines and %d%%", 7)
        library.warning("%d", "no number")
        library.log(35, "a level of its own")
        try:
            raise KeyError("ann@example.org")
        except KeyError:
            library.exception("it failed")
        warnings.warn("old", stacklevel=1)
        thread = threading.Thread(target=lambda: {}["ann@example.org"], name="worker")
        thread.start()
        thread.join()
        class Bad:
            def __del__(self): raise ValueError("ann@example.org")
        Bad()
        raise RuntimeError("ann@example.org")
        """
    )
    assert [(line["level"], line["event"].splitlines()[0], line.get("logger"), line.get("kind")) for line in lines] == [
        ("warning", "two", "some.library", None),
        ("warning", "%d", "some.library", None),
        ("warning", "a level of its own", "some.library", None),
        ("error", "it failed", "some.library", "KeyError"),
        ("warning", lines[4]["event"].splitlines()[0], "py.warnings", None),
        ("error", "an error that nobody caught", None, "KeyError"),
        ("error", "an error that nobody caught", None, "ValueError"),
        ("critical", "an error that nobody caught", None, "RuntimeError"),
    ]
    assert "UserWarning: old" in lines[4]["event"]
    assert "ann@example.org" not in json.dumps(lines)


def test_many_threads_and_libraries_write_whole_lines() -> None:
    lines = said_by(
        """
        import logging, threading, structlog
        def write(number):
            for _ in range(200):
                structlog.get_logger().info("x" * 5000, number=number)
                logging.getLogger("library").error("y" * 5000)
        threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        """
    )
    assert len(lines) == 8 * 200 * 2


def verdict(partition: int = 0, **found: Any) -> Verdict:
    def spans(offsets: Iterable[int]) -> Spans:
        return Spans.of(np.array(list(offsets), np.int64))

    names = ("missing", "pending", "doubled", "foreign", "skipped")
    faults: dict[str, Any] = {name: spans(found.pop(name, ())) for name in names}
    counts = {"events": 1_000, "rows": 1_000, "held": 1_000, "dead_lettered": 0, "newer": 0}
    return Verdict(partition=partition, generation=found.pop("generation", 1), **{**counts, **found}, **faults)


def audit(*verdicts: Verdict, accepted: Sequence[Accepted] = ()) -> Audit:
    return Audit((ProductAudit("a.b", "a.b", "id", verdicts, accepted={2: accepted}),))


def test_a_proof_says_what_it_proves() -> None:
    text = written(show_audit, audit(verdict(0), verdict(1, dead_lettered=3), verdict(1, generation=0, events=None)))
    assert text.splitlines()[-1] == (
        "proved: 2,000 events of 1 product, each in its table exactly once (3 dead-lettered)"
    )
    assert "gone" in text


def test_faults_are_told_with_offsets_and_next_steps() -> None:
    text = written(show_audit, audit(verdict(2, missing=[5, 6, 7, 9, 20, 30], pending=[40, 42], doubled=[1, 1])))
    assert "missing: a.b, generation 1, partition 2, offsets 5-7, 9, 20 and 1 more place\n" in text
    assert "pending: a.b, generation 1, partition 2, offsets 40 to 42\n" in text
    assert "doubled: a.b, generation 1, partition 2, offsets 1\n" in text
    assert "next: headrace sink --until-caught-up" in text
    assert text.splitlines()[-1] == "not proved: 6 missing, 2 pending, 2 doubled"


def test_what_kafka_no_longer_keeps_and_what_was_skipped_is_said() -> None:
    gone = Gone(rows=30, offsets=30, first=10, last=44)
    accepted = Accepted(first=60, end=65, at_s=1_795_435_200)
    report = audit(verdict(2, start=50, gone=gone, skipped=[60, 62], events=1_002), accepted=[accepted])
    text = written(show_audit, report)
    place = "a.b, generation 1, partition 2"
    assert (
        f"not compared: {place}, Kafka keeps nothing below offset 50: 30 rows of it, offsets 10 to 44; "
        "10 offsets from there on have no row, and whether they had events none can say\n"
    ) in text
    assert f"skipped: {place}, offsets 60, 62\n" in text
    assert f"accepted as lost: {place}, offsets 60-64 (2026-11-23T12:00:00Z)\n" in text
    assert text.splitlines()[-1] == (
        "proved: 1,002 events of 1 product, each in its table exactly once (2 skipped on record, 30 beyond retention)"
    )
    (partition,) = json.loads(written(write_audit, report))["products"][0]["partitions"]
    assert partition["not_compared"] == {"below": 50, "rows": 30, "first": 10, "last": 44, "without_row": 10}
    assert (partition["skipped"], partition["offsets"]) == (2, {"skipped": [[60, 60], [62, 62]]})
    assert partition["accepted"] == [{"first": 60, "end": 65, "at": "2026-11-23T12:00:00Z"}]
    assert "not compared" not in written(show_audit, audit(verdict(0)))
    assert "the table has none of it" in written(show_audit, audit(verdict(0, start=5)))


def test_of_many_places_the_first_are_written_and_the_others_counted() -> None:
    report = audit(verdict(0, missing=range(0, 3_000, 2)))
    assert "offsets 0, 2, 4 and 1,497 more places\n" in written(show_audit, report)
    (partition,) = json.loads(written(write_audit, report))["products"][0]["partitions"]
    assert (partition["missing"], len(partition["offsets"]["missing"])) == (1_500, 1_000)
    assert partition["more"] == {"missing": 500}


def test_a_product_that_could_not_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    fault = NotApplied("the table does not exist", where="table a.b", hint="headrace apply")
    report = Audit((ProductAudit("a.b", "a.b", "", (), fault),))
    assert written(show_audit, report) == "not proved: 1 product could not be checked\n"
    assert "error: the table does not exist" in capsys.readouterr().err
    (product,) = json.loads(written(write_audit, report))["products"]
    assert product["error"] == {"what": "the table does not exist", "where": "table a.b", "next": "headrace apply"}
    assert product["proved"] is False


def test_the_report_for_programs() -> None:
    document = json.loads(written(write_audit, audit(verdict(0), verdict(1, foreign=[3, 4, 8]))))
    assert document["proved"] is False
    first, second = document["products"][0]["partitions"]
    assert first == {
        "partition": 0, "generation": 1, "events": 1000, "rows": 1000, "missing": 0, "pending": 0, "doubled": 0,
        "foreign": 0, "dead_lettered": 0, "skipped": 0, "beyond_retention": 0, "newer": 0, "offsets": {}, "more": {},
        "not_compared": None, "accepted": [],
    }  # fmt: skip
    assert (second["foreign"], second["offsets"]) == (3, {"foreign": [[3, 4], [8, 8]]})


def test_a_library_s_message_that_cannot_be_written_ends_nothing() -> None:
    lines = said_by(
        """
        import logging
        class Odd:
            def __str__(self):
                raise RuntimeError("private")
        library = logging.getLogger("some.library")
        library.warning("%(name)s", {"other": 1})
        library.warning("odd: %s", Odd())
        library.warning(Odd())
        library.warning("and so on")
        """
    )
    assert [line["event"] for line in lines] == [
        "%(name)s", "odd: %s", "a message that cannot be written", "and so on",
    ]  # fmt: skip
