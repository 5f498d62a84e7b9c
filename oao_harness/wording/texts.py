"""Text that somebody else wrote, safe to show: an agent's words must not act on who reads them."""

from __future__ import annotations

import json
import re
from typing import Final

from oao_hookspecs import Json

__all__ = ["clean", "compact", "one_line"]

# What a terminal would act on: an agent's text must not move the cursor or recolour the report.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Return a text without what a terminal would act on; control characters are shown escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text.replace("\r\n", "\n").expandtabs(4))


def one_line(text: str) -> str:
    """Return a text as one clean line, white space collapsed."""
    return clean(" ".join(text.split()))


def compact(value: Json) -> str:
    """Return a JSON value on one line; a text as it is."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
