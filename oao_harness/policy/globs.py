"""Which names a list of exact names and globs selects."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from typing import Final

__all__ = ["Names", "is_glob"]

_SPECIAL: Final = frozenset("*?[")


def is_glob(pattern: str) -> bool:
    """Return True where a pattern may select more than one name."""
    return not _SPECIAL.isdisjoint(pattern)


class Names:
    """Exact names and globs (`*`, `?`, `[a-z]`, `[!a]`), case-sensitive; a glob must match the whole name.

    Args:
        patterns: In the order of the file.
    """

    __slots__ = ("_exact", "_globs", "patterns")

    def __init__(self, patterns: Sequence[str]) -> None:
        self.patterns = tuple(patterns)
        # A tool may be called `a[b]`: a pattern always selects the name that is written like it.
        self._exact = {pattern: i for i, pattern in reversed([*enumerate(patterns)])}
        self._globs = [(i, re.compile(fnmatch.translate(p)).match) for i, p in enumerate(patterns) if is_glob(p)]

    def find(self, name: str) -> int | None:
        """Return the index of the pattern that selects a name: the exact one, else the first glob; None for none."""
        exact = self._exact.get(name)
        if exact is not None:
            return exact
        return next((i for i, match in self._globs if match(name)), None)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def is_exact(self, name: str) -> bool:
        """Return True where a name is listed as it is."""
        return name in self._exact
