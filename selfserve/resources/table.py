"""A product's table: its columns, layout, properties, doc strings and marks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyiceberg.table.update import AssertCurrentSchemaId, SetPropertiesUpdate

from headrace.governance.applied import mark_applied, marked_ids, marks_of
from headrace.schemas.changes import column_paths
from headrace.schemas.errors import SchemaError
from headrace.schemas.table_layout import described_order, described_spec, layout_change, partition_spec, sort_order
from headrace.schemas.verdicts import Verdicts
from headrace.selfserve.resources.difference import Difference, Kind
from headrace.selfserve.resources.following import (
    changed_docs,
    following,
    in_words,
    refused_versions,
    truly_followed,
)
from headrace.selfserve.resources.namespace import Namespace, lies_in, same_place
from headrace.selfserve.resources.subject import NO_ID, Subject, followed_in, held_difference
from headrace.sinks.evolution import follow
from headrace.sinks.hold import check_not_held, hold_of
from headrace.sinks.table_changes import TableChange, change_table
from headrace.sinks.tables import ensure_table, table_properties, table_schema
from headrace.streams.masked import masks_of
from headrace.streams.versions import VERSION_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyiceberg.schema import Schema
    from pyiceberg.table import Table as IcebergTable
    from pyiceberg.table.metadata import TableMetadata

    from headrace.schemas.masks import Mask
    from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
    from headrace.selfserve.resources.clients import Clients
    from headrace.selfserve.resources.following import Following
    from headrace.sinks.hold import Hold

__all__ = ["LOCATION_PROPERTY", "Table", "TableThere"]

# Where apply has found the table when it made it: a catalog may choose a place that nobody could tell from outside.
LOCATION_PROPERTY = "headrace.location"
# Not a property that a table keeps, but what is asked for when it is made.
_AT_CREATION = frozenset({"format-version"})


@dataclass(frozen=True, slots=True)
class TableThere:
    """A table as it is, and what of its subject has a say in it.

    Attributes:
        metadata: the table's; None: there is no table.
        schema: its columns.
        hold: why the product is held; None: it is not.
        known: the masks that it knows.
        versions: the subject's versions, with the one that `apply` is about to register.
        live: the numbers of those that are not deleted.
        contract: the version that is the contract's; None: there is none, and there must be none yet.
        base: where the domain's tables should lie; None: not known.
    """

    metadata: TableMetadata | None
    schema: Schema | None
    hold: Hold | None
    known: Mapping[str, Mask]
    versions: tuple[RegisteredSchema | UnreadableSchema, ...]
    live: frozenset[int]
    contract: RegisteredSchema | None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A product's table as the files want it."""

    subject: Subject
    namespace: Namespace

    @property
    def thing(self) -> str:
        """What it is called."""
        return f"table {self.subject.product.name}"

    def read(self, clients: Clients) -> TableThere:
        """Return the table as it is."""
        registered = self.subject.read(clients)
        planned = self.subject.planned(registered)
        table = clients.table(self.subject.domain, self.subject.product)
        return TableThere(
            metadata=table.metadata if table else None,
            schema=table.schema() if table else None,
            hold=hold_of(table) if table else None,
            known=masks_of(table) if table else {},
            versions=registered.versions if planned is None else (*registered.versions, planned),
            live=registered.live,
            contract=registered.found or planned,
            base=self.namespace.base(self.namespace.read(clients)),
        )

    def diff(self, there: TableThere) -> tuple[Difference, ...]:
        """Return what differs."""
        if not there.versions:
            return ()
        verdicts = self._verdicts(there)
        refused = refused_versions(self.subject.product, there.live, verdicts)
        if there.metadata is None or there.schema is None:
            return (*self._missing(there, verdicts), *refused)
        followed = self.followed(there, verdicts)
        after = following(there.metadata, followed, verdicts, there.known)
        wanted = (
            *self._location(there, there.metadata),
            *self._versions(there, there.metadata, followed, after),
            *refused,
            *self._docs(there, after, verdicts),
            *self._layout(after, there.metadata),
            *self._properties(there, there.metadata),
        )
        if there.hold is None or not any(each.kind is Kind.CHANGE for each in wanted):
            return wanted
        kept = tuple(each for each in wanted if each.kind is not Kind.CHANGE)
        return (held_difference(self.subject.product, there.hold), *kept)

    def apply(self, clients: Clients, difference: Difference) -> None:
        """Make the table, or change it. A table that is made follows all versions at once.

        Raises:
            Held: if an operator holds the product meanwhile.
            ProductStopped: if the table cannot follow a version.
        """
        catalog, product = clients.catalog(self.subject.domain), self.subject.product
        match difference.cause:
            case "table-missing":
                self._make(clients)
            case "column-doc":
                self._change(clients, self._documented)
            case "table-layout":
                self._change(clients, self._laid_out)
            case "table-property":
                update = SetPropertiesUpdate(updates={difference.what: str(difference.new)})
                self._change(clients, lambda table, _: None if _has(table, difference) else TableChange((), (update,)))
            case _:
                there = self.read(clients)
                verdicts = self._verdicts(there)
                change_table(catalog, product, lambda table: self._renumbered(table, there, verdicts))
                follow(catalog, product, verdicts)
                if there.contract is not None and there.contract.id != NO_ID:
                    mark_applied(catalog, product, there.contract.id)

    def _make(self, clients: Clients) -> None:
        there, product = self.read(clients), self.subject.product
        newest = there.contract.version if there.contract is not None else 0
        marks = marks_of(product, (each.id for each in there.versions if each.version <= newest and each.id != NO_ID))
        ensure_table(clients.catalog(self.subject.domain), product, self._verdicts(there), marks)
        for left in self.diff(self.read(clients)):
            if left.kind is Kind.CHANGE:
                self.apply(clients, left)

    def followed(self, there: TableThere, verdicts: Verdicts) -> int:
        """Return the newest version that a table has followed; 0: none, or there is no table."""
        if there.metadata is None or there.schema is None:
            return 0
        followed, contract = followed_in(there.metadata.properties), there.contract
        if contract is None or contract.id in marked_ids(there.metadata.properties):
            return followed
        return truly_followed(there.schema, followed, contract.version, verdicts, there.known)

    def _renumbered(self, table: IcebergTable, there: TableThere, verdicts: Verdicts) -> TableChange | None:
        """Take back the number of a version that the registry has given again, so that the table follows this one."""
        now = replace(there, metadata=table.metadata, schema=table.schema(), known=masks_of(table))
        followed = self.followed(now, verdicts)
        if followed == followed_in(table.properties):
            return None
        check_not_held(table, self.subject.product)
        same = AssertCurrentSchemaId.model_validate({"current-schema-id": table.metadata.current_schema_id})
        return TableChange((same,), (SetPropertiesUpdate(updates={VERSION_PROPERTY: str(followed)}),))

    def _verdicts(self, there: TableThere) -> Verdicts:
        return Verdicts.of(self.subject.product, self.subject.policy, there.versions)

    def _missing(self, there: TableThere, verdicts: Verdicts) -> Iterator[Difference]:
        if not verdicts.versions:
            return
        contract, columns = self.subject.product.contract, verdicts.lineage.columns
        details = [f"columns {', '.join(column.name for column in columns)}"]
        with suppress(SchemaError):
            schema = table_schema(self.subject.product.schema, {})
            layout = described_spec(partition_spec(contract, schema), schema)
            details += [f"partitioned by {', '.join(layout)}"] if layout else []
            order = described_order(sort_order(contract, schema), schema)
            details += [f"sorted by {', '.join(order)}"] if order else []
        masks = verdicts.masks.at(column_paths(columns))
        details += [f"masked {', '.join(sorted(masks))}"] if masks else []
        why = ""
        if any(version.id != NO_ID for version in there.versions):
            why = (
                "its subject has versions already: if the table was there too, its domain's storage or the catalog of "
                "this environment has changed, and a new table begins empty"
            )
        yield Difference(Kind.CREATE, "table-missing", self.thing, why=why, details=tuple(details))

    def _versions(
        self, there: TableThere, metadata: TableMetadata, followed: int, after: Following
    ) -> Iterator[Difference]:
        contract = there.contract
        if after.stuck is not None:
            yield Difference(
                Kind.REFUSED,
                "version-stuck",
                self.thing,
                "version",
                str(followed),
                str(after.stuck.version),
                "the table as it is has no room for the version",
                "do what the reason asks for; what another engine has changed, it takes back: headrace drift names it",
                tuple(map(in_words, after.stuck.step.refused)),
            )
        if after.version > followed:
            why = "" if contract is not None and contract.id == NO_ID else "pending: registered, not yet in the table"
            sides = str(followed), str(after.version)
            yield Difference(
                Kind.CHANGE, "version-pending", self.thing, "version", *sides, why=why, details=after.changes
            )
        elif after.again is not None:
            why = "the registry has given its number to another schema since the table followed it"
            what = f"version {after.again} again"
            yield Difference(Kind.CHANGE, "version-again", self.thing, what, why=why, details=after.changes)
        elif after.changes:
            yield Difference(Kind.CHANGE, "table-masks", self.thing, "masks", details=after.changes)
        elif contract is not None and contract.id not in {NO_ID, *marked_ids(metadata.properties)}:
            mark = f"version {contract.version} as applied"
            yield Difference(Kind.CHANGE, "version-unmarked", self.thing, "mark", new=mark)

    def _docs(self, there: TableThere, after: Following, verdicts: Verdicts) -> Iterator[Difference]:
        if there.contract is None:
            return
        docs = changed_docs(after.schema, self.subject.product.schema, there.contract.version, verdicts)
        for name, (old, new) in docs.items():
            yield Difference(Kind.CHANGE, "column-doc", self.thing, f"doc of column {name}", old or None, new)

    def _layout(self, after: Following, metadata: TableMetadata) -> Iterator[Difference]:
        with suppress(SchemaError):
            change = layout_change(self.subject.product.contract, after.schema, metadata)
            for what, sides in (("partitions", change.partitions), ("sort order", change.sorting)):
                if sides:
                    old, new = (", ".join(side) or "none" for side in sides)
                    why = "files that are there stay as they are"
                    yield Difference(Kind.CHANGE, "table-layout", self.thing, what, old, new, why)

    def _properties(self, there: TableThere, metadata: TableMetadata) -> Iterator[Difference]:
        wanted = {
            name: value
            for name, value in table_properties(self.subject.product.contract).items()
            if name not in _AT_CREATION
        }
        if LOCATION_PROPERTY not in metadata.properties and _is_in(metadata.location, there.base):
            wanted[LOCATION_PROPERTY] = metadata.location
        for name, value in wanted.items():
            old = metadata.properties.get(name)
            if old != value:
                yield Difference(Kind.CHANGE, "table-property", self.thing, name, old, value)

    def _location(self, there: TableThere, metadata: TableMetadata) -> Iterator[Difference]:
        made = metadata.properties.get(LOCATION_PROPERTY)
        moved = made is not None and not same_place(made, metadata.location)
        if moved or not _is_in(metadata.location, there.base):
            yield Difference(
                Kind.NEVER,
                "location-moved",
                self.thing,
                "location",
                metadata.location,
                made if moved else there.base,
                "rows would lie in two places",
                "set the table's location back in its catalog; or, if it was meant, correct storage in domain.yaml, "
                f"and the table's property {LOCATION_PROPERTY}",
            )

    def _change(self, clients: Clients, decide: Callable[[IcebergTable, TableThere], TableChange | None]) -> None:
        there, product = self.read(clients), self.subject.product

        def unless_held(table: IcebergTable) -> TableChange | None:
            change = decide(table, there)
            if change is not None:
                check_not_held(table, product)
            return change

        change_table(clients.catalog(self.subject.domain), product, unless_held)

    def _documented(self, table: IcebergTable, there: TableThere) -> TableChange | None:
        number = there.contract.version if there.contract else 0
        docs = changed_docs(table.schema(), self.subject.product.schema, number, self._verdicts(there))
        if not docs:
            return None
        update = table.update_schema()
        for name, (_, doc) in docs.items():
            update.update_column(name, doc=doc)
        updates, _ = update._commit()  # noqa: SLF001 - the staged updates without pyiceberg's own retries
        same = AssertCurrentSchemaId.model_validate({"current-schema-id": table.metadata.current_schema_id})
        return TableChange((same,), updates)

    def _laid_out(self, table: IcebergTable, _: TableThere) -> TableChange | None:
        change = layout_change(self.subject.product.contract, table.schema(), table.metadata)
        return TableChange(change.requirements, change.updates) if change else None


def _has(table: IcebergTable, difference: Difference) -> bool:
    return table.properties.get(difference.what) == difference.new


def _is_in(location: str, base: str | None) -> bool:
    return base is None or lies_in(location, base)
