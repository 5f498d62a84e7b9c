"""Policies in TOML files: `FilePolicy` answers the gate's questions by what a file says."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal, cast

from oao_harness.errors import ConfigError
from oao_harness.policy.compiling import compile_documents
from oao_harness.policy.named import oao_policies
from oao_harness.policy.reading import Source, close_to, read_document, read_text
from oao_harness.policy.redaction import redacted
from oao_harness.policy.ruleset import Plan, Ruleset, Seen
from oao_harness.policy.ruling import ConditionError, Item, Trace, Verdict
from oao_harness.policy.schema import PolicyDocument
from oao_harness.policy.sequence import SequenceRule
from oao_harness.policy.spending import limits_of, passed_by
from oao_hookspecs import (
    Allow,
    Ask,
    Call,
    Decision,
    Deny,
    Json,
    Limits,
    ModelCall,
    Outcome,
    RunView,
    ToolCall,
    ToolTraits,
    hookimpl,
)

__all__ = ["FilePolicy", "load_policy"]

_BASES: Final = ("off", "standard", "strict")
_MOST_LABELS: Final = 4


def load_policy(path: str | Path) -> FilePolicy:
    """Return the policy that a TOML file describes; a `pyproject.toml` means its table `[tool.oao.policy]`.

    Args:
        path: Of the file.

    Raises:
        ConfigError: It cannot be read, has a mistake or contradicts itself; one line with file and line for each.
    """
    return FilePolicy(_read(Path(path), ()))


class FilePolicy:
    """Judges by a policy file. Holds no state of a run: one object serves any number of them.

    Made by `load_policy` and `FilePolicy.from_text`; `docs/how-to/policy.md` describes the file.

    Args:
        files: The file as it was read, first; then what it extends: files, or names of policies.
    """

    def __init__(self, files: Sequence[tuple[Source, PolicyDocument] | str]) -> None:
        self._documents = [one for one in files if not isinstance(one, str)]
        self._bases = [oao_policies()[one]() for one in files if isinstance(one, str)]
        self.source, self.document = self._documents[0]
        document = self.document
        self.name: str = document.name or Path(self.source.name).stem
        self.mode: Literal["enforce", "observe"] = document.mode
        self.rules: Ruleset = compile_documents(self._documents)
        texts = [source.text for source, _ in self._documents] + [one for one in files if isinstance(one, str)]
        self.digest: str = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        """Of everything that the policy is made of: 64 hex digits."""
        self._unused = self._unused_hooks()
        self._allows: dict[int, Allow] = {}
        """By the item's identity: the usual answer is made once."""

    @classmethod
    def from_text(cls, text: str, name: str = "policy.toml") -> FilePolicy:
        """Return the policy that a text in TOML describes.

        Args:
            text: The whole policy.
            name: How messages and decisions call the file; what it extends is searched beside it.

        Raises:
            ConfigError: It has a mistake or contradicts itself; one line with file and line for each.
        """
        return cls(_with_bases(text, name, Path(name).parent, ()))

    def __repr__(self) -> str:
        observing = ", mode='observe'" if self.mode == "observe" else ""
        return f"FilePolicy({self.source.name!r}, digest={self.digest[:12]!r}{observing})"

    def __dir__(self) -> list[str]:
        # A hook that is there is asked at every call. What this file has no use for is not offered to pluggy.
        return [name for name in super().__dir__() if name not in self._unused]

    def _unused_hooks(self) -> frozenset[str]:
        rules = self.rules
        needed = {
            "oao_decide_run": bool(rules.roles),
            "oao_decide_model_call": self.mode == "observe" or any(rule.models is not None for rule in rules.rules),
            "oao_decide_batch": bool(rules.sequences or rules.rules),
            "oao_decide_outcome": bool(rules.sequences or rules.labels or rules.source_names),
            "oao_redact_result": bool(rules.redactions),
            "oao_describe_tool": bool(rules.tools),
        }
        return frozenset(hook for hook, is_needed in needed.items() if not is_needed)

    @functools.cached_property
    def limits(self) -> Limits:
        """The limits of the file and of what it extends, kept or only observed."""
        found = Limits()
        for source, document in self._documents:
            found = found.tightened(limits_of(source, document))
        for base in self._bases:
            # The named policies look at no run.
            found = found.tightened(cast("Any", base).oao_limits(run=None))
        return found

    @property
    def verifies_plugins(self) -> bool:
        """True where what it extends admits verified plugins only."""
        return self.mode != "observe" and any(getattr(base, "verifies_plugins", False) for base in self._bases)

    @property
    def documents(self) -> Sequence[PolicyDocument]:
        """The file and those that it extends, as they were read."""
        return tuple(document for _, document in self._documents)

    @property
    def sequences(self) -> Mapping[str, SequenceRule]:
        """The sequence rules by name, for asserts over a run."""
        return {one.item.name: one.rule for one in self.rules.sequences}

    # Hooks

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        """Name the limits; the gate keeps them. A file that observes names none."""
        return Limits() if self.mode == "observe" else self.limits

    @hookimpl
    def oao_describe_tool(self, name: str) -> ToolTraits | None:
        """Declare what `[[tool]]` says."""
        effect, access = self.rules.fact(name, "effect"), self.rules.fact(name, "access")
        return None if effect is None and access is None else ToolTraits(effect=effect, access=access)

    @hookimpl
    def oao_decide_run(self, run: RunView) -> Decision | None:
        """Judge whether the principal may run the agent."""
        return self._decision(self.rules.judge_run(run), "")

    @hookimpl
    def oao_decide_model_call(self, call: ModelCall, run: RunView) -> Decision | None:
        """Judge a model call by the rules about models."""
        return self._observed_limits(call, run) or self._decision(self.judge(call, run), call.name)

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Decision | None:
        """Judge a tool call by everything that is about the tool."""
        decision = self._decision(self.judge(call, run), call.name)
        if self.mode == "observe" and not (isinstance(decision, Allow) and decision.would):
            return self._observed_limits(call, run) or decision
        return decision

    @hookimpl
    def oao_decide_batch(self, calls: Sequence[ToolCall], run: RunView) -> Decision | None:
        """Judge siblings as if none, and as if all others, had come before each of them."""
        return self._decision(self._judge_batch(calls, run), "")

    @hookimpl
    def oao_decide_outcome(self, call: ModelCall | ToolCall, outcome: Outcome, run: RunView) -> Decision | None:
        """Remember what a tool call leaves behind: successes, labels, values."""
        if isinstance(call, ModelCall):
            return None
        return self._decision(self.remember(call, outcome, run), call.name)

    @hookimpl
    def oao_redact_result(self, call: ToolCall, value: Json, run: RunView) -> Json:
        """Take out of a result what `redact` names; a file that observes changes nothing."""
        redactions = self.rules.plan(call).redactions
        return redacted(value, redactions) if redactions and self.mode == "enforce" else value

    # What the hooks are made of

    def judge(self, call: Call, run: RunView, trace: Trace | None = None) -> Verdict | None:
        """Judge one call, and count it unless it is only proposed; None where the policy has no opinion.

        Args:
            call: About to be made. Judged again with the same `id`, it counts once.
            run: Its run.
            trace: Hears what each item said.
        """
        rules = self.rules
        plan = rules.plan(call)
        if not plan.has_memory:
            return rules.verdict(plan, call, Seen(run=run, trace=trace))
        memory = run.memory(self, rules.memory)
        lasts = isinstance(call, ToolCall) and not call.proposed
        with memory.lock:
            if call.id:
                memory.counts.take_back(call.id)
            counts = tuple(memory.counts.values) if plan.guards else ()
            labels = memory.labels
            if lasts:
                memory.counts.start(call.id, plan.starts)
        seen = Seen(run=run, counts=counts, labels=labels, memory=memory, trace=trace)
        verdict = rules.verdict(plan, call, seen)
        if lasts and plan.labels and (verdict is None or verdict.verdict != "deny" or self.mode == "observe"):
            verdict = self._mark(plan, call, seen) or verdict
        return verdict

    def _mark(self, plan: Plan, call: Call, seen: Seen, ended: Outcome | None = None) -> Verdict | None:
        """Set the labels of a call; return the denial where a condition failed."""
        try:
            marks = self.rules.labels_set(plan, call, seen, ended)
        except ConditionError as error:
            return Verdict(verdict="deny", item=plan.labels[0].item, reason=f"{error}; an error is a denial")
        if seen.memory is not None:
            seen.memory.mark(marks)
        return None

    def remember(self, call: ToolCall, outcome: Outcome, run: RunView, trace: Trace | None = None) -> Verdict | None:
        """Remember what a finished call leaves behind; a denial where that cannot be told.

        Args:
            call: The call.
            outcome: How it ended.
            run: Its run.
            trace: Hears which labels were set.
        """
        plan = self.rules.plan(call)
        if not plan.has_memory:
            return None
        memory = run.memory(self, self.rules.memory)
        ok = outcome.error is None
        with memory.lock:
            memory.counts.end(call.id, plan.successes if ok else ())
            for source in plan.sources if ok else ():
                memory.sources[source].add(outcome.value)
        seen = Seen(run=run, labels=memory.labels, memory=memory, trace=trace)
        return self._mark(plan, call, seen, outcome) if plan.labels else None

    def _judge_batch(self, calls: Sequence[ToolCall], run: RunView) -> Verdict | None:
        plans = [self.rules.plan(call) for call in calls]
        if not any(plan.guards or plan.reads_run for plan in plans):
            return None
        memory = run.memory(self, self.rules.memory)
        with memory.lock:
            counts, labels = tuple(memory.counts.values), memory.labels
        after_all = list(counts)
        for plan in plans:
            for index in plan.starts:
                after_all[index] += 1
        for i, (call, plan) in enumerate(zip(calls, plans, strict=True)):
            if not plan.guards and not plan.reads_run:
                continue
            # How the call fares alone was judged before; here only what its siblings can add to that.
            alone = self.rules.verdict(plan, call, Seen(run=run, counts=counts, labels=labels, memory=memory))
            before = list(after_all)
            for index in plan.starts:
                before[index] -= 1
            others = [(one, own) for j, (one, own) in enumerate(zip(calls, plans, strict=True)) if j != i]
            for view, marked in self._worlds(plan, others, run, labels):
                found = self.rules.verdict(plan, call, Seen(run=view, counts=before, labels=marked, memory=memory))
                if found is not None and found.verdict != "allow" and (alone is None or alone.verdict == "allow"):
                    reason = f"{found.reason} (calls of one batch start in chance order; ask for them one by one)"
                    return Verdict(verdict="deny", item=found.item, reason=reason)
        return None

    def _worlds(
        self, plan: Plan, others: Sequence[tuple[ToolCall, Plan]], run: RunView, labels: frozenset[str]
    ) -> Iterator[tuple[RunView, frozenset[str]]]:
        """Yield what a call may find when some of its siblings came before it."""
        if not plan.reads_run:
            yield run, labels
            return
        new = sorted({label.item.name for _, own in others for label in own.labels} - labels)
        sizes = range(len(new) + 1) if len(new) <= _MOST_LABELS else (0, 1, len(new) - 1, len(new))
        after = cast("RunView", _After(run, [call.name for call, _ in others]))
        for size in sizes:
            for some in combinations(new, size):
                yield run, labels.union(some)
                yield after, labels.union(some)

    def _observed_limits(self, call: Call, run: RunView) -> Allow | None:
        if self.mode != "observe" or (isinstance(call, ToolCall) and call.proposed):
            return None
        rule, reason = next(passed_by(call, run, self.limits), ("", ""))
        at = self.source.at(("limits", rule))
        return Allow(rule=rule, reason=reason, source=at, would="deny") if rule else None

    def _decision(self, verdict: Verdict | None, tool: str) -> Decision | None:
        """Return a verdict as the gate's decision; a file that observes only says what it would have been."""
        if verdict is None:
            return None
        item: Item = verdict.item
        if verdict.verdict == "allow":
            found = self._allows.get(id(item))
            if found is None:
                found = Allow(rule=item.rule, source=item.source, reason=verdict.reason)
                self._allows[id(item)] = found
            return found
        if self.mode == "observe":
            return Allow(rule=item.rule, source=item.source, reason=verdict.reason, would=verdict.verdict)
        if verdict.verdict == "deny":
            return Deny(rule=item.rule, source=item.source, reason=verdict.reason)
        approvals = self.rules.approvals
        return Ask(
            rule=item.rule,
            source=item.source,
            reason=verdict.reason,
            approvers=self.rules.approvers_of(tool),
            needed=approvals.needed,
            expires_s=approvals.expires_s,
        )


