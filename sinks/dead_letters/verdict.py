"""What decoding says of a dead letter now: a reason and a field, never a value. Nothing is changed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from headrace.schemas.verdicts import Verdicts
from headrace.sinks.decoding import NO_SCHEMA_ID, NULL_VALUE, UNDECODABLE
from headrace.sinks.evolution import REFUSED_VERSION, foreign, versions_of
from headrace.streams.decode import Decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry
    from headrace.sinks.batch import Letter

__all__ = ["LetterVerdict", "next_step", "verdict_now"]


@dataclass(frozen=True, slots=True)
class LetterVerdict:
    """What decoding says of a letter.

    Attributes:
        reason: why it still cannot become a row, a stable code; None: it can.
        what: the same for people.
        path: the path of the field at which it fails, where it is known; empty: behind the last field; None: not known.
    """

    reason: str | None
    what: str
    path: str | None = None


def verdict_now(product: Product, policy: PiiPolicy, registry: Registry, letter: Letter) -> LetterVerdict:
    """Return what decoding says of a letter now.

    Raises:
        Unavailable: if the registry does not answer, or has lost the subject.
    """
    if letter.value is None:
        return LetterVerdict(NULL_VALUE, "it is a tombstone, and no event")
    if letter.schema_id is None:
        return LetterVerdict(NO_SCHEMA_ID, "its value does not begin with a schema id")
    verdicts = Verdicts.of(product, policy, versions_of(registry, product))
    version = verdicts.by_id.get(letter.schema_id)
    if version is not None:
        return _decoded(Decoder(version.schema, letter.schema_id), version.version, letter.value)
    refused = verdicts.refusal(letter.schema_id)
    if refused is not None:
        return LetterVerdict(REFUSED_VERSION, f"the table cannot follow version {refused.version}: {refused.fault}")
    refusal = foreign(registry, product, letter.schema_id)
    return LetterVerdict(refusal.reason, refusal.what)


def _decoded(decoder: Decoder, version: int, value: bytes) -> LetterVerdict:
    if not decoder.decode(pa.array([value], pa.binary())).refused:
        return LetterVerdict(None, f"it can be read as version {version}")
    path = decoder.misfit(value)
    where = {None: "", "": ": bytes are left behind its last field"}.get(path, f": at field {path}")
    return LetterVerdict(UNDECODABLE, f"its bytes do not fit version {version}{where}", path)


_NEXT: Mapping[str, str] = {
    NULL_VALUE: "it stays a letter: a tombstone is no event",
    NO_SCHEMA_ID: "mend its producer, which does not write the wire format, and publish the event anew",
    UNDECODABLE: "mend its producer and publish the event anew",
    "unknown-schema": "register its schema under its id as a version of {subject}, then redrive",
    "foreign-schema": "its producer uses a schema of others: mend it and publish the event anew, or make that schema a "
    "version of {subject}, then redrive",
    REFUSED_VERSION: "no table can follow its version: publish the event anew with another",
}


def next_step(product: Product, reason: str) -> str:
    """Return what to do about letters that are still refused for a reason."""
    return _NEXT.get(reason, "headrace dlq show tells more").format(subject=product.subject)
