"""How a status is shown: to people, to programs, on a terminal that lives."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from headrace.schemas.errors import ProductStopped, Unavailable
from headrace.selfserve.backlog import Lag
from headrace.selfserve.output import ReportFormat
from headrace.selfserve.stack import ServerStatus
from headrace.selfserve.status import MeshStatus, ProductStatus
from headrace.selfserve.status_view import show_status, watch_status
from headrace.sinks.hold import Hold

NOON = dt.datetime(2026, 11, 23, 13, 0, 0, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))
KAFKA = ServerStatus("kafka", "running", 4711, "127.0.0.1:9092", "kafka.log")
GONE = Unavailable("the catalog does not answer", where="table shop.orders", hint="it is asked again")
ORDERS = ProductStatus(
    "shop.orders",
    "prod.shop.orders",
    partitions=4,
    lag=Lag(1_234, exact=True, seconds=2.25),
    snapshot_id=5_566,
    committed_s=1_700_000_000.5,
    rows=1_000_000,
    dead_letters=3,
    held=False,
    open_findings=2,
)


def mesh_of(*products: ProductStatus, **found: Any) -> MeshStatus:
    return MeshStatus(found.pop("servers", (KAFKA,)), products, found.pop("unasked", ()), **found)


def shown(status: MeshStatus) -> list[str]:
    out = io.StringIO()
    show_status(status, ReportFormat.TABLE, out)
    return out.getvalue().splitlines()


def row(product: ProductStatus) -> list[str]:
    """The cells of a product's row; two blanks part them."""
    line = next(line for line in shown(mesh_of(product)) if line.startswith(product.product))
    return [cell.strip() for cell in line.split("   ") if cell.strip()]


def test_a_product_is_a_row() -> None:
    assert row(ORDERS) == [
        "shop.orders", "ok", "4", "1,234", "2.2", "2023-11-14 22:13:20", "5566", "1,000,000", "3", "2",
    ]  # fmt: skip


def test_what_is_not_known_is_a_question_mark() -> None:
    assert row(ProductStatus("shop.orders", "t", unasked=(GONE,))) == ["shop.orders", "no answer", *["?"] * 8]


def test_a_table_without_a_commit_says_never() -> None:
    empty = ProductStatus("shop.orders", "t", 4, Lag(0, exact=True, seconds=0.0), rows=0, dead_letters=0, held=False)
    assert row(empty) == ["shop.orders", "ok", "4", "0", "0.0", "never", "0", "0", "?"]


def test_an_upper_bound_is_marked() -> None:
    far = ProductStatus("shop.orders", "t", 4, Lag(300_000, exact=False, seconds=None), rows=0)
    assert row(far)[3:5] == ["≤ 300,000", "?"]


def test_a_hold_and_a_fault_are_explained_below() -> None:
    held = ProductStatus("a.held", "t", 1, Lag(0, exact=True, seconds=0), held=True, hold=Hold("move\x1b[31m", None))
    gap = ProductStopped("Kafka has deleted offsets 4 to 5", where="topic b.lost", hint="headrace accept-gap b.lost")
    lines = shown(mesh_of(held, ProductStatus("b.lost", "t", 1, faults=(gap,)), unasked=(GONE,), stray_findings=1))
    states = {line.split()[0]: line.split()[1] for line in lines if line.startswith(("a.held ", "b.lost "))}
    assert states["b.lost"] == "fault"
    assert "a.held is held: move\\x1b[31m" in lines
    assert "error: Kafka has deleted offsets 4 to 5" in lines
    assert "  next: headrace accept-gap b.lost" in lines
    assert "error: the catalog does not answer" in lines
    assert any("belong to no product: 1 " in line for line in lines)


def test_a_replay_that_was_broken_off_is_told() -> None:
    (told,) = [line for line in shown(mesh_of(replace(ORDERS, replay_from="earliest\x1b[31m"))) if "replay" in line]
    assert "headrace replay shop.orders --abandon gives it up" in told
    assert "--from earliest\\x1b[31m goes on" in told


