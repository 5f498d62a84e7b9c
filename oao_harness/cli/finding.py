"""Which agent a user means: `module:agent`, or the name of one that is registered."""

from __future__ import annotations

from oao_harness.fleet.agents import Agents, Registered
from oao_harness.loading import load_agent

__all__ = ["find_agent", "registered_agent"]


def registered_agent(spec: str) -> Registered | None:
    """Return the agent that is registered by a name; None for `module:agent`, and where there is none.

    Raises:
        ConfigError: A registration is wrong.
    """
    if ":" in spec:
        return None
    agents = Agents.discover()
    return agents.get(spec) if spec in agents else None


def find_agent(spec: str) -> object:
    """Return the agent that `module:agent` or a name means.

    Raises:
        UsageError: See `load_agent`.
    """
    named = registered_agent(spec)
    return load_agent(spec) if named is None else named.load()
