"""Lineage beside the sinks: settings that are wrong, backends that hang, refuse and answer."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.transport import Transport
from openlineage.client.transport.http import HttpTransport
from structlog.testing import capture_logs

from headrace.schemas.environment import EnvironmentSettings
from headrace.schemas.errors import SettingsError, UserError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.lineage import watching
from headrace.selfserve.lineage.transport import is_switched_off, open_client
from headrace.selfserve.lineage.watching import telling_lineage
from headrace.selfserve.main import main
from headrace.selfserve.stack import Endpoints
from headrace.sinks.landing import Landed
from headrace.sinks.watch import Unwatched, Watchers
from headrace.streams.ledger import Ledger
from tests.support.lake import Lake
from tests.support.meshes import ORDER, ORDERS, write, write_mesh
from tests.support.openlineage import Backend, no_settings_here, refused
from tests.support.sinks import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product

# A busy machine may take long for what takes milliseconds.
WAIT_S = 60.0
NOBODY = Endpoints("127.0.0.1:9", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(watching, "CLOSE_S", WAIT_S)
    with no_settings_here(monkeypatch, tmp_path):
        yield


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    """A mesh whose servers nobody runs."""
    root = tmp_path / "mesh"
    write_mesh(root, NOBODY, "t.", {ORDERS: ORDER})
    return load_mesh(root, environment="cluster")


def landing(number: int) -> Landed:
    return Landed(number, Ledger.begin("topic", {0: 0}), 10)


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as backend:
        yield backend


def use(backend: Backend, monkeypatch: pytest.MonkeyPatch, **transport: Any) -> None:
    """Let the library's own settings name a backend, by a transport that gives up soon and does not try again."""
    given = {"type": "http", "url": backend.url, "timeout": 0.5, "retry": {"total": 0}, **transport}
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(given))


def test_events_reach_a_backend_in_order(mesh: Mesh, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    use(backend, monkeypatch, timeout=30)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "ours")
    product = mesh.product(ORDERS)
    with capture_logs() as logs, telling_lineage(mesh, open_client()) as watcher:
        watcher.running(product)
        watcher.landed(product, landing(1), 0.1)
        watcher.ended(product, None)
    assert backend.told()[0] == "START"
    assert backend.told()[-1] == "COMPLETE"
    assert not [fault for event in backend.events for fault in refused(event)]
    assert {event["job"]["namespace"] for event in backend.events} == {"ours"}
    assert backend.events[0]["inputs"][0]["namespace"] == "kafka://127.0.0.1:9"
    # There is no table yet: that is told, and keeps nothing back.
    assert "lineage is told without a new look at the table" in {line["event"] for line in logs}
    assert "lineage was not delivered whole" not in {line["event"] for line in logs}


