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
from headrace.schemas.product import Compatibility
from headrace.schemas.registered import RegisteredSchema, UnreadableSchema
from headrace.schemas.registry import Registry
from headrace.schemas.verdicts import TablePast, Verdicts, pending
from headrace.selfserve.comparison import Comparison, ProductFinding
from headrace.selfserve.resources.subject import NO_ID
from headrace.sinks.evolution import followed_version
from headrace.streams.masked import masks_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from headrace.schemas.compatibility import Finding
    from headrace.schemas.evolution import Step
    from headrace.schemas.masks import Mask
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product

__all__ = ["against_live"]


def against_live(mesh: Mesh) -> Comparison:
    """Compare the mesh's products with the versions of their subjects and with their tables.

    A version that cannot be read, or a damaged table, is noted, and all else is compared all the same.

    Raises:
        Unavailable: if the registry or a catalog does not answer, or refuses the credentials.
        SettingsError: if a secret is missing, or a catalog's properties make no sense.
    """
    findings: list[ProductFinding] = []
    compared = 0
    with Registry(mesh.environment.registry_config()) as registry:
        live = _Live(mesh, registry)
        for product in mesh.products:
            try:
                found = live.findings_of(product)
            except (SchemaError, ProductStopped) as error:
                live.unread.append(error)
                continue
            if found is not None:
                compared += 1
                findings += found
    return Comparison(tuple(findings), tuple(live.unread), compared, compared, all_must_be_read=True)


class _Live:
    def __init__(self, mesh: Mesh, registry: Registry) -> None:
        self._mesh = mesh
        self._registry = registry
        self._catalogs: dict[str, Catalog] = {}
        # What could not be compared.
        self.unread: list[SchemaError | ProductStopped] = []

    def findings_of(self, product: Product) -> tuple[ProductFinding, ...] | None:
        """Return what is found of a product; None: it was never applied."""
        versions = self._registry.all_versions(product.subject)
        # The registry compares with those that are not deleted alone; a table has followed the others all the same.
        live = self._registry.live(product.subject)
        self.unread += [
            SchemaError(each.what, where=f"version {each.version} of subject {each.subject}", hint=each.hint or None)
            for each in versions
            if isinstance(each, UnreadableSchema) and each.version in live
        ]
        readable = [each for each in versions if isinstance(each, RegisteredSchema)]
        if not readable:
            return None
        known = [each for each in readable if each.version in live]
        newest = (known or readable)[-1]
        table = self._table(product)
        level = self._level(product)
        found: dict[Finding, tuple[int, ...]] = {}
        held = self._registry.lookup(product.subject, product.schema)
        if held is None or held.version != newest.version:
            step = _step(product, self._mesh.policy, versions, table)
            schemas = [version.schema for version in known]
            for mode in dict.fromkeys((product.contract.compatibility, level)):
                for each in check(schemas, product.schema, mode, step=step).findings:
                    # What both levels find is told once, against all versions that either looks at.
                    key = replace(each, against=())
                    found[key] = tuple(sorted({*found.get(key, ()), *each.against} - {0}))
        past: Mapping[str, Mask] = masks_of(table) if table is not None else {}
        contract = replace(product.contract, compatibility=level)
        before = replace(product, contract=contract, schema=newest.schema, masks=MappingProxyType(past))
        return (
            *(ProductFinding(product.name, _named(known, against), each) for each, against in found.items()),
            *(ProductFinding(product.name, "what is applied", each) for each in check_contracts(before, product)),
        )

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


def _step(
    product: Product, policy: PiiPolicy, versions: Sequence[RegisteredSchema | UnreadableSchema], table: Table | None
) -> Step:
    """Return what following the product's schema as a new version does to its table, as `plan` and the sink see it."""
    number = versions[-1].version + 1
    new = RegisteredSchema(NO_ID, number, product.subject, product.schema)
    verdicts = Verdicts.of(product, policy, (*versions, new))
    made = verdicts.lineage.steps[number]
    if table is None or made.refused:
        return made
    followed = min(followed_version(table), number - 1)
    past = TablePast.of(table.metadata)
    *_, last = pending(table.schema().fields, followed, verdicts, masks_of(table), past)
    return last.step


def _named(versions: Sequence[RegisteredSchema], positions: Sequence[int]) -> str:
    if not positions:
        return "what is applied"
    numbers = [str(versions[position - 1].version) for position in positions]
    return f"version{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
