"""How a table is laid out: its partition spec and its sort order, as a contract asks for them. Pure.

A contract names fields by their paths in its own Avro schema; a table names columns by id. So every function here takes
the Iceberg schema in which the contract's paths hold: the schema of a new table, or that of an existing one once it has
followed the contract's version. A column that was renamed since keeps its id, and with it its partitions.

Two specs are the same if they have the same transforms of the same columns, in whatever order and under whatever names:
order and names are seen in paths and in nothing that is read. Spec ids, order ids and field ids are the table's own.

Sources: Iceberg table specification, "Partitioning", "Partition Evolution", "Sorting".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.table.update import (
    AddPartitionSpecUpdate,
    AddSortOrderUpdate,
    AssertCurrentSchemaId,
    AssertDefaultSortOrderId,
    AssertDefaultSpecId,
    AssertLastAssignedPartitionId,
    SetDefaultSortOrderUpdate,
    SetDefaultSpecUpdate,
)
from pyiceberg.transforms import IdentityTransform, Transform, VoidTransform
from pyiceberg.types import NestedField, StructType

from headrace.schemas.errors import SchemaError
from headrace.schemas.transforms import suffix_of, transform_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.schema import Schema
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.update import TableRequirement, TableUpdate

    from headrace.schemas.product import Contract


def column_at(schema: Schema, path: str) -> NestedField | None:
    """Return the column at a dotted path through structs; None: there is none. Lists and maps are not entered."""
    fields, found = schema.fields, None
    for name in path.split("."):
        found = next((field for field in fields if field.name == name), None)
        if found is None:
            return None
        fields = found.field_type.fields if isinstance(found.field_type, StructType) else ()
    return found


def path_of(schema: Schema, field_id: int) -> tuple[str, ...] | None:
    """Return the names that lead to a column through structs; None: there is none, or it lies in a list or map."""
    return _path_in(schema.fields, field_id)


def _path_in(fields: Iterable[NestedField], field_id: int) -> tuple[str, ...] | None:
    for field in fields:
        if field.field_id == field_id:
            return (field.name,)
        if isinstance(field.field_type, StructType):
            below = _path_in(field.field_type.fields, field_id)
            if below is not None:
                return (field.name, *below)
    return None


def partition_spec(contract: Contract, schema: Schema) -> PartitionSpec:
    """Return the partition spec of a new table, for its `create_table`.

    Args:
        contract: the product's contract, checked.
        schema: the schema of the new table: the contract's paths are its columns.

    Raises:
        SchemaError: if the schema lacks a column that the contract names.
    """
    return PartitionSpec(*_fields(contract, schema, {}, PARTITION_FIELD_ID_START))


def sort_order(contract: Contract, schema: Schema) -> SortOrder:
    """Return the sort order of a new table, for its `create_table`: the unsorted order if the contract asks for none.

    Args and raises: as `partition_spec`.
    """
    if not contract.sort_by:
        return UNSORTED_SORT_ORDER
    return SortOrder(
        *(
            SortField(
                _column(schema, each.path).field_id,
                IdentityTransform(),
                SortDirection.DESC if each.descending else SortDirection.ASC,
                NullOrder.NULLS_FIRST if each.nulls_first else NullOrder.NULLS_LAST,
            )
            for each in contract.sort_by
        )
    )


def same_partitions(one: PartitionSpec, other: PartitionSpec) -> bool:
    """Tell whether two specs make the same partitions. A void field makes none."""
    return _partitions(one) == _partitions(other)


def same_sorting(one: SortOrder, other: SortOrder) -> bool:
    """Tell whether two sort orders put rows in the same order."""
    return one.fields == other.fields


def described_spec(spec: PartitionSpec, schema: Schema) -> tuple[str, ...]:
    """Return a spec for people, with the names that the schema gives its columns: ``day(placed_at)``, ``country``."""
    return tuple(
        _described(field.transform, field.source_id, schema)
        for field in spec.fields
        if not isinstance(field.transform, VoidTransform)
    )


def described_order(order: SortOrder, schema: Schema) -> tuple[str, ...]:
    """Return a sort order for people, with the names that the schema gives its columns: ``total desc nulls last``."""
    return tuple(
        f"{_described(field.transform, field.source_id, schema)} {field.direction.value} "
        f"{field.null_order.value.replace('-', ' ')}"
        for field in order.fields
    )


@dataclass(frozen=True, slots=True)
class LayoutChange:
    """What makes an existing table's layout the contract's. It changes no row: only what is written from now on.

    Attributes:
        partitions: the spec before and after, described; None: it stays.
        sorting: the sort order before and after, described; None: it stays.
        updates: what to commit.
        requirements: what must still hold of the table then.
    """

    partitions: tuple[tuple[str, ...], tuple[str, ...]] | None
    sorting: tuple[tuple[str, ...], tuple[str, ...]] | None
    updates: tuple[TableUpdate, ...]
    requirements: tuple[TableRequirement, ...]

    def __bool__(self) -> bool:
        return bool(self.updates)


def layout_change(contract: Contract, schema: Schema, metadata: TableMetadata) -> LayoutChange:
    """Compare an existing table with its contract; an empty change is false.

    Args:
        contract: the product's contract, checked.
        schema: the table's schema once it has followed the contract's version, by the table's own ids: a plan gives the
            predicted one, and whoever commits gives the table's current one.
        metadata: the table as it is.

    Raises:
        SchemaError: if the schema lacks a column that the contract names: its version is not in the table yet.
    """
    spec, wanted = metadata.spec(), _next_spec(contract, schema, metadata)
    order, wanted_order = metadata.sort_order(), _next_order(contract, schema, metadata)
    updates: list[TableUpdate] = []
    requirements: list[TableRequirement] = []
    partitions = sorting = None
    if not same_partitions(spec, wanted):
        partitions = (described_spec(spec, schema), described_spec(wanted, schema))
        updates += _spec_updates(wanted, metadata)
        requirements += [
            AssertDefaultSpecId.model_validate({"default-spec-id": metadata.default_spec_id}),
            AssertLastAssignedPartitionId.model_validate({"last-assigned-partition-id": metadata.last_partition_id}),
        ]
    if not same_sorting(order, wanted_order):
        sorting = (described_order(order, schema), described_order(wanted_order, schema))
        updates += _order_updates(wanted_order, metadata)
        requirements.append(
            AssertDefaultSortOrderId.model_validate({"default-sort-order-id": metadata.default_sort_order_id})
        )
    if updates:
        requirements.append(AssertCurrentSchemaId.model_validate({"current-schema-id": metadata.current_schema_id}))
    return LayoutChange(partitions, sorting, tuple(updates), tuple(requirements))


def _spec_updates(spec: PartitionSpec, metadata: TableMetadata) -> list[TableUpdate]:
    if any(each.spec_id == spec.spec_id for each in metadata.partition_specs):
        return [SetDefaultSpecUpdate.model_validate({"spec-id": spec.spec_id})]
    # The table may give it another id.
    return [AddPartitionSpecUpdate(spec=spec), SetDefaultSpecUpdate.model_validate({"spec-id": -1})]


def _order_updates(order: SortOrder, metadata: TableMetadata) -> list[TableUpdate]:
    if any(each.order_id == order.order_id for each in metadata.sort_orders):
        return [SetDefaultSortOrderUpdate.model_validate({"sort-order-id": order.order_id})]
    return [
        AddSortOrderUpdate.model_validate({"sort-order": order}),
        SetDefaultSortOrderUpdate.model_validate({"sort-order-id": -1}),
    ]


def _next_spec(contract: Contract, schema: Schema, metadata: TableMetadata) -> PartitionSpec:
    """Return the table's own spec that the contract asks for, or a new one with the ids that the table would give it.

    A transform of a column that any of its specs has had keeps its field id, as the specification wants it.
    """
    fresh = partition_spec(contract, schema)
    for spec in (metadata.spec(), *metadata.partition_specs):
        if same_partitions(spec, fresh):
            return spec
    known = {_meaning(field): field for spec in metadata.partition_specs for field in spec.fields}
    next_id = 1 + (metadata.last_partition_id or PARTITION_FIELD_ID_START - 1)
    fields = _fields(contract, schema, known, next_id)
    return PartitionSpec(*fields, spec_id=max(spec.spec_id for spec in metadata.partition_specs) + 1)


def _next_order(contract: Contract, schema: Schema, metadata: TableMetadata) -> SortOrder:
    fresh = sort_order(contract, schema)
    if fresh.is_unsorted:
        # The specification keeps 0 for it, whether or not the table lists it.
        return fresh
    for order in metadata.sort_orders:
        if same_sorting(order, fresh):
            return order
    return SortOrder(*fresh.fields, order_id=max((order.order_id for order in metadata.sort_orders), default=0) + 1)


def _fields(
    contract: Contract, schema: Schema, known: Mapping[tuple[int, str], PartitionField], next_id: int
) -> list[PartitionField]:
    """Return the fields of a spec; those that are known keep their ids, and their names if these are free."""
    fields: list[PartitionField] = []
    for each in contract.partition_by:
        transform, source_id = transform_of(each.transform), _column(schema, each.path).field_id
        if transform is None:
            raise SchemaError("a transform that headrace does not know", path=each.path)
        earlier = known.get((source_id, str(transform)))
        name = earlier.name if earlier else each.path + suffix_of(transform)
        field = PartitionField(source_id, earlier.field_id if earlier else next_id, transform, name)
        next_id += 0 if earlier else 1
        while _is_taken(field, schema, fields):
            field = field.model_copy(update={"name": f"{field.name}_partition"})
        fields.append(field)
    return fields


def _is_taken(field: PartitionField, schema: Schema, others: Iterable[PartitionField]) -> bool:
    """Tell whether a name is that of another partition or column, which neither Iceberg nor SQL allows."""
    name = field.name.lower()
    if any(other.name.lower() == name for other in others):
        return True
    if isinstance(field.transform, IdentityTransform) and field.name == ".".join(
        path_of(schema, field.source_id) or ()
    ):
        return False
    return any(column.lower() == name for column in schema.column_names)


def _column(schema: Schema, path: str) -> NestedField:
    found = column_at(schema, path)
    if found is None:
        raise SchemaError("the table has no such column yet", path=path, hint="let it follow the contract's version")
    return found


def _meaning(field: PartitionField) -> tuple[int, str]:
    return field.source_id, str(field.transform)


def _partitions(spec: PartitionSpec) -> frozenset[tuple[int, str]]:
    return frozenset(_meaning(field) for field in spec.fields if not isinstance(field.transform, VoidTransform))


def _described(transform: Transform[Any, Any], source_id: int, schema: Schema) -> str:
    column = ".".join(path_of(schema, source_id) or (f"#{source_id}",))
    return column if isinstance(transform, IdentityTransform) else f"{transform}({column})"
