"""Bounds of texts, to the limits of characters: each can be written, and none hides a row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace.schemas.avro import AvroSchema
from headrace.sinks import files
from headrace.sinks.bounds import upper_bound
from tests.support.lake import Lake

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

LAST = "\U0010ffff"
# The characters on both sides of those that are none.
TEXTS = st.text(st.sampled_from(["a", "\ud7ff", "\ue000", LAST, "\x00"]) | st.characters(codec="utf-8"), max_size=8)


@given(TEXTS, st.integers(1, 6))
def test_an_upper_bound_is_a_text_and_not_below(text: str, length: int) -> None:
    bound = upper_bound(text, length)
    if bound is None:
        assert text[:length] == LAST * length
    else:
        assert len(bound) <= length
        assert bound.encode() >= text.encode()
        # No text that begins the same is above it.
        assert len(text) <= length or bound.encode() > (text[:length] + LAST * 9).encode()


def test_texts_at_the_limits_of_characters_are_written_and_found(tmp_path: Path) -> None:
    schema = {"type": "record", "name": "Event", "fields": [{"name": "text", "type": "string"}]}
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps(schema)))
    texts = ["a" * 15 + "\ud7ffz", "a" * 15 + LAST + "z", LAST * 17, "a" * 15 + "\ue000z", ""]
    for text in texts:
        lake.add(pa.array([{"text": text}], pa.struct([("text", pa.string())])))
    assert [row["text"] for row in lake.rows("text")] == texts
    for text in texts:
        assert lake.count(f"text = '{text}'") == 1
        assert lake.count(f"text >= '{text}'") == sum(other >= text for other in texts)
        assert len(lake.table.scan(f"text == '{text}'").to_arrow()) == 1


def test_a_long_text_in_a_later_row_group_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's writer says no bounds of a row group with a text of more than 4 kB."""
    monkeypatch.setattr(files, "ROW_GROUP_ROWS", 1)
    columns = [{"name": "text", "type": "string"}, {"name": "raw", "type": ["null", "bytes"]}]
    lake = Lake(tmp_path, AvroSchema.parse(json.dumps({"type": "record", "name": "Event", "fields": columns})))
    kind = pa.struct([("text", pa.string()), ("raw", pa.binary())])
    texts = ["m", "z" * 5_000, "n"]
    lake.add(pa.array([{"text": text, "raw": text.encode()} for text in texts], kind))
    lake.add(pa.array([{"text": text, "raw": None} for text in ["m", "n", "o"]], kind))
    assert lake.count("text > 'y'") == 1
    assert lake.count("raw > 'y'::BLOB") == 1
    assert len(lake.table.scan("text > 'y'").to_arrow()) == 1
    # Where all bounds are known, or there are only nulls, files are skipped by them as before.
    assert len(list(lake.table.scan("text > 'y'").plan_files())) == 1
