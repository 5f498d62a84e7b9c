"""Offers the bundled adapters, and the patches of their frameworks' leaves; imports none before its framework is."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Final, cast

from oao_hookspecs import Adapter, hookimpl

__all__ = ["oao_adapters", "oao_leaves"]

# The module whose import makes the leaves exist, and ours that patches them. One of ours for each of theirs:
# when a hook fires, the framework's other modules may be half imported.
_LEAVES: Final = (
    ("langchain_core.language_models.chat_models", "oao_harness.adapters.langchain_models"),
    ("langchain_core.language_models.llms", "oao_harness.adapters.langchain_llms"),
    ("langchain_core.tools.structured", "oao_harness.adapters.langchain_tools"),
    ("langgraph.pregel._loop", "oao_harness.adapters.langgraph_loop"),
)
_LAZY: Final = (
    ("langgraph", "langgraph.pregel", "oao_harness.adapters.langgraph"),
    ("langchain", "langchain_core.runnables.base", "oao_harness.adapters.langchain"),
)


@hookimpl
def oao_leaves() -> Sequence[tuple[str, Callable[[], None]]]:
    """Offer the leaf patches of the bundled adapters."""
    return [(trigger, functools.partial(_install, adapter)) for trigger, adapter in _LEAVES]


def _install(adapter: str) -> None:
    importlib.import_module(adapter).install()


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

    lazy = [_LazyAdapter(*names) for names in _LAZY]
    return [*lazy, InvokeAdapter(), FunctionAdapter()]
