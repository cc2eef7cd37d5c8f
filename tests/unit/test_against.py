"""``headrace check --against REF``: a mesh in a subfolder of a real git repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import UserError
from headrace.selfserve.checking import checked_mesh
from headrace.selfserve.main import main
from tests.support.many import names_of, write_many

if TYPE_CHECKING:
    from headrace.selfserve.check_report import Checked

# How many products the mesh of these tests has.
MANY = 50
CONTRACT, SCHEMA = "contract.odcs.yaml", "schema.avsc"


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose folder data/mesh is a mesh, committed."""
    top = tmp_path_factory.mktemp("repository")
    write_many(top / "data" / "mesh", MANY)
    (top / "README.md").write_text("nothing of headrace's\n")
    git(top, "init", "--quiet", "--initial-branch", "main")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--message", "a mesh")
    return top


@pytest.fixture
def top(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "repository"))


@pytest.fixture
def mesh(top: Path) -> Path:
    return top / "data" / "mesh"


def folder_of(mesh: Path, number: int) -> Path:
    domain, product = names_of(number)
    return mesh / "domains" / domain / product


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def checked(mesh: Path, ref: str = "main") -> Checked:
    return checked_mesh(mesh, None, ref)[0]


def found(checked: Checked) -> list[tuple[str, str, str]]:
    return [(str(each.product), each.finding.rule, str(checked.place(each))) for each in checked.findings]


def place(mesh: Path, number: int, file: str, text: str) -> str:
    """Where a text stands in a product's file, relative to the mesh: ``file:line:column``."""
    path = folder_of(mesh, number) / file
    return line_in(mesh, path, text)


def line_in(mesh: Path, path: Path, text: str) -> str:
    for line, words in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if text in words:
            return f"{path.relative_to(mesh).as_posix()}:{line}:{words.index(text) + 1}"
    raise AssertionError(text)


NOTE_NAME = '"name": "note0"'
NOTE = '"name": "note0",\n      "type": [\n        "null",\n        "string"\n      ]'


def test_nothing_changed(mesh: Path) -> None:
    result = checked(mesh)
    assert result.ok
    assert result.comparison is not None
    assert (result.comparison.compared, result.comparison.parsed) == (MANY, 0)


def test_findings_stand_at_their_lines_sorted_by_product(mesh: Path) -> None:
    schema = folder_of(mesh, 7) / SCHEMA
    edit(schema, '"sku",\n              "type": "string"', '"sku",\n              "type": "int"')
    edit(schema, ',\n      "confluent:tags": [\n        "PII",\n        "user.contact.email"\n      ]', "")
    contract = folder_of(mesh, 7) / CONTRACT
    edit(contract, "property: latency, value: 10", "property: latency, value: 20")
    edit(
        contract,
        "      - name: email\n        customProperties:\n          - {property: mask, value: hmac-sha-256}\n",
        "",
    )
    other = folder_of(mesh, 3) / CONTRACT
    edit(other, "kafka.partitions, value: 4", "kafka.partitions, value: 5")
    result = checked(mesh)
    assert not result.faults
    assert found(result) == [
        ("domain0.product3", "PARTITIONS_CHANGED", place(mesh, 3, CONTRACT, "property: kafka.partitions")),
        ("domain0.product7", "TYPE_MISMATCH", place(mesh, 7, SCHEMA, '"name": "sku"')),
        ("domain0.product7", "UNSUPPORTED_TYPE_CHANGE", place(mesh, 7, SCHEMA, '"name": "sku"')),
        ("domain0.product7", "PII_TAG_REMOVED", place(mesh, 7, SCHEMA, '"name": "email"')),
        ("domain0.product7", "SLA_RELAXED", place(mesh, 7, CONTRACT, "property: latency")),
    ]
    assert result.comparison is not None
    assert (result.comparison.compared, result.comparison.parsed) == (MANY, 2)


def test_products_come_and_go(mesh: Path) -> None:
    shutil.move(folder_of(mesh, 4), folder_of(mesh, 4).with_name("product4_new"))
    contract = folder_of(mesh, 4).with_name("product4_new") / CONTRACT
    edit(contract, "product4", "product4_new")
    result = checked(mesh)
    assert found(result) == [("domain0.product4", "PRODUCT_REMOVED", "domains/domain0/product4/contract.odcs.yaml")]


