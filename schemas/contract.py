"""A product's contract: an Open Data Contract Standard v3.2 document, read into a :class:`Contract`.

What headrace reads, all else of the standard is accepted and left to its readers::

    apiVersion: v3.2.0                    kind: DataContract
    id: domain.product                    name: product         domain: domain      (as the folders say)
    version: 1.0.0                        status: active
    description.purpose                   what the product is for
    team.name                             who answers for it
    schema[0].name                        product, once; physicalName, if given, is domain.product
    schema[0].authoritativeDefinitions    {type: schema, url: schema.avsc}: the structure, and the only one
    schema[0].properties[]                fields of the schema; logicalType, physicalType, logicalTypeOptions, required
                                          and an enum's values may repeat what the schema says, and must agree with it
    schema[0].properties[].primaryKey     the message's key, in the order of primaryKeyPosition
    schema[0].properties[].partitioned    the table is partitioned by this field, or by one of the table's own columns
                                          (``_kafka_timestamp``), in the order of partitionKeyPosition
    schema[0].properties[].customProperties   {property: mask, value: show-last-4}
                                          {property: iceberg.transform, value: day}: identity (the default), year,
                                          month, day, hour, bucket[N] or truncate[W] of a partitioned field
    slaProperties                         latency: an event's age when it is in the table (default 10 s)
                                          retention: how long Kafka keeps an event (default: the broker's)
    customProperties                      kafka.partitions (default 4)
                                          kafka.min.insync.replicas (default: the broker's)
                                          kafka.cleanup.policy: delete (default), compact or compact,delete
                                          avro.compatibility (default BACKWARD)
                                          sink.refusedVersions: wait (default) or dead-letter, for events of a version
                                          that the table cannot follow
                                          iceberg.sortOrder: [{field: placed_at, direction: desc, nulls: last}, …]
                                          iceberg.tableProperties: a map; headrace's own are refused
                                          upkeep.snapshots, upkeep.compaction, upkeep.orphans: see
                                          :mod:`headrace.schemas.upkeep_settings`
                                          inputContracts: [{id: domain.product, version: 1.0.0}, …], the products
                                          that this one is made from

A compacted topic keeps each key's last event: its offsets have gaps, and its table keeps every event that the sink has
read. A tombstone, an event without a value, is a dead letter there as everywhere.

Source: Open Data Contract Standard 3.2.0, Bitol; "Fundamentals", "Schema", "Service-Level Agreement".
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from open_data_contract_standard.model import OpenDataContractStandard, Team

from headrace.schemas.contract_fields import (
    VERSION,
    check_fields,
    check_structure,
    chosen_masks,
    contract_fields,
    custom_properties,
    inputs_of,
    is_newer,
    key_of,
    masks_of,
)
from headrace.schemas.contract_layout import SORT_ORDER, TableColumns, partitioning_of, sorting_of
from headrace.schemas.contract_settings import SETTINGS, settings_of
from headrace.schemas.documents import DocumentFaults
from headrace.schemas.durations import UNIT_MS
from headrace.schemas.names import ProductName
from headrace.schemas.product import Contract
from headrace.schemas.validation import valid_part, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.documents import Document, Key
    from headrace.schemas.errors import Fault
    from headrace.schemas.masks import Mask
    from headrace.schemas.policy import PiiPolicy

API_VERSION = "v3.2.0"
SCHEMA_DEFINITION = "schema"
DEFAULT_FRESHNESS_S = 10.0
_INPUTS = "inputContracts"
_OWN_PROPERTIES = (*SETTINGS, SORT_ORDER, _INPUTS)


@dataclass(frozen=True, slots=True)
class OdcsDocument:
    """A contract's document; what it says is read by :meth:`read`.

    Attributes:
        document: the document.
        odcs: what of it has the standard's shape.
        whole: whether all of it has.
    """

    document: Document
    odcs: OpenDataContractStandard
    whole: bool = True

    @classmethod
    def parse(cls, document: Document, faults: list[Fault]) -> OdcsDocument | None:
        """Validate the shape: unknown keys, types. None if nothing of it is the standard's."""
        odcs = validate(document, OpenDataContractStandard, faults)
        if odcs is not None:
            return cls(document, odcs)
        part = valid_part(document, OpenDataContractStandard)
        return cls(document, part, whole=False) if part is not None else None

    @property
    def version(self) -> str | None:
        """The contract's version, None if it is none."""
        version = self.odcs.version
        return str(version) if version and VERSION.fullmatch(version) else None

    def schema_url(self, faults: list[Fault]) -> str | None:
        """Return the path of the Avro schema beside the contract, None (and a fault) if the contract names none."""
        for table in (self.odcs.schema_ or [])[:1]:
            for definition in table.authoritativeDefinitions or ():
                if definition.type == SCHEMA_DEFINITION and definition.url:
                    return str(definition.url)
        place: list[Key] = ["schema", 0, "authoritativeDefinitions"]
        DocumentFaults(self.document, faults).add(
            place,
            "the contract does not say where its Avro schema is",
            "write authoritativeDefinitions: [{type: schema, url: schema.avsc}] below schema[0]",
        )
        return None

    def schema_place(self) -> str:
        """Return the place of the path of the Avro schema."""
        return self.document.where("schema", 0, "authoritativeDefinitions")

    def read(
        self, name: ProductName, schema: AvroSchema | None, policy: PiiPolicy | None, faults: list[Fault]
    ) -> tuple[Contract, Mapping[str, Mask]] | None:
        """Return the product's contract and the mask of every PII field by path, or None if anything is wrong.

        Without a schema or a policy only what does not depend on them is checked, and the result is None.
        """
        before = len(faults)
        add = DocumentFaults(self.document, faults)
        odcs = self.odcs
        _check_identity(odcs, name, add)
        tables = odcs.schema_ or []
        if len(tables) > 1:
            add.add(("schema", 1), "a product has one schema", "move the other into a product of its own")
        retention_ms = _sla_ms(odcs, "retention", add)
        freshness_ms = _sla_ms(odcs, "latency", add)
        custom = custom_properties(odcs.customProperties, (), _OWN_PROPERTIES, add)
        settings = settings_of(custom, retention_ms, add)
        inputs = inputs_of(custom.get(_INPUTS), name, add)
        if not tables or schema is None:
            return None
        properties = list(contract_fields(tables[0], add))
        check_fields(properties, schema, add)
        check_structure(tables[0], schema, add)
        key = key_of(properties, schema, add)
        chosen = chosen_masks(properties, add)
        masks = masks_of(properties, chosen, schema, policy, add) if policy is not None else chosen
        columns = TableColumns(schema, masks, key)
        partition_by = partitioning_of(properties, columns, add)
        sort_by = sorting_of(custom, columns, add)
        if policy is None or len(faults) > before or not self.whole:
            return None
        contract = Contract(
            version=str(odcs.version),
            status=str(odcs.status),
            owner=str(odcs.team.name if isinstance(odcs.team, Team) else ""),
            purpose=str(odcs.description.purpose if odcs.description else "").strip(),
            key=key,
            partitions=settings.partitions,
            compatibility=settings.compatibility,
            freshness_s=DEFAULT_FRESHNESS_S if freshness_ms is None else freshness_ms / 1000,
            retention_ms=retention_ms,
            masks=MappingProxyType(chosen),
            inputs=tuple(found for found, _ in inputs),
            cleanup_policy=settings.cleanup_policy,
            min_insync_replicas=settings.min_insync_replicas,
            partition_by=partition_by,
            sort_by=sort_by,
            table_properties=settings.table_properties,
            refused_versions=settings.refused_versions,
            upkeep=settings.upkeep,
        )
        return contract, MappingProxyType(masks)

    def check_inputs(self, known: Mapping[ProductName, str | None], faults: list[Fault]) -> None:
        """Add a fault for each input that is none of the known products, or of a version that it has not reached.

        What else is wrong there, `read` has told.

        Args:
            known: the versions of the products' contracts; None: not known.
            faults: where faults are added.
        """
        custom = custom_properties(self.odcs.customProperties, (), (_INPUTS,), DocumentFaults(self.document, []))
        own = ProductName(str(self.odcs.domain), str(self.odcs.name))
        for found, place in inputs_of(custom.get(_INPUTS), own, DocumentFaults(self.document, [])):
            if found.product not in known:
                near = difflib.get_close_matches(str(found.product), map(str, known), n=1)
                hint = f"did you mean {near[0]}?" if near else "name a product of this mesh"
                DocumentFaults(self.document, faults).add(place, f"the mesh has no product {found.product}", hint)
            elif (reached := known[found.product]) is not None and is_newer(found.version, reached):
                DocumentFaults(self.document, faults).add(
                    (*place[:-1], "version"), f"{found.product} is at {reached}", f"write version: {reached}"
                )


