"""The command line as a person meets it: help, exit status, errors without tracebacks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from headrace.schemas.errors import Bug, Fault, MeshError, Unavailable, UserError
from headrace.schemas.mesh import load_mesh
from headrace.selfserve import stack
from headrace.selfserve.init import init_mesh
from headrace.selfserve.main import app, main

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.schemas.environment import Environment

ROOT = Path(__file__).parents[2]
COMMANDS = (
    *("init", "new", "check", "up", "down", "status", "apply", "publish", "tail", "sink", "sql", "verify"),
    *("hold", "release", "ledger", "accept-gap", "audit", "findings", "export", "plan", "drift", "compat", "dlq"),
    *("snapshots", "rollback", "replay", "accept-topic", "upkeep"),
)
ENDS_WITH = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    mesh = tmp_path / "mesh"
    init_mesh(mesh)
    return mesh


def headrace(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace.selfserve.main", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **more)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    listed = re.findall(r"^  ([a-z][a-z-]+)  +\S.*\.$", shown, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_no_manual(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"headrace {command}" in shown.partition("Example")[2]
    assert all(re.search(rf"^    {code} +\S", shown, re.MULTILINE) for code in (0, 1, 2, 130))
    tree: Any = get_command(app)
    for parameter in tree.commands[command].params:
        assert parameter.help, f"{command}: {parameter.name} has no help"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from headrace.selfserve.main import main; main(['--help']);"
        "heavy = {'duckdb', 'pyiceberg', 'confluent_kafka', 'pyarrow', 'numpy', 'datafusion', 'faust'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.endswith("[]\n")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"headrace {version('headrace')}\n"


@pytest.mark.parametrize(
    "words", [["nothing"], ["check", "--nothing"], ["publish", "a.b"], ["sql"], ["verify", "--format", "csv"]]
)
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "--help" in capsys.readouterr().err


def test_init_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    assert main(["--mesh", str(tmp_path / "new"), "check"]) == 0
    assert "1 domain, 1 product, no faults" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "new")]) == 1
    assert "next: " in capsys.readouterr().err


def test_the_mesh_is_found_from_below_and_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder / "domains" / "shop")
    assert main(["check"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 1
    monkeypatch.setenv("HEADRACE_MESH", str(folder))
    assert main(["check"]) == 0
    assert main(["--environment", "nowhere", "check"]) == 1


def test_every_fault_of_a_mesh_is_shown_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "domains/shop/domain.yaml").write_text("owner: 7\n")
    (folder / "domains/shop/orders/schema.avsc").write_text("{")
    assert main(["--mesh", str(folder), "check"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("error: ") >= 2
    assert "where: domains/shop/domain.yaml" in shown
    assert "where: domains/shop/orders/schema.avsc" in shown
    assert re.search(r"^\d+ faults$", shown, re.MULTILINE)


def test_an_unknown_product_is_answered_with_the_nearest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(folder), "verify", "shop.order"]) == 1
    assert "did you mean shop.orders?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["apply"], ["verify"], ["sink", "--until-caught-up"]])
def test_servers_that_are_down_are_named_with_the_next_step(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--mesh", str(folder), *command]) == 1
    shown = capsys.readouterr().err
    assert "headrace up" in shown
    assert "Traceback" not in shown


def test_status_of_servers_that_do_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(folder), "status", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(server["server"], server["state"], server["pid"]) for server in found["servers"]] == [
        ("kafka", "stopped", None),
        ("registry", "stopped", None),
    ]
    assert [(each["product"], each["rows"], each["lag_rows"]) for each in found["products"]] == [
        ("governance.findings", None, None),
        ("governance.observations", None, None),
        ("shop.orders", None, None),
    ]
    assert all("headrace up" in error["next"] for error in found["unasked"])
    assert main(["--mesh", str(folder), "status"]) == 1
    assert "stopped" in capsys.readouterr().out


def test_sql_needs_no_server(folder: Path) -> None:
    ran = headrace("--mesh", str(folder), "sql", "--format", "json", "SELECT 1 AS a, 'x' AS b")
    assert (ran.returncode, json.loads(ran.stdout), ran.stderr) == (0, [{"a": 1, "b": "x"}], "")


def test_sql_reads_a_query_from_stdin(folder: Path) -> None:
    ran = headrace("--mesh", str(folder), "sql", "--format", "csv", "-", input="SELECT 1 AS a;")
    assert (ran.returncode, ran.stdout) == (0, "a\n1\n")


def test_sql_of_a_table_that_was_not_made_names_apply(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(folder), "sql", "FROM shop.orders"]) == 1
    assert "headrace apply" in capsys.readouterr().err


def test_sql_of_nonsense(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(folder), "sql", "SELEC 1"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        'error: Parser Error: syntax error at or near "SELEC"',
        "  LINE 1: SELEC 1",
        "          ^",
    ]
    assert shown.out == ""


def test_a_reader_that_goes_away_is_no_error_to_talk_of(folder: Path) -> None:
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(folder)]
    query = "SELECT * FROM range(2000000)"
    with subprocess.Popen(
        [*command, "sql", "--format", "csv", query], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        assert ran.stdout.readline() == "range\n"
        ran.stdout.close()
        assert ran.stderr.read() == ""
        assert ran.wait(ENDS_WITH) != 0


def test_ctrl_c_stops_a_query_at_once(folder: Path) -> None:
    endless = (
        "SELECT 1 AS a UNION ALL SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE a.range * b.range = 7"
    )
    command = [sys.executable, "-c", _SAY_WHEN_QUERYING, "--mesh", str(folder), "sql", endless]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        assert ran.stdout.readline() == "querying\n"
        ran.send_signal(signal.SIGINT)
        assert ran.wait(ENDS_WITH) == 130
        assert ran.stderr.read() == "interrupted\n"


# Runs the command line, and says when the query is about to begin.
_SAY_WHEN_QUERYING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from headrace.governance.duck import Duck
from headrace.selfserve.main import run
ask = Duck.query
Duck.query = lambda self, sql: (print("querying", flush=True), ask(self, sql))[1]
run()
"""


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_a_sink_to_stop(asked: signal.Signals) -> None:
    with sink_like("stopped.event.wait()") as ran:
        ran.send_signal(asked)
        out, _ = ran.communicate(timeout=ENDS_WITH)
    assert (ran.returncode, out) == (0, f"{int(asked)}\n")


