"""The check: a new version against the old ones, in every layer. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headrace.schemas.changes import described
from headrace.schemas.compatibility.findings import Breaks, Finding, Layer, Report
from headrace.schemas.compatibility.graph import graph_of
from headrace.schemas.compatibility.logical import logical_findings
from headrace.schemas.compatibility.resolution import mismatches
from headrace.schemas.compatibility.table import next_step, step_findings, symbol_findings
from headrace.schemas.compatibility.tags import tag_findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.compatibility.graph import Graph
    from headrace.schemas.compatibility.resolution import Mismatch
    from headrace.schemas.evolution import Step
    from headrace.schemas.product import Compatibility

__all__ = ["check", "promises"]

_TRANSITIVE = "_TRANSITIVE"
_PROMISES: Mapping[str, frozenset[Breaks]] = {
    "NONE": frozenset(),
    "BACKWARD": frozenset({Breaks.READER_OF_OLD_EVENTS}),
    "FORWARD": frozenset({Breaks.READER_OF_NEW_EVENTS}),
    "FULL": frozenset({Breaks.READER_OF_OLD_EVENTS, Breaks.READER_OF_NEW_EVENTS}),
}
_ORDER = tuple(Layer)


def promises(mode: Compatibility) -> tuple[frozenset[Breaks], bool]:
    """Return which readers a level protects, and whether it does between any two versions, not just neighbours."""
    return _PROMISES[mode.removesuffix(_TRANSITIVE)], mode.endswith(_TRANSITIVE)


def check(
    old: Sequence[AvroSchema],
    new: AvroSchema,
    mode: Compatibility,
    *,
    nulled: frozenset[str] = frozenset(),
    step: Step | None = None,
) -> Report:
    """Compare a new version with the old ones.

    The mode decides what Avro's layer looks at: BACKWARD that the new version reads old events, FORWARD that the old
    one reads new events, FULL both, NONE neither. Plain modes look at the last of the old versions, transitive ones
    at each. The other layers always look, at the same versions; the table is one that followed all of them.

    Args:
        old: the versions there are, oldest first.
        new: the version that comes after them.
        mode: the subject's compatibility level.
        nulled: paths of fields whose mask is null, which makes their columns optional.
        step: what following the new version does to the table that there is; None: it is one that the old versions
            have made.

    Returns:
        What was found, each finding once however many versions share it, and what the table will do.
    """
    graphs = [graph_of(schema) for schema in old]
    graph = graph_of(new)
    protected, transitive = promises(mode)
    first = 0 if transitive else max(len(old) - 1, 0)
    found: dict[Finding, tuple[int, ...]] = {}
    for position in range(first, len(old)):
        for finding in _between(graphs[position], graph, protected):
            found[finding] = (*found.get(finding, ()), position + 1)
    step = step or next_step(graphs, graph, nulled)
    table = [replace(finding, against=(len(old),)) for finding in step_findings(step, graphs, graph)]
    shared = [replace(finding, against=against) for finding, against in found.items()]
    findings = sorted([*shared, *table], key=lambda finding: _ORDER.index(finding.layer))
    changes = step.changes if step is not None and not table else ()
    return Report(tuple(findings), tuple(described(change) for change in changes))


def _between(old: Graph, new: Graph, protected: frozenset[Breaks]) -> Iterator[Finding]:
    if Breaks.READER_OF_OLD_EVENTS in protected:
        for each in mismatches(old, new):
            yield _avro(each, (each.written, each.wanted), Breaks.READER_OF_OLD_EVENTS)
    if Breaks.READER_OF_NEW_EVENTS in protected:
        for each in mismatches(new, old):
            yield _avro(each, (each.wanted, each.written), Breaks.READER_OF_NEW_EVENTS)
    yield from logical_findings(old, new, old_readers=Breaks.READER_OF_NEW_EVENTS in protected)
    yield from symbol_findings(old, new)
    yield from tag_findings(old, new)


def _avro(mismatch: Mismatch, sides: tuple[str, str], breaks: Breaks) -> Finding:
    hint = _HINTS[mismatch.rule][breaks is Breaks.READER_OF_NEW_EVENTS]
    return Finding(Layer.AVRO, mismatch.rule, mismatch.path, *sides, breaks, hint)


_ANOTHER_NAME = "keep the type, and add a field of another name with the new one"
# What to do instead: when the new version cannot read old events, and when the old one cannot read new events.
_HINTS: Mapping[str, tuple[str, str]] = {
    "READER_FIELD_MISSING_DEFAULT_VALUE": (
        'give it a default, such as ["null", …] with "default": null; a renamed field needs its old name in "aliases"',
        "keep the field: readers of the old version have no default for it",
    ),
    "TYPE_MISMATCH": (_ANOTHER_NAME, _ANOTHER_NAME),
    "NAME_MISMATCH": (
        'keep the name, or add the old full name to the type\'s "aliases"',
        "keep the name: readers of the old version do not know the new one",
    ),
    "FIXED_SIZE_MISMATCH": (_ANOTHER_NAME, _ANOTHER_NAME),
    "MISSING_ENUM_SYMBOLS": (
        'keep the symbols, or give the enum a "default" that stands for those that are gone',
        'give the enum a "default" in a version of its own first, and add symbols in the next',
    ),
    "MISSING_UNION_BRANCH": (
        "keep the branch: old events hold it",
        "add a field of another name: readers of the old version do not know the branch",
    ),
}
