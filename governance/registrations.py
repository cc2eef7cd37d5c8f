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
from headrace.schemas.registry import Registry

if TYPE_CHECKING:
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
            looks = (self._look_at(subject, number, deleted=number not in live) for number in numbers)
            versions = tuple(version for version in looks if version is not None)
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

    def _look_at(self, subject: str, number: int, *, deleted: bool) -> Version | None:
        try:
            found = self._ask(lambda: self._client.get_version(subject, number, deleted=True))
        except SchemaRegistryError:
            # Deleted meanwhile; or softly, and Apicurio shows none of a subject that has no other version left.
            before = self._reads[subject].versions if subject in self._reads else ()
            return next((replace(version, deleted=True) for version in before if version.version == number), None)
        pii: tuple[str, ...] = ()
        if found.schema.schema_type in (None, "AVRO"):
            # A version that is no record, recursive or another language's: it has an id, and no field of ours.
            with suppress(SchemaError):
                pii = tuple(sorted(AvroSchema.parse(str(found.schema.schema_str)).pii))
        return Version(number, found.schema_id, deleted, pii)
