"""From a schema's JSON to resolved types: references followed, names and tags checked, excess refused. Pure.

Source of the rules: Apache Avro specification 1.12, "Names" and "Logical Types".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headrace.schemas.avro_types import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union
from headrace.schemas.errors import SchemaError
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
# A name of Confluent's data contracts: a list of tags inline in a field or a type.
TAGS = "confluent:tags"
# Deep enough for any event a person can review; a limit on everything keeps a hostile schema from exhausting the stack.
MAX_DEPTH = 32
# References let a short text name a type twice at each level, so that thirty levels are a billion columns.
MAX_FIELDS = 10_000
# Paths and columns rely on it: a dot or a bracket in a name would forge a path.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_MISSING: Any = object()


class Resolver:
    """Resolves named references while it walks a schema's JSON; one instance a schema."""

    def __init__(self, where: str | None) -> None:
        self._where = where
        self._named: dict[str, AvroType] = {}
        self._definitions: dict[str, dict[str, Any]] = {}

    def resolve(self, node: Any, path: str, namespace: str | None, inside: tuple[str, ...]) -> AvroType:
        """Resolve one node; ``inside`` names the records it stands in, outermost first."""
        if path.count(".") + path.count("[]") + path.count("{}") > MAX_DEPTH:
            raise SchemaError(f"nested deeper than {MAX_DEPTH}", path=path, where=self._where)
        if isinstance(node, str):
            return self._reference(node, path, namespace, inside)
        if isinstance(node, list):
            return self._union(node, path, namespace, inside)
        if not isinstance(node, dict) or "type" not in node:
            raise SchemaError("a type is missing here", path=path, where=self._where, hint='write "type": …')
        kind = node["type"]
        if kind in ("record", "error"):
            return self._record(node, path, namespace, inside)
        if kind in ("enum", "fixed"):
            return self._leaf(node, path, namespace)
        if kind == "array":
            return Array(self.resolve(node.get("items", _MISSING), f"{path}[]", namespace, inside))
        if kind == "map":
            return Map(self.resolve(node.get("values", _MISSING), f"{path}{{}}", namespace, inside))
        if isinstance(kind, str) and kind in PRIMITIVES:
            return Primitive(kind, *_logical(node, kind, None))
        return self.resolve(kind, path, namespace, inside)

    def _union(self, node: list[Any], path: str, namespace: str | None, inside: tuple[str, ...]) -> Union:
        if any(isinstance(branch, list) for branch in node):
            raise SchemaError("a union stands in a union", path=path, where=self._where, hint="make them one")
        branches = tuple(self.resolve(branch, path, namespace, inside) for branch in node)
        # Avro 1.12 specification, "Unions": one of each type, but for named types, which have names of their own.
        kinds = [getattr(branch, "name", f"the {type(branch).__name__.lower()}") for branch in branches]
        twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        if twice is not None:
            raise SchemaError(f"the union has {twice} twice", path=path, where=self._where, hint="keep one")
        return Union(branches)

    def _reference(self, name: str, path: str, namespace: str | None, inside: tuple[str, ...]) -> AvroType:
        if name in PRIMITIVES:
            return Primitive(name)
        full = _full_name(name, namespace)
        if full in inside:
            raise SchemaError(
                f"the record {full} contains itself",
                path=path,
                where=self._where,
                hint="no table can hold a recursive type: flatten it, or carry the inner part as a JSON string",
            )
        if full not in self._named:
            raise SchemaError(
                f"the type {name!r} is not known here",
                path=path,
                where=self._where,
                hint="define it at its first use, or use one of Avro's primitive types",
            )
        return self._named[full]

    def _record(self, node: dict[str, Any], path: str, namespace: str | None, inside: tuple[str, ...]) -> Record:
        full = self._defined(node, path, namespace)
        if not isinstance(node.get("fields"), list):
            raise SchemaError(
                "this is not valid Avro: a record needs fields",
                path=path,
                where=self._where,
                hint='write "fields": [ … ]',
            )
        space = full.rpartition(".")[0] or None
        fields = tuple(self._field(field, path, space, (*inside, full)) for field in node["fields"])
        names = [field.name for field in fields]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise SchemaError(f"the record has the field {twice} twice", path=path, where=self._where)
        record = Record(full, fields, str(node.get("doc", "")))
        self._named[full] = record
        return record

    def _defined(self, node: dict[str, Any], path: str, namespace: str | None) -> str:
        """Return the full name that a record, an enum or a fixed defines, and remember where it did."""
        name, space = node.get("name"), node.get("namespace", namespace)
        if not isinstance(name, str) or not isinstance(space, str | None):
            raise SchemaError(f"the {node['type']} needs a name", path=path, where=self._where, hint='write "name": …')
        full = _full_name(name, space)
        self._check_name(full.rpartition(".")[2], path)
        self._definitions[full] = node
        return full

    def _check_name(self, name: str, path: str) -> None:
        if not _NAME.fullmatch(name):
            raise SchemaError(
                f"{name!r} is no name in Avro",
                path=path,
                where=self._where,
                hint="use letters, digits and underscores, and no digit at the start",
            )

    def _field(self, node: Any, path: str, namespace: str | None, inside: tuple[str, ...]) -> Field:
        if not isinstance(node, dict) or not isinstance(node.get("name"), str):
            raise SchemaError("a field needs a name", path=path, where=self._where)
        self._check_name(node["name"], path)
        here = below(path, node["name"])
        return Field(
            name=node["name"],
            type=self.resolve(node.get("type", _MISSING), here, namespace, inside),
            doc=str(node.get("doc", "")),
            aliases=aliases_of(node),
            tags=self._tags(node, here, namespace),
            has_default="default" in node,
            default=node.get("default"),
        )

    def _tags(self, node: dict[str, Any], path: str, namespace: str | None) -> tuple[str, ...]:
        own: list[Any] = []
        for holder in (node, *self._tag_holders(node.get("type"), namespace)):
            tags = holder.get(TAGS, [])
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                raise SchemaError(
                    f"{TAGS} is a list of strings", path=path, where=self._where, hint=f'"{TAGS}": ["PII", "category"]'
                )
            own.extend(tags)
        return tuple(own)

    def _tag_holders(self, node: Any, namespace: str | None) -> Iterator[dict[str, Any]]:
        """Yield what may carry a field's tags besides the field: every type on the way to its innermost values.

        A tag counts in a branch of a union, in an array's items, and in a named type wherever that is referred to:
        a tag that is overlooked lets a value pass unmasked.
        """
        if isinstance(node, str):
            definition = self._definitions.get(_full_name(node, namespace))
            if node not in PRIMITIVES and definition is not None:
                yield definition
        elif isinstance(node, list):
            for branch in node:
                yield from self._tag_holders(branch, namespace)
        elif isinstance(node, dict):
            yield node
            if node.get("type") not in ("record", "error", "enum", "fixed"):
                for part in ("type", "items", "values"):
                    yield from self._tag_holders(node.get(part), namespace)

    def _leaf(self, node: dict[str, Any], path: str, namespace: str | None) -> AvroType:
        full = self._defined(node, path, namespace)
        leaf: AvroType
        if node["type"] == "enum":
            symbols = node.get("symbols")
            if not isinstance(symbols, list) or not symbols:
                raise SchemaError("an enum needs symbols", path=path, where=self._where, hint='write "symbols": [ … ]')
            default = node.get("default")
            leaf = Enum(full, tuple(symbols), default if default in symbols else None)
        else:
            size = _whole(node, "size", None)
            leaf = Fixed(full, size, *_logical(node, "fixed", size))
        self._named[full] = leaf
        return leaf


