"""Offers the bundled adapters, and the patches of their frameworks' leaves; imports none before its framework is."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Final, cast

from oao_hookspecs import Adapter, hookimpl

__all__ = ["oao_adapters", "oao_leaves"]

# The module whose import makes the leaves exist, and ours that patches them. One install for each of theirs:
# when a hook fires, the framework's other modules may be half imported.
_LEAVES: Final = (
    ("langchain_core.language_models.chat_models", "oao_harness.adapters.langchain_models"),
    ("langchain_core.language_models.llms", "oao_harness.adapters.langchain_llms"),
    ("langchain_core.tools.structured", "oao_harness.adapters.langchain_tools"),
    ("langgraph.pregel._loop", "oao_harness.adapters.langgraph_loop"),
    ("openai._base_client", "oao_harness.adapters.openai_client"),
    ("anthropic._base_client", "oao_harness.adapters.anthropic_client"),
    ("agents.run", "oao_harness.adapters.openai_agents"),
    ("mcp.client.session", "oao_harness.adapters.mcp_client"),
    ("mcp.client.stdio", "oao_harness.adapters.mcp_stdio"),
    ("agno.models.base", "oao_harness.adapters.agno"),
    ("llama_index.core", "oao_harness.adapters.llama_index"),
    ("pydantic_ai.agent", "oao_harness.adapters.pydantic_ai"),
    ("agent_framework._clients", "oao_harness.adapters.agent_framework_models"),
    ("agent_framework._tools", "oao_harness.adapters.agent_framework_tools"),
    ("agent_framework._mcp", "oao_harness.adapters.agent_framework_tools", "install_mcp"),
    ("autogen_core.models._model_client", "oao_harness.adapters.autogen_models"),
    ("autogen_ext.models.cache._chat_completion_cache", "oao_harness.adapters.autogen_models", "install_cache"),
    ("autogen_core.tools._base", "oao_harness.adapters.autogen_tools"),
    ("autogen_core.tools._workbench", "oao_harness.adapters.autogen_tools", "install_workbenches"),
    ("autogen_core.code_executor._base", "oao_harness.adapters.autogen_tools", "install_executors"),
    ("autogen_agentchat.agents._assistant_agent", "oao_harness.adapters.autogen", "install_agents"),
    ("autogen_agentchat.teams._group_chat._base_group_chat", "oao_harness.adapters.autogen", "install_teams"),
    ("crewai.llms.base_llm", "oao_harness.adapters.crewai_models"),
    ("crewai.tools.base_tool", "oao_harness.adapters.crewai_tools"),
    ("crewai.agents.cache.cache_handler", "oao_harness.adapters.crewai_tools", "install_cache"),
    ("crewai.task", "oao_harness.adapters.crewai"),
    ("strands.agent.agent", "oao_harness.adapters.strands_models"),
    ("strands.agent.agent", "oao_harness.adapters.strands_tools"),
    ("google.adk.models.base_llm", "oao_harness.adapters.google_adk_models"),
    ("google.adk.tools.base_tool", "oao_harness.adapters.google_adk_tools"),
    ("google.adk.code_executors.base_code_executor", "oao_harness.adapters.google_adk_code"),
    ("smolagents.agents", "oao_harness.adapters.smolagents_models"),
    ("smolagents.agents", "oao_harness.adapters.smolagents_tools"),
    ("smolagents.agents", "oao_harness.adapters.smolagents_code"),
)
# Below the leaves: what an agent does beside the gate.
_CHOKE_POINTS: Final = (
    ("httpx", "oao_harness.adapters.http_clients", "install_httpx", "httpx"),
    ("httpx2", "oao_harness.adapters.http_clients", "install_httpx", "httpx2"),
    ("http.client", "oao_harness.adapters.http_clients", "install_http_client"),
    ("aiohttp", "oao_harness.adapters.http_clients", "install_aiohttp"),
    ("socket", "oao_harness.adapters.sockets", "install"),
    ("os", "oao_harness.adapters.processes", "install"),
    ("agents.realtime.model", "oao_harness.adapters.realtime", "install", "agents.realtime.model"),
    ("pydantic_ai.realtime.model", "oao_harness.adapters.realtime", "install", "pydantic_ai.realtime.model"),
    ("multiprocessing.util", "oao_harness.adapters.processes", "install_multiprocessing"),
)
_LAZY: Final = (
    ("langgraph", "langgraph.pregel", "oao_harness.adapters.langgraph"),
    ("openai-agents", "agents.run", "oao_harness.adapters.openai_agents"),
    ("agno", "agno.models.base", "oao_harness.adapters.agno"),
    ("llama-index", "llama_index.core", "oao_harness.adapters.llama_index"),
    ("pydantic-ai", "pydantic_ai.agent", "oao_harness.adapters.pydantic_ai"),
    ("agent-framework", "agent_framework._agents", "oao_harness.adapters.agent_framework"),
    ("autogen", "autogen_agentchat.base._chat_agent", "oao_harness.adapters.autogen"),
    ("crewai", "crewai.crew", "oao_harness.adapters.crewai"),
    ("strands", "strands.agent.agent", "oao_harness.adapters.strands_agents"),
    ("smolagents", "smolagents.agents", "oao_harness.adapters.smolagents"),
    ("google-adk", "google.adk.agents.base_agent", "oao_harness.adapters.google_adk"),
    ("langchain", "langchain_core.runnables.base", "oao_harness.adapters.langchain"),
)


@hookimpl
def oao_leaves() -> Sequence[tuple[str, Callable[[], None]]]:
    """Offer the leaf patches of the bundled adapters, and the layers below them."""
    return [(trigger, functools.partial(_install, *how)) for trigger, *how in (*_LEAVES, *_CHOKE_POINTS)]


def _install(adapter: str, function: str = "install", *arguments: str) -> None:
    getattr(importlib.import_module(adapter), function)(*arguments)


class _LazyAdapter:
    """Stands for an adapter whose framework may not even be installed."""

    def __init__(self, name: str, trigger: str, module: str) -> None:
        self.name = name
        self._trigger = trigger
        self._module = module

    @property
    def _adapter(self) -> Adapter:
        return cast("Adapter", importlib.import_module(self._module).ADAPTER)

    def matches(self, agent: object) -> bool:
        return self._trigger in sys.modules and self._adapter.matches(agent)

    def sees(self, agent: object) -> bool:
        return self._adapter.sees(agent)

    def is_async(self, agent: object) -> bool:
        return self._adapter.is_async(agent)

    def drive(self, agent: object, task: object, tools: Sequence[object]) -> object:
        return self._adapter.drive(agent, task, tools)

    async def drive_async(self, agent: object, task: object, tools: Sequence[object]) -> object:
        return await self._adapter.drive_async(agent, task, tools)

    def output(self, result: object) -> object:
        return self._adapter.output(result)


@hookimpl
def oao_adapters() -> Sequence[Adapter]:
    """Offer the bundled adapters, the most particular first."""
    from oao_harness.adapters.function import FunctionAdapter, InvokeAdapter  # noqa: PLC0415 - bundled, loaded late
    from oao_harness.adapters.graphs import GraphAdapter  # noqa: PLC0415 - as above
    from oao_harness.adapters.script import ScriptAdapter  # noqa: PLC0415 - as above

    lazy = [_LazyAdapter(*names) for names in _LAZY]
    return [GraphAdapter(), ScriptAdapter(), *lazy, InvokeAdapter(), FunctionAdapter()]
