"""What a project declares in pyproject.toml beside its policy: `[tool.oao.redact]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import ConfigError
from oao_harness.journal.secrets import Redaction, Scrubber
from oao_harness.plugins.offers import offered_redactors
from oao_harness.policy.lines import LineMap
from oao_harness.policy.project import ProjectFile, project_files
from oao_harness.policy.reading import close_to, table_in

__all__ = ["find_project_redaction", "project_redaction", "project_scrubber"]

_KNOWN: Final = ("patterns", "paths")
_KINDS: Final = ("tool", "model", "*", "**")
_PARTS: Final = ("req", "res", "error", "*", "**")


def project_scrubber(start: Path | None = None, *, strict: str = "") -> Scrubber:
    """Return what keeps secrets out of a project's recordings: its environment now, and `project_redaction`.

    Args:
        start: A folder of the project; the working folder by default.
        strict: Why only verified plugins are admitted; empty where nobody but the project can ask for that.

    Raises:
        ConfigError: See `project_redaction`.
    """
    return Scrubber.of(redact=project_redaction(start, strict=strict))


def project_redaction(start: Path | None = None, *, strict: str = "") -> Redaction:
    """Return what a project declares, and the redactors of the installed plugins.

    Args:
        start: A folder of the project; the working folder by default.
        strict: See `project_scrubber`.

    Raises:
        ConfigError: See `find_project_redaction`; or a plugin cannot be used.
    """
    return replace(find_project_redaction(start), functions=offered_redactors(start, strict=strict))


def find_project_redaction(start: Path | None = None) -> Redaction:
    """Return what the project that a folder is in declares under `[tool.oao.redact]`; empty where it declares nothing.

    The first pyproject.toml upwards with that table counts; the search ends at the folder with `.git`.

    ```toml
    [tool.oao.redact]
    patterns = ['[0-9]{16}', 'pin ([0-9]+)']           # what they find, or their groups where they have any
    paths = ["tool.*.req.password", "model.**.ssn"]    # kind, name, req | res | error, keys
    ```

    Args:
        start: The folder; the working folder by default.

    Raises:
        ConfigError: The file is no TOML, or the table says something unknown or wrong.
    """
    return next((found for found in map(_redaction_in, project_files(start)) if found is not None), Redaction())


def _redaction_in(file: ProjectFile) -> Redaction | None:
    oao = table_in(file.tools.get("oao")) or {}
    if "redact" not in oao:
        return None
    lines = LineMap(file.text)

    def at(*keys: str | int) -> str:
        return f"{file.shown}:{lines.line(('tool', 'oao', 'redact', *keys))}"

    table = table_in(oao["redact"])
    if table is None:
        raise ConfigError(f"{at()}: [tool.oao.redact] is no table; give it patterns = [...] or paths = [...]")
    for key in table:
        if key not in _KNOWN:
            raise ConfigError(f"{at(key)}: [tool.oao.redact]: unknown key {key!r}{close_to(key, _KNOWN)}")
    patterns = [_pattern(one, at("patterns", i)) for i, one in enumerate(_texts(table, "patterns", at("patterns")))]
    paths = [_path(one, at("paths", i)) for i, one in enumerate(_texts(table, "paths", at("paths")))]
    return Redaction(patterns=tuple(patterns), paths=tuple(paths))


def _texts(table: Mapping[str, object], key: str, where: str) -> list[str]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in cast("list[object]", found)):
        raise ConfigError(f"{where}: {key} is {found!r:.80}; give a list of texts")
    return cast("list[str]", found)


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(f"{where}: {text!r:.80} is no regular expression: {error}") from error
    if pattern.search("") is not None:
        raise ConfigError(f"{where}: {text!r:.80} matches the empty text, so it would redact everything")
    return pattern


def _path(text: str, where: str) -> tuple[str, ...]:
    parts = tuple(text.split("."))
    if "" in parts:
        raise ConfigError(f"{where}: {text!r:.80} has an empty part; write for example tool.*.req.password")
    if parts[0] not in _KINDS:
        raise ConfigError(f"{where}: {text!r:.80} begins with {parts[0]!r}; begin with tool, model, * or **")
    if "**" not in parts and (len(parts) < 3 or not any(part in _PARTS for part in parts[2:])):
        raise ConfigError(f"{where}: {text!r:.80} names no req, res or error; write for example tool.*.req.password")
    return parts
