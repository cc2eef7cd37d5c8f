"""A mesh's products compared with what is registered and with the tables as they are. Nothing is written.

A product that has no version yet is new, and its catalog is not even opened.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.compatibility import check, check_contracts
from headrace.schemas.errors import NotApplied, ProductStopped, SchemaError
from headrace.schemas.evolution import step
from headrace.schemas.masks import Mask
from headrace.schemas.product import Compatibility
from headrace.schemas.registry import Registry
from headrace.selfserve.comparison import Comparison, ProductFinding
from headrace.sinks.evolution import followed_version
from headrace.streams.masked import masks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.types import NestedField

    from headrace.schemas.compatibility import Finding
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema

__all__ = ["against_live"]


def against_live(mesh: Mesh) -> Comparison:
    """Compare the mesh's products with the versions of their subjects and with their tables.

    A version that no table could follow, or a damaged table, is noted, and the other products are compared all the
    same.

    Raises:
        Unavailable: if the registry or a catalog does not answer, or refuses the credentials.
        SettingsError: if a secret is missing, or a catalog's properties make no sense.
    """
    findings: list[ProductFinding] = []
    unread: list[SchemaError | ProductStopped] = []
    compared = 0
    with Registry(mesh.environment.registry_config()) as registry:
        live = _Live(mesh, registry)
        for product in mesh.products:
            try:
                found = live.findings_of(product)
            except (SchemaError, ProductStopped) as error:
                unread.append(error)
                continue
            if found is not None:
                compared += 1
                findings += found
    return Comparison(tuple(findings), tuple(unread), compared, compared, all_must_be_read=True)


class _Live:
    def __init__(self, mesh: Mesh, registry: Registry) -> None:
        self._mesh = mesh
        self._registry = registry
        self._catalogs: dict[str, Catalog] = {}

    def findings_of(self, product: Product) -> tuple[ProductFinding, ...] | None:
        """Return what is found of a product; None: it was never applied."""
        versions = self._registry.versions(product.subject)
        if not versions:
            return None
        table = self._table(product)
        past: Mapping[str, Mask] = masks_of(table) if table is not None else {}
        level = self._level(product)
        found: dict[Finding, tuple[int, ...]] = {}
        if not self._is_newest(product, versions):
            nulled = frozenset(
                path for path, mask in (*past.items(), *product.masks.items()) if mask is Mask.REPLACE_WITH_NULL
            )
            columns = _columns(table, versions, nulled) if table is not None else None
            schemas = [version.schema for version in versions]
            for mode in dict.fromkeys((product.contract.compatibility, level)):
                for each in check(schemas, product.schema, mode, nulled=nulled, columns=columns).findings:
                    # What both levels find is told once, against all versions that either looks at.
                    key = replace(each, against=())
                    found[key] = tuple(sorted({*found.get(key, ()), *each.against}))
        contract = replace(product.contract, compatibility=level)
        before = replace(product, contract=contract, schema=versions[-1].schema, masks=MappingProxyType(past))
        return (
            *(ProductFinding(product.name, _named(versions, against), each) for each, against in found.items()),
            *(ProductFinding(product.name, "what is applied", each) for each in check_contracts(before, product)),
        )

    def _is_newest(self, product: Product, versions: Sequence[RegisteredSchema]) -> bool:
        held = self._registry.lookup(product.subject, product.schema)
        return held is not None and held.version == versions[-1].version

    def _level(self, product: Product) -> Compatibility:
        try:
            return Compatibility(self._registry.compatibility(product.subject))
        except ValueError:
            return product.contract.compatibility

    def _table(self, product: Product) -> Table | None:
        domain = self._mesh.domain_of(product)
        if domain.name not in self._catalogs:
            self._catalogs[domain.name] = open_catalog(self._mesh.environment, domain)
        try:
            return load_table(self._catalogs[domain.name], product)
        except NotApplied:
            return None


def _columns(table: Table, versions: Sequence[RegisteredSchema], nulled: frozenset[str]) -> tuple[NestedField, ...]:
    """Return the table's columns once it has followed the versions that wait for it."""
    columns: tuple[NestedField, ...] = table.schema().fields
    followed = followed_version(table)
    for version in versions:
        if version.version > followed:
            columns = step(columns, version.schema.record, nulled).columns
    return columns


def _named(versions: Sequence[RegisteredSchema], positions: Sequence[int]) -> str:
    numbers = [str(versions[position - 1].version) for position in positions]
    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
