"""docker-compose.yml: Compose accepts it, it opens nothing to the network, its servers are set as the embedded ones."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from headrace.schemas.errors import UserError
from headrace.selfserve.stack import kafka, registry
from headrace.selfserve.stack.artefacts import APICURIO_VERSION, KAFKA_VERSION
from headrace.selfserve.stack.compose import FILE, PORT_VARIABLES, compose_stack

# What differs by nature: addresses, and where the data is.
OWN_KAFKA = {
    "KAFKA_HEAP_OPTS",
    "KAFKA_LISTENERS",
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
    "KAFKA_INTER_BROKER_LISTENER_NAME",
    "KAFKA_CONTROLLER_LISTENER_NAMES",
    "KAFKA_CONTROLLER_QUORUM_VOTERS",
    "KAFKA_LOG_DIRS",
}
OWN_REGISTRY = {
    "JAVA_OPTS_APPEND",
    "APICURIO_DATASOURCE_URL",
    "QUARKUS_HTTP_HOST",
    "QUARKUS_HTTP_PORT",
    "QUARKUS_MANAGEMENT_HOST",
}


def compose(*arguments: str, variables: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sysconfig.get_path("scripts")) / "docker-compose"), "-f", str(FILE), *arguments]
    return subprocess.run(command, env=variables or {}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    answer = compose("config", "--format", "json")
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)["services"]
    return found


def test_compose_accepts_the_file() -> None:
    answer = compose("config", "--quiet")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_package_holds_the_file_of_the_repository() -> None:
    root = Path(__file__).parents[2]
    assert FILE.resolve() == root / "docker-compose.yml"


def test_ports_are_open_to_this_machine_alone_and_can_be_chosen() -> None:
    variables = {"HEADRACE_KAFKA_PORT": "4001", "HEADRACE_REGISTRY_PORT": "4002", "HEADRACE_PROJECT": "one"}
    answer = json.loads(compose("config", "--format", "json", variables=variables).stdout)
    published = {
        name: [(port["host_ip"], port["published"]) for port in service["ports"]]
        for name, service in answer["services"].items()
    }
    assert published == {"kafka": [("127.0.0.1", "4001")], "registry": [("127.0.0.1", "4002")]}
    assert "CLIENTS://127.0.0.1:4001," in answer["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert answer["name"] == "one"


def test_the_images_have_the_embedded_versions(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    assert services["registry"]["image"] == f"apicurio/apicurio-registry:{APICURIO_VERSION}"
    assert services.keys() == PORT_VARIABLES.keys()


def test_the_broker_is_set_as_the_embedded_one(services: dict[str, Any]) -> None:
    variables = {name: value for name, value in services["kafka"]["environment"].items() if name not in OWN_KAFKA}
    made = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in variables.items()}
    assert made == dict(kafka.SETTINGS)


def test_the_registry_is_set_as_the_embedded_one(services: dict[str, Any]) -> None:
    variables = {name: value for name, value in services["registry"]["environment"].items() if name not in OWN_REGISTRY}
    expected = {name.upper().replace(".", "_").replace("-", "_"): value for name, value in registry.SETTINGS.items()}
    assert variables == expected


def test_a_port_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA_PORT", "ninety")
    with pytest.raises(UserError, match="'ninety' is not a port"):
        compose_stack(tmp_path).up(progress=lambda _: None)
