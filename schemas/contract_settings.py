"""What a contract sets of its topic, its subject, its sink and its table: the document's own custom properties."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from headrace.schemas.product import Compatibility, RefusedVersions
from headrace.schemas.upkeep import Upkeep
from headrace.schemas.upkeep_settings import UPKEEP_SETTINGS, upkeep_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.documents import DocumentFaults, Key

# What custom properties say, by name: the value and its place.
Custom: TypeAlias = "Mapping[str, tuple[Any, tuple[Key, ...]]]"

DEFAULT_PARTITIONS = 4
# A broker handles some thousands of partitions in all; a product that wants more than this has mistaken a key for one.
MAX_PARTITIONS = 1000
# Kafka counts replicas in 16 bits.
MAX_REPLICAS = 32_767
CLEANUP_POLICIES = ("delete", "compact", "compact,delete")

PARTITIONS = "kafka.partitions"
CLEANUP = "kafka.cleanup.policy"
MIN_INSYNC = "kafka.min.insync.replicas"
COMPATIBILITY = "avro.compatibility"
TABLE_PROPERTIES = "iceberg.tableProperties"
REFUSED_VERSIONS = "sink.refusedVersions"
SETTINGS = (PARTITIONS, CLEANUP, MIN_INSYNC, COMPATIBILITY, TABLE_PROPERTIES, REFUSED_VERSIONS, *UPKEEP_SETTINGS)

_PROPERTY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# The longest sensible value is a list of columns.
_MAX_VALUE_LENGTH = 1000
# Properties that have one value here; another one would have engines write what headrace does not.
_FIXED = {
    "format-version": ("2", "headrace writes tables of Iceberg's format 2, which all engines read"),
    "write.format.default": ("parquet", "headrace writes Parquet"),
    "write.parquet.compression-codec": ("zstd", "headrace compresses so"),
}
# Prefixes of names with the reason why a contract does not set them. Names that end the same are covered too.
_RESERVED = {
    "headrace.": "headrace keeps the product's position and masks there",
    "commit.": "headrace's commits, and their cost, rest on these; other engines would obey a retry property too",
    "write.metadata.": "headrace keeps metadata files few and statistics whole: history and commits rest on them",
    "write.manifest": "headrace's own commits, and their cost, rest on these",
    "write.summary.": "a snapshot's summary holds the product's position, whose size is limited",
    "write.data.path": "the domain's storage is where its tables lie",
    "write.object-storage.path": "the domain's storage is where its tables lie",
    "write.folder-storage.path": "the domain's storage is where its tables lie",
    "write.location-provider": "it names code that engines would run",
    "write.py-location-provider": "it names code that engines would run",
    "encryption.": "headrace writes no encrypted files",
    "schema.name-mapping": "columns are found by field id in every file",
    "comment": "it is the contract's description.purpose",
    # Iceberg's own list of reserved properties (TableProperties.RESERVED_PROPERTIES).
    "uuid": "Iceberg reserves it",
    "snapshot-count": "Iceberg reserves it",
    "current-snapshot": "Iceberg reserves it",
    "current-schema": "Iceberg reserves it",
    "default-partition-spec": "Iceberg reserves it",
    "default-sort-order": "Iceberg reserves it",
}
_FLAGS = ("write.object-storage.enabled", "write.object-storage.partitioned-paths")


@dataclass(frozen=True, slots=True)
class Settings:
    """A contract's settings; see :class:`headrace.schemas.product.Contract` for what they mean."""

    partitions: int = DEFAULT_PARTITIONS
    compatibility: Compatibility = Compatibility.BACKWARD
    cleanup_policy: str = "delete"
    min_insync_replicas: int | None = None
    table_properties: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    refused_versions: RefusedVersions = RefusedVersions.WAIT
    upkeep: Upkeep = field(default_factory=Upkeep)


