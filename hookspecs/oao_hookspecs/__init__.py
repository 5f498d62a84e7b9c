"""The contract of oao: all that a plugin author reads. Standard library and pluggy only, no I/O, no clock."""

from __future__ import annotations

from oao_hookspecs._markers import PROJECT, hookimpl, hookspec
from oao_hookspecs.calls import Call, Effect, ErrorInfo, Json, ModelCall, Outcome, ProposedCall, ToolCall, Usage
from oao_hookspecs.decisions import Allow, Ask, Decision, Deny, Limits, Modify, Retry, combine
from oao_hookspecs.events import (
    CallDecided,
    CallFinished,
    CallRetried,
    Event,
    RunFinished,
    RunStarted,
    StateEntered,
    StepStarted,
    ViolationFound,
)
from oao_hookspecs.interfaces import Adapter, Amounts, Clock, Ledger, Record, Refusal, RunSummary, RunView, Store

__all__ = [
    "PROJECT",
    "Adapter",
    "Allow",
    "Amounts",
    "Ask",
    "Call",
    "CallDecided",
    "CallFinished",
    "CallRetried",
    "Clock",
    "Decision",
    "Deny",
    "Effect",
    "ErrorInfo",
    "Event",
    "Json",
    "Ledger",
    "Limits",
    "ModelCall",
    "Modify",
    "Outcome",
    "ProposedCall",
    "Record",
    "Refusal",
    "Retry",
    "RunFinished",
    "RunStarted",
    "RunSummary",
    "RunView",
    "StateEntered",
    "StepStarted",
    "Store",
    "ToolCall",
    "Usage",
    "ViolationFound",
    "combine",
    "hookimpl",
    "hookspec",
]