def _check_identity(odcs: OpenDataContractStandard, name: ProductName, faults: DocumentFaults) -> None:
    table = odcs.schema_[0] if odcs.schema_ else None
    wanted: list[tuple[tuple[Key, ...], str | None, str]] = [
        (("apiVersion",), odcs.apiVersion, API_VERSION),
        (("kind",), odcs.kind, "DataContract"),
        (("id",), odcs.id, str(name)),
        (("name",), odcs.name, name.product),
        (("domain",), odcs.domain, name.domain),
        (("schema", 0, "name"), table.name if table else None, name.product),
    ]
    if table is not None and table.physicalName is not None:
        wanted.append((("schema", 0, "physicalName"), table.physicalName, str(name)))
    for place, value, expected in wanted:
        if value != expected:
            what = f"{place[-1]} is missing" if value is None else f"{place[-1]} does not say {expected}"
            faults.add(place, what, f"write {place[-1]}: {expected}")
    purpose = odcs.description.purpose if odcs.description else None
    team = odcs.team.name if isinstance(odcs.team, Team) else None
    if not (odcs.version and VERSION.fullmatch(odcs.version)):
        faults.add(("version",), "the contract needs a semantic version", "write version: 1.0.0")
    for texts, value, hint in (
        (("status",), odcs.status, "write status: active"),
        (("description", "purpose"), purpose, "say in a sentence what the product is for"),
        (("team", "name"), team, "name the team that answers for the product: team: {name: …}"),
    ):
        if not (value and value.strip()):
            faults.add(texts, f"{'.'.join(texts)} is missing", hint)


def _sla_ms(odcs: OpenDataContractStandard, name: str, faults: DocumentFaults) -> int | None:
    """Return an SLA property in milliseconds, None if the contract has none."""
    found = [(index, sla) for index, sla in enumerate(odcs.slaProperties or ()) if sla.property == name]
    if not found:
        return None
    for index, _ in found[1:]:
        faults.add(("slaProperties", index), f"{name} stands twice", "keep one of the two")
    index, sla = found[0]
    value, factor = sla.value, UNIT_MS.get(sla.unit or "")
    if factor is None:
        faults.add(("slaProperties", index, "unit"), f"{name} needs a unit", "write unit: s, min, h, d or y")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value * factor <= 2**53:
        faults.add(("slaProperties", index, "value"), f"{name} is a number above 0", "such as value: 10")
    else:
        return round(value * factor)
    return None
