"""Reads the files of a mesh folder: the one place that touches them. Faults are collected, never raised."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from headrace.schemas.avro import MAX_SCHEMA_BYTES, AvroSchema
from headrace.schemas.contract import OdcsDocument
from headrace.schemas.documents import MAX_BYTES, Document, parse
from headrace.schemas.environment import OWN_STACKS, EnvironmentSettings
from headrace.schemas.errors import Fault, SchemaError
from headrace.schemas.mesh_folder import MeshFolder
from headrace.schemas.names import DEAD_LETTER_TABLE, PART, ProductName, dead_letter_topic_of
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.product import Domain, Product
from headrace.schemas.secrets import literal_fault
from headrace.schemas.sql_words import ENGINE_CATALOGS, OWN_DOMAINS, RESERVED
from headrace.schemas.types import unsupported
from headrace.schemas.validation import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.documents import Key
    from headrace.schemas.mesh_folder import Files

MESH_FILE = "mesh.yaml"
POLICY_FILE = "policies/pii.yaml"
DOMAINS_FOLDER = "domains"
# headrace's own domain, part of every mesh: its contracts come with the package.
OWN_FOLDER = Path(__file__).resolve().parent / "own"
GOVERNANCE = "governance"
DOMAIN_FILE = "domain.yaml"
CONTRACT_FILE = "contract.odcs.yaml"

_ENVIRONMENT_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


class MeshSettings(BaseModel):
    """``mesh.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="the mesh's name: name: airline")
    description: str = ""
    environments: dict[str, EnvironmentSettings] = Field(default_factory=dict)

    @field_validator("environments", mode="before")
    @classmethod
    def _stack_of_that_name(cls, environments: Any) -> Any:
        """An environment that is called like a stack has that stack, unless it says otherwise."""
        if not isinstance(environments, dict):
            return environments
        return {
            name: {"stack": name, **settings} if name in OWN_STACKS and isinstance(settings, dict) else settings
            for name, settings in environments.items()
        }


