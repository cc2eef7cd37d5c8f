"""Checking a mesh: its files, and what they change of something older."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import MeshError, UserError
from headrace.schemas.mesh import find_root, load_mesh
from headrace.schemas.mesh_files import MeshReader
from headrace.selfserve.against import against_ref
from headrace.selfserve.check_report import Checked
from headrace.selfserve.comparison import Comparison
from headrace.selfserve.git_files import repository_of
from headrace.selfserve.places import Places

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Domain

__all__ = ["LIVE", "checked_mesh"]

# What to compare with, if it is no git ref. A branch of that name is refs/heads/live.
LIVE = "live"


def checked_mesh(start: Path | None, environment: str | None, against: str | None) -> tuple[Checked, MeshError | None]:
    """Check the mesh that a folder lies in, and compare it.

    Args:
        start: the mesh's folder or one below it; None: the working folder.
        environment: the environment's name; None: the mesh's default.
        against: a git ref, or ``live``; None: nothing is compared.

    Returns:
        What was found, and the error that holds the files' faults, if there are any. Products without a fault are
        compared with a ref all the same; what is applied is asked only by a mesh without faults.

    Raises:
        UserError: if there is no mesh, no git, no repository or no such ref.
        SettingsError: if the mesh has no such environment.
    """
    root = find_root(start)
    mesh: Mesh | None = None
    error: MeshError | None = None
    domains: Mapping[str, Domain]
    try:
        mesh = load_mesh(start, environment=environment)
        domains = mesh.domains
    except MeshError as faults:
        error = faults
        reader = MeshReader(root, [])
        domains = reader.domains(reader.policy(), "") if against is not None else {}
    products = [product for domain in domains.values() for product in domain.products.values()]
    comparison = None
    if against == LIVE:
        comparison = _live(mesh)
    elif against is not None:
        comparison = against_ref(root, products, against)
    top, places = repository_of(root), Places(root)
    prefix = f"{root.relative_to(top).as_posix()}/" if top is not None and top != root else ""
    checked = Checked(
        name=mesh.name if mesh is not None else root.name,
        domains=len(domains),
        products=len(products),
        faults=error.faults if error is not None else (),
        against=against,
        comparison=comparison,
        place=lambda each: places.of(each.product, each.finding),
        prefix=prefix,
    )
    return checked, error


def _live(mesh: Mesh | None) -> Comparison:
    if mesh is None:
        unread = UserError("nothing was compared: the files have faults", hint="correct them first")
        return Comparison((), (unread,), 0, 0)
    from headrace.selfserve.against_live import against_live  # noqa: PLC0415 - a ref needs neither registry nor catalog

    return against_live(mesh)
