"""Who can drive an agent."""

from __future__ import annotations

from collections.abc import Sequence

from oao_harness.errors import AgentError, ConfigError
from oao_hookspecs import Adapter

__all__ = ["adapter_for"]


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
    for adapter in adapters:
        if (framework is None or framework == adapter.name) and adapter.matches(agent):
            return adapter
    names = [adapter.name for adapter in adapters]
    if framework is not None and framework not in names:
        raise ConfigError(f"unknown framework {framework!r}; known: {', '.join(names)}")
    hint = "; this is a class, make an instance of it" if isinstance(agent, type) else ""
    raise AgentError(
        f"there is no way to run {agent!r:.100}: give a function, an object with invoke() or ainvoke(), "
        f"or an agent of a supported framework ({', '.join(names)}){hint}"
    )
