"""PII tags between two versions: taking one away unmasks a value, and no registry notices. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.avro import PII_TAG, Array, AvroType, Field, Map, Record, Union
from headrace.schemas.compatibility.findings import ABSENT, Breaks, Finding, Layer
from headrace.schemas.compatibility.pairs import fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.schemas.compatibility.graph import Graph
    from headrace.schemas.compatibility.pairs import FieldPair

__all__ = ["lies_in", "tag_findings"]


def tag_findings(old: Graph, new: Graph) -> Iterator[Finding]:
    """Yield fields that are no PII any more, or of another category.

    A field that is gone, or that lies in a record that is tagged now, or all of whose parts are, needs no tag.
    """
    pairs = fields_of(old, new)
    tagged = [pair.path for pair in pairs if PII_TAG in pair.new.tags]
    for pair in pairs:
        if PII_TAG not in pair.old.tags or lies_in(pair.path, tagged):
            continue
        was, now = _category(pair.old), _category(pair.new)
        if PII_TAG in pair.new.tags:
            if was != now:
                hint = f'keep the category "{was}": its mask is chosen by it' if was else "leave the category out"
                yield _finding("PII_CATEGORY_CHANGED", pair, (was or PII_TAG, now or PII_TAG), hint)
        elif not _all_tagged(pair.new.type):
            tags = f'"{PII_TAG}", "{was}"' if was else f'"{PII_TAG}"'
            hint = f'keep "confluent:tags": [{tags}]; a field that holds no PII any more is a new field'
            yield _finding("PII_TAG_REMOVED", pair, (was or PII_TAG, ABSENT), hint)


def lies_in(path: str, paths: Iterable[str]) -> bool:
    """Tell whether a path is below one of others."""
    return any(path.startswith((f"{other}.", f"{other}[]", f"{other}{{}}")) for other in paths)


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
