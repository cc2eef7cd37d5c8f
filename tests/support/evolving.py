"""Schemas made at random, changes of them, and events that show all of a schema: every branch and every symbol.

Given the same `random.Random` they are the same, so a test may take its numbers from hypothesis or from a seed.
"""

from __future__ import annotations

import copy
import json
import struct
from typing import TYPE_CHECKING, Any

import avro.errors
import avro.schema

from headrace.schemas.avro import Array, AvroSchema, AvroType, Enum, Field, Fixed, Map, Primitive, Record, Union
from headrace.schemas.defaults import fits_default
from headrace.schemas.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

PRIMITIVES = ("boolean", "int", "long", "float", "double", "bytes", "string")
DEFAULTS: dict[str, Any] = {
    "null": None,
    "boolean": True,
    "int": 7,
    "long": 8,
    "float": 0.5,
    "double": 0.25,
    "bytes": "b",
    "string": "s",
}
SAMPLES: dict[str, list[Any]] = {
    "null": [None],
    "boolean": [True, False],
    "int": [0, -(2**31)],
    "long": [1, 2**62],
    "float": [0.5],
    "double": [0.1],
    "bytes": [b"x", b""],
    "string": ["x", ""],
}


class Maker:
    """Makes schemas. Names are numbered, so that each named type is defined once."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._count = 0
        self._known: list[str] = []

    def schema(self) -> dict[str, Any]:
        """Return an event's schema."""
        return self.record(0, name="Event")

    def record(self, depth: int, *, name: str | None = None) -> dict[str, Any]:
        name = name or self._name("R")
        fields = [self.field(f"f{number}", depth) for number in range(self.rng.randint(1, 4))]
        return {"type": "record", "name": name, "fields": fields}

    def field(self, name: str, depth: int) -> dict[str, Any]:
        kind = self.type(depth + 1)
        made: dict[str, Any] = {"name": name, "type": kind}
        if self.rng.random() < 0.4:
            first = kind[0] if isinstance(kind, list) else kind
            if isinstance(first, str) and first in DEFAULTS:
                made["default"] = DEFAULTS[first]
            elif isinstance(first, dict) and first["type"] in ("array", "map"):
                made["default"] = [] if first["type"] == "array" else {}
            elif isinstance(first, dict) and first["type"] == "enum":
                made["default"] = first["symbols"][0]
        return made

    def type(self, depth: int) -> Any:
        """Return a type: a plain one when it is deep enough."""
        plain: list[Callable[[], Any]] = [lambda: self.rng.choice(PRIMITIVES)] * 3
        plain += [self.enum, lambda: {"type": "fixed", "name": self._name("F"), "size": self.rng.randint(1, 3)}]
        nested: list[Callable[[], Any]] = [
            lambda: {"type": "array", "items": self.type(depth + 1)},
            lambda: {"type": "map", "values": self.type(depth + 1)},
            lambda: self.record(depth),
            lambda: self.optional(depth),
            lambda: self.union(depth),
        ]
        if self._known and self.rng.random() < 0.2:
            return self.rng.choice(self._known)
        return self.rng.choice(plain if depth > 2 else [*plain, *nested, *nested])()

    def enum(self) -> dict[str, Any]:
        symbols = ["A", "B", "C"][: self.rng.randint(1, 3)]
        made = {"type": "enum", "name": self._name("E"), "symbols": symbols}
        return {**made, "default": self.rng.choice(symbols)} if self.rng.random() < 0.4 else made

    def optional(self, depth: int) -> list[Any]:
        inner = self.type(depth + 1)
        inner = inner if not isinstance(inner, list) else "string"
        return ["null", inner] if self.rng.random() < 0.7 else [inner, "null"]

    def union(self, depth: int) -> list[Any]:
        branches: list[Any] = self.rng.sample(["null", *PRIMITIVES], self.rng.randint(1, 3))
        branches += [self.record(depth + 1)] if self.rng.random() < 0.4 else []
        branches += [self.enum()] if self.rng.random() < 0.3 else []
        branches += [{"type": "array", "items": self.type(depth + 2)}] if self.rng.random() < 0.3 else []
        return branches if len(branches) > 1 else [*branches, self.enum()]

    def _name(self, kind: str) -> str:
        self._count += 1
        name = f"{kind}{self._count}"
        if kind != "R":  # a record may not be referred to inside itself
            self._known.append(name)
        return name


