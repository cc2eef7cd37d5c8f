"""YAML documents: what is refused, where, and that no value of a document is ever shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from headrace.schemas.documents import MAX_BYTES, MAX_VALUES, Document, parse
from headrace.schemas.validation import validate

if TYPE_CHECKING:
    from headrace.schemas.errors import Fault


def parsed(text: str | bytes) -> tuple[Document | None, list[Fault]]:
    faults: list[Fault] = []
    data = text if isinstance(text, bytes) else text.encode()
    return parse(data, "m.yaml", faults), faults


def only_fault(text: str | bytes) -> Fault:
    _, faults = parsed(text)
    assert len(faults) == 1, faults
    return faults[0]


def value(text: str) -> object:
    document, faults = parsed(text)
    assert document is not None
    assert faults == []
    return document.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: no", "no"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 1:30", "1:30"),
        ("a: 010", "010"),
        ("a: 1_000", "1_000"),
        ("a: 12345678901234567890", "12345678901234567890"),
        ("a: 7", 7),
        ("a: -7", -7),
        ("a: 1.5", 1.5),
        ("a: 1.0e3", 1000.0),
        ("a: true", True),
        ("a: True", True),
        ("a: null", None),
        ("a: ~", None),
        ("a:", None),
        ("a: 'true'", "true"),
        ('a: "7"', "7"),
        ("a: [1, x]", [1, "x"]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, expected: object) -> None:
    assert value(text) == {"a": expected}


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("a: 1\nb: 2\na: 3", "m.yaml:3:1", "twice"),
        ("a:\n\t- b", "m.yaml:2:1", "not YAML"),
        ("a: [1, 2", "m.yaml:1:9", "not YAML"),
        ("a: b: c", "m.yaml:1:5", "not YAML"),
        ("---\na: 1\n---\nb: 2", "m.yaml:3:1", "second document"),
        ("a: !secret x", "m.yaml:1:4", "tags"),
        ("a: !!python/object:os.system x", "m.yaml:1:4", "tags"),
        ("a: !!int x", "m.yaml:1:4", "tags"),
        ("!!int [1]", "m.yaml:1:1", "tags"),
        ("base: &b {x: 1}\na:\n  <<: *b", "m.yaml:3:3", "merge keys"),
        ("? [a]\n: 1", "m.yaml:1:3", "a key is a text"),
        ("1: x", "m.yaml:1:1", "a key is a text"),
        ("true: x", "m.yaml:1:1", "a key is a text"),
        ('a: "\\0"', "m.yaml:1:4", "NUL"),
        ('a: "\\uD800"', "m.yaml:1:7", "escape"),
        ('a: "\\UFFFFFFFF"', "m.yaml:1:7", "escape"),
        ("a: 1\nb: \x01", "m.yaml:2", "control character"),
        ("a: &a [*a]", "m.yaml:1:8", "alias"),
        ("a: *nowhere", "m.yaml:1:4", "alias"),
        ("a: &x 1\nb: &x 2", "m.yaml:2:4", "used twice"),
        ("", "m.yaml", "empty"),
        ("# nothing", "m.yaml", "empty"),
    ],
)
def test_faults_have_a_place(text: str, where: str, words: str) -> None:
    fault = only_fault(text)
    assert fault.where == where
    assert words in fault.what
    assert "\n" not in str(fault)


def test_bytes_that_are_no_utf8_have_a_line() -> None:
    assert only_fault(b"a: 1\nb: \xff\xfe").where == "m.yaml:2"


def test_a_large_file_is_refused_unread() -> None:
    fault = only_fault(b"a: " + b"x" * 10 * MAX_BYTES)
    assert "larger than 1 MiB" in fault.what


def test_aliases_count_as_written_out() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    fault = only_fault("\n".join(levels))
    assert f"{MAX_VALUES:,} values" in fault.what
    assert value("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_too_many_values_and_too_deep() -> None:
    assert "values" in only_fault("- x\n" * (MAX_VALUES + 1)).what
    assert "deeper" in only_fault("[" * 5000).what
    assert "deeper" in only_fault("".join(" " * n + "- \n" for n in range(200))).what


def test_braces_of_a_placeholder_in_flow_style_get_a_hint() -> None:
    assert "quotation marks" in only_fault("a: {password: ${env:X}}").hint


@pytest.mark.parametrize(
    "text",
    [
        "p: *hunter2",
        "p: !hunter2 x",
        "p: !hunter2!x y",
        "p: 'hunter2",
        "p: hunter2: hunter2",
        "p: &hunter2",
        "p: [hunter2",
        'p: "hunter2\\q"',
        "%hunter2 x",
        "p: @hunter2",
        "p: |hunter2",
    ],
)
def test_no_fault_shows_a_value(text: str) -> None:
    _, faults = parsed(text)
    assert "hunter2" not in " ".join(map(str, faults))


@given(st.binary(max_size=300) | st.text(alphabet="ab:-[]{}&*!|>'\"%@#,? \n\t\\0xU1.~", max_size=80).map(str.encode))
def test_any_bytes_give_a_document_or_faults(data: bytes) -> None:
    document, faults = parsed(data)
    assert document is not None or faults


class Inner(BaseModel):
    size: int = Field(gt=0, description="size: a number above 0")
    labels: dict[str, str] = {}


class Outer(BaseModel):
    name: str = Field(description="write name: and a word")
    inner: Inner | None = None
    items: list[Inner] = []


def faults_of(text: str) -> list[str]:
    document, faults = parsed(text)
    assert document is not None
    validate(document, Outer, faults)
    return [str(fault) for fault in faults]


def test_valid_documents_become_models() -> None:
    document, faults = parsed("name: x\nitems:\n  - size: 3\n    labels: {a: b}")
    assert document is not None
    model = validate(document, Outer, faults)
    assert faults == []
    assert model == Outer(name="x", items=[Inner(size=3, labels={"a": "b"})])


def test_every_fault_of_a_document_is_found_at_once() -> None:
    assert faults_of(
        "nam: x\ninner:\n  size: 0\nitems:\n  - {size: 1, sizes: 2}\n  - {size: big}\n  - {}\nxyz: 1\n"
    ) == [
        "m.yaml:1:1: unknown key nam (did you mean name?)",
        "m.yaml:5:15: unknown key sizes (did you mean size?)",
        "m.yaml:8:1: unknown key xyz (known here: inner, items, name)",
        "m.yaml:1:1: name is missing (write name: and a word)",
        "m.yaml:3:9: size: Input should be greater than 0 (size: a number above 0)",
        "m.yaml:6:12: size: a whole number is wanted here (size: a number above 0)",
        "m.yaml:7:5: size is missing (size: a number above 0)",
    ]


def test_wrong_shapes() -> None:
    assert faults_of("- a") == ["m.yaml:1:1: a mapping is wanted here (write key: value lines)"]
    assert faults_of("name: 3") == ["m.yaml:1:7: name: a text is wanted here (put it in quotation marks)"]
    assert faults_of("name: x\ninner: y") == [
        "m.yaml:2:8: inner: a mapping is wanted here (write key: value lines)",
    ]
    assert faults_of("name: x\nitems: {a: 1}") == ["m.yaml:2:8: items: a list is wanted here (write - item lines)"]


def test_values_and_odd_keys_are_not_shown() -> None:
    text = " ".join(faults_of("name: [hunter2]\n'hunter2 is my password': 1\ninner: {size: hunter2}"))
    assert "hunter2" not in text
