"""Python values to JSON and back, for the journal. Explicit: no pickle, and reading never imports a module.

A value that JSON does not have is an object with the one key `$oao`; a framework registers its own classes.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import math
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import pydantic

from oao_harness.errors import CodecError, ReplayedError
from oao_hookspecs import ErrorInfo, Json

__all__ = [
    "alike",
    "blank_error",
    "decode",
    "decode_error",
    "encode",
    "encode_error",
    "error_line",
    "holds_opaque",
    "opaque",
    "register",
]

_TAG: Final = "$oao"
_MAX_DEPTH: Final = 100
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_STR: Final = frozenset({str})


class _TooDeepError(Exception):
    """A value is nested beyond `_MAX_DEPTH`, or holds itself."""


_Dump = Callable[[Any], Json]
_Load = Callable[[Any], object]

_dumpers: dict[type, tuple[str, _Dump]] = {}
_loaders: dict[str, _Load] = {}


def register(tag: str, cls: type, dump: _Dump, load: _Load) -> None:
    """Teach the codec a class and its subclasses.

    Args:
        tag: Name in the journal; never reuse one for another shape.
        cls: The class.
        dump: Turns an instance into JSON.
        load: Turns that JSON into an instance.
    """
    _dumpers[cls] = (tag, dump)
    _loaders[tag] = load


def encode(value: object, _depth: int = 0) -> Json:
    """Return a JSON copy of a value; what cannot be read back is marked opaque and keeps its `repr`.

    Args:
        value: Any object. Mutable containers are copied, so later changes do not reach the journal.
    """
    # On the path of every call: exact types first, no cast, no isinstance.
    plain: Any = value
    kind: object = type(plain)  # pyright: ignore[reportUnknownVariableType]
    if kind in _SCALARS:
        return plain  # type: ignore[no-any-return]
    if kind is float:
        return plain if math.isfinite(plain) else {_TAG: "float", "value": repr(plain)}
    if _depth > _MAX_DEPTH:
        # Not cut off here: a value that holds itself twice would be walked 2^100 times.
        raise _TooDeepError
    if _depth > 1:
        return _encode_container(plain, _depth + 1)
    try:
        return _encode_container(plain, _depth + 1)
    except _TooDeepError:
        return opaque(type(value), "nested too deeply, or in itself")


def _encode_container(plain: Any, deeper: int) -> Json:
    kind: object = type(plain)  # pyright: ignore[reportUnknownVariableType]
    if kind is dict:
        if _TAG not in plain and _STR.issuperset(map(type, plain)):
            return {key: item if type(item) in _SCALARS else encode(item, deeper) for key, item in plain.items()}
        pairs = [[encode(key, deeper), encode(item, deeper)] for key, item in plain.items()]
        return {_TAG: "dict", "value": pairs}
    if kind is list:
        return [item if type(item) in _SCALARS else encode(item, deeper) for item in plain]
    return _encode_other(plain, deeper)


def _encode_other(value: object, depth: int) -> Json:
    if isinstance(value, BaseException):
        return {_TAG: "error", "value": _error_to_json(encode_error(value, depth))}
    for cls in type(value).__mro__:
        known = _dumpers.get(cls)
        if known is not None:
            return {_TAG: known[0], "value": known[1](value)}
    if type(value) is tuple:
        return {_TAG: "tuple", "value": [encode(item, depth) for item in cast("tuple[object, ...]", value)]}
    name = _class_name(type(value))
    if isinstance(value, pydantic.BaseModel):
        fields = {key: encode(getattr(value, key), depth) for key in type(value).model_fields}
        return {_TAG: "object", "type": name, "value": {**fields, **_extra_fields(value, depth)}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: encode(getattr(value, field.name), depth) for field in dataclasses.fields(value)}
        return {_TAG: "object", "type": name, "value": fields}
    if isinstance(value, enum.Enum):
        return {_TAG: "enum", "type": name, "value": encode(value.value, depth)}
    return _encode_subclass(value, depth)


def _encode_subclass(value: object, depth: int) -> Json:
    """Subclasses of what JSON has are kept as what JSON has: a `defaultdict` comes back as a `dict`."""
    if isinstance(value, str):
        return str.__str__(value)
    # By the base class's own methods: what a subclass says of itself is not what its user gets out of it.
    own: Any = value
    if isinstance(own, int):
        return int.__int__(own)
    if isinstance(own, float):
        return encode(float.__float__(own))
    if isinstance(own, dict):
        return encode(dict(cast("Any", dict).items(own)), depth)
    if isinstance(own, list):
        return encode([*cast("Any", list).__iter__(own)], depth)
    if isinstance(own, tuple):
        return encode((*cast("Any", tuple).__iter__(own),), depth)
    return _opaque(value)


def _extra_fields(model: pydantic.BaseModel, depth: int) -> dict[str, Json]:
    return {key: encode(item, depth) for key, item in (model.__pydantic_extra__ or {}).items()}


def _opaque(value: object) -> Json:
    return opaque(type(value), repr(value)[:500])


def opaque(cls: type, text: str) -> Json:
    """Return what stands in the journal for a value that cannot be read back.

    Args:
        cls: Its class.
        text: What a person is told of it.
    """
    return {_TAG: "opaque", "type": _class_name(cls), "value": text}


def alike(value: Json, other: Json) -> bool:
    """Return True where two encoded values are equal, as far as can be told: opaque ones are compared by class."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        if value.get(_TAG) == other.get(_TAG) == "opaque":
            return value.get("type") == other.get("type")
        return value.keys() == other.keys() and all(alike(item, other[key]) for key, item in value.items())
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(alike, value, other))
    return type(value) is type(other) and value == other


