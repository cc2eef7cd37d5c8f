"""What a contract says of its fields and of what the product is made from.

The key and the masks: every field that it names stands in the Avro schema. And the contracts of its inputs.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headrace.schemas.avro import Enum, Fixed, Primitive, optional_of
from headrace.schemas.contract_layout import TRANSFORM
from headrace.schemas.masks import Mask
from headrace.schemas.names import ProductName
from headrace.schemas.policy import choose
from headrace.schemas.product import InputContract
from headrace.schemas.structure import OWN_COLUMNS, differences, properties_in, structure_of
from headrace.schemas.types import METADATA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from open_data_contract_standard.model import CustomProperty, SchemaObject, SchemaProperty

    from headrace.schemas.avro import AvroSchema, AvroType, Field
    from headrace.schemas.contract_settings import Custom
    from headrace.schemas.documents import DocumentFaults, Key
    from headrace.schemas.policy import PiiPolicy

_OWN_PROPERTIES = ("mask", TRANSFORM)
# Semantic versioning.
VERSION = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


@dataclass(frozen=True, slots=True)
class ContractField:
    """One property of the contract: its path in the Avro schema and its place in the document.

    ``custom`` are the custom properties that headrace reads, with their places.
    """

    path: str
    value: SchemaProperty
    place: tuple[Key, ...]
    custom: Custom = dataclass_field(default_factory=lambda: MappingProxyType({}))


def custom_properties(
    properties: Sequence[CustomProperty] | None, place: tuple[Key, ...], known: Sequence[str], faults: DocumentFaults
) -> dict[str, tuple[Any, tuple[Key, ...]]]:
    """Return the known custom properties with their places. Others belong to other tools, unless they look misspelt."""
    found: dict[str, tuple[Any, tuple[Key, ...]]] = {}
    for index, custom in enumerate(properties or ()):
        here = (*place, "customProperties", index)
        name = custom.property or ""
        if name in known:
            if name in found:
                faults.add(here, f"{name} stands twice", "keep one of the two")
            found[name] = (custom.value, (*here, "value"))
        elif near := difflib.get_close_matches(name, known, n=1, cutoff=0.75):
            faults.add((*here, "property"), "unknown custom property", f"did you mean {near[0]}?")
    return found


def inputs_of(
    custom: tuple[Any, tuple[Key, ...]] | None, name: ProductName, faults: DocumentFaults
) -> list[tuple[InputContract, tuple[Key, ...]]]:
    """Return the products that a contract says it is made from, with their places; each once, none of them itself.

    Whether the mesh has such products is not asked here.
    """
    if custom is None:
        return []
    listed, place = custom
    if not isinstance(listed, list):
        faults.add(place, "inputContracts is a list", "write value: [{id: domain.product, version: 1.0.0}]")
        return []
    found: dict[ProductName, tuple[InputContract, tuple[Key, ...]]] = {}
    for index, value in enumerate(listed):
        here = (*place, index)
        entry = _input_of(value)
        if entry is None:
            faults.add(here, "an input is an id and a version", "write {id: domain.product, version: 1.0.0}")
        elif entry.product == name:
            faults.add((*here, "id"), "a product is not made from itself", "name the products that it is made from")
        elif entry.product in found:
            faults.add((*here, "id"), f"{entry.product} stands twice", "keep one of the two")
        else:
            found[entry.product] = (entry, (*here, "id"))
    return list(found.values())


def is_newer(version: str, reached: str) -> bool:
    """Tell whether a semantic version comes after another; of two pre-releases of one version neither does."""

    def order(text: str) -> tuple[tuple[int, ...], bool]:
        numbers, prerelease, _ = re.split(r"([-+]|$)", text, maxsplit=1)
        return tuple(map(int, numbers.split("."))), prerelease != "-"

    return order(version) > order(reached)


def _input_of(value: Any) -> InputContract | None:
    if not isinstance(value, dict) or value.keys() != {"id", "version"} or not VERSION.fullmatch(str(value["version"])):
        return None
    try:
        return InputContract(ProductName.parse(str(value["id"])), str(value["version"]))
    except ValueError:
        return None


def contract_fields(table: SchemaObject, faults: DocumentFaults) -> Iterator[ContractField]:
    """Yield the fields that the contract names, nested ones too, by their paths in the Avro schema; each path once."""
    seen: set[str] = set()
    for found in _walk(table.properties, "", ("schema", 0, "properties"), faults):
        if found.path in seen:
            faults.add(found.place, f"{found.path} stands twice", "say everything about a field in one place")
        else:
            seen.add(found.path)
            custom = custom_properties(found.value.customProperties, found.place, _OWN_PROPERTIES, faults)
            yield replace(found, custom=custom)


def _walk(
    properties: Sequence[SchemaProperty] | None, prefix: str, place: tuple[Key, ...], faults: DocumentFaults
) -> Iterator[ContractField]:
    for index, value in enumerate(properties or ()):
        here = (*place, index)
        if not value.name:
            faults.add(here, "name is missing", "write name: and a field of the Avro schema")
            continue
        path = f"{prefix}{value.name}"
        yield ContractField(path, value, here)
        yield from _inside(value, path, here, faults)


def _inside(
    value: SchemaProperty, path: str, place: tuple[Key, ...], faults: DocumentFaults
) -> Iterator[ContractField]:
    yield from _walk(value.properties, f"{path}.", (*place, "properties"), faults)
    if value.items is not None:
        yield from _inside(value.items, f"{path}[]", (*place, "items"), faults)
    if value.map is not None and value.map.value is not None:
        yield from _inside(value.map.value, f"{path}{{}}", (*place, "map", "value"), faults)


def check_fields(properties: Sequence[ContractField], schema: AvroSchema, faults: DocumentFaults) -> None:
    """Add a fault for each field, or branch of a union, that the Avro schema does not have.

    The table's own columns are no fields; what a contract may say of them is `contract_layout`'s to check.
    """
    known = [path for path, _ in properties_in({"properties": structure_of(schema.record)}, "")]
    for found in properties:
        if found.path not in known and found.path not in METADATA_NAMES:
            near = difflib.get_close_matches(found.path, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "the Avro schema is the one source of structure"
            faults.add((*found.place, "name"), "the Avro schema has no such field", hint)


def check_structure(table: SchemaObject, schema: AvroSchema, faults: DocumentFaults) -> None:
    """Add a fault for each word about structure that contradicts the Avro schema.

    A contract need not repeat what the schema says; a complete document, as other tools want it, may.
    """
    said = [*structure_of(schema.record), *OWN_COLUMNS]
    for place, attribute, expected in differences(table.properties, said, ("schema", 0, "properties")):
        rest = f" ({json.dumps(expected)})" if isinstance(expected, str | bool) else ""
        faults.add(place, f"{attribute} is not what the Avro schema says{rest}", "remove it here, or change the schema")


def key_of(properties: Sequence[ContractField], schema: AvroSchema, faults: DocumentFaults) -> tuple[str, ...]:
    """Return the paths of the fields that make the message's key, in order; what is wrong with them is a fault."""
    fields = dict(schema.walk())
    parts = [found for found in properties if found.value.primaryKey]
    if not parts:
        faults.add(
            ("schema", 0, "properties"),
            "no field is the message's key",
            "write primaryKey: true at the field whose events must stay in order",
        )
    for part in parts:
        field: Field | None = fields.get(part.path)
        if field is not None and not ("[]" not in part.path and "{}" not in part.path and _keyable(field.type)):
            faults.add(part.place, "this field cannot be a key", "a key is a string, uuid, enum, int or long")
    positions = sorted(part.value.primaryKeyPosition or 0 for part in parts)
    if len(parts) > 1 and positions != list(range(1, len(parts) + 1)):
        faults.add(parts[0].place, "the key's fields have no order", "give them primaryKeyPosition: 1, 2, …")
    parts.sort(key=lambda part: part.value.primaryKeyPosition or 0)
    return tuple(part.path for part in parts)


