"""The schema registry as others use it: with its vendor's client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka.schema_registry import SchemaRegistryClient

from headrace.schemas.registry_settings import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping


def registry_client(config: Mapping[str, object]) -> SchemaRegistryClient:
    """Return a client that waits and asks again as headrace's own: by default it waits for a lost answer for ever."""
    return SchemaRegistryClient({**DEFAULTS, **config})
