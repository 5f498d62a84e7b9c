"""What a project says about plugins: `[tool.oao] plugins`, `required`, `disabled`, `verify` in its pyproject.toml."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from oao_harness.errors import ConfigError
from oao_harness.policy.project import ProjectFile, oao_table, project_files
from oao_harness.policy.reading import close_to

__all__ = ["ProjectPlugins", "Verify", "project_plugins"]

Verify: TypeAlias = Literal["auto", "strict"]
"""`auto` checks plugins that are signed; `strict` admits no others."""

_LISTS: Final = ("plugins", "required", "disabled")
_KEYS: Final = (*_LISTS, "verify")
_VERIFY: Final = ("auto", "strict")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectPlugins:
    """The plugins that a project names, each with where that is written, as `file:line`."""

    plugins: Mapping[str, str] = field(default_factory=dict[str, str])
    """They may decide."""
    required: Mapping[str, str] = field(default_factory=dict[str, str])
    """Without them nothing starts."""
    disabled: Mapping[str, str] = field(default_factory=dict[str, str])
    """They are not imported."""
    verify: Verify = "auto"
    verify_from: str = ""

    @property
    def named(self) -> Mapping[str, str]:
        """Those that must be there."""
        return {**self.required, **self.plugins}


def project_plugins(start: Path | None = None) -> ProjectPlugins:
    """Return what the project that a folder is in says about plugins.

    The first pyproject.toml upwards with one of the keys counts; the search ends at the folder with `.git`. What was
    read is kept until a file changes.

    Args:
        start: The folder; the working folder by default.

    Raises:
        ConfigError: The file is no TOML, a key is unknown or wrong, or a plugin is both wanted and disabled.
    """
    here = (start or Path.cwd()).resolve()
    stamps: list[tuple[int, ...] | None] = []
    for folder in (here, *here.parents):
        stamps.append(_stamp(folder / "pyproject.toml"))
        if (folder / ".git").exists():
            break
    return _read(here, Path.cwd(), tuple(stamps))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


@functools.lru_cache(maxsize=64)
def _read(here: Path, _shown_from: Path, _stamps: tuple[tuple[int, ...] | None, ...]) -> ProjectPlugins:
    return next((found for found in map(_in, project_files(here)) if found is not None), ProjectPlugins())


def _in(file: ProjectFile) -> ProjectPlugins | None:
    table, at = oao_table(file)
    if not any(key in table for key in _KEYS):
        return None
    names = {key: _names(key, table.get(key, []), at) for key in _LISTS}
    for name, where in names["disabled"].items():
        for key in ("plugins", "required"):
            if name in names[key]:
                raise ConfigError(
                    f"{where}: plugin {name!r} is disabled here, and named under {key!r} at {names[key][name]}; take "
                    "it out of one of them"
                )
    verify = table.get("verify", "auto")
    if verify not in _VERIFY:
        hint = close_to(verify, _VERIFY) if isinstance(verify, str) else f"; known: {', '.join(_VERIFY)}"
        raise ConfigError(f"{at('verify')}: verify is {verify!r:.80}{hint}")
    return ProjectPlugins(
        plugins=names["plugins"],
        required=names["required"],
        disabled=names["disabled"],
        verify=verify,
        verify_from=at("verify") if "verify" in table else "",
    )


def _names(key: str, value: object, at: Callable[..., str]) -> dict[str, str]:
    if not isinstance(value, list):
        raise ConfigError(f"{at(key)}: {key} is {value!r:.80}; give a list of the names of plugins, for example ['x']")
    found: dict[str, str] = {}
    for i, name in enumerate(cast("list[object]", value)):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{at(key, i)}: {key} holds {name!r:.80}; give the name of a plugin (`oao plugins list`)")
        found[name] = at(key, i)
    return found
