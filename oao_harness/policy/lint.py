"""What is suspicious in a valid policy file: dead rules, unknown names, conditions that can fail. Runs no tool."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from oao_harness.policy.facts import RUN_FIELDS
from oao_harness.policy.file import FilePolicy
from oao_harness.policy.globs import Names, is_glob
from oao_harness.policy.lines import Path
from oao_harness.policy.reading import Source, close_to
from oao_harness.policy.ruling import ConditionError
from oao_harness.policy.schema import PolicyDocument, RuleTable

if TYPE_CHECKING:
    from oao_harness.policy.conditions import Condition

__all__ = ["Finding", "lint"]

_SAMPLES: Final[tuple[Any, ...]] = (1, 1.5, "a", True, ["a"], {"a": 1})
_MOST_PROBES: Final = 2000
_NESTED: Final = re.compile(r"\((?:[^()\\]|\\.)*[+*](?:[^()\\]|\\.)*\)[+*{]")
_LOOP: Final = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(")
_PAIRS: Final = (
    ("max_model_calls", "max_steps"), ("max_tool_calls", "max_steps"), ("max_input_tokens", "max_tokens"),
    ("max_output_tokens", "max_tokens"), ("call_timeout_seconds", "timeout_seconds"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One suspicious thing."""

    level: Literal["error", "warning"]
    line: int
    source: str
    """`file:line`."""
    where: str
    """Which table, for example `[[rule]] 'small'`; may be empty."""
    message: str


def lint(policy: FilePolicy, tools: Sequence[str] | None = None) -> list[Finding]:
    """Return what is suspicious in a policy's own file, in its order.

    Args:
        policy: A policy that could be loaded.
        tools: Names of the tools that there are; None where nobody knows them.
    """
    found = _Lint(policy, tools)
    found.run()
    return sorted(dict.fromkeys(found.findings), key=lambda one: one.line)


