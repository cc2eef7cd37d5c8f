"""``headrace compat``: schemas in files, far from any mesh."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from headrace.selfserve.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, *fields: tuple[str, Any]) -> str:
    members = [{"name": field, "type": kind} for field, kind in fields]
    with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123 - it stands where the command does
        json.dump({"type": "record", "name": "Event", "fields": members}, file)
    return name


def test_a_change_that_breaks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    files = write("old.avsc", ("a", "int")), write("new.avsc", ("a", "long"))
    assert main(["compat", *files]) == 0
    assert capsys.readouterr().out == "table: widen a int long\nnew.avsc: breaks nobody (BACKWARD)\n"


def test_text_says_who_breaks_where_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    files = write("1.avsc", ("a", "long")), write("2.avsc", ("a", "long")), write("3.avsc", ("a", "int"))
    assert main(["compat", *files, "--mode", "BACKWARD_TRANSITIVE"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[:4] == [
        "breaks reader of old events: TYPE_MISMATCH (avro)",
        "  what: a was long, is int, against 1.avsc and 2.avsc",
        "  where: 3.avsc a",
        "  next: keep the type, and add a field of another name with the new one",
    ]
    assert shown[4] == "breaks the table: UNSUPPORTED_TYPE_CHANGE (table)"
    assert shown[-1] == "3.avsc: 2 findings (BACKWARD_TRANSITIVE)"


def test_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    files = write("old.avsc", ("a", "int")), write("new.avsc", ("a", "double"), ("b", ["null", "int"]))
    assert main(["compat", *files, "--mode", "NONE", "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    (found,) = report.pop("findings")
    assert report == {"ok": False, "compatible": True, "mode": "NONE", "table": []}
    assert found.pop("next")
    assert found == {
        "layer": "table",
        "rule": "UNSUPPORTED_TYPE_CHANGE",
        "path": "a",
        "old": "int",
        "new": "double",
        "breaks": "the table",
        "against": ["old.avsc"],
    }


def test_a_recursive_schema_has_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    node = write("node.avsc", ("v", "int"), ("next", ["null", "Event"]))
    assert main(["compat", node, node]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "breaks the table: RECURSIVE_TYPE (table)"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([], 2),
        (["one.avsc"], 2),
        (["one.avsc", "one.avsc", "--mode", "SOME"], 2),
        (["nowhere.avsc", "one.avsc"], 1),
        (["bad.avsc", "one.avsc"], 1),
        (["bytes.avsc", "one.avsc"], 1),
    ],
)
def test_what_it_cannot_compare(
    words: list[str], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("one.avsc", ("a", "int"))
    (tmp_path / "bad.avsc").write_text('"string"')
    (tmp_path / "bytes.avsc").write_bytes(b"\xff")
    assert main(["compat", *words]) == status
    said = capsys.readouterr()
    assert not said.out
    assert "Traceback" not in said.err
    assert words[0] in said.err if status == 1 else "--help" in said.err