@pytest.mark.parametrize("status", ["draft", "deprecated"])
def test_what_nobody_was_to_rely_on_may_go(mesh: Path, status: str) -> None:
    edit(folder_of(mesh, 4) / CONTRACT, "status: active", f"status: {status}")
    git(mesh, "commit", "--quiet", "--all", "--message", "another status")
    shutil.rmtree(folder_of(mesh, 4))
    assert checked(mesh).ok


def test_a_mesh_that_the_ref_does_not_have_is_new(top: Path, mesh: Path) -> None:
    git(top, "rm", "-r", "--quiet", "--cached", "data")
    git(top, "commit", "--quiet", "--message", "no mesh")
    result = checked(mesh)
    assert result.ok
    assert result.comparison is not None
    assert result.comparison.compared == 0


def test_a_weaker_policy_is_found_without_reading_a_product(mesh: Path) -> None:
    edit(mesh / "policies" / "pii.yaml", "hmac-sha-256", "show-first-4")
    edit(
        folder_of(mesh, 9) / CONTRACT,
        "      - name: email\n        customProperties:\n          - {property: mask, value: hmac-sha-256}\n",
        "",
    )
    git(mesh, "add", "domains")
    git(mesh, "commit", "--quiet", "--message", "product 9 has the policy's mask")
    result = checked(mesh)
    assert found(result) == [("domain0.product9", "MASK_WEAKENED", place(mesh, 9, SCHEMA, '"name": "email"'))]
    assert result.comparison is not None
    assert (result.comparison.compared, result.comparison.parsed) == (MANY, 0)


def test_a_schema_that_is_nobodys_own_is_everybodys(mesh: Path) -> None:
    shared = mesh / "shared" / "order.avsc"
    shared.parent.mkdir()
    shutil.move(folder_of(mesh, 0) / SCHEMA, shared)
    edit(folder_of(mesh, 0) / CONTRACT, "url: schema.avsc", "url: ../../../shared/order.avsc")
    git(mesh, "add", "--all")
    git(mesh, "commit", "--quiet", "--message", "a shared schema")
    assert checked(mesh).ok
    edit(shared, '"type": "int"', '"type": "long"')
    assert checked(mesh).ok
    edit(shared, '"type": "long"\n', '"type": "double"\n')
    assert found(checked(mesh)) == [
        ("domain0.product0", "UNSUPPORTED_TYPE_CHANGE", line_in(mesh, shared, '"name": "count"'))
    ]


def test_a_product_that_had_a_fault_is_told_of_and_the_others_are_compared(mesh: Path) -> None:
    contract = folder_of(mesh, 1) / CONTRACT
    edit(contract, "status: active", "status:")
    git(mesh, "commit", "--quiet", "--all", "--message", "a fault")
    edit(contract, "status:", "status: active")
    edit(folder_of(mesh, 2) / CONTRACT, "latency, value: 10", "latency, value: 11")
    result = checked(mesh)
    assert [rule for _, rule, _ in found(result)] == ["SLA_RELAXED"]
    assert result.comparison is not None
    (unread,) = result.comparison.unread
    assert (unread.where, result.comparison.compared) == (
        "main:domains/domain0/product1/contract.odcs.yaml:6:8",
        MANY - 1,
    )
    edit(folder_of(mesh, 2) / CONTRACT, "latency, value: 11", "latency, value: 10")
    assert checked(mesh).ok, "what was wrong before and is mended now is no finding"


def test_a_product_that_has_a_fault_keeps_no_other_from_being_compared(mesh: Path) -> None:
    (folder_of(mesh, 1) / SCHEMA).unlink()
    edit(folder_of(mesh, 2) / CONTRACT, "latency, value: 10", "latency, value: 11")
    result = checked(mesh)
    assert [fault.where for fault in result.faults] == ["domains/domain0/product1/schema.avsc"]
    assert [(name, rule) for name, rule, _ in found(result)] == [("domain0.product2", "SLA_RELAXED")]


def test_the_promise_that_was_made_counts_and_the_new_one(mesh: Path) -> None:
    """A change cannot be excused by lowering the level in the same breath."""
    folder = folder_of(mesh, 5)
    edit(folder / CONTRACT, "avro.compatibility, value: BACKWARD", "avro.compatibility, value: NONE")
    edit(folder / SCHEMA, '"placed_at"', '"put_at"')
    assert [rule for _, rule, _ in found(checked(mesh))] == [
        "READER_FIELD_MISSING_DEFAULT_VALUE",
        "COMPATIBILITY_LOWERED",
    ]


