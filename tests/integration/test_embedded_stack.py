"""The embedded stack on real Kafka and a real registry: its whole life, and the ways it can be cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from confluent_kafka.schema_registry import Schema

from headrace.schemas.errors import Unavailable
from headrace.selfserve.stack.artefacts import Store, cache_folder, default_store, download_from_maven, listed_pins
from headrace.selfserve.stack.embedded import EmbeddedStack, embedded_stack
from headrace.selfserve.stack.kafka import CLIENT_PORT, Kafka
from headrace.selfserve.stack.launcher import Launcher
from headrace.selfserve.stack.processes import end, find_by_argument, state_argument
from headrace.selfserve.stack.records import State
from headrace.selfserve.stack.registry import PORT, Registry
from tests.support.registries import registry_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from headrace.selfserve.stack import Endpoints
    from headrace.selfserve.stack.artefacts import Programs

SCHEMA = '{"type": "record", "name": "Seen", "fields": [{"name": "at", "type": "long"}]}'
NARROWER = (
    '{"type": "record", "name": "Seen", "fields": [{"name": "at", "type": "long"}, {"name": "by", "type": "int"}]}'
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder under a name that would break a path in a settings file; nothing of it runs after the test."""
    folder = tmp_path / "mésh, one;two" / ".headrace" / "embedded"
    yield folder
    end(find_by_argument(state_argument(folder)), timeout_s=10)


