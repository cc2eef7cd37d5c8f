"""What following its subject's versions does to a table, predicted; and the versions that it cannot follow. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.schema import Schema
from pyiceberg.types import ListType, MapType, NestedField, StructType

from headrace.schemas.changes import column_paths, described
from headrace.schemas.product import RefusedVersions
from headrace.schemas.types import METADATA_NAMES
from headrace.schemas.verdicts import TablePast, nulls_wanted, pending
from headrace.selfserve.resources.difference import Difference, Kind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pyiceberg.table.metadata import TableMetadata

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.changes import RefusedChange
    from headrace.schemas.masks import Mask
    from headrace.schemas.product import Product
    from headrace.schemas.verdicts import PendingVersion, Verdicts

__all__ = ["Following", "changed_docs", "following", "in_words", "refused_versions", "truly_followed"]


@dataclass(frozen=True, slots=True)
class Following:
    """What becomes of a table that follows its subject's versions.

    Attributes:
        schema: the columns afterwards, those of metadata too.
        version: the newest version that it has followed then.
        changes: what changes, in words.
        stuck: the version that the table has no room for, as it is (`pending`); None: there is none.
        again: the version whose number the registry has given again since the table followed it; None: there is none.
    """

    schema: Schema
    version: int
    changes: tuple[str, ...]
    stuck: PendingVersion | None
    again: int | None


def following(metadata: TableMetadata, followed: int, verdicts: Verdicts, noted: Mapping[str, Mask]) -> Following:
    """Predict what following all versions does to a table.

    Args:
        metadata: the table's.
        followed: the newest version that it has followed.
        verdicts: the subject's versions, judged.
        noted: the masks that the table has noted.
    """
    fields = metadata.schema().fields
    columns = tuple(field for field in fields if field.name not in METADATA_NAMES)
    own = tuple(field for field in fields if field.name in METADATA_NAMES)
    version, stuck, again = followed, None, None
    changes: list[str] = []
    for each in pending(fields, followed, verdicts, noted, TablePast.of(metadata)):
        if each.step.refused:
            stuck = each
            break
        columns, version = each.step.columns, max(version, each.version)
        again = each.version if each.version <= followed else again
        changes += (" ".join(described(change)) for change in each.step.changes)
    changes += _masked(columns, verdicts, noted, version)
    return Following(Schema(*columns, *own), version, tuple(changes), stuck, again)


def truly_followed(schema: Schema, followed: int, newest: int, verdicts: Verdicts, noted: Mapping[str, Mask]) -> int:
    """Return the newest version that a table has followed, whatever number it has noted.

    A registry gives numbers again once versions were deleted for good, and a subject that is made anew begins with 1.
    Then the newest version has a number that the table has followed, and only its columns tell that it was another one.

    Args:
        schema: the table's columns.
        followed: the newest version that the table has noted.
        newest: the contract's version, which the table has not marked as applied.
        verdicts: the subject's versions, judged.
        noted: the masks that the table has noted.
    """
    if newest > followed or newest < max((*verdicts.lineage.steps, *verdicts.refused)):
        return followed
    steps = pending(schema.fields, newest - 1, verdicts, noted)
    return newest - 1 if any(each.step.changes or each.step.refused for each in steps) else followed


def _masked(
    columns: tuple[NestedField, ...], verdicts: Verdicts, noted: Mapping[str, Mask], version: int
) -> Iterable[str]:
    """Yield what the table notes of masks once it has followed a version, and what may be null by them."""
    held = verdicts.held(version)
    if held is None:
        return
    masks = verdicts.masks_with(noted, version)
    for path, mask in sorted(masks.noted(verdicts.lineage, held.version).items()):
        if noted.get(path) != mask:
            yield f"mask {path} by {mask}"
    own = masks.at(column_paths(verdicts.lineage.steps[held.version].columns))
    for change in nulls_wanted(columns, own):
        yield " ".join(described(change))


def changed_docs(
    schema: Schema, contract: AvroSchema, version: int, verdicts: Verdicts
) -> Mapping[str, tuple[str, str]]:
    """Return the columns whose doc strings are not the contract's, by their names in the table: what is, what should.

    Args:
        schema: the table's columns.
        contract: the contract's schema; a field without a doc leaves its column's as it is.
        version: the version that it is.
        verdicts: the subject's versions, judged.
    """
    steps = verdicts.lineage.steps
    held = verdicts.held(max(steps, default=0))
    if version not in steps or version in verdicts.refused or held is None:
        return {}
    # A column of the lineage is the table's column of that path: ids are the table's own.
    paths = {number: path for path, number in column_paths(steps[held.version].columns).items()}
    there, columns = column_paths(schema.fields), _by_id(schema.fields)
    found = {}
    for path, field in contract.walk():
        column = columns.get(there.get(paths.get(steps[version].placed.get(path, 0), ""), 0))
        if column is not None and field.doc and column.doc != field.doc:
            name = schema.find_column_name(column.field_id) or path
            found[name] = (column.doc or "", field.doc)
    return found


def refused_versions(product: Product, live: Collection[int], verdicts: Verdicts) -> tuple[Difference, ...]:
    """Return the versions that no table of a product can follow; those that were deleted are nobody's concern."""
    waits = product.contract.refused_versions is RefusedVersions.WAIT
    there = (
        ", and set sink.refusedVersions to dead-letter in the contract for the events that are there" if waits else ""
    )
    found = []
    for number, refused in verdicts.refused.items():
        if number not in live:
            continue
        step = verdicts.lineage.steps.get(number)
        details = tuple(map(in_words, step.refused)) if step and step.refused else (refused.fault,)
        found.append(
            Difference(
                Kind.REFUSED if waits else Kind.WARNING,
                "version-refused",
                f"table {product.name}",
                f"version {number}",
                why=f"the table cannot follow this version of {product.subject}; its events "
                + ("wait, and so do those behind them" if waits else "become dead letters, as the contract says"),
                next=f"register a version that it can follow{',' if waits else ' and'} delete version {number} of "
                f"{product.subject} in the registry (softly: its number must not come again){there}",
                details=details,
            )
        )
    return tuple(found)


def in_words(change: RefusedChange) -> str:
    """Return a refused change for people."""
    place = f"{change.path}: " if change.path else ""
    hint = f" ({change.hint})" if change.hint else ""
    return f"{change.rule} {place}{change.what}{hint}"


def _by_id(columns: Iterable[NestedField]) -> Mapping[int, NestedField]:
    """Return columns at every depth by their ids."""
    found: dict[int, NestedField] = {}
    for column in columns:
        found[column.field_id] = column
        match column.field_type:
            case StructType(fields=fields):
                found |= _by_id(fields)
            case ListType() as kind:
                found |= _by_id((kind.element_field,))
            case MapType() as kind:
                found |= _by_id((kind.key_field, kind.value_field))
            case _:
                pass
    return found