def test_the_document_for_programs() -> None:
    out = io.StringIO()
    show_status(mesh_of(ORDERS, stray_findings=0), ReportFormat.JSON, out)
    assert json.loads(out.getvalue()) == {
        "fine": True,
        "servers": [
            {"server": "kafka", "state": "running", "pid": 4711, "address": "127.0.0.1:9092", "log": "kafka.log"}
        ],
        "products": [
            {
                "product": "shop.orders", "topic": "prod.shop.orders", "partitions": 4, "lag_rows": 1234,
                "lag_exact": True, "lag_seconds": 2.25, "last_commit": "2023-11-14T22:13:20Z",
                "snapshot_id": 5566, "rows": 1000000, "snapshots": None, "files": None, "dead_letters": 3, "held": None,
                "replay_from": None, "open_findings": 2, "faults": [],
            }
        ],
        "stray_findings": 0,
        "unasked": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "fine"),
    [
        (mesh_of(ORDERS), True),
        (mesh_of(ORDERS, servers=()), True),
        (mesh_of(ORDERS, servers=(ServerStatus("kafka", "crashed", None, "", ""),)), False),
        (mesh_of(ORDERS, unasked=(GONE,)), False),
        (mesh_of(ProductStatus("a.b", "a.b", faults=(ProductStopped("a gap"),))), False),
    ],
)
def test_fine_is_every_server_answering_and_no_fault(status: MeshStatus, fine: bool) -> None:
    assert status.fine is fine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("columns", "missing"),
    [(140, set()), (120, {"snapshot"}), (101, {"snapshot", "partitions"}), (60, None)],
)
def test_a_narrow_terminal_does_without_some_columns(
    columns: int, missing: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    long = replace(ORDERS, snapshot_id=4_278_335_394_013_251_226)
    show_status(mesh_of(long, servers=()), ReportFormat.TABLE, terminal)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert all(len(line) <= columns for line in lines)
    heads = {"state", "partitions", "lag rows", "snapshot", "dead letters", "findings"}
    if missing is not None:
        assert {head for head in heads if head not in lines[0]} == missing
    else:
        assert lines[0].strip() == "row 1"
        assert any("4278335394013251226" in line for line in lines)


class Looks:
    """Looks that find another lag each time, and are interrupted after a few."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.paused = 0

    def look(self) -> MeshStatus:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return mesh_of(ProductStatus("shop.orders", "t", 4, Lag(self.left, exact=True, seconds=1.0)))

    def pause(self) -> None:
        self.paused += 1


def test_watching_on_a_terminal_shows_each_look_in_the_place_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LINES", "50")
    monkeypatch.setenv("TERM", "xterm")
    looks, terminal = Looks(3), Terminal()
    with pytest.raises(KeyboardInterrupt):
        watch_status(looks.look, ReportFormat.TABLE, terminal, looks.pause)
    text = terminal.getvalue()
    assert looks.paused == 3
    assert text.count("lag rows") == 4  # each look, and once more at the end
    assert "\x1b[1A" in text  # up again, over the last look
    assert text.endswith("\x1b[?25h")  # the cursor is shown again


def test_watching_as_json_is_a_line_a_look() -> None:
    looks, out = Looks(3), Terminal()
    with pytest.raises(KeyboardInterrupt):
        watch_status(looks.look, ReportFormat.JSON, out, looks.pause)
    assert [json.loads(line)["products"][0]["lag_rows"] for line in out.getvalue().splitlines()] == [2, 1, 0]


@pytest.mark.parametrize(("since", "said"), [(NOON, "2026-11-23T12:00:00Z"), (None, None)])
def test_a_hold_is_told_to_programs_by_reason_and_time(since: dt.datetime | None, said: str | None) -> None:
    out = io.StringIO()
    show_status(mesh_of(replace(ORDERS, held=True, hold=Hold("move", since))), ReportFormat.JSON, out)
    (product,) = json.loads(out.getvalue())["products"]
    assert product["held"] == {"reason": "move", "since": said}
