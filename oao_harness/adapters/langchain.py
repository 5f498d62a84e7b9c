"""Drives LangChain's runnables: chat models, chains, agents. The modules beside this one govern their leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables.base import Runnable

__all__ = ["ADAPTER", "LangChainAdapter", "text_of"]

# Their models and tools run in another process.
_REMOTE: Final = frozenset({"RemoteGraph", "RemoteRunnable"})


class LangChainAdapter:
    """Drives a runnable by `invoke(task)` or `await ainvoke(task)`; the task is handed over as it is."""

    name = "langchain"

    def matches(self, agent: object) -> bool:
        """Return True for a runnable."""
        return isinstance(agent, Runnable)

    def sees(self, agent: object) -> bool:
        """Return True: models and tools are governed where they are defined; not those of another process."""
        return type(agent).__name__ not in _REMOTE

    def is_async(self, agent: object) -> bool:
        """Return False: a runnable has a sync way in."""
        del agent
        return False

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; a runnable has its own tools, and `tools` are not added to them."""
        del tools
        return cast("Runnable[object, object]", agent).invoke(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; a runnable has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Runnable[object, object]", agent).ainvoke(task)

    def output(self, result: object) -> object:
        """Return the text of a message, `result["output"]` where there is one, else the result."""
        if isinstance(result, Mapping):
            found = cast("Mapping[str, object]", result)
            return found.get("output", found)
        return text_of(result)


def text_of(result: object) -> object:
    """Return the text of a message; anything else as it is."""
    return str(result.text) if isinstance(result, BaseMessage) else result


ADAPTER: Final = LangChainAdapter()
