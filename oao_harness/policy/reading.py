"""Reads a policy file: text, TOML, shape. Every mistake becomes one line that says where it is and what to do."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import BaseModel, ValidationError

from oao_harness.errors import ConfigError
from oao_harness.policy.lines import LineMap, Path, error_line_of

if TYPE_CHECKING:
    from oao_harness.policy.schema import PolicyDocument

__all__ = ["Problems", "Source", "close_to", "read_document", "read_text", "table_in"]

_MOST_BYTES: Final = 1_000_000
_ITEMS: Final = ("rule", "tool", "sequence", "label", "role")
_PYPROJECT: Final[Path] = ("tool", "oao", "policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A policy file as it was read."""

    name: str
    """As the user named it, for messages and decisions."""
    text: str
    lines: LineMap
    prefix: Path
    """Where in the document the policy is; empty but in a pyproject.toml."""
    data: Mapping[str, object]

    def at(self, path: Path) -> str:
        """Return `file:line` of a key."""
        return f"{self.name}:{self.lines.line((*self.prefix, *path))}"

    def line(self, path: Path) -> int:
        """Return the line of a key, from 1."""
        return self.lines.line((*self.prefix, *path))


@dataclass(slots=True)
class Problems:
    """What is wrong with one file, collected so that a user mends all of it at once."""

    source: Source
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, path: Path, what: str) -> None:
        """Note what is wrong with a key.

        Args:
            path: Of the key.
            what: What is wrong, and what to do.
        """
        source = self.source
        self.found.append((source.line(path), f"{source.at(path)}: {_where(source, path)}{what}"))

    def raise_if_any(self) -> None:
        """Raise where something was noted.

        Raises:
            ConfigError: One line for each problem, in the order of the file.
        """
        if self.found:
            raise ConfigError("\n".join(dict.fromkeys(text for _, text in sorted(self.found, key=lambda one: one[0]))))


