"""From frames to chunks: what is masked, what is refused, and when the registry is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest

from headrace.schemas.avro import AvroSchema
from headrace.schemas.errors import Unavailable
from headrace.schemas.masks import Mask
from headrace.schemas.policy import PiiPolicy
from headrace.schemas.verdicts import Verdicts
from headrace.sinks.decoding import REFUSED_S, Decoding
from headrace.sinks.evolution import follow
from headrace.streams.frames import Frame
from headrace.streams.masked import masks_of
from tests.support.lake import Lake
from tests.support.meshes import encoded
from tests.support.shelf import Shelf

if TYPE_CHECKING:
    from pathlib import Path

    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry

POLICY = PiiPolicy(default=Mask.HMAC_SHA_256)
MAIL = "ann@example.org"


def schema_of(*fields: dict[str, Any]) -> AvroSchema:
    return AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": list(fields)}))


ID = {"name": "id", "type": "string"}
PLAIN = schema_of(ID, {"name": "mail", "type": "string"})
TAGGED = schema_of(ID, {"name": "mail", "type": "string", "confluent:tags": ["PII"]})


class Clock:
    """Time that stands still until it is moved."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def decoding_of(lake: Lake, registry: Shelf, product: Product | None = None, clock: Clock | None = None) -> Decoding:
    shelf = cast("Registry", registry)
    return Decoding(product or lake.product, POLICY, lake.catalog, shelf, b"k" * 32, clock_s=clock or Clock())


def frame_of(schema: AvroSchema, schema_id: int, event: dict[str, Any], key: str) -> Frame:
    values = pa.array([encoded(schema, schema_id, event)], pa.binary())
    return Frame(0, schema_id, np.array([0]), np.array([0]), pa.array([key.encode()], pa.binary()), values)


def rows_of(lake: Lake, decoding: Decoding, frame: Frame) -> list[dict[str, Any]]:
    chunk = decoding.chunk(frame)
    table = lake.reload()
    found: list[dict[str, Any]] = decoding.shape(table).rows(table, [chunk], 1).to_pylist()
    return found


@pytest.mark.parametrize("tag_record", [True, False])
def test_a_key_inside_a_masked_record_is_not_written(tmp_path: Path, tag_record: bool) -> None:
    tags = {"confluent:tags": ["PII"]}
    email = {"name": "email", "type": "string", **({} if tag_record else tags)}
    contact = {"name": "contact", "type": {"type": "record", "name": "Contact", "fields": [email]}}
    schema = schema_of(ID, {**contact, **(tags if tag_record else {})})
    lake = Lake(tmp_path, schema)
    product = replace(lake.product, contract=replace(lake.product.contract, key=("id", "contact.email")))
    event = {"id": "o1", "contact": {"email": MAIL}}
    (row,) = rows_of(lake, decoding_of(lake, Shelf(schema), product), frame_of(schema, 101, event, MAIL))
    assert row["_kafka_key"] is None
    assert MAIL not in str(row)


def test_a_key_stays_masked_when_the_contract_chooses_another(tmp_path: Path) -> None:
    """The topic still holds messages with the old key."""
    schema = schema_of(ID, {"name": "email", "type": "string", "confluent:tags": ["PII"]})
    lake, event = Lake(tmp_path, schema), {"id": "o1", "email": MAIL}
    for key in ("email", "id"):
        product = replace(lake.product, contract=replace(lake.product.contract, key=(key,)))
        (row,) = rows_of(lake, decoding_of(lake, Shelf(schema), product), frame_of(schema, 101, event, MAIL))
        assert row["_kafka_key"] is None


def test_a_field_stays_masked_when_the_registry_has_lost_the_version_that_tagged_it(tmp_path: Path) -> None:
    lake = Lake(tmp_path, PLAIN)
    registry = Shelf(TAGGED, PLAIN)
    (before,) = rows_of(lake, decoding_of(lake, registry), frame_of(PLAIN, 102, {"id": "o1", "mail": MAIL}, "o1"))
    del registry.held[1]
    # The sink was started again: all that is left is the table.
    (after,) = rows_of(lake, decoding_of(lake, registry), frame_of(PLAIN, 102, {"id": "o1", "mail": MAIL}, "o1"))
    assert before["mail"] == after["mail"] != MAIL
    assert masks_of(lake.reload()) == {"mail": Mask.HMAC_SHA_256}


def test_a_mask_that_another_worker_put_on_the_table_holds_here_at_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path, PLAIN)
    registry = Shelf(PLAIN)
    decoding = decoding_of(lake, registry)
    chunk = decoding.chunk(frame_of(PLAIN, 101, {"id": "o1", "mail": MAIL}, "o1"))
    other = replace(lake.product, masks={"mail": Mask.SHOW_FIRST_4})
    follow(lake.catalog, other, Verdicts.of(other, POLICY, registry.all_versions(lake.product.subject)))
    table = lake.reload()
    (row,) = decoding.shape(table).rows(table, [chunk], 1).to_pylist()
    assert row["mail"] == "ann@" + "x" * (len(MAIL) - 4)


def test_a_registry_without_the_subject_is_waited_for(tmp_path: Path) -> None:
    lake = Lake(tmp_path, PLAIN)
    registry = Shelf()
    decoding = decoding_of(lake, registry)
    frame = frame_of(PLAIN, 101, {"id": "o1", "mail": MAIL}, "o1")
    with pytest.raises(Unavailable, match="no version of this subject"):
        decoding.chunk(frame)
    registry.held[1] = PLAIN
    assert len(decoding.chunk(frame)) == 1


def test_the_registry_is_not_asked_for_each_frame_of_an_id_that_it_refuses(tmp_path: Path) -> None:
    lake = Lake(tmp_path, PLAIN)
    registry, clock = Shelf(PLAIN), Clock()
    decoding = decoding_of(lake, registry, clock=clock)
    frame = frame_of(PLAIN, 102, {"id": "o1", "mail": MAIL}, "o1")
    for _ in range(1_000):
        assert [letter.reason for letter in decoding.chunk(frame).letters] == ["unknown-schema"]
    assert registry.asked == 1
    registry.held[2] = TAGGED
    clock.now_s += REFUSED_S
    assert decoding.chunk(frame).letters == ()