def test_a_backend_that_hangs_then_refuses_then_answers_holds_nobody_up(
    mesh: Mesh, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(backend, monkeypatch, timeout=0.2)
    monkeypatch.setattr("headrace.selfserve.lineage.outbox.RUNNING_EACH_S", 0.0)
    product, client = mesh.product(ORDERS), open_client()
    backend.answers.clear()
    with capture_logs() as logs, telling_lineage(mesh, client) as watcher:

        def land_until_asked(times: int) -> None:
            goal = backend.asked + times

            def is_asked() -> bool:
                watcher.landed(product, landing(1), 0.1)
                return backend.asked >= goal

            assert eventually(is_asked, within_s=WAIT_S)

        watcher.running(product)
        # It hangs, and the sink lands on.
        land_until_asked(2)
        backend.status = 500
        backend.answers.set()
        # What answers is given the time that a busy machine takes.
        assert isinstance(client.transport, HttpTransport)
        client.transport.timeout = WAIT_S
        land_until_asked(2)
        assert backend.told() == []
        backend.status = 200

        def delivered() -> bool:
            watcher.landed(product, landing(7), 0.1)
            return "RUNNING" in backend.told()

        assert eventually(delivered, within_s=WAIT_S)
        watcher.ended(product, None)
    # The START that nobody took came first after all.
    assert backend.told()[0] == "START"
    assert backend.told()[-1] == "COMPLETE"
    counts = [event["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] for event in backend.events]
    assert counts == sorted(counts)
    said = [line["event"] for line in logs if line["log_level"] != "info" or "again" in line["event"]]
    assert said == ["lineage is not delivered", "lineage is delivered again", "lineage was not delivered whole"]


def test_a_backend_that_hangs_for_ever_keeps_no_process_from_ending(
    mesh: Mesh, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(backend, monkeypatch, timeout=3600)
    monkeypatch.setattr(watching, "CLOSE_S", 0.2)
    backend.answers.clear()
    product = mesh.product(ORDERS)
    with capture_logs() as logs, telling_lineage(mesh, open_client()) as watcher:
        watcher.running(product)
        assert eventually(lambda: backend.asked == 1)
        watcher.ended(product, None)
    (line,) = [line for line in logs if line["event"] == "lineage was not delivered whole"]
    # The START that is under way, and the COMPLETE behind it.
    assert line["events"] == 2


@dataclass
class Broken(Transport):
    """A transport that fails each time: as most do, or by its log alone, as the library's Kafka transport does."""

    kind = "broken"
    raises: bool = True
    seen: list[Any] = field(default_factory=list)

    def emit(self, event: Any) -> None:
        self.seen.append(event)
        if self.raises:
            raise KeyError("hush-hush")
        logging.getLogger("openlineage.client.transport.broken").error("hush-hush")


@pytest.mark.parametrize(("raises", "kind"), [(True, "KeyError"), (False, "the transport logged an error")])
def test_what_a_transport_says_is_logged_by_its_kind_alone(mesh: Mesh, raises: bool, kind: str) -> None:
    transport = Broken(raises)
    with capture_logs() as logs, telling_lineage(mesh, OpenLineageClient(transport=transport)) as watcher:
        watcher.running(mesh.product(ORDERS))
        assert eventually(lambda: bool(transport.seen))
    (line,) = [line for line in logs if line["event"] == "lineage is not delivered"]
    assert line["kind"] == kind
    assert "hush" not in str(logs)


def test_a_table_that_cannot_be_read_is_a_bug_of_one_parcel(
    mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks the thread's own work is logged and counted, and the thread goes on."""
    lake = Lake(tmp_path / "lake", mesh.product(ORDERS).schema)
    looks = iter([ZeroDivisionError("hush-hush"), lake.table])

    def load(*_: Any) -> Any:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(watching, "load_table", load)
    out = tmp_path / "events.jsonl"
    monkeypatch.setenv(
        "OPENLINEAGE__TRANSPORT", json.dumps({"type": "file", "log_file_path": str(out), "append": True})
    )
    product = mesh.product(ORDERS)
    with capture_logs() as logs, telling_lineage(mesh, open_client()) as watcher:
        watcher.running(product)
        assert eventually(lambda: any(line["log_level"] == "error" for line in logs))
        watcher.ended(product, None)
    (event,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert (event["eventType"], len(event["outputs"])) == ("COMPLETE", 1)
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert line["kind"] == "ZeroDivisionError"
    assert "hush" not in str(logs)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "do not say where lineage goes"),
        ({"OPENLINEAGE_CONFIG": "nowhere.yml"}, "there is no such file"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "htpp"}, "htpp"),
        ({"OPENLINEAGE__TRANSPORT__TYPE": "http"}, "`url` key not passed"),
        ({"OPENLINEAGE_URL": "hush-hush"}, "Need valid url for OpenLineageClient, passed …"),
        ({"OPENLINEAGE__TRANSPORT": '{"type": "kafka", "topic": "t"}'}, "kafka `config` not passed"),
        (
            {
                "OPENLINEAGE__TRANSPORT": json.dumps(
                    {"type": "kafka", "topic": "t", "config": {"sasl.mechanism": "hush-hush", "no.such": "hush-hush"}}
                )
            },
            "o.such",
        ),
    ],
)
def test_settings_that_make_no_sense_are_one_error(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused_:
        open_client()
    assert said in refused_.value.what
    assert "hush" not in str(refused_.value)
    assert not caplog.records


@pytest.mark.parametrize("text", ["{", "", "transport: hush-hush", "transport: {type: http, url: 7}", "- a"])
def test_a_file_that_makes_no_sense_is_one_error(text: str, tmp_path: Path) -> None:
    write(tmp_path / "openlineage.yml", text)
    with pytest.raises(SettingsError) as refused_:
        open_client()
    assert "hush" not in str(refused_.value)


def test_the_command_says_it_before_anything_starts(mesh: Mesh, capsys: pytest.CaptureFixture[str]) -> None:
    described = (mesh.root / "mesh.yaml").read_text()
    write(mesh.root / "mesh.yaml", described.replace("sink: {", "sink: {openlineage: true, "))
    assert main(["--mesh", str(mesh.root), "--environment", "cluster", "sink"]) == 1
    told = capsys.readouterr().err
    assert "error: they do not say where lineage goes" in told
    assert "OPENLINEAGE_URL" in told
    assert "keeping" not in told


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    with pytest.raises(UserError) as refused_:
        open_client()
    assert "headrace[openlineage]" in (refused_.value.hint or "")


def test_lineage_is_told_only_where_an_environment_asks_for_it(mesh: Mesh) -> None:
    assert not mesh.environment.openlineage
    asked = EnvironmentSettings.model_validate({"stack": "embedded", "sink": {"openlineage": True}})
    assert replace(mesh.environment, settings=asked).openlineage


def test_lineage_that_is_switched_off_is_told_to_nobody(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    client = open_client()
    assert is_switched_off(client)
    with telling_lineage(mesh, client) as watcher:
        assert type(watcher) is Unwatched


class Faulty(Unwatched):
    """A watcher with a bug."""

    def running(self, product: Product) -> None:
        raise ZeroDivisionError("hush-hush")


def test_a_watcher_that_is_broken_keeps_nothing_from_the_others(mesh: Mesh) -> None:
    told: list[str] = []

    class Counting(Unwatched):
        def running(self, product: Product) -> None:
            told.append(str(product.name))

    with capture_logs() as logs:
        Watchers([Counting(), Faulty(), Counting()]).running(mesh.product(ORDERS))
    assert told == [ORDERS, ORDERS]
    (line,) = logs
    assert (line["watcher"], line["kind"]) == ("Faulty", "ZeroDivisionError")
    assert "hush" not in str(line)
