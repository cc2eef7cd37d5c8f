"""May a product's schema become a version? What the registry would refuse, or no table could follow. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.schemas.compatibility import Layer, check
from headrace.schemas.verdicts import TablePast, Verdicts, pending
from headrace.selfserve.resources.following import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.table.metadata import TableMetadata

    from headrace.schemas.compatibility import Finding
    from headrace.schemas.masks import Mask
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema, UnreadableSchema

__all__ = ["Judgement", "TableNow", "judge"]

# Rows keep the symbol: the table follows, and readers of it should know.
_HARMLESS_TO_THE_TABLE = "ENUM_SYMBOL_DELETED"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What speaks against a schema, and what a person should know of it, in words."""

    refused: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableNow:
    """A table as it is: its metadata, the newest version that it has followed, the masks that it has noted."""

    metadata: TableMetadata
    followed: int
    noted: Mapping[str, Mask]


def judge(
    new: RegisteredSchema,
    versions: Iterable[RegisteredSchema | UnreadableSchema],
    live: frozenset[int],
    product: Product,
    policy: PiiPolicy,
    table: TableNow | None,
) -> Judgement:
    """Judge a contract's schema that is to become a version.

    Args:
        new: the version that it would be.
        versions: the subject's versions.
        live: the numbers of those that are not deleted: the registry compares with them alone.
        product: the product.
        policy: the mesh's masks by category.
        table: the product's table; None: there is none yet.
    """
    before = tuple(versions)
    verdicts = Verdicts.of(product, policy, (*before, new))
    nulled = verdicts.masks.nulled(verdicts.lineage)
    old = [each.schema for each in before if each.version in live and isinstance(each, type(new))]
    report = check(old, new.schema, product.contract.compatibility, nulled=nulled)
    refused = [_in_words(finding) for finding in report.findings if finding.layer is Layer.AVRO]
    step = verdicts.lineage.steps[new.version]
    refused += [in_words(change) for change in step.refused]
    if table is not None and not step.refused:
        # Others may have changed the table: it is asked as it is.
        # It has followed another version of this number, if the registry gives the number again (`truly_followed`).
        followed, past = min(table.followed, new.version - 1), TablePast.of(table.metadata)
        steps = pending(table.metadata.schema().fields, followed, verdicts, table.noted, past)
        refused += [in_words(change) for each in steps for change in each.step.refused]
    told = (Layer.LOGICAL, Layer.GOVERNANCE)
    warnings = (each for each in report.findings if each.layer in told or each.rule == _HARMLESS_TO_THE_TABLE)
    return Judgement(tuple(refused), tuple(map(_in_words, warnings)))


def _in_words(finding: Finding) -> str:
    place = f"{finding.path}: " if finding.path else ""
    return f"{finding.rule} {place}{finding.old} → {finding.new}, breaks {finding.breaks} ({finding.hint})"
