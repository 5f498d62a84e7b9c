"""What a run was made of, as short hashes: agent code, graph, tools, policies. Equal code gives equal fingerprints."""

from __future__ import annotations

import functools
import inspect
import operator
import re
import types
import weakref
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final, cast

from oao_harness.runtime.hashing import digest
from oao_harness.runtime.parts import parts_of
from oao_harness.runtime.reach import attributes_of, function_of, is_routine, references_of
from oao_hookspecs import Json

__all__ = ["changes", "digest", "fingerprints", "version_of_policies"]

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN: Final = (str, int, float, bool, tuple, frozenset, type(None))


def fingerprints(agent: object, tools: Sequence[object], *, policy: str = "", anew: bool = False) -> dict[str, Json]:
    """Return the fingerprints of an agent and of the tools passed with it.

    `agent` and `tools` are digests of the outermost code alone, as they have been in every journal; `parts` are those
    of all that both reach, see `parts_of`; `policy` is what was passed.

    Args:
        agent: The agent; its code is the code of the function, or of `invoke`, `ainvoke` and `__call__`.
        tools: Tools that were passed explicitly.
        policy: Version of the policies.
        anew: True looks at everything again. Else what was found for this object is taken, unless the object itself
            has changed: its code, its attributes, or what its code names.
    """
    parts: dict[str, str] = {}
    for item in (agent, *tools):
        parts.update(_parts(item, anew=anew))
    found: dict[str, Json] = {
        "agent": _fingerprint(agent),
        "tools": {_name(item): _fingerprint(item) for item in tools},
        "parts": parts,
    }
    if policy:
        found["policy"] = policy
    return found


def changes(before: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """Return what differs between two fingerprints, as a person reads it; nothing where all is equal.

    Args:
        before: Of the journal. An old one has no `parts` and no `policy`: then these are not compared.
        now: As `fingerprints` returns them.
    """
    tools = [f"tool {name}" for name in _unequal(before.get("tools"), now.get("tools"))]
    found: list[str] = []
    if before.get("parts") is not None:
        parts = _unequal(before["parts"], now.get("parts"))
        # Functions first: a class or a constant that differs usually differs with them.
        found = [name if " " in name else f"function {name}" for name in sorted(parts, key=lambda one: " " in one)]
    if before["agent"] != now["agent"] and not found:
        found = ["the agent"]
    return [*found, *(tool for tool in tools if tool not in found)]


def _unequal(before: Json, now: Json) -> list[str]:
    old, new = (cast("Mapping[str, Json]", one or {}) for one in (before, now))
    return [name for name in sorted({**old, **new}) if old.get(name) != new.get(name)]


class _Known:
    """The parts of objects that were looked at, for as long as each lives; by identity, as not all can be hashed."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int], tuple[weakref.ref[object], object, dict[str, str]]] = {}

    def get(self, item: object, stamp: object) -> dict[str, str] | None:
        """Return what was kept for an object, unless it has changed since."""
        owner, key = self._key(item)
        found = self._found.get(key)
        return found[2] if found is not None and found[0]() is owner and found[1] == stamp else None

    def keep(self, item: object, stamp: object, parts: dict[str, str]) -> None:
        """Keep what was found, where the object can be held weakly."""
        owner, key = self._key(item)
        try:
            ref = weakref.ref(owner, lambda _: self._found.pop(key, None))
        except TypeError:
            return
        self._found[key] = ref, stamp, parts

    @staticmethod
    def _key(item: object) -> tuple[object, tuple[int, int]]:
        # A bound method is made anew whenever it is asked for.
        if type(item) is types.MethodType:
            return item.__self__, (id(item.__self__), id(item.__func__))
        return item, (id(item), 0)


_known: Final = _Known()


def _parts(item: object, *, anew: bool) -> dict[str, str]:
    if item is None:
        return {}
    stamp = _stamp(item)
    found = None if anew else _known.get(item, stamp)
    if found is None:
        found = parts_of(item)
        _known.keep(item, stamp, found)
    return found


def _stamp(item: object) -> object:
    """Return what tells cheaply that an object is not what it was: identities of what it refers to itself."""
    function = function_of(item) if is_routine(item) else None
    if function is None:
        return type(item), [id(value) for _, value in attributes_of(item)]
    return function.__code__, [id(value) for _, value in references_of(function)]


def version_of_policies(policies: Sequence[object]) -> str:
    """Return a digest of policies: their code, and the plain values that they hold.

    Args:
        policies: As objects. One whose `repr` is its own is taken at its word; a policy file's names its content.
    """
    parts: list[str] = []
    for policy in policies:
        cls = type(policy)
        parts += [cls.__module__, cls.__qualname__]
        parts += _of_methods(cls)
        if cls.__repr__ is not object.__repr__:
            parts.append(_ADDRESS.sub("", repr(policy)))
        parts += [f"{key}={_stable(value)}" for key, value in sorted(_plain(policy).items())]
    return digest(parts)


_known_methods: Final[weakref.WeakKeyDictionary[type, tuple[list[types.CodeType], list[str]]]] = (
    weakref.WeakKeyDictionary()
)


def _of_methods(cls: type) -> list[str]:
    codes = [value.__code__ for value in vars(cls).values() if type(value) is types.FunctionType]
    known = _known_methods.get(cls)
    # By identity, and of every run: the hash of a code object is computed from all of it each time.
    if known is None or len(known[0]) != len(codes) or not all(map(operator.is_, known[0], codes)):
        known = _known_methods[cls] = codes, [_of_code(code) for code in codes]
    return known[1]


def _plain(policy: object) -> dict[str, object]:
    found = getattr(policy, "__dict__", {})
    return {key: value for key, value in found.items() if isinstance(value, _PLAIN)}


def _name(item: object) -> str:
    return str(getattr(item, "name", None) or getattr(item, "__name__", type(item).__name__))


def _fingerprint(item: object) -> str:
    if is_routine(item):
        function = inspect.unwrap(getattr(item, "__func__", item))
        code = getattr(function, "__code__", None)
        return _of_code(code) if isinstance(code, types.CodeType) else digest([_name_of_builtin(function)])
    return _of_class(cast("Hashable", type(item)))


def _name_of_builtin(function: object) -> str:
    # Not its `repr`, which for a method holds an address.
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"<built-in function {name}>" if isinstance(function, types.BuiltinFunctionType) else str(name)


@functools.lru_cache(maxsize=4096)
def _of_code(code: types.CodeType) -> str:
    return digest(_texts(code))


def _texts(code: types.CodeType) -> Iterable[str]:
    yield code.co_name
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _texts(constant)
        else:
            yield _stable(constant)


def _stable(constant: object) -> str:
    """Return a text that is the same in every process; the order of a set is not."""
    if isinstance(constant, frozenset):
        return f"frozenset({sorted(map(_stable, cast('frozenset[object]', constant)))})"
    if isinstance(constant, tuple):
        return f"tuple({[_stable(item) for item in cast('tuple[object, ...]', constant)]})"
    return repr(constant)


@functools.lru_cache(maxsize=4096)
def _of_class(hashable: Hashable) -> str:
    cls = cast("type", hashable)
    methods = (getattr(cls, name, None) for name in ("invoke", "ainvoke", "__call__"))
    codes = [_of_code(method.__code__) for method in methods if inspect.isfunction(method)]
    return digest([cls.__module__, cls.__qualname__, *codes])
