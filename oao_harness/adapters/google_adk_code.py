"""Governs code that a model wrote, where Google's Agent Development Kit runs it: each execution is a tool call."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from google.adk.code_executors.base_code_executor import BaseCodeExecutor

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version

__all__ = ["TOOL", "install"]

TOOL: Final = "execute_code"
"""The name under which policies see an execution; its argument is `code`, and the names of its `files`."""


def install() -> None:
    """Patch the leaf of all executors, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 2.13, or has no such leaf.
    """
    require_version("google-adk", "2.13")
    require(BaseCodeExecutor, ("execute_code",), "google-adk")
    patch_family(BaseCodeExecutor, (Leaf(name="execute_code", kind="sync", prepare=_prepare),))


def _prepare(_executor: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    given = {**dict(zip(("invocation_context", "code_execution_input"), positional, strict=False)), **named}
    asked = given["code_execution_input"]
    files = [file.name for file in asked.input_files]

    def again(changed: dict[str, Any]) -> Arguments:
        return (), {**given, "code_execution_input": dataclasses.replace(asked, code=changed["code"])}

    return tool_request(TOOL, {"code": asked.code, **({"files": files} if files else {})}, again)
