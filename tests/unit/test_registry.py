"""What a registry's answers mean, told by a small HTTP server that gives them."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Refusal, SchemaError, SettingsError, Unavailable, UserError
from headrace.schemas.registered import UnreadableSchema
from headrace.schemas.registry import DEFAULTS, TIMEOUT_S, Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCHEMA = AvroSchema.parse('{"type": "record", "name": "E", "fields": [{"name": "a", "type": "int"}]}')
NOT_FOUND = {"error_code": 40403, "message": "Schema not found"}


@dataclass
class Answers:
    """What the server gives to every request, but for some paths, and the requests that it got."""

    status: int = 200
    body: str = "{}"
    paths: dict[str, tuple[int, str]] = field(default_factory=dict)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)


@contextmanager
def serving(answers: Answers) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.seen.append((self.command, self.path, self.headers.get("Authorization")))
            status, body = answers.paths.get(self.path.partition("?")[0], (answers.status, answers.body))
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def registry(answers: Answers) -> Iterator[Registry]:
    with serving(answers) as place, Registry({"url": f"http://{place}", "max.retries": "0"}) as registry:
        yield registry


CALLS: dict[str, Callable[[Registry], object]] = {
    "register": lambda registry: registry.register("s", SCHEMA),
    "lookup": lambda registry: registry.lookup("s", SCHEMA),
    "schema": lambda registry: registry.schema(1),
    "versions": lambda registry: registry.versions("s"),
    "compatibility": lambda registry: registry.compatibility("s"),
    "set_compatibility": lambda registry: registry.set_compatibility("s", "FULL"),
}


NO_VERDICTS = [
    (500, "{}", "fails (500)"),
    (503, "<html>", "fails (503)"),
    (429, '{"error_code": 429, "message": "slow down"}', "fails (429)"),
    (401, '{"error_code": 401, "message": "no"}', "refuses the credentials (401)"),
    (403, "", "refuses the credentials (403)"),
    (404, "<html>", "no schema registry"),
    (404, '{"error_code": 404, "message": "HTTP 404 Not Found"}', "no schema registry"),
    (200, "<html>", "no schema registry"),
    (200, '"ok"', "no schema registry"),
    (302, "", "no schema registry"),
]


@pytest.mark.parametrize(
    ("name", "status", "body", "what"),
    [
        (name, *verdict)
        for name in CALLS
        for verdict in NO_VERDICTS
        if (name, verdict[0]) != ("set_compatibility", 200)  # whose answer is not read
    ],
)
def test_what_is_no_verdict_means_wait(
    registry: Registry, answers: Answers, name: str, status: int, body: str, what: str
) -> None:
    answers.status, answers.body = status, body
    with pytest.raises(Unavailable) as caught:
        CALLS[name](registry)
    assert what in caught.value.what
    assert caught.value.where == registry.address


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_registry_that_is_not_there_is_named_without_credentials(call: Callable[[Registry], object]) -> None:
    registry = Registry({"url": "http://anna:hunter2@127.0.0.1:1/v7", "max.retries": "0"})
    with registry, pytest.raises(Unavailable) as caught:
        call(registry)
    assert caught.value.where == "http://127.0.0.1:1/v7"
    assert "hunter2" not in str(caught.value)


def test_only_the_registrys_own_404_refuses_a_message(registry: Registry, answers: Answers) -> None:
    answers.status, answers.body = 404, json.dumps(NOT_FOUND)
    with pytest.raises(Refusal) as caught:
        registry.schema(7)
    assert caught.value.reason == "unknown-schema"
    # Nothing is remembered of it: the schema may be there the next time.
    answers.status, answers.body = 200, json.dumps({"schema": SCHEMA.text})
    assert registry.schema(7) == SCHEMA
    answers.status = 500
    assert registry.schema(7) == SCHEMA


def test_an_unknown_subject_is_no_error(registry: Registry, answers: Answers) -> None:
    answers.status, answers.body = 404, json.dumps({"error_code": 40401, "message": "Subject 's' not found."})
    assert registry.lookup("s", SCHEMA) is None
    assert registry.versions("s") == ()


@pytest.mark.parametrize("code", [40401, 40402, 40403])
def test_a_version_that_goes_while_it_is_read_does_not_make_the_subject_unknown(
    registry: Registry, answers: Answers, code: int
) -> None:
    """What the sink would mask by the versions that are left would be too little."""
    answers.paths["/subjects/s/versions"] = (200, "[1, 2]")
    answers.paths["/subjects/s/versions/1"] = (
        200,
        json.dumps({"subject": "s", "version": 1, "id": 7, "schema": SCHEMA.text}),
    )
    answers.status, answers.body = 404, json.dumps({"error_code": code, "message": "not found"})
    with pytest.raises(Unavailable, match="versions of s cannot be read") as caught:
        registry.versions("s")
    assert caught.value.hint
    answers.paths["/subjects/s/versions"] = (200, "[1]")
    assert [version.id for version in registry.versions("s")] == [7]


@pytest.mark.parametrize(("status", "code"), [(404, 40402), (404, 40403), (422, 42201), (409, 409)])
def test_only_an_unknown_subject_has_no_versions(registry: Registry, answers: Answers, status: int, code: int) -> None:
    answers.status, answers.body = status, json.dumps({"error_code": code, "message": "not found"})
    with pytest.raises(Unavailable, match="versions of s cannot be read"):
        registry.versions("s")


def test_a_version_that_cannot_be_read_hides_no_other(registry: Registry, answers: Answers) -> None:
    answers.paths["/subjects/s/versions"] = (200, "[1, 2]")
    texts = {1: {"id": 7, "schema": SCHEMA.text}, 2: {"id": 8, "schema": "{}", "schemaType": "JSON"}}
    for number, text in texts.items():
        answers.paths[f"/subjects/s/versions/{number}"] = 200, json.dumps({"subject": "s", "version": number, **text})
    one, two = registry.all_versions("s")
    assert (one.id, two.id, two.version) == (7, 8, 2)
    assert isinstance(two, UnreadableSchema)
    assert two.what == "this is a JSON schema"
    with pytest.raises(SchemaError, match="this is a JSON schema") as caught:
        registry.versions("s")
    assert caught.value.where == "schema id 8"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ({"schema": "{}", "schemaType": "JSON"}, "this is a JSON schema"),
        ({"schema": '{"type": "record"'}, "this is not JSON"),
    ],
)
def test_a_schema_that_headrace_cannot_carry(
    registry: Registry, answers: Answers, answer: dict[str, Any], what: str
) -> None:
    answers.body = json.dumps(answer)
    with pytest.raises(SchemaError, match=what) as caught:
        registry.schema(7)
    assert caught.value.where == "schema id 7"


def test_an_incompatible_schema_is_a_persons_mistake_with_the_registrys_reason(
    registry: Registry, answers: Answers
) -> None:
    answers.status = 409
    answers.body = json.dumps({"error_code": 409, "message": "io.x.RuleException: field a\n was removed"})
    with pytest.raises(UserError) as caught:
        registry.register("s", SCHEMA)
    assert caught.value.what == "the schema is not compatible with the versions before it: field a was removed"
    assert caught.value.hint


def test_an_unknown_level_is_a_persons_mistake(registry: Registry, answers: Answers) -> None:
    answers.status, answers.body = 422, json.dumps({"error_code": 42203, "message": "Invalid compatibility level"})
    with pytest.raises(UserError, match="the registry refuses the level SIDEWAYS"):
        registry.set_compatibility("s", "SIDEWAYS")


def test_credentials_are_sent_and_never_shown(answers: Answers) -> None:
    with serving(answers) as place, Registry({"url": f"http://anna:hunter2@{place}/v7"}) as registry:
        answers.body = json.dumps({"schema": SCHEMA.text})
        registry.schema(1)
    ((method, path, authorization),) = answers.seen
    assert (method, path, authorization) == ("GET", "/v7/schemas/ids/1", "Basic YW5uYTpodW50ZXIy")
    assert registry.address == f"http://{place}/v7"


def test_a_registry_that_hangs_is_not_waited_for_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        registry = Registry({"url": url, "timeout": "0.2", "max.retries": "1"})
        with registry, pytest.raises(Unavailable, match="does not answer"):
            registry.schema(1)
    assert DEFAULTS["timeout"] == TIMEOUT_S


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({}, "not an http or https address"),
        ({"url": "hunter2"}, "not an http or https address"),
        ({"url": "http://x", "foo": "hunter2"}, "Unrecognized properties: foo"),
        ({"url": "http://x", "timeout": "hunter2"}, "timeout is not a number"),
        ({"url": "http://x", "basic.auth.user.info": "hunter2"}, "must be in the form"),
        ({"url": "http://x", "ssl.ca.location": "/nowhere/ca.pem"}, "settings are refused"),
    ],
)
def test_settings_that_are_refused(config: dict[str, str], what: str) -> None:
    with pytest.raises(SettingsError, match=what) as caught:
        Registry(config)
    assert "hunter2" not in str(caught.value)
