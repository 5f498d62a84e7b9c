"""What plugins provide to a run when it is set up: what it may spend, and who can drive its agent."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from oao_harness.errors import AgentError, ConfigError
from oao_harness.runtime.budget import not_a_number
from oao_hookspecs import Adapter, Limits, RunView

__all__ = ["adapter_for", "limits_of"]


def limits_of(manager: pluggy.PluginManager, run: RunView) -> Limits:
    """Return what a run may spend: the strictest of what all policies say.

    Raises:
        ConfigError: A policy failed, or answered something else.
    """
    limits = Limits()
    for impl in manager.hook.oao_limits.get_hookimpls():
        try:
            found: object = impl.function(*[run for _ in impl.argnames])
        except Exception as error:
            raise ConfigError(f"plugin {impl.plugin_name!r} failed in oao_limits: {error}") from error
        if isinstance(found, Limits):
            if field := not_a_number(found):
                raise ConfigError(f"plugin {impl.plugin_name!r}: oao_limits returned {field} = nan; give a number")
            limits = limits.tightened(found)
        elif found is not None:
            raise ConfigError(f"plugin {impl.plugin_name!r}: oao_limits returned {found!r:.100}, which is no Limits")
    return limits


def adapter_for(adapters: Sequence[Adapter], agent: object, framework: str | None) -> Adapter:
    """Return who drives an agent.

    Args:
        adapters: In the order they are asked.
        agent: The agent.
        framework: Name of one of them; None finds it.

    Raises:
        ConfigError: There is none of that name.
        AgentError: None of them can.
    """
    names = [adapter.name for adapter in adapters]
    if framework is not None and framework not in names:
        raise ConfigError(f"unknown framework {framework!r}; known: {', '.join(names)}")
    for adapter in adapters:
        if framework in {None, adapter.name} and adapter.matches(agent):
            return adapter
    hint = "; this is a class, make an instance of it" if isinstance(agent, type) else ""
    raise AgentError(
        f"there is no way to run {agent!r:.100}: give a function, an object with invoke() or ainvoke(), "
        f"or an agent of a supported framework ({', '.join(names)}){hint}"
    )
