"""A product as a complete document of the Open Data Contract Standard. Pure.

The contract as it is written, and, in the standard's own fields, what stands elsewhere: the structure that the Avro
schema says, PII tags, masks, servers, and what the contract leaves to headrace's defaults. The document says the same
as the contract: put in its place, it is read as the same contract.

Source: Open Data Contract Standard 3.2.0, Bitol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.schemas.paths import below
from headrace.schemas.structure import OWN_COLUMNS, structure_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.schemas.masks import Mask
    from headrace.schemas.product import Product
    from headrace.selfserve.exports.addresses import Addresses

__all__ = ["odcs_of"]

_CHILDREN = ("properties", "items", "map")


def odcs_of(written: Mapping[str, Any], product: Product, addresses: Addresses | None) -> dict[str, Any]:
    """Return the document.

    Args:
        written: the product's contract as its file says it, checked.
        product: what was read of it.
        addresses: the environment's servers; None: none that others can reach.
    """
    contract = product.contract
    table = written["schema"][0]
    said = structure_of(product.schema.record)
    latency = {"property": "latency", "value": _whole(contract.freshness_s), "unit": "s"}
    usual = {"kafka.partitions": contract.partitions, "avro.compatibility": str(contract.compatibility)}
    custom = [{"property": name, "value": value} for name, value in usual.items()]
    servers = _servers(product, addresses) if addresses is not None else []
    head = {key: value for key, value in written.items() if key not in ("servers", "schema", "slaProperties")}
    head.pop("customProperties", None)
    return {
        **head,
        **_filled("servers", written.get("servers"), servers, by="server"),
        "schema": [
            {
                **{key: value for key, value in table.items() if key != "properties"},
                "logicalType": "object",
                "physicalType": table.get("physicalType", "topic"),
                **_description(table, product.schema.record.doc),
                "properties": _properties(table.get("properties"), said, "", product.masks),
            }
        ],
        **_filled("slaProperties", written.get("slaProperties"), [latency], by="property"),
        **_filled("customProperties", written.get("customProperties"), custom, by="property"),
    }


def _description(table: Mapping[str, Any], doc: str) -> dict[str, str]:
    return {"description": doc.replace("\0", "\ufffd")} if doc and not table.get("description") else {}


def _filled(name: str, written: Any, usual: Sequence[Mapping[str, Any]], *, by: str) -> dict[str, Any]:
    """Return the list of what is written, with what is usual where nothing of that name is written."""
    there = {each.get(by) for each in written or ()}
    entries = [*(written or ()), *(each for each in usual if each[by] not in there)]
    return {name: entries} if entries else {}


def _servers(product: Product, addresses: Addresses) -> list[dict[str, Any]]:
    servers: list[dict[str, Any]] = [
        {
            "server": addresses.environment,
            "type": "kafka",
            "environment": addresses.environment,
            "host": ",".join(addresses.brokers),
            "format": "avro",
            "customProperties": [
                {"property": "topic", "value": product.topic},
                {"property": "schemaRegistryUrl", "value": addresses.registry},
            ],
        }
    ]
    if addresses.catalog is not None:
        servers.append(
            {
                "server": f"{addresses.environment}-tables",
                "type": "iceberg",
                "environment": addresses.environment,
                "catalog": addresses.catalog.warehouse or product.name.domain,
                "catalogUrl": addresses.catalog.url,
                "namespace": product.name.domain,
                **({"warehouse": addresses.catalog.warehouse} if addresses.catalog.warehouse else {}),
            }
        )
    return servers


def _properties(
    written: Sequence[Mapping[str, Any]] | None, said: Sequence[Mapping[str, Any]], path: str, masks: Mapping[str, Mask]
) -> list[dict[str, Any]]:
    """Return the properties in the schema's order; what the contract says of the table's own columns comes last."""
    given = {each["name"]: each for each in written or ()}
    fields = []
    for each in said:
        here = below(path, each["name"])
        field = _element(given.pop(each["name"], {}), each, here, masks)
        if here in masks:
            field.setdefault("transformDescription", f"masked in the table: {masks[here]}")
        fields.append(field)
    own = {each["name"]: each for each in OWN_COLUMNS}
    return [*fields, *(_element(each, own[name], name, masks) for name, each in given.items())]


def _element(
    written: Mapping[str, Any], said: Mapping[str, Any], path: str, masks: Mapping[str, Mask]
) -> dict[str, Any]:
    bare = {key: value for key, value in said.items() if key not in _CHILDREN}
    # What a contract leaves empty is as good as unwritten.
    kept = {key: value for key, value in written.items() if key not in _CHILDREN and value is not None}
    element = {**bare, **kept}
    if "logicalTypeOptions" in said:
        element["logicalTypeOptions"] = dict(said["logicalTypeOptions"])
    if tags := list(dict.fromkeys([*(written.get("tags") or ()), *said.get("tags", ())])):
        element["tags"] = tags
    if "properties" in said:
        element["properties"] = _properties(written.get("properties"), said["properties"], path, masks)
    if "items" in said:
        element["items"] = _element(written.get("items") or {}, said["items"], f"{path}[]", masks)
    if "map" in said:
        given = written.get("map") or {}
        element["map"] = {
            "key": _element(given.get("key") or {}, said["map"]["key"], path, masks),
            "value": _element(given.get("value") or {}, said["map"]["value"], f"{path}{{}}", masks),
        }
    return element


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number
