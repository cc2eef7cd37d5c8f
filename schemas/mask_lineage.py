"""Masks along renames: a field is masked if any version of its subject tags it, under whatever name. Pure.

What is tagged in a version is a column, not a name: a tag on ``mail`` in version 1 masks ``email``, which took its
place in version 2, and a field that is called ``mail`` later is another one. A tag in a version that no table can
follow counts too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyiceberg import types as ice

from headrace.schemas.changes import column_paths
from headrace.schemas.masks import Mask, fits
from headrace.schemas.policy import is_masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from headrace.schemas.avro import AvroSchema
    from headrace.schemas.lineage import Lineage
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product


@dataclass(frozen=True, slots=True)
class ColumnMasks:
    """A product's masks by column.

    Attributes:
        by_id: the masks of columns, by their ids in the lineage. Each fits its column's type.
        by_path: the masks of fields that are no column of the lineage: what refused versions alone have, what a table
            noted of versions that the registry has lost. They hold for any field that is found at their path.
        kinds: the type that a mask meets in each column of the lineage, by id.
    """

    by_id: Mapping[int, Mask]
    by_path: Mapping[str, Mask]
    kinds: Mapping[int, str]

    def at(self, placed: Mapping[str, int]) -> dict[str, Mask]:
        """Return the masks by path of fields whose columns are known.

        Args:
            placed: the id of each field's column by its path: ``lineage.steps[version].placed`` for the events of a
                version, as its schema names them; ``column_paths(lineage.steps[version].columns)`` for the rows of a
                table that has followed that version.

        Returns:
            One mask a masked field. A mask that does not fit the column's type gives way to ``replace-with-null``. The
            fields of a refused version may be of another type than their columns: its events never become rows.
        """
        found = {}
        for path, number in placed.items():
            mask = self.by_id.get(number) or self.by_path.get(path)
            if mask is not None:
                found[path] = _fitting(mask, self.kinds.get(number))
        return found

    def including(self, past: Mapping[str, Mask], lineage: Lineage, held: int | None) -> ColumnMasks:
        """Return these masks, and those that a table notes: what was masked once stays masked.

        Args:
            past: the masks that the table notes by path, earlier names of its columns among them.
            lineage: the lineage that these masks are of.
            held: the newest version of the lineage that the table has followed; None: none.
        """
        followed = [step for number, step in lineage.steps.items() if held is not None and number <= held]
        columns = column_paths(followed[-1].columns) if followed else {}
        by_id, by_path = dict(self.by_id), dict(self.by_path)
        for path, mask in past.items():
            ids = (
                {columns[path]} if path in columns else {step.placed[path] for step in followed if path in step.placed}
            )
            ids &= self.kinds.keys()
            if not ids:
                by_path.setdefault(path, mask)
            elif not ids & by_id.keys():
                by_id |= {number: _fitting(mask, self.kinds[number]) for number in ids}
        return replace(self, by_id=by_id, by_path=by_path)

    def noted(self, lineage: Lineage, held: int) -> dict[str, Mask]:
        """Return the masks by path that a table notes which has followed versions up to ``held``.

        Each masked column is noted by its path and by all paths that it had before, so that whoever knows it by an
        earlier name masks it too. A path that has become another column's is that column's alone: a mask is never put
        on a field by the accident of its name, where it may not even fit its type.
        """
        columns = column_paths(lineage.steps[held].columns)
        found = {path: mask for path, mask in self.by_path.items() if path not in columns}
        for number, step in lineage.steps.items():
            if number <= held:
                found |= {path: mask for path, mask in self.at(step.placed).items() if path not in columns}
        return found | self.at(columns)

    def nulled(self, lineage: Lineage) -> frozenset[str]:
        """Return the paths, in any version, of fields whose mask is null: their columns are optional."""
        return frozenset(
            path
            for step in lineage.steps.values()
            for path, mask in self.at(step.placed).items()
            if mask is Mask.REPLACE_WITH_NULL
        )

    def mask_key(self, key: Iterable[str], lineage: Lineage) -> bool:
        """Tell whether a message's key may hold a masked field.

        Args:
            key: the paths of the key's fields.
            lineage: the lineage that these masks are of. What is masked at such a path in any version counts, because
                the topic holds keys of events of all versions.
        """
        places = [*(self.at(step.placed) for step in lineage.steps.values()), self.by_path]
        return any(is_masked(path, masks) for path in key for masks in places)


def column_masks(
    product: Product, policy: PiiPolicy, schemas: Mapping[int, AvroSchema], lineage: Lineage
) -> ColumnMasks:
    """Return a product's masks by column: the contract's, and the policy's for what any version tags.

    Args:
        product: the product. Its masks are by path in its own schema.
        policy: the mesh's masks by category.
        schemas: all versions of the subject by number, refused ones among them.
        lineage: the fold of the same versions.

    Returns:
        The contract's mask where it has one, else the policy's for the first version that tags the field. One that
        does not fit the column's type gives way to ``replace-with-null``, never to none.
    """
    kinds = dict(_kinds(lineage.columns))
    by_id: dict[int, Mask] = {}
    by_path: dict[str, Mask] = {}
    for version, path, mask in _claims(product, policy, schemas):
        placed = lineage.steps[version].placed if version is not None else {}
        number = placed[path] if path in placed else _newest(path, lineage)
        if number in kinds:
            by_id.setdefault(number, _fitting(mask, kinds[number]))
        else:
            by_path.setdefault(path, mask)
    return ColumnMasks(by_id, by_path, kinds)


def tagged_columns(schemas: Mapping[int, AvroSchema], lineage: Lineage) -> Mapping[int, frozenset[str]]:
    """Return for each version the columns that it or one before it tags, by their paths in a table that followed it.

    Args:
        schemas: all versions of the subject by number, ascending, refused ones among them.
        lineage: the fold of the same versions.
    """
    found, tagged = {}, set()
    for number, schema in schemas.items():
        step = lineage.steps[number]
        tagged |= {step.placed[path] for path in schema.pii if path in step.placed}
        found[number] = frozenset(path for path, column in column_paths(step.columns).items() if column in tagged)
    return found


def _claims(
    product: Product, policy: PiiPolicy, schemas: Mapping[int, AvroSchema]
) -> Iterator[tuple[int | None, str, Mask]]:
    """Yield what says that a field is masked: the version whose path it is, the path, the mask; the strongest first."""
    own = _version_of(product.schema, schemas)
    for path, mask in product.masks.items():
        yield own, path, mask
    for number, schema in schemas.items():
        for path, category in schema.pii.items():
            yield number, path, policy.mask_of(category)


def _version_of(schema: AvroSchema, schemas: Mapping[int, AvroSchema]) -> int | None:
    """Return the newest version with the contract's own fields: a registry may have rewritten the text."""
    paths = {path for path, _ in schema.walk()}
    same = [number for number, each in schemas.items() if each.record == schema.record]
    alike = [number for number, each in schemas.items() if {path for path, _ in each.walk()} == paths]
    return max(same or alike, default=None)


