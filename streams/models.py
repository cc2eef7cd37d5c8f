"""Events as a pydantic model or a dataclass: whether it fits the schema, and making events of it.

A field of a union is a model of its branches, each of which may be None (`headrace.schemas.shapes`); one of a time of
day is a text, or a `datetime.time` that pydantic makes of it.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import types
import typing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin

import pydantic
from pyiceberg import types as ice

from headrace.schemas.avro import Array, AvroType, Enum, Field, Fixed, Map, Primitive, Record
from headrace.schemas.errors import Refusal, UserError
from headrace.schemas.paths import below
from headrace.schemas.shapes import shape
from headrace.schemas.types import leaf_type

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from headrace.schemas.product import Product
    from headrace.schemas.registry import RegisteredSchema

Event = TypeVar("Event")

# Python types that hold every value of a column type.
_HOLDS: Mapping[type[ice.IcebergType], tuple[type, ...]] = {
    ice.BooleanType: (bool,),
    ice.IntegerType: (int, float, decimal.Decimal),
    ice.LongType: (int, decimal.Decimal),
    ice.FloatType: (float,),
    ice.DoubleType: (float,),
    ice.StringType: (str,),
    ice.BinaryType: (bytes,),
    ice.FixedType: (bytes,),
    ice.DecimalType: (decimal.Decimal,),
    ice.UUIDType: (uuid.UUID,),
    ice.DateType: (dt.date,),
    ice.TimestampType: (dt.datetime,),
    ice.TimestamptzType: (dt.datetime,),
}
_TIME_HOLDS = (str, dt.time)
_PLAIN = frozenset(kind for kinds in (*_HOLDS.values(), _TIME_HOLDS) for kind in kinds)


class Model(Generic[Event]):
    """Makes events of a model.

    Args:
        model: a pydantic model or a dataclass.
        product: the product.
        version: the version that events are read as.
        nulled: paths of fields that may be null whatever the schema says.

    Raises:
        UserError: if the model does not fit the schema; names the field and both sides.
    """

    def __init__(
        self, model: type[Event], product: Product, version: RegisteredSchema, nulled: AbstractSet[str]
    ) -> None:
        where = f"{getattr(model, '__name__', model)} for {product.name} (version {version.version})"
        if not _is_model(model):
            raise UserError("this is no pydantic model and no dataclass", where=where)
        try:
            self._adapter: pydantic.TypeAdapter[Event] = pydantic.TypeAdapter(model)
            # Otherwise an annotation that is not known is found with the first event.
            self._adapter.rebuild(raise_errors=True)
            faults = list(_record_faults(model, version.schema.record, "", nulled))
        except (pydantic.errors.PydanticUserError, NameError, TypeError) as error:
            raise UserError(
                f"pydantic cannot use the model ({type(error).__name__})",
                where=where,
                hint="its annotations must be known where the class is made, at the top of a module",
            ) from None
        if faults:
            raise UserError(
                "the model does not fit the schema: " + "; ".join(faults),
                where=where,
                hint="correct the model, or pin another version of the schema",
            )

    def make(self, value: Mapping[str, Any]) -> Event:
        """Return an event as the model.

        Raises:
            Refusal: ``model``, if the model refuses the value; names fields and rules, never the value.
        """
        try:
            return self._adapter.validate_python(value)
        except pydantic.ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            shown = ", ".join(f"{'.'.join(map(str, each['loc'])) or 'event'}: {each['type']}" for each in found)
        except Exception as error:  # noqa: BLE001 - a model's own code may raise anything, with the value in its text
            shown = type(error).__name__
        raise Refusal("model", f"the model refuses it: {shown}") from None


@dataclasses.dataclass(frozen=True, slots=True)
class _Attribute:
    """What a model wants of a field: by which name, of which type, and whether it can do without."""

    name: str
    annotation: Any
    required: bool


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, pydantic.BaseModel) or dataclasses.is_dataclass(kind))


def _attributes(model: Any) -> Iterator[_Attribute]:
    if issubclass(model, pydantic.BaseModel):
        for name, info in model.model_fields.items():
            alias = info.validation_alias if isinstance(info.validation_alias, str) else info.alias
            by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
            yield _Attribute(name if by_name else alias or name, _annotation(info), info.is_required())
        return
    hints = typing.get_type_hints(model, include_extras=True)
    for field in dataclasses.fields(model):
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init:
            yield _Attribute(field.name, hints[field.name], bare)


def _annotation(info: FieldInfo) -> Any:
    # Validators stand in the metadata: whoever wrote one knows what comes.
    changed = any(type(each).__module__ == "pydantic.functional_validators" for each in info.metadata)
    return Any if changed else info.annotation


def _record_faults(model: Any, record: Record, path: str, nulled: AbstractSet[str]) -> Iterator[str]:
    known = set()
    for attribute in _attributes(model):
        here = below(path, attribute.name)
        field = record.field(attribute.name)
        known.add(attribute.name)
        if field is not None:
            yield from _field_faults(attribute.annotation, field, here, nulled)
        elif attribute.required:
            yield f"{here}: the model requires it, the schema does not have it"
    strict = issubclass(model, pydantic.BaseModel) and model.model_config.get("extra") == "forbid"
    for field in record.fields if strict else ():
        if field.name not in known:
            yield f"{path}.{field.name}".lstrip(".") + ": the schema has it, the model forbids extra fields"


def _field_faults(annotation: Any, field: Field, path: str, nulled: AbstractSet[str]) -> Iterator[str]:
    inner, optional = shape(field.type)
    arms = _arms(annotation)
    if Any in arms or object in arms:
        return
    if path in nulled and type(None) not in arms:
        yield f"{path}: its mask makes it null in the table, the model takes no None"
    elif optional and type(None) not in arms:
        yield f"{path}: the schema lets it be null, the model takes no None"
    yield from _type_faults([arm for arm in arms if arm is not type(None)], inner, path, nulled)


def _type_faults(arms: Sequence[Any], avro_type: AvroType, path: str, nulled: AbstractSet[str]) -> Iterator[str]:
    """Yield why no arm of the annotation takes the values; nothing if one does."""
    found: list[str] = []
    for arm in arms:
        faults = list(_arm_faults(arm, avro_type, path, nulled))
        if not faults:
            return
        found = found or faults
    yield from found or [f"{path}: the model takes None alone, the schema has {_named(avro_type)}"]


def _arm_faults(arm: Any, avro_type: AvroType, path: str, nulled: AbstractSet[str]) -> Iterator[str]:
    origin, inside = get_origin(arm) or arm, get_args(arm)
    mismatch = f"{path}: the schema has {_named(avro_type)}, the model {_shown(arm)}"
    if not _shaped_for(origin, avro_type):
        yield mismatch
        return
    match avro_type:
        case Record() if _is_model(origin):
            yield from _record_faults(origin, avro_type, path, nulled)
        case Array(items=items) if inside:
            yield from _inside_faults(inside[0], items, f"{path}[]", nulled)
        case Map(values=values) if len(inside) == 2:
            yield from _inside_faults(inside[1], values, f"{path}{{}}", nulled)
        case Enum() | Primitive() | Fixed() if not _takes(arm, avro_type):
            yield mismatch


def _shaped_for(kind: Any, avro_type: AvroType) -> bool:
    """Tell whether a Python type may be of the shape of an Avro type. Types of one's own may be of any."""
    match avro_type:
        case Record():
            return kind not in _PLAIN and not _is_collection(kind)
        case Array():
            return kind not in _PLAIN and not _is_model(kind) and not _is_mapping(kind)
        case Map():
            return kind not in _PLAIN and not _is_model(kind) and not _is_collection(kind)
        case _:
            return not (_is_model(kind) or _is_mapping(kind) or _is_collection(kind))


