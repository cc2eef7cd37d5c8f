"""Frames to chunks: a decoder for each schema id, and a table that has followed its version before a row needs it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from headrace.schemas.changes import column_paths
from headrace.schemas.errors import Refusal, Unavailable
from headrace.schemas.masking import Masker
from headrace.schemas.product import RefusedVersions
from headrace.schemas.verdicts import TablePast, Verdicts
from headrace.sinks.batch import Chunk, Letter
from headrace.sinks.evolution import REFUSED_VERSION, follow, followed_version, foreign, refused_version, versions_of
from headrace.sinks.files import Shape, unfit
from headrace.streams.decode import Decoder
from headrace.streams.masked import is_key_masked, masks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.errors import HeadraceError
    from headrace.schemas.masks import Mask
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
    from headrace.schemas.registry import Registry
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
        # By number. What the registry loses while the sink runs is not forgotten: its events may still be on their way.
        self._known: dict[int, RegisteredSchema | UnreadableSchema] = {}
        self._verdicts = Verdicts.of(product, policy, ())
        self._noted: Mapping[str, Mask] = {}
        self._newest = 0
        self._shapes: dict[tuple[int, int], Shape] = {}

    def chunk(self, frame: Frame) -> Chunk:
        """Decode a frame. What cannot be decoded becomes letters; nothing of a message's content is ever raised.

        Raises:
            Unavailable: registry, catalog or storage does not answer; the frame can be decoded again.
            ProductStopped: no table can follow the version that the events were written with, and the contract lets
                them wait; or the table has no room for a version, because somebody else has changed it.
        """
        if frame.schema_id is None:
            return _refused(frame, None)
        decoder = self._decoder(frame.schema_id)
        if isinstance(decoder, Refusal):
            return _refused(frame, decoder)
        return chunk_of(frame, decoder)

    def shape(self, table: Table) -> Shape:
        """Return how events become rows, with the versions that the table has followed so far.

        A version that tags a field masks it in events of all versions, so a version counts from the moment that
        anybody made the table follow it, not from its first event here. What the table has masked once stays masked.

        Raises:
            Unavailable: registry, catalog or storage does not answer.
            ProductStopped: the table has no room for a version, because somebody else has changed it.
        """
        followed = followed_version(table)
        if followed != self._newest or not masks_of(table).keys() <= self._noted.keys():
            self._follow()
        key = followed, table.metadata.current_schema_id
        if key not in self._shapes:
            self._shapes[key] = self._shaped(table, followed)
        shape = self._shapes[key]
        if any(isinstance(error, Unavailable) for error in shape.astray.values()):
            # The next landing asks the registry again.
            self._newest = -1
        return shape

    def _decoder(self, schema_id: int) -> Decoder | Refusal:
        known = self._decoders.get(schema_id) or self._refusal(schema_id)
        if known is not None:
            return known
        self._follow()
        version, refused = self._verdicts.by_id.get(schema_id), self._verdicts.refusal(schema_id)
        if version is not None:
            decoder = self._decoders[schema_id] = Decoder(version.schema, schema_id)
            return decoder
        if refused is None:
            refusal = foreign(self._registry, self._product, schema_id)
        elif self._product.contract.refused_versions is RefusedVersions.DEAD_LETTER:
            refusal = Refusal(REFUSED_VERSION, str(refused))
        else:
            raise refused_version(self._product, refused)
        self._refusals[schema_id] = refusal
        return refusal

    def _refusal(self, schema_id: int) -> Refusal | None:
        now_s = self._clock_s()
        if now_s >= self._refused_until_s:
            self._refusals.clear()
            self._refused_until_s = now_s + REFUSED_S
        return self._refusals.get(schema_id)

    def _follow(self) -> None:
        known, versions = self._known, versions_of(self._registry, self._product)
        found = {version.version: version for version in versions}
        made_anew = any(number in known and known[number].id != each.id for number, each in found.items())
        if made_anew or found.keys() - known.keys():
            self._known = found if made_anew else known | found
            if made_anew:
                self._decoders.clear()
            self._verdicts = Verdicts.of(self._product, self._policy, self._known.values())
        table = follow(self._catalog, self._product, self._verdicts)
        self._noted = masks_of(table)
        # The registry may have lost versions that the table has followed: they are not asked for again and again.
        self._newest = followed_version(table)
        self._shapes.clear()

    def _shaped(self, table: Table, followed: int) -> Shape:
        """Return how events become rows of a table that has followed versions up to this one."""
        held, lineage = self._verdicts.held(followed), self._verdicts.lineage
        # A field is masked if the contract or *any* version of the subject tags it, or ever did.
        masks = self._verdicts.masks_with(self._noted, followed)
        columns = column_paths(lineage.steps[held.version].columns) if held else {}
        names = {
            schema_id: lineage.column_names(held.version, version.version)
            for schema_id, version in self._verdicts.by_id.items()
            if held is not None
        }
        return Shape(
            self._product,
            held.schema.record if held else self._product.schema.record,
            Masker(masks.at(columns) if held else self._product.masks, self._hmac_key),
            key_masked=is_key_masked(table) or masks.mask_key(self._product.contract.key, lineage),
            names=names,
            astray=dict(self._astray(table, held, followed)) if held else {},
        )

    def _astray(self, table: Table, held: RegisteredSchema, followed: int) -> Iterator[tuple[int, HeadraceError]]:
        """Yield, by schema id, why it is not known in which columns events of a version belong."""
        steps = self._verdicts.lineage.steps
        columns = column_paths(steps[held.version].columns)
        astray = TablePast.of(table.metadata).astray(self._verdicts.former_paths(held))
        for schema_id, version in self._verdicts.by_id.items():
            own = set(steps[version.version].placed.values())
            lost = next((path for path in sorted(astray) if columns[path] in own), None)
            if lost is not None and followed > max(self._known, default=0):
                unknown = Unavailable(
                    f"the table has followed version {followed}, which the registry does not know, and renamed {lost}",
                    where=f"subject {self._product.subject}",
                    hint="it is asked again; if it has lost that version, restore it",
                )
                yield schema_id, unknown
            elif lost is not None:
                yield schema_id, unfit(self._product, schema_id, f"have {lost}, which the table calls otherwise now")


def chunk_of(frame: Frame, decoder: Decoder) -> Chunk:
    """Return a frame, decoded with the decoder of its schema id."""
    if frame.schema_id is None:
        return _refused(frame, None)
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
            timestamp_ms=int(frame.timestamps_ms[row]),
            headers=frame.headers_of(row),
        )
