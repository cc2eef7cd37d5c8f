"""What one product's sink is made from, and how it opens what it works with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from headrace.schemas.catalog import open_catalog
from headrace.schemas.errors import UserError
from headrace.sinks.batch import Limits
from headrace.sinks.share import Share
from headrace.sinks.watch import Unwatched
from headrace.streams.admin import Admin
from headrace.streams.reader import KafkaReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyiceberg.catalog import Catalog

    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.schemas.registry import Registry
    from headrace.sinks.landing import Step
    from headrace.sinks.watch import Watcher
    from headrace.streams.reader import Rebalance

__all__ = ["UNWATCHED", "Admins", "Setting", "check_instance_id"]

# A sink asks again, so it may give up sooner than people: a stop waits for the request that is under way.
ADMIN_TIMEOUT_S = 5.0
# A restart in a cluster of machines takes some ten seconds, and a slow one must not be taken for a death.
STATIC_SESSION_MS = 45_000

# As Kafka's names of topics; these two it refuses.
_INSTANCE_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")

UNWATCHED = Unwatched()
_ALONE = Share()


def unobserved(step: Step) -> None:
    """Nobody watches the steps."""


def check_instance_id(instance_id: str | None) -> None:
    """Refuse an instance id that Kafka does not take.

    Raises:
        UserError: it takes letters, digits, dots, underscores and hyphens.
    """
    if instance_id is not None and not _INSTANCE_ID.fullmatch(instance_id):
        raise UserError(
            "this is no instance id that Kafka takes",
            where="--instance-id",
            hint="letters, digits, dots, underscores and hyphens, at most 249, such as sink-0",
        )


class Admins:
    """The client that asks the cluster: one for all products of a process, since each takes four threads.

    Safe for several threads.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._config: Mapping[str, str] = {}
        self._admin: Admin | None = None

    def open(self, config: Mapping[str, str]) -> Admin:
        """Return the client of these properties; a new one when they are others than the last time.

        Raises:
            SettingsError: if a property is unknown or has a wrong value.
        """
        with self._lock:
            if self._admin is None or config != self._config:
                self._admin = Admin(config, request_timeout_s=ADMIN_TIMEOUT_S)
                self._config = config
            return self._admin


@dataclass(frozen=True, slots=True)
class Setting:
    """What a product's sink is made from.

    Attributes:
        mesh: the mesh.
        product: the product.
        registry: the schema registry, shared between products.
        hmac_key: the mesh's secret.
        watcher: is told how the sink gets on.
        catalog: the catalog of the product's domain; None: the environment's.
        observe: is told each step of a landing before it is done, from the landing's thread.
        share: the memory that the product may take.
        instance_id: the static member that its reader is; None: it joins the group as any other.
        admins: the client that asks the cluster; products of one process share it.
        look_again_s: how often it is looked whether a fault was mended; None: it ends on one.
    """

    mesh: Mesh
    product: Product
    registry: Registry
    hmac_key: bytes
    watcher: Watcher = UNWATCHED
    catalog: Catalog | None = None
    observe: Callable[[Step], None] = unobserved
    share: Share = _ALONE
    instance_id: str | None = None
    admins: Admins = field(default_factory=Admins)
    look_again_s: float | None = None

    @property
    def limits(self) -> Limits:
        """When a batch is due: the environment's interval, else the contract's latency."""
        interval_s, freshness_s = self.mesh.environment.commit_interval_s, self.product.contract.freshness_s
        age_s = freshness_s if interval_s is None else interval_s
        return Limits(age_s, self.share.batch_bytes, scattered_age_s=freshness_s)

    def open_catalog(self) -> Catalog:
        """Open the catalog of the product's domain."""
        return self.catalog or open_catalog(self.mesh.environment, self.mesh.domain_of(self.product))

    def open_admin(self) -> Admin:
        """Return a client that asks the cluster."""
        return self.admins.open(self.mesh.environment.kafka_config())

    def open_reader(self, rebalance: Rebalance) -> KafkaReader:
        """Join the product's group; what the environment sets for Kafka's client holds before all else."""
        product, share = self.product, self.share
        config = {"queued.max.messages.kbytes": str(share.fetched_bytes >> 10)}
        if self.instance_id is not None:
            # Closed or killed, such a member does not leave the group: whoever joins with its id goes on with its
            # partitions, and no other worker's are touched. Only after this time do others take them over.
            config |= {"group.instance.id": self.instance_id, "session.timeout.ms": str(STATIC_SESSION_MS)}
        config |= self.mesh.environment.kafka_config()
        return KafkaReader(config, product.topic, product.sink_group, rebalance, poll_bytes=share.batch_bytes)