def holds_opaque(value: Json) -> str | None:
    """Return the class name of the first value inside that cannot be read back, or None."""
    items: Iterable[Json] = ()
    if isinstance(value, Mapping):
        if value.get(_TAG) == "opaque":
            return str(value.get("type"))
        items = value.values()
    elif isinstance(value, list):
        items = value
    return next((found for found in map(holds_opaque, items) if found is not None), None)


def decode(value: Json) -> object:
    """Return the value that `encode` was given.

    Raises:
        CodecError: The value is opaque, of an unknown tag, or of a class that is not loaded in this process.
    """
    if isinstance(value, Mapping):
        if _TAG in value:
            return _decode_tagged(value)
        return {key: decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode(item) for item in value]
    return value


def _decode_tagged(node: Mapping[str, Json]) -> object:
    tag, inner = str(node[_TAG]), node.get("value")
    load = _loaders.get(tag)
    if load is None:
        known = ", ".join(sorted(_loaders))
        raise CodecError(f"unknown tag {tag!r} in a journal value; known: {known}. Is the framework's extra installed?")
    if tag in {"object", "enum", "opaque"}:
        return load(node)
    return load(inner)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _find_class(name: str) -> type | None:
    """Return a class of a module that is already loaded: a journal is data, reading it must not import code."""
    module_name, _, qualname = name.partition(":")
    found: object = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def _load_object(node: Mapping[str, Json]) -> object:
    name = str(node["type"])
    cls = _find_class(name)
    fields = cast("dict[str, Any]", {key: decode(item) for key, item in cast("dict[str, Json]", node["value"]).items()})
    if cls is not None and issubclass(cls, pydantic.BaseModel):
        return cls.model_construct(**fields)
    if cls is not None and dataclasses.is_dataclass(cast("type[Any]", cls)):
        instance: object = object.__new__(cast("type[Any]", cls))
        for key, item in fields.items():
            object.__setattr__(instance, key, item)
        return instance
    raise CodecError(f"the journal holds a {name!r}, which is not a loaded data class; import its module first")


def _load_enum(node: Mapping[str, Json]) -> object:
    cls = _find_class(str(node["type"]))
    if cls is None or not issubclass(cls, enum.Enum):
        raise CodecError(f"the journal holds a {node['type']!r}, which is not a loaded enum; import its module first")
    return cls(decode(node["value"]))


def _load_opaque(node: Mapping[str, Json]) -> object:
    raise CodecError(
        f"a {node['type']!r} was journaled only by its repr ({node['value']!r}) and cannot be read back; "
        "let the tool return plain data, a dataclass or a pydantic model"
    )