# --- git ---


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git in front of git, which writes down what it is asked to do."""
    log, folder = tmp_path / "git.log", tmp_path / "bin"
    folder.mkdir()
    wrapper = folder / "git"
    wrapper.write_text(f'#!/bin/sh\necho "$1" >> "{log}"\nexec "{shutil.which("git")}" "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


def test_git_is_started_twice_and_only_what_differs_is_parsed(
    mesh: Path, counted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: Counter[str] = Counter()
    real = AvroSchema.parse

    def parse(text: str, *, where: str | None = None) -> AvroSchema:
        parsed[str(where)] += 1
        return real(text, where=where)

    monkeypatch.setattr(AvroSchema, "parse", parse)
    for number in range(0, MANY, 10):
        edit(folder_of(mesh, number) / SCHEMA, '"doc": "An order."', '"doc": "One order."')
    assert checked(mesh).ok
    assert counted.read_text().split() == ["ls-tree", "cat-file"]
    own = {where: count for where, count in parsed.items() if where.startswith("domains/domain")}
    assert len(own) == MANY
    assert Counter(own.values()) == {1: MANY - 5, 2: 5}
    counted.unlink()
    git(mesh, "commit", "--quiet", "--all", "--message", "more words")
    counted.unlink()
    assert checked(mesh).ok
    assert counted.read_text().split() == ["ls-tree"]


def test_the_working_tree_and_the_index_are_left_alone(top: Path, mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder_of(mesh, 0) / SCHEMA, '"An order."', '"One order."')
    (mesh / "untracked").write_text("mine")
    before = git(top, "status", "--porcelain"), (top / ".git" / "index").read_bytes()
    # A hook's git hands its own folders on, relative to where it stands.
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/index")
    assert checked(mesh).ok
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert (git(top, "status", "--porcelain"), (top / ".git" / "index").read_bytes()) == before


@pytest.mark.parametrize("ref", ["nothing/here", "--all", "-h", "", "main:README.md"])
def test_a_ref_that_does_not_exist(mesh: Path, ref: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(mesh, ref)
    assert caught.value.hint


def test_no_repository_and_no_git(mesh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(mesh, alone)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UserError, match="no git repository"):
        checked(alone)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no git on this machine"):
        checked(mesh)


def test_a_file_that_git_has_lost(top: Path, mesh: Path) -> None:
    schema = folder_of(mesh, 0) / SCHEMA
    blob = git(top, "rev-parse", f"HEAD:{schema.relative_to(top).as_posix()}").strip()
    edit(schema, '"An order."', '"One order."')
    (top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(UserError, match="git cannot read"):
        checked(mesh)


def test_a_file_too_large_to_be_one_is_not_read_from_git_either(mesh: Path) -> None:
    contract = folder_of(mesh, 0) / CONTRACT
    text = contract.read_text()
    contract.write_text(text + "# more words\n" * 100_000)
    git(mesh, "commit", "--quiet", "--all", "--message", "too large")
    contract.write_text(text)
    result = checked(mesh)
    assert result.comparison is not None
    assert ["larger than 1 MiB" in each.what for each in result.comparison.unread] == [True]


def test_other_line_ends_are_no_change(mesh: Path) -> None:
    for file in (CONTRACT, SCHEMA):
        path = folder_of(mesh, 0) / file
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert checked(mesh).ok


def test_commits_tags_and_other_branches_are_refs_too(top: Path, mesh: Path) -> None:
    git(top, "tag", "v1")
    commit = git(top, "rev-parse", "HEAD").strip()
    edit(folder_of(mesh, 0) / CONTRACT, "latency, value: 10", "latency, value: 11")
    for ref in ("v1", commit, commit[:10], "HEAD", "refs/heads/main", "main@{0}"):
        assert [rule for _, rule, _ in found(checked(mesh, ref))] == ["SLA_RELAXED"]


# --- the command ---


def test_json_holds_everything(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder_of(mesh, 0) / CONTRACT, "latency, value: 10", "latency, value: 11")
    edit(folder_of(mesh, 1) / CONTRACT, "status: active", "status:")
    assert main(["--mesh", str(mesh), "check", "--against", "main", "--format", "json"]) == 1
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report == {
        "ok": False,
        "against": "main",
        "products": MANY - 1,
        "compared": MANY - 1,
        "faults": [
            {
                "file": "domains/domain0/product1/contract.odcs.yaml",
                "line": 6,
                "column": 8,
                "what": "status is missing",
                "next": "write status: active",
            }
        ],
        "findings": [
            {
                "product": "domain0.product0",
                "against": "main",
                "file": "domains/domain0/product0/contract.odcs.yaml",
                "line": int(place(mesh, 0, CONTRACT, "property: latency").split(":")[1]),
                "column": 6,
                "layer": "governance",
                "rule": "SLA_RELAXED",
                "path": "slaProperties.latency",
                "old": "10 s",
                "new": "11 s",
                "breaks": "reader of new events",
                "next": report["findings"][0]["next"],
            }
        ],
        "unread": [],
    }


def test_github_gets_a_command_for_each_at_the_path_in_the_repository(
    mesh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder_of(mesh, 0) / CONTRACT, "latency, value: 10", "latency, value: 11")
    edit(folder_of(mesh, 1) / CONTRACT, "status: active", "status:")
    assert main(["--mesh", str(mesh), "check", "--against", "main", "--format", "github"]) == 1
    fault, finding = capsys.readouterr().out.splitlines()
    assert fault == (
        "::error file=data/mesh/domains/domain0/product1/contract.odcs.yaml,line=6,col=8,title=headrace check"
        "::status is missing%0Anext: write status: active"
    )
    line = place(mesh, 0, CONTRACT, "property: latency").split(":")[1]
    assert finding.startswith(
        f"::error file=data/mesh/domains/domain0/product0/contract.odcs.yaml,line={line},col=6,"
        "title=domain0.product0%3A SLA_RELAXED breaks reader of new events::slaProperties.latency was 10 s, is 11 s"
    )


def test_a_message_cannot_forge_a_command(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub's escapes: %, line ends, and in properties also : and ,."""
    edit(folder_of(mesh, 0) / CONTRACT, "domain0-team", '"x%0A\\r\\n::error::forged"')
    edit(folder_of(mesh, 0) / CONTRACT, "kafka.partitions, value: 4", "kafka.partitions, value: 8")
    edit(folder_of(mesh, 0) / CONTRACT, "status: active", 'status: "a\\e[2J\\u009b\\n::error::b"')
    folder = folder_of(mesh, 0).with_name("a,b:c%")
    folder.mkdir()
    assert main(["--mesh", str(mesh), "check", "--against", "main", "--format", "github"]) == 1
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable()
    lines = out.splitlines()
    assert all(line.startswith("::error file=data/mesh/domains/domain0/") for line in lines)
    assert any("file=data/mesh/domains/domain0/a%2Cb%3Ac%25" in line for line in lines)


