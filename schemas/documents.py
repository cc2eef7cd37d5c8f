"""YAML documents with the place of everything in them.

A mesh folder is written by many people and read by machines that must not fall over, so this is a strict YAML: one
document, UTF-8, at most 1 MiB, 20,000 values and 64 levels, no duplicate keys, no tags, no merge keys, text keys only.
Scalars follow YAML 1.2's core schema (``no`` is a text, ``2024-01-01`` too, ``010`` is no octal). Aliases are allowed,
and every use of one counts as if it were written out, which stops documents that explode.

No message shows a value of the document: it may be a secret that somebody put there by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml
from yaml._yaml import CParser
from yaml.composer import Composer
from yaml.resolver import Resolver

from headrace.schemas.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_BYTES = 1 << 20
# The largest contract of the standard's own examples has about 600 values; a limit on everything keeps a hostile or
# generated file from costing more than a second of parsing.
MAX_VALUES = 20_000
MAX_DEPTH = 64

Key: TypeAlias = str | int

_TAG = "tag:yaml.org,2002:"


class _RefusedError(Exception):
    """A document that breaks one of this module's own rules; ``mark`` is the place."""

    def __init__(self, what: str, hint: str, mark: Any) -> None:
        super().__init__(what)
        self.hint = hint
        self.mark = mark


class _Loader(Composer, CParser, Resolver):
    """PyYAML's composer with budgets, on libyaml's parser, and with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name)

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        Resolver.__init__(self)
        self._values = 0
        self._depth = 0
        # The number of values behind each finished anchor.
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._sizes:
                raise _RefusedError(
                    "this alias has no finished anchor before it", "write the values out", event.start_mark
                )
            self._spend(self._sizes[event.anchor], event.start_mark)
            return super().compose_node(parent, index)
        before = self._values
        self._spend(1, event.start_mark)
        if event.anchor is not None and event.anchor in self._sizes:
            raise _RefusedError("this anchor is used twice", "give each anchor a name of its own", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"nested deeper than {MAX_DEPTH} levels", "write it flatter", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._values - before
        return node

    def _spend(self, count: int, mark: Any) -> None:
        self._values += count
        if self._values > MAX_VALUES:
            raise _RefusedError(
                f"more than {MAX_VALUES:,} values, aliases written out", "split the file, or write fewer aliases", mark
            )


_KINDS = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    # At most 18 digits: they fit 64 bits, and Python refuses to read a number of some thousands of digits.
    "int": re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})"),
    "float": re.compile(r"[-+]?(?:\.[0-9]{1,18}|[0-9]{1,18}\.[0-9]{0,18})(?:[eE][-+]?[0-9]{1,3})?"),
    "str": re.compile(""),
}
_READ: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": float,
    "str": str,
}

for _kind, _pattern in _KINDS.items():
    if _kind != "str":
        _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern.pattern})\Z"), None)
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<\Z"), ["<"])


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document.

    Attributes:
        file: its path relative to the mesh, as faults show it.
        value: the document as plain dicts, lists, texts, numbers, booleans and None.
    """

    file: str
    value: Any
    _root: yaml.Node

    def where(self, *path: Key) -> str:
        """Return ``file:line:column`` of the value at a path, or of the nearest value above it that exists."""
        return self._place(self._find(path)[0].start_mark)

    def where_key(self, *path: Key) -> str:
        """Return ``file:line:column`` of the key of the value at a path, or of the nearest that exists."""
        node, key = self._find(path)
        return self._place((key or node).start_mark)

    def _find(self, path: Sequence[Key]) -> tuple[yaml.Node, yaml.Node | None]:
        node: yaml.Node = self._root
        key_node: yaml.Node | None = None
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == step), None)
                if pair is None:
                    break
                key_node, node = pair
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and 0 <= step < len(node.value):
                key_node, node = None, node.value[step]
            else:
                break
        return node, key_node

    def _place(self, mark: Any) -> str:
        return f"{self.file}:{mark.line + 1}:{mark.column + 1}"


