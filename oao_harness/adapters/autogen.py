"""Drives AutoGen's agents and teams, and lets a halt end them; the modules beside this one govern models and tools.

AutoGen waits on queues that only an `Exception` closes: an agent for the end of its tool calls, a team for the end of
the chat. A halt is none, so what closes them is done here.
"""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team
from autogen_agentchat.messages import StructuredMessage

from oao_harness.adapters.patching import set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.errors import RunHalted
from oao_harness.runtime.context import current, is_possible

__all__ = ["ADAPTER", "AutoGenAdapter", "install_agents", "install_teams"]

_DISTRIBUTION: Final = "autogen-agentchat"
_TEAMS: Final = "autogen_agentchat.teams._group_chat."
# Their models and tools are those of a service, which is asked by a client that oao does not know.
_ELSEWHERE: Final = ("autogen_ext.agents.azure",)


def install_agents() -> None:
    """Let a halt in a tool call end the agent that waits for it; once.

    Raises:
        FrameworkError: The installed version is older than 0.7.5, or is made otherwise.
    """
    require_version(_DISTRIBUTION, "0.7.5")
    agent = importlib.import_module("autogen_agentchat.agents._assistant_agent").AssistantAgent
    require(agent, ("_execute_tool_call",), _DISTRIBUTION)
    function = vars(agent)["_execute_tool_call"].__func__

    @functools.wraps(function)
    async def execute(*args: Any, stream: Any, **named: Any) -> Any:
        try:
            return await function(*args, stream=stream, **named)
        except RunHalted:
            # The agent reads the stream until this; only then does it look at how its calls ended.
            stream.put_nowait(None)
            raise

    agent._execute_tool_call = staticmethod(execute)


def install_teams() -> None:
    """Let a halt end the team, as an error does; once.

    Raises:
        FrameworkError: The installed version is older than 0.7.5, or is made otherwise.
    """
    require_version(_DISTRIBUTION, "0.7.5")
    team = importlib.import_module(_TEAMS + "_base_group_chat").BaseGroupChat
    manager = importlib.import_module(_TEAMS + "_base_group_chat_manager").BaseGroupChatManager
    container = importlib.import_module(_TEAMS + "_chat_agent_container").ChatAgentContainer
    require(team, ("run_stream",), _DISTRIBUTION)
    require(manager, ("on_message_impl", "_signal_termination_with_error"), _DISTRIBUTION)
    require(container, ("on_message_impl", "publish_message"), _DISTRIBUTION)
    set_method(manager, "on_message_impl", _telling(_end))
    set_method(container, "on_message_impl", _telling(_report))
    set_method(team, "run_stream", _unmasked_stream)


def _telling(tell: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what makes a handler of messages that tells its team of a halt, before it goes on."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def handle(self: Any, message: Any, ctx: Any) -> Any:
            try:
                return await function(self, message, ctx)
            except RunHalted as halt:
                events = importlib.import_module(_TEAMS + "_events")
                error = events.SerializableException(error_type=type(halt).__name__, error_message=str(halt))
                await tell(self, events, error)
                raise

        return handle

    return wrap


async def _end(manager: Any, _events: Any, error: Any) -> None:
    await manager._signal_termination_with_error(error)


async def _report(container: Any, events: Any, error: Any) -> None:
    topic = importlib.import_module("autogen_core").DefaultTopicId(type=container._parent_topic_type)
    await container.publish_message(events.GroupChatError(error=error), topic_id=topic)


def _unmasked_stream(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a stream like `function` that ends with the halt itself, not with the error that a team makes of it."""

    @functools.wraps(function)
    async def stream(self: Any, /, *args: Any, **named: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(function(self, *args, **named)) as events:
                async for event in events:
                    yield event
        except Exception:
            run = current() if is_possible() else None
            if run is not None and run.halted is not None:
                raise run.halted from None
            raise

    return stream


class AutoGenAdapter:
    """Drives an agent or a team by `run(task=task)`; the output is the last message."""

    name = "autogen"

    def matches(self, agent: object) -> bool:
        """Return True for an agent or a team of AgentChat."""
        return isinstance(agent, ChatAgent | Team)

    def sees(self, agent: object) -> bool:
        """Return True where the agent's models and tools are governed where they are defined."""
        members = [agent, *getattr(agent, "_participants", ())]
        return not any(type(member).__module__.startswith(_ELSEWHERE) for member in members)

    def is_async(self, agent: object) -> bool:
        """Return True: AutoGen is async."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        return asyncio.run(cast("Any", self.drive_async(agent, task, tools)))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        return await cast("Any", agent).run(task=task)

    def output(self, result: object) -> object:
        """Return the last message: its text, or the object that the agent was to answer with."""
        found = cast("Any", result)
        if isinstance(result, TaskResult):
            return self.output(found.messages[-1]) if found.messages else None
        if isinstance(result, Response):
            return self.output(found.chat_message)
        if isinstance(result, StructuredMessage):
            return found.content
        to_text = getattr(found, "to_text", None)
        return to_text() if to_text is not None else found


ADAPTER: Final = AutoGenAdapter()
