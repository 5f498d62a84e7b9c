"""What a client is shown of a server's tools: all of them, or without those that a policy denies by their name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from oao_harness.mcp.messages import Message, key_of_id

__all__ = ["Lists"]


class Lists:
    """Takes hidden tools out of the answers to `tools/list`.

    Args:
        is_hidden: Returns True for the name of a tool that is not shown; None shows all.
    """

    def __init__(self, is_hidden: Callable[[str], bool] | None = None) -> None:
        self._is_hidden = is_hidden
        self._asked: set[str] = set()

    def asked(self, message: Message) -> None:
        """Remember that a request is one for tools."""
        if self._is_hidden is not None and message.method == "tools/list":
            self._asked.add(key_of_id(message.id))

    def seen(self, message: Message) -> bytes:
        """Return what the client gets of a message from the server."""
        key = key_of_id(message.id)
        if self._is_hidden is None or not message.is_response or key not in self._asked:
            return message.raw
        self._asked.discard(key)
        result: Any = message.fields.get("result")
        if not isinstance(result, Mapping):
            return message.raw
        fields = cast("Mapping[str, Any]", result)
        tools = cast("list[Any]", fields.get("tools") or [])
        kept: list[Any] = [one for one in tools if not self._hides(one)]
        return message.raw if len(kept) == len(tools) else message.with_result({**fields, "tools": kept})

    def _hides(self, tool: Any) -> bool:
        name: Any = cast("Mapping[str, Any]", tool).get("name") if isinstance(tool, Mapping) else None
        return isinstance(name, str) and self._is_hidden is not None and self._is_hidden(name)