def test_the_second_signal_ends_it_at_once() -> None:
    with sink_like("stopped.event.wait(); print('asked', flush=True); threading.Event().wait()") as ran:
        ran.send_signal(signal.SIGINT)
        assert ran.stdout is not None
        assert ran.stdout.readline() == "asked\n"
        ran.send_signal(signal.SIGINT)
        assert ran.wait(ENDS_WITH) == -signal.SIGINT  # a shell shows 130


def sink_like(waits: str) -> subprocess.Popen[str]:
    """A process that waits as the sink's command does."""
    code = (
        "import threading\n"
        "from headrace.selfserve.commands.data import stopped_by_signals\n"
        "with stopped_by_signals() as stopped:\n"
        f"    print('ready', flush=True); {waits}\n"
        "print(int(stopped.signal))\n"
    )
    ran = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ran.stdout is not None
    assert ran.stdout.readline() == "ready\n"
    return ran


def test_what_is_written_into_a_file_is_utf_8(folder: Path) -> None:
    command = [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(folder)]
    ran = subprocess.run(
        [*command, "sql", "--format", "json", "SELECT 'ä€' AS a"],
        capture_output=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert json.loads(ran.stdout.decode("utf-8")) == [{"a": "ä€"}]


class _Fake:
    """A stack whose status raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, environment: Environment) -> _Fake:
        return self

    def status(self) -> tuple[stack.ServerStatus, ...]:
        raise self.error


@pytest.fixture
def status_raising(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(error: Exception, *options: str) -> int:
        monkeypatch.setattr(stack, "stack_of", _Fake(error))
        return main(["--mesh", str(folder), *options, "status"])

    return run


SECRET = "ada@example.org"


def test_an_error_says_what_where_and_next(
    status_raising: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_raising(Unavailable("it is gone\x1b[31m", where="there", hint="wait")) == 1
    assert capsys.readouterr().err == "error: it is gone\\x1b[31m\n  where: there\n  next: wait\n"


def test_a_full_disk_is_told_without_a_traceback(
    status_raising: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_raising(OSError(28, "No space left on device", "/data/x")) == 1
    first, where, following = capsys.readouterr().err.splitlines()
    assert (first, where) == ("error: No space left on device", "  where: /data/x")
    assert "room" in following


@pytest.mark.parametrize("error", [ValueError(f"cannot parse {SECRET}"), Bug("an invariant does not hold")])
def test_a_bug_keeps_frames_and_no_data(
    error: Exception, status_raising: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error.__cause__ = KeyError(SECRET)
    assert status_raising(error) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: this is a bug of headrace: ")
    (kept,) = (folder / ".headrace" / "logs").iterdir()
    assert str(kept) in shown
    text = kept.read_text()
    assert "builtins.KeyError" in text
    assert re.search(r"commands/status\.py:\d+ status: ", text)
    assert SECRET not in shown + text


def test_debug_shows_all_of_it(status_raising: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert status_raising(ValueError(SECRET), "--debug") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert SECRET in shown


def test_every_hint_names_a_command_that_exists() -> None:
    named = {
        (file.name, command)
        for part in ("schemas", "streams", "producers", "sinks", "governance", "selfserve")
        for file in (ROOT / part).rglob("*.py")
        for hint in re.findall(r"(?:hint|_HINT) ?= ?[^#\n]*", file.read_text())
        # A command stands at the hint's start, behind a colon or in quotation marks; prose has other words before it.
        for command in re.findall(r"""["'`:] ?headrace ([a-z-]+)\b""", hint)
    }
    assert {"apply", "up"} <= {command for _, command in named} <= set(COMMANDS), named


def test_the_mesh_error_of_a_library_call_is_the_same(folder: Path) -> None:
    (folder / "mesh.yaml").write_text("name: 7\n")
    with pytest.raises(MeshError) as error:
        load_mesh(folder)
    assert all(isinstance(fault, Fault) for fault in error.value.faults)
    assert isinstance(error.value, UserError)


@pytest.mark.parametrize("command", ["sink", "audit"])
def test_an_address_for_metrics_without_a_port_is_refused(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--mesh", str(folder), command, "--metrics-host", "0.0.0.0"]) == 2
    assert "add --metrics-port PORT" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["sink", "audit"])
def test_a_port_for_metrics_is_a_port(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mesh", str(folder), command, "--metrics-port", "65536"]) == 2
    assert "'--metrics-port'" in capsys.readouterr().err
