"""Governs LlamaIndex: its LLMs where they are asked, its tools where they are called; drives agents and engines.

Embeddings are model calls where their client is governed, as `openai`'s is: it alone knows what they cost.
"""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.agent.workflow.multi_agent_workflow import handoff
from llama_index.core.async_utils import asyncio_run
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.tools.function_tool import FunctionTool
from llama_index.core.tools.types import AsyncBaseTool, BaseTool, BaseToolAsyncAdapter, ToolOutput
from workflows.handler import WorkflowHandler

from oao_harness.adapters.families import Wrapped, patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.llama_index_models import LEAVES
from oao_harness.adapters.patching import Arguments, Leaf, Request, govern, set_method
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode, holds_opaque
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.gate import Answer
from oao_hookspecs import Json

__all__ = ["ADAPTER", "LlamaIndexAdapter", "install"]

_DISTRIBUTION: Final = "llama-index-core"
_AGENTS: Final = (BaseWorkflowAgent, AgentWorkflow)


def install() -> None:
    """Patch the leaves of all LLMs and tools, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 0.14.25, or has no such leaves.
    """
    require_version(_DISTRIBUTION, "0.14.25")
    require(BaseLLM, [leaf.name for leaf in LEAVES], _DISTRIBUTION)
    require(AsyncBaseTool, ("__call__", "call", "acall"), _DISTRIBUTION)
    # What hands a request on to another one of the family does not ask a model itself.
    patch_family(BaseLLM, LEAVES, governs=lambda cls: not issubclass(cls, StructuredLLM))
    patch_family(
        BaseTool,
        (
            Leaf(name="__call__", kind="sync", prepare=_prepare_tool),
            Leaf(name="call", kind="sync", prepare=_prepare_tool),
            Wrapped(name="acall", wrap=_acall),
        ),
        governs=lambda cls: cls not in {AsyncBaseTool, BaseToolAsyncAdapter},
    )
    set_method(WorkflowHandler, "stream_events", _ending)


def _ending(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `stream_events` that ends with the workflow.

    Where a step is left by something that is no `Exception`, nobody puts the event into the queue that ends it.
    """

    @functools.wraps(function)
    async def stream_events(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        events = function(self, *args, **kwargs)
        if not is_possible():
            async for event in events:
                yield event
            return
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            try:
                await asyncio.wait({coming, self._result_task}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() and _halt_of(self._result_task) is not None:
                    raise cast("BaseException", _halt_of(self._result_task))
                event = await coming
            finally:
                if not coming.done():
                    coming.cancel()
                    with suppress(asyncio.CancelledError):
                        await coming
            if event is None:
                return
            yield event

    return stream_events


def _halt_of(task: asyncio.Task[Any]) -> BaseException | None:
    error = task.exception() if task.done() and not task.cancelled() else None
    return None if isinstance(error, Exception) else error


# Tools


class _Outputs:
    """What tools return: the framework's own object, or whatever a user's class returns."""

    def dump(self, value: Any) -> Answer:
        """Return an output as JSON; of what the tool made of it, the text is enough for the model."""
        if not isinstance(value, ToolOutput):
            return Answer(value=encode(value))
        node = {name: encode(getattr(value, name)) for name in ("blocks", "tool_name", "raw_input", "raw_output")}
        for name, text in (("raw_output", value.content), ("raw_input", {})):
            if holds_opaque(node[name]) is not None:
                node[name] = text
        return Answer(value={"output": node, "is_error": value.is_error})

    def load(self, value: Json) -> Any:
        """Return the output."""
        if not isinstance(value, Mapping) or "output" not in value:
            return decode(value)
        fields: Any = {name: decode(node) for name, node in cast("Mapping[str, Json]", value["output"]).items()}
        return ToolOutput(**fields, is_error=bool(value["is_error"]))

    def load_chunks(self, value: Json) -> list[Any]:
        """Return the output: tools do not stream."""
        return [self.load(value)]


_OUTPUTS: Final = _Outputs()


def _prepare_tool(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    names = _parameters(tool, len(positional))
    injected = tool.ctx_param_name if isinstance(tool, FunctionTool) and tool.requires_context else None
    given = {**dict(zip(names, positional, strict=True)), **named}

    def again(changed: dict[str, Any]) -> Arguments:
        kept = {injected: named[injected]} if injected in named else {}
        rest = {key: value for key, value in changed.items() if key not in names}
        return tuple(changed[name] for name in names if name in changed), {**kept, **rest}

    visible = {key: value for key, value in given.items() if key != injected}
    return tool_request(tool.metadata.get_name(), visible, again, shape=_OUTPUTS)


def _parameters(tool: Any, count: int) -> list[str]:
    """Return names for arguments that were given by position, as the model knows them."""
    schema = tool.metadata.get_parameters_dict() if count else {}
    known = list(schema.get("properties", {}))
    return [known[index] if index < len(known) else f"argument_{index}" for index in range(count)]


def _acall(function: Callable[..., Any]) -> Callable[..., Any]:
    governed = govern(function, "async", _prepare_tool)

    @functools.wraps(function)
    async def acall(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "_real_fn", None) is not handoff:
            return await governed(self, *args, **kwargs)
        ran: list[Any] = []

        async def hand_over(tool: Any, *args: Any, **kwargs: Any) -> Any:
            ran.append(tool)
            return await function(tool, *args, **kwargs)

        result = await govern(hand_over, "async", _prepare_tool)(self, *args, **kwargs)
        if not ran:
            # Served from the journal: who is next is in the workflow's state, not in what the tool returns.
            await function(self, *args, **kwargs)
        return result

    return acall


class LlamaIndexAdapter:
    """Drives agents and agent workflows by `run`, query engines by `query`, chat engines by `chat`."""

    name = "llama-index"

    def matches(self, agent: object) -> bool:
        """Return True for an agent, a workflow of agents, a query engine or a chat engine."""
        return isinstance(agent, (*_AGENTS, BaseQueryEngine, BaseChatEngine))

    def sees(self, agent: object) -> bool:
        """Return True: LLMs and tools are governed where they are defined."""
        del agent
        return True

    def is_async(self, agent: object) -> bool:
        """Return True for agents and workflows."""
        return isinstance(agent, _AGENTS)

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        one = cast("Any", agent)
        if isinstance(agent, _AGENTS):
            return asyncio_run(self.drive_async(agent, task, tools))
        return one.query(task) if isinstance(agent, BaseQueryEngine) else one.chat(task)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        """Run the agent on the task; it has its own tools, and `tools` are not added to them."""
        del tools
        one = cast("Any", agent)
        if isinstance(agent, _AGENTS):
            return await one.run(task)
        return await (one.aquery(task) if isinstance(agent, BaseQueryEngine) else one.achat(task))

    def output(self, result: object) -> object:
        """Return the answer: a text, or what an agent was told to make of it."""
        structured = getattr(result, "structured_response", None)
        if structured is not None:
            return structured
        response = getattr(result, "response", result)
        return getattr(response, "content", response)


ADAPTER: Final = LlamaIndexAdapter()
