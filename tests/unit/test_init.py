"""``headrace init``: what it writes is a mesh without a fault, and it never touches what is there."""

from __future__ import annotations

import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from headrace.schemas.errors import UserError
from headrace.schemas.masks import Mask
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.init import init_mesh

if TYPE_CHECKING:
    from pathlib import Path


def test_the_new_mesh_passes_the_check_unedited(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "shop-mesh"
    init_mesh(folder)
    mesh = load_mesh(folder)
    assert mesh.name == "shop-mesh"
    assert [str(product.name) for product in mesh.products] == ["shop.orders"]
    assert dict(mesh.product("shop.orders").masks) == {"email": Mask.HMAC_SHA_256}
    assert len(mesh.environment.hmac_key()) == 64
    assert stat.S_IMODE((folder / ".headrace" / "hmac.key").stat().st_mode) == 0o600
    assert mesh.environment.catalog_properties(mesh.domains["shop"])["type"] == "sql"


def test_an_empty_folder_that_exists_is_taken(tmp_path: Path) -> None:
    init_mesh(tmp_path)
    assert load_mesh(tmp_path).products


@pytest.mark.parametrize(
    ("folder", "name"),
    [("My Mesh!", "my-mesh"), ("2013", "mesh-2013"), ("Größe", "gr-e"), ("___", "mesh"), ("a" * 99, "a" * 63)],
)
def test_any_folder_s_name_gives_a_mesh_s_name(tmp_path: Path, folder: str, name: str) -> None:
    init_mesh(tmp_path / folder)
    assert load_mesh(tmp_path / folder).name == name


def test_a_folder_with_anything_in_it_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty") as caught:
        init_mesh(tmp_path)
    assert caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_file_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for wrong in (file, file / "below"):
        with pytest.raises(UserError) as caught:
            init_mesh(wrong)
        assert caught.value.hint
    assert file.read_text() == "x"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_ignores_the_key(tmp_path: Path) -> None:
    init_mesh(tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run(
        ["git", "status", "--short", "--untracked-files=all"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    assert "mesh.yaml" in listed
    assert ".headrace" not in listed
