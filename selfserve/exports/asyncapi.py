"""A product as an AsyncAPI document: its topic, what it carries, and where. Pure.

Sources: AsyncAPI Specification 3.1.0; AsyncAPI's Kafka bindings 0.5.0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.schemas.product import Product
    from headrace.selfserve.exports.addresses import Addresses

__all__ = ["asyncapi_of"]

ASYNCAPI_VERSION = "3.1.0"
BINDING_VERSION = "0.5.0"
# The one version of Avro that the specification lists; later ones read the same schemas.
SCHEMA_FORMAT = "application/vnd.apache.avro+json;version=1.9.0"
_SECURITY = {
    "PLAIN": "plain",
    "SCRAM-SHA-256": "scramSha256",
    "SCRAM-SHA-512": "scramSha512",
    "GSSAPI": "gssapi",
}
_PLACEHOLDER = re.compile(r"\$\{(?:env|file):([^{}]+)\}")


def asyncapi_of(product: Product, addresses: Addresses | None) -> dict[str, Any]:
    """Return the document: the owning domain's program sends the product's messages to its channel.

    Args:
        product: the product.
        addresses: the environment's servers; None: none that others can reach.
    """
    contract = product.contract
    channel, message = product.name.product, product.schema.record.name.rpartition(".")[2]
    servers = dict(_servers(addresses)) if addresses is not None else {}
    schemes = _schemes(addresses)
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {
            "title": str(product.name),
            "version": contract.version,
            "description": contract.purpose,
            "contact": {"name": contract.owner},
            "tags": [{"name": f"domain:{product.name.domain}"}, {"name": f"status:{contract.status}"}],
            "x-status": contract.status,
            **(
                {"x-inputContracts": [{"id": str(each.product), "version": each.version} for each in contract.inputs]}
                if contract.inputs
                else {}
            ),
        },
        "defaultContentType": "avro/binary",
        **({"servers": servers} if servers else {}),
        "channels": {
            channel: {
                "address": product.topic,
                "messages": {message: {"$ref": f"#/components/messages/{message}"}},
                **({"servers": [{"$ref": f"#/servers/{name}"} for name in servers]} if servers else {}),
                "bindings": {"kafka": _channel_binding(product)},
            }
        },
        "operations": {
            f"send_{channel}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{channel}"},
                "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
            }
        },
        "components": {
            "messages": {message: _message(product, message, registered=addresses is not None)},
            **({"securitySchemes": schemes} if schemes else {}),
        },
    }


def _servers(addresses: Addresses) -> Iterator[tuple[str, dict[str, Any]]]:
    security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in _schemes(addresses)]
    for number, broker in enumerate(addresses.brokers, start=1):
        # In a server's address the specification writes what is filled in later as a variable in braces.
        names = [_variable(match) for match in _PLACEHOLDER.findall(broker)]
        yield (
            addresses.environment if number == 1 else f"{addresses.environment}-{number}",
            {
                "host": _PLACEHOLDER.sub(lambda match: f"{{{_variable(match[1])}}}", broker),
                "protocol": "kafka-secure" if addresses.encrypted else "kafka",
                **({"variables": {name: {"description": "set where it runs"} for name in names}} if names else {}),
                **({"security": security} if security else {}),
                "bindings": {
                    "kafka": {
                        "schemaRegistryUrl": addresses.registry,
                        "schemaRegistryVendor": "confluent",
                        "bindingVersion": BINDING_VERSION,
                    }
                },
            },
        )


def _variable(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _schemes(addresses: Addresses | None) -> dict[str, Any]:
    kind = _SECURITY.get(addresses.mechanism or "") if addresses is not None else None
    return {kind: {"type": kind}} if kind else {}


def _channel_binding(product: Product) -> dict[str, Any]:
    contract = product.contract
    retention = {"retention.ms": contract.retention_ms} if contract.retention_ms is not None else {}
    return {
        "topic": product.topic,
        "partitions": contract.partitions,
        "topicConfiguration": {"cleanup.policy": contract.cleanup_policy.split(","), **retention},
        "bindingVersion": BINDING_VERSION,
    }


def _message(product: Product, name: str, *, registered: bool) -> dict[str, Any]:
    record, pii = product.schema.record, product.schema.pii
    # The bindings allow these only where a server names its registry.
    registry = {
        "schemaIdLocation": "payload",
        "schemaIdPayloadEncoding": "confluent",
        "schemaLookupStrategy": "TopicNameStrategy",
    }
    return {
        "name": name,
        **({"summary": record.doc} if record.doc else {}),
        "contentType": "avro/binary",
        **({"tags": [{"name": "PII"}], "x-pii": dict(pii)} if pii else {}),
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": _key_words(product)},
                **(registry if registered else {}),
                "bindingVersion": BINDING_VERSION,
            }
        },
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": product.schema.document},
    }


def _key_words(product: Product) -> str:
    key = product.contract.key
    if len(key) == 1:
        return f"the field {key[0]}, as UTF-8 text"
    return f"the fields {', '.join(key)}, in this order, as a compact JSON array"
