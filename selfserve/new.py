"""``headrace new DOMAIN/PRODUCT``: a product that passes ``headrace check`` as it is.

What a name may be is the check's to say, so the check is asked: the files are written into a small mesh of their own in
a hidden folder, beside a blank for every product that the mesh has, and that mesh is loaded. Only then does one rename
put the new folder where it belongs: a mesh that others are reading never shows half a product, nor a wrong one.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import MeshError, SchemaError, UserError
from headrace.schemas.mesh import Mesh, find_root, load_mesh
from headrace.schemas.mesh_files import CONTRACT_FILE, DOMAIN_FILE, DOMAINS_FOLDER, MESH_FILE, POLICY_FILE
from headrace.schemas.names import ProductName
from headrace.schemas.types import unsupported
from headrace.selfserve.blanks import DEFAULT_KEY, Blank, domain_text
from headrace.selfserve.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.schemas.product import Domain

__all__ = ["Answers", "Place", "place_of"]

MAX_TEXT = 500
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a person says of a new product; None: what is usual stands in for it, or a sentence that asks for it.

    Attributes:
        owner: the team that answers for the product (usual: the domain's owner).
        purpose: what the product is for, in a sentence.
        key: the field whose events must stay in order.
        description: what the domain is about; counts for a new domain alone.
        inputs: names of the products that it is derived from.
        kind: what its events tell (usual: derived where there are inputs, event else).
    """

    owner: str | None = None
    purpose: str | None = None
    key: str | None = None
    description: str | None = None
    inputs: Sequence[str] = ()
    kind: Kind | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A name that a product of this mesh may have, and that none has yet. `place_of` makes it.

    Attributes:
        name: the product's name.
        root: the mesh's folder.
        mesh: the mesh; None while it has no domain.
        environment: the environment that the mesh is checked in.
    """

    name: ProductName
    root: Path
    mesh: Mesh | None
    environment: str | None

    @property
    def domain(self) -> Domain | None:
        """The domain, None if the product makes it."""
        return self.mesh.domains.get(self.name.domain) if self.mesh is not None else None

    @property
    def folder(self) -> Path:
        """The product's folder."""
        return self.root / DOMAINS_FOLDER / self.name.domain / self.name.product

    @property
    def usual_owner(self) -> str:
        """The owner where nobody names one."""
        return self.domain.owner if self.domain is not None else f"{self.name.domain}-team"

    @property
    def usual_key(self) -> str:
        """The key's field where nobody names one."""
        return DEFAULT_KEY

    def unsaid(self, answers: Answers) -> list[tuple[str, str]]:
        """Return what only a person can say and the answers do not: its name, and the file that asks for it."""
        domain = f"{DOMAINS_FOLDER}/{self.name.domain}"
        asked = [("purpose", answers.purpose, f"{domain}/{self.name.product}/{CONTRACT_FILE}")]
        if self.domain is None:
            asked.append(("description", answers.description, f"{domain}/{DOMAIN_FILE}"))
        return [(name, file) for name, said, file in asked if not (said or "").strip()]

    def write(self, answers: Answers) -> Mesh:
        """Write the product's folder, and the domain's if it is new; then check the mesh.

        It is there as a whole or not at all. Only if the process is killed, a hidden folder may stay in ``domains/``,
        which nothing reads.

        Returns:
            The mesh with the new product.

        Raises:
            UserError: if an answer cannot be used, the place is taken meanwhile, or the folder cannot be written.
            MeshError: if the mesh has got faults meanwhile. Then too nothing was written.
        """
        blank = self._blank(answers)
        made = self.folder if self.domain is not None else self.folder.parent
        try:
            with self._staged(blank, _text(answers.description, "description")) as staged:
                source = staged / made.relative_to(self.root)
                _sync(source)
                source.rename(made)
                try:
                    return load_mesh(self.root, environment=self.environment)
                except BaseException:
                    made.rename(source)
                    raise
        except OSError as error:
            raise self._unwritable(error) from None

    def check(self) -> None:
        """Ask the check about the name.

        Raises:
            UserError: if a product cannot have it.
        """
        try:
            with self._staged(self._blank(Answers()), None):
                pass
        except OSError as error:
            raise self._unwritable(error) from None

    def _blank(self, answers: Answers) -> Blank:
        kind = answers.kind or (Kind.DERIVED if answers.inputs else Kind.EVENT)
        if kind is Kind.DERIVED and not answers.inputs:
            raise UserError(
                "a derived product says what it is made from",
                where=str(self.name),
                hint="name a product with --from DOMAIN.PRODUCT, once for each",
            )
        blank = Blank(
            name=self.name,
            owner=_text(answers.owner, "owner") or self.usual_owner,
            purpose=_text(answers.purpose, "purpose"),
            key=_text(answers.key, "key") or DEFAULT_KEY,
            inputs=self._inputs(answers.inputs),
            kind=kind,
        )
        _check_key(blank)
        return blank

    def _inputs(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the contracts' versions by the names of the products."""
        if names and self.mesh is None:
            raise UserError(f"the mesh has no product {names[0]}", where=str(self.root), hint="leave --from out")
        found = [self.mesh.product(name) for name in names] if self.mesh is not None else []
        return {str(product.name): product.contract.version for product in found}

    @contextmanager
    def _staged(self, blank: Blank, description: str | None) -> Iterator[Path]:
        """Write a small mesh with the product into a hidden folder, and check it; the folder goes with the block."""
        domains = self.root / DOMAINS_FOLDER
        domains.mkdir(exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".new-", dir=domains))
        try:
            for name, data in self._mesh_files(blank, description).items():
                (staged / name).parent.mkdir(parents=True, exist_ok=True)
                (staged / name).write_bytes(data)
            try:
                load_mesh(staged, environment=self.environment)
            except MeshError as error:
                raise self._refusal(error) from None
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            # Nothing stays of a first domain that was refused.
            with suppress(OSError):
                domains.rmdir()

    def _mesh_files(self, blank: Blank, description: str | None) -> dict[str, bytes]:
        """Return the files of the small mesh: the product, and a blank for each that is there, so that twins show."""
        domains = self.mesh.domains.values() if self.mesh is not None else ()
        products = self.mesh.products if self.mesh is not None else ()
        copied = [MESH_FILE, POLICY_FILE, *(f"{DOMAINS_FOLDER}/{domain.name}/{DOMAIN_FILE}" for domain in domains)]
        files = {name: (self.root / name).read_bytes() for name in copied if (self.root / name).is_file()}
        if self.domain is None:
            text = domain_text(blank.name.domain, blank.owner, description)
            files[f"{DOMAINS_FOLDER}/{blank.name.domain}/{DOMAIN_FILE}"] = text.encode()
        known = [Blank(product.name, "its owner", None, DEFAULT_KEY, {}) for product in products]
        for each in (blank, *known):
            folder = f"{DOMAINS_FOLDER}/{each.name.domain}/{each.name.product}"
            files |= {f"{folder}/{name}": text.encode() for name, text in each.files().items()}
        return files

    def _refusal(self, error: MeshError) -> UserError:
        """Return the one sentence that the check says about a name; faults of other files stay what they are."""
        about = [fault for fault in error.faults if fault.where.startswith(DOMAINS_FOLDER)]
        if not about:
            return error
        return UserError(about[0].what, where=about[0].where, hint="choose another name; nothing was written")

    def _unwritable(self, error: OSError) -> UserError:
        if error.errno in _TAKEN and os.path.lexists(self.folder):
            return _taken(self.name, self.root)
        if error.errno in _TAKEN:
            return UserError(
                f"the domain {self.name.domain} is there by now",
                where=str(self.folder.parent),
                hint="run the same command again",
            )
        return UserError(
            f"the product cannot be written: {error.strerror}",
            where=str(self.folder),
            hint="see that the folder may be written and its disk has room; nothing was written",
        )


