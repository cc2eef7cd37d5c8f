"""A product as a page for the people who use it, in Markdown with GitHub's tables. Pure.

What people wrote into contract and schema is shown as they wrote it: none of it is obeyed as Markdown or HTML.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headrace.schemas.structure import properties_in, structure_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headrace.schemas.product import Contract, Product

__all__ = ["markdown_of"]

# CommonMark: any ASCII punctuation may be escaped. These are what could begin markup inside a line of text.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~&!#])")
# What would begin a list, a quotation or a heading at the start of a line.
_LEADING = re.compile(r"^(\s*)([-+=]|\d+[.)])")
# Shown: control characters and what would break a line or turn the direction of the text are not.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_DRAFT = "**Draft: not yet for others to rely on.**"
_DAY_MS = 86_400_000


def markdown_of(product: Product) -> str:
    """Return the page."""
    contract = product.contract
    parts = [
        f"# {product.name}",
        _text(contract.purpose),
        *([_DRAFT] if contract.status.strip().lower() == "draft" else []),
        _table(("", ""), _facts(contract)),
        "## How to read it",
        _reading(product),
        "## Fields",
        *([_text(product.schema.record.doc)] if product.schema.record.doc else []),
        _table(("field", "type", "always there", "what it is", "personal data"), _fields(product)),
        *_inputs(contract),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(contract: Contract) -> Iterator[tuple[str, str]]:
    yield "owner", _text(contract.owner)
    yield "version", _code(contract.version)
    yield "status", _text(contract.status)
    yield "key", ", ".join(map(_code, contract.key))
    yield "an event is in the table after at most", f"{contract.freshness_s:g} s"
    yield "Kafka keeps an event", _kept(contract)
    yield "new versions of the schema are", _code(str(contract.compatibility))


def _reading(product: Product) -> str:
    query = f"SELECT * FROM {product.name} ORDER BY _kafka_timestamp DESC LIMIT 10"  # noqa: S608 - a name is a word
    topic = (
        f"Topic {_code(product.topic)}, {product.contract.partitions} partitions; Avro with the id of its schema, of"
    )
    lines = [
        f"{topic} subject {_code(product.subject)}. Events with the same key stay in order.",
        "",
        f"    headrace tail {product.name}",
        "",
        f"Table {_code(str(product.name))}:",
        "",
        f'    headrace sql "{query}"',
    ]
    return "\n".join(lines)


def _fields(product: Product) -> Iterator[tuple[str, ...]]:
    pii = product.schema.pii
    for path, said in properties_in({"properties": structure_of(product.schema.record)}, ""):
        personal = []
        if path in pii:
            personal.append(_code(pii[path] or "PII"))
        if path in product.masks:
            personal.append(f"table: {_code(str(product.masks[path]))}")
        always = "yes" if said["required"] else ""
        yield _code(path), _code(_type(said)), always, _text(said.get("description", "")), ", ".join(personal)


def _type(said: Mapping[str, Any]) -> str:
    """Return a type as people write it: ``array<string>``, ``map<long>``, an enum with its symbols."""
    if "items" in said:
        return f"array<{_type(said['items'])}>"
    if "map" in said:
        return f"map<{_type(said['map']['value'])}>"
    if "enum" in said:
        return f"enum: {', '.join(each['value'] for each in said['enum'])}"
    return str(said["physicalType"])


def _inputs(contract: Contract) -> list[str]:
    if not contract.inputs:
        return []
    rows = [(_code(str(each.product)), _code(each.version)) for each in contract.inputs]
    return ["## Made from", _table(("product", "version of its contract"), rows)]


def _kept(contract: Contract) -> str:
    newest = "while it is the newest of its key" if "compact" in contract.cleanup_policy else ""
    if contract.cleanup_policy == "compact":
        return newest
    days, rest = divmod(contract.retention_ms or 0, _DAY_MS)
    kept = f"for {days} day{'s' if days != 1 else ''}" if not rest else f"for {(contract.retention_ms or 0) / 1000:g} s"
    age = "as long as the broker's default says" if contract.retention_ms is None else kept
    return f"{age}, and {newest}" if newest else age


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Return foreign text in one line that Markdown shows as it is."""
    line = " ".join(_UNSHOWN.sub(" ", text).split())
    return _LEADING.sub(_escaped_leading, _MARKUP.sub(r"\\\1", line))


def _escaped_leading(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2][:-1]}\\{match[2][-1]}"


def _code(text: str) -> str:
    """Return foreign text as code: only names of fields and words of headrace's, none of which holds a backtick."""
    return f"`{_UNSHOWN.sub(' ', text).replace('|', chr(92) + '|')}`"
