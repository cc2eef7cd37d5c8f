"""The tree of errors: what is drawn is what is there, and every error says what, where and a next step."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from headrace.schemas import errors
from headrace.schemas.errors import (
    EventError,
    Fault,
    HeadraceError,
    MeshError,
    Refusal,
    SchemaError,
    Stale,
    UserError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, HeadraceError)]


def drawn() -> dict[str, str | None]:
    """The tree at the top of the module: each class with the class above it."""
    above: dict[int, str] = {}
    tree: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+)\b", line)
        if found:
            depth = len(found[1]) // 4
            above[depth] = found[2]
            tree[found[2]] = above[depth - 1] if depth else None
    return tree


def test_the_drawn_tree_is_the_tree() -> None:
    bases = {kind.__name__: kind.__mro__[1].__name__ if kind is not HeadraceError else None for kind in CLASSES}
    assert drawn() == bases


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_it_is_for(kind: type[HeadraceError]) -> None:
    assert kind.__doc__


def test_an_error_is_shown_with_its_place_and_the_next_step() -> None:
    assert str(HeadraceError("it failed")) == "it failed"
    assert str(HeadraceError("it failed", where="mesh.yaml:3", hint="mend it")) == "mesh.yaml:3: it failed (mend it)"
    assert str(SchemaError("no type", path="a.b[]", where="x.avsc")) == "x.avsc: a.b[]: no type"
    assert SchemaError("no type", path="a").path == "a"


def test_all_faults_of_a_mesh_are_shown_in_order() -> None:
    error = MeshError([Fault("b:2", "second"), Fault("a:19", "later"), Fault("a:1", "first", "mend it")])
    assert [fault.where for fault in error.faults] == ["a:1", "a:19", "b:2"]
    assert str(error) == "the mesh has 3 faults:\na:1: first (mend it)\na:19: later\nb:2: second"
    assert "1 fault:" in str(MeshError([Fault("a", "b")]))


def test_what_some_errors_carry() -> None:
    assert EventError("too long", field="contact.email").field == "contact.email"
    assert Refusal("null-value", "a tombstone").reason == "null-value"
    stale = Stale("[0:5]", "[0:9]", where="a.b")
    assert (stale.expected, stale.committed, str(stale)) == (
        "[0:5]",
        "[0:9]",
        "a.b: stale: expected [0:5], committed [0:9]",
    )


def test_a_persons_mistakes_are_told_from_all_else() -> None:
    named = {kind.__name__ for kind in CLASSES if issubclass(kind, UserError)}
    files = {"MeshError", "SchemaError", "SettingsError", "NotApplied"}
    assert named == {"UserError", "UsageError", *files, "EventError", "QueryError", "NoSuchName"}
    assert pickle.loads(pickle.dumps(Fault("a", "b"))) == Fault("a", "b")
