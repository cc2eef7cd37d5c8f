"""What a contract promised and does not any more: owner, SLA, masks, key, partitions, levels. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.schemas.compatibility.findings import ABSENT, Breaks, Finding, Layer
from headrace.schemas.compatibility.graph import graph_of
from headrace.schemas.compatibility.pairs import fields_of
from headrace.schemas.compatibility.tags import tag_findings
from headrace.schemas.compatibility.versions import promises
from headrace.schemas.paths import around, lies_in
from headrace.schemas.policy import STRENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.schemas.masks import Mask
    from headrace.schemas.product import Contract, Product

__all__ = ["PLACES", "check_contracts", "removed"]

# Where in the document a finding of the contract stands; all others stand at a field of the schema.
PLACES: Mapping[str, tuple[str | int, ...]] = {
    "OWNER_REMOVED": ("team", "name"),
    "STATUS_WITHDRAWN": ("status",),
    "SLA_RELAXED": ("slaProperties",),
    "PARTITIONS_CHANGED": ("customProperties",),
    "CLEANUP_POLICY_CHANGED": ("customProperties",),
    "COMPATIBILITY_LOWERED": ("customProperties",),
    "KEY_CHANGED": ("schema", 0, "properties"),
    "PRODUCT_REMOVED": (),
}
# ODCS: what may be built upon. A deprecated product still keeps its promises.
_IN_FORCE = frozenset({"active", "deprecated"})
_LET_GO = frozenset({"proposed", "draft", "deprecated", "retired"})


def check_contracts(old: Product, new: Product) -> tuple[Finding, ...]:
    """Return what the old contract promised and the new one does not.

    What the schema alone says (PII tags) is not repeated: `headrace.schemas.compatibility.check` finds it.
    """
    before, after = graph_of(old.schema), graph_of(new.schema)
    names = {pair.old_path: pair.path for pair in fields_of(before, after)}
    untagged = frozenset(finding.path for finding in tag_findings(before, after))
    return (*_promises(old.contract, new.contract), *_keys(old, new, names), *_masks(old, new, names, untagged))


def removed(product: str, status: str | None) -> Finding | None:
    """Return the finding of a product, by its name, that is gone from the files.

    Args:
        product: the name.
        status: the status that its contract had; None: nobody knows.

    Returns:
        None, if nobody was to rely on it yet, or any more.
    """
    if status in _LET_GO:
        return None
    hint = 'give it the status "deprecated" first, and remove it when nobody reads it any more'
    return _finding("PRODUCT_REMOVED", "", (product, ABSENT), hint)


def _promises(old: Contract, new: Contract) -> Iterator[Finding]:
    if old.owner.strip() and not new.owner.strip():
        yield _finding("OWNER_REMOVED", "team.name", (old.owner, ABSENT), "name the team that answers for the product")
    if old.status in _IN_FORCE and new.status not in _IN_FORCE:
        hint = 'keep it "active", or "deprecated" while somebody may still read it'
        yield _finding("STATUS_WITHDRAWN", "status", (old.status, new.status), hint)
    if new.freshness_s > old.freshness_s:
        hint = "agree with those who read it first; a promise of less is a new version of the contract"
        sides = _seconds(old.freshness_s), _seconds(new.freshness_s)
        yield _finding("SLA_RELAXED", "slaProperties.latency", sides, hint)
    if old.retention_ms is not None and (new.retention_ms is None or new.retention_ms < old.retention_ms):
        sides = (
            _seconds(old.retention_ms / 1000),
            ABSENT if new.retention_ms is None else _seconds(new.retention_ms / 1000),
        )
        hint = "keep it: a reader that was away for as long finds its events gone"
        yield _finding("SLA_RELAXED", "slaProperties.retention", sides, hint, Breaks.READER_OF_OLD_EVENTS)
    yield from _topic(old, new)


def _topic(old: Contract, new: Contract) -> Iterator[Finding]:
    if new.partitions != old.partitions:
        hint = "keep the number: with another one a key's later events overtake its earlier ones in another partition"
        sides = str(old.partitions), str(new.partitions)
        yield _finding("PARTITIONS_CHANGED", "customProperties.kafka.partitions", sides, hint)
    if set(new.cleanup_policy.split(",")) - set(old.cleanup_policy.split(",")):
        hint = "keep the policy: the other one takes away events that this one keeps"
        sides = old.cleanup_policy, new.cleanup_policy
        place = "customProperties.kafka.cleanup.policy"
        yield _finding("CLEANUP_POLICY_CHANGED", place, sides, hint, Breaks.READER_OF_OLD_EVENTS)
    (was, was_transitive), (now, now_transitive) = promises(old.compatibility), promises(new.compatibility)
    lost = was - now or (was if was_transitive and not now_transitive else frozenset())
    if lost:
        hint = f"keep {old.compatibility}, or a level that promises more"
        sides = str(old.compatibility), str(new.compatibility)
        yield _finding("COMPATIBILITY_LOWERED", "customProperties.avro.compatibility", sides, hint, min(lost))


def _keys(old: Product, new: Product, names: Mapping[str, str]) -> Iterator[Finding]:
    if tuple(names.get(path) for path in old.contract.key) != new.contract.key:
        hint = "keep the key: events of one thing stay in order, and are joined and compacted, by it"
        sides = ",".join(old.contract.key), ",".join(new.contract.key)
        yield _finding("KEY_CHANGED", "schema[0].properties.primaryKey", sides, hint)


def _masks(old: Product, new: Product, names: Mapping[str, str], untagged: frozenset[str]) -> Iterator[Finding]:
    """Yield masks that leave more of a value than before, and fields that have none any more, by the new paths."""
    before = sorted((names[path], mask) for path, mask in old.masks.items() if path in names)
    for path, mask in before:
        if path in new.masks and STRENGTH[new.masks[path]] < STRENGTH[mask]:
            hint = f"keep {mask}, or choose one that leaves no more of the value"
            yield _finding("MASK_WEAKENED", path, (str(mask), str(new.masks[path])), hint, Breaks.MASK)
        elif path not in new.masks and path not in untagged and not lies_in(path, new.masks):
            weakest = _weakest_inside(path, new)
            if weakest is None:
                hint = f"keep the mask {mask} in the contract, or tag the field in the schema"
                yield _finding("MASK_REMOVED", path, (str(mask), ABSENT), hint, Breaks.MASK)
            elif STRENGTH[weakest] < STRENGTH[mask]:
                hint = f"keep {mask}, or choose masks inside that leave no more of the value"
                yield _finding("MASK_WEAKENED", path, (str(mask), str(weakest)), hint, Breaks.MASK)


def _weakest_inside(path: str, product: Product) -> Mask | None:
    """Return the weakest of the masks of all that a field holds; None if it holds nothing, or something unmasked."""
    inside = [each for each, _ in product.schema.walk() if lies_in(each, (path,))]
    outer = {over for each in inside for over in around(each)}
    masks = [_mask_at(each, product) for each in inside if each not in outer]
    known = [mask for mask in masks if mask is not None]
    return min(known, key=STRENGTH.__getitem__) if known and len(known) == len(masks) else None


def _mask_at(path: str, product: Product) -> Mask | None:
    return next((product.masks[over] for over in (path, *around(path)) if over in product.masks), None)


def _seconds(number: float) -> str:
    return f"{number:.15g} s"


def _finding(
    rule: str, path: str, sides: tuple[str, str], hint: str, breaks: Breaks = Breaks.READER_OF_NEW_EVENTS
) -> Finding:
    return Finding(Layer.GOVERNANCE, rule, path, *sides, breaks, hint)
