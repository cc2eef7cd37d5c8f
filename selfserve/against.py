"""A mesh's products compared with those of a git ref. Texts first: only what differs is read and parsed.

A product differs if its contract does, or the schema that it names. When only the policy of PII differs, the masks are
worked out anew from the products as they are. A ref's files are read out of git as they are needed and never written
to the disk: their names are foreign.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headrace.schemas.compatibility import check, check_contracts, removed
from headrace.schemas.documents import MAX_BYTES
from headrace.schemas.errors import MeshError, UserError
from headrace.schemas.masks import Mask
from headrace.schemas.mesh_files import CONTRACT_FILE, DOMAINS_FOLDER, POLICY_FILE, MeshReader
from headrace.schemas.mesh_folder import MeshFolder
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
    from headrace.selfserve.git_files import GitReader

__all__ = ["against_ref", "compared"]


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
        self._files = MeshFolder(root)

    def run(self) -> Comparison:
        """Compare."""
        common = sorted(self._there & self._products.keys())
        policy_differs = self._differs(POLICY_FILE)
        differing = {name: None for name in common if self._has_changed(self._products[name])}
        unread: list[HeadraceError] = []
        missed = 0
        found: dict[ProductName, tuple[Finding, ...]] = {}
        gone = self._gone()
        if differing or policy_differs or gone:
            policy, old = self._read((*differing, *gone), unread)
            for name in common if policy_differs else differing:
                new = self._products[name]
                before = old.get(name) if name in differing else _masked_by(policy, new)
                if before is None:
                    missed += 1
                else:
                    found[name] = compared(before, new)
            for name in gone:
                finding = removed(str(name), old[name].contract.status if name in old else None)
                found |= {name: (finding,)} if finding is not None else {}
        findings = (ProductFinding(name, self._folder.ref, each) for name in sorted(found) for each in found[name])
        return Comparison(tuple(findings), tuple(unread), len(common) - missed, len(differing))

    def _gone(self) -> list[ProductName]:
        # A folder that is there, but has a fault, is no product that was removed.
        gone = [name for name in self._there - self._products.keys() if not (self._root / _folder_of(name)).is_dir()]
        unchecked = self._folder.unchecked() if gone else frozenset()
        return [name for name in gone if _contract_of(name) not in unchecked]

    def _has_changed(self, product: Product) -> bool:
        # As long as the contract is the same, it names the same schema.
        return self._differs(_contract_of(product.name)) or self._differs(product.schema_file)

    def _differs(self, path: str) -> bool:
        there = path in self._folder.blobs
        try:
            data = self._files.read(self._root / path, MAX_BYTES)
        except OSError:
            return there
        return data is None or not (there and self._folder.holds(path, data))

    def _read(
        self, names: Sequence[ProductName], unread: list[HeadraceError]
    ) -> tuple[PiiPolicy | None, Mapping[ProductName, Product]]:
        """Read the policy and products of the ref."""
        with self._folder.reading() as git:
            files = _FilesAtRef(git)
            faults: list[Fault] = []
            policy = MeshReader(self._root, faults, files).policy()
            if policy is None:
                unread.append(self._unreadable("the policy of PII", faults))
            return policy, dict(self._parsed(files, names, policy, unread))

    def _parsed(
        self, files: _FilesAtRef, names: Sequence[ProductName], policy: PiiPolicy | None, unread: list[HeadraceError]
    ) -> Iterator[tuple[ProductName, Product]]:
        for name in names:
            faults: list[Fault] = []
            product = MeshReader(self._root, faults, files).product(name, policy)
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


class _FilesAtRef:
    """A mesh's files at a ref."""

    def __init__(self, git: GitReader) -> None:
        self._git = git

    def holds(self, path: Path) -> bool:
        """Tell whether a path stays in the mesh; links that lead out of it are no files here."""
        return not self._name(path).startswith("../")

    def read(self, path: Path, limit: int) -> bytes:
        """Return a file's contents, at most one byte more than the limit.

        Raises:
            FileNotFoundError: if the ref has no such file.
            UserError: if git cannot read it.
        """
        name = self._name(path)
        if name not in self._git.folder.blobs:
            raise FileNotFoundError(name)
        return self._git.read(name, limit)

    def _name(self, path: Path) -> str:
        return Path(os.path.relpath(path, self._git.folder.root)).as_posix()


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


def _contract_of(name: ProductName) -> str:
    return f"{_folder_of(name)}/{CONTRACT_FILE}"


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
