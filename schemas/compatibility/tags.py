"""PII tags between two versions: taking one away unmasks a value, and no registry notices. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headrace.schemas.avro import PII_TAG, Array, AvroType, Field, Map, Record, Union, optional_of
from headrace.schemas.avro_resolver import TAGS
from headrace.schemas.compatibility.findings import ABSENT, Breaks, Finding, Layer
from headrace.schemas.compatibility.graph import kind_of
from headrace.schemas.compatibility.pairs import fields_of
from headrace.schemas.paths import around, lies_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.schemas.compatibility.graph import Graph
    from headrace.schemas.compatibility.pairs import FieldPair

__all__ = ["tag_findings"]


def tag_findings(old: Graph, new: Graph) -> Iterator[Finding]:
    """Yield fields that are no PII any more, or of another category.

    A field that is gone, or that lies in a record that is tagged now, or all of whose parts are, needs no tag. But a
    new field of the name and kind of one that is gone is taken for that one, which has moved.
    """
    pairs = fields_of(old, new)
    yield from _moved(old, new, pairs)
    tagged = {pair.path for pair in pairs if PII_TAG in pair.new.tags}
    for pair in pairs:
        if PII_TAG not in pair.old.tags or lies_in(pair.path, tagged):
            continue
        was, now = _category(pair.old), _category(pair.new)
        if PII_TAG in pair.new.tags:
            if was != now:
                hint = f'keep the category "{was}": its mask is chosen by it' if was else "leave the category out"
                yield _finding("PII_CATEGORY_CHANGED", pair, (was or PII_TAG, now or PII_TAG), hint)
        elif not _all_tagged(pair.new.type):
            hint = f"keep {_written(was)}; a field that holds no PII any more is a new field"
            yield _finding("PII_TAG_REMOVED", pair, (was or PII_TAG, ABSENT), hint)


def _moved(old: Graph, new: Graph, pairs: Sequence[FieldPair]) -> Iterator[Finding]:
    """Yield new fields without a tag that stand for PII which is gone from its place."""
    kept, known = {pair.old_path for pair in pairs}, {pair.path for pair in pairs}
    before = [(pair.path, pair.old) for pair in fields_of(old, old)]
    tagged = {path: _category(field) for path, field in before if PII_TAG in field.tags}
    gone: dict[tuple[str, str], tuple[str, str | None]] = {}
    for path, field in before:
        over = next((each for each in (path, *around(path)) if each in tagged), None)
        if over is not None and path not in kept:
            gone[_likeness(field)] = path, tagged[over]
    if not gone:
        return
    after = [(pair.path, pair.new) for pair in fields_of(new, new)]
    safe = {path for path, field in after if PII_TAG in field.tags or _all_tagged(field.type)}
    for path, field in after:
        if path not in known and path not in safe and not lies_in(path, safe) and _likeness(field) in gone:
            place, was = gone[_likeness(field)]
            hint = f"write {_written(was)}; if it is not what {place} was, add it in a change of its own"
            yield Finding(Layer.GOVERNANCE, "PII_TAG_REMOVED", path, was or PII_TAG, ABSENT, Breaks.MASK, hint)


def _written(category: str | None) -> str:
    tags = [PII_TAG, category] if category else [PII_TAG]
    return f'"{TAGS}": {json.dumps(tags, ensure_ascii=False)}'


def _likeness(field: Field) -> tuple[str, str]:
    return field.name, kind_of(optional_of(field.type)[0])


def _category(field: Field) -> str | None:
    return next((tag for tag in field.tags if tag != PII_TAG), None)


def _all_tagged(avro_type: AvroType) -> bool:
    match avro_type:
        case Record(fields=fields):
            return bool(fields) and all(PII_TAG in field.tags or _all_tagged(field.type) for field in fields)
        case Array(items=items):
            return _all_tagged(items)
        case Map(values=values):
            return _all_tagged(values)
        case Union():
            return bool(avro_type.others) and all(_all_tagged(branch) for branch in avro_type.others)
        case _:
            return False


def _finding(rule: str, pair: FieldPair, sides: tuple[str, str], hint: str) -> Finding:
    return Finding(Layer.GOVERNANCE, rule, pair.path, *sides, Breaks.MASK, hint)