def place_of(text: str, start: Path | None = None, *, environment: str | None = None) -> Place:
    """Return the place of a new product in the mesh that ``start`` stands in. Leaves nothing behind.

    Args:
        text: ``domain/product`` or ``domain.product``.
        start: the mesh's folder or one below it (default: the working folder).
        environment: the environment that the mesh is checked in.

    Raises:
        UserError: if there is no mesh, or a product cannot have this name, or one has it.
        MeshError: with all faults of the mesh as it is.
    """
    root = find_root(start)
    mesh = load_mesh(root, environment=environment) if _has_domains(root) else None
    try:
        name = ProductName.parse(text.replace("/", ".", 1))
    except ValueError:
        raise UserError(
            "this is no name of a product",
            where=text,
            hint="write DOMAIN/PRODUCT, each of lower-case letters, digits and underscores, beginning with a letter",
        ) from None
    place = Place(name, root, mesh, environment)
    if os.path.lexists(place.folder):
        raise _taken(name, root)
    place.check()
    return place


def _has_domains(root: Path) -> bool:
    """Tell whether the mesh has a domain: without one it is not whole, and still a product can be added."""
    return any((root / DOMAINS_FOLDER).glob("[!._]*/"))


def _taken(name: ProductName, root: Path) -> UserError:
    return UserError(
        f"{name} is there already", where=str(root / DOMAINS_FOLDER), hint="choose another name; nothing was written"
    )


def _check_key(blank: Blank) -> None:
    try:
        fine = not unsupported(AvroSchema.parse(blank.schema()))
    except SchemaError:
        fine = False
    if not fine:
        raise UserError(
            "this cannot be the key's field",
            where=blank.key,
            hint="name one such as order_id; it becomes a field of the events, a text",
        )


def _text(text: str | None, what: str) -> str | None:
    """Return a text of one line, None for nothing."""
    kept = (text or "").strip()
    if not kept.isprintable() or len(kept) > MAX_TEXT:
        raise UserError(f"the {what} is not a text of one line", hint=f"say it in at most {MAX_TEXT} characters")
    return kept or None


def _sync(folder: Path) -> None:
    """Bring the folder's files to the disk: the rename must not outrun what it shows."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