class _Lint:
    def __init__(self, policy: FilePolicy, tools: Sequence[str] | None) -> None:
        self.findings: list[Finding] = []
        self._policy = policy
        self._tools = tools
        self._source: Source = policy.source
        self._document: PolicyDocument = policy.document

    def run(self) -> None:
        self._lists()
        self._tables()
        self._shadowed()
        self._roles()
        self._limits()
        self._unused()
        self._conditions()
        self._patterns()

    def _add(self, level: Literal["error", "warning"], path: Path, message: str) -> None:
        where = ""
        if len(path) > 1 and isinstance(path[1], int):
            where = f"[[{path[0]}]] {getattr(self._document, str(path[0]))[path[1]].name!r}"
        elif len(path) > 1:
            where = f"[{path[0]}]"
        source = self._source
        self.findings.append(
            Finding(level=level, line=source.line(path), source=source.at(path), where=where, message=message)
        )

    # Names

    def _lists(self) -> None:
        tools = self._document.tools
        for kind in ("allow", "deny", "ask"):
            patterns: Sequence[str] = getattr(tools, kind) or ()
            for i, pattern in enumerate(patterns):
                path: Path = ("tools", kind, i)
                if pattern in patterns[:i]:
                    self._add("warning", path, f"{pattern!r} is listed twice; take one out")
                self._known(path, pattern)
                if kind == "allow" and not is_glob(pattern) and pattern in Names(tools.deny):
                    self._add("error", path, f"{pattern!r} can never be allowed: a glob in 'deny' selects it")
                elif kind == "allow" and pattern in tools.ask:
                    self._add("warning", path, f"{pattern!r} is also in 'ask', which is stronger; take it out here")
        if tools.allow == [] and not tools.ask:
            self._add("warning", ("tools", "allow"), "it is empty, so every tool is denied")

    def _known(self, path: Path, pattern: str) -> None:
        """Note a name that is no tool's, or a glob that selects none."""
        if self._tools is None or any(tool in Names([pattern]) for tool in self._tools):
            return
        if is_glob(pattern):
            self._add("warning", path, f"{pattern!r} selects none of the tools")
        else:
            self._add("error", path, f"there is no tool {pattern!r}{close_to(pattern, sorted(self._tools))}")

    def _reachable(self, path: Path, patterns: Sequence[str], what: str) -> None:
        """Note names whose calls the lists of [tools] deny anyway."""
        dead: list[str] = []
        for i, pattern in enumerate(patterns):
            self._known((*path, i), pattern)
            candidates = [pattern] if not is_glob(pattern) else [t for t in self._tools or () if t in Names([pattern])]
            if candidates and all(self._is_denied(tool) for tool in candidates):
                dead.append(pattern)
        if dead and len(dead) == len(patterns):
            self._add("error", path[:2], f"{what} can never match: [tools] denies {', '.join(dead)} anyway")
        elif dead:
            self._add("warning", path, f"[tools] denies {', '.join(dead)} anyway; take it out here or allow it there")

    def _is_denied(self, tool: str) -> bool:
        listed = self._policy.rules.listed(tool)
        return listed is not None and listed.verdict == "deny"

    def _tables(self) -> None:
        for i, rule in enumerate(self._document.rule):
            if rule.tools is not None:
                self._reachable(("rule", i, "tools"), rule.tools, "the rule")
            for argument, sources in rule.values_from.items():
                for j, source in enumerate(sources):
                    if source.startswith("tool:"):
                        self._known(("rule", i, "values_from", argument, j), source.removeprefix("tool:"))
        for i, sequence in enumerate(self._document.sequence):
            for key in ("after", "never", "only", "after_success_of", "of"):
                patterns = getattr(sequence, key)
                if patterns is not None:
                    self._reachable(("sequence", i, key), patterns, "the sequence")
        for i, label in enumerate(self._document.label):
            self._reachable(("label", i, "tools"), label.tools, "the label")
        for i, tool in enumerate(self._document.tool):
            self._known(("tool", i, "name"), tool.name)
        for i, role in enumerate(self._document.role):
            for j, pattern in enumerate(role.tools):
                self._known(("role", i, "tools", j), pattern)

    def _shadowed(self) -> None:
        """Note a rule behind one that denies the same calls without a condition."""
        rules = self._document.rule
        for i, rule in enumerate(rules):
            for j, other in enumerate(rules):
                if i != j and _denies_always(other) and _covers(other, rule) and not (_denies_always(rule) and i < j):
                    at = self._source.line(("rule", j))
                    self._add("error", ("rule", i), f"it can never matter: {other.name!r} at line {at} denies it all")
                    break

    def _roles(self) -> None:
        document = self._document
        defined = [role.name for role in document.role]
        named = {role for rule in document.rule for role in rule.roles or ()} | set(document.approvals.approvers)
        for i, role in enumerate(document.role):
            if not (role.agents or role.tools or role.approve) and role.name not in named:
                self._add("warning", ("role", i), "nothing uses it; give it agents, tools or approve, or take it out")
        if not defined:
            return
        for i, rule in enumerate(document.rule):
            for j, name in enumerate(rule.roles or ()):
                if name not in defined:
                    self._add("warning", ("rule", i, "roles", j), f"no [[role]] is {name!r}{close_to(name, defined)}")
        for i, name in enumerate(document.approvals.approvers):
            if name not in defined:
                self._add("warning", ("approvals", "approvers", i), f"no [[role]] is {name!r}{close_to(name, defined)}")

    # Numbers

    def _limits(self) -> None:
        table = self._document.limits
        for smaller, larger in _PAIRS:
            one, other = getattr(table, smaller), getattr(table, larger)
            if one is not None and other is not None and one > other:
                self._add(
                    "warning", ("limits", smaller), f"{smaller} = {one:g} is never reached: {larger} is {other:g}"
                )
        total = table.max_tool_calls
        for i, tool in enumerate(self._document.tool):
            if tool.max_calls is not None and total is not None and tool.max_calls > total:
                self._add(
                    "warning", ("tool", i, "max_calls"),
                    f"max_calls = {tool.max_calls} is never reached: max_tool_calls is {total}",
                )  # fmt: skip
        if table.unknown_price is not None and table.max_cost_usd is None:
            self._add("warning", ("limits", "unknown_price"), "it has no use without max_cost_usd")
        for key in ("max_steps", "max_model_calls", "max_tool_calls", "max_tokens"):
            if getattr(table, key) == 0:
                self._add("warning", ("limits", key), f"{key} is 0: the first call is denied")

    def _unused(self) -> None:
        rules = self._document.rule
        used = {source for rule in rules for given in rule.values_from.values() for source in given}
        for name in self._document.lists:
            if f"list:{name}" not in used:
                self._add("warning", ("lists", name), f"no rule uses the list {name!r}")
        conditions = " ".join(filter(None, [text for rule in rules for text in (rule.when, rule.require)]))
        for i, label in enumerate(self._document.label):
            if f"'{label.name}'" not in conditions and f'"{label.name}"' not in conditions:
                self._add("warning", ("label", i), f"no condition asks for it; write '{label.name}' in run.labels")

    # Conditions

    def _conditions(self) -> None:
        own = {one.item.source: one for one in self._policy.rules.rules}
        for i, table in enumerate(self._document.rule):
            rule = own.get(self._source.at(("rule", i)))
            for key, text in (("when", table.when), ("require", table.require)):
                condition = getattr(rule, key, None)
                if text is not None and condition is not None:
                    self._probe(("rule", i, key), condition)
        labels = {one.item.source: one for one in self._policy.rules.labels}
        for i in range(len(self._document.label)):
            label = labels.get(self._source.at(("label", i)))
            if label is not None and label.when is not None:
                self._probe(("label", i, "when"), label.when)

    def _probe(self, path: Path, condition: Condition) -> None:
        """Evaluate a condition with each argument it reads missing or null, beside values with which it works."""
        if _has_nested_loops(condition.text):
            self._add(
                "warning", path,
                "looks at each item for each item, and a model chooses how many there are: bound them with size()",
            )  # fmt: skip
        fields = sorted(condition.needs.fields.get("args") or ())
        if not fields:
            return
        for field in fields:
            bad: list[str] = []
            if _fails_without(condition, fields, field, missing=True):
                bad.append("missing")
            if _fails_without(condition, fields, field, missing=False):
                bad.append("null")
            if bad:
                # Where it is missing, has() is the guard; null needs a comparison.
                guard = f"has(args.{field})" if "missing" in bad else f"args.{field} != null"
                self._add(
                    "warning", path,
                    f"can fail when {field!r} is {' or '.join(bad)}, and an error is a denial: guard it with {guard}",
                )  # fmt: skip

    def _patterns(self) -> None:
        for i, tool in enumerate(self._document.tool):
            for j, one in enumerate(tool.redact or ()):
                if one.pattern is not None and _NESTED.search(one.pattern):
                    self._add(
                        "warning", ("tool", i, "redact", j),
                        f"pattern {one.pattern!r} repeats a repetition, which can take for ever; write it flat",
                    )  # fmt: skip


