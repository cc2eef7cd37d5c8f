"""Where the files of a mesh are read from: its folder on the disk, or something that stands in for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Files", "MeshFolder"]


class Files(Protocol):
    """The files of a mesh, by paths that begin with its root."""

    def holds(self, path: Path) -> bool:
        """Tell whether a path, links followed, stays in the mesh; what it leads to need not be there."""

    def read(self, path: Path, limit: int) -> bytes | None:
        """Return a file's contents: at most one byte more than the limit, so that what parses it sees the excess.

        Returns:
            None for what is there, but is no file: a folder, a pipe, a device.

        Raises:
            FileNotFoundError: if nothing is there.
            OSError: if it cannot be read.
        """


class MeshFolder:
    """The files as they lie on the disk. It follows links; whether they may be followed, `holds` says."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def holds(self, path: Path) -> bool:
        """Tell whether a path, links followed, stays in the folder."""
        try:
            return path.resolve().is_relative_to(self._root)
        except (OSError, RuntimeError):  # a link that leads to itself
            return False

    def read(self, path: Path, limit: int) -> bytes | None:
        """Return a file's contents, at most one byte more than the limit; None for what is no file."""
        # A pipe or a device would block or never end.
        if path.exists() and not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(limit + 1)
