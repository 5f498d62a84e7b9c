"""The only module that calls decide and observe hooks: in order, bounded in time, awaited one by one.

The logic is a generator that yields what must be awaited; `drive` and `drive_async` are its two drivers. Where
every hook is sync nothing is yielded, nothing is awaited and no thread is crossed: that is the hot path.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar, cast

import pluggy

from oao_harness.errors import RunHalted
from oao_harness.journal.codec import error_line
from oao_harness.runtime.context import in_plugin
from oao_harness.runtime.frozen import freeze, freeze_call
from oao_harness.runtime.portal import settled, wait
from oao_hookspecs import (
    Allow,
    ApprovalAnswer,
    ApprovalRequest,
    Approve,
    Ask,
    Call,
    Decision,
    Deny,
    Json,
    ModelCall,
    Modify,
    Principal,
    Reject,
    RunView,
    ToolCall,
    combine,
)

__all__ = [
    "ALLOWED",
    "HookImpl",
    "Hooks",
    "Steps",
    "answers",
    "checked",
    "decide",
    "decisions",
    "denial_for",
    "drive",
    "drive_async",
    "observe",
    "redact",
    "too_slow",
    "traceparent",
]

_log = logging.getLogger("oao")
_POLICY_ERROR: Final = "policy-error"

T = TypeVar("T")
Steps: TypeAlias = Generator[Awaitable[object], object, T]
"""A computation that yields what must be awaited and returns a T."""

ALLOWED: Final = combine(())
_JSON: Final = (str, int, float, bool, list, tuple, dict, type(None))
_DECISIONS: Final = (Allow, Deny, Ask, Modify)
# Asked and told around the agent's own code, not at its calls.
_AROUND: Final = (
    "oao_decide_run",
    "oao_decide_output",
    "oao_run_started",
    "oao_run_paused",
    "oao_run_finished",
    "oao_state_entered",
    "oao_violation",
)
# What reaches a hook from outside of it: the user interrupts, the caller is cancelled, the computation is dropped.
_NOT_ITS_OWN: Final = (KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit)


@dataclass(frozen=True, slots=True)
class HookImpl:
    """One implementation of one hook."""

    plugin: str
    function: Any
    argnames: tuple[str, ...]

    @property
    def source(self) -> str:
        """Where the implementation is written, as `file:line`."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return "" if code is None else f"{_shown(code.co_filename)}:{code.co_firstlineno}"


@functools.cache
def _shown(filename: str) -> str:
    """Return a file's name from the working folder on, or from its package on: the same on every machine."""
    path = Path(filename)
    if path.is_relative_to(Path.cwd()):
        return path.relative_to(Path.cwd()).as_posix()
    for folder in map(Path, sorted(filter(None, sys.path), key=len, reverse=True)):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return path.name


