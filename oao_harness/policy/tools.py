"""Which tools may be called, by exact name."""

from __future__ import annotations

from collections.abc import Collection

from oao_harness.errors import ConfigError
from oao_hookspecs import Deny, RunView, ToolCall, hookimpl

__all__ = ["ToolPolicy"]


class ToolPolicy:
    """Denies tools by name. As soon as it lists what is allowed, a tool that is not listed is denied.

    Args:
        allow: Names of the tools that may be called; None allows all that `deny` does not name.
        deny: Names of the tools that may not be called; stronger than `allow`.

    Raises:
        ConfigError: A single string was given where names belong.
    """

    name = "ToolPolicy"

    def __init__(self, *, allow: Collection[str] | None = None, deny: Collection[str] = ()) -> None:
        for field, value in (("allow", allow), ("deny", deny)):
            if isinstance(value, str):
                raise ConfigError(f"ToolPolicy({field}={value!r}): give a collection of names, for example [{value!r}]")
        self._allow = None if allow is None else frozenset(allow)
        self._deny = frozenset(deny)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | None:
        """Judge a tool call by its name."""
        if call.name in self._deny:
            return Deny(rule="tools.deny", reason=f"tool {call.name} is denied")
        if self._allow is not None and call.name not in self._allow:
            return Deny(rule="tools.allow", reason=f"tool {call.name} is not among the allowed tools")
        return None