def pair(rng: Random) -> tuple[AvroSchema, AvroSchema]:
    """Return a schema and another that one to three changes made of it; sometimes none of them shows."""
    while True:
        old = _parsed(Maker(rng).schema())
        if old is not None:
            break
    document = old.document
    for _ in range(rng.randint(1, 3)):
        changed = _parsed(_changed(document, rng))
        document = changed.document if changed is not None else document
    return old, AvroSchema.parse(json.dumps(document))


def _parsed(document: dict[str, Any]) -> AvroSchema | None:
    """Return the schema, None if the change has broken a reference or a default, or a union has two like branches."""
    text = json.dumps(document)
    try:
        avro.schema.parse(text)
        schema = AvroSchema.parse(text)
    except (SchemaError, avro.errors.AvroException):
        return None
    return schema if all(_default_fits(field) for _, field in schema.walk()) else None


def _default_fits(field: Field) -> bool:
    """Java's library refuses a default that is none of the type, or of a union's first branch."""
    first = field.type.branches[0] if isinstance(field.type, Union) else field.type
    return not field.has_default or fits_default(field.default, first)


def _changed(document: dict[str, Any], rng: Random) -> dict[str, Any]:
    document = copy.deepcopy(document)
    nodes = list(_nodes(document))
    holder, key = rng.choice(nodes)
    had = "default" in holder
    holder[key] = changed = _changed_type(holder[key], rng)
    if had:
        # A default is of the field's type, and of a union's first branch.
        del holder["default"]
        if isinstance(changed, list) and changed[0] == "null":
            holder["default"] = None
        elif isinstance(changed, str) and changed in DEFAULTS:
            holder["default"] = DEFAULTS[changed]
    return document


