"""Runs a document as its reader would: every fenced block in order, in one shell, in an empty folder.

A block says by its kind what it is::

    sh                      commands; each must succeed
    text                    what the commands just before it show, line by line; … stands for anything
    any other (python, …)   a file, if the line before it ends with its name: "… `checkout.py`:"

Nothing else is a block: one that no rule covers is refused, so that nothing stands in the document untested.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_FENCE = re.compile(r"(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<kind>.*)")
_FILE_NAME = re.compile(r"`(?P<name>[\w./-]+)`:$")
_ANYTHING = "…"
# A first start of the servers may fetch them.
BLOCK_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Block:
    """A fenced block: the line where its text begins, its kind, its text, and the file that it is, if it is one."""

    line: int
    kind: str
    text: str
    file: str | None = None


def blocks_of(markdown: str) -> list[Block]:
    """Return the fenced blocks of a document.

    Raises:
        ValueError: if there is a block that no rule says what to do with; the message names its line.
    """
    found: list[Block] = []
    lines = markdown.splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.fullmatch(lines[number])
        if fence is None:
            if lines[number].startswith(("    ", "\t")) and (number == 0 or not lines[number - 1].strip()):
                raise ValueError(f"line {number + 1}: an indented block is not run: fence it")
            number += 1
            continue
        start = number + 1
        number = start
        while number < len(lines) and lines[number].strip() != fence["ticks"]:
            number += 1
        if number == len(lines):
            raise ValueError(f"line {start}: the fence is not closed")
        indent = len(fence["indent"])
        text = "".join(f"{line[indent:]}\n" for line in lines[start:number])
        found.append(_block(start + 1, fence["kind"].strip(), text, lines[: start - 1], found))
        number += 1
    return found


def _block(line: int, kind: str, text: str, before: list[str], earlier: list[Block]) -> Block:
    if kind == "sh":
        return Block(line, kind, text)
    if kind == "text":
        if not earlier or earlier[-1].kind != "sh":
            raise ValueError(f"line {line}: there are no commands before this output")
        return Block(line, kind, text)
    said = next((each for each in reversed(before) if each.strip()), "")
    name = _FILE_NAME.search(said)
    if not kind or name is None:
        raise ValueError(f"line {line}: a block is sh, text, or a file that the line before it names")
    return Block(line, kind, text, name["name"])


def unlike(expected: str, shown: str) -> str:
    """Return the first expected line that the output does not show in its turn; "" if all are there.

    Blanks count once, and … stands for anything within a line; as a line of its own for any lines. Without one, the
    output may neither begin nor end otherwise, and may hold no line in between.
    """
    wanted = [_line(line) for line in expected.splitlines() if line.strip()]
    pattern = "".join(
        r"(?:.*\n)*?" if line == _ANYTHING else rf"{re.escape(line).replace(_ANYTHING, '.*')}\n" for line in wanted
    )
    text = "".join(f"{_line(line)}\n" for line in shown.splitlines() if line.strip())
    if re.fullmatch(pattern, text):
        return ""
    for count in range(1, len(wanted) + 1):
        part = "".join(
            r"(?:.*\n)*?" if line == _ANYTHING else rf"{re.escape(line).replace(_ANYTHING, '.*')}\n"
            for line in wanted[:count]
        )
        if not re.match(part, text):
            return wanted[count - 1]
    return "(the output goes on behind the last line)"


def _line(line: str) -> str:
    return " ".join(line.split())


@dataclass
class Shell:
    """One bash in a folder, with this interpreter's commands on its path."""

    process: subprocess.Popen[str]
    folder: Path
    lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)

    def run(self, commands: str, *, timeout_s: float = BLOCK_TIMEOUT_S) -> str:
        """Run commands as they would be typed, and return what they show on either stream.

        Raises:
            AssertionError: if one of them fails, or all of them together take too long.
        """
        script = self.folder / f"block-{time.monotonic_ns()}.sh"
        script.write_text(commands, encoding="utf-8")
        done = f"done {script.name}"
        assert self.process.stdin is not None
        # What is typed stays in the shell (cd, &, variables); what reads its input finds none.
        self.process.stdin.write(f'source "{script}" < /dev/null\necho "{done}"\n')
        self.process.stdin.flush()
        shown: list[str] = []
        deadline = time.monotonic() + timeout_s
        while (line := self._line(deadline)) is not None and line.rstrip("\n") != done:
            shown.append(line)
        if line is None:
            said = "failed" if self.process.poll() is not None else f"took longer than {timeout_s:.0f} s"
            raise AssertionError(f"{said}:\n{commands}{''.join(shown)}")
        return "".join(shown)

    def _line(self, deadline: float) -> str | None:
        """Return the next line; None if it is too late or the shell has ended, whoever else still holds its output."""
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            with suppress(queue.Empty):
                return self.lines.get(timeout=0.1)
            if ended:
                break
        return None


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """Open a shell that starts in a folder; at the end stop all that it started there, however the block ends."""
    start, scripts = folder / "start", folder / "scripts"
    start.mkdir()
    scripts.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    process = subprocess.Popen(
        [shutil.which("bash") or "bash", "--norc", "--noprofile", "-e", "-o", "pipefail"],
        cwd=start,
        env={**inherited, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield Shell(process, scripts)
    finally:
        for mesh in start.rglob("mesh.yaml"):
            subprocess.run(
                [sys.executable, "-m", "headrace.selfserve.main", "--mesh", str(mesh.parent), "down"],
                capture_output=True,
                timeout=120,
                check=False,
            )
        for found in processes_in(folder):
            with suppress(psutil.Error):
                found.kill()
        process.kill()
        process.wait(30)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return every process that works in a folder or names it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            places = [process.cwd(), *process.cmdline()]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in place for place in places):
                found.append(process)
    return found


def run_document(path: Path, shell: Shell) -> None:
    """Run a document's blocks in order and compare what its commands show with what it says.

    Raises:
        AssertionError: with the place of the first block that does not do what the document says.
    """
    shown = ""
    for block in blocks_of(path.read_text(encoding="utf-8")):
        place = f"{path.name}:{block.line}"
        try:
            if block.kind == "sh":
                shown = shell.run(block.text)
            elif block.kind == "text":
                wrong = unlike(block.text, shown)
                assert not wrong, f"does not show: {wrong}\n--- it shows\n{shown}"
            else:
                shell.run(f"cat > '{block.file}' <<'END OF THE FILE'\n{block.text}END OF THE FILE\n")
        except AssertionError as error:
            raise AssertionError(f"{place}: {error}") from None
