"""Whether JSON is an OpenLineage event, judged by the library's own classes; a backend; nobody else's settings."""

from __future__ import annotations

import http.server
import json
import os
import threading
import types
import typing
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

import attr
from openlineage.client.event_v2 import RunEvent
from openlineage.client.facet_v2 import BaseFacet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

# The classes are found by what they say their schema is; a facet of any other is none of the specification's.
_SCHEMA = "_schemaURL"


def refused(event: Any) -> list[str]:
    """Return what is wrong with a run event; the places are paths of the JSON."""
    return list(_faults(RunEvent, event, "event"))


def facets_of(dataset: Any) -> dict[str, Any]:
    """Return a dataset's facets without what they all have."""
    return {
        name: {key: value for key, value in facet.items() if key not in ("_producer", _SCHEMA)}
        for name, facet in dataset["facets"].items()
    }


def _subclasses(kind: type[Any]) -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {kind._get_schema(): kind} if hasattr(kind, "_get_schema") else {}
    for each in kind.__subclasses__():
        found |= _subclasses(each)
    return found


def _faults(kind: Any, value: Any, path: str) -> Iterator[str]:
    given = typing.get_args(kind)
    match typing.get_origin(kind) or kind:
        case typing.Any:
            return
        case typing.Union | types.UnionType:
            if value is None or all(list(_faults(each, value, path)) for each in given):
                yield f"{path}: {value!r} is none of {given}"
        case origin if origin in (list, dict):
            yield from _item_faults(origin, given[-1], value, path)
        case origin if attr.has(origin):
            yield from _object_faults(origin, value, path)
        case origin if issubclass(origin, Enum):
            if value not in [member.value for member in origin]:
                yield f"{path}: {value!r} is no {origin}"
        case origin:
            if type(value) is not origin:
                yield f"{path}: {value!r} is no {origin}"


def _item_faults(holder: type[Any], kind: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, holder):
        yield f"{path}: no {holder}"
        return
    items: dict[Any, Any] = value if isinstance(value, dict) else dict(enumerate(value))
    for key, item in items.items():
        yield from _faults(kind, item, f"{path}.{key}")


def _object_faults(kind: type[Any], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: no object"
        return
    if issubclass(kind, BaseFacet):
        known = _subclasses(kind)
        if value.get(_SCHEMA) not in known:
            yield f"{path}: {value.get(_SCHEMA)} is no {kind.__name__}"
            return
        kind = known[value[_SCHEMA]]
    hints = typing.get_type_hints(kind)
    fields: dict[str, attr.Attribute[Any]] = {field.name: field for field in attr.fields(kind)}
    for name, field in fields.items():
        if name in value:
            yield from _faults(hints[name], value[name], f"{path}.{name}")
        elif field.default is attr.NOTHING:
            yield f"{path}: no {name}"
    yield from (f"{path}: {name} is unknown" for name in value.keys() - fields.keys())


@contextmanager
def no_settings_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Keep out settings of whoever runs the tests, and in what the library itself puts into the environment."""
    before = set(os.environ)
    for name in before:
        if name.startswith("OPENLINEAGE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    try:
        yield
    finally:
        for name in os.environ.keys() - before:
            if name.startswith("OPENLINEAGE"):
                del os.environ[name]


class Backend:
    """A lineage backend on a free port. It answers as it is told: a status, or not at all until it is let go."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        self.answers = threading.Event()
        self.answers.set()
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Take an event, when and how it is told."""
                body = self.rfile.read(int(self.headers["Content-Length"]))
                backend.asked += 1
                backend.answers.wait(60)
                if backend.status == 200:
                    backend.events.append(json.loads(body))
                self.send_response(backend.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that gave up is no error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self) -> list[str]:
        """Return the types of the events that it took."""
        return [event["eventType"] for event in list(self.events)]