class DomainSettings(BaseModel):
    """``domain.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    owner: str = Field(min_length=1, description="the team that owns the domain's data")
    description: str = Field(min_length=1, description="what the domain is about, in a sentence")
    storage: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}(/[a-z0-9][a-z0-9_-]{0,62}){0,3}$",
        description="a path inside the environment's warehouse, such as fleet",
    )


class MeshReader:
    """Reads one mesh folder; every fault that it finds is added to ``faults``.

    Single files are read from ``files``, which is the folder itself unless something stands in for it.
    """

    def __init__(self, root: Path, faults: list[Fault], files: Files | None = None) -> None:
        self._root = root
        self._files = files or MeshFolder(root)
        self._faults = faults
        # What must differ across the mesh, with its places.
        self._topics: list[tuple[ProductName, str]] = []
        self._storages: list[tuple[str, str]] = []
        self._contracts: list[OdcsDocument] = []
        self._versions: dict[ProductName, str | None] = {}

    def settings(self) -> MeshSettings | None:
        """Read ``mesh.yaml``; None if it has a fault."""
        document = self._document(self._root / MESH_FILE)
        if document is None:
            return None
        before = len(self._faults)
        settings = validate(document, MeshSettings, self._faults)
        self._check_texts(document)
        return settings if len(self._faults) == before else None

    def policy(self) -> PiiPolicy | None:
        """Read the mesh's policy for PII; None if it has a fault."""
        document = self._document(self._root / POLICY_FILE)
        return validate(document, PiiPolicy, self._faults) if document else None

    def domains(self, policy: PiiPolicy | None, topic_prefix: str) -> dict[str, Domain]:
        """Read all domains and what holds across them."""
        folder = self._root / DOMAINS_FOLDER
        paths = self._folders(folder)
        if not paths:
            self._add(folder, "the mesh has no domain", f"write {DOMAINS_FOLDER}/<domain>/{DOMAIN_FILE}")
        domains = {path.name: self._domain(path, policy, topic_prefix) for path in paths}
        if GOVERNANCE not in domains:  # a folder of that name is a fault already
            self._storages.append((GOVERNANCE, "headrace's own domain"))
        self._check_topics()
        self._check_storage()
        self._check_inputs()
        return {name: domain for name, domain in domains.items() if domain is not None}

    def product(self, name: ProductName, policy: PiiPolicy | None) -> Product | None:
        """Read one product, without what holds across the mesh; None if it has a fault."""
        return self._product(self._root / DOMAINS_FOLDER / name.domain / name.product, policy, "")

    def governance(self, policy: PiiPolicy, topic_prefix: str) -> Domain | None:
        """Read headrace's own domain, out of ``OWN_FOLDER``."""
        return self._read_domain(self._root / GOVERNANCE, policy, topic_prefix)

    def _domain(self, folder: Path, policy: PiiPolicy | None, topic_prefix: str) -> Domain | None:
        self._check_domain_name(folder)
        return self._read_domain(folder, policy, topic_prefix)

    def _read_domain(self, folder: Path, policy: PiiPolicy | None, topic_prefix: str) -> Domain | None:
        document = self._document(folder / DOMAIN_FILE)
        settings = validate(document, DomainSettings, self._faults) if document else None
        products = {path.name: self._product(path, policy, topic_prefix) for path in self._folders(folder)}
        if settings is None or document is None:
            return None
        storage = settings.storage or folder.name
        self._storages.append((storage, document.where("storage")))
        return Domain(
            name=folder.name,
            owner=settings.owner,
            description=settings.description,
            storage=storage,
            products=MappingProxyType({name: product for name, product in products.items() if product is not None}),
        )

    def _product(self, folder: Path, policy: PiiPolicy | None, topic_prefix: str) -> Product | None:
        name = ProductName(folder.parent.name, folder.name)
        self._check_word(folder, "product")
        self._topics.append((name, self._relative(folder)))
        document = self._document(folder / CONTRACT_FILE)
        before = len(self._faults)
        contract = OdcsDocument.parse(document, self._faults) if document else None
        if contract is None:
            return None
        self._contracts.append(contract)
        self._versions[name] = contract.version
        told, after = {fault.where for fault in self._faults[before:]}, len(self._faults)
        product = self._judged(folder, contract, policy, name.topic(topic_prefix))
        # A value of the wrong kind is told once, and not also for what it fails to say.
        self._faults[after:] = [fault for fault in self._faults[after:] if fault.where not in told]
        return product

    def _judged(self, folder: Path, contract: OdcsDocument, policy: PiiPolicy | None, topic: str) -> Product | None:
        name = ProductName(folder.parent.name, folder.name)
        url = contract.schema_url(self._faults)
        schema = self._schema(folder, url, contract.schema_place()) if url is not None else None
        refused = unsupported(schema) if schema is not None else []
        for path, what, hint in refused:
            self._add(folder / str(url), f"{path}: {what}", hint)
        # A mask is judged by the column's type, which a refused schema does not have.
        read = contract.read(name, schema, None if refused else policy, self._faults)
        if read is None or schema is None:
            return None
        file = os.path.relpath(folder / str(url), self._root)
        return Product(name=name, contract=read[0], schema=schema, masks=read[1], topic=topic, schema_file=file)

    def _schema(self, folder: Path, url: str, place: str) -> AvroSchema | None:
        path = folder / url
        if "://" in url or Path(url).is_absolute() or not self._files.holds(path):
            self._faults.append(
                Fault(place, "the path of the Avro schema leaves the mesh", "put the schema beside the contract")
            )
            return None
        if (data := self._read(path, MAX_SCHEMA_BYTES)) is None:
            return None
        try:
            schema = AvroSchema.parse(data.decode("utf-8-sig"), where=self._relative(path))
            schema.text.encode("utf-8")  # an escape can make half a surrogate pair
            return schema  # noqa: TRY300 - what follows are handlers
        except SchemaError as error:
            self._add(path, error.what, error.hint or "")
        except UnicodeError:
            self._add(path, "this is not UTF-8 text", "save the file as UTF-8")
        return None

    def _check_domain_name(self, folder: Path) -> None:
        self._check_word(folder, "domain")
        if folder.name in ENGINE_CATALOGS:
            self._add(folder, "SQL engines keep this name for themselves", "rename the domain's folder")
        if folder.name in OWN_DOMAINS:
            self._add(folder, "headrace keeps this name for itself", "rename the domain's folder")

    def _check_word(self, folder: Path, kind: str) -> None:
        if not PART.fullmatch(folder.name):
            self._add(
                folder,
                f"this is no name of a {kind}",
                "use at most 63 lower-case letters, digits and underscores, beginning with a letter",
            )
        elif folder.name in RESERVED or folder.name.endswith(DEAD_LETTER_TABLE):
            why = "is a reserved word of SQL" if folder.name in RESERVED else "ends as tables of dead letters do"
            self._add(folder, f"{folder.name} {why}", f"rename the {kind}'s folder")

    def _check_topics(self) -> None:
        """Kafka's metrics write ``.`` as ``_``, so topics that differ in nothing else collide."""
        seen: dict[str, ProductName] = {}
        for name, place in self._topics:
            topics = [topic.replace(".", "_") for topic in (str(name), dead_letter_topic_of(str(name)))]
            twins = {seen.setdefault(topic, name) for topic in topics} - {name}
            for twin in sorted(twins):
                self._faults.append(
                    Fault(place, f"its topics differ from those of {twin} in . and _ only", "rename one of the two")
                )

    def _check_storage(self) -> None:
        """No domain's tables may lie inside another's: who may read the outer one could read the inner one."""
        for storage, place in self._storages:
            for other, other_place in self._storages:
                inside = storage == other or storage.startswith(f"{other}/")
                if inside and place != other_place:
                    self._faults.append(
                        Fault(place, f"the storage lies inside that of {other_place}", "give each domain its own")
                    )

    def _check_inputs(self) -> None:
        """What a product is made from is a product of this mesh, or headrace's own, faults in its files or not."""
        own = (ProductName(GOVERNANCE, folder.name) for folder in (OWN_FOLDER / GOVERNANCE).iterdir())
        known = dict.fromkeys([*own, *(name for name, _ in self._topics)]) | self._versions
        for contract in self._contracts:
            contract.check_inputs(known, self._faults)

    def _check_texts(self, document: Document) -> None:
        """Find secrets and unknown placeholders wherever they stand, in places that do not validate too."""
        value = document.value if isinstance(document.value, dict) else {}
        environments = value.get("environments")
        for name in environments if isinstance(environments, dict) else ():
            if not _ENVIRONMENT_NAME.fullmatch(name):
                place = document.where_key("environments", name)
                self._faults.append(Fault(place, "this is no name of an environment", "write a name such as staging"))
        for path, text in _texts(environments, ("environments",)):
            found = literal_fault(str(path[-1]), text)
            if found is not None:
                self._faults.append(Fault(document.where(*path), *found))

    def _folders(self, folder: Path) -> list[Path]:
        """Return the folders inside a folder, sorted; hidden ones and ``__pycache__`` do not count."""
        try:
            children = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            self._add(folder, f"the folder cannot be read: {error.strerror}")
            return []
        found = []
        for child in children:
            if child.name.startswith((".", "__")) or not child.is_dir():
                continue
            if not self._files.holds(child):
                self._add(child, "this link leads out of the mesh", "put the folder itself here")
            elif child.is_symlink() and child.resolve().is_relative_to(self._root / DOMAINS_FOLDER):
                self._add(child, "this link shows a domain or product a second time", "remove the link")
            else:
                found.append(child)
        return found

    def _document(self, path: Path) -> Document | None:
        data = self._read(path, MAX_BYTES)
        return parse(data, self._relative(path), self._faults) if data is not None else None

    def _read(self, path: Path, limit: int) -> bytes | None:
        """Read a file of the mesh: at most one byte more than the limit, so that what parses it sees the excess."""
        if not self._files.holds(path):
            self._add(path, "this link leads out of the mesh", "put the file itself here")
            return None
        try:
            data = self._files.read(path, limit)
        except FileNotFoundError:
            self._add(path, "the file is missing")
        except OSError as error:
            self._add(path, f"the file cannot be read: {error.strerror}")
        else:
            if data is None:
                self._add(path, "this is not a file")
            return data
        return None

    def _relative(self, path: Path) -> str:
        # Odd bytes of a file name must not break a terminal or a log, nor a name of any length fill it.
        text = os.path.relpath(path, self._root).encode("utf-8", "backslashreplace").decode("utf-8")
        return "".join(character if character.isprintable() else "?" for character in text[:300])

    def _add(self, path: Path, what: str, hint: str = "") -> None:
        self._faults.append(Fault(self._relative(path), what, hint))


def _texts(value: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], str]]:
    """Yield every scalar below a value as text, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*path, index))
    elif value is not None and not isinstance(value, bool):
        yield path, str(value)
