"""Waiting for a server ends in time, and says what its log says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import Unavailable
from headrace.selfserve.stack import processes
from headrace.selfserve.stack.launcher import await_answer
from headrace.selfserve.stack.records import Record, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from headrace.selfserve.stack.artefacts import Programs

SILENT = "import time; print('waiting for a disk', flush=True); time.sleep(600)"
FAILING = "[print('line', number, flush=True) for number in range(100)]"


class Fake:
    """A server that answers, or never does."""

    name = "fake"
    port_names = ("only",)

    def __init__(self, *, serves: bool) -> None:
        self._serves = serves

    def prepare(self, programs: Programs, folder: Path, ports: Mapping[str, int]) -> list[str]:
        raise NotImplementedError

    def answers(self, folder: Path, ports: Mapping[str, int]) -> bool:
        return self._serves


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path)
    yield state
    process = state.record("fake").process
    processes.end([process] if process else [])


def run(state: State, program: str) -> None:
    command = [sys.executable, "-c", program]
    process = processes.start(command, folder=state.folder, log=state.log("fake"))
    state.write_record("fake", Record({"only": 1}, process))


def test_a_server_that_answers_is_ready(state: State) -> None:
    run(state, SILENT)
    await_answer(state, Fake(serves=True), timeout_s=60)


def test_a_server_that_hangs_is_given_up_in_time(state: State) -> None:
    run(state, SILENT)
    while "disk" not in state.log("fake").read_text():
        pass
    with pytest.raises(Unavailable, match=r"fake did not answer within 0 s; its log ends with:\nwaiting for a disk"):
        await_answer(state, Fake(serves=False), timeout_s=0.2)


def test_a_server_that_ends_shows_the_end_of_its_log(state: State) -> None:
    run(state, FAILING)
    with pytest.raises(Unavailable) as failure:
        await_answer(state, Fake(serves=False), timeout_s=60)
    heading, *shown = failure.value.what.splitlines()
    assert heading == "fake ended before it was ready; its log ends with:"
    assert shown == [f"line {number}" for number in range(80, 100)]
    assert failure.value.where == str(state.log("fake"))


def test_an_answer_on_the_port_of_a_server_that_ended_does_not_count(state: State) -> None:
    run(state, "")
    process = state.record("fake").process
    assert process is not None
    processes.end([process])
    with pytest.raises(Unavailable, match="ended before it was ready"):
        await_answer(state, Fake(serves=True), timeout_s=60)
