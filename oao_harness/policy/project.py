"""What a project uses where nobody says: `[tool.oao] policy`, `scheduler`, `store` in the nearest pyproject.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from oao_harness.errors import ConfigError
from oao_harness.policy.lines import LineMap, error_line_of
from oao_harness.policy.reading import close_to, read_text, table_in

__all__ = [
    "ProjectFile",
    "ProjectPolicy",
    "ProjectSetting",
    "find_project_policy",
    "find_project_setting",
    "oao_table",
    "policy_in_project",
    "project_files",
    "shown",
]

# `redact` is read where recordings are written, `agents` where agents are looked up, `server` by the server, and
# `plugins`, `required`, `disabled`, `verify` where plugins are.
_KNOWN: Final = (
    "agents", "disabled", "plugins", "policy", "redact", "required", "scheduler", "server", "store", "verify",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPolicy:
    """What a project's pyproject.toml names."""

    policy: str
    """A name, or the path of a file."""
    source: str
    """Where that is written, as `file:line`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSetting:
    """One text that a project's pyproject.toml names."""

    text: str
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


def find_project_setting(key: Literal["scheduler", "store"], start: Path | None = None) -> ProjectSetting | None:
    """Return the URL that a project names under `[tool.oao]`, or None where it names none.

    Args:
        key: `scheduler` or `store`.
        start: A folder of the project; the working folder by default.

    Raises:
        ConfigError: See `find_project_policy`; or the value is no text.
    """
    for file in project_files(start):
        table, at = oao_table(file)
        if (found := table.get(key)) is None:
            continue
        if not isinstance(found, str) or not found:
            example = "redis://localhost:6379/0" if key == "scheduler" else "sqlite:.oao/oao.db"
            raise ConfigError(f"{at(key)}: {key} is {found!r:.80}; give a URL, for example {example!r}")
        return ProjectSetting(text=found, source=at(key))
    return None


def oao_table(file: ProjectFile) -> tuple[Mapping[str, object], Callable[..., str]]:
    """Return the table `[tool.oao]` of a file, empty where it has none, and what names `file:line` of keys in it.

    Raises:
        ConfigError: It is no table, or has an unknown key.
    """
    if "oao" not in file.tools:
        return {}, lambda *_: file.shown

    @functools.cache
    def lines() -> LineMap:
        # It reads the file line by line, which only who names one must wait for.
        return LineMap(file.text)

    def at(*keys: str | int) -> str:
        return f"{file.shown}:{lines().line(('tool', 'oao', *keys))}"

    table = table_in(file.tools["oao"])
    if table is None:
        raise ConfigError(f"{at()}: [tool.oao] is no table")
    for key in table:
        if key not in _KNOWN:
            raise ConfigError(f"{at(key)}: [tool.oao]: unknown key {key!r}{close_to(key, _KNOWN)}")
    return table, at


def policy_in_project(file: ProjectFile, policy: str) -> str:
    """Return a policy that a file names, a path as seen from the working folder.

    Args:
        file: Paths are relative to its folder.
        policy: A name, or a path.
    """
    is_path = policy.endswith(".toml") or "/" in policy or "\\" in policy
    return shown(file.path.parent / policy) if is_path else policy


def _policy_in(file: ProjectFile) -> ProjectPolicy | None:
    table, at = oao_table(file)
    policy = table.get("policy")
    if policy is None:
        return None
    source = at("policy")
    if isinstance(policy, dict):
        return ProjectPolicy(policy=shown(file.path), source=source)
    if not isinstance(policy, str) or not policy:
        raise ConfigError(f"{source}: policy is {policy!r:.80}; give a name, the path of a file, or a table")
    return ProjectPolicy(policy=policy_in_project(file, policy), source=source)


def shown(path: Path) -> str:
    """Return a path as short as it can be said in the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