def aliases_of(node: dict[str, Any]) -> tuple[str, ...]:
    """Return the names that a field or a named type had before; what is no name is nobody's."""
    given = node.get("aliases")
    return tuple(alias for alias in given if isinstance(alias, str)) if isinstance(given, list) else ()


def refuse_excess(avro_type: AvroType, where: str | None) -> None:
    """Refuse what references make too large or too deep; each type is measured once, however often it is named."""
    measured: dict[int, tuple[int, int]] = {}

    def measure(node: AvroType) -> tuple[int, int]:
        if id(node) not in measured:
            match node:
                case Record(fields=fields):
                    inside = [measure(field.type) for field in fields]
                case Array(items=inner) | Map(values=inner):
                    inside = [measure(inner)]
                case Union(branches=branches):
                    inside = [measure(branch) for branch in branches]
                case _:
                    inside = []
            own = len(inside) if isinstance(node, Record) else 0
            deeper = max((depth for _, depth in inside), default=0) + (not isinstance(node, Union))
            measured[id(node)] = own + sum(count for count, _ in inside), deeper
        return measured[id(node)]

    count, depth = measure(avro_type)
    # The record at the top and the innermost type stand at no separator of a path.
    if depth > MAX_DEPTH + 2:
        raise SchemaError(f"nested deeper than {MAX_DEPTH}", where=where, hint="flatten the event")
    if count > MAX_FIELDS:
        raise SchemaError(
            f"the schema has {count:,} fields where its references are followed, more than {MAX_FIELDS:,}",
            where=where,
            hint="refer to large types once, not at every level",
        )


def _whole(node: dict[str, Any], key: str, default: int | None) -> int:
    value = node.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{key} is a whole number from 0")
    return value


# Logical types by the types that may carry them; a logical type elsewhere is ignored, as the specification demands.
_LOGICAL: Mapping[str, frozenset[str]] = {
    "decimal": frozenset({"bytes", "fixed"}),
    "uuid": frozenset({"string", "fixed"}),
    "date": frozenset({"int"}),
    "time-millis": frozenset({"int"}),
    "time-micros": frozenset({"long"}),
    "timestamp-millis": frozenset({"long"}),
    "timestamp-micros": frozenset({"long"}),
    "timestamp-nanos": frozenset({"long"}),
    "local-timestamp-millis": frozenset({"long"}),
    "local-timestamp-micros": frozenset({"long"}),
    "local-timestamp-nanos": frozenset({"long"}),
    "duration": frozenset({"fixed"}),
}


def _logical(node: dict[str, Any], kind: str, size: int | None) -> tuple[str | None, int, int]:
    logical = node.get("logicalType")
    if not isinstance(logical, str) or kind not in _LOGICAL.get(logical, frozenset()):
        return None, 0, 0
    if (logical == "uuid" and size not in (None, 16)) or (logical == "duration" and size != 12):
        return None, 0, 0
    if logical == "decimal":
        return logical, _whole(node, "precision", 0), _whole(node, "scale", 0)
    return logical, 0, 0


def _full_name(name: str, namespace: str | None) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