class _After:
    """A run as it will be when some tool calls were made."""

    def __init__(self, run: RunView, tools: Sequence[str]) -> None:
        self._run = run
        self.steps = run.steps + len(tools)
        self.tool_calls = run.tool_calls + len(tools)
        usage = dict(run.tool_usage)
        for tool in tools:
            usage[tool] = usage.get(tool, 0) + 1
        self.tool_usage: Mapping[str, int] = usage

    def __getattr__(self, name: str) -> object:
        return getattr(self._run, name)


def _read(path: Path, trail: Sequence[Path]) -> list[tuple[Source, PolicyDocument] | str]:
    return _with_bases(read_text(path, str(path)), str(path), path.parent, (*trail, path.resolve()))


def _with_bases(text: str, name: str, folder: Path, trail: Sequence[Path]) -> list[tuple[Source, PolicyDocument] | str]:
    """Return a file and all that it extends, itself first."""
    source, document = read_document(text, name, in_pyproject=Path(name).name == "pyproject.toml")
    base = document.extends
    if base is None:
        return [(source, document)]
    if base in _BASES:
        return [(source, document), base]
    if not base.endswith(".toml"):
        known = close_to(base, _BASES)
        raise ConfigError(
            f"{source.at(('extends',))}: extends = {base!r} is neither a policy to extend ({', '.join(_BASES)}) nor a "
            f".toml file{known if 'did you mean' in known else ''}"
        )
    path = folder / base
    if path.resolve() in trail:
        raise ConfigError(f"{source.at(('extends',))}: {base!r} extends this file in turn; take one of them out")
    try:
        return [(source, document), *_read(path, trail)]
    except ConfigError as error:
        if str(error).startswith(("there is no policy file", "policy ")):
            raise ConfigError(f"{source.at(('extends',))}: {error}") from error
        raise
