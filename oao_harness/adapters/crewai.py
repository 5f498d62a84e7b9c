"""Drives CrewAI's crews, agents and flows; the modules beside this one govern models and tools."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from oao_harness.adapters.patching import set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import RunHalted

__all__ = ["ADAPTER", "CrewAIAdapter", "install"]

_DISTRIBUTION: Final = "crewai"


def install() -> None:
    """Let a halt in a task that runs in a thread end the crew that waits for it; once.

    Raises:
        FrameworkError: The installed version is older than 1.15, or is made otherwise.
    """
    require_version(_DISTRIBUTION, "1.15")
    task = importlib.import_module("crewai.task").Task
    require(task, ("_execute_task_async",), _DISTRIBUTION)

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def execute(self: Any, agent: Any, context: Any, tools: Any, future: Any) -> None:
            try:
                function(self, agent, context, tools, future)
            except RunHalted as halt:
                # CrewAI sets an `Exception` only, and whoever waits for the future would wait for ever.
                future.set_exception(halt)

        return execute

    set_method(task, "_execute_task_async", wrap)


class CrewAIAdapter:
    """Drives a crew or a flow by `kickoff(inputs)`, and an agent of its own by `kickoff(task)`.

    A task that is no mapping is the input `task` of a crew's or flow's templates; the output is the structured answer
    of the last task, else its text.
    """

    name = "crewai"

    def matches(self, agent: object) -> bool:
        """Return True for a crew, an agent or a flow."""
        return isinstance(agent, _classes("crew", "Crew") + _classes("flow.flow", "Flow")) or _is_agent(agent)

    def sees(self, agent: object) -> bool:
        """Return True where models and tools are CrewAI's; who stands for another framework's agent has its own."""
        agents = [agent, *(getattr(agent, "agents", None) or ())]
        elsewhere = _classes("agents.agent_adapters.base_agent_adapter", "BaseAgentAdapter")
        return not any(isinstance(one, elsewhere) for one in agents)

    def is_async(self, agent: object) -> bool:
        """Return False: all of them can be driven either way."""
        del agent
        return False

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        result = cast("Any", agent).kickoff(*_input(agent, task))
        if _is_stream(result):
            for _ in result:
                pass
            result = result.result
        return result

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        result = await cast("Any", agent).akickoff(*_input(agent, task))
        if _is_stream(result):
            async for _ in result:
                pass
            result = result.result
        return result

    def output(self, result: object) -> object:
        """Return the structured answer, else the text."""
        found = cast("Any", result)
        if not hasattr(found, "raw"):
            return found
        for name in ("pydantic", "json_dict"):
            if getattr(found, name, None) is not None:
                return getattr(found, name)
        return found.raw


def _input(agent: object, task: object) -> tuple[Any, ...]:
    if _is_agent(agent):
        return (task,)
    return ({**cast("Mapping[str, Any]", task)} if isinstance(task, Mapping) else {"task": task},)


def _is_agent(agent: object) -> bool:
    return isinstance(
        agent, _classes("agents.agent_builder.base_agent", "BaseAgent") + _classes("lite_agent", "LiteAgent")
    )


def _is_stream(result: object) -> bool:
    return isinstance(result, _classes("types.streaming", "StreamingOutputBase"))


@functools.cache
def _classes(module: str, name: str) -> tuple[type, ...]:
    return (getattr(importlib.import_module(f"crewai.{module}"), name),)


ADAPTER: Final = CrewAIAdapter()
