"""How a mesh's status is shown: tables for people, one JSON object for programs, once or again and again."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.selfserve.documents import error_json, hold_json, time_json
from headrace.selfserve.output import ReportFormat, console, error_text, fitted, visible
from headrace.selfserve.snapshots_view import replay_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from headrace.selfserve.status import MeshStatus, ProductStatus

__all__ = ["show_status", "watch_status"]

_SERVERS = ("server", "state", "pid", "address", "log")
_PRODUCTS = (
    *("product", "state", "partitions", "lag rows", "lag s", "last commit, UTC", "snapshot"),
    *("rows", "dead letters", "findings"),
)
_NUMERIC = (False, False, True, True, True, False, True, True, True, True)
# What a narrow terminal can do without, least needed first.
_DROPPED: tuple[tuple[str, ...], ...] = ((), ("snapshot",), ("snapshot", "partitions"))
_UNKNOWN = "?"


def show_status(status: MeshStatus, form: ReportFormat, out: TextIO) -> None:
    """Write a status once: tables and faults for people, an indented object for programs."""
    if form is ReportFormat.JSON:
        out.write(json.dumps(_document(status), ensure_ascii=False, indent=2) + "\n")
        return
    screen = console(out)
    screen.print(_view(status, screen))


def watch_status(look: Callable[[], MeshStatus], form: ReportFormat, out: TextIO, pause: Callable[[], None]) -> None:
    """Look and show until interrupted: in place on a terminal, else a report a look (JSON: a line a look).

    Args:
        look: looks at the mesh.
        form: how to write.
        out: where to.
        pause: is called between two looks.
    """
    screen = console(out)
    if form is ReportFormat.JSON or not screen.is_terminal:
        while True:
            status = look()
            if form is ReportFormat.JSON:
                out.write(json.dumps(_document(status), ensure_ascii=False) + "\n")
            else:
                screen.print(_view(status, screen), Text())
            out.flush()
            pause()
    with Live(Text("looking"), console=screen, auto_refresh=False) as live:
        while True:
            live.update(_view(look(), screen), refresh=True)
            pause()


def _view(status: MeshStatus, screen: Console) -> RenderableType:
    parts: list[RenderableType] = []
    if status.servers:
        servers = [(each.name, each.state, each.pid, each.address, each.log) for each in status.servers]
        parts += [fitted(screen, _SERVERS, servers, [name == "pid" for name in _SERVERS]), Text()]
    parts.append(_products(status, screen))
    return Group(*parts, *map(Text, _notes(status)))


def _products(status: MeshStatus, screen: Console) -> RenderableType:
    """Return the products' table; on a narrow terminal without some columns, or as one record below another."""
    rows = [_row(product) for product in status.products]
    for dropped in _DROPPED:
        kept = [place for place, name in enumerate(_PRODUCTS) if name not in dropped]
        narrower = [[row[place] for place in kept] for row in rows]
        shown = fitted(screen, [_PRODUCTS[place] for place in kept], narrower, [_NUMERIC[place] for place in kept])
        if isinstance(shown, Table):
            return shown
    return fitted(screen, _PRODUCTS, rows, _NUMERIC)


def _notes(status: MeshStatus) -> Iterator[str]:
    for product in status.products:
        if product.hold is not None:
            yield visible(f"{product.product} is {product.hold}")
        if product.replay_from is not None:
            yield visible(replay_left(product.product, product.replay_from))
        yield from map(error_text, product.faults)
    if status.stray_findings:
        yield f"open findings of topics that belong to no product: {status.stray_findings} (headrace findings --open)"
    yield from map(error_text, status.unasked)


def _row(product: ProductStatus) -> tuple[str, ...]:
    lag = product.lag
    seconds = None if lag is None or lag.seconds is None else f"{lag.seconds:,.1f}"
    never = product.rows is not None and not product.faults and product.snapshot_id is None
    committed = None if product.committed_s is None else f"{_time(product.committed_s):%Y-%m-%d %H:%M:%S}"
    return (
        product.product,
        _state(product),
        _number(product.partitions),
        _UNKNOWN if lag is None else f"{'' if lag.exact else '≤ '}{lag.rows:,}",
        seconds or _UNKNOWN,
        committed or ("never" if never else _UNKNOWN),
        _UNKNOWN if product.snapshot_id is None and not never else str(product.snapshot_id or ""),
        _number(product.rows),
        _number(product.dead_letters),
        _number(product.open_findings),
    )


def _state(product: ProductStatus) -> str:
    if product.faults:
        return "fault"
    if product.held:
        return "held"
    return "no answer" if product.lag is None else "ok"


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _document(status: MeshStatus) -> dict[str, Any]:
    return {
        "fine": status.fine,
        "servers": [
            {"server": each.name, "state": each.state, "pid": each.pid, "address": each.address, "log": each.log}
            for each in status.servers
        ],
        "products": [_product_document(product) for product in status.products],
        "stray_findings": status.stray_findings,
        "unasked": [error_json(error) for error in status.unasked],
    }


def _product_document(product: ProductStatus) -> dict[str, Any]:
    lag = product.lag
    return {
        "product": product.product,
        "topic": product.topic,
        "partitions": product.partitions,
        "lag_rows": lag.rows if lag else None,
        "lag_exact": lag.exact if lag else None,
        "lag_seconds": round(lag.seconds, 3) if lag and lag.seconds is not None else None,
        "last_commit": time_json(_time(product.committed_s)) if product.committed_s is not None else None,
        "snapshot_id": product.snapshot_id,
        "rows": product.rows,
        "snapshots": product.snapshots,
        "files": product.files,
        "dead_letters": product.dead_letters,
        "held": hold_json(product.hold) if product.hold else None,
        "replay_from": product.replay_from,
        "open_findings": product.open_findings,
        "faults": [error_json(error) for error in product.faults],
    }