class DocumentFaults:
    """Adds faults at places of one document."""

    def __init__(self, document: Document, faults: list[Fault]) -> None:
        self._document = document
        self._faults = faults

    def add(self, place: Sequence[Key], what: str, hint: str = "") -> None:
        """Add a fault at the value of a path, or at the nearest value above it that exists."""
        self._faults.append(Fault(self._document.where(*place), what, hint))


def parse(data: bytes, file: str, faults: list[Fault]) -> Document | None:
    """Parse one YAML document; what is wrong is added to ``faults``, and then the result is None or partial.

    A partial document (a duplicate key, a tag) is returned so that its other faults are found in the same run.
    """
    if len(data) > MAX_BYTES:
        faults.append(Fault(file, f"the file is larger than {MAX_BYTES >> 20} MiB", "split it"))
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        faults.append(Fault(f"{file}:{line}", "this is not UTF-8 text", "save the file as UTF-8"))
        return None
    try:
        root = _compose(text)
    except (_RefusedError, yaml.YAMLError, ValueError, ArithmeticError) as error:
        faults.append(_syntax_fault(error, text, file))
        return None
    if root is None:
        faults.append(Fault(file, "the file is empty"))
        return None
    values = _Values(file, faults)
    return Document(file, values.of(root), root)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


# Characters and token names that PyYAML quotes are kept; longer quotations may be a part of a value.
_QUOTED = re.compile(r" '(?!<)[^']{2,}'")


def _syntax_fault(error: Exception, text: str, file: str) -> Fault:
    hint = ""
    if isinstance(error, _RefusedError):
        what, hint, mark = str(error), error.hint, error.mark
    elif isinstance(error, yaml.MarkedYAMLError):
        problem = _QUOTED.sub("", error.problem or "the document cannot be read")
        what, mark = f"this is not YAML: {problem}", error.problem_mark or error.context_mark
        if "single document" in (error.context or ""):
            what, hint = "a second document starts here", "one file holds one document: remove the ---"
    elif isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return Fault(f"{file}:{line}", "this is not YAML: a control character", "remove it")
    else:
        return Fault(file, "this is not YAML: an escape or a number out of range")
    if mark is None:
        return Fault(file, what, hint)
    lines = text.splitlines()
    if not hint and "${" in "".join(lines[mark.line : mark.line + 1]):
        hint = 'inside { } write "${…}" with quotation marks'
    line, column = mark.line, mark.column
    if lines and line >= len(lines):
        # libyaml's end of a document is the line behind the last one, which no editor can go to.
        line, column = len(lines) - 1, len(lines[-1])
    return Fault(f"{file}:{line + 1}:{column + 1}", what, hint)


class _Values:
    """Turns nodes into plain values and collects the faults on the way."""

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self._file = file
        self._faults = faults

    def of(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            if node.tag != _TAG + "seq":
                self._add(node, "tags are not supported", "remove the !tag")
            return [self.of(item) for item in node.value]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        if node.tag != _TAG + "map":
            self._add(node, "tags are not supported", "remove the !tag")
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                self._add(key_node, "merge keys are not supported", "write the keys out")
            elif not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TAG + "str":
                self._add(key_node, "a key is a text", "put it in quotation marks")
            elif key_node.value in values:
                self._add(key_node, "this key stands twice in the same mapping", "keep one of the two")
            else:
                self._scalar(key_node)
                values[key_node.value] = self.of(value_node)
        return values

    def _scalar(self, node: yaml.Node) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        # An explicit standard tag (!!int x) skips the resolver's patterns: only what they would match is taken.
        if kind not in _KINDS or (kind != "str" and not _KINDS[kind].fullmatch(text)):
            self._add(node, "tags are not supported", "remove the !tag, and quote the value if it starts with !")
            return None
        # An escape can make what no file name, header or terminal accepts.
        if "\0" in text:
            self._add(node, "this text holds a NUL", "remove the escape")
            return ""
        return _READ[kind](text)

    def _add(self, node: yaml.Node, what: str, hint: str) -> None:
        mark = node.start_mark
        self._faults.append(Fault(f"{self._file}:{mark.line + 1}:{mark.column + 1}", what, hint))