def _has_nested_loops(text: str) -> bool:
    """Return True where one `all`, `exists`, `map` or `filter` stands inside of another."""
    for found in _LOOP.finditer(text):
        depth, inside = 1, found.end()
        while depth and inside < len(text):
            depth += {"(": 1, ")": -1}.get(text[inside], 0)
            inside += 1
        if _LOOP.search(text, found.end(), inside):
            return True
    return False


def _denies_always(rule: RuleTable) -> bool:
    return rule.then == "deny" and rule.when is None and rule.agents is None and rule.access is None


def _covers(wide: RuleTable, narrow: RuleTable) -> bool:
    """Return True where every call that one rule is about is one that the other is about."""
    for own, other in ((wide.tools, narrow.tools), (wide.models, narrow.models)):
        if other is not None and (
            own is None or not all(p in own or (not is_glob(p) and p in Names(own)) for p in other)
        ):
            return wide.tools is None and wide.models is None and narrow.models is None
    if narrow.tools is None and narrow.models is None:
        return wide.tools is None and wide.models is None
    return True


def _fails_without(condition: Condition, fields: Sequence[str], field: str, *, missing: bool) -> bool:
    """Return True where a condition that works with some values fails once one of them is missing or null."""
    for values in itertools.islice(itertools.product(_SAMPLES, repeat=len(fields)), _MOST_PROBES):
        args = dict(zip(fields, values, strict=True))
        if not _works(condition, args):
            continue
        args.pop(field)
        if not missing:
            args[field] = None
        if not _works(condition, args):
            return True
    return False


def _works(condition: Condition, args: Mapping[str, Any]) -> bool:
    try:
        condition.holds(condition.context_of(dict(_variables(args)), condition.functions))
    except ConditionError:
        return False
    return True


def _variables(args: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    run: dict[str, Any] = dict.fromkeys(RUN_FIELDS, 0)
    run |= {"agent": "a", "task": "a", "labels": [], "tool_usage": {}, "cost_usd": 0.0}
    run["principal"] = {"id": "", "roles": [], "tenant": ""}
    yield "args", dict(args)
    yield "run", run
    yield "call", dict.fromkeys(("name", "kind", "model", "effect", "access", "scope", "call_id"), "")
    yield "result", "a"
    yield "result_text", "a"
