"""What code and objects refer to, without running any of it: no property, no `__getattr__`, no import. Knows no run."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, TypeGuard, cast

__all__ = ["TOOL_MARK", "attributes_of", "function_of", "is_routine", "items_of", "names_of", "references_of"]

TOOL_MARK: Final = "__oao_tool__"
"""Attribute of a governed function: the name of the tool that it is."""

# A container is looked into so far: what is in it beyond that is data.
_MOST_ITEMS: Final = 256


@functools.lru_cache(maxsize=4096)
def names_of(code: types.CodeType) -> tuple[str, ...]:
    """Return the global and attribute names that some code uses, with those of the functions inside of it."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in names_of(constant)]
    return tuple(dict.fromkeys((*code.co_names, *inner)))


def is_routine(value: object) -> TypeGuard[Callable[..., object]]:
    """Return True for a function, a method or a builtin of either kind."""
    # On the path of every run: most agents are objects that cannot be called, and `inspect` asks them five questions.
    return callable(value) and inspect.isroutine(value)


def function_of(routine: object) -> types.FunctionType | None:
    """Return the function below a method and below what `functools.wraps` put around it, or None for a builtin."""
    found = routine
    seen: set[int] = set()
    while id(found) not in seen:
        seen.add(id(found))
        kind = cast("type", type(found))
        if issubclass(kind, types.MethodType):
            found = cast("types.MethodType", found).__func__
        elif issubclass(kind, staticmethod | classmethod):
            found = cast("staticmethod[..., object]", found).__func__
        elif issubclass(kind, types.FunctionType):
            inner = vars(cast("types.FunctionType", found)).get("__wrapped__")
            if inner is None:
                break
            found = inner
    return found if issubclass(type(found), types.FunctionType) else None  # type: ignore[return-value]


def references_of(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    """Yield name and value of what a function's code reaches: its closure, and the globals that it names."""
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in names_of(function.__code__):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def attributes_of(owner: object) -> Iterator[tuple[str, object]]:
    """Yield name and value of an object's own attributes, those in slots too; of a class, what its body holds."""
    if issubclass(type(owner), type):
        yield from list(type.__dict__["__dict__"].__get__(owner).items())
        return
    has_dict, slots = _storage_of(cast("Hashable", type(owner)))
    if has_dict:
        yield from list(cast("dict[str, object]", object.__getattribute__(owner, "__dict__")).items())
    for name, slot in slots:
        try:
            yield name, slot.__get__(owner)
        except AttributeError:  # not filled
            continue


@functools.lru_cache(maxsize=1024)
def _storage_of(hashable: Hashable) -> tuple[bool, tuple[tuple[str, types.MemberDescriptorType], ...]]:
    """Return whether instances have a real `__dict__`, and the slots of the class."""
    cls = cast("type", hashable)
    has_dict, slots = False, dict[str, types.MemberDescriptorType]()
    for base in type.mro(cls) if cls is not type else ():
        for name, value in base.__dict__.items():
            if name == "__dict__":
                has_dict = issubclass(type(value), types.GetSetDescriptorType)
            elif issubclass(type(value), types.MemberDescriptorType):
                slots.setdefault(name, value)
    # A class, a module and a function keep what they refer to in other places.
    plain = not issubclass(cls, type | types.ModuleType | types.FunctionType)
    return has_dict and plain, tuple(slots.items()) if plain else ()


def items_of(value: object) -> Iterator[tuple[str, object]]:
    """Yield what a builtin container holds, up to a bound; nothing for anything else. A set's order is its own."""
    kind = cast("type", type(value))
    if issubclass(kind, dict | types.MappingProxyType):
        owner: Any = dict if issubclass(kind, dict) else types.MappingProxyType
        items = cast("Iterable[tuple[object, object]]", list(owner.items(value))[:_MOST_ITEMS])
        yield from ((key if isinstance(key, str) else "", item) for key, item in items)
        return
    for base in (list, tuple, set, frozenset):
        if issubclass(kind, base):
            found = cast("Iterable[object]", list(cast("Any", base).__iter__(value))[:_MOST_ITEMS])
            yield from (("", item) for item in found)
