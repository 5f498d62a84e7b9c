"""What a run may spend, as the plugins of its manager name it together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pluggy

from oao_harness.errors import ConfigError
from oao_harness.runtime.budget import not_a_number
from oao_hookspecs import Limits, RunView

__all__ = ["named_limits", "tightest"]


def named_limits(manager: pluggy.PluginManager, run: RunView) -> list[Limits]:
    """Return the limits that plugins name for a run, in the order they are asked.

    Args:
        manager: Checked.
        run: The run.

    Raises:
        ConfigError: A plugin failed, or answered something that is no limits.
    """
    named: list[Limits] = []
    for impl in manager.hook.oao_limits.get_hookimpls():
        try:
            found: object = impl.function(*[run for _ in impl.argnames])
        except Exception as error:
            raise ConfigError(f"plugin {impl.plugin_name!r} failed in oao_limits: {error}") from error
        if isinstance(found, Limits):
            if field := not_a_number(found):
                raise ConfigError(f"plugin {impl.plugin_name!r}: oao_limits returned {field} = nan; give a number")
            named.append(found)
        elif found is not None:
            raise ConfigError(f"plugin {impl.plugin_name!r}: oao_limits returned {found!r:.100}, which is no Limits")
    return named


def tightest(named: Sequence[Limits]) -> Limits:
    """Return the strictest of all, field by field."""
    return reduce(Limits.tightened, named, Limits())