def encode_error(error: BaseException, _depth: int = 0) -> ErrorInfo:
    """Return an exception as a value: class, message, arguments and the attributes that are plain data.

    Never fails: what an exception does when it is looked at must not hide that there was one.
    """
    try:
        data = _error_data(error, _depth)
    except Exception as broken:
        if isinstance(broken, _TooDeepError) and _depth:
            raise
        data = {"unreadable": type(broken).__name__}
    return ErrorInfo(type=_class_name(type(error)), message=_message(error), data=data)


def _error_data(error: BaseException, depth: int) -> dict[str, Json]:
    data: dict[str, Json] = {"args": [encode(arg, depth) for arg in error.args]}
    attributes = {key: encode(item, depth) for key, item in vars(error).items() if not key.startswith("_")}
    plain = {key: item for key, item in attributes.items() if holds_opaque(item) is None}
    if plain:
        data["attributes"] = plain
    return data


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an exception's own code
        return f"(no message: {type(broken).__name__} in its __str__)"


def error_line(error: BaseException) -> str:
    """Return class and message of an exception: `ValueError: too small`. Never fails."""
    message = _message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def decode_error(info: ErrorInfo) -> Exception:
    """Return an exception of the recorded class; `ReplayedError` where that class is not loaded here."""
    cls = _find_class(info.type)
    if cls is None or not issubclass(cls, Exception):
        return ReplayedError(f"{info.type.partition(':')[2]}: {info.message}")
    args = cast("list[Json]", info.data.get("args", []))
    try:
        readable = [decode(arg) if holds_opaque(arg) is None else str(arg) for arg in args]
        attributes = cast("dict[str, object]", decode(info.data.get("attributes", {})))
    except CodecError:
        return ReplayedError(f"{info.type.partition(':')[2]}: {info.message}")
    # Not cls(*args): many exceptions of client libraries need a live response object to be constructed. Nor
    # cls.__new__(cls): a class may have a `__new__` of its own, with arguments.
    error = blank_error(cls, readable)
    vars(error).update(attributes)
    return error


def blank_error(cls: type[Exception], args: Sequence[object]) -> Exception:
    """Return an exception of a class without calling what the class itself does to make one."""
    # Such as OSError: Python refuses to make one of it, or of a class below it, as if it were any other.
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    error = cast("Exception", builtin.__new__(cls))
    error.args = tuple(args)
    if isinstance(error, OSError) and len(args) > 1:
        # They are no attributes of the instance, and so not among those that are kept.
        error.errno, error.strerror = cast("int", args[0]), cast("str", args[1])
    return error


def _error_to_json(info: ErrorInfo) -> dict[str, Json]:
    return {"type": info.type, "message": info.message, "data": info.data}


def _error_from_json(node: Any) -> Exception:
    return decode_error(ErrorInfo(type=node["type"], message=node["message"], data=node["data"]))


def _decode_all(items: Any) -> list[object]:
    return [decode(item) for item in items]


_loaders.update(
    {
        "dict": lambda pairs: {decode(key): decode(item) for key, item in pairs},
        "enum": _load_enum,
        "error": _error_from_json,
        "float": float,
        "object": _load_object,
        "opaque": _load_opaque,
        "tuple": lambda items: tuple(_decode_all(items)),
    }
)
register("bytes", bytes, lambda v: base64.b64encode(v).decode(), base64.b64decode)
register("bytearray", bytearray, lambda v: base64.b64encode(v).decode(), lambda v: bytearray(base64.b64decode(v)))
register("set", set, lambda v: sorted((encode(i) for i in v), key=repr), lambda v: set(_decode_all(v)))
register(
    "frozenset", frozenset, lambda v: sorted((encode(i) for i in v), key=repr), lambda v: frozenset(_decode_all(v))
)
register("datetime", dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat)
register("date", dt.date, dt.date.isoformat, dt.date.fromisoformat)
register("time", dt.time, dt.time.isoformat, dt.time.fromisoformat)
register("timedelta", dt.timedelta, dt.timedelta.total_seconds, lambda v: dt.timedelta(seconds=v))
register("decimal", decimal.Decimal, str, decimal.Decimal)
register("uuid", uuid.UUID, str, uuid.UUID)
