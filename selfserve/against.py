"""A mesh's products compared with those of a git ref. Texts first: only what differs is read and parsed.

A product differs if its contract or a schema in its folder does. A schema that lies elsewhere may be anybody's: when
such a file differs, every product is read. When only the policy of PII differs, the masks are worked out anew from the
products as they are.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headrace.schemas.compatibility import check, check_contracts, removed
from headrace.schemas.documents import MAX_BYTES
from headrace.schemas.errors import MeshError, UserError
from headrace.schemas.masks import Mask
from headrace.schemas.mesh_files import CONTRACT_FILE, DOMAINS_FOLDER, POLICY_FILE, MeshReader
from headrace.schemas.names import PART, ProductName
from headrace.schemas.policy import choose
from headrace.selfserve.comparison import Comparison, ProductFinding
from headrace.selfserve.git_files import GitFolder

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from headrace.schemas.compatibility import Finding
    from headrace.schemas.errors import Fault, HeadraceError
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product

__all__ = ["against_ref", "compared"]

_SCHEMA = ".avsc"


def against_ref(root: Path, products: Sequence[Product], ref: str) -> Comparison:
    """Compare products with those of a git ref.

    Args:
        root: the mesh's folder.
        products: its products whose files have no fault.
        ref: a commit, branch or tag, as git writes it.

    Raises:
        UserError: if there is no git, no repository or no such ref.
    """
    return _Against(root, products, GitFolder.at(root, ref)).run()


def compared(old: Product, new: Product) -> tuple[Finding, ...]:
    """Compare two versions of a product: schema and contract, by what either of them promises."""
    found: dict[Finding, None] = {}
    if old.schema.text != new.schema.text:
        nulled = frozenset(path for path, mask in new.masks.items() if mask is Mask.REPLACE_WITH_NULL)
        for mode in dict.fromkeys((new.contract.compatibility, old.contract.compatibility)):
            found |= dict.fromkeys(check([old.schema], new.schema, mode, nulled=nulled).findings)
    return (*found, *check_contracts(old, new))


class _Against:
    def __init__(self, root: Path, products: Sequence[Product], folder: GitFolder) -> None:
        self._root = root
        self._products = {product.name: product for product in products}
        self._folder = folder
        self._there = set(_products_in(folder.blobs))

    def run(self) -> Comparison:
        """Compare."""
        common = sorted(self._there & self._products.keys())
        policy_differs = self._differs(POLICY_FILE)
        differing = self._differing(common)
        unread: list[HeadraceError] = []
        missed = 0
        found: dict[ProductName, tuple[Finding, ...]] = {}
        if differing or policy_differs:
            policy, old = self._read(differing, unread)
            for name in common:
                new = self._products[name]
                before = old.get(name) if name in differing else _masked_by(policy, new)
                if before is None:
                    missed += 1
                else:
                    found[name] = compared(before, new)
        for name in self._there:
            # A folder that is there, but has a fault, is no product that was removed.
            if name not in self._products and not (self._root / _folder_of(name)).exists():
                found[name] = (removed(str(name)),)
        findings = (
            ProductFinding(name, self._folder.ref, finding) for name in sorted(found) for finding in found[name]
        )
        return Comparison(tuple(findings), tuple(unread), len(common) - missed, len(differing))

    def _differing(self, names: Collection[ProductName]) -> set[ProductName]:
        """Return the products whose files differ, all of them if a schema that is nobody's own does."""
        owners = {_folder_of(name): name for name in names}
        differing: set[ProductName] = set()
        for path in self._folder.blobs:
            if not path.endswith((f"/{CONTRACT_FILE}", _SCHEMA)):
                continue
            owner = _owner(path, owners)
            if owner in differing or (owner is None and not path.endswith(_SCHEMA)):
                continue
            if self._differs(path):
                if owner is None and not _is_products(path):
                    return set(names)
                differing |= {owner} if owner is not None else set()
        return differing

    def _differs(self, path: str) -> bool:
        there = path in self._folder.blobs
        try:
            data = (self._root / path).read_bytes()
        except OSError:
            return there
        return not (there and self._folder.holds(path, data))

    def _read(
        self, names: Collection[ProductName], unread: list[HeadraceError]
    ) -> tuple[PiiPolicy | None, Mapping[ProductName, Product]]:
        """Read the policy and products of the ref, in a folder of their own that is gone afterwards."""
        owners = {_folder_of(name): name for name in names}
        wanted = [
            path
            for path in self._folder.blobs
            if path == POLICY_FILE
            or (path.endswith(f"/{CONTRACT_FILE}") and _owner(path, owners) is not None)
            or (path.endswith(_SCHEMA) and (_owner(path, owners) is not None or not _is_products(path)))
        ]
        with tempfile.TemporaryDirectory(prefix="headrace-") as temporary:
            root = Path(temporary).resolve()
            for path, data in self._folder.read(wanted, MAX_BYTES).items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_bytes(data)
            policy_faults: list[Fault] = []
            policy = MeshReader(root, policy_faults).policy()
            if policy is None:
                unread.append(self._unreadable("the policy of PII", policy_faults))
            return policy, dict(self._parsed(root, names, policy, unread))

    def _parsed(
        self, root: Path, names: Collection[ProductName], policy: PiiPolicy | None, unread: list[HeadraceError]
    ) -> Iterator[tuple[ProductName, Product]]:
        for name in sorted(names):
            faults: list[Fault] = []
            product = MeshReader(root, faults).product(name, policy)
            if product is not None and not faults:
                yield name, product
            elif faults:
                unread.append(self._unreadable(str(name), faults))

    def _unreadable(self, what: str, faults: Sequence[Fault]) -> UserError:
        first = MeshError(faults).faults[0]
        return UserError(
            f"{what} had a fault at {self._folder.ref}, and what needs it is not compared: {first.what}",
            where=f"{self._folder.ref}:{first.where}",
        )


def _products_in(paths: Collection[str]) -> Iterator[ProductName]:
    for path in paths:
        parts = PurePosixPath(path).parts
        is_contract = len(parts) == _CONTRACT_PARTS and parts[0] == DOMAINS_FOLDER and parts[-1] == CONTRACT_FILE
        # What never had a product's name never was one.
        if is_contract and PART.fullmatch(parts[1]) and PART.fullmatch(parts[2]):
            yield ProductName(parts[1], parts[2])


# domains/<domain>/<product>/contract.odcs.yaml
_CONTRACT_PARTS = 4


def _folder_of(name: ProductName) -> str:
    return f"{DOMAINS_FOLDER}/{name.domain}/{name.product}"


def _owner(path: str, owners: Mapping[str, ProductName]) -> ProductName | None:
    return owners.get("/".join(path.split("/", 3)[:3]))


def _is_products(path: str) -> bool:
    """Tell whether a schema lies in a product's folder."""
    return path.startswith(f"{DOMAINS_FOLDER}/") and path.count("/") >= _CONTRACT_PARTS - 1


def _masked_by(policy: PiiPolicy | None, product: Product) -> Product | None:
    """Return a product as another policy would mask it."""
    if policy is None:
        return None
    masks = dict(product.masks)
    for path, category in product.schema.pii.items():
        field = product.schema.at(path)
        if field is not None:
            mask, _, _ = choose(policy.mask_of(category), product.contract.masks.get(path), field.type)
            masks |= {path: mask} if mask is not None else {}
    return replace(product, masks=masks)
