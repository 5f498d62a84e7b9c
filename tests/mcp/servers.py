"""MCP servers for tests: one of the SDK in this process, and a small one as a program that speaks JSON-RPC itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer

PLAIN = Path(__file__).with_name("plain_server.py")


def shop(done: list[Any]) -> MCPServer:
    """A server whose tools write into a list what they did."""
    server = MCPServer("shop", log_level="CRITICAL")

    @server.tool()
    def search(q: str, limit: int = 3) -> str:
        done.append(("search", q, limit))
        return f"found {q}"

    @server.tool()
    def refund(amount: int) -> str:
        done.append(("refund", amount))
        raise ValueError("no money")

    @server.resource("shop://rules")
    def rules() -> str:
        return "be kind"

    return server