def _newest(path: str, lineage: Lineage) -> int | None:
    """Return the column that the newest version with such a path has there; None: no version has it."""
    return next((step.placed[path] for step in reversed(tuple(lineage.steps.values())) if path in step.placed), None)


def _kinds(columns: Iterable[ice.NestedField]) -> Iterator[tuple[int, str]]:
    for column in columns:
        yield column.field_id, _leaf(column.field_type)
        yield from _kinds_inside(column.field_type)


def _kinds_inside(kind: ice.IcebergType) -> Iterator[tuple[int, str]]:
    match kind:
        case ice.StructType(fields=fields):
            yield from _kinds(fields)
        case ice.ListType():
            yield from _kinds_inside(kind.element_type)
        case ice.MapType():
            yield from _kinds_inside(kind.value_type)
        case _:
            pass


def _leaf(kind: ice.IcebergType) -> str:
    """Return the name of the type that a mask meets behind lists and maps, as `headrace.schemas.types.masked_leaf`."""
    match kind:
        case ice.ListType():
            return _leaf(kind.element_type)
        case ice.MapType():
            return _leaf(kind.value_type)
        case ice.StructType():
            return "struct"
        case _:
            return str(kind)


def _fitting(mask: Mask, kind: str | None) -> Mask:
    return mask if kind is None or fits(mask, kind) else Mask.REPLACE_WITH_NULL
