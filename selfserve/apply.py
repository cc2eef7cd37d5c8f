"""``headrace apply``: make what the mesh's files promise, as often as one likes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.governance.applied import mark_applied
from headrace.producers.positions import positions_topic
from headrace.schemas.catalog import load_table, open_catalog
from headrace.schemas.errors import Held, NotApplied
from headrace.schemas.policy import masks_over
from headrace.schemas.registry import Registry
from headrace.sinks.evolution import follow, followed_version
from headrace.sinks.hold import check_not_held
from headrace.sinks.tables import ensure_table
from headrace.streams.admin import Admin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.policy import PiiPolicy
    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema

# A dead letter waits for a person: three months outlast any absence.
DEAD_LETTER_RETENTION_MS = 90 * 24 * 3_600_000
# Letters are few, and one partition shows them in the order in which they were refused.
DEAD_LETTER_PARTITIONS = 1
# A letter is its message and six headers, of which the longest holds a topic's name of up to 249 bytes.
DEAD_LETTER_EXTRA_BYTES = 16 * 1024
_MAX_BYTES = "max.message.bytes"
_RETENTION = "retention.ms"


@dataclass(frozen=True, slots=True)
class Applied:
    """What a run of `apply` did.

    Attributes:
        made: what was made or changed, in order, as people call it: ``topic operations.flights``.
        found: how many things were there already.
        warnings: differences that apply does not mend, with what to do.
        held: products that were not changed because an operator holds them; each is among the warnings too.
    """

    made: tuple[str, ...]
    found: int
    warnings: tuple[str, ...]
    held: tuple[str, ...] = ()


def apply(mesh: Mesh, progress: Callable[[str], None]) -> Applied:
    """Make the topics, dead-letter topics, subjects, namespaces and tables of every product, where they are missing.

    Nothing is ever deleted. Schemas are registered here and nowhere else; the subject's level is set first, so that it
    holds for the first registration already. A run that fails half way may simply be repeated. A product whose table
    would change, and which an operator holds, is left as it is and told of.

    Args:
        mesh: the mesh in its environment.
        progress: is told each thing that was made.

    Raises:
        Unavailable: if broker, registry or a catalog does not answer, or a catalog refuses the credentials.
        UserError: if the registry finds a schema incompatible, or a server refuses what the contract asks for.
        SettingsError: if a secret is missing, or the broker refuses the credentials.
    """
    run = _Run(progress)
    environment = mesh.environment
    admin = Admin(environment.kafka_config())
    _apply_topics(mesh, admin, run)
    with Registry(environment.registry_config()) as registry:
        for domain in mesh.all_domains:
            catalog = open_catalog(environment, domain)
            for product in domain.products.values():
                try:
                    _apply_product(catalog, product, mesh.policy, registry, run)
                except Held as error:
                    run.held(product, error)
    return run.applied()


class _Run:
    """Collects what a run did and tells of it."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._made: list[str] = []
        self._found = 0
        self._warnings: list[str] = []
        self._held: list[str] = []

    def note(self, thing: str, *, made: bool) -> None:
        if not made:
            self._found += 1
            return
        self._made.append(thing)
        self._progress(thing)

    def warn(self, warning: str) -> None:
        self._warnings.append(warning)

    def held(self, product: Product, error: Held) -> None:
        name = str(product.name)
        self._held.append(name)
        self.warn(f"{name} was not changed because it is {error.what}; headrace release {name}, then headrace apply")

    def applied(self) -> Applied:
        return Applied(tuple(self._made), self._found, tuple(self._warnings), tuple(self._held))


def _apply_topics(mesh: Mesh, admin: Admin, run: _Run) -> None:
    positions = positions_topic(mesh.environment.topic_prefix)
    _apply_topic(admin, positions, 1, {"cleanup.policy": "compact"}, run)
    for product in mesh.all_products:
        contract = product.contract
        wanted = {} if contract.retention_ms is None else {_RETENTION: str(contract.retention_ms)}
        _apply_topic(admin, product.topic, contract.partitions, wanted, run)
        letter_bytes = int(admin.config(product.topic)[_MAX_BYTES]) + DEAD_LETTER_EXTRA_BYTES
        letters = {_RETENTION: str(DEAD_LETTER_RETENTION_MS), _MAX_BYTES: str(letter_bytes)}
        _apply_topic(admin, product.dead_letter_topic, DEAD_LETTER_PARTITIONS, letters, run)


def _apply_topic(admin: Admin, name: str, partitions: int, wanted: Mapping[str, str], run: _Run) -> None:
    made = admin.create(name, partitions=partitions, config=wanted)
    changes: dict[str, str] = {}
    if not made:
        there = admin.topic(name).partitions
        if there != partitions:
            run.warn(
                f"topic {name} has {there} partitions and the contract says {partitions}: apply does not change that, "
                "because keys would move; correct the contract, or publish a product of a new name"
            )
        config = admin.config(name)
        changes = {setting: value for setting, value in wanted.items() if config.get(setting) != value}
        if changes:
            admin.set_config(name, changes)
    run.note(f"topic {name}" + (f" ({', '.join(sorted(changes))})" if changes else ""), made=made or bool(changes))


def _apply_product(catalog: Catalog, product: Product, policy: PiiPolicy, registry: Registry, run: _Run) -> None:
    """Make subject and table, one after the other: the auditor wonders about a version that no table marks as applied.

    Raises:
        Held: if the table would have to follow, and an operator holds it.
    """
    if registry.lookup(product.subject, product.schema) is None:
        # Nobody should publish in a version that the table must not follow yet.
        with suppress(NotApplied):
            check_not_held(load_table(catalog, product), product)
    registered = _apply_subject(product, registry, run)
    versions = registry.versions(product.subject)
    masks = masks_over(product.masks, policy, [version.schema for version in versions])
    _apply_table(catalog, replace(product, masks=masks), versions, registered, run)


def _apply_subject(product: Product, registry: Registry, run: _Run) -> RegisteredSchema:
    level = product.contract.compatibility
    if registry.compatibility(product.subject) != level:
        run.note(f"level {level} of subject {product.subject}", made=True)
    # Set in any case: an equal level may be the registry's own, which somebody else may change.
    registry.set_compatibility(product.subject, level)
    there = registry.lookup(product.subject, product.schema)
    registered = there or registry.register(product.subject, product.schema)
    run.note(f"version {registered.version} of subject {product.subject}", made=there is None)
    return registered


def _apply_table(
    catalog: Catalog,
    product: Product,
    versions: Sequence[RegisteredSchema],
    registered: RegisteredSchema,
    run: _Run,
) -> None:
    """Make the table, or have it follow the subject's versions: the very commit that a sink would make later.

    The contract's own version is marked as applied, whoever has registered it; the others are as they were.
    """
    try:
        before = followed_version(load_table(catalog, product))
        made = False
    except NotApplied:
        before = followed_version(ensure_table(catalog, product))
        made = True
    after = followed_version(follow(catalog, product, versions))
    marked = mark_applied(catalog, product, registered.id)
    changed = after != before or marked
    news = f" (version {after if after != before else registered.version})" if changed and not made else ""
    run.note(f"table {product.name}{news}", made=made or changed)
