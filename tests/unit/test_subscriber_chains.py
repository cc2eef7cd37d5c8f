"""Chains of versions made at random: each event, read as each version, is what a model of a few lines says.

The model knows fields by numbers of its own. A name is free for a new field once no column of the table has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.streams.versions import lineage_of
from tests.support.versions import Subject, schema_of, seen_in_table, seen_in_topic, seen_one_by_one

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = "abcdef"
WIDER = {"int": "long", "float": "double"}
STOPS = "stops"


@dataclass(frozen=True)
class Member:
    """A field of a version: the number says which one it is, whatever its name."""

    number: int
    name: str
    kind: str
    optional: bool
    default: bool

    def value(self, salt: int) -> Any:
        if self.optional and salt % 3 == 0:
            return None
        return {"string": f"{self.number}-{salt}"}.get(self.kind, self.number * 100 + salt)

    def default_value(self) -> Any:
        return None if self.optional else {"string": f"default {self.number}"}.get(self.kind, -self.number)

    def avro(self, aliases: list[str]) -> dict[str, Any]:
        kind = ["null", self.kind] if self.optional else self.kind
        found: dict[str, Any] = {"name": self.name, "type": kind, "aliases": aliases}
        return {**found, "default": self.default_value()} if self.default else found


Members: TypeAlias = dict[int, Member]


@dataclass
class Scope:
    """A record's fields through the versions.

    Attributes:
        draw: draws what happens.
        now: the fields of the version that is made.
        columns: the columns that a table has then, by the names that they have there.
        aliases: the names that fields had, the last one first.
        renamed: the fields that get another name in the version that is made.
        versions: the fields of each version, and how its schema writes them.
    """

    draw: st.DrawFn
    now: Members = field(default_factory=dict)
    columns: Members = field(default_factory=dict)
    aliases: dict[int, list[str]] = field(default_factory=dict)
    renamed: set[int] = field(default_factory=set)
    versions: list[tuple[Members, list[dict[str, Any]]]] = field(default_factory=list)

    def step(self) -> None:
        """Make the next version."""
        before = {each.name for each in self.columns.values()}
        gone = self.columns.keys() - self.now.keys()
        for member in list(self.now.values()):
            change = self.draw(st.sampled_from([None, None, self.remove, self.rename, self.widen]))
            if change is not None:
                change(member, before)
        for number in sorted(gone):
            if self.draw(st.booleans()):
                # The name is the column's, and so is the type: it is the same field.
                self.now[number] = self.columns[number]
        if self.draw(st.booleans()):
            self.add(before)
        self.close()

    def add(self, before: set[str]) -> None:
        names = self.free(before)
        if names:
            kind = self.draw(st.sampled_from(["int", "float", "string", "long", "double"]))
            optional, default = self.draw(st.booleans()), self.draw(st.booleans())
            number = len(self.columns) + 1
            self.put(Member(number, self.draw(st.sampled_from(names)), kind, optional, default))

    def remove(self, member: Member, _: set[str]) -> None:
        if len(self.now) > 1:
            del self.now[member.number]

    def rename(self, member: Member, before: set[str]) -> None:
        names = self.free(before)
        if names:
            self.renamed.add(member.number)
            self.aliases[member.number] = [member.name, *self.aliases.get(member.number, [])]
            self.put(replace(member, name=self.draw(st.sampled_from(names))))

    def widen(self, member: Member, _: set[str]) -> None:
        self.put(replace(member, kind=WIDER.get(member.kind, member.kind), default=self.draw(st.booleans())))

    def put(self, member: Member) -> None:
        self.now[member.number] = self.columns[member.number] = member

    def free(self, before: set[str]) -> list[str]:
        taken = before | {each.name for each in self.columns.values()}
        return [name for name in NAMES if name not in taken]

    def close(self) -> None:
        """End a version. An alias of old stays where it is no other field's."""
        fresh = {number: self.aliases[number][:1] for number in self.renamed & self.now.keys()}
        taken = {each.name for each in self.columns.values()} | {name for names in fresh.values() for name in names}
        fields = []
        for each in self.now.values():
            kept = [name for name in self.aliases.get(each.number, []) if name not in taken]
            taken |= set(kept)
            fields.append(each.avro([*fresh.get(each.number, []), *kept]))
        self.versions.append((dict(self.now), fields))
        self.renamed.clear()