class Hooks:
    """The implementations of one plugin manager, in calling order, and who of them was muted.

    Args:
        impls: Implementations by hook name.
        timeout_s: Seconds one implementation may take, > 0.
        waivers: Why denials of a rule do not count, by `rule` or `rule:tool`; both may be globs.
    """

    __slots__ = ("_impls", "_muted", "_waivers", "awaits", "timeout_s")

    def __init__(
        self,
        impls: Mapping[str, tuple[HookImpl, ...]],
        timeout_s: float,
        waivers: Mapping[str, str] | None = None,
    ) -> None:
        self._waivers = dict(waivers or {})
        self._impls = {name: found for name, found in impls.items() if found}
        self._muted: set[str] = set()
        self.awaits = any(inspect.iscoroutinefunction(one.function) for name in _AROUND for one in self.get(name))
        """True where somebody who is asked or told around a run is async: it belongs on the caller's loop."""
        self.timeout_s = timeout_s

    @classmethod
    def of(
        cls,
        manager: pluggy.PluginManager,
        *,
        decide: Iterable[str],
        observe: Iterable[str],
        timeout_s: float,
        undecided: Collection[str] = (),
        waivers: Mapping[str, str] | None = None,
    ) -> Hooks:
        """Return the hooks of a plugin manager, in calling order.

        Args:
            manager: Checked.
            decide: Names of the deciding hooks.
            observe: Names of the observing hooks.
            timeout_s: Seconds one implementation may take, > 0.
            undecided: Plugins that may observe, but not decide.
            waivers: Why denials of a rule do not count.
        """

        def impls(name: str, refused: Collection[str]) -> tuple[HookImpl, ...]:
            # pluggy's own calling order; its documentation leaves it open, a test pins it.
            return tuple(
                HookImpl(plugin=impl.plugin_name, function=impl.function, argnames=tuple(impl.argnames))
                for impl in reversed(getattr(manager.hook, name).get_hookimpls())
                if impl.plugin_name not in refused
            )

        deciding = {name: impls(name, undecided) for name in decide}
        return cls({**deciding, **{name: impls(name, ()) for name in observe}}, timeout_s, waivers)

    def get(self, hook: str) -> tuple[HookImpl, ...]:
        """Return who implements a hook, in calling order."""
        return self._impls.get(hook, ())

    def heard(self, hook: str) -> bool:
        """Return True where somebody observes a hook."""
        return hook in self._impls

    def waived(self, denial: Deny, call: object) -> Deny | Allow:
        """Return a denial as what a waiver makes of it: the call passes, and the journal says what would have been.

        An error in a policy cannot be waived: nobody knows what the policy would have said.
        """
        if not self._waivers or denial.rule == _POLICY_ERROR:
            return denial
        name = call.name if isinstance(call, ModelCall | ToolCall) else ""
        for waiver, why in self._waivers.items():
            rule, _, pattern = waiver.partition(":")
            if fnmatchcase(denial.rule, rule) and fnmatchcase(name, pattern or "*"):
                reason = f"waived ({why}): {denial.reason}"
                return Allow(rule=denial.rule, plugin=denial.plugin, reason=reason, source=denial.source, would="deny")
        return denial

    def mute(self, plugin: str) -> bool:
        """Stop calling the observers of a plugin; return True the first time."""
        if plugin in self._muted:
            return False
        self._muted.add(plugin)
        return True

    def is_muted(self, plugin: str) -> bool:
        """Return True where a plugin's observers are no longer called."""
        return plugin in self._muted


def decide(hooks: Hooks, hook: str, arguments: dict[str, object]) -> Steps[Decision]:
    """Ask every policy and return the strictest answer; see `decisions`."""
    if not hooks.get(hook):
        return ALLOWED
    decision = combine((yield from decisions(hooks, hook, arguments)))
    if isinstance(decision, Modify):
        # The last of several modifications holds them all: each policy saw the one before.
        decision = replace(decision, call=cast("Call", arguments["call"]))
    return decision


def decisions(hooks: Hooks, hook: str, arguments: dict[str, object]) -> Steps[list[Decision]]:
    """Ask every policy and return what they answered; a Deny ends the asking.

    Fails closed: an exception, a timeout and an answer that is not a decision are a Deny that says so.

    Args:
        hooks: Who is asked.
        hook: Name of the hook.
        arguments: By name; `call` is replaced where a policy modifies it.
    """
    answers: list[Decision] = []
    for impl in hooks.get(hook):
        answer = yield from _ask(impl, hook, arguments, hooks.timeout_s)
        if answer is None:
            continue
        if isinstance(answer, Deny):
            answer = hooks.waived(answer, arguments.get("call"))
        answers.append(answer)
        if isinstance(answer, Deny):
            break
        if isinstance(answer, Modify):
            arguments["call"] = freeze_call(answer.call)
    return answers


