"""A mesh folder as one frozen value. Loading it *is* the check: what loads, holds.

::

    mesh.yaml                                       name, environments
    policies/pii.yaml                               categories of PII and their masks
    domains/<domain>/domain.yaml                    owner, description, storage
    domains/<domain>/<product>/contract.odcs.yaml   the contract
    domains/<domain>/<product>/schema.avsc          the structure
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from headrace.schemas.environment import DEFAULT_ENVIRONMENT, Environment, implicit_embedded
from headrace.schemas.errors import Fault, MeshError, SettingsError, UserError
from headrace.schemas.mesh_files import MESH_FILE, OWN_FOLDER, MeshReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.schemas.names import ProductName
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Domain, Product

# The catalog's and the warehouse's addresses are URLs made from the path, which these would cut short or change.
_NOT_IN_ADDRESSES = frozenset("#?%")


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh in one environment.

    Attributes:
        name: the mesh's name.
        root: the mesh's folder, absolute.
        environment: where it runs.
        domains: the domains of its folder by name, sorted.
        policy: the masks of PII by category.
        governance: headrace's own domain, part of every mesh: what the auditor observes and finds.
    """

    name: str
    root: Path
    environment: Environment
    domains: Mapping[str, Domain]
    policy: PiiPolicy
    governance: Domain

    @property
    def products(self) -> tuple[Product, ...]:
        """The products of the mesh's folder, sorted by name."""
        return _sorted_products(self.domains.values())

    @property
    def all_domains(self) -> tuple[Domain, ...]:
        """All domains, headrace's own last."""
        return (*self.domains.values(), self.governance)

    @property
    def all_products(self) -> tuple[Product, ...]:
        """All products, headrace's own among them, sorted by name."""
        return _sorted_products(self.all_domains)

    def product(self, name: str | ProductName) -> Product:
        """Return the product called ``domain.product``.

        Raises:
            UserError: if there is none; the hint names the nearest.
        """
        known = {str(product.name): product for product in self.all_products}
        if (found := known.get(str(name))) is not None:
            return found
        own = [str(product.name) for product in self.products]
        near = difflib.get_close_matches(str(name), known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the mesh has {', '.join(own) or 'no product yet'}"
        raise UserError(f"the mesh has no product {name}", where=str(self.root), hint=hint)

    def domain_of(self, product: Product) -> Domain:
        """Return the domain that owns a product of this mesh."""
        domain = product.name.domain
        return self.governance if domain == self.governance.name else self.domains[domain]


def _sorted_products(domains: Iterable[Domain]) -> tuple[Product, ...]:
    found = (product for domain in domains for product in domain.products.values())
    return tuple(sorted(found, key=lambda product: product.name))


def find_root(start: Path | None = None) -> Path:
    """Return the mesh's folder: the first with a ``mesh.yaml`` from ``start`` (default: the working folder) upwards.

    Raises:
        UserError: if there is none.
    """
    folder = (Path.cwd() if start is None else start).resolve()
    if not folder.is_dir():
        raise UserError(f"{start} is not a folder", hint="give the folder of a mesh")
    for candidate in (folder, *folder.parents):
        if (candidate / MESH_FILE).exists():
            return candidate
    raise UserError(
        f"there is no {MESH_FILE} in {folder} or above it",
        hint="give the mesh's folder with --mesh, or make a mesh with: headrace init DIR",
    )


def load_mesh(start: Path | None = None, *, environment: str | None = None) -> Mesh:
    """Load and check the mesh that ``start`` stands in, in one of its environments (default: ``embedded``).

    Reads files only; needs no server and no secret.

    Raises:
        MeshError: with all faults of all files.
        SettingsError: if the mesh has no such environment.
        UserError: if there is no mesh.
    """
    root = find_root(start)
    faults: list[Fault] = []
    reader = MeshReader(root, faults)
    settings = reader.settings()
    name = environment or DEFAULT_ENVIRONMENT
    known = {DEFAULT_ENVIRONMENT: implicit_embedded(), **(settings.environments if settings else {})}
    chosen = Environment(name, root, known.get(name, known[DEFAULT_ENVIRONMENT]))
    policy = reader.policy()
    domains = reader.domains(policy, chosen.topic_prefix)
    if not chosen.settings.catalog and set(str(root)) & _NOT_IN_ADDRESSES:
        faults.append(
            Fault(".", "the path of the mesh's folder holds one of # ? %", "local tables need a path without")
        )
    governance = MeshReader(OWN_FOLDER, faults).governance(policy, chosen.topic_prefix) if policy else None
    if faults or settings is None or policy is None or governance is None:
        raise MeshError(faults)
    if name not in known:
        raise SettingsError(
            f"the mesh has no environment {name}", where=MESH_FILE, hint=f"it has {', '.join(sorted(known))}"
        )
    return Mesh(settings.name, root, chosen, MappingProxyType(domains), policy, governance)
