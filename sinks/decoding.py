"""Frames to chunks: a decoder for each schema id, and a table that has followed its version before a row needs it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headrace.schemas.errors import ProductStopped, Refusal, SchemaError
from headrace.schemas.masking import Masker
from headrace.schemas.policy import is_masked, masks_over
from headrace.schemas.types import unsupported
from headrace.sinks.batch import Chunk, Letter
from headrace.sinks.evolution import follow, followed_version, version_of, versions_of
from headrace.sinks.files import Shape
from headrace.streams.decode import Decoder
from headrace.streams.masked import masks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.masks import Mask
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema, Registry
    from headrace.streams.frames import Frame

# Reasons of dead letters, beside those of a `Refusal`.
NULL_VALUE = "null-value"
NO_SCHEMA_ID = "no-schema-id"
UNDECODABLE = "undecodable"
# So long a schema id stays refused: a schema may be registered after its first event, but to ask the registry for each
# frame of a foreign id would cost all others their rate.
REFUSED_S = 5.0


class Decoding:
    """Decodes a product's frames. Not to be shared between threads.

    Args:
        product: the product.
        policy: the mesh's masks by category, for fields that another version than the contract's tags.
        catalog: its domain's catalog.
        registry: the schema registry.
        hmac_key: the mesh's secret.
        clock_s: tells seconds that never go back.
    """

    def __init__(
        self,
        product: Product,
        policy: PiiPolicy,
        catalog: Catalog,
        registry: Registry,
        hmac_key: bytes,
        *,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._product = product
        self._policy = policy
        self._catalog = catalog
        self._registry = registry
        self._hmac_key = hmac_key
        self._clock_s = clock_s
        self._decoders: dict[int, Decoder] = {}
        self._refusals: dict[int, Refusal] = {}
        self._refused_until_s = 0.0
        self._shape = self._shaped((), product.masks)
        self._newest = 0

    def chunk(self, frame: Frame) -> Chunk:
        """Decode a frame. What cannot be decoded becomes letters; nothing of a message's content is ever raised.

        Raises:
            Unavailable: registry, catalog or storage does not answer; the frame can be decoded again.
            ProductStopped: the table cannot follow the version that the events were written with.
        """
        if frame.schema_id is None:
            return _refused(frame, None)
        decoder = self._decoder(frame.schema_id)
        if isinstance(decoder, Refusal):
            return _refused(frame, decoder)
        decoded = decoder.decode(frame.values)
        kept = np.ones(len(frame), bool)
        kept[list(decoded.refused)] = False
        return Chunk(
            partition=frame.partition,
            schema_id=frame.schema_id,
            events=decoded.events,
            offsets=frame.offsets[kept],
            timestamps_ms=frame.timestamps_ms[kept],
            keys=frame.keys.filter(kept) if decoded.refused else frame.keys,
            letters=tuple(_letters(frame, decoded.refused, UNDECODABLE)),
        )

    def shape(self, table: Table) -> Shape:
        """Return how events become rows, with the versions that the table has followed so far.

        A version that tags a field masks it in events of all versions, so a version counts from the moment that
        anybody made the table follow it, not from its first event here. What the table has masked once stays masked.

        Raises:
            Unavailable: registry, catalog or storage does not answer.
            ProductStopped: the table cannot follow a version.
        """
        if followed_version(table) > self._newest or not masks_of(table).keys() <= self._shape.product.masks.keys():
            self._follow(self._versions())
        return self._shape

    def _decoder(self, schema_id: int) -> Decoder | Refusal:
        known = self._decoders.get(schema_id) or self._refusal(schema_id)
        if known is not None:
            return known
        try:
            version = version_of(self._registry, self._product, schema_id)
        except Refusal as refusal:
            self._refusals[schema_id] = refusal
            return refusal
        except SchemaError as error:
            raise _not_carried(self._product, error) from None
        faults = unsupported(version.schema)
        if faults:
            path, what, hint = faults[0]
            raise _not_carried(self._product, SchemaError(what, path=path, hint=hint))
        self._follow(self._versions())
        decoder = self._decoders[schema_id] = Decoder(version.schema, schema_id)
        return decoder

    def _refusal(self, schema_id: int) -> Refusal | None:
        now_s = self._clock_s()
        if now_s >= self._refused_until_s:
            self._refusals.clear()
            self._refused_until_s = now_s + REFUSED_S
        return self._refusals.get(schema_id)

    def _versions(self) -> Sequence[RegisteredSchema]:
        try:
            return versions_of(self._registry, self._product)
        except SchemaError as error:
            raise _not_carried(self._product, error) from None

    def _follow(self, versions: Sequence[RegisteredSchema]) -> None:
        # A field is masked if the contract or *any* version of the subject tags it, or ever did.
        masks = masks_over(self._product.masks, self._policy, [version.schema for version in versions])
        table = follow(self._catalog, replace(self._product, masks=masks), versions)
        self._shape = self._shaped(versions, {**masks_of(table), **masks})
        # The registry may have lost versions that the table has followed: they are not asked for again and again.
        self._newest = followed_version(table)

    def _shaped(self, versions: Sequence[RegisteredSchema], masks: Mapping[str, Mask]) -> Shape:
        reader = versions[-1].schema if versions else self._product.schema
        key_masked = any(is_masked(path, masks) for path in self._product.contract.key)
        return Shape(
            replace(self._product, masks=masks), reader.record, Masker(masks, self._hmac_key), key_masked=key_masked
        )


def _not_carried(product: Product, error: SchemaError) -> ProductStopped:
    return ProductStopped(
        f"a registered version cannot be carried into a table: {error.what}", where=product.subject, hint=error.hint
    )


def _refused(frame: Frame, refusal: Refusal | None) -> Chunk:
    return Chunk(
        partition=frame.partition,
        schema_id=-1,
        events=None,
        offsets=frame.offsets[:0],
        timestamps_ms=frame.timestamps_ms[:0],
        keys=frame.keys[:0],
        letters=tuple(_letters(frame, range(len(frame)), refusal.reason if refusal else None)),
    )


def _letters(frame: Frame, rows: Iterable[int], reason: str | None) -> Iterator[Letter]:
    for row in rows:
        value = frame.values[row].as_py()
        yield Letter(
            partition=frame.partition,
            offset=int(frame.offsets[row]),
            schema_id=frame.schema_id,
            reason=reason or (NULL_VALUE if value is None else NO_SCHEMA_ID),
            key=frame.keys[row].as_py(),
            value=value,
        )