@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_half_a_surrogate_pair_in_a_message_is_shown_as_its_escape(
    mesh: Path, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    schema = json.loads((folder_of(mesh, 0) / SCHEMA).read_text())
    schema["fields"].append({"name": "half", "type": "int", "default": "\ud800"})
    (folder_of(mesh, 0) / SCHEMA).write_text(json.dumps(schema))
    assert main(["--mesh", str(mesh), "check", "--against", "main", "--format", form]) == 1
    shown = capfd.readouterr()
    assert "bug" not in shown.err
    if form == "json":
        (fault,) = json.loads(shown.out)["faults"]
        assert fault["file"].endswith(SCHEMA)


def test_text_is_for_people(mesh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder_of(mesh, 0) / SCHEMA, NOTE, NOTE.replace("string", "bytes"))
    assert main(["--mesh", str(mesh), "check", "--against", "main"]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:3] == [
        "breaks the table: UNSUPPORTED_TYPE_CHANGE (table)",
        "  what: note0 was string, is binary, against main",
        f"  where: {place(mesh, 0, SCHEMA, NOTE_NAME)} note0 of domain0.product0",
    ]
    assert shown.err == ("mesh many: 2 domains, 50 products, no faults; compared with main: 50 products, 1 finding\n")
    assert main(["--mesh", str(mesh), "check"]) == 0
    assert main(["--mesh", str(mesh), "check", "--against", "nothing"]) == 1
    assert capsys.readouterr().err.count("\n") == 4
