"""oao: every effect of an agent goes through one gate, which asks the policies, writes the journal, then acts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from oao_harness.adapters.code_guard import guard
    from oao_harness.adapters.governed import model, tool
    from oao_harness.adapters.langchain_memory import RedisChatMessageHistory
    from oao_harness.errors import (
        AgentError,
        BusyError,
        ChangedError,
        CodecError,
        ConfigError,
        DamagedError,
        FencedError,
        FrameworkError,
        GraphError,
        IllegalTransition,
        OaoError,
        PolicyViolation,
        RecordingError,
        ReplayDiverged,
        ReplayedError,
        RunHalted,
        RunSuspended,
        StoreError,
        UsageError,
    )
    from oao_harness.fleet.agents import Agents
    from oao_harness.fleet.distributed import DistributedScheduler
    from oao_harness.fleet.worker import Fleet
    from oao_harness.journal.branching import Edit
    from oao_harness.policy.file import FilePolicy, load_policy
    from oao_harness.policy.sequences import at_most, never_after, only_after
    from oao_harness.policy.strict import StrictPolicy
    from oao_harness.policy.tools import ToolPolicy
    from oao_harness.runtime.call_context import CallContext, current_call
    from oao_harness.runtime.dag import GraphExecutor
    from oao_harness.runtime.graph import TaskGraph, TaskNode
    from oao_harness.runtime.multi_agent import MultiAgentOrchestrator
    from oao_harness.runtime.orchestrator import Orchestrator
    from oao_harness.runtime.report import ExecutionReport
    from oao_harness.runtime.requeuing import Retries
    from oao_harness.runtime.shared_budget import SharedBudget
    from oao_harness.stores.memory import MemoryStore
    from oao_harness.stores.sqlite import SQLiteStore

__all__ = [
    "AgentError",
    "Agents",
    "BusyError",
    "CallContext",
    "ChangedError",
    "CodecError",
    "ConfigError",
    "DamagedError",
    "DistributedScheduler",
    "Edit",
    "ExecutionReport",
    "FencedError",
    "FilePolicy",
    "Fleet",
    "FrameworkError",
    "GraphError",
    "GraphExecutor",
    "IllegalTransition",
    "MemoryStore",
    "MultiAgentOrchestrator",
    "OaoError",
    "Orchestrator",
    "PolicyViolation",
    "RecordingError",
    "RedisChatMessageHistory",
    "ReplayDiverged",
    "ReplayedError",
    "Retries",
    "RunHalted",
    "RunSuspended",
    "SQLiteStore",
    "SharedBudget",
    "StoreError",
    "StrictPolicy",
    "TaskGraph",
    "TaskNode",
    "ToolPolicy",
    "UsageError",
    "at_most",
    "current_call",
    "guard",
    "load_policy",
    "model",
    "never_after",
    "only_after",
    "tool",
]

# Imported when asked for: `oao --help` and a plugin that needs one name must not pay for all of them.
_HOMES: Final = {
    "guard": "oao_harness.adapters.code_guard",
    "model": "oao_harness.adapters.governed",
    "tool": "oao_harness.adapters.governed",
    "RedisChatMessageHistory": "oao_harness.adapters.langchain_memory",
    "AgentError": "oao_harness.errors",
    "BusyError": "oao_harness.errors",
    "ChangedError": "oao_harness.errors",
    "CodecError": "oao_harness.errors",
    "ConfigError": "oao_harness.errors",
    "DamagedError": "oao_harness.errors",
    "FencedError": "oao_harness.errors",
    "FrameworkError": "oao_harness.errors",
    "GraphError": "oao_harness.errors",
    "IllegalTransition": "oao_harness.errors",
    "OaoError": "oao_harness.errors",
    "PolicyViolation": "oao_harness.errors",
    "RecordingError": "oao_harness.errors",
    "ReplayDiverged": "oao_harness.errors",
    "ReplayedError": "oao_harness.errors",
    "RunHalted": "oao_harness.errors",
    "RunSuspended": "oao_harness.errors",
    "StoreError": "oao_harness.errors",
    "UsageError": "oao_harness.errors",
    "Agents": "oao_harness.fleet.agents",
    "DistributedScheduler": "oao_harness.fleet.distributed",
    "Fleet": "oao_harness.fleet.worker",
    "Edit": "oao_harness.journal.branching",
    "FilePolicy": "oao_harness.policy.file",
    "load_policy": "oao_harness.policy.file",
    "at_most": "oao_harness.policy.sequences",
    "never_after": "oao_harness.policy.sequences",
    "only_after": "oao_harness.policy.sequences",
    "StrictPolicy": "oao_harness.policy.strict",
    "ToolPolicy": "oao_harness.policy.tools",
    "CallContext": "oao_harness.runtime.call_context",
    "current_call": "oao_harness.runtime.call_context",
    "GraphExecutor": "oao_harness.runtime.dag",
    "TaskGraph": "oao_harness.runtime.graph",
    "TaskNode": "oao_harness.runtime.graph",
    "MultiAgentOrchestrator": "oao_harness.runtime.multi_agent",
    "Orchestrator": "oao_harness.runtime.orchestrator",
    "ExecutionReport": "oao_harness.runtime.report",
    "Retries": "oao_harness.runtime.requeuing",
    "SharedBudget": "oao_harness.runtime.shared_budget",
    "MemoryStore": "oao_harness.stores.memory",
    "SQLiteStore": "oao_harness.stores.sqlite",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
