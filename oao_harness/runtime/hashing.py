"""Short hashes, and texts of code and of plain values that are the same in every process."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterable, Mapping
from typing import cast

from oao_harness.runtime.reach import attributes_of

__all__ = ["digest", "stable", "text_of_annotation", "texts_of_code"]


def digest(parts: Iterable[str]) -> str:
    """Return 16 hex digits over some texts."""
    text = "\0".join([*parts, ""])  # each part with its end
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


@functools.lru_cache(maxsize=4096)
def texts_of_code(code: types.CodeType) -> tuple[str, ...]:
    """Return all of a code object but where it is written: lines, columns, and the name of the file."""
    inner: list[str] = []
    for constant in code.co_consts:
        inner += texts_of_code(constant) if isinstance(constant, types.CodeType) else (stable(constant),)
    return (
        code.co_qualname,
        code.co_code.hex(),
        code.co_exceptiontable.hex(),
        repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)),
        repr((code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars)),
        *inner,
    )


def stable(constant: object) -> str:
    """Return a plain value as a text that is the same in every process: the order of a set is not.

    Of a value that is not plain, only its class is named: its `repr` may hold an address, and is the user's code.
    """
    kind = type(constant)
    if kind is frozenset or kind is set:
        return f"{kind.__name__}({sorted(map(stable, cast('frozenset[object]', constant)))})"
    if kind is tuple:
        return f"tuple({[stable(item) for item in cast('tuple[object, ...]', constant)]})"
    if kind in {str, bytes, bool, int, float, complex, type(None), type(Ellipsis)}:
        return repr(constant)
    return f"<{kind.__module__}.{kind.__qualname__}>"


def text_of_annotation(annotation: object) -> str:
    """Return an annotation as text, without asking user code what it is called."""
    if isinstance(annotation, str):
        return annotation
    kind = type(annotation)
    if issubclass(kind, type):
        cls = cast("type", annotation)
        return f"{cls.__dict__.get('__module__')}.{cls.__qualname__}"
    fields: Mapping[str, object] = dict(attributes_of(annotation)) if kind.__module__ == "typing" else {}
    args, origin = fields.get("__args__"), fields.get("__origin__")
    if kind in {types.GenericAlias, types.UnionType}:
        alias = cast("types.GenericAlias", annotation)
        args, origin = alias.__args__, getattr(alias, "__origin__", types.UnionType)
    if args is None and origin is None:
        return f"{fields.get('_name') or ''}{stable(annotation)}"
    inside = [text_of_annotation(one) for one in cast("tuple[object, ...]", args or ())]
    return f"{fields.get('_name') or ''} {text_of_annotation(origin)}{inside}"
