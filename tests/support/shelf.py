"""A schema registry in memory: the versions of one subject, as a sink asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.errors import Refusal
from headrace.schemas.registered import RegisteredSchema

if TYPE_CHECKING:
    from headrace.schemas.avro import AvroSchema


class Shelf:
    """A registry that counts what it is asked. Version 1 has the id 101, and so on."""

    def __init__(self, *versions: AvroSchema) -> None:
        self.held = dict(enumerate(versions, 1))
        self.asked = 0

    def add(self, schema: AvroSchema) -> int:
        """Register a version; return its id."""
        number = max(self.held, default=0) + 1
        self.held[number] = schema
        return 100 + number

    def all_versions(self, subject: str) -> tuple[RegisteredSchema, ...]:
        """Return the versions of any subject that is asked for."""
        self.asked += 1
        return tuple(RegisteredSchema(100 + n, n, subject, schema) for n, schema in self.held.items())

    def schema(self, schema_id: int) -> AvroSchema:
        """Know no other ids."""
        raise Refusal("unknown-schema", f"unknown: {schema_id}")
