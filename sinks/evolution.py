"""The table follows its subject's versions: a schema change is a commit of its own, landed before any row needs it."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

from pyiceberg.table.update import AssertCurrentSchemaId, RemovePropertiesUpdate, SetPropertiesUpdate

from headrace.schemas.changes import AddColumn, Change, MakeOptional, Rename, Reorder, Widen, column_paths
from headrace.schemas.errors import ProductStopped, Refusal, SchemaError, Unavailable
from headrace.schemas.verdicts import PARTITION_NAME_TAKEN, TablePast, nulls_wanted, pending
from headrace.sinks.hold import check_not_held
from headrace.sinks.table_changes import TableChange, change_table
from headrace.streams.masked import KEY_MASKED_PROPERTY, MASK_PROPERTIES, is_key_masked, masks_of
from headrace.streams.versions import VERSION_PROPERTY, followed_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableUpdate
    from pyiceberg.table.update.schema import UpdateSchema

    from headrace.schemas.masks import Mask
    from headrace.schemas.product import Product
    from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
    from headrace.schemas.registry import Registry
    from headrace.schemas.verdicts import PendingVersion, RefusedVersion, Verdicts

__all__ = [
    "REFUSED_VERSION",
    "VERSION_PROPERTY",
    "follow",
    "followed_version",
    "foreign",
    "noted_properties",
    "refused_version",
    "versions_of",
]

# What a dead letter of a refused version says.
REFUSED_VERSION = "refused-version"


def versions_of(registry: Registry, product: Product) -> Sequence[RegisteredSchema | UnreadableSchema]:
    """Return the versions of the product's own subject, in order, at least one.

    Raises:
        Unavailable: if the registry does not answer, or has lost the subject: that says nothing of any event.
    """
    versions = registry.all_versions(product.subject)
    if not versions:
        raise Unavailable(
            "the schema registry knows no version of this subject",
            where=f"subject {product.subject}",
            hint="restore it in the registry, or run `headrace apply`",
        )
    return versions


def foreign(registry: Registry, product: Product, schema_id: int) -> Refusal:
    """Return why an id that is no version of the product's own subject is refused.

    ``unknown-schema`` if the registry does not know it, ``foreign-schema`` if it belongs to others.

    Raises:
        Unavailable: if the registry does not answer.
    """
    try:
        with suppress(SchemaError):
            registry.schema(schema_id)
    except Refusal as unknown:
        return unknown
    return Refusal("foreign-schema", f"schema id {schema_id} is no version of {product.subject}")


def refused_version(product: Product, refused: RefusedVersion) -> ProductStopped:
    """Return the error of events of a version that no table can follow, where the contract lets them wait."""
    return ProductStopped(
        f"the table cannot follow version {refused.version} of {product.subject}: {refused.fault}",
        where=f"topic {product.topic}",
        hint=refused.next_step(product),
    )


def follow(catalog: Catalog, product: Product, verdicts: Verdicts) -> Table:
    """Change the product's table so that it can hold events of all versions that are not refused; return it then.

    Each version that the table has not followed lands as one commit, in order, with the masks of the columns that it
    then has (`ColumnMasks.noted`): exactly the changes that `pending` predicts. Nothing happens where the table has
    followed all versions and has noted the masks. Safe to repeat and to run beside others: whoever comes second finds
    it done.

    Raises:
        ProductStopped: if somebody else has changed the table so that it has no room for a version, or a new column
            would have the name of one of its partitions.
        Held: if an operator holds the product, and the table wants a change.
        NotApplied: if there is no table.
        Unavailable: if catalog or storage does not answer; the change may or may not have landed: call again.
    """
    seen: list[Table] = []

    def decide(table: Table) -> TableChange | None:
        seen[:] = [table]
        change = _wanted(table, product, verdicts)
        if change is not None:
            check_not_held(table, product)
        return change

    # One change a version, one for the masks; whoever still finds something then has company that undoes it.
    for _ in range(len(verdicts.versions) + 2):
        if not change_table(catalog, product, decide):
            return seen[0]
    raise Unavailable("others change the table all the time", where=f"table {product.name}", hint="it is tried again")


def noted_properties(masks: Mapping[str, Mask]) -> dict[str, str]:
    """Return the properties of a table that note masks."""
    return {f"{MASK_PROPERTIES}{path}": str(mask) for path, mask in masks.items()}


def _wanted(table: Table, product: Product, verdicts: Verdicts) -> TableChange | None:
    """Return the next change that the table lacks: a version that it has not followed, or masks of one that it has."""
    columns, followed, known = table.schema().fields, followed_version(table), masks_of(table)
    masks = verdicts.masks_with(known, followed)
    new = next(pending(columns, followed, verdicts, known, TablePast.of(table.metadata)), None)
    if new is not None:
        _check_room(product, new, followed)
        changes, after, version = new.step.changes, column_paths(new.step.columns), new.version
    else:
        held = verdicts.held(followed)
        if held is None:
            return None
        # A column that an operator has dropped does not come back: only what a mask became is looked at.
        version, after = held.version, column_paths(columns)
        changes = nulls_wanted(columns, masks.at(column_paths(verdicts.lineage.steps[version].columns)))
    noted = masks.noted(verdicts.lineage, version)
    # A path that another column takes now is no earlier name any more (see `noted`).
    taken = [path for path in known.keys() - noted.keys() if path in after and path not in column_paths(columns)]
    lacking = {path: mask for path, mask in noted.items() if known.get(path) != mask}
    properties = {VERSION_PROPERTY: str(max(version, followed)), **noted_properties(lacking)}
    key_masked = masks.mask_key(product.contract.key, verdicts.lineage) and not is_key_masked(table)
    if new is None and not (changes or lacking or taken or key_masked):
        return None
    if key_masked:
        properties[KEY_MASKED_PROPERTY] = "true"
    updates: list[TableUpdate] = [*_staged(table, product, changes), SetPropertiesUpdate(updates=properties)]
    if taken:
        updates.append(RemovePropertiesUpdate(removals=[f"{MASK_PROPERTIES}{path}" for path in taken]))
    # The masks are noted by the names of columns, so they hold for this schema alone.
    same = AssertCurrentSchemaId.model_validate({"current-schema-id": table.metadata.current_schema_id})
    return TableChange((same,), tuple(updates))


def _check_room(product: Product, new: PendingVersion, followed: int) -> None:
    if not new.step.refused:
        return
    refused = new.step.refused[0]
    fault = f"{refused.path}: {refused.what}" if refused.path else refused.what
    hint = "somebody else has changed the table's columns: take that change back, or drop that column"
    if refused.rule == PARTITION_NAME_TAKEN:
        hint = (
            f"{refused.hint} in a new version, publish with that one, delete version {new.version} from the registry "
            f"permanently and start the sink again: its events that are in the topic go to {product.dead_letter_topic}"
        )
    elif new.version <= followed:
        hint = (
            f"the registry has lost versions of {product.subject}, which the table has followed, and gives their "
            "numbers again: restore them, or drop the table and run `headrace apply`"
        )
    raise ProductStopped(
        f"the table cannot follow version {new.version} of {product.subject} as it is now: {fault}",
        where=f"table {product.name}",
        hint=hint,
    )


def _staged(table: Table, product: Product, changes: Sequence[Change]) -> tuple[TableUpdate, ...]:
    if not changes:
        return ()
    try:
        update = table.update_schema()
        for change in changes:
            _stage(update, change)
        updates, _ = update._commit()  # noqa: SLF001 - the staged updates without pyiceberg's own retries
    except ValueError:
        identifiers = ", ".join(sorted(table.schema().identifier_field_names()))
        raise ProductStopped(
            "Iceberg refuses to change the table's columns as the next version asks",
            where=f"table {product.name}",
            hint=f"another engine has made {identifiers} identifier fields of the table, which are never null: "
            "take that back there (Spark: ALTER TABLE … DROP IDENTIFIER FIELDS), then start the sink again"
            if identifiers
            else "take back what another engine has changed in the table, then start the sink again",
        ) from None
    return updates


def _stage(update: UpdateSchema, change: Change) -> None:
    match change:
        case AddColumn(at=at, type=kind, doc=doc, after=after):
            update.add_column(at, kind, doc)
            if after is None:
                update.move_first(at)
            else:
                update.move_after(at, (*at[:-1], after))
        case Widen(at=at, type=kind):
            update.update_column(at, field_type=kind)
        case MakeOptional(at=at):
            update.make_column_optional(at)
        case Rename(at=at, name=name):
            update.rename_column(at, name)
        case Reorder(at=at, order=order):
            update.move_first((*at, order[0]))
            for before, name in pairwise(order):
                update.move_after((*at, name), (*at, before))
