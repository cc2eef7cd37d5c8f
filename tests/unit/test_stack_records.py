"""What a stack remembers, its ports, and which stack an environment gets."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from headrace.schemas.environment import ENDPOINTS_FILE, Environment, EnvironmentSettings
from headrace.schemas.errors import Unavailable, UserError
from headrace.selfserve.stack import Endpoints, ExternalStack, kafka, ports, registry, stack_of
from headrace.selfserve.stack.compose import ComposeStack
from headrace.selfserve.stack.embedded import EmbeddedStack, embedded_stack
from headrace.selfserve.stack.records import Process, Record, State, write_json

FULL = Record({"client": 4001, "controller": 4002}, Process(17, 1234.56789), Process(16, 1230.5))


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    state = State(tmp_path / "new")
    state.write_record("kafka", FULL)
    state.write_record("registry", FULL.stopped())
    assert State(tmp_path / "new").records() == {"kafka": FULL, "registry": Record(FULL.ports)}


@pytest.mark.parametrize("text", ["", "{half", "[]", "7", '{"kafka": {}}', '{"kafka": {"ports": 3}}'])
def test_a_damaged_record_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "servers.json").write_text(text)
    assert State(tmp_path).records() == {}


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": 2, "b": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_environment_reads_the_endpoints_that_the_stack_writes(tmp_path: Path) -> None:
    settings = EnvironmentSettings(stack="embedded", catalog={"type": "sql"})
    environment = Environment(name="embedded", root=tmp_path, settings=settings)
    state = State(environment.state)
    state.write_endpoints(Endpoints("127.0.0.1:4001", "http://127.0.0.1:4002/apis/ccompat/v7"))
    assert (environment.state / ENDPOINTS_FILE).exists()
    assert environment.kafka_config()["bootstrap.servers"] == "127.0.0.1:4001"
    assert environment.registry_config()["url"] == "http://127.0.0.1:4002/apis/ccompat/v7"


def test_a_copied_mesh_knows_nothing_of_the_servers_of_the_original(tmp_path: Path) -> None:
    original, copy = State(tmp_path / "original"), State(tmp_path / "copy")
    original.write_record("kafka", Record(ports={"client": 4001}, process=Process(17, 1000.0)))
    shutil.copytree(original.folder, copy.folder)
    assert copy.records() == {}
    assert original.record("kafka").process == Process(17, 1000.0)


def test_one_process_is_one_pid_and_one_start() -> None:
    process = Process(17, 1000.0)
    assert process.is_same(Process(17, 1001.5))
    assert not process.is_same(Process(17, 1010.0))
    assert not process.is_same(Process(18, 1000.0))
    assert not process.is_same(None)


def test_remembered_ports_are_kept_while_they_are_free() -> None:
    first = ports.choose(["a", "b", "c"], {})
    assert len(set(first.values())) == 3
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", first["b"]))
        assert not ports.listens(first["b"])
        holder.listen()
        assert ports.listens(first["b"])
        assert not ports.is_free(first["b"])
        second = ports.choose(["a", "b", "c"], first)
    assert (second["a"], second["c"]) == (first["a"], first["c"])
    assert second["b"] != first["b"]
    assert ports.choose(["b"], first) == {"b": first["b"]}


def test_the_servers_listen_to_this_machine_alone() -> None:
    broker = kafka.settings({"client": 4001, "controller": 4002})
    assert broker["listeners"] == "CLIENTS://127.0.0.1:4001,CONTROLLER://127.0.0.1:4002"
    served = registry.settings({"http": 4003})
    assert {served["quarkus.http.host"], served["quarkus.management.host"]} == {"127.0.0.1"}


def test_the_servers_settings_hold_no_path_of_this_machine() -> None:
    every = {**kafka.settings({"client": 1, "controller": 2}), **registry.settings({"http": 3})}
    assert [value for value in every.values() if value.startswith("/") or "file:/" in value] == []


def environment(stack: str) -> Environment:
    addresses = {"kafka": {"bootstrap.servers": "b:1"}, "registry": {"url": "http://r"}} if stack == "external" else {}
    settings = EnvironmentSettings.model_validate({"stack": stack, "catalog": {"type": "sql"}, **addresses})
    return Environment(name="here", root=Path("/nowhere"), settings=settings)


def test_an_environment_gets_the_stack_it_names() -> None:
    assert isinstance(stack_of(environment("embedded")), EmbeddedStack)
    assert isinstance(stack_of(environment("compose")), ComposeStack)
    assert isinstance(stack_of(environment("external")), ExternalStack)


def test_external_servers_are_neither_started_nor_stopped() -> None:
    stack = stack_of(environment("external"))
    with pytest.raises(UserError, match="'here' are not headrace's to start"):
        stack.up(progress=print)
    with pytest.raises(UserError, match="'here' are not headrace's to stop"):
        stack.down(print)
    assert stack.status() == ()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "mesh").write_text("a file where a folder should be")
    with pytest.raises(Unavailable) as failure:
        embedded_stack(tmp_path / "mesh" / "state").up(progress=print)
    assert str(tmp_path / "mesh") in str(failure.value)
    assert failure.value.hint