def close_to(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean 'x'?`, or what is known where nothing is near."""
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def table_in(value: object) -> Mapping[str, object] | None:
    """Return what TOML read as a table, None for anything else."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else None


def read_text(path: FilePath, shown: str) -> str:
    """Return the text of a policy file.

    Args:
        path: Of the file.
        shown: How messages name it.

    Raises:
        ConfigError: It cannot be read, is no text in UTF-8, or is too large to be a policy.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no policy file {shown!r} in {str(FilePath.cwd())!r}; check the path") from None
    except IsADirectoryError:
        raise ConfigError(f"policy {shown!r} is a folder; name a file, for example {shown}/policy.toml") from None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"policy file {shown!r} cannot be read: {reason}; check its path and permissions") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"policy file {shown!r} is larger than {_MOST_BYTES:,} bytes; that is no policy, check --policy"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{shown}:{line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error


def _schema() -> type[PolicyDocument]:
    # pydantic builds it when it is imported, which takes longer than all else here; few programs read a policy file.
    from oao_harness.policy.schema import PolicyDocument  # noqa: PLC0415

    return PolicyDocument


def read_document(text: str, name: str, *, in_pyproject: bool = False) -> tuple[Source, PolicyDocument]:
    """Return a policy file's document, its shape checked.

    Args:
        text: The whole file.
        name: How messages name it.
        in_pyproject: True reads the table `[tool.oao.policy]`.

    Raises:
        ConfigError: It is no TOML, or has another shape; one line for each mistake.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what = str(error).partition(" (at ")[0]
        raise ConfigError(f"{name}:{error_line_of(error, text)}: this is not TOML: {what}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}:1: nested too deeply; a policy needs no such depth") from error
    prefix: Path = _PYPROJECT if in_pyproject else ()
    table: Mapping[str, object] | None = data
    for key in prefix:
        table = table_in((table or {}).get(str(key)))
    lines = LineMap(text)
    if table is None:
        line = lines.line(prefix)
        raise ConfigError(f"{name}:{line}: there is no table [tool.oao.policy]; add it, or name another policy file")
    source = Source(name=name, text=text, lines=lines, prefix=prefix, data=table)
    try:
        return source, _schema().model_validate(table)
    except ValidationError as error:
        problems = Problems(source)
        told: set[Path] = set()
        for mistake in error.errors(include_url=False):
            path, what = _said(mistake["loc"], mistake["type"], mistake.get("ctx") or {}, mistake["msg"], mistake)
            # Of a union of types each member complains; the first complaint is enough.
            if path not in told:
                problems.add(path, what)
                told.add(path)
        problems.raise_if_any()
        raise


def _said(loc: Path, type: str, context: Mapping[str, Any], message: str, mistake: Any) -> tuple[Path, str]:
    """Return where a mistake of shape is, and in our words what to do."""
    key, given = str(loc[-1]) if loc else "", mistake["input"]
    if type == "extra_forbidden":
        return loc, f"unknown key {key!r}{close_to(key, _keys_at(loc[:-1]))}"
    if type == "missing":
        return loc[:-1], f"{key!r} is missing; add it"
    # In a union of types pydantic names the member that was tried, which is no key of the file.
    path = tuple(part for part in loc if part not in {"str", "int", "float"})
    shown = _named(path)
    if type == "literal_error":
        known = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        if isinstance(given, str):
            return path, f"{shown} is {given!r}{close_to(given, known)}"
        return path, f"{shown} is {given!r:.80}; give one of {context['expected']}"
    wanted = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "string_type": "a text in quotes",
        "bool_type": "true or false",
        "list_type": "a list in [ ]",
        "dict_type": "a table",
        "model_type": "a table",
        "finite_number": "a finite number",
        "greater_than": f"a number > {context.get('gt', 0):g}",
        "greater_than_equal": f"a number >= {context.get('ge', 0):g}",
        "less_than_equal": f"a number <= {context.get('le', 0):g}",
    }.get(type)
    if type == "list_type" and isinstance(given, str):
        wanted = f"a list, for example [{given!r}]"
    if type == "model_type" and isinstance(given, list):
        wanted = f"a table: [{key}], not [[{key}]]"
    if type == "list_type" and isinstance(given, dict) and key in _ITEMS:
        wanted = f"a list of tables: [[{key}]], not [{key}]"
    if type in {"too_short", "string_too_short"}:
        return path, f"{shown} is empty; give at least one, or leave the key out"
    if wanted is not None:
        return path, f"{shown} is {given!r:.80}; give {wanted}"
    return path, f"{shown} is {given!r:.80}: {message}"


def _named(path: Path) -> str:
    """Return the key that a message is about: `tools`, or `item 2 of tools`."""
    keys = [part for part in path if isinstance(part, str)]
    if path and isinstance(path[-1], int) and keys:
        return f"item {path[-1] + 1} of {keys[-1]}"
    return str(path[-1]) if path else "the policy"


def _where(source: Source, path: Path) -> str:
    """Return `[[rule]] 'name': ` or `[limits]: ` for a path inside of such a table."""
    if not path:
        return ""
    table = path[0]
    if table in _ITEMS and len(path) > 1 and isinstance(path[1], int):
        items = source.data.get(str(table))
        item = table_in(cast("list[object]", items)[path[1]] if isinstance(items, list) else None)
        name = (item or {}).get("name")
        return f"[[{table}]] {name!r}: " if isinstance(name, str) and name else f"[[{table}]]: "
    return f"[{table}]: " if len(path) > 1 else ""


def _keys_at(path: Path) -> list[str]:
    """Return the keys that a table of the schema may have."""
    model: Any = _schema()
    for part in path:
        if isinstance(part, int):
            continue
        found = next((f for n, f in model.model_fields.items() if part in {n, f.alias}), None)
        model = _model_in(found.annotation) if found is not None else None
        if model is None:
            return []
    return [found.alias or name for name, found in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part)) is not None), None)
