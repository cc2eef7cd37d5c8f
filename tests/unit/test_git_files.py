"""Files as a git ref has them: through links, out of odd checkouts, and from repositories that mean harm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.schemas.errors import UserError
from headrace.selfserve.checking import checked_mesh
from headrace.selfserve.git_files import GitFolder
from tests.support.meshes import ORDER, write, write_product

if TYPE_CHECKING:
    from headrace.selfserve.check_report import Checked

RETURNS = "shop.returns"
ORDERS = "shop.orders"


def git(folder: Path, *words: str, stdin: bytes = b"") -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, input=stdin, check=True).stdout.decode().strip()


def commit(mesh: Path) -> None:
    git(mesh, "add", "--all")
    git(mesh, "commit", "--quiet", "--message", "as it is")


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A mesh that is a repository of its own: shop.orders and shop.returns, committed."""
    root = tmp_path / "a mesh ü"
    write(root / "mesh.yaml", "name: test\n")
    write(root / "policies" / "pii.yaml", "default: replace-with-null\n")
    write(root / "domains" / "shop" / "domain.yaml", "owner: shop-team\ndescription: a test's domain\n")
    for name in (ORDERS, RETURNS):
        write_product(folder_of(root, name), name, ORDER)
    git(root, "init", "--quiet", "--initial-branch", "main")
    commit(root)
    return root


def folder_of(mesh: Path, product: str) -> Path:
    return mesh / "domains" / product.replace(".", "/")


def point_to(mesh: Path, product: str, url: str) -> None:
    contract = folder_of(mesh, product) / "contract.odcs.yaml"
    contract.write_text(contract.read_text().replace("url: schema.avsc", f"url: {url}"))


def narrow(schema: Path) -> None:
    """Change a schema so that its table cannot follow."""
    fields: list[Any] = [{**field, "type": "int"} if field["name"] == "amount" else field for field in ORDER["fields"]]
    schema.write_text(json.dumps({**ORDER, "fields": fields}))


def checked(mesh: Path, ref: str = "HEAD") -> Checked:
    return checked_mesh(mesh, None, ref)[0]


def broken(found: Checked) -> set[str]:
    assert found.comparison is not None
    assert not found.comparison.unread
    return {str(each.product) for each in found.findings}


# --- where schemas lie ---


def test_a_schema_may_have_any_name(mesh: Path) -> None:
    schema = folder_of(mesh, ORDERS) / "avro" / "orders.json"
    schema.parent.mkdir()
    (folder_of(mesh, ORDERS) / "schema.avsc").rename(schema)
    point_to(mesh, ORDERS, "avro/orders.json")
    commit(mesh)
    assert checked(mesh).ok
    narrow(schema)
    assert broken(checked(mesh)) == {ORDERS}


def test_a_schema_of_anothers_folder_counts_for_both(mesh: Path) -> None:
    point_to(mesh, RETURNS, "../orders/schema.avsc")
    commit(mesh)
    narrow(folder_of(mesh, ORDERS) / "schema.avsc")
    assert broken(checked(mesh)) == {ORDERS, RETURNS}


@pytest.mark.parametrize("through", ["a file", "a folder", "links"])
def test_links_are_followed_at_the_ref_too(mesh: Path, through: str) -> None:
    shared = mesh / "shared"
    shared.mkdir()
    folder = folder_of(mesh, ORDERS)
    if through == "a folder":
        folder.rename(shared / "orders")
        folder.symlink_to(Path("../../shared/orders"))
    else:
        (folder / "schema.avsc").rename(shared / "order.avsc")
        (folder / "schema.avsc").symlink_to(Path("../../../shared/order.avsc"))
    if through == "links":
        shared.rename(mesh / "common")
        shared.symlink_to("common")
    (mesh / "out").symlink_to("/etc")
    (mesh / "all").symlink_to(".")
    (mesh / "domains" / "round.avsc").symlink_to("round.avsc")
    commit(mesh)
    assert checked(mesh).ok
    narrow((folder / "schema.avsc").resolve())
    assert broken(checked(mesh)) == {ORDERS}


def test_links_that_show_too_much(mesh: Path) -> None:
    for name in ("a", "b"):
        (mesh / name).mkdir()
        for number in range(60):
            (mesh / name / f"{number}.txt").write_text("")
    for number in range(60):
        (mesh / "a" / f"to{number}").symlink_to("../b")
        (mesh / "b" / f"to{number}").symlink_to("../a")
    commit(mesh)
    with pytest.raises(UserError, match="more than 100,000 files"):
        checked(mesh)


# --- odd checkouts ---


def test_what_a_sparse_checkout_leaves_out_was_not_removed(mesh: Path) -> None:
    git(
        mesh,
        "sparse-checkout",
        "set",
        "--no-cone",
        "/mesh.yaml",
        "/policies",
        "/domains/shop/domain.yaml",
        "/domains/shop/orders/",
    )
    assert not folder_of(mesh, RETURNS).exists()
    assert checked(mesh).ok
    shutil.rmtree(folder_of(mesh, ORDERS))
    assert broken(checked(mesh)) == {ORDERS}


