"""Takes out of a tool's result what nobody may see. Changes nothing in place.

The patterns are regular expressions of Python, which can take exponential time on a text made for that; therefore a
text longer than a bound is withheld whole.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from oao_hookspecs import Json

__all__ = ["Redaction", "redacted"]

_MOST_CHARACTERS: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """One thing to take out: what a pattern matches, or the value of a key."""

    pattern: re.Pattern[str] | None = None
    field: str | None = None
    replacement: str = "[redacted]"


def redacted(value: Json, redactions: Sequence[Redaction]) -> Json:
    """Return a result without what the redactions name, at any depth; keys of tables are texts too.

    Args:
        value: JSON.
        redactions: Applied in order.

    Raises:
        ValueError: It holds an object that is no plain data.
    """
    if isinstance(value, str):
        return _text(value, redactions)
    if isinstance(value, dict):
        kind, inside = value.get("$oao"), value.get("value")
        if kind == "opaque":
            raise ValueError(f"it holds a {value.get('type')}, into which nobody can look; return plain data")
        if kind in {"bytes", "bytearray"} and isinstance(inside, str):
            return {**value, "value": _bytes(inside, redactions)}
        if kind == "dict" and isinstance(inside, list):
            return {**value, "value": [_pair(pair, redactions) for pair in inside]}
        found: dict[str, Json] = {}
        for key, item in value.items():
            new = _text(key, redactions)
            unique, count = new, 1
            while unique in found:
                count += 1
                unique = f"{new} #{count}"
            found[unique] = _item(key, item, redactions)
        return found
    if isinstance(value, list | tuple):
        return [redacted(item, redactions) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        # A number that a pattern names, such as an account's, is hidden as a text.
        written = str(value)
        new = _text(written, redactions)
        return value if new == written else new
    return value


def _item(key: Json, item: Json, redactions: Sequence[Redaction]) -> Json:
    hidden = next((one for one in redactions if one.field is not None and one.field == key), None)
    return redacted(item, redactions) if hidden is None else hidden.replacement


def _pair(pair: Json, redactions: Sequence[Redaction]) -> Json:
    """Redact a key and its value, as the journal keeps tables whose keys are not all texts."""
    if not isinstance(pair, list) or len(pair) != 2:
        return redacted(pair, redactions)
    return [redacted(pair[0], redactions), _item(pair[0], pair[1], redactions)]


def _bytes(encoded: str, redactions: Sequence[Redaction]) -> str:
    """Redact the text that bytes hold; every byte is a character of it."""
    text = base64.b64decode(encoded).decode("latin-1")
    new = _text(text, redactions)
    return encoded if new == text else base64.b64encode(new.encode("latin-1", "backslashreplace")).decode()


def _text(text: str, redactions: Sequence[Redaction]) -> str:
    patterns = [one for one in redactions if one.pattern is not None]
    if patterns and len(text) > _MOST_CHARACTERS:
        return f"[withheld: {len(text):,} characters are too many to redact]"
    for one in patterns:
        if one.pattern is not None:
            # A backslash in the replacement is a backslash.
            text = one.pattern.sub(one.replacement.replace("\\", "\\\\"), text)
    return text