def _ask(impl: HookImpl, hook: str, arguments: dict[str, object], timeout_s: float) -> Steps[Decision | None]:
    started = time.perf_counter()
    try:
        answer = _called(impl, arguments)
        if answer is not None and not isinstance(answer, _DECISIONS) and inspect.isawaitable(answer):
            answer = yield answer
    except _NOT_ITS_OWN:
        raise
    except BaseException as error:  # noqa: BLE001 - fail closed
        return denial_for(impl, hook, error, timeout_s)
    if time.perf_counter() - started > timeout_s:
        return too_slow(impl, timeout_s)
    if answer is None:
        return None
    return checked(impl, answer, arguments)


def denial_for(impl: HookImpl, hook: str, error: BaseException, timeout_s: float) -> Deny:
    """Return the denial that an implementation's exception comes to, and log what is no halt.

    Args:
        impl: Whose exception it is.
        hook: Name of the hook.
        error: What it raised.
        timeout_s: Seconds it had.
    """
    if isinstance(error, TimeoutError):
        return _failed(impl, f"timed out: {error or f'no answer within {timeout_s} s'}")
    if isinstance(error, RunHalted):
        return Deny(rule=error.rule or "policy", plugin=impl.plugin, reason=error.reason)
    _log.warning("policy %r raised in %s; the call is denied", impl.plugin, hook, exc_info=error)
    return _failed(impl, f"raised {error_line(error)}")


def too_slow(impl: HookImpl, timeout_s: float) -> Deny:
    """Return the denial that an answer comes to that took too long."""
    return _failed(impl, f"took longer than {timeout_s} s")


def _called(impl: HookImpl, arguments: Mapping[str, object]) -> object:
    token = in_plugin.set(True)
    try:
        return impl.function(*[arguments[name] for name in impl.argnames])
    except (asyncio.CancelledError, GeneratorExit) as error:
        # Nobody can cancel or close a plain call: this is the implementation's own, and it must not look like the
        # caller's, which is passed on.
        raise RuntimeError(error_line(error)) from error
    finally:
        in_plugin.reset(token)


def checked(impl: HookImpl, answer: object, arguments: Mapping[str, object]) -> Decision:
    """Return an answer with plugin and source; what is no decision, or changes what must stay, is a denial."""
    if not isinstance(answer, _DECISIONS):
        return _failed(impl, f"answered {answer!r:.200}, which is not a decision")
    if isinstance(answer, Modify):
        call = arguments.get("call")
        new = answer.call
        if not isinstance(call, ModelCall | ToolCall) or type(new) is not type(call) or new.name != call.name:
            return _failed(impl, f"modified the call into {new!r:.200}; kind and name must stay the same")
    if answer.plugin and answer.source:
        return answer
    return replace(answer, plugin=answer.plugin or impl.plugin, source=answer.source or impl.source)


def traceparent(hooks: Hooks, run: RunView) -> str | None:
    """Return the trace context of a run, or None where nobody traces it; an error is logged once, and is none."""
    for impl in hooks.get("oao_traceparent"):
        if hooks.is_muted(impl.plugin):
            continue
        try:
            answer = _called(impl, {"run": run})
        except _NOT_ITS_OWN:
            raise
        except BaseException:  # noqa: BLE001 - fail open: a trace decides nothing
            if hooks.mute(impl.plugin):
                _log.exception("listener %r failed in oao_traceparent and is muted; the run goes on", impl.plugin)
            continue
        if isinstance(answer, str):
            return answer
    return None


def _failed(impl: HookImpl, what: str) -> Deny:
    return Deny(rule=_POLICY_ERROR, plugin=impl.plugin, reason=f"policy {impl.plugin!r} {what}; an error is a denial")


