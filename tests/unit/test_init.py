"""``headrace init``: what it writes is a mesh without a fault, and it never touches what is there."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headrace.producers.values import json_reader, parse_json
from headrace.producers.wire import Encoder
from headrace.schemas.errors import UserError
from headrace.schemas.masks import Mask
from headrace.schemas.mesh import load_mesh
from headrace.selfserve.init import EXAMPLE_EVENTS, EXAMPLE_PRODUCT, STARTER, init_mesh


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
    [
        ("My Mesh!", "my-mesh"),
        ("2013", "mesh-2013"),
        ("Größe", "gr-e"),
        ("___", "mesh"),
        ("a" * 99, "a" * 63),
        *((word, word) for word in ("true", "null", "off", "yes")),
        ("1e3", "mesh-1e3"),
    ],
)
def test_any_folder_s_name_gives_a_mesh_s_name(tmp_path: Path, folder: str, name: str) -> None:
    init_mesh(tmp_path / folder)
    assert load_mesh(tmp_path / folder).name == name


def test_the_ten_example_events_fit_their_product(tmp_path: Path) -> None:
    init_mesh(tmp_path)
    product = load_mesh(tmp_path).product(EXAMPLE_PRODUCT)
    read, encode = json_reader(product.schema.record), Encoder(product, 1).encode
    lines = (tmp_path / EXAMPLE_EVENTS).read_text(encoding="utf-8").splitlines()
    keys = {encode(read(parse_json(line)))[0] for line in lines}
    assert (len(lines), len(keys)) == (10, 10)


def test_the_mesh_s_readme_names_every_file(tmp_path: Path) -> None:
    init_mesh(tmp_path)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()} - {".gitignore"}
    assert names <= set(re.findall(r"[\w.]+", readme)), names
    assert readme.startswith(f"# {load_mesh(tmp_path).name}\n")
    assert "NAME" not in readme


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


# Bytes that a file may have: each limit stops the run at another file.
@pytest.mark.parametrize("limit", [0, 50, 300, 800, 1000])
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, limit: int, there: bool) -> None:
    folder = tmp_path / "a" / "mesh"
    if there:
        folder.mkdir(parents=True)
    code = (
        "import resource, sys; from headrace.selfserve.main import main;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        f"sys.exit(main(['init', {str(folder)!r}]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "cannot be written" in ran.stderr
    assert list(tmp_path.rglob("*")) == ([tmp_path / "a", folder] if there else [])


def test_the_starter_s_files_are_packaged() -> None:
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["headrace.selfserve"]
    packaged = {path for pattern in patterns for path in STARTER.parent.glob(pattern) if path.is_file()}
    assert {path for path in STARTER.rglob("*") if path.is_file()} <= packaged
