"""The mesh as its files are now: an engineer edits and applies them while the auditor runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import structlog

from headrace.schemas.errors import UserError
from headrace.schemas.mesh import load_mesh
from headrace.schemas.mesh_files import DOMAINS_FOLDER, MESH_FILE, POLICY_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.mesh import Mesh

_LOG = structlog.get_logger("headrace.auditor")


class MeshWatch:
    """Loads the mesh anew when its files have changed. While they have faults, the mesh stays as it was.

    Args:
        mesh: the mesh as it was loaded.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._stamps = frozenset(self._look())

    def current(self) -> Mesh:
        """Return the mesh. Reads the files' attributes only, unless one has changed."""
        stamps = frozenset(self._look())
        if stamps != self._stamps:
            self._stamps = stamps
            self._load()
        return self._mesh

    def _load(self) -> None:
        try:
            mesh = load_mesh(self._mesh.root, environment=self._mesh.environment.name)
        except (UserError, OSError) as error:
            _LOG.warning("the mesh's files have faults: going on with what they said before", what=str(error))
            return
        if mesh.environment != self._mesh.environment:
            _LOG.warning("the environment has changed: going on with what it was", next="start headrace audit again")
            return
        self._mesh = mesh
        _LOG.info("the mesh was loaded anew", products=len(mesh.products))

    def _look(self) -> Iterator[tuple[str, int, int]]:
        root = self._mesh.root
        paths = [root / MESH_FILE, root / POLICY_FILE]
        for folder, _, names in os.walk(root / DOMAINS_FOLDER, followlinks=False):
            paths += [root / folder / name for name in names]
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue
            yield str(path), stat.st_mtime_ns, stat.st_size