def eventually(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def make_topic(endpoints: Endpoints, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints.bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(60)


def produce(endpoints: Endpoints, topic: str, value: bytes) -> None:
    faults: list[object] = []
    producer = Producer({"bootstrap.servers": endpoints.bootstrap_servers, "transactional.id": "test"})
    producer.init_transactions(60)
    producer.begin_transaction()
    producer.produce(topic, value, on_delivery=lambda error, _: faults.append(error) if error else None)
    producer.commit_transaction(60)
    assert faults == []


def first_message(endpoints: Endpoints, topic: str) -> bytes | None:
    consumer = Consumer(
        {"bootstrap.servers": endpoints.bootstrap_servers, "group.id": "test", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(60)
        assert message is not None
        assert message.error() is None
        return message.value()
    finally:
        consumer.close()


def pids(stack: EmbeddedStack) -> list[int | None]:
    return [status.pid for status in stack.status()]


def states(stack: EmbeddedStack) -> list[str]:
    return [status.state for status in stack.status()]


def test_a_stack_lives_crashes_and_recovers_with_its_data(state: Path) -> None:
    stack, lines = embedded_stack(state), list[str]()
    assert states(stack) == ["stopped", "stopped"]
    endpoints = stack.up(progress=lines.append)
    assert json.loads((state / "endpoints.json").read_text()) == {
        "folder": str(state.resolve()),
        "bootstrap.servers": endpoints.bootstrap_servers,
        "registry.url": endpoints.registry_url,
    }
    assert any(line.startswith("kafka ready in") for line in lines)

    make_topic(endpoints, "seen")
    produce(endpoints, "seen", b"a flight")
    registry = registry_client({"url": endpoints.registry_url})
    identity = registry.register_schema("seen-value", Schema(SCHEMA, "AVRO"))
    assert not registry.test_compatibility("seen-value", Schema(NARROWER, "AVRO"))
    topics = (
        AdminClient({"bootstrap.servers": endpoints.bootstrap_servers}).list_topics("unheard-of", timeout=60).topics
    )
    assert topics["unheard-of"].error is not None

    first = pids(stack)
    assert stack.up(progress=lines.append) == endpoints
    assert pids(stack) == first

    for pid in first:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: states(stack) == ["crashed", "crashed"], within_s=60)
    with socket.socket() as neighbour:
        # While it is down somebody takes the broker's port: the broker moves, the registry comes back where it was.
        neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        host, port = endpoints.bootstrap_servers.split(":")
        neighbour.bind((host, int(port)))
        neighbour.listen()
        moved = stack.up(progress=lines.append)
    assert moved.bootstrap_servers != endpoints.bootstrap_servers
    assert moved.registry_url == endpoints.registry_url
    assert set(pids(stack)).isdisjoint(first)
    assert first_message(moved, "seen") == b"a flight"
    assert registry.get_latest_version("seen-value").schema_id == identity

    running = pids(stack)
    stack.down(lines.append)
    assert states(stack) == ["stopped", "stopped"]
    assert not any(pid is not None and psutil.pid_exists(pid) for pid in running)
    assert not (state / "endpoints.json").exists()
    assert (state / "kafka").stat().st_mode & 0o077 == 0
    stack.down(lines.append)
    assert lines[-1] == "nothing runs"


def test_servers_die_with_a_parent_that_is_killed(state: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from headrace.selfserve.stack.embedded import embedded_stack;"
        "embedded_stack(Path(sys.argv[1])).up(die_with_parent=True, progress=lambda _: None);"
        "print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(state)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        assert len(find_by_argument(state_argument(state))) == 2
        parent.kill()
    stack = embedded_stack(state)
    assert eventually(lambda: states(stack) == ["stopped", "stopped"], within_s=60)
    assert find_by_argument(state_argument(state)) == []
    assert not (state / "endpoints.json").exists()


def test_a_parent_killed_while_its_servers_start_leaves_none(state: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path;"
        "from headrace.selfserve.stack.embedded import embedded_stack;"
        "die = lambda line: os.kill(os.getpid(), signal.SIGKILL) if line.startswith('starting registry') else None;"
        "embedded_stack(Path(sys.argv[1])).up(die_with_parent=True, progress=die)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(state)], check=False).returncode == -signal.SIGKILL
    assert eventually(lambda: find_by_argument(state_argument(state)) == [], within_s=60)


def test_two_starts_of_one_mesh_meet_and_two_meshes_do_not(state: Path, tmp_path: Path) -> None:
    one, other = embedded_stack(state), embedded_stack(tmp_path / "other")
    try:
        with ThreadPoolExecutor(3) as pool:
            starts = [pool.submit(stack.up, progress=lambda _: None) for stack in (one, embedded_stack(state), other)]
            first, second, third = (start.result() for start in starts)
        assert first == second
        assert len(find_by_argument(state_argument(state))) == 2
        assert {first.bootstrap_servers, first.registry_url}.isdisjoint({third.bootstrap_servers, third.registry_url})
        make_topic(first, "here")
        one.down(lambda _: None)
        clients = AdminClient({"bootstrap.servers": third.bootstrap_servers})
        assert "here" not in clients.list_topics(timeout=60).topics
    finally:
        other.down(lambda _: None)


def test_a_lost_record_does_not_lose_the_processes(state: Path) -> None:
    stack = embedded_stack(state)
    stack.up(progress=lambda _: None)
    before = find_by_argument(state_argument(state))
    (state / "servers.json").write_text("{half")
    stack.up(progress=lambda _: None)
    after = find_by_argument(state_argument(state))
    assert (len(before), len(after)) == (2, 2)
    assert set(before).isdisjoint(after)


class Robbed:
    """Takes a server's port just before the server is started, the first time only."""

    def __init__(self, server: Kafka | Registry, thief: socket.socket, port: str) -> None:
        self._server, self._thief, self._port = server, thief, port
        self.name, self.port_names, self.answers = server.name, server.port_names, server.answers
        self.stolen = 0

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        if not self.stolen:
            self.stolen = ports[self._port]
            self._thief.bind(("127.0.0.1", self.stolen))
            self._thief.listen()
        return self._server.prepare(programs, folder, ports)


def test_a_port_lost_between_choice_and_use_is_replaced(state: Path) -> None:
    lines: list[str] = []
    launcher = Launcher(State(state), default_store().fetch(lines.append), None, lines.append)
    with socket.socket() as one, socket.socket() as two:
        robbed = [Robbed(Kafka(), one, CLIENT_PORT), Robbed(Registry(), two, PORT)]
        for server in robbed:
            launcher.start(server)
        for server in robbed:
            launcher.finish(server)
            assert State(state).record(server.name).ports[server.port_names[0]] != server.stolen
    assert lines.count("a port of kafka was taken by another program") == 1
    assert lines.count("a port of registry was taken by another program") == 1


def test_a_failed_start_shows_its_log_and_leaves_nothing(state: Path) -> None:
    data = state / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=another-cluster-here-1\n")
    with pytest.raises(Unavailable) as failure:
        embedded_stack(state).up(progress=lambda _: None)
    assert failure.value.where == str(state / "logs" / "kafka.log")
    assert "77" in failure.value.what
    assert failure.value.what.count("\n") <= 21
    assert find_by_argument(state_argument(state)) == []
    assert states(embedded_stack(state)) == ["stopped", "stopped"]


def test_an_interrupted_start_leaves_nothing(state: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("kafka ready"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embedded_stack(state).up(progress=interrupt)
    assert find_by_argument(state_argument(state)) == []
    assert not (state / "endpoints.json").exists()


def test_a_damaged_download_is_fetched_again(tmp_path: Path) -> None:
    default_store().fetch(lambda _: None)
    copy = tmp_path / "cache"
    # Hard links, so that the copy costs nothing; a file is damaged by replacing it, never by writing into it.
    shutil.copytree(cache_folder(), copy, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))
    jar = copy / "maven" / next(path for path in listed_pins().jars if "jopt-simple" in path)
    whole = jar.read_bytes()
    jar.unlink()
    jar.write_bytes(whole[: len(whole) // 2])
    lines: list[str] = []
    Store(copy, listed_pins(), download_from_maven).fetch(lines.append)
    assert jar.read_bytes() == whole
    assert lines == ["fetching 1 files of Apache Kafka 4.4.0 and Apicurio Registry 3.3.3"]


def test_a_second_start_waits_for_the_first_ones_lock(state: Path) -> None:
    """The waiting command says what it waits for, and goes on when the lock is free."""
    stack, lines, inside = embedded_stack(state), list[str](), threading.Event()

    def slow(line: str) -> None:
        if line == "nothing runs":
            inside.set()
            assert eventually(lambda: bool(lines), within_s=60)

    state.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(stack.down, slow)
        assert inside.wait(60)
        stack.down(lines.append)
        holder.result()
    assert lines == ["waiting: another headrace starts or stops this stack", "nothing runs"]
