"""The tools of the OpenAI Agents SDK that run in this process: functions, shells, patches, computers, custom tools."""

# The framework is not installed where types are checked: it has an environment of its own in CI.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents.handoffs import Handoff
from agents.run_internal.tool_actions import ComputerAction
from agents.tool import ApplyPatchTool, ComputerTool, CustomTool, FunctionTool, LocalShellTool, ShellTool

from oao_harness.adapters.framework_models import arguments_of, plain
from oao_harness.adapters.framework_tools import governed_function, tool_request
from oao_harness.adapters.patching import Arguments, Request, is_wrapper, made_here
from oao_harness.adapters.requiring import require
from oao_harness.runtime.context import is_possible

__all__ = ["LOCAL_CALLS", "install_tools"]

_DISTRIBUTION: Final = "openai-agents"
_COMPUTER: Final = "computer_use_preview"
_EDITS: Final = ("create_file", "update_file", "delete_file")

LOCAL_CALLS: Final[Mapping[str, str]] = {
    "apply_patch_call": "apply_patch",
    "computer_call": _COMPUTER,
    "local_shell_call": "local_shell",
    "shell_call": "shell",
}
"""Items of an answer that ask for tools other than functions, and the names of those tools."""


def install_tools() -> None:
    """Patch the fields of tools that hold what runs; once.

    Raises:
        FrameworkError: The installed version has no such fields.
    """
    require(FunctionTool, ("on_invoke_tool",), _DISTRIBUTION)
    invoker = vars(sys.modules[FunctionTool.__module__])["_FailureHandlingFunctionToolInvoker"]
    require(invoker, ("__call__", "__agents_bind_function_tool__"), _DISTRIBUTION)
    require(CustomTool, ("on_invoke_tool",), _DISTRIBUTION)
    require(ShellTool, ("executor",), _DISTRIBUTION)
    require(LocalShellTool, ("executor",), _DISTRIBUTION)
    require(ApplyPatchTool, ("editor",), _DISTRIBUTION)
    require(ComputerTool, ("computer",), _DISTRIBUTION)
    require(Handoff, ("on_invoke_handoff", "tool_name"), _DISTRIBUTION)
    require(ComputerAction, ("_execute_action_and_capture",), _DISTRIBUTION)
    _guard(FunctionTool, _ToolGuard("on_invoke_tool", invoker))
    _guard(invoker, _BodyGuard("_invoke_tool_impl"))
    _guard(CustomTool, _ExecutorGuard("on_invoke_tool", _prepare_custom))
    _guard(ShellTool, _ExecutorGuard("executor", _prepare_shell))
    _guard(LocalShellTool, _ExecutorGuard("executor", _prepare_shell))
    _guard(ApplyPatchTool, _EditorGuard("editor"))
    _guard(Handoff, _HandoffGuard("on_invoke_handoff"))
    capture = ComputerAction._execute_action_and_capture
    if not is_wrapper(capture.__func__):
        type.__setattr__(ComputerAction, "_execute_action_and_capture", classmethod(_capturing(capture.__func__)))


def _guard(cls: type, guard: _Guard) -> None:
    if not isinstance(vars(cls).get(guard.name), _Guard):
        type.__setattr__(cls, guard.name, guard)


class _Guard:
    """A field of an instance that is read through here, also where the instance was made before."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(self.name)
        try:
            value = vars(instance)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None
        return value if value is None or not is_possible() else self.guarded(instance, value)

    def __set__(self, instance: Any, value: Any) -> None:
        # Who hands on what he read shall not have it wrapped once more.
        if isinstance(value, _Editor):
            value = value.editor
        vars(instance)[self.name] = getattr(value, "__wrapped__", value) if is_wrapper(value) else value

    def guarded(self, instance: Any, value: Any) -> Any:
        """Return what a reader gets inside of a run."""
        raise NotImplementedError


# Functions


class _BodyGuard(_Guard):
    """The body of a tool that the SDK made of a function: inside of its handling of errors, so that those are kept."""

    __slots__ = ()

    def guarded(self, instance: Any, value: Any) -> Any:
        tool = instance._function_tool
        return value if tool is None else governed_function(value, "async", _prepare_function, tool)


class _ToolGuard(_Guard):
    """A body that is the user's own. The SDK asks whether what it reads is still what it read before."""

    __slots__ = ("_invoker",)

    def __init__(self, name: str, invoker: type) -> None:
        super().__init__(name)
        self._invoker = invoker

    def guarded(self, instance: Any, value: Any) -> Any:
        if isinstance(value, self._invoker):
            return value
        kept = vars(instance).get("_oao_guarded")
        if kept is None or kept[0] is not instance or kept[1] is not value:
            kept = vars(instance)["_oao_guarded"] = (
                instance,
                value,
                governed_function(value, "async", _prepare_function, instance),
            )
        return kept[2]


