"""A version of a subject, as a schema registry holds it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.schemas.avro import AvroSchema


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """One version of a subject.

    Attributes:
        id: the registry's id, which stands in every message.
        version: the version within the subject, rising, with gaps where versions were deleted.
        subject: the subject.
        schema: the schema.
    """

    id: int
    version: int
    subject: str
    schema: AvroSchema


@dataclass(frozen=True, slots=True)
class UnreadableSchema:
    """One version of a subject that is no Avro, or Avro that headrace cannot carry.

    Attributes:
        id: the registry's id.
        version: the version within the subject.
        subject: the subject.
        what: what is wrong with it.
        hint: what to write instead; "" if there is nothing to say.
    """

    id: int
    version: int
    subject: str
    what: str
    hint: str
