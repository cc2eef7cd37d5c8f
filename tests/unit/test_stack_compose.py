"""The compose stack against an engine of a few lines: what it asks for, and what it makes of the answers."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import Unavailable
from headrace.selfserve.stack.compose import compose_stack, stop_containers_of
from headrace.selfserve.stack.records import Process, Record, State

if TYPE_CHECKING:
    from pathlib import Path

# Writes down what it is asked, lists the containers of a file, and can neither pull nor start.
DOCKER = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
command = next(word for word in sys.argv if word in ("up", "stop", "down", "ps"))
with (here / "asked").open("a") as asked:
    print(json.dumps(sys.argv[sys.argv.index(command):]), file=asked)
if command == "up":
    sys.exit("no space left on device")
if command == "ps":
    print((here / "containers").read_text())
"""


class Engine:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "docker").write_text(DOCKER.format(python=sys.executable))
        (folder / "docker").chmod(0o755)
        self.has()

    def has(self, **containers: tuple[str, int]) -> None:
        lines = [
            json.dumps({"Service": name, "State": state, "ExitCode": code})
            for name, (state, code) in containers.items()
        ]
        (self._folder / "containers").write_text("\n".join(lines))

    def asked(self) -> list[list[str]]:
        asked = self._folder / "asked"
        return [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return Engine(tmp_path / "bin")


def started(folder: Path, owner: Process | None = None) -> State:
    """Return the state of a stack that was started once."""
    state = State(folder)
    state.folder.mkdir()
    (state.folder / "compose.env").touch()
    (state.folder / "endpoints.json").touch()
    for service, port in (("kafka", 4001), ("registry", 4002)):
        state.write_record(service, Record({"published": port}, ends_with=owner))
    return state


def ignore(line: str) -> None:
    """Take a line of progress."""


def test_before_the_first_start_the_engine_is_not_asked(engine: Engine, tmp_path: Path) -> None:
    stack = compose_stack(tmp_path / "state")
    stack.down(ignore)
    assert [(status.state, status.address) for status in stack.status()] == [("stopped", ""), ("stopped", "")]
    assert engine.asked() == []


@pytest.mark.parametrize(
    ("container", "state"),
    [(("running", 0), "running"), (("exited", 143), "stopped"), (("exited", 0), "stopped"), (("exited", 1), "crashed")],
)
def test_the_engines_answer_is_the_status(
    engine: Engine, tmp_path: Path, container: tuple[str, int], state: str
) -> None:
    started(tmp_path / "state")
    engine.has(kafka=container)
    kafka, registry = compose_stack(tmp_path / "state").status()
    assert (kafka.name, kafka.state, kafka.address) == ("kafka", state, "127.0.0.1:4001")
    assert registry.state == "stopped"
    assert kafka.log.startswith("docker compose -p headrace-")


def test_down_stops_containers_and_keeps_their_volumes(engine: Engine, tmp_path: Path) -> None:
    started(tmp_path / "state")
    compose_stack(tmp_path / "state").down(ignore)
    assert engine.asked() == [["stop"]]
    assert not (tmp_path / "state" / "endpoints.json").exists()


def test_a_failed_start_stops_what_it_started_and_shows_the_engines_words(engine: Engine, tmp_path: Path) -> None:
    state = started(tmp_path / "state", Process(1, 1.0))
    engine.has(kafka=("running", 0))
    with pytest.raises(Unavailable, match="no space left on device"):
        compose_stack(tmp_path / "state").up(progress=ignore)
    assert engine.asked()[1:] == [["up", "--wait"], ["stop", "registry"]]
    assert not (tmp_path / "state" / "endpoints.json").exists()
    variables = dict(line.split("=") for line in (tmp_path / "state" / "compose.env").read_text().splitlines())
    assert variables["HEADRACE_KAFKA_PORT"] == "4001"
    assert state.record("kafka").ends_with == Process(1, 1.0)
    assert state.record("registry").ends_with is None


def test_containers_end_with_their_owner_alone(engine: Engine, tmp_path: Path) -> None:
    state = started(tmp_path / "state", Process(7, 100.0))
    stop_containers_of(state, Process(8, 100.0))
    assert engine.asked() == []
    stop_containers_of(state, Process(7, 100.0))
    assert engine.asked() == [["stop"]]


def test_each_environment_has_a_project_of_its_own(engine: Engine, tmp_path: Path) -> None:
    projects = set()
    for name in ("one", "two"):
        with pytest.raises(Unavailable):
            compose_stack(tmp_path / name).up(progress=ignore)
        projects.add((tmp_path / name / "compose.env").read_text().splitlines()[0])
    assert len(projects) == 2
