"""Reads JSON that strangers wrote: each mistake is said with its place, and nothing is guessed or dropped."""

from __future__ import annotations

import json
import reprlib
from pathlib import Path
from typing import Final, NoReturn, TypeAlias, TypeVar, cast

from oao_harness.errors import RecordingError
from oao_hookspecs import Json

__all__ = ["Node", "list_at", "node_at", "parsed", "read_documents", "required", "text_at", "text_of"]

Node: TypeAlias = dict[str, Json]
_T = TypeVar("_T")

_GZIP_MAGIC: Final = b"\x1f\x8b"
_KINDS: Final[dict[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
}


def read_documents(path: Path) -> list[Json]:
    """Return the JSON documents of a file: one, or one on each line.

    Args:
        path: The file, UTF-8.

    Raises:
        RecordingError: It cannot be read, is truncated, or is no JSON; with line and column, not with the file's name.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"it cannot be read: {error.strerror or error}") from error
    if content.startswith(_GZIP_MAGIC):
        raise RecordingError("it is compressed; unpack it first (gunzip)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordingError(f"it is no UTF-8 text: byte {error.start} is wrong") from error
    if not text.strip():
        raise RecordingError("it is empty")
    try:
        return [_loads(text)]
    except json.JSONDecodeError as error:
        lines = text.split("\n")
        if error.msg != "Extra data" or not _is_whole(lines[0]):
            raise RecordingError(f"it is truncated or no JSON: {error}") from error
    found: list[Json] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found.append(_loads(line))
        except json.JSONDecodeError as error:
            raise RecordingError(
                f"line {number} is truncated or no JSON: {error.msg} (column {error.colno})"
            ) from error
    return found


def _is_whole(line: str) -> bool:
    try:
        _loads(line)
    except json.JSONDecodeError:
        return False
    return True


def _loads(text: str) -> Json:
    try:
        return cast("Json", json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_doubles))
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise RecordingError("it is nested too deep") from error
    except ValueError as error:  # a number of more digits than Python reads
        raise RecordingError(f"it is no JSON that can be read: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise RecordingError(f"it holds {name}, which is no JSON")


def _without_doubles(pairs: list[tuple[str, Json]]) -> Node:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RecordingError(f"an object has the key {twice!r:.60} twice, and only one of them could be read")
    return found


def parsed(text: str, where: str) -> Json:
    """Return what a text holds that is JSON itself.

    Raises:
        RecordingError: It is no JSON.
    """
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise RecordingError(f"{where} is no JSON: {error.msg} (column {error.colno}): {text!r:.80}") from error
    except RecordingError as error:
        raise RecordingError(f"{where}: {error}") from error


def required(value: object, kind: type[_T], where: str) -> _T:
    """Return a value of a kind.

    Raises:
        RecordingError: It is something else, or missing.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        said = "is missing" if value is None else f"is {reprlib.repr(value)}, not {_KINDS.get(kind, kind.__name__)}"
        raise RecordingError(f"{where} {said}")
    return value


def node_at(value: object, where: str) -> Node:
    """Return an object; see `required`."""
    return cast("Node", required(value, dict, where))


def list_at(value: object, where: str) -> list[Json]:
    """Return a list; see `required`."""
    return cast("list[Json]", required(value, list, where))


def text_at(value: object, where: str) -> str:
    """Return a text that is not empty.

    Raises:
        RecordingError: It is something else, or empty.
    """
    found = required(value, str, where)
    if not found:
        raise RecordingError(f"{where} is empty")
    return found


def text_of(content: Json) -> str:
    """Return the text of a message's content: a text, nothing, or a list of parts that hold texts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(text_of(part) for part in content)
    if isinstance(content, dict):
        inner = content.get("content", content.get("text"))
        return text_of(inner) if isinstance(inner, str | list) else json.dumps(content, ensure_ascii=False)
    return "" if content is None else json.dumps(content)
