"""Which policy a project uses where nobody names one: `[tool.oao] policy` in the nearest pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oao_harness.errors import ConfigError
from oao_harness.policy.lines import LineMap, error_line_of
from oao_harness.policy.reading import close_to, read_text, table_in

__all__ = ["ProjectFile", "ProjectPolicy", "find_project_policy", "project_files", "shown"]

# `redact` is read where recordings are written.
_KNOWN: Final = ("policy", "redact")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPolicy:
    """What a project's pyproject.toml names."""

    policy: str
    """A name, or the path of a file."""
    source: str
    """Where that is written, as `file:line`."""


def find_project_policy(start: Path | None = None) -> ProjectPolicy | None:
    """Return the policy of the project that a folder is in, or None where it names none.

    The first pyproject.toml upwards that has a table `[tool.oao]` counts; the search ends at the folder with `.git`.

    Args:
        start: The folder; the working folder by default.

    Raises:
        ConfigError: The file is no TOML, or its `[tool.oao]` says something unknown.
    """
    return next(filter(None, map(_policy_in, project_files(start))), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectFile:
    """A pyproject.toml, read."""

    path: Path
    shown: str
    """Its path for a message."""
    text: str
    tools: Mapping[str, object]
    """The tables below `[tool]`."""


def project_files(start: Path | None = None) -> Iterator[ProjectFile]:
    """Yield the pyproject.toml files from a folder upwards; the search ends at the folder with `.git`.

    Args:
        start: The folder; the working folder by default.

    Raises:
        ConfigError: One is no TOML.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            name = shown(path)
            text = read_text(path, name)
            try:
                tools = table_in(tomllib.loads(text).get("tool")) or {}
            except tomllib.TOMLDecodeError as error:
                raise ConfigError(f"{name}:{error_line_of(error, text)}: this is not TOML: {error}") from error
            yield ProjectFile(path=path, shown=name, text=text, tools=tools)
        if (folder / ".git").exists():
            return


def _policy_in(file: ProjectFile) -> ProjectPolicy | None:
    if "oao" not in file.tools:
        return None
    path, shown_as = file.path, file.shown
    lines = LineMap(file.text)
    table = table_in(file.tools["oao"])
    if table is None:
        raise ConfigError(f"{shown_as}:{lines.line(('tool', 'oao'))}: [tool.oao] is no table")
    for key in table:
        if key not in _KNOWN:
            at = lines.line(("tool", "oao", key))
            raise ConfigError(f"{shown_as}:{at}: [tool.oao]: unknown key {key!r}{close_to(key, _KNOWN)}")
    policy = table.get("policy")
    if policy is None:
        return None
    source = f"{shown_as}:{lines.line(('tool', 'oao', 'policy'))}"
    if isinstance(policy, dict):
        return ProjectPolicy(policy=shown(path), source=source)
    if not isinstance(policy, str) or not policy:
        raise ConfigError(f"{source}: policy is {policy!r:.80}; give a name, the path of a file, or a table")
    is_path = policy.endswith(".toml") or "/" in policy or "\\" in policy
    return ProjectPolicy(policy=shown(path.parent / policy) if is_path else policy, source=source)


def shown(path: Path) -> str:
    """Return a path as short as it can be said in the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