def test_a_file_in_a_products_place_is_no_product(mesh: Path) -> None:
    shutil.rmtree(folder_of(mesh, RETURNS))
    folder_of(mesh, RETURNS).write_text("")
    assert broken(checked(mesh)) == {RETURNS}


def test_worktrees_clones_without_blobs_and_a_detached_head(mesh: Path, tmp_path: Path) -> None:
    narrow(folder_of(mesh, ORDERS) / "schema.avsc")
    git(mesh, "config", "uploadpack.allowFilter", "true")
    git(mesh, "commit", "--quiet", "--all", "--message", "narrower")
    git(mesh, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{mesh}", "clone")
    git(tmp_path, "clone", "--quiet", "--bare", str(mesh), "bare")
    git(tmp_path / "bare", "worktree", "add", "--quiet", "--detach", str(tmp_path / "of bare"))
    for name in ("tree", "clone", "of bare"):
        assert broken(checked(tmp_path / name, "HEAD~1")) == {ORDERS}


def test_folders_that_a_hooks_git_hands_on_are_not_the_meshs(mesh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_DIR", "GIT_OBJECT_DIRECTORY", "GIT_WORK_TREE", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, "nowhere")
    assert checked(mesh).ok


@pytest.mark.parametrize("ref", ["", " ", "HEAD:domains", "HEAD^{tree}", "-h", "--output=x", "\udcff", "a\n::error::b"])
def test_what_is_no_ref(mesh: Path, ref: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(mesh, ref)
    assert caught.value.hint


# --- harm ---


def tree_of(mesh: Path, *entries: tuple[str, str, str]) -> str:
    """Write a tree that git itself would not make, of mode, object id and name; return its id."""
    raw = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, oid, name in entries)
    return git(mesh, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=raw)


def mesh_with(mesh: Path, *entries: tuple[str, str, str]) -> str:
    """Commit the mesh's tree with more entries; return the commit."""
    there = [line.split(None, 3) for line in git(mesh, "ls-tree", "HEAD").splitlines()]
    tree = tree_of(mesh, *entries, *((mode.lstrip("0"), oid, name) for mode, _, oid, name in there))
    return git(mesh, "commit-tree", "-m", "harm", tree)


def test_no_name_of_a_file_leads_out(mesh: Path, tmp_path: Path) -> None:
    """A checkout refuses such names, but a ref that is only compared with was never checked out."""
    blob = git(mesh, "hash-object", "-w", "--stdin", stdin=b"{}")
    evil = tree_of(mesh, ("100644", blob, "evil.avsc"))
    up = evil
    for part in reversed(["..", "..", "..", *tmp_path.parts[1:]]):
        up = tree_of(mesh, ("40000", up, part))
    written = str(tmp_path / "absolute.avsc")
    ref = mesh_with(mesh, ("40000", up, ".."), ("100644", blob, written), ("100644", blob, "x" * 300 + ".avsc"))
    before = sorted(tmp_path.iterdir())
    narrow(folder_of(mesh, ORDERS) / "schema.avsc")
    assert broken(checked(mesh, ref)) == {ORDERS}
    assert sorted(tmp_path.iterdir()) == before


def test_a_bare_repository_among_the_files_runs_nothing(mesh: Path, tmp_path: Path) -> None:
    """Its settings may name a program that brings what is missing."""
    inner = tmp_path / "outer" / "mesh"
    shutil.copytree(mesh, inner)
    for path in (inner / ".git").iterdir():
        path.rename(inner / path.name)
    (inner / ".git").rmdir()
    ran = tmp_path / "ran"
    tree = git(mesh, "rev-parse", "HEAD^{tree}")
    (inner / "objects" / tree[:2] / tree[2:]).unlink()
    with (inner / "config").open("a") as config:
        config.write(f'[core]\n bare = true\n repositoryFormatVersion = 1\n[remote "o"]\n url = "ext::touch {ran}"\n')
        config.write(' promisor = true\n[extensions]\n partialClone = o\n[protocol "ext"]\n allow = always\n')
    with pytest.raises(UserError):
        checked(inner)
    git(tmp_path / "outer", "init", "--quiet")
    with pytest.raises(UserError):
        checked(inner)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["contract.odcs.yaml", "schema.avsc"])
def test_a_pipe_or_a_device_in_a_files_place_is_never_read(mesh: Path, name: str) -> None:
    for product, make in ((ORDERS, os.mkfifo), (RETURNS, lambda path: path.symlink_to("/dev/zero"))):
        path = folder_of(mesh, product) / name
        path.unlink()
        make(path)
    found = checked(mesh)
    assert len(found.faults) == 2
    assert not found.findings


def test_what_is_too_large_is_passed_over_piece_by_piece(mesh: Path) -> None:
    for name, size in (("large", 3 << 20), ("small", 3)):
        (mesh / name).write_bytes(b"x" * size)
    commit(mesh)
    with GitFolder.at(mesh, "HEAD").reading() as reader:
        assert reader.read("large", 10) == b"x" * 11
        assert reader.read("small", 10) == b"xxx"
        assert reader.read("large", 3 << 20) == b"x" * (3 << 20)
