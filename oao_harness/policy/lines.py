"""Where in a TOML file each key is written: `tomllib` reads, this only counts lines."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

__all__ = ["LineMap", "Path", "error_line_of"]

Path: TypeAlias = tuple[str | int, ...]
"""Keys, and indexes of arrays, from the top."""

# A statement that is not complete on its first line can only be completed by one of these.
_CLOSERS: Final = ("]", "}", '"""', "'''")


class LineMap:
    """The line, from 1, at which each key, table and item of an array begins.

    Args:
        text: A whole TOML document that `tomllib` accepts.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._last: dict[Path, int] = {}
        """Index of the last table of each array of tables."""
        prefix: Path = ()
        chunk: list[str] = []
        first = 1
        # Not splitlines(): that also breaks at characters which TOML does not take for the end of a line.
        for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
            if not chunk:
                first = number
            chunk.append(line)
            if len(chunk) > 1 and not any(closer in line for closer in _CLOSERS):
                continue
            try:
                found = tomllib.loads("\n".join(chunk))
            except tomllib.TOMLDecodeError:
                continue
            if chunk[0].lstrip().startswith("["):
                prefix = self._enter(found, first)
            else:
                self._note(prefix, found, first, chunk)
            chunk = []

    def line(self, path: Path) -> int:
        """Return the line of a key, or of the nearest table around it that has one; 1 for the whole document."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _enter(self, header: Mapping[str, object], line: int) -> Path:
        """Return the table that `[a.b]` or `[[a.b]]` opens."""
        keys: list[str | int] = []
        node: Mapping[str, Any] | list[Any] = header
        while node:
            if isinstance(node, list):
                path = tuple(keys)
                self._last[path] = self._last.get(path, -1) + 1
                keys.append(self._last[path])
                break
            key, node = next(iter(node.items()))
            keys.append(key)
            if tuple(keys) in self._last and not isinstance(node, list):
                keys.append(self._last[tuple(keys)])
        for end in range(1, len(keys) + 1):
            self._lines.setdefault(tuple(keys[:end]), line)
        return tuple(keys)

    def _note(self, prefix: Path, value: object, line: int, chunk: Sequence[str]) -> None:
        if isinstance(value, Mapping):
            for key, item in cast("Mapping[str, object]", value).items():
                self._lines.setdefault((*prefix, key), line)
                self._note((*prefix, key), item, line, chunk)
        elif isinstance(value, list):
            items = cast("list[object]", value)
            # Tables that stand on lines of their own.
            begun = [i for i, text in enumerate(chunk) if text.lstrip().startswith("{")]
            at = 0
            for index, item in enumerate(items):
                if len(begun) == len(items):
                    at = begun[index]
                elif isinstance(item, str):
                    written = (json.dumps(item, ensure_ascii=False), f"'{item}'")
                    at = next((i for i in range(at, len(chunk)) if any(w in chunk[i] for w in written)), at)
                self._lines.setdefault((*prefix, index), line + at)
                self._note((*prefix, index), item, line + at, chunk)


def error_line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    """Return the line, from 1, at which a document that `tomllib` refused is wrong."""
    found = re.search(r"\(at line (\d+), column \d+\)", str(error))
    return int(found[1]) if found else max(1, len(text.rstrip().splitlines()))
