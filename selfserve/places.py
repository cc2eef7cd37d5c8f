"""Where in the files a finding stands: file and line of a schema's field, or of what the contract says."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.schemas.compatibility import PLACES
from headrace.schemas.documents import Document, parse
from headrace.schemas.mesh_files import CONTRACT_FILE, DOMAINS_FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.compatibility import Finding
    from headrace.schemas.documents import Key
    from headrace.schemas.names import ProductName

__all__ = ["Place", "Places", "place_of_fault"]

_WHERE = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+)(?::(?P<column>\d+))?)?", re.DOTALL)
_SCHEMA_FILE = "schema.avsc"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file: its path relative to the mesh, line and column from 1; None where they are not known."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


def place_of_fault(where: str) -> Place:
    """Return the place that a fault names as ``path[:line[:column]]``."""
    match = _WHERE.fullmatch(where)
    if match is None or match["line"] is None:
        return Place(where)
    return Place(match["file"], int(match["line"]), int(match["column"]) if match["column"] else None)


class Places:
    """Finds the places of findings in the files of one mesh; a file is read when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._documents: dict[str, Document | None] = {}

    def of(self, product: ProductName, finding: Finding) -> Place:
        """Return where a finding stands: the nearest place that the files still have."""
        folder = f"{DOMAINS_FOLDER}/{product.domain}/{product.product}"
        contract = f"{folder}/{CONTRACT_FILE}"
        if finding.rule in PLACES:
            return self._place(contract, self._entry(contract, PLACES[finding.rule], finding.path))
        schema = self._schema_of(folder, contract)
        document = self._document(schema)
        return self._place(schema, _keys(document.value, finding.path) if document is not None else ())

    def _entry(self, contract: str, keys: tuple[Key, ...], path: str) -> tuple[Key, ...]:
        """Return the way to the entry of that name, where the contract has a list of properties."""
        document = self._document(contract)
        value = document.value if document is not None else None
        entries = value.get(keys[0]) if isinstance(value, dict) and len(keys) == 1 else None
        name = path.partition(".")[2]
        for index, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict) and entry.get("property") == name:
                return (*keys, index, "property")
        return keys

    def _schema_of(self, folder: str, contract: str) -> str:
        """Return the path of the schema that a contract names."""
        document = self._document(contract)
        try:
            definitions = document.value["schema"][0]["authoritativeDefinitions"] if document is not None else []
            url = next(each["url"] for each in definitions if each["type"] == "schema")
            return posixpath.normpath(f"{folder}/{url}")
        except (LookupError, TypeError, StopIteration):
            return f"{folder}/{_SCHEMA_FILE}"

    def _place(self, file: str, keys: tuple[Key, ...]) -> Place:
        document = self._document(file)
        return place_of_fault(document.where_key(*keys)) if document is not None else Place(file)

    def _document(self, file: str) -> Document | None:
        if file not in self._documents:
            self._documents[file] = self._read(file)
        return self._documents[file]

    def _read(self, file: str) -> Document | None:
        try:
            # JSON is YAML too, and this parser knows where everything stands.
            return parse((self._root / file).read_bytes(), file, [])
        except OSError:
            return None


def _keys(schema: Any, path: str) -> tuple[Key, ...]:
    """Return the way to a field's name in a schema's JSON, as far as the schema says it there.

    A field whose type is defined elsewhere in the schema is followed no further.
    """
    keys: list[Key] = []
    node: Any = schema
    for name in re.findall(r"\w+", path):
        found = _field(node, name)
        if found is None:
            break
        way, node = found
        keys += way
    return (*keys, "name") if keys else ()


def _field(node: Any, name: str) -> tuple[list[Key], Any] | None:
    """Return the way to a record's field, or a union's branch, of that name, and what stands there."""
    match node:
        case {"fields": list(fields)}:
            for index, each in enumerate(fields):
                if isinstance(each, dict) and each.get("name") == name:
                    return ["fields", index], each
        case {"type": dict() | list() as inner}:
            return _below(inner, "type", name)
        case {"items": inner}:
            return _below(inner, "items", name)
        case {"values": inner}:
            return _below(inner, "values", name)
        case list(branches):
            return _branch(branches, name)
        case _:
            pass
    return None


def _branch(branches: list[Any], name: str) -> tuple[list[Key], Any] | None:
    for index, branch in enumerate(branches):
        if isinstance(branch, dict) and str(branch.get("name", "")).rpartition(".")[2] == name:
            return [index], branch
        found = _below(branch, index, name)
        if found is not None:
            return found
    return None


def _below(node: Any, key: Key, name: str) -> tuple[list[Key], Any] | None:
    found = _field(node, name)
    return None if found is None else ([key, *found[0]], found[1])