def settings_of(custom: Custom, retention_ms: int | None, faults: DocumentFaults) -> Settings:
    """Return a contract's settings; each wrong one is a fault, and its default is returned in its place.

    Args:
        custom: the contract's custom properties.
        retention_ms: how long the contract wants events to be kept; None: it does not say.
        faults: what is wrong.
    """
    settings = Settings(
        partitions=_whole(custom, PARTITIONS, MAX_PARTITIONS, faults) or DEFAULT_PARTITIONS,
        compatibility=_compatibility(custom, faults),
        cleanup_policy=_cleanup(custom, faults),
        min_insync_replicas=_whole(custom, MIN_INSYNC, MAX_REPLICAS, faults),
        table_properties=MappingProxyType(_table_properties(custom, faults)),
        refused_versions=_refused_versions(custom, faults),
        upkeep=upkeep_of(custom, faults),
    )
    if settings.cleanup_policy == "compact" and retention_ms is not None:
        faults.add(
            custom[CLEANUP][1],
            "a topic that is only compacted keeps each key's last event for ever, whatever retention says",
            "choose compact,delete, or take retention out of slaProperties",
        )
    return settings


def _whole(custom: Custom, name: str, most: int, faults: DocumentFaults) -> int | None:
    if name not in custom:
        return None
    value, place = custom[name]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
        return value
    faults.add(place, f"{name} is a whole number from 1 to {most}", f"such as value: {min(most, 4)}")
    return None


def _compatibility(custom: Custom, faults: DocumentFaults) -> Compatibility:
    value, place = custom.get(COMPATIBILITY, (Compatibility.BACKWARD, ()))
    try:
        return Compatibility(value)
    except ValueError:
        faults.add(place, "avro.compatibility is none of the registry's levels", f"choose {', '.join(Compatibility)}")
        return Compatibility.BACKWARD


def _cleanup(custom: Custom, faults: DocumentFaults) -> str:
    value, place = custom.get(CLEANUP, (CLEANUP_POLICIES[0], ()))
    if value in CLEANUP_POLICIES:
        return str(value)
    faults.add(place, f"{CLEANUP} is none of Kafka's policies", f"choose {' or '.join(CLEANUP_POLICIES)}")
    return CLEANUP_POLICIES[0]


def _refused_versions(custom: Custom, faults: DocumentFaults) -> RefusedVersions:
    value, place = custom.get(REFUSED_VERSIONS, (RefusedVersions.WAIT, ()))
    try:
        return RefusedVersions(value)
    except ValueError:
        faults.add(
            place,
            f"{REFUSED_VERSIONS} says what becomes of events that the table cannot follow",
            f"choose {' or '.join(RefusedVersions)}",
        )
        return RefusedVersions.WAIT


def _table_properties(custom: Custom, faults: DocumentFaults) -> dict[str, str]:
    if TABLE_PROPERTIES not in custom:
        return {}
    listed, place = custom[TABLE_PROPERTIES]
    if not isinstance(listed, dict):
        faults.add(place, f"{TABLE_PROPERTIES} maps names to values", "such as value: {write.distribution-mode: hash}")
        return {}
    found = {}
    for name, value in listed.items():
        text = _text(value)
        what, hint = _refusal(name, text)
        if what or text is None:
            faults.add((*place, name), what, hint)
        else:
            found[name] = text
    return found


def _text(value: Any) -> str | None:
    """Return a property's value as Iceberg keeps it; a number or a truth value needs no quotation marks."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and len(value) <= _MAX_VALUE_LENGTH else None


def _refusal(name: str, text: str | None) -> tuple[str, str]:
    """Return why a contract does not set a property so, and what to do instead; both "" if it may."""
    if not _PROPERTY_NAME.fullmatch(name):
        return "this is no name of a table property", "letters, digits, dots, hyphens and underscores"
    if name in _FIXED:
        only, reason = _FIXED[name]
        return ("", "") if text == only else (f"{name} is {only} here: {reason}", "take it out")
    reason = next((why for start, why in _RESERVED.items() if name.startswith(start)), "")
    if reason:
        return f"{name} is not a contract's to set: {reason}", "take it out"
    if text is None:
        return f"{name} takes a text, a whole number, true or false", f"of at most {_MAX_VALUE_LENGTH} characters"
    if name in _FLAGS and text not in {"true", "false"}:
        return f"{name} is true or false", "write one of them"
    near = difflib.get_close_matches(name, (*_FIXED, *_FLAGS), n=1, cutoff=0.9)
    return (f"{name} is misspelt", f"did you mean {near[0]}?") if near else ("", "")
