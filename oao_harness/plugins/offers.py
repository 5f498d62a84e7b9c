"""What installed plugins offer beside runs: redactors for what is written, commands for the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pluggy

from oao_harness.errors import ConfigError
from oao_harness.plugins.found import Chosen, chosen, load
from oao_hookspecs import PROJECT, provide

__all__ = ["Offer", "offered_commands", "offered_redactors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Something that a plugin offers."""

    plugin: str
    what: object


def offered_redactors(start: Path | None = None, *, strict: str = "") -> tuple[Callable[[str], str], ...]:
    """Return the redactors of the installed plugins, in the order of their names.

    Args:
        start: A folder of the project; the working folder by default.
        strict: See `found.chosen`.

    Raises:
        ConfigError: A plugin cannot be used, see `found.chosen`; or what it offers is no function.
    """
    found: list[Callable[[str], str]] = []
    for one in chosen(strict=strict, start=start):
        for redact in _offers(one, "oao_redactors"):
            if not callable(redact):
                raise ConfigError(
                    f"plugin {one.name!r}: oao_redactors offers {redact!r:.80}; offer functions from text to text"
                )
            found.append(cast("Callable[[str], str]", redact))
    return tuple(found)


def offered_commands() -> tuple[list[Offer], list[str]]:
    """Return the commands of the installed plugins, and a line for each plugin that cannot be asked for them."""
    try:
        used = chosen()
    except ConfigError as error:
        return [], [str(error)]
    found: list[Offer] = []
    problems: list[str] = []
    for one in used:
        try:
            found += [Offer(plugin=one.name, what=command) for command in _offers(one, "oao_commands")]
        except ConfigError as error:
            problems.append(str(error))
    return found, problems


def _offers(one: Chosen, hook: str) -> Sequence[object]:
    """Return what one plugin answers to one hook."""
    if one.hooks is not None and hook not in one.hooks:
        return ()
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(provide)
    plugin = load(one)
    if manager.parse_hookimpl_opts(plugin, hook) is None:
        return ()
    try:
        answer: object = getattr(plugin, hook)()
        return () if answer is None else tuple(cast("Iterable[object]", answer))
    except (Exception, SystemExit) as error:
        raise ConfigError(f"plugin {one.name!r}: {hook} failed: {type(error).__name__}: {error}") from error
