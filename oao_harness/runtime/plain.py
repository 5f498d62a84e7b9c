"""Any value as JSON that a report, a journal and a terminal can hold. For reading: it does not come back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import cast

from pydantic_core import to_jsonable_python

from oao_harness.journal.codec import encode, error_line, opaque
from oao_hookspecs import Json

__all__ = ["as_json", "as_text"]

# Source: the default of `sys.set_int_max_str_digits`, 4300 digits, in bits.
_MOST_BITS = 14_000


def as_json(value: object) -> Json:
    """Return a value as JSON. Never fails: a task or an output that resists must not cost the run.

    Args:
        value: Any object.
    """
    try:
        found = cast("Json", to_jsonable_python(value, fallback=repr))
    except Exception:  # noqa: BLE001 - bytes that are no text, a value that holds itself, a user's own code
        try:
            found = encode(value)
        except Exception as error:  # noqa: BLE001 - a user's own code again
            found = opaque(type(value), f"{error_line(error)} while it was looked at")
    return _printable(found)


def as_text(text: str) -> str:
    """Return a text that UTF-8 can hold; half of a surrogate pair is written as its escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _printable(value: Json) -> Json:
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, Mapping):
        return {as_text(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    if isinstance(value, int) and value.bit_length() > _MOST_BITS and sys.get_int_max_str_digits():
        return hex(value)
    return value
