"""oao: every effect of an agent goes through one gate, which asks the policies, writes the journal, then acts."""

from __future__ import annotations

from oao_harness.adapters.governed import model, tool
from oao_harness.errors import (
    AgentError,
    CodecError,
    ConfigError,
    FencedError,
    FrameworkError,
    IllegalTransition,
    OaoError,
    PolicyViolation,
    RecordingError,
    ReplayDiverged,
    ReplayedError,
    RunHalted,
    StoreError,
    UsageError,
)
from oao_harness.policy.strict import StrictPolicy
from oao_harness.policy.tools import ToolPolicy
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.report import ExecutionReport
from oao_harness.stores.memory import MemoryStore
from oao_harness.stores.sqlite import SQLiteStore

__all__ = [
    "AgentError",
    "CodecError",
    "ConfigError",
    "ExecutionReport",
    "FencedError",
    "FrameworkError",
    "IllegalTransition",
    "MemoryStore",
    "OaoError",
    "Orchestrator",
    "PolicyViolation",
    "RecordingError",
    "ReplayDiverged",
    "ReplayedError",
    "RunHalted",
    "SQLiteStore",
    "StoreError",
    "StrictPolicy",
    "ToolPolicy",
    "UsageError",
    "model",
    "tool",
]