def _inside_faults(annotation: Any, avro_type: AvroType, path: str, nulled: AbstractSet[str]) -> Iterator[str]:
    inner, optional = shape(avro_type)
    arms = _arms(annotation)
    if Any in arms or object in arms:
        return
    if optional and type(None) not in arms:
        yield f"{path}: the schema lets it be null, the model takes no None"
    yield from _type_faults([arm for arm in arms if arm is not type(None)], inner, path, nulled)


def _takes(arm: Any, leaf: AvroType) -> bool:
    """Tell whether a Python type takes the values of a type that holds no other. Types of one's own take anything."""
    if get_origin(arm) is Literal:
        return isinstance(leaf, Enum) and set(leaf.symbols) <= set(get_args(arm))
    if isinstance(arm, type) and issubclass(arm, enum.Enum):
        return isinstance(leaf, Enum) and set(leaf.symbols) <= {member.value for member in arm}
    origin = get_origin(arm) or arm
    return origin not in _PLAIN or origin in (_TIME_HOLDS if _is_time(leaf) else _HOLDS[type(leaf_type(leaf))])


def _is_time(leaf: AvroType) -> bool:
    return isinstance(leaf, Primitive) and leaf.logical in ("time-millis", "time-micros")


def _arms(annotation: Any) -> list[Any]:
    """Return the alternatives of an annotation, without what Annotated adds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        arm, *metadata = get_args(annotation)
        changed = any(type(each).__module__ == "pydantic.functional_validators" for each in metadata)
        return [Any] if changed else _arms(arm)
    if origin in (typing.Union, types.UnionType):
        return [arm for each in get_args(annotation) for arm in _arms(each)]
    return [type(None) if annotation is None else annotation]


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _is_collection(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Sequence | AbstractSet) and not issubclass(kind, str | bytes)


def _shown(arm: Any) -> str:
    return arm.__name__ if isinstance(arm, type) and not get_args(arm) else str(arm).replace("typing.", "")


def _named(avro_type: AvroType) -> str:
    match avro_type:
        case Record(name="union", fields=fields):
            return f"a record of the union's branches {', '.join(field.name for field in fields)}"
        case Record() | Array() | Map():
            return type(avro_type).__name__.lower()
        case Enum(symbols=symbols):
            return f"an enum of {', '.join(symbols)}"
        case _:
            return "a time of day" if _is_time(avro_type) else str(leaf_type(avro_type))
