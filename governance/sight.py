"""One look at everything: the cluster's topics, their messages' schema ids, the registry's subjects, the tables.

The order of the steps keeps what is made in order from looking like a breach: a schema is registered before a message
carries its id, and a version before its table follows it, masks it and marks it as applied. So messages are read first,
then the registry, then the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.governance.observing import Promise, TopicState
from headrace.governance.rules import PAST_APPLY, violations
from headrace.schemas.errors import HeadraceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.governance.lake import Lake
    from headrace.governance.observing import Known
    from headrace.governance.registrations import Registration, Registrations
    from headrace.governance.schema_ids import SchemaIds
    from headrace.schemas.mesh import Mesh
    from headrace.schemas.product import Product
    from headrace.streams.admin import Admin, Topic

# Reading a long log must not keep the rest from being seen.
READ_BUDGET_S = 1.0
# From registering a version to marking it, apply makes two commits.
SECOND_LOOK_S = 0.7


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen.

    Attributes:
        states: one for each product, for each foreign topic, and for each topic that was known and is gone.
        complete: whether every log was read to the end that it had when the look began.
        faults: why a product's table could not be looked at; its state is what was known of it before.
        paused_s: how many seconds of the look were spent waiting for a second one.
    """

    states: tuple[TopicState, ...]
    complete: bool
    faults: tuple[HeadraceError, ...]
    paused_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Eyes:
    """What the scanner looks with. ``pause`` waits so many seconds."""

    admin: Admin
    schema_ids: SchemaIds
    registrations: Registrations
    lake: Lake
    pause: Callable[[float], object]

    def look(self, mesh: Mesh, known: Known) -> Sight:
        """Look at everything once.

        Raises:
            Unavailable: if broker or registry does not answer.
        """
        products = {product.topic: product for product in mesh.all_products}
        names = self.schema_ids.names()
        foreign = foreign_topics(names, mesh)
        topics = self.admin.find(*sorted(foreign | (names & products.keys())))
        logs = {name: topic for name, topic in topics.items() if name in products}
        states = {name: known.state(name) for name in logs}
        seen = {name: state.seen for name, state in states.items() if state.topic_id == topics[name].id}
        complete = self.schema_ids.read(logs, seen, READ_BUDGET_S)
        registered = {name: self.registrations.look(product) for name, product in products.items()}
        found = [
            self._state(product, topics.get(name), registered[name], known.state(name))
            for name, product in products.items()
        ]
        faults: list[HeadraceError] = []
        first = [self._with_table(mesh, state, faults) for state in found]
        doubtful = {state.topic for state in first if _past_apply(state) - _past_apply(known.state(state.topic))}
        if doubtful:
            # It may be `apply` that has registered the version, and its mark is about to come.
            self.pause(SECOND_LOOK_S)
        seen_states = [
            self._with_table(mesh, state, faults, fresh=True) if state.topic in doubtful else state for state in first
        ]
        others = [TopicState(name, topic_id=topics[name].id) for name in sorted(foreign & topics.keys())]
        there = products.keys() | {state.topic for state in others}
        gone = [TopicState(name) for name in sorted(known.topics() - there)]
        paused_s = SECOND_LOOK_S if doubtful else 0.0
        return Sight((*seen_states, *others, *gone), complete, tuple(faults), paused_s)

    def _state(
        self, product: Product, topic: Topic | None, registration: Registration, known: TopicState
    ) -> TopicState:
        contract = product.contract
        return TopicState(
            topic=product.topic,
            product=str(product.name),
            topic_id=topic.id if topic is not None else None,
            seen=self.schema_ids.seen(product.topic),
            contract=Promise(
                contract.version,
                str(contract.compatibility),
                registration.contract_id,
                tuple(sorted(product.masks)),
            ),
            subject=registration.subject,
            lake=known.lake,
        )

    def _with_table(
        self, mesh: Mesh, state: TopicState, faults: list[HeadraceError], *, fresh: bool = False
    ) -> TopicState:
        try:
            return replace(state, lake=self.lake.look(mesh, mesh.product(str(state.product)), fresh=fresh))
        except HeadraceError as fault:
            faults.append(fault)
            return state


def _past_apply(state: TopicState) -> frozenset[str]:
    return frozenset(violation.matter for violation in violations(state) if violation.rule == PAST_APPLY)


def foreign_topics(names: frozenset[str], mesh: Mesh) -> frozenset[str]:
    """Return the topics behind the environment's prefix that belong to no product.

    Kafka's own and its tools' topics (``__consumer_offsets``, ``_schemas``), the products' dead letters, and headrace's
    own belong here.
    """
    prefix = mesh.environment.topic_prefix
    ours = {name for product in mesh.all_products for name in (product.topic, product.dead_letter_topic)}
    return frozenset(
        name for name in names - ours if name.startswith(prefix) and not name.startswith(("_", f"{prefix}headrace."))
    )
