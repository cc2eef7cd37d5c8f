"""Server processes are started apart, known again, and ended within a bounded time, with or without their parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from headrace.selfserve.stack import processes
from headrace.selfserve.stack.records import Process, Record, State
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

WAIT = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(600)"
)
SHOW = "import json, os; print(json.dumps([dict(os.environ), os.getsid(0) == os.getpid(), os.getcwd()]))"


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def has_ended(process: Process) -> bool:
    return not processes.is_alive(process)


def test_a_server_has_a_session_and_no_secret_of_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_SECRET", "hidden")
    log = tmp_path / "logs" / "server.log"
    process = processes.start(python(SHOW), folder=tmp_path, log=log)
    assert eventually(lambda: not processes.is_alive(process))
    environment, leads_session, folder = json.loads(log.read_text())
    assert "HEADRACE_SECRET" not in environment
    assert environment["PATH"] == os.environ["PATH"]
    assert leads_session
    assert folder == str(tmp_path)


def test_one_earlier_log_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    for word in ("one", "two", "three"):
        ended = partial(has_ended, processes.start(python(f"print('{word}')"), folder=tmp_path, log=log))
        assert eventually(ended)
    assert (log.read_text(), log.with_name("server.log.1").read_text()) == ("three\n", "two\n")
    assert len(list(tmp_path.iterdir())) == 2


def test_ending_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    polite = processes.start(python(WAIT), folder=tmp_path, log=tmp_path / "other")
    stubborn = processes.start(python(STUBBORN), folder=tmp_path, log=log)
    assert eventually(lambda: log.read_text() == "on\n")
    # Neither would end by itself before the test is given up.
    processes.end([polite, stubborn], timeout_s=0.5)
    assert not processes.is_alive(polite)
    assert not processes.is_alive(stubborn)


def test_a_server_that_its_starter_does_not_reap_has_ended(tmp_path: Path) -> None:
    starter = (
        f"import subprocess, sys, time; print(subprocess.Popen({python(WAIT)!r}).pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(python(starter), stdout=subprocess.PIPE, text=True) as careless:
        assert careless.stdout is not None
        pid = int(careless.stdout.readline())
        # The test would be given up before this time is over, twice, for SIGTERM and for SIGKILL.
        processes.end([Process(pid, psutil.Process(pid).create_time())], timeout_s=600)
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        careless.kill()


def test_a_stranger_with_the_pid_is_left_alone(tmp_path: Path) -> None:
    process = processes.start(python(WAIT), folder=tmp_path, log=tmp_path / "log")
    stranger = Process(process.pid, process.started_at - 3600)
    try:
        assert not processes.is_alive(stranger)
        processes.end([stranger], timeout_s=0.1)
        assert processes.is_alive(process)
    finally:
        processes.end([process])


def test_a_server_is_found_by_an_argument(tmp_path: Path) -> None:
    mark = processes.state_argument(tmp_path)
    process = processes.start(python(WAIT, mark), folder=tmp_path, log=tmp_path / "log")
    similar = processes.start(python(WAIT, f"{mark}/other"), folder=tmp_path, log=tmp_path / "other")
    try:
        assert eventually(lambda: processes.find_by_argument(mark) == [process])
    finally:
        processes.end([process, similar])


@pytest.mark.parametrize(
    ("text", "shown"),
    [(b"a\nb\nc\n", "b\nc"), (b"", "(the log is empty)"), (b"\xff\n", "\N{REPLACEMENT CHARACTER}")],
)
def test_the_end_of_a_log_is_shown(tmp_path: Path, text: bytes, shown: str) -> None:
    log = tmp_path / "log"
    assert processes.last_lines(log) == "(there is no log)"
    log.write_bytes(text)
    assert processes.last_lines(log, 2) == shown


# A parent that asks the supervisor to end what it starts: recorded, and one server that it has not come to record.
PARENT = f"""
import os, subprocess, sys, time
from pathlib import Path
from headrace.selfserve.stack import processes
from headrace.selfserve.stack.records import Record, State
state = State(Path(sys.argv[1]))
owner = processes.this_process()
processes.supervise("embedded", state, owner)
server = [sys.executable, "-c", {WAIT!r}, processes.state_argument(state.folder)]
mark = processes.owner_argument(state.folder, owner)
one = processes.start([*server, mark], folder=state.folder, log=state.log("kafka"))
state.write_record("kafka", Record({{"client": 1}}, one, owner))
processes.start([*server, mark], folder=state.folder, log=state.log("registry"))
forked = os.fork() if sys.argv[2] == "fork" else -1
if forked == 0:
    time.sleep(120)  # longer than a test waits
    os._exit(0)
print("up", forked, flush=True)
if sys.argv[2] != "end":
    time.sleep(600)
"""


@pytest.mark.parametrize("way", ["killed", "fork", "end"])
def test_servers_end_with_their_owner_however_it_ends(tmp_path: Path, way: str) -> None:
    state = State(tmp_path)
    (tmp_path / "endpoints.json").write_text("{}")
    somebody_elses = processes.start(
        python(WAIT, processes.state_argument(tmp_path)), folder=tmp_path, log=tmp_path / "log"
    )
    state.write_record("other", Record({"http": 2}, somebody_elses))
    with subprocess.Popen(python(PARENT, str(tmp_path), way), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        up, forked = parent.stdout.readline().split()
        assert up == "up"
        assert len(processes.find_by_argument(processes.state_argument(tmp_path))) == 3
        if way != "end":
            os.kill(parent.pid, signal.SIGKILL)
        parent.wait(60)
        parent.stdout.close()
    try:
        alone = [somebody_elses]
        assert eventually(lambda: processes.find_by_argument(processes.state_argument(tmp_path)) == alone)
        assert eventually(lambda: state.record("kafka") == Record({"client": 1}))
        assert state.record("other").process == somebody_elses
        assert not (tmp_path / "endpoints.json").exists()
    finally:
        if way == "fork":
            os.kill(int(forked), signal.SIGKILL)
        processes.end([somebody_elses])