@st.composite
def scopes(draw: st.DrawFn, versions: int) -> Scope:
    scope = Scope(draw)
    for _ in range(draw(st.integers(1, 3))):
        scope.add(set())
    scope.close()
    for _ in range(versions - 1):
        scope.step()
    return scope


@dataclass
class Chain:
    """Versions whose events have fields, and a list of records with fields of their own."""

    outer: Scope
    inner: Scope
    lists: list[tuple[str, list[str]]]

    def subject(self) -> Subject:
        subject = Subject()
        parts = zip(self.outer.versions, self.inner.versions, self.lists, strict=True)
        for (_, outer), (_, inner), (name, aliases) in parts:
            items = {"type": "record", "name": "Line", "fields": inner}
            lines = {"name": name, "type": {"type": "array", "items": items}, "aliases": aliases}
            subject.add(schema_of(*outer, lines))
        return subject

    def event(self, written: int, salt: int) -> dict[str, Any]:
        lines = [record(self.inner.versions[written - 1][0], salt + line) for line in range(salt % 3)]
        return {**record(self.outer.versions[written - 1][0], salt), self.lists[written - 1][0]: lines}

    def expected(self, pinned: int, written: int, salt: int) -> Any:
        """Return what is seen of an event."""
        pairs = [(scope.versions[pinned - 1][0], scope.versions[written - 1][0]) for scope in (self.outer, self.inner)]
        if any(stop for read_as, source in pairs for stop in stops(read_as, source)):
            return STOPS
        (outer, source), (inner, below) = pairs
        lines = [read(inner, below, salt + line) for line in range(salt % 3)]
        return {"id": "e0", **read(outer, source, salt), self.lists[pinned - 1][0]: lines}


def record(members: Members, salt: int) -> dict[str, Any]:
    return {each.name: each.value(salt) for each in members.values()}


def stops(read_as: Members, source: Members) -> Iterator[bool]:
    for number, each in read_as.items():
        yield not each.default if number not in source else WIDER.get(each.kind) == source[number].kind


def read(read_as: Members, source: Members, salt: int) -> dict[str, Any]:
    return {
        each.name: source[number].value(salt) if number in source else each.default_value()
        for number, each in read_as.items()
    }


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    versions = draw(st.integers(2, 4))
    lists: list[tuple[str, list[str]]] = [("lines", [])]
    for number in range(versions - 1):
        renamed = draw(st.booleans())
        lists.append((f"lines{number}", [lists[-1][0]]) if renamed else (lists[-1][0], []))
    return Chain(draw(scopes(versions)), draw(scopes(versions)), lists)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(chains(), st.integers(0, 1_000), st.data())
def test_every_event_is_read_alike_as_every_version(chain: Chain, salt: int, data: st.DataObject) -> None:
    subject = chain.subject()
    assert not any(step.refused for step in lineage_of(subject.versions).steps.values())
    numbers = [version.version for version in subject.versions]
    for written in numbers:
        landed = data.draw(st.sampled_from(numbers[written - 1 :]))
        held = data.draw(st.sampled_from(numbers[landed - 1 :]))
        event = chain.event(written, salt)
        for pinned in numbers:
            expected = chain.expected(pinned, written, salt)
            seen = [
                seen_in_topic(subject, pinned, written, event),
                seen_one_by_one(subject, pinned, written, event),
                seen_in_table(subject, pinned, written, event, (landed, held)),
            ]
            if expected == STOPS:
                assert isinstance(seen[0], str)
                assert seen == [seen[0]] * 3
            else:
                assert seen == [expected] * 3
