"""What a newcomer reads and types, on real servers: the tutorial, ``init``'s own words, a new product's README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import Shell, blocks_of, processes_in, run_document, shell
from tests.support.sinks import eventually

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def typed(readme: str) -> list[str]:
    """The commands that a README shows: indented, some with a remark behind them."""
    lines = [line.strip() for line in readme.splitlines() if line.startswith("    headrace ")]
    return [re.sub(r"  +#.*", "", line) for line in lines]


@pytest.mark.timeout(900)
def test_the_tutorial_does_what_it_says_and_leaves_nothing_running(tmp_path: Path) -> None:
    with shell(tmp_path) as opened:
        run_document(TUTORIAL, opened)
        left = [process for process in processes_in(tmp_path) if process.pid != opened.process.pid]
        assert left == []


def test_the_tutorial_has_commands_programs_and_what_they_show() -> None:
    blocks = blocks_of(TUTORIAL.read_text(encoding="utf-8"))
    kinds = [block.kind for block in blocks]
    assert {"sh", "text", "python", "yaml", "json"} == set(kinds)
    commands = " ".join(block.text for block in blocks if block.kind == "sh")
    for command in ("init", "check", "up", "apply", "publish", "tail", "sink", "sql", "new", "status", "verify"):
        assert f"headrace {command} " in f"{commands} ".replace("\n", " ")
    assert kinds.count("text") > kinds.count("sh") / 2, "most commands should say what they show"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return tmp_path / "start" / "my mesh"


@pytest.mark.timeout(600)
def test_a_new_mesh_runs_as_its_last_line_and_its_readme_say(tmp_path: Path, made: Path) -> None:
    with shell(tmp_path) as opened:
        said = opened.run('headrace init "my mesh"\n').splitlines()
        _, _, line = said[-1].partition("next: ")
        shown = opened.run(f"{line}\n")
        assert "published 10 events of shop.orders" in shown
        assert shown.endswith("10 rows\n")
        assert "example.org" not in shown
        readme = (made / "README.md").read_text(encoding="utf-8")
        assert ["cd 'my mesh'", *typed(readme)] == [*line.split(" && "), "headrace down"]
        a_new_product_runs_as_its_readme_says(opened, made)
        assert opened.run("headrace down\n").endswith("stopped\n")


def a_new_product_runs_as_its_readme_says(opened: Shell, mesh: Path) -> None:
    opened.run("headrace new shop/returns --key return_id\nheadrace check\nheadrace apply\n")
    readme = (mesh / "domains/shop/returns/README.md").read_text(encoding="utf-8")
    (event,) = re.findall(r"^ {4}(\{.*\})$", readme, re.MULTILINE)
    (mesh / "FILE.jsonl").write_text(f"{event}\n", encoding="utf-8")
    shown = opened.run("\n".join([*typed(readme), "headrace sink --until-caught-up", "headrace verify\n"]))
    assert re.search("published 1 events? of shop.returns", shown)
    assert "proved: 11 events of 4 products" in shown

    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (mesh / "follow.py").write_text(program, encoding="utf-8")
    seen = mesh / "seen.txt"
    seen.touch()
    opened.run("python -u follow.py > seen.txt 2>&1 &\n")
    assert eventually(lambda: "'return_id': '1'" in seen.read_text(encoding="utf-8")), seen.read_text(encoding="utf-8")
