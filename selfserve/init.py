"""``headrace init DIR``: a small mesh that passes ``headrace check`` as it is, with events to try it."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.schemas.environment import STATE_FOLDER, ensure_hmac_key
from headrace.schemas.errors import UserError
from headrace.schemas.mesh_files import MESH_FILE
from headrace.selfserve.blanks import scalar

if TYPE_CHECKING:
    from collections.abc import Iterator

# The new mesh as it is written, but for its name; a folder that begins with a dot would not be packaged.
STARTER = Path(__file__).resolve().parent / "starter"
EXAMPLE_PRODUCT = "shop.orders"
EXAMPLE_EVENTS = "examples/orders.jsonl"
EXAMPLE_QUERY = "SELECT ordered_at, email, total FROM shop.orders ORDER BY ordered_at"

_GITIGNORE = f"# Servers' data, tables, the masks' key: none of it belongs into git.\n{STATE_FOLDER}/\n"


def init_mesh(folder: Path) -> None:
    """Write a mesh of one domain and one product into a new or empty folder, with ten events and a key for its masks.

    Whatever ends it early (a full disk, Ctrl-C), what it has written is removed again; `mesh.yaml`, which makes a
    folder a mesh, comes last.

    Raises:
        UserError: if the folder holds anything already, or cannot be written; then nothing in it was changed.
        SettingsError: if the key cannot be written.
    """
    with _empty(folder):
        for name, text in sorted(_files(folder.resolve().name).items(), key=lambda file: file[0] == MESH_FILE):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        ensure_hmac_key(folder)


@contextmanager
def _empty(folder: Path) -> Iterator[None]:
    """Make the folder if it is not there; empty it again, and remove it if it was not there, if the block fails."""
    made = None
    try:
        made = _first_missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                "the folder is not empty", where=str(folder), hint="name a new folder, or move its files away first"
            )
    except FileExistsError:
        raise UserError("this is a file", where=str(folder), hint="name a new folder") from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        yield
    except BaseException as error:
        for path in [made] if made is not None else folder.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritable(folder, error) from None
        raise


def _first_missing(folder: Path) -> Path | None:
    """Return the highest folder that `mkdir` has to make; None if it has none to make."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"the folder cannot be written: {error.strerror}",
        where=str(folder),
        hint="name a folder of your own, on a disk with room",
    )


def _files(folder_name: str) -> dict[str, str]:
    """Return the text of every file by its path."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder_name.lower()).strip("-_")[:63]
    name = name if name[:1].isalpha() else f"mesh-{name}"[:63].rstrip("-")
    paths = (path for path in STARTER.rglob("*") if path.is_file())
    files = {path.relative_to(STARTER).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    named = {MESH_FILE: scalar(name), "README.md": name}
    written = {file: files[file].replace("NAME", text) for file, text in named.items()}
    return {**files, **written, ".gitignore": _GITIGNORE}