def answers(hooks: Hooks, request: ApprovalRequest, run: RunView) -> Steps[list[ApprovalAnswer]]:
    """Ask every plugin for its answer to a held call; an error, and a foreign value, is a rejection.

    Nobody is hurried: who waits for a person in plain code may take the time that needs, and who is still waiting
    when the awaiting times out has not answered.
    """
    found: list[ApprovalAnswer] = []
    for impl in hooks.get("oao_answer_approval"):
        try:
            answer = _called(impl, {"request": request, "run": run})
            if answer is not None and inspect.isawaitable(answer):
                answer = yield answer
        except TimeoutError:
            continue
        except _NOT_ITS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - fail closed
            answer = Reject(by=Principal(id=f"plugin:{impl.plugin}"), note=f"it raised {error_line(error)}")
        if answer is None:
            continue
        if not isinstance(answer, Approve | Reject):
            note = f"it answered {answer!r:.200}, which is neither Approve nor Reject"
            answer = Reject(by=Principal(id=f"plugin:{impl.plugin}"), note=note)
        found.append(answer)
        if isinstance(answer, Reject):
            break
    return found


def redact(hooks: Hooks, call: Call, value: Json, run: RunView) -> Steps[Json | Deny]:
    """Hand a result through every redactor; where one fails, nothing of the result may be seen."""
    for impl in hooks.get("oao_redact_result"):
        try:
            answer = _called(impl, {"call": call, "value": freeze(value), "run": run})
            if inspect.isawaitable(answer):
                answer = yield answer
        except _NOT_ITS_OWN:
            raise
        except BaseException as error:  # noqa: BLE001 - fail closed
            return _failed(impl, f"could not redact the result of tool {call.name}: {error_line(error)}")
        if not isinstance(answer, _JSON) or (answer is None and value is not None):
            hint = "; return the value where nothing is to be taken out" if answer is None else ", which is no JSON"
            return _failed(impl, f"redacted the result of tool {call.name} to {answer!r:.100}{hint}")
        value = cast("Json", answer)
    return value


def observe(hooks: Hooks, hook: str, arguments: dict[str, object]) -> Steps[None]:
    """Tell every observer what is already journaled; one that fails is logged once and muted.

    Args:
        hooks: Who is told.
        hook: Name of the hook.
        arguments: By name.
    """
    for impl in hooks.get(hook):
        if hooks.is_muted(impl.plugin):
            continue
        try:
            answer = _called(impl, arguments)
            if answer is not None and inspect.isawaitable(answer):
                yield answer
        except _NOT_ITS_OWN:
            raise
        except BaseException:  # noqa: BLE001 - fail open: what was observed has happened
            if hooks.mute(impl.plugin):
                _log.exception("listener %r failed in %s and is muted; the run goes on", impl.plugin, hook)


def drive(steps: Steps[T], timeout_s: float) -> T:
    """Run a computation from sync code; what must be awaited is awaited in a helper thread.

    Args:
        steps: The computation.
        timeout_s: Seconds one awaited answer may take.
    """
    try:
        pending = next(steps)
        while True:
            try:
                answer, failure = wait(pending, timeout_s)
            except BaseException as error:  # noqa: BLE001 - handed to the computation, which judges it
                answer, failure = None, error
            pending = steps.send(answer) if failure is None else steps.throw(failure)
    except StopIteration as stop:
        return cast("T", stop.value)


class Unhurried:
    """What takes its time in a computation that is driven in an event loop; no answer of a plugin.

    Args:
        awaited: What is awaited.
    """

    __slots__ = ("_awaited",)

    def __init__(self, awaited: Awaitable[object]) -> None:
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, object]:
        return self._awaited.__await__()


async def drive_async(steps: Steps[T], timeout_s: float) -> T:
    """Run a computation from async code.

    Args:
        steps: The computation.
        timeout_s: Seconds one awaited answer may take.
    """
    try:
        pending = next(steps)
        while True:
            try:
                if isinstance(pending, Unhurried):
                    answer, failure = await pending, None
                else:
                    answer, failure = await asyncio.wait_for(settled(pending), timeout_s)
            except BaseException as error:  # noqa: BLE001 - handed to the computation, which judges it
                answer, failure = None, error
            pending = steps.send(answer) if failure is None else steps.throw(failure)
    except StopIteration as stop:
        return cast("T", stop.value)
