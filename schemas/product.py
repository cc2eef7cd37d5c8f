"""What a mesh folder promises, as frozen values: domain, contract, product."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from headrace.schemas.names import ProductName, dead_letter_topic_of, sink_group_of, subject_of
from headrace.schemas.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.masks import Mask


class Compatibility(StrEnum):
    """The registry's compatibility levels (Confluent Schema Registry, "Schema Evolution and Compatibility")."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FORWARD = "FORWARD"
    FORWARD_TRANSITIVE = "FORWARD_TRANSITIVE"
    FULL = "FULL"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


class RefusedVersions(StrEnum):
    """What a sink does with events of a version that the product's table cannot follow."""

    WAIT = "wait"
    DEAD_LETTER = "dead-letter"


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One field of a table's partition spec, as a contract asks for it.

    Attributes:
        path: the dotted path of the field, or the name of a metadata column.
        transform: Iceberg's name of the transform: ``identity``, ``day``, ``hour``, ``month``, ``year``,
            ``bucket[N]``, ``truncate[W]``.
    """

    path: str
    transform: str


@dataclass(frozen=True, slots=True)
class SortField:
    """One field of a table's sort order: its path, and whether large values, or nulls, come first."""

    path: str
    descending: bool = False
    nulls_first: bool = True


@dataclass(frozen=True, slots=True)
class InputContract:
    """One product that another is made from: its name, and the version of its contract that was built upon."""

    product: ProductName
    version: str


@dataclass(frozen=True, slots=True)
class Contract:
    """What headrace reads of a product's ODCS document.

    Attributes:
        version: the contract's own version (semantic versioning).
        status: ODCS status (``active``, ``draft`` …).
        owner: who answers for the product.
        purpose: what the product is for.
        key: dotted paths of the fields that make the message key, in order (never empty).
        partitions: number of partitions of the topic.
        compatibility: level of the product's subject.
        freshness_s: the SLA's latency in seconds: how old an event may be before it is in the table.
        retention_ms: how long Kafka keeps events; None: as long as the broker's default.
        masks: masks that the contract chooses, by field path; fields not named get their category's default.
        inputs: the products that this one is made from, as the contract lists them.
        cleanup_policy: what Kafka does with old events: ``delete``, ``compact`` or ``compact,delete``.
        min_insync_replicas: how many replicas must have an event before it counts; None: the broker's default.
        partition_by: the table's partition spec, in order; empty: unpartitioned.
        sort_by: the table's sort order; empty: unsorted.
        table_properties: further properties of the table.
        refused_versions: what the sink does with events of a version that the table cannot follow.
        upkeep: which snapshots the table keeps, and what becomes of its files.
    """

    version: str
    status: str
    owner: str
    purpose: str
    key: tuple[str, ...]
    partitions: int
    compatibility: Compatibility
    freshness_s: float
    retention_ms: int | None = None
    masks: Mapping[str, Mask] = field(default_factory=lambda: MappingProxyType({}))
    inputs: tuple[InputContract, ...] = ()
    cleanup_policy: str = "delete"
    min_insync_replicas: int | None = None
    partition_by: tuple[PartitionField, ...] = ()
    sort_by: tuple[SortField, ...] = ()
    table_properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    refused_versions: RefusedVersions = RefusedVersions.WAIT
    upkeep: Upkeep = field(default_factory=Upkeep)


@dataclass(frozen=True, slots=True)
class Product:
    """A product of one domain in one environment.

    Attributes:
        name: ``domain.product``.
        contract: its contract.
        schema: the Avro schema beside the contract: the one source of the structure.
        masks: every PII field's mask by field path: the contract's choice, else the policy's default.
        topic: the topic, behind the environment's prefix.
        schema_file: the schema's path relative to the mesh's folder; empty if it was read from no file.
    """

    name: ProductName
    contract: Contract
    schema: AvroSchema
    masks: Mapping[str, Mask]
    topic: str
    schema_file: str = ""

    @property
    def subject(self) -> str:
        """The registry's subject of the topic's values."""
        return subject_of(self.topic)

    @property
    def dead_letter_topic(self) -> str:
        """The topic of refused records."""
        return dead_letter_topic_of(self.topic)

    @property
    def sink_group(self) -> str:
        """The consumer group of the product's sink."""
        return sink_group_of(self.topic)


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain: who owns it, where its tables lie, and what it publishes.

    Attributes:
        name: the folder's name under ``domains/``.
        owner: the team that owns the domain's data.
        description: what the domain is about.
        storage: where the domain's tables lie, relative to the environment's warehouse (default: the domain's name).
        products: the domain's products by the second part of their names.
    """

    name: str
    owner: str
    description: str
    storage: str
    products: Mapping[str, Product]
