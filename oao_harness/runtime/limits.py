"""What a run may spend, as the plugins of its manager name it together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pluggy

from oao_harness.errors import ConfigError
from oao_harness.runtime.budget import not_a_number
from oao_hookspecs import Limits, RunView

__all__ = ["NamedLimits"]


class NamedLimits:
    """Asks the plugins `oao_limits` for each run; what they name together is kept until they name something else.

    Args:
        manager: Checked.
    """

    __slots__ = ("_impls", "_known")

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._impls = tuple(
            (impl.plugin_name, impl.function, len(impl.argnames)) for impl in manager.hook.oao_limits.get_hookimpls()
        )
        self._known: tuple[list[object], Limits] = [], Limits()

    def of(self, run: RunView) -> Limits:
        """Return the strictest of what plugins name for a run, field by field.

        Args:
            run: The run; it is what plugins are handed.

        Raises:
            ConfigError: A plugin failed, or answered something that is no limits.
        """
        named: list[object] = []
        for plugin, function, arguments in self._impls:
            try:
                named.append(function(*[run] * arguments))
            except Exception as error:
                raise ConfigError(f"plugin {plugin!r} failed in oao_limits: {error}") from error
        known, limits = self._known
        if named != known:
            limits = reduce(Limits.tightened, self._checked(named), Limits())
            self._known = named, limits
        return limits

    def _checked(self, named: Sequence[object]) -> list[Limits]:
        found: list[Limits] = []
        for (plugin, _, _), one in zip(self._impls, named, strict=True):
            if isinstance(one, Limits):
                if field := not_a_number(one):
                    raise ConfigError(f"plugin {plugin!r}: oao_limits returned {field} = nan; give a number")
                found.append(one)
            elif one is not None:
                raise ConfigError(f"plugin {plugin!r}: oao_limits returned {one!r:.100}, which is no Limits")
        return found
