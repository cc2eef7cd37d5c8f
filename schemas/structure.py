"""What an Avro schema says, in the words of the Open Data Contract Standard. Pure.

A contract need not say any of it; what it says must agree. `headrace export` writes all of it.

Source: Open Data Contract Standard 3.2.0, "Schema", "Logical Type Options".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.schemas.avro_types import Array, Enum, Fixed, Map, Primitive, Record, Union, branch_record, optional_of
from headrace.schemas.own_columns import METADATA_COLUMNS
from headrace.schemas.paths import below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from open_data_contract_standard.model import SchemaProperty

    from headrace.schemas.avro_types import AvroType, Field
    from headrace.schemas.documents import Key

__all__ = ["OWN_COLUMNS", "differences", "properties_in", "structure_of"]

# The standard has no logical type of bytes: a string whose format is binary comes nearest.
_BINARY = ("string", {"format": "binary"})
_LOGICAL: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "string": ("string", {}),
    "boolean": ("boolean", {}),
    "int": ("integer", {"format": "i32"}),
    "long": ("integer", {"format": "i64"}),
    "float": ("number", {"format": "f32"}),
    "double": ("number", {"format": "f64"}),
    "bytes": _BINARY,
    "fixed": _BINARY,
    "decimal": ("number", {}),
    "uuid": ("string", {"format": "uuid"}),
    "date": ("date", {}),
    "record": ("object", {}),
    "union": ("object", {}),
    "enum": ("string", {}),
    "array": ("array", {}),
    "map": ("map", {}),
    **{f"time-{unit}": ("time", {}) for unit in ("millis", "micros")},
    **{f"timestamp-{unit}": ("timestamp", {"timezone": True}) for unit in ("millis", "micros", "nanos")},
    **{f"local-timestamp-{unit}": ("timestamp", {"timezone": False}) for unit in ("millis", "micros", "nanos")},
}
_OWN_TYPES = {"int": "int", "long": "long", "timestamptz": "timestamp-micros", "binary": "bytes"}
# The columns that every table has beside the event's fields: a contract may partition its table by one.
OWN_COLUMNS: Sequence[Mapping[str, Any]] = tuple(
    {
        "name": name,
        "description": doc,
        "logicalType": _LOGICAL[_OWN_TYPES[str(kind)]][0],
        "physicalType": str(kind),
        "logicalTypeOptions": dict(_LOGICAL[_OWN_TYPES[str(kind)]][1]),
        "required": required,
    }
    for name, kind, required, doc in METADATA_COLUMNS
)
# What a contract may repeat of the Avro schema.
_REPEATED = ("logicalType", "physicalType", "logicalTypeOptions", "required", "enum")


def structure_of(record: Record) -> list[dict[str, Any]]:
    """Return the standard's properties of a record's fields, in order, with all that is below them.

    ``physicalType`` is Avro's own name of the type (``timestamp-millis``, ``decimal(9,2)``); ``required`` means that
    there is always a value. A union of several branches is an object with a property for each.
    """
    return [_property(field) for field in record.fields]


def _property(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        # YAML's readers, headrace's too, refuse a NUL.
        **({"description": field.doc.replace("\0", "\ufffd")} if field.doc else {}),
        **_element(field.type),
        **({"tags": list(field.tags)} if field.tags else {}),
    }


def _element(avro_type: AvroType) -> dict[str, Any]:
    inner, optional = optional_of(avro_type)
    kind, physical = _physical(inner)
    # A logical type that this table does not know is one more way to write the type under it.
    logical, options = _LOGICAL.get(kind, (None, {}))
    return {
        **({"logicalType": logical} if logical else {}),
        "physicalType": physical,
        **({"logicalTypeOptions": dict(options)} if options else {}),
        "required": not (optional or (isinstance(inner, Union) and inner.nullable)),
        **_inside(inner),
    }


def _physical(avro_type: AvroType) -> tuple[str, str]:
    """Return the type's row in the table, and its name with its parameters."""
    match avro_type:
        case (
            Primitive(logical="decimal", precision=precision, scale=scale)
            | Fixed(logical="decimal", precision=precision, scale=scale)
        ):
            return "decimal", f"decimal({precision},{scale})"
        case Primitive(name=name, logical=logical):
            return (logical if logical is not None and logical in _LOGICAL else name), logical or name
        case Fixed(size=size, logical=logical):
            return ("uuid", "uuid") if logical == "uuid" else ("fixed", logical or f"fixed({size})")
        case _:
            name = type(avro_type).__name__.lower()
            return name, name


def _inside(avro_type: AvroType) -> dict[str, Any]:
    match avro_type:
        case Record():
            return {"properties": structure_of(avro_type)}
        case Union():
            return {"properties": structure_of(branch_record(avro_type))}
        case Array(items=items):
            return {"items": _element(items)}
        case Map(values=values):
            return {"map": {"key": _element(Primitive("string")), "value": _element(values)}}
        case Enum(symbols=symbols):
            return {"enum": [{"value": symbol} for symbol in symbols]}
        case _:
            return {}


def properties_in(element: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every property inside an element, with its path, parents before children."""
    for inner in element.get("properties", ()):
        here = below(path, inner["name"])
        yield here, inner
        yield from properties_in(inner, here)
    if "items" in element:
        yield from properties_in(element["items"], f"{path}[]")
    if "map" in element:
        yield from properties_in(element["map"]["value"], f"{path}{{}}")


def differences(
    given: Sequence[SchemaProperty] | None, said: Sequence[Mapping[str, Any]], place: tuple[Key, ...]
) -> Iterator[tuple[tuple[Key, ...], str, Any]]:
    """Yield where a contract's properties contradict the Avro schema.

    Args:
        given: the contract's properties.
        said: what :func:`structure_of` says of the same fields.
        place: the properties' place in the contract.

    Yields:
        The place of what differs, its name, and what the Avro schema says there (None: nothing). Properties of fields
        that the schema does not have are passed over.
    """
    known = {each["name"]: each for each in said}
    for index, value in enumerate(given or ()):
        if value.name in known:
            yield from _element_differences(value, known[value.name], (*place, index))


def _element_differences(
    given: SchemaProperty, said: Mapping[str, Any], place: tuple[Key, ...]
) -> Iterator[tuple[tuple[Key, ...], str, Any]]:
    for attribute in _REPEATED:
        if not _agrees(attribute, getattr(given, attribute), said.get(attribute)):
            yield (*place, attribute), attribute, said.get(attribute)
    yield from differences(given.properties, said.get("properties", ()), (*place, "properties"))
    if given.items is not None:
        if "items" in said:
            yield from _element_differences(given.items, said["items"], (*place, "items"))
        else:
            yield (*place, "items"), "items", None
    if given.map is not None:
        if "map" not in said:
            yield (*place, "map"), "map", None
            return
        for half in ("key", "value"):
            inner = getattr(given.map, half)
            if inner is not None:
                yield from _element_differences(inner, said["map"][half], (*place, "map", half))


def _agrees(attribute: str, given: Any, said: Any) -> bool:
    if given is None:
        return True
    match attribute:
        case "logicalTypeOptions":
            return all(key in (said or {}) and said[key] == value for key, value in given.items())
        case "enum":
            # On a text that is no enum, allowed values are the contract's own to say.
            return said is None or [each.value for each in given] == [each["value"] for each in said]
        case _:
            return bool(given == said)
