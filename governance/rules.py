"""The mesh's rules, judged on one topic's state. Pure.

=========================  ====================================================================  ===================
rule                       broken by                                                             matter
=========================  ====================================================================  ===================
unknown-schema-id          messages with a schema id that is no version of the topic's subject   the schema id
contract-not-registered    a contract whose schema is no version of the subject                  contract's version
compatibility-differs      a level in force that is not the contract's                           the level in force
unmasked-pii               a field tagged as PII that the table does not mask                    the field's path
version-past-apply         a version that ``headrace apply`` has not registered                  the schema id
foreign-topic              a topic that belongs to no product                                    the topic's UUID
=========================  ====================================================================  ===================

One cause breaks one rule: what follows from another breach is left out, as each function says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from headrace.schemas.policy import is_masked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.governance.observing import TopicState, Version

__all__ = ["PAST_APPLY", "Violation", "violations"]

PAST_APPLY = "version-past-apply"


class Violation(NamedTuple):
    """A breach of a rule. Rule and matter tell it from others of its topic; the texts are for people.

    Attributes:
        rule: a stable kebab-case code.
        matter: what the rule speaks of.
        what: what is wrong, in one sentence.
        next: what to do about it.
    """

    rule: str
    matter: str
    what: str
    next: str


def violations(state: TopicState) -> frozenset[Violation]:
    """Return what of a topic's state is against the rules."""
    if state.product is None:
        return frozenset(_foreign_topic(state))
    return frozenset(
        violation
        for rule in (_unknown_schema_ids, _contract, _compatibility, _unmasked, _past_apply)
        for violation in rule(state)
    )


def _foreign_topic(state: TopicState) -> Iterator[Violation]:
    if state.topic_id is not None:
        yield Violation(
            "foreign-topic",
            state.topic_id,
            f"the topic {state.topic} belongs to no product",
            "delete it, or write a contract for it and run `headrace apply`",
        )


def _unknown_schema_ids(state: TopicState) -> Iterator[Violation]:
    """Leave out what follows from a contract that is not registered: its own id, and every id of an empty subject."""
    if state.subject is None:
        return
    known = {version.schema_id for version in state.subject.versions}
    if state.contract is not None and state.contract.schema_id is None and state.lake is not None:
        known |= set(state.lake.applied)
    for schema_id in sorted({each.schema_id for each in state.seen} - known):
        places = [each for each in state.seen if each.schema_id == schema_id]
        first = ", ".join(f"partition {each.kafka_partition} offset {each.first_offset}" for each in places)
        yield Violation(
            "unknown-schema-id",
            str(schema_id),
            f"messages carry the schema id {schema_id}, which is no version of {state.topic}-value (first: {first})",
            "stop their producer; the sink keeps them as dead letters",
        )


def _contract(state: TopicState) -> Iterator[Violation]:
    if state.contract is not None and state.contract.schema_id is None:
        yield Violation(
            "contract-not-registered",
            state.contract.version,
            f"the schema of contract {state.contract.version} is no version of its subject",
            "headrace apply",
        )


def _compatibility(state: TopicState) -> Iterator[Violation]:
    """Leave out a subject without versions: its level is the registry's own by then."""
    contract, subject = state.contract, state.subject
    if contract is None or subject is None or all(version.deleted for version in subject.versions):
        return
    if subject.compatibility != contract.compatibility:
        yield Violation(
            "compatibility-differs",
            subject.compatibility,
            f"the subject's level is {subject.compatibility}, the contract says {contract.compatibility}",
            "headrace apply",
        )


def _unmasked(state: TopicState) -> Iterator[Violation]:
    """Leave out what the table has not followed yet: following a version is what masks its fields."""
    if state.lake is None or state.subject is None:
        return
    followed = [version for version in state.subject.versions if version.version <= state.lake.schema_version]
    # What is tagged is a column: under the name that the newest version gives it, not under one that it gave up.
    newest = max(followed, key=lambda version: version.version, default=None)
    names = newest.pii if newest is not None else ()
    earlier = {path for version in followed for path in version.pii}
    tagged = {path: f"version {each.version}" for each in reversed(followed) for path in each.pii if path in names}
    if state.contract is not None and any(version.schema_id == state.contract.schema_id for version in followed):
        # What is tagged as well is told of above.
        own = (path for path in state.contract.masked if path not in earlier)
        tagged = dict.fromkeys(own, "the contract") | tagged
    for path, source in sorted(tagged.items()):
        if not is_masked(path, state.lake.masked):
            yield Violation(
                "unmasked-pii",
                path,
                f"{path} is personal data, as {source} says, and the table does not mask it",
                "headrace apply, then see since when it was not: rows written meanwhile show it",
            )


def _past_apply(state: TopicState) -> Iterator[Violation]:
    """Leave out the contract's own schema, which says what the files say, and versions that are deleted."""
    if state.lake is None or state.subject is None:
        return
    promised = {*state.lake.applied, state.contract.schema_id if state.contract else None}
    for version in state.subject.versions:
        if version.schema_id not in promised and not version.deleted:
            yield _past(version)


def _past(version: Version) -> Violation:
    return Violation(
        PAST_APPLY,
        str(version.schema_id),
        f"version {version.version} (schema id {version.schema_id}) was not registered by `headrace apply`",
        "forbid producers to register; delete the version softly, or put its schema into the mesh and `headrace apply`",
    )
