"""Drives agents of Google's Agent Development Kit: an agent, a workflow, an `App`, or a `Runner` that holds one."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from google.adk.agents.base_agent import BaseAgent
from google.genai import types

from oao_harness.runtime.context import here

__all__ = ["ADAPTER", "GoogleADKAdapter"]

_USER: Final = "oao"


class GoogleADKAdapter:
    """Drives an agent in a session of its own, which has the id of the run.

    An agent, a workflow and an `App` get an `InMemoryRunner`; a `Runner` is used as it is, with its services. The
    output is the text of the last answer; where several agents answered side by side, their texts by name.
    """

    name = "google-adk"

    def matches(self, agent: object) -> bool:
        """Return True for an agent, a workflow, an `App` and a `Runner`."""
        return isinstance(agent, BaseAgent) or _is_a(agent, "App", "Runner", "BaseNode") is not None

    def sees(self, agent: object) -> bool:
        """Return True where models and tools are in this process: they are governed where they are defined."""
        return not any(base.__module__ == "google.adk.agents.remote_a2a_agent" for base in type(agent).__mro__)

    def is_async(self, agent: object) -> bool:
        """Return True: the framework is async, and its sync way in is a thread with a loop."""
        del agent
        return True

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        return asyncio.run(self.drive_async(agent, task, tools))

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task and return its events; it has its own tools, and `tools` are not added."""
        del tools
        runner = _runner_of(agent)
        run = here.get()
        session = await runner.session_service.create_session(
            app_name=runner.app_name, user_id=_USER, session_id=None if run is None else run.execution_id
        )
        message = task if isinstance(task, types.Content) else types.UserContent(str(task))
        events = runner.run_async(user_id=_USER, session_id=session.id, new_message=message)
        async with aclosing(cast("Any", events)) as found:
            return [event async for event in found]

    def output(self, result: Any) -> object:
        """Return the text of the last answer."""
        events = [event for event in result if event.is_final_response()] if isinstance(result, list) else None
        if events is None:
            return result
        said = {(event.branch, event.author): _said(event) for event in events if _said(event) is not None}
        branches = {branch for branch, _ in said}
        if len(branches) > 1 and len(said) > 1:
            return {author: text for (_, author), text in sorted(said.items(), key=lambda item: str(item[0]))}
        return list(said.values())[-1] if said else None


def _said(event: Any) -> object:
    if getattr(event, "output", None) is not None:
        return event.output
    parts = event.content.parts or () if event.content is not None else ()
    text = "".join(part.text for part in parts if part.text and not part.thought)
    return text or event.error_message or None


def _runner_of(agent: object) -> Any:
    from google.adk.runners import InMemoryRunner, Runner  # noqa: PLC0415 - half a second, where an agent is driven

    if isinstance(agent, Runner):
        return agent
    if isinstance(agent, BaseAgent):
        return InMemoryRunner(agent=agent)
    return InMemoryRunner(app=cast("Any", agent)) if _is_a(agent, "App") else InMemoryRunner(node=cast("Any", agent))


_CLASSES: Final = {
    "App": "google.adk.apps.app",
    "BaseNode": "google.adk.workflow._base_node",
    "Runner": "google.adk.runners",
}


def _is_a(agent: object, *names: str) -> str | None:
    """Return which of the framework's classes an object is of; one whose module is not loaded has no objects."""
    for name in names:
        cls = getattr(sys.modules.get(_CLASSES[name]), name, None)
        if isinstance(cls, type) and isinstance(agent, cls):
            return name
    return None


ADAPTER: Final = GoogleADKAdapter()