def _nodes(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where each type stands: its holder and its place there. The event's record is changed in its fields."""
    if isinstance(node, dict) and node["type"] == "record":
        for field in node["fields"]:
            yield field, "type"
            yield from _nodes(field["type"])
        yield {"record": node}, "record"
    elif isinstance(node, dict):
        for key in ("items", "values"):
            if key in node:
                yield node, key
                yield from _nodes(node[key])
    elif isinstance(node, list):
        for index, branch in enumerate(node):
            yield node, index
            yield from _nodes(branch)


def _changed_type(node: Any, rng: Random) -> Any:
    if isinstance(node, dict) and node["type"] == "record":
        return _changed_record(node, rng)
    if isinstance(node, dict) and node["type"] == "enum":
        return _changed_enum(node, rng)
    if isinstance(node, dict) and node["type"] == "fixed" and rng.random() < 0.6:
        node["size"] = rng.randint(1, 3)
        return node
    if isinstance(node, list):
        return _changed_union(node, rng)
    if rng.random() < 0.3:
        return ["null", node]
    if rng.random() < 0.15:
        return {"type": "array", "items": node}
    return rng.choice(PRIMITIVES)


def _changed_union(node: list[Any], rng: Random) -> Any:
    change = rng.randint(0, 3)
    if change == 0:
        node.append(rng.choice(PRIMITIVES))
    elif change == 1 and len(node) > 1:
        node.pop(rng.randrange(len(node)))
    elif change == 2:
        rng.shuffle(node)
    else:
        return rng.choice(node)
    return node


def _changed_enum(node: dict[str, Any], rng: Random) -> dict[str, Any]:
    change = rng.randint(0, 3)
    if change == 0:
        node["symbols"] = [*node["symbols"], "Z"] if "Z" not in node["symbols"] else node["symbols"]
    elif change == 1 and len(node["symbols"]) > 1:
        node["symbols"] = node["symbols"][:-1]
        if node.get("default") not in node["symbols"]:
            node.pop("default", None)
    elif change == 2:
        node["default"] = node["symbols"][0]
    else:
        node.pop("default", None)
    return node


def _changed_record(node: dict[str, Any], rng: Random) -> dict[str, Any]:
    fields = node["fields"]
    change = rng.randint(0, 6)
    number = rng.randrange(len(fields))
    if change == 0:
        fields.append({"name": f"n{len(fields)}", "type": ["null", "int"], "default": None})
    elif change == 1:
        fields.append({"name": f"n{len(fields)}", "type": rng.choice(PRIMITIVES)})
    elif change == 2 and len(fields) > 1:
        fields.pop(number)
    elif change == 3:
        fields[number] = {**fields[number], "name": f"{fields[number]['name']}x"}
    elif change == 4:
        fields[number] = {**fields[number], "name": f"{fields[number]['name']}y", "aliases": [fields[number]["name"]]}
    elif change == 5:
        rng.shuffle(fields)
    elif rng.random() < 0.5:
        node["aliases"] = [node["name"]]
        node["name"] += "x"
    else:
        node["name"] += "x"
    return node


def samples(schema: AvroSchema) -> list[Any]:
    """Return events that hold, between them, every branch of every union and every symbol of every enum.

    A union's value is the number of its branch with the branch's value.
    """
    return _samples(schema.record)


def _samples(avro_type: AvroType) -> list[Any]:
    match avro_type:
        case Primitive(name=name):
            return SAMPLES[name]
        case Fixed(size=size):
            return [b"f" * size]
        case Enum(symbols=symbols):
            return list(symbols)
        case Array(items=items):
            return [_samples(items), []]
        case Map(values=values):
            return [{f"k{n}": value for n, value in enumerate(_samples(values))}, {}]
        case Union(branches=branches):
            return [(index, value) for index, branch in enumerate(branches) for value in _samples(branch)]
        case Record(fields=fields):
            return _events(fields)


def _events(fields: tuple[Field, ...]) -> list[Any]:
    values = {field.name: _samples(field.type) for field in fields}
    count = max(len(each) for each in values.values())
    return [{name: each[number % len(each)] for name, each in values.items()} for number in range(count)]


def encoded(schema: AvroSchema, event: Any) -> bytes:
    """Return an event as Avro: fastavro's writer guesses which branch of a union is meant, this one is told."""
    return b"".join(_encoded(schema.record, event))


def _encoded(avro_type: AvroType, value: Any) -> Iterator[bytes]:
    match avro_type:
        case Union(branches=branches):
            index, inner = value
            yield _varint(index)
            yield from _encoded(branches[index], inner)
        case Record(fields=fields):
            for field in fields:
                yield from _encoded(field.type, value[field.name])
        case Array(items=items):
            yield from _blocks([_encoded(items, item) for item in value])
        case Map(values=values):
            yield from _blocks([_entry(key, _encoded(values, inner)) for key, inner in value.items()])
        case Enum(symbols=symbols):
            yield _varint(symbols.index(value))
        case Fixed():
            yield value
        case Primitive(name=name):
            yield _plain(name, value)


def _blocks(items: list[Iterator[bytes]]) -> Iterator[bytes]:
    if items:
        yield _varint(len(items))
    for item in items:
        yield from item
    yield b"\0"


def _entry(key: str, value: Iterator[bytes]) -> Iterator[bytes]:
    yield _plain("string", key)
    yield from value


def _plain(name: str, value: Any) -> bytes:
    match name:
        case "null":
            return b""
        case "boolean":
            return bytes([value])
        case "int" | "long":
            return _varint(value)
        case "float" | "double":
            return struct.pack("<f" if name == "float" else "<d", value)
        case _:
            body: bytes = value.encode() if name == "string" else value
            return _varint(len(body)) + body


def _varint(number: int) -> bytes:
    """Return Avro's variable-length zig-zag number of 64 bits."""
    left = (number << 1) ^ (number >> 63)
    found = bytearray()
    while left > 0x7F:
        found.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*found, left])