def _prepare_function(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (context, text, *rest), named = arguments

    def again(changed: dict[str, Any]) -> Arguments:
        # What the SDK made of the arguments before is no longer what is asked.
        context._function_tool_arguments = None
        return (context, json.dumps(changed), *rest), named

    return tool_request(tool.name, arguments_of(text), again, call_id=getattr(context, "tool_call_id", None))


# Shells and custom tools


class _ExecutorGuard(_Guard):
    """A function of the user's, sync or async, that the SDK hands the whole call."""

    __slots__ = ("_prepare",)

    def __init__(self, name: str, prepare: Any) -> None:
        super().__init__(name)
        self._prepare = prepare

    def guarded(self, instance: Any, value: Any) -> Any:
        @functools.wraps(value)
        async def execute(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        governed = governed_function(execute, "async", self._prepare, instance)
        vars(governed)["__wrapped__"] = value
        return governed


def _prepare_custom(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (context, text), named = arguments
    call_id = getattr(context, "tool_call_id", None)
    return tool_request(
        tool.name, {"input": text}, lambda changed: ((context, changed["input"]), named), call_id=call_id
    )


def _prepare_shell(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (request,), named = arguments
    data = request.data

    def again(changed: dict[str, Any]) -> Arguments:
        other = _replaced(data, action=_replaced(data.action, **changed))
        return (_replaced(request, data=other),), named

    asked = {key: value for key, value in _fields(data.action).items() if value is not None and key != "type"}
    return tool_request(tool.name, asked, again, call_id=data.call_id)


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(value.model_dump())


def _replaced(value: Any, **changed: Any) -> Any:
    copied = getattr(value, "model_copy", None)
    return dataclasses.replace(value, **changed) if copied is None else copied(update=changed)


# Handoffs


class _HandoffGuard(_Guard):
    """Who hands over to another agent: what he returns is that agent, of which the journal keeps the name."""

    __slots__ = ()

    def guarded(self, instance: Any, value: Any) -> Any:
        @functools.wraps(value)
        async def hand_over(*arguments: Any) -> Any:
            found: list[Any] = []

            async def body(*arguments: Any) -> Any:
                found.append(await value(*arguments))
                return found[0].name

            await governed_function(body, "async", _prepare_handoff, instance)(*arguments)
            if not found:
                # Served from the journal: the agent is known without the user's callback, where the SDK made this.
                known = getattr(instance, "_agent_ref", None)
                agent = None if known is None else known()
                found.append(await value(*arguments) if agent is None else agent)
            return found[0]

        made_here(hand_over)
        return hand_over


def _prepare_handoff(
    handing: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None
) -> Request:
    (context, *texts), named = arguments

    def again(changed: dict[str, Any]) -> Arguments:
        return (context, *(json.dumps(changed) for _ in texts)), named

    return tool_request(handing.tool_name, arguments_of(texts[0] if texts else None), again)


# Patches


class _EditorGuard(_Guard):
    """Who edits files as the model asks."""

    __slots__ = ()

    def guarded(self, instance: Any, value: Any) -> Any:
        return value if isinstance(value, _Editor) else _Editor(instance, value)


class _Editor:
    """An editor each of whose operations is a tool call."""

    def __init__(self, tool: Any, editor: Any) -> None:
        self.editor = editor
        for name in _EDITS:
            operate = _ExecutorGuard(name, _prepare_edit).guarded(tool, getattr(editor, name))
            setattr(self, name, operate)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.editor, name)


def _prepare_edit(tool: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (operation,), named = arguments
    asked = {key: value for key, value in _fields(operation).items() if value is not None and key != "ctx_wrapper"}

    def again(changed: dict[str, Any]) -> Arguments:
        # The SDK has chosen the method by the type.
        return (dataclasses.replace(operation, **{**changed, "type": operation.type}),), named

    return tool_request(tool.name, asked, again)


# Computers


def _capturing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what does the actions of one call on a computer, and takes a picture of it."""

    async def act(computer: Any, tool_call: Any) -> Any:
        return await function(ComputerAction, computer, tool_call)

    @functools.wraps(function)
    async def capture(_cls: Any, computer: Any, tool_call: Any) -> Any:
        return await governed_function(act, "async", _prepare_computer, tool_call)(computer, tool_call)

    made_here(capture)
    return capture


def _prepare_computer(call: Any, _function: Callable[..., Any], arguments: Arguments, _call_id: str | None) -> Request:
    (computer, _), named = arguments
    actions = [plain(action) for action in ComputerAction._iter_actions(call)]

    def again(changed: dict[str, Any]) -> Arguments:
        other = type(call).model_validate({**call.model_dump(), "action": None, "actions": changed["actions"]})
        return (computer, other), named

    return tool_request(_COMPUTER, {"actions": actions}, again, call_id=call.call_id)
