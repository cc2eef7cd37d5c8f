"""The README and the command line agree: what the README types works, and it leaves no command out."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from headrace.selfserve.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
OPERATORS = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "(", ")"})


def command_tree() -> Any:
    """The command line with commands that do nothing: what is left is the parser."""
    tree: Any = get_command(app)
    left = [tree]
    while left:
        for command in left.pop().commands.values():
            command.callback = lambda **_: None
            # A command of commands, such as `ledger show`.
            left += [command] if hasattr(command, "commands") else []
    return tree


def typed(markdown: str) -> Iterator[tuple[int, list[str]]]:
    """Every call of headrace in a fenced block: the line's number and what stands behind ``headrace``."""
    fenced = False
    held: list[str] = []
    for number, line in enumerate(markdown.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced, held = not fenced, []
            continue
        if not fenced:
            continue
        held.append(line.rstrip("\\"))
        # A line goes on behind a backslash, or until its quotation mark is closed.
        if line.endswith("\\") or sum(part.count('"') for part in held) % 2:
            continue
        for words in simple_commands(" ".join(held)):
            if words and PurePath(words[0]).name == "headrace":
                yield number, words[1:]
        held = []


def simple_commands(line: str) -> Iterator[list[str]]:
    """Split a line as a shell does; words behind a redirection are no arguments."""
    lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # prose or output with an apostrophe
        return
    current: list[str] = []
    ended = False
    for word in words:
        if word in OPERATORS:
            if word in {"<", ">", ">>"}:
                ended = True
                continue
            yield current
            current, ended = [], False
        elif not ended:
            current.append(word)
    yield current


def refusal(words: list[str]) -> str:
    """What the command line says against these words; nothing if it takes them."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            command_tree().main(args=words, prog_name="headrace")
        except SystemExit as ended:
            if ended.code in (0, None):
                return ""
    return said.getvalue().strip().splitlines()[-1]


def test_what_the_readme_types_works() -> None:
    calls = list(typed(README.read_text(encoding="utf-8")))
    wrong = [
        f"README.md:{number}: headrace {shlex.join(words)}\n    {said}"
        for number, words in calls
        if (said := refusal(words))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_readme_leaves_no_command_out() -> None:
    text = README.read_text(encoding="utf-8")
    missing = [name for name in command_tree().commands if not re.search(rf"\bheadrace\b[^\n|]*\b{name}\b", text)]
    assert not missing, f"README.md does not show: {', '.join(f'headrace {name}' for name in missing)}"


EXAMPLE = """
Type `headrace nothing` here.

```console
$ headrace --mesh examples/airline sql "SELECT 1
  FROM a.b" | head
headrace publish a.b \\
  file.csv --skip-bad && .venv/bin/headrace sink   # keeps running
headrace sql - < query.sql
it's a line of output
```
"""


def test_calls_are_found() -> None:
    assert list(typed(EXAMPLE)) == [
        (6, ["--mesh", "examples/airline", "sql", "SELECT 1   FROM a.b"]),
        (8, ["publish", "a.b", "file.csv", "--skip-bad"]),
        (8, ["sink"]),
        (9, ["sql", "-"]),
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sink", "--until-caught-up"], ""),
        (["--help"], ""),
        (["nothing"], "No such command"),
        (["sink", "--for-ever"], "No such option"),
        (["publish", "a.b"], "Missing argument"),
        (["sql", "SELECT 1", "--format", "xml"], "Invalid value"),
        (["check", "everything"], "unexpected extra argument"),
    ],
)
def test_refusals_are_seen(words: list[str], said: str) -> None:
    found = refusal(words)
    assert said in found
    assert bool(said) == bool(found)