def _keyable(avro_type: AvroType) -> bool:
    match optional_of(avro_type)[0]:
        case Primitive(name="string") | Enum() | Primitive(name="int" | "long", logical=None) | Fixed(logical="uuid"):
            return True
        case _:
            return False


def chosen_masks(properties: Sequence[ContractField], faults: DocumentFaults) -> dict[str, Mask]:
    """Return the masks that the contract chooses, by path. Whether they may be chosen is :func:`masks_of`'s to say."""
    masks: dict[str, Mask] = {}
    for found in properties:
        if "mask" not in found.custom or found.path in METADATA_NAMES:
            continue
        value, place = found.custom["mask"]
        try:
            masks[found.path] = Mask(value)
        except ValueError:
            faults.add(place, "this mask is not known", f"choose {', '.join(Mask)}")
    return masks


def masks_of(
    properties: Sequence[ContractField],
    chosen: Mapping[str, Mask],
    schema: AvroSchema,
    policy: PiiPolicy,
    faults: DocumentFaults,
) -> dict[str, Mask]:
    """Return the mask of every field that the schema tags as PII or that the contract masks."""
    places = {found.path: found.place for found in properties}
    pii = schema.pii
    masks: dict[str, Mask] = {}
    for path, field in schema.walk():
        default = policy.mask_of(pii[path]) if path in pii else None
        mask, what, hint = choose(default, chosen.get(path), field.type)
        if what:
            faults.add(places.get(path, ("schema", 0, "properties")), f"{path}: {what}", hint)
        elif mask is not None:
            masks[path] = mask
    return masks
