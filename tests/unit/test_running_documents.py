"""The runner of documents: it leaves no block out, and says what does not do what the document says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.documents import Block, blocks_of, processes_in, run_document, shell, unlike
from tests.support.sinks import eventually

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = """
Make a folder:

```sh
mkdir new && cd new
echo one; echo two >&2
```
```text
one
…wo
```

Save this as `hello.py`:

```python
print("hello")
```

  ```sh
  python hello.py
  ```
"""


def test_every_block_is_found_with_its_place() -> None:
    assert blocks_of(DOCUMENT) == [
        Block(5, "sh", "mkdir new && cd new\necho one; echo two >&2\n"),
        Block(9, "text", "one\n…wo\n"),
        Block(16, "python", 'print("hello")\n', "hello.py"),
        Block(20, "sh", "python hello.py\n"),
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("```python\nprint()\n```\n", "line 2: a block is sh, text, or a file"),
        ("Like `this`:\n\n```\nx\n```\n", "line 4: a block is sh, text, or a file"),
        ("Nothing names it.\n\n```json\n{}\n```\n", "line 4: a block is sh, text, or a file"),
        ("```text\nx\n```\n", "line 2: there are no commands"),
        ("Text:\n\n    headrace nothing\n", "line 3: an indented block"),
        ("```sh\ntrue\n", "line 1: the fence is not closed"),
    ],
)
def test_a_block_that_would_not_be_run_is_refused(document: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        blocks_of(document)


@pytest.mark.parametrize(
    ("expected", "shown", "wrong"),
    [
        ("a\nb\n", "a\n\n  b  \n", ""),
        ("a …\n", "a 17 ms\n", ""),
        ("a\n…\nz\n", "a\nb\nc\nz\n", ""),
        ("…\nz\n", "z\n", ""),
        ("a\n", "a\nb\n", "(the output goes on behind the last line)"),
        ("a\nb\n", "a\nc\nb\n", "b"),
        ("a.c\n", "abc\n", "a.c"),
        ("a\n", "", "a"),
    ],
)
def test_output_is_compared_line_by_line(expected: str, shown: str, wrong: str) -> None:
    assert unlike(expected, shown) == wrong


def run(folder: Path, document: str) -> None:
    path = folder / "document.md"
    path.write_text(document, encoding="utf-8")
    with shell(folder) as opened:
        run_document(path, opened)


def test_a_document_that_does_what_it_says_passes(tmp_path: Path) -> None:
    run(tmp_path, DOCUMENT)
    assert (tmp_path / "start/new/hello.py").read_text() == 'print("hello")\n'


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("```sh\ntrue\nfalse\necho no\n```\n", "document.md:2: failed"),
        ("```sh\nfalse | cat\n```\n", "document.md:2: failed"),
        ("```sh\necho one\n```\n```text\ntwo\n```\n", "document.md:5: does not show: two"),
        ("Save it as `no/x.py`:\n```python\npass\n```\n", "document.md:3: failed"),
    ],
)
def test_the_first_block_that_does_otherwise_is_named(tmp_path: Path, document: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        run(tmp_path, document)


def test_what_a_block_leaves_running_is_stopped_even_if_a_later_one_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="failed"):
        run(tmp_path, '```sh\nsleep 600 &\ntest -n "$(jobs)"\nfalse\n```\n')
    assert eventually(lambda: not processes_in(tmp_path))


def test_a_block_that_does_not_end_fails(tmp_path: Path) -> None:
    with shell(tmp_path) as opened, pytest.raises(AssertionError, match="took longer than 1 s"):
        opened.run("sleep 600", timeout_s=1)
    assert eventually(lambda: not processes_in(tmp_path))


def test_a_command_that_reads_its_input_finds_none(tmp_path: Path) -> None:
    with shell(tmp_path) as opened:
        assert opened.run("cat; echo end") == "end\n"
