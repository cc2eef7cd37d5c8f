"""The table follows its subject's versions: a schema change is a commit of its own, landed before any row needs it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.update import AssertCurrentSchemaId, AssertTableUUID, SetPropertiesUpdate

from headrace.schemas.catalog import catalog_errors, load_table
from headrace.schemas.changes import AddColumn, Change, MakeOptional, Rename, Reorder, Widen
from headrace.schemas.errors import ProductStopped, Refusal, SchemaError, Unavailable
from headrace.schemas.evolution import step
from headrace.schemas.masks import Mask
from headrace.schemas.types import unsupported
from headrace.sinks.hold import check_not_held
from headrace.streams.masked import MASK_PROPERTIES, masks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.update.schema import UpdateSchema

    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema, Registry

# The newest version of the subject that the table has followed. It never goes back.
VERSION_PROPERTY = "headrace.schema-version"


def followed_version(table: Table) -> int:
    """Return the newest version of the subject that the table has followed; 0: none yet."""
    return int(table.properties.get(VERSION_PROPERTY, "0"))


def versions_of(registry: Registry, product: Product) -> Sequence[RegisteredSchema]:
    """Return the versions of the product's own subject, in order, at least one.

    Raises:
        SchemaError: if a version is no Avro, or Avro that headrace cannot carry.
        Unavailable: if the registry does not answer, or has lost the subject: that says nothing of any event.
    """
    versions = registry.versions(product.subject)
    if not versions:
        raise Unavailable(
            "the schema registry knows no version of this subject",
            where=f"subject {product.subject}",
            hint="restore it in the registry, or run `headrace apply`",
        )
    return versions


def version_of(registry: Registry, product: Product, schema_id: int) -> RegisteredSchema:
    """Return the version of the product's own subject that has this id.

    Raises:
        Refusal: ``unknown-schema`` if the registry does not know the id, ``foreign-schema`` if it belongs to others.
        SchemaError, Unavailable: as `versions_of`.
    """
    for registered in versions_of(registry, product):
        if registered.id == schema_id:
            return registered
    with suppress(SchemaError):
        registry.schema(schema_id)
    raise Refusal("foreign-schema", f"schema id {schema_id} is no version of {product.subject}")


def follow(catalog: Catalog, product: Product, versions: Sequence[RegisteredSchema]) -> Table:
    """Change the product's table so that it can hold events of these versions; return it as it is then.

    Each version that the table has not followed lands as one commit, in order, with the product's masks (`masks_of`).
    Nothing happens where the table has room for all versions and knows the masks.
    Safe to repeat and to run beside others: whoever comes second finds it done.

    Raises:
        ProductStopped: if a version asks for what Iceberg does not allow.
        Held: if an operator holds the product, and the table wants a change.
        Unavailable: if catalog or storage does not answer; the change may or may not have landed: call again.
    """
    table = load_table(catalog, product)
    for registered in sorted(versions, key=lambda version: version.version):
        # Another worker may land first: bounded, because each failure means that somebody made progress.
        for _ in range(10):
            known = masks_of(table)
            masks = {**known, **product.masks}
            wanted = _wanted(table, replace(product, masks=masks), registered)
            if followed_version(table) >= registered.version and not wanted and masks == known:
                break
            properties = {VERSION_PROPERTY: str(max(registered.version, followed_version(table)))}
            properties |= {f"{MASK_PROPERTIES}{path}": str(mask) for path, mask in masks.items()}
            check_not_held(table, product)
            _commit(catalog, product, table, wanted, properties)
            table = load_table(catalog, product)
        else:
            raise Unavailable("others change the table's schema all the time", where=f"table {product.name}")
    return table


def _wanted(table: Table, product: Product, registered: RegisteredSchema) -> tuple[Change, ...]:
    """Return what the table lacks for a version. One that was followed lacks something once a mask becomes null."""
    nulled = frozenset(path for path, mask in product.masks.items() if mask is Mask.REPLACE_WITH_NULL)
    faults = [SchemaError(what, path=path, hint=hint) for path, what, hint in unsupported(registered.schema)]
    if faults:
        raise _cannot_follow(product, registered, faults[0])
    made = step(table.schema().fields, registered.schema.record, nulled, wider_has_room=True)
    if made.refused:
        refused = made.refused[0]
        raise _cannot_follow(product, registered, SchemaError(refused.what, path=refused.path, hint=refused.hint))
    wanted = made.changes
    # A column that an operator has dropped since does not come back.
    followed = followed_version(table) >= registered.version
    return tuple(change for change in wanted if isinstance(change, MakeOptional)) if followed else wanted


def _cannot_follow(product: Product, registered: RegisteredSchema, error: SchemaError) -> ProductStopped:
    return ProductStopped(
        f"the table cannot follow version {registered.version} of {product.subject}: {error.what}",
        where=f"table {product.name}",
        hint=error.hint,
    )


def _commit(
    catalog: Catalog, product: Product, table: Table, wanted: Sequence[Change], properties: Mapping[str, str]
) -> None:
    update = table.update_schema()
    for change in wanted:
        _stage(update, change)
    updates, _ = update._commit()  # noqa: SLF001 - the staged updates without pyiceberg's own retries
    requirements = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertCurrentSchemaId.model_validate({"current-schema-id": table.metadata.current_schema_id}),
    )
    with catalog_errors(f"table {product.name}"):
        try:
            catalog.commit_table(table, requirements, (*updates, SetPropertiesUpdate(updates=dict(properties))))
        except CommitFailedException:
            return


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
