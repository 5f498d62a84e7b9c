"""The compiled rules of a policy and its bases, indexed by tool. Judges one call against what was counted so far.

Holds no state of a run: what a run has done is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from oao_harness.policy.facts import NOBODY, Needs, as_json, variables_of
from oao_harness.policy.globs import Names
from oao_harness.policy.memory import Memory
from oao_harness.policy.redaction import Redaction
from oao_harness.policy.rules import Question, Rule
from oao_harness.policy.ruling import ConditionError, Item, Trace, Verdict, strictest
from oao_harness.policy.schema import ToolTable
from oao_harness.policy.sequence import SequenceRule
from oao_harness.policy.sources import Index
from oao_hookspecs import Call, ModelCall, Outcome, RunView, ToolCall

if TYPE_CHECKING:
    import cel

    from oao_harness.policy.conditions import Condition

__all__ = ["Approvals", "Label", "Plan", "Role", "Ruleset", "Seen", "Sequenced", "ToolList"]

# A model proposes the names of tools: without a bound it could fill the memory with names that do not exist.
_MOST_PLANS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolList:
    """One of the lists of `[tools]`, an item for each entry."""

    names: Names
    items: tuple[Item, ...]
    whole: Item
    """The list itself: what a denial of an unlisted tool names."""

    def find(self, tool: str) -> Item | None:
        """Return the entry that selects a tool."""
        index = self.names.find(tool)
        return None if index is None else self.items[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequenced:
    """A compiled `[[sequence]]`."""

    item: Item
    rule: SequenceRule
    then: Literal["deny", "ask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A compiled `[[label]]`."""

    item: Item
    tools: Names
    when: Condition | None
    is_late: bool
    """True where the condition reads the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A compiled `[[role]]`."""

    item: Item
    agents: Names
    tools: Names
    approve: Names
    file: int
    """Index of its file: each file's roles hold by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """Who answers the questions."""

    approvers: tuple[str, ...] = ()
    needed: int = 1
    expires_s: float = 86_400.0


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a call is judged against: its run, and what the policy has seen of it before the call."""

    run: RunView
    counts: Sequence[int] = ()
    """What each sequence rule has counted."""
    labels: frozenset[str] = frozenset()
    memory: Memory | None = None
    """Where values are looked up; None where the plan needs none."""
    trace: Trace | None = None
    """Hears what each item said; then no denial ends the judging early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What concerns the calls of one tool, or of one model."""

    listed: Verdict | None
    """What the lists of `[tools]` say."""
    access: Literal["read", "write"]
    rules: tuple[Rule, ...] = ()
    """The most particular ones first."""
    needs: Needs
    functions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    roles: tuple[tuple[Role, ...], ...] = ()
    """By file: who may call the tool."""
    guards: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    successes: tuple[int, ...] = ()
    labels: tuple[Label, ...] = ()
    sources: tuple[str, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    context_of: Callable[[Mapping[str, Any], Mapping[str, Any]], cel.Context] | None = None
    """Makes what conditions are judged in; None where there is none."""
    has_memory: bool = False
    reads_run: bool = False
    """True where a condition reads what a sibling of the same batch could change."""


@dataclass(kw_only=True)
class Ruleset:
    """Everything that a policy file and its bases say, but for limits and mode."""

    allow: tuple[ToolList, ...]
    deny: tuple[ToolList, ...]
    ask: tuple[ToolList, ...]
    tools: tuple[ToolTable, ...]
    tool_names: Names
    redactions: Mapping[int, tuple[Redaction, ...]]
    """By index of the table in `tools`."""
    rules: tuple[Rule, ...]
    sequences: tuple[Sequenced, ...]
    labels: tuple[Label, ...]
    roles: tuple[Role, ...]
    lists: Mapping[str, Index]
    approvals: Approvals
    sources: tuple[str, ...]
    """`task` and `tool:NAME`, as far as rules read them."""
    source_names: Mapping[str, Names]
    """For each `tool:NAME` the tools it means."""
    _plans: dict[tuple[str, str], Plan] = field(default_factory=dict[tuple[str, str], Plan])

    def memory(self) -> Memory:
        """Return an empty memory of a run."""
        return Memory(len(self.sequences), self.sources)

    @property
    def items(self) -> list[Item]:
        """Everything that can decide, in the order of its kinds."""
        lists = [item for one in (*self.deny, *self.allow, *self.ask) for item in one.items]
        return [
            *lists,
            *(one.item for kind in (self.rules, self.sequences, self.labels, self.roles) for one in kind),
        ]

    # Facts about tools

    def fact(self, tool: str, key: str) -> Any:
        """Return what the first exact name, else the first glob that has the key, says of a tool; None for nothing."""
        found: Any = None
        for table in self.tools:
            value = getattr(table, key)
            if value is None:
                continue
            if table.name == tool:
                return value
            if found is None and tool in Names([table.name]):
                found = value
        return found

    def plan(self, call: Call) -> Plan:
        """Return what concerns a call; made by the first call of its name."""
        key = (call.kind, call.name)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._model_plan(call.name) if isinstance(call, ModelCall) else self._tool_plan(call.name)
            self._plans[key] = plan
        return plan

    def _model_plan(self, model: str) -> Plan:
        rules = [rule for rule in self.rules if rule.models is not None and model in rule.models]
        return self._made(model, rules, listed=None, access="write", uses_memory=False)

    def _tool_plan(self, tool: str) -> Plan:
        listed = self.listed(tool)
        rules = [rule for rule in self.rules if rule.tools is not None and tool in rule.tools]
        restricting = [role for role in self.roles if tool in role.tools]
        files = sorted({role.file for role in restricting})
        numbered = [*enumerate(self.sequences)]
        labels = tuple(label for label in self.labels if tool in label.tools)
        sources = tuple(name for name, names in self.source_names.items() if tool in names)
        starts = tuple(i for i, one in numbered if one.rule.counts_start(tool))
        guards = tuple(i for i, one in numbered if one.rule.guards(tool))
        successes = tuple(i for i, one in numbered if one.rule.counts_success(tool))
        return self._made(
            tool,
            rules,
            listed=listed,
            access=self.fact(tool, "access") or "write",
            roles=tuple(tuple(role for role in restricting if role.file == file) for file in files),
            guards=guards,
            starts=starts,
            successes=successes,
            labels=labels,
            sources=sources,
            redactions=self._redactions(tool),
            uses_memory=bool(starts or guards or successes or labels or sources),
        )

    def _made(self, name: str, rules: Sequence[Rule], *, uses_memory: bool, **more: Any) -> Plan:
        conditions = [condition for rule in rules for condition in rule.conditions]
        needs = Needs.together(condition.needs for condition in conditions)
        run = needs.fields.get("run", frozenset())
        return Plan(
            rules=tuple(sorted(rules, key=lambda rule: -rule.rank(name))),
            needs=needs,
            functions={key: made for condition in conditions for key, made in condition.functions.items()},
            context_of=conditions[0].context_of if conditions else None,
            has_memory=uses_memory or run is None or "labels" in run or any(rule.values_from for rule in rules),
            reads_run=run is None or bool(run & {"labels", "tool_calls", "steps", "tool_usage"}),
            **more,
        )

    def _redactions(self, tool: str) -> tuple[Redaction, ...]:
        tables = [i for i, table in enumerate(self.tools) if table.redact is not None and tool in Names([table.name])]
        exact = [i for i in tables if self.tools[i].name == tool]
        return self.redactions[(exact or tables)[0]] if tables else ()

    def listed(self, tool: str) -> Verdict | None:
        """Return what the lists of `[tools]` say of a tool; None where they have no opinion."""
        for denied in self.deny:
            entry = denied.find(tool)
            if entry is not None:
                reason = f"tool {tool} is denied"
                return Verdict(verdict="deny", item=entry, reason=reason)
        asked = next((entry for one in self.ask if (entry := one.find(tool)) is not None), None)
        by_file = {one.whole.source.rpartition(":")[0]: one for one in self.ask}
        allowed: Item | None = None
        for one in self.allow:
            entry = one.find(tool)
            own_ask = by_file.get(one.whole.source.rpartition(":")[0])
            if entry is None and (own_ask is None or own_ask.find(tool) is None):
                reason = f"tool {tool} is not among the allowed tools"
                return Verdict(verdict="deny", item=one.whole, reason=reason)
            allowed = allowed or entry
        if asked is not None:
            reason = f"tool {tool} is held for approval"
            return Verdict(verdict="ask", item=asked, reason=reason)
        return None if allowed is None else Verdict(verdict="allow", item=allowed)

    # Judging

    def verdict(self, plan: Plan, call: Call, seen: Seen) -> Verdict | None:
        """Judge one call; None where nothing in the policy is about it.

        Args:
            plan: Of the call.
            call: The call.
            seen: What came before it.
        """
        listed, trace = plan.listed, seen.trace
        if listed is not None:
            if trace is not None:
                _tell(trace, listed)
            elif listed.verdict == "deny":
                return listed
        # An explicit rule says more than an entry of a list: of equals the first is kept.
        found: Verdict | None = None
        for roles in plan.roles:
            found = strictest(found, _without_role(roles, seen.run, f"tool {call.name}", trace))
        for index in plan.guards:
            found = strictest(found, self._sequenced(index, call.name, seen))
        if plan.rules and (trace is not None or found is None or found.verdict != "deny"):
            found = strictest(found, self._ruled(plan, call, seen))
        return strictest(found, listed)

    def judge_run(self, run: RunView, trace: Trace | None = None) -> Verdict | None:
        """Judge whether the principal may run the agent."""
        found: Verdict | None = None
        for file in sorted({role.file for role in self.roles}):
            roles = [role for role in self.roles if role.file == file and run.agent_name in role.agents]
            if roles:
                found = strictest(found, _without_role(roles, run, f"agent {run.agent_name}", trace))
        return found

    def _sequenced(self, index: int, tool: str, seen: Seen) -> Verdict | None:
        one, trace = self.sequences[index], seen.trace
        refusal = one.rule.refuses(tool, seen.counts[index])
        verdict = None if refusal is None else Verdict(verdict=one.then, item=one.item, reason=refusal)
        if trace is not None:
            trace(one.item, "asked")
            trace(one.item, "matched")
            if verdict is not None:
                trace(one.item, "stopped")
        return verdict

    def _ruled(self, plan: Plan, call: Call, seen: Seen) -> Verdict | None:
        access = (call.access if isinstance(call, ToolCall) else None) or plan.access
        try:
            context = None
            if plan.context_of is not None:
                variables = variables_of(plan.needs, call, seen.run, seen.labels)
                context = plan.context_of(variables, plan.functions)
        except ConditionError as error:
            return Verdict(verdict="deny", item=plan.rules[0].item, reason=f"{error}; an error is a denial")

        def finds(source: str, value: str | int | float) -> bool:
            return self._finds(seen, source, value)

        question = Question(call=call, run=seen.run, access=access, context=context, finds=finds)
        found: Verdict | None = None
        for rule in plan.rules:
            verdict = rule.judge(question, seen.trace)
            if verdict is not None:
                found = strictest(found, verdict)
                if verdict.verdict == "deny" and seen.trace is None:
                    break
        return found

    def _finds(self, seen: Seen, source: str, value: str | int | float) -> bool:
        memory = seen.memory
        if source.startswith("list:"):
            return self.lists[source].equals(value)
        if memory is None:
            return False
        with memory.lock:
            if source == "task" and not memory.knows_task:
                memory.sources[source].add(as_json(seen.run.task))
                memory.knows_task = True
            return memory.sources[source].holds(value)

    # What a call leaves behind

    def labels_set(self, plan: Plan, call: Call, seen: Seen, ended: Outcome | None = None) -> list[str]:
        """Return the labels that a call sets.

        Args:
            plan: Of the call.
            call: The call.
            seen: What came before it.
            ended: None for what is set as soon as the call is allowed; how it ended for what its result decides.
                Where it raised nobody knows what it had read, and the label is set.

        Raises:
            ConditionError: A condition failed.
        """
        found: list[str] = []
        for label in plan.labels:
            if label.is_late != (ended is not None):
                continue
            if seen.trace is not None:
                seen.trace(label.item, "asked")
            if label.when is not None and (ended is None or ended.error is None):
                result = None if ended is None else ended.value
                variables = variables_of(label.when.needs, call, seen.run, seen.labels, result)
                if not label.when.holds(label.when.context_of(variables, label.when.functions)):
                    continue
            if seen.trace is not None:
                seen.trace(label.item, "matched")
            found.append(label.item.name)
        return found

    def approvers_of(self, tool: str) -> tuple[str, ...]:
        """Return the roles that may approve a held call."""
        own = [role.item.name for role in self.roles if tool in role.approve]
        return tuple(dict.fromkeys([*self.approvals.approvers, *own]))


def _without_role(roles: Sequence[Role], run: RunView, what: str, trace: Trace | None) -> Verdict | None:
    """Return the denial where the principal has none of the roles that list a tool or an agent."""
    who = run.principal or NOBODY
    has = next((role for role in roles if role.item.name in who.roles), None)
    if trace is not None:
        for role in roles:
            trace(role.item, "asked")
        trace((has or roles[0]).item, "matched")
        if has is None:
            trace(roles[0].item, "stopped")
    if has is not None:
        return None
    names = " or ".join(dict.fromkeys(role.item.name for role in roles))
    whose = f"principal {who.id!r} has not" if run.principal is not None else "nobody has: the run has no principal"
    return Verdict(verdict="deny", item=roles[0].item, reason=f"{what} needs the role {names}, which {whose}")


def _tell(trace: Trace, verdict: Verdict) -> None:
    trace(verdict.item, "asked")
    trace(verdict.item, "matched")
    if verdict.verdict != "allow":
        trace(verdict.item, "stopped")
