"""Governs code that a model wrote, where smolagents runs it: each execution is a tool call, as is each tool in it."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from smolagents.local_python_executor import CodeOutput, PythonExecutor
from smolagents.remote_executors import RemotePythonExecutor

from oao_harness.adapters.families import patch_family
from oao_harness.adapters.framework_tools import tool_request
from oao_harness.adapters.patching import Arguments, Leaf, Request
from oao_harness.adapters.requiring import require, require_version
from oao_harness.journal.codec import decode, encode, holds_opaque
from oao_harness.runtime.context import current
from oao_harness.runtime.gate import Answer
from oao_hookspecs import Json

__all__ = ["TOOL", "install"]

TOOL: Final = "python_interpreter"
"""The name under which policies see an execution, as the framework calls it; its argument is `code`."""


def install() -> None:
    """Patch the leaf of all executors, present and to come; once.

    Raises:
        FrameworkError: The installed version is older than 1.26, or has no such leaf.
    """
    require_version("smolagents", "1.26")
    require(PythonExecutor, ("__call__",), "smolagents")
    patch_family(PythonExecutor, (Leaf(name="__call__", kind="sync", prepare=_prepare),))


class _Outcome:
    """What code said, and the variables that it left for the code after it.

    ```text
    {"output": ..., "logs": "...", "is_final_answer": false, "variables": {...}}
    ```

    Variables that JSON cannot hold are left out: code that runs after an interruption does not find them.
    """

    __slots__ = ("_before", "_executor")

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self._before = self._variables()

    def _variables(self) -> dict[str, Json]:
        state = getattr(self._executor, "state", None)
        if not isinstance(state, dict):
            return {}
        found = {name: encode(value) for name, value in state.items() if not name.startswith("_")}
        return {name: value for name, value in found.items() if holds_opaque(value) is None}

    def dump(self, value: Any) -> Answer:
        """Return the result and what has changed."""
        output = encode(value.output)
        node: dict[str, Json] = {
            # Of what cannot be read back the agent only tells the model the text.
            "output": output if holds_opaque(output) is None else str(value.output),
            "logs": value.logs,
            "is_final_answer": value.is_final_answer,
        }
        changed = {name: now for name, now in self._variables().items() if now != self._before.get(name)}
        return Answer(value={**node, **({"variables": changed} if changed else {})})

    def load(self, value: Json) -> Any:
        """Return the result, after putting the variables back."""
        node = cast("Mapping[str, Any]", value)
        state = getattr(self._executor, "state", None)
        if isinstance(state, dict):
            state.update(cast("dict[str, Any]", decode(node.get("variables", {}))))
        return CodeOutput(output=decode(node["output"]), logs=node["logs"], is_final_answer=node["is_final_answer"])

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Return the result; it does not stream."""
        return [self.load(value)]


def _prepare(executor: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    positional, named = arguments
    code = positional[0] if positional else named["code_action"]
    run = current()
    if run is not None and isinstance(executor, RemotePythonExecutor):
        run.note_ungoverned(
            f"tools that code calls in {type(executor).__name__} run elsewhere; the code itself is judged"
        )
    return tool_request(TOOL, {"code": code}, lambda changed: ((changed["code"],), {}), shape=_Outcome(executor))
