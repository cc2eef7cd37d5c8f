"""The Avro layer against what decides: events decoded, and the Avro project's own checker."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import avro.compatibility
import avro.schema
import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.schemas.compatibility import check
from headrace.schemas.product import Compatibility
from tests.support.evolving import encoded, pair, samples

if TYPE_CHECKING:
    from random import Random

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.compatibility import Finding


def broken(old: AvroSchema, new: AvroSchema, mode: Compatibility) -> tuple[Finding, ...]:
    return tuple(finding for finding in check([old], new, mode).findings if finding.layer == "avro")


def decoded(writer: AvroSchema, reader: AvroSchema) -> list[str]:
    """What fastavro says against events of the writer's, read with the reader's schema."""
    said = []
    for event in samples(writer):
        try:
            fastavro.schemaless_reader(io.BytesIO(encoded(writer, event)), writer.document, reader.document)
        except Exception as error:  # noqa: BLE001 - whatever it raises, it could not read the event
            said.append(f"{type(error).__name__}: {error}"[:200])
    return said


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_called_compatible_is_read_and_what_is_not_fails(rng: Random) -> None:
    old, new = pair(rng)
    for mode, writer, reader in ((Compatibility.BACKWARD, old, new), (Compatibility.FORWARD, new, old)):
        found = broken(old, new, mode)
        failed = decoded(writer, reader)
        if found:
            assert failed, (found, old.text, new.text)
        else:
            assert not failed, (failed, old.text, new.text)


def avros_verdict(writer: AvroSchema, reader: AvroSchema) -> bool:
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # its constructor has no annotations
    result = checker.get_compatibility(avro.schema.parse(reader.text), avro.schema.parse(writer.text))
    return result.compatibility is avro.compatibility.SchemaCompatibilityType.compatible


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_avros_own_checker_agrees(rng: Random) -> None:
    old, new = pair(rng)
    for mode, writer, reader in ((Compatibility.BACKWARD, old, new), (Compatibility.FORWARD, new, old)):
        found = broken(old, new, mode)
        assert (not found) == avros_verdict(writer, reader), (found, old.text, new.text)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_modes_agree_with_one_another(rng: Random) -> None:
    """Both sides of FULL are those of the plain modes, and no mode changes what the other layers find."""
    old, new = pair(rng)
    found = {mode: check([old], new, mode) for mode in Compatibility}
    full = set(broken(old, new, Compatibility.FULL))
    assert full == {*broken(old, new, Compatibility.BACKWARD), *broken(old, new, Compatibility.FORWARD)}
    assert found[Compatibility.NONE].compatible
    others = {tuple(each for each in report.findings if each.layer != "avro") for report in found.values()}
    assert len(others) == 1
    assert len({report.changes for report in found.values()}) == 1
    assert all(each.layer == "table" for each in check([new], new, Compatibility.FULL).findings)
    assert check([new], new, Compatibility.FULL).changes == ()
