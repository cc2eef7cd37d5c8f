"""Documents against pydantic models: every fault with its place, and no value in any message."""

from __future__ import annotations

import difflib
import re
import types
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from headrace.schemas.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic_core import ErrorDetails

    from headrace.schemas.documents import Document, Key

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(document: Document, model: type[ModelT], faults: list[Fault]) -> ModelT | None:
    """Validate a document against a model and add its faults: unknown keys (with the nearest known), types, ranges.

    Unknown keys are found at every depth, whatever the models say about extra keys. The result is None if the model
    itself refuses the document. A field's description serves as the hint where the field is missing.
    """
    for path, known in _unknown_keys(document.value, model, ()):
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
        shown = f" {path[-1]}" if _PLAIN.fullmatch(str(path[-1])) else ""
        faults.append(Fault(document.where_key(*path), f"unknown key{shown}", hint))
    if not isinstance(document.value, dict):
        faults.append(Fault(document.where(), "a mapping is wanted here", "write key: value lines"))
        return None
    try:
        return model.model_validate(document.value)
    except ValidationError as error:
        # One wrong value in a union is refused once by each of its branches: one fault a place, of no branch's words.
        # Where one branch finds fault with what is inside, the value is of that branch: the others' words do not count.
        found: dict[str, Fault] = {}
        details = error.errors(include_url=False, include_input=False, include_context=False)
        deep = {_real_path(document.value, detail["loc"]) for detail in details}
        above = {path[:length] for path in deep for length in range(len(path))}
        for detail in details:
            other_branch = detail["type"] != "missing" and _real_path(document.value, detail["loc"]) in above
            if detail["type"] == "extra_forbidden" or other_branch:
                continue
            fault = _value_fault(document, model, detail)
            place = str(fault) if detail["type"] == "missing" else fault.where
            if found.setdefault(place, fault) != fault:
                found[place] = Fault(fault.where, "another kind of value is wanted here", found[place].hint)
        faults.extend(found.values())
        return None


def valid_part(document: Document, model: type[ModelT]) -> ModelT | None:
    """Return what a document says without the values that its model refuses; None if no model is left.

    :func:`validate` has told these values. What else is wrong can then be found in the same run.
    """
    value = document.value
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            value = _without(value, _real_path(document.value, detail["loc"]))
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def _without(value: Any, path: Sequence[Key]) -> Any:
    """Return a copy without what stands at a path; without the whole list for one of its items, so places stay true."""
    while path and not isinstance(path[-1], str):
        path = path[:-1]
    if not path:
        return None
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        kept = {name: inner for name, inner in value.items() if rest or name != key}
        return {name: _without(inner, rest) if name == key else inner for name, inner in kept.items()}
    if isinstance(value, list):
        return [_without(inner, rest) if index == key else inner for index, inner in enumerate(value)]
    return value


# A long or odd key is not shown: it may be a value that lost its colon.
_PLAIN = re.compile(r"[\w.$-]{1,40}")

_WANTED = {
    "string_type": ("a text is wanted here", "put it in quotation marks"),
    "int_type": ("a whole number is wanted here", ""),
    "int_parsing": ("a whole number is wanted here", ""),
    "int_from_float": ("a whole number is wanted here", ""),
    "float_type": ("a number is wanted here", ""),
    "float_parsing": ("a number is wanted here", ""),
    "finite_number": ("a finite number is wanted here", ""),
    "bool_type": ("true or false is wanted here", ""),
    "bool_parsing": ("true or false is wanted here", ""),
    "list_type": ("a list is wanted here", "write - item lines"),
    "dict_type": ("a mapping is wanted here", "write key: value lines"),
    "model_type": ("a mapping is wanted here", "write key: value lines"),
    "string_pattern_mismatch": ("this form is not allowed here", ""),
    "string_too_short": ("this is empty", ""),
}


def _value_fault(document: Document, model: type[BaseModel], detail: ErrorDetails) -> Fault:
    if detail["type"] == "missing":
        *above, name = detail["loc"]
        path = (*_real_path(document.value, above), name)
        return Fault(document.where(*path[:-1]), f"{name} is missing", _description(model, path))
    path = _real_path(document.value, detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    what, hint = _WANTED.get(detail["type"], (message, ""))
    if detail["type"] in ("enum", "literal_error"):
        what, hint = "this is none of the known words", message.replace("Input should be", "choose")
    if path and isinstance(path[-1], str) and _PLAIN.fullmatch(path[-1]):
        what = f"{path[-1]}: {what}"
    return Fault(document.where(*path), what, hint or _description(model, path))


def _real_path(value: Any, loc: Sequence[Key]) -> tuple[Key, ...]:
    """Return the steps of pydantic's location that stand in the document: it names the branches of unions as well."""
    path: list[Key] = []
    for step in loc:
        inside = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        if inside:
            path.append(step)
            value = value[step]
    return tuple(path)


def _description(model: type[BaseModel], path: Sequence[Key]) -> str:
    """Return the description of the field at a path, "" where it has none."""
    annotation: Any = model
    for step in path[:-1]:
        annotation = next(iter(_below(annotation, step)), None)
    for arm in _arms(annotation):
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            for name, field in arm.model_fields.items():
                if path and (field.alias or name) == path[-1]:
                    return field.description or ""
    return ""


def _unknown_keys(value: Any, annotation: Any, path: tuple[Key, ...]) -> Iterator[tuple[tuple[Key, ...], list[str]]]:
    if isinstance(value, dict):
        models = [arm for arm in _arms(annotation) if isinstance(arm, type) and issubclass(arm, BaseModel)]
        known = [field.alias or name for model in models for name, field in model.model_fields.items()]
        for key, inner in value.items():
            if models and key not in known:
                yield (*path, key), known
                continue
            for below in _below(annotation, key):
                yield from _unknown_keys(inner, below, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for below in _below(annotation, index):
                yield from _unknown_keys(inner, below, (*path, index))


def _below(annotation: Any, step: Key) -> Iterator[Any]:
    """Yield the annotations of what stands at one step below: a model's field, a list's item, a dict's value."""
    for arm in _arms(annotation):
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            yield from (field.annotation for name, field in arm.model_fields.items() if (field.alias or name) == step)
        elif get_origin(arm) is list and isinstance(step, int):
            yield get_args(arm)[0]
        elif get_origin(arm) is dict:
            yield get_args(arm)[1]


def _arms(annotation: Any) -> Iterable[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _arms(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [arm for part in get_args(annotation) for arm in _arms(part)]
    return [annotation]
