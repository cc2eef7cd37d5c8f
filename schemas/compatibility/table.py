"""What a version does to the table that followed the versions before it. Pure.

The same `headrace.schemas.lineage` that predicts here is what the sink follows later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.avro import Enum
from headrace.schemas.compatibility.findings import ABSENT, Breaks, Finding, Layer
from headrace.schemas.compatibility.graph import recursions, shown
from headrace.schemas.compatibility.pairs import FieldPair, leaves_of, pairs_of
from headrace.schemas.lineage import fold
from headrace.schemas.types import record_refusals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.schemas.compatibility.graph import Graph
    from headrace.schemas.evolution import Step

__all__ = ["next_step", "step_findings", "symbol_findings"]

_UNSUPPORTED = "UNSUPPORTED_TYPE"


def next_step(old: Sequence[Graph], new: Graph, nulled: frozenset[str]) -> Step | None:
    """Return what the table does that followed the old versions; None for a version whose types no table has.

    Old versions that no table can follow are passed over, as a sink passes them over.
    """
    if recursions(new) or any(each.rule == _UNSUPPORTED for each in record_refusals(new.record)):
        return None
    followed = [each.record for each in old if not recursions(each) and not record_refusals(each.record)]
    return fold(list(enumerate([*followed, new.record], start=1)), nulled).steps[len(followed) + 1]


def step_findings(made: Step | None, old: Sequence[Graph], new: Graph) -> Iterator[Finding]:
    """Yield what of a version no table can do, and what no table can hold at all."""
    inside = recursions(new)
    for path in inside:
        hint = "flatten it, or carry the inner part as a JSON string"
        yield _finding("RECURSIVE_TYPE", path, (ABSENT, "a record inside itself"), hint)
    refusals = made.refused if made is not None else ()
    after = _types(new) if refusals else {}
    for refused in refusals:
        sides = refused.old or ABSENT, refused.new or after.get(refused.path, ABSENT)
        yield _finding(refused.rule, refused.path, sides, refused.hint)
    told = {refused.path for refused in refusals}
    lacking = [each for each in record_refusals(new.record) if each.path not in told] if not inside else []
    if lacking:
        before, after = _types(old[-1]) if old else {}, _types(new)
        for each in lacking:
            sides = before.get(each.path, ABSENT), after.get(each.path, each.what)
            yield _finding(each.rule, each.path, sides, each.hint)


def _types(graph: Graph) -> dict[str, str]:
    types: dict[str, str] = {}
    for pair in pairs_of(graph, graph):
        types.setdefault(pair.path, shown(pair.new.type if isinstance(pair, FieldPair) else pair.new))
    return types


def symbol_findings(old: Graph, new: Graph) -> Iterator[Finding]:
    """Yield enums that lost a symbol, which rows of the table still hold."""
    for pair in leaves_of(old, new):
        if isinstance(pair.old, Enum) and isinstance(pair.new, Enum):
            lost = [symbol for symbol in pair.old.symbols if symbol not in pair.new.symbols]
            if lost:
                hint = f"keep {', '.join(lost)}: a symbol that is used no more harms nobody"
                sides = ",".join(pair.old.symbols), ",".join(pair.new.symbols)
                yield _finding("ENUM_SYMBOL_DELETED", pair.path, sides, hint)


def _finding(rule: str, path: str, sides: tuple[str, str], hint: str) -> Finding:
    return Finding(Layer.TABLE, rule, path, *sides, Breaks.TABLE, hint)
