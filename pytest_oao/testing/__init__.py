"""Test tools for users and plugin authors: real servers on loopback, models that follow a script, no mocks.

Importing this package imports none of its modules; each is loaded when one of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_oao.testing.adapter import AdapterCase, AdapterConformance
    from pytest_oao.testing.cases import Heard, LedgerCase, ListenerCase, PolicyCase, SchedulerCase, StoreCase
    from pytest_oao.testing.cassette_server import CassetteServer
    from pytest_oao.testing.gemini_server import GeminiServer
    from pytest_oao.testing.ledger import LedgerConformance
    from pytest_oao.testing.listener import ListenerConformance
    from pytest_oao.testing.machine import AgentMachine
    from pytest_oao.testing.openai_server import (
        ErrorReply,
        OpenAIServer,
        Reply,
        TextReply,
        ToolCall,
        ToolCallReply,
    )
    from pytest_oao.testing.policy import PolicyConformance
    from pytest_oao.testing.program_rules import Rules
    from pytest_oao.testing.program_trials import Trial, run_program
    from pytest_oao.testing.programs import (
        Body,
        CallModel,
        CallTool,
        Fail,
        InnerRun,
        InThread,
        Leave,
        Nested,
        Pause,
        Program,
        StreamModel,
        StreamTool,
        Swallow,
        Together,
        TryAgain,
    )
    from pytest_oao.testing.redis_server import RedisServer
    from pytest_oao.testing.scheduler import SchedulerConformance
    from pytest_oao.testing.script import ScriptedError, ScriptEndedError
    from pytest_oao.testing.scripted import ScriptedModel
    from pytest_oao.testing.scripted_langchain import ScriptedChatModel
    from pytest_oao.testing.store import StoreConformance
    from pytest_oao.testing.usage import TokenUsage

__all__ = [
    "AdapterCase",
    "AdapterConformance",
    "AgentMachine",
    "Body",
    "CallModel",
    "CallTool",
    "CassetteServer",
    "ErrorReply",
    "Fail",
    "GeminiServer",
    "Heard",
    "InThread",
    "InnerRun",
    "Leave",
    "LedgerCase",
    "LedgerConformance",
    "ListenerCase",
    "ListenerConformance",
    "Nested",
    "OpenAIServer",
    "Pause",
    "PolicyCase",
    "PolicyConformance",
    "Program",
    "RedisServer",
    "Reply",
    "Rules",
    "SchedulerCase",
    "SchedulerConformance",
    "ScriptEndedError",
    "ScriptedChatModel",
    "ScriptedError",
    "ScriptedModel",
    "StoreCase",
    "StoreConformance",
    "StreamModel",
    "StreamTool",
    "Swallow",
    "TextReply",
    "Together",
    "TokenUsage",
    "ToolCall",
    "ToolCallReply",
    "Trial",
    "TryAgain",
    "run_program",
]

_MODULES = {
    "AgentMachine": "machine",
    "AdapterCase": "adapter",
    "AdapterConformance": "adapter",
    "Body": "programs",
    "CallModel": "programs",
    "CallTool": "programs",
    "CassetteServer": "cassette_server",
    "Fail": "programs",
    "GeminiServer": "gemini_server",
    "Heard": "cases",
    "InThread": "programs",
    "InnerRun": "programs",
    "Leave": "programs",
    "LedgerCase": "cases",
    "LedgerConformance": "ledger",
    "ListenerCase": "cases",
    "ListenerConformance": "listener",
    "Nested": "programs",
    "Pause": "programs",
    "PolicyCase": "cases",
    "PolicyConformance": "policy",
    "Program": "programs",
    "RedisServer": "redis_server",
    "Rules": "program_rules",
    "SchedulerCase": "cases",
    "SchedulerConformance": "scheduler",
    "ScriptEndedError": "script",
    "ScriptedChatModel": "scripted_langchain",
    "ScriptedError": "script",
    "ScriptedModel": "scripted",
    "StoreCase": "cases",
    "StoreConformance": "store",
    "StreamModel": "programs",
    "StreamTool": "programs",
    "Swallow": "programs",
    "Together": "programs",
    "TokenUsage": "usage",
    "Trial": "program_trials",
    "TryAgain": "programs",
    "run_program": "program_trials",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module = _MODULES.get(name, "openai_server")
    return getattr(import_module(f"{__name__}.{module}"), name)
