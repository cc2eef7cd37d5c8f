"""The auditor's own way to read a subject: every version of it, also those that no table could ever follow."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from confluent_kafka.schema_registry.error import SchemaRegistryError

from headrace.governance.observing import Subject, Version
from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import SchemaError
from headrace.schemas.lineage import fold
from headrace.schemas.mask_lineage import tagged_columns
from headrace.schemas.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.schemas.product import Product

# What a version's number stands for changes only when its subject is deleted and made anew.
_TRUSTED_S = 30.0


@dataclass(frozen=True, slots=True)
class Registration:
    """What the registry says of a product.

    Attributes:
        subject: its subject; None: it has no version.
        contract_id: the schema id of the contract's schema; None: it is no version of the subject.
    """

    subject: Subject | None
    contract_id: int | None


@dataclass(frozen=True, slots=True)
class _Read:
    """The versions of a subject, and what they were read for: reused while that is the same."""

    key: tuple[object, ...]
    until_s: float
    versions: tuple[Version, ...]
    contract_id: int | None


class Registrations(Registry):
    """Reads subjects again and again, at three requests each as long as nothing changes."""

    def __init__(self, config: dict[str, str]) -> None:
        super().__init__(config)
        self._reads: dict[str, _Read] = {}

    def look(self, product: Product) -> Registration:
        """Read a product's subject.

        Raises:
            Unavailable: if the registry does not answer.
        """
        subject = product.subject
        numbers, live = self._numbers(subject, deleted=True), self._numbers(subject, deleted=False)
        if not numbers:
            return Registration(None, None)
        key = (numbers, live, product.schema.text)
        read = self._reads.get(subject)
        if read is None or read.key != key or read.until_s < time.monotonic():
            found = self.lookup(subject, product.schema)
            looks = [self._look_at(subject, number, deleted=number not in live) for number in numbers]
            versions = tuple(_by_column(look for look in looks if look is not None))
            read = _Read(key, time.monotonic() + _TRUSTED_S, versions, found.id if found else None)
            self._reads[subject] = read
        if not read.versions:
            return Registration(None, None)
        return Registration(Subject(self.compatibility(subject), read.versions), read.contract_id)

    def _numbers(self, subject: str, *, deleted: bool) -> tuple[int, ...]:
        try:
            return tuple(sorted(self._ask(lambda: self._client.get_versions(subject, deleted=deleted))))
        except SchemaRegistryError:
            # The registry's own verdict: it knows no such subject.
            return ()

    def _look_at(self, subject: str, number: int, *, deleted: bool) -> tuple[Version, AvroSchema | None] | None:
        try:
            found = self._ask(lambda: self._client.get_version(subject, number, deleted=True))
        except SchemaRegistryError:
            # Deleted meanwhile; or softly, and Apicurio shows none of a subject that has no other version left.
            before = self._reads[subject].versions if subject in self._reads else ()
            return next(((replace(each, deleted=True), None) for each in before if each.version == number), None)
        schema = None
        if found.schema.schema_type in (None, "AVRO"):
            # A version that is no record, recursive or another language's: it has an id, and no field of ours.
            with suppress(SchemaError):
                schema = AvroSchema.parse(str(found.schema.schema_str))
        return Version(number, found.schema_id, deleted, ()), schema


def _by_column(looks: Iterable[tuple[Version, AvroSchema | None]]) -> Iterator[Version]:
    """Yield versions, in order, with the columns that are tagged by then."""
    known = list(looks)
    schemas = {version.version: schema for version, schema in known if schema is not None}
    tagged = tagged_columns(schemas, fold([(number, each.record) for number, each in schemas.items()], frozenset()))
    pii: tuple[str, ...] = ()
    for version, _ in known:
        # Of a version that cannot be read nothing becomes a column: those of the one before it stay.
        pii = version.pii or tuple(sorted(tagged.get(version.version, pii)))
        yield replace(version, pii=pii)
