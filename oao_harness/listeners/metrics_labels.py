"""Keeps the values of a label few: whoever invents names must not fill anybody's memory."""

from __future__ import annotations

from typing import Final

__all__ = ["MOST", "OTHER", "Names"]

MOST: Final = 100
"""Values of one label that are told apart."""
OTHER: Final = "other"
_MOST_CHARS: Final = 120


class Names:
    """The values of one label; the first ones are kept, all further ones are `other`.

    Args:
        most: How many are told apart, >= 0.
    """

    __slots__ = ("_known", "_most")

    def __init__(self, most: int = MOST) -> None:
        self._known: dict[str, str] = {}
        self._most = most

    def of(self, name: str) -> str:
        """Return the label of a name; what cannot be written as UTF-8 becomes `?`, and a long name is cut."""
        name = name[:_MOST_CHARS]
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= self._most:
                return OTHER
            # Two threads may pass the check together: one name too many does no harm.
            found = name.encode("utf-8", "replace").decode() or "unknown"
            self._known[name] = found
        return found
