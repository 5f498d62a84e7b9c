"""Test tools for users and plugin authors: real servers on loopback, no mocks.

Importing this package imports none of its modules; each is loaded when one of its names is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_oao.testing.cassette_server import CassetteServer
    from pytest_oao.testing.ledger import LedgerConformance
    from pytest_oao.testing.openai_server import (
        ErrorReply,
        OpenAIServer,
        Reply,
        TextReply,
        ToolCall,
        ToolCallReply,
    )
    from pytest_oao.testing.redis_server import RedisServer
    from pytest_oao.testing.usage import TokenUsage

__all__ = [
    "CassetteServer",
    "ErrorReply",
    "LedgerConformance",
    "OpenAIServer",
    "RedisServer",
    "Reply",
    "TextReply",
    "TokenUsage",
    "ToolCall",
    "ToolCallReply",
]

_MODULES = {
    "CassetteServer": "cassette_server",
    "LedgerConformance": "ledger",
    "RedisServer": "redis_server",
    "TokenUsage": "usage",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    module = _MODULES.get(name, "openai_server")
    return getattr(import_module(f"{__name__}.{module}"), name)
