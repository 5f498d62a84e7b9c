"""What a run was made of, as short hashes: agent code and tools. Equal code gives equal fingerprints."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, cast

from oao_hookspecs import Json

__all__ = ["digest", "fingerprints", "version_of_policies"]

_PLAIN: Final = (str, int, float, bool, tuple, frozenset, type(None))


def digest(parts: Iterable[str]) -> str:
    """Return 16 hex digits over some texts."""
    hashed = hashlib.blake2b(digest_size=8)
    for part in parts:
        hashed.update(part.encode("utf-8", "surrogatepass"))
        hashed.update(b"\0")
    return hashed.hexdigest()


def fingerprints(agent: object, tools: Sequence[object]) -> dict[str, Json]:
    """Return the fingerprints of an agent and of the tools passed with it.

    Args:
        agent: The agent; its code is the code of the function, or of `invoke`, `ainvoke` and `__call__`.
        tools: Tools that were passed explicitly.
    """
    return {
        "agent": _fingerprint(agent),
        "tools": {_name(item): _fingerprint(item) for item in tools},
    }


def version_of_policies(policies: Sequence[object]) -> str:
    """Return a digest of policies: their code, and the plain values that they hold.

    Args:
        policies: As objects. One whose `repr` is its own is taken at its word; a policy file's names its content.
    """
    parts: list[str] = []
    for policy in policies:
        cls = type(policy)
        parts += [cls.__module__, cls.__qualname__]
        parts += [_of_code(value.__code__) for value in vars(cls).values() if inspect.isfunction(value)]
        if cls.__repr__ is not object.__repr__:
            parts.append(repr(policy))
        parts += [f"{key}={_stable(value)}" for key, value in sorted(_plain(policy).items())]
    return digest(parts)


def _plain(policy: object) -> dict[str, object]:
    found = getattr(policy, "__dict__", {})
    return {key: value for key, value in found.items() if isinstance(value, _PLAIN)}


def _name(item: object) -> str:
    return str(getattr(item, "name", None) or getattr(item, "__name__", type(item).__name__))


def _fingerprint(item: object) -> str:
    if inspect.isroutine(item):
        function = inspect.unwrap(getattr(item, "__func__", item))
        code = getattr(function, "__code__", None)
        return _of_code(code) if isinstance(code, types.CodeType) else digest([repr(function)])
    return _of_class(cast("Hashable", type(item)))


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
