"""From documents to a ruleset: names resolved, conditions compiled, contradictions refused at start-up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from oao_harness.policy.globs import Names, is_glob
from oao_harness.policy.lines import Path
from oao_harness.policy.reading import Problems, Source, close_to
from oao_harness.policy.redaction import Redaction
from oao_harness.policy.rules import Rule
from oao_harness.policy.ruleset import Approvals, Label, Role, Ruleset, Sequenced, ToolList
from oao_harness.policy.ruling import Item, Verdict
from oao_harness.policy.schema import PolicyDocument, RedactTable, RuleTable, SequenceTable
from oao_harness.policy.sequence import SequenceRule
from oao_harness.policy.sources import Index

if TYPE_CHECKING:
    from oao_harness.policy.conditions import Condition

__all__ = ["compile_documents"]

_EVERY: Final = Names(["*"])
_INSTALL: Final = "pip install 'oao-harness[policy]'"
_LATE: Final = frozenset({"result", "result_text"})


def compile_documents(files: Sequence[tuple[Source, PolicyDocument]]) -> Ruleset:
    """Return the rules of a policy file and its bases.

    Args:
        files: The file itself first, then what it extends.

    Raises:
        ConfigError: They contradict themselves, or a condition, a pattern or a source is wrong; one line for each.
    """
    # From the last base to the file itself: a list of a base may be used by what extends it.
    made: list[_File] = []
    lists: dict[str, Index] = {}
    for number in reversed(range(len(files))):
        file = _File(*files[number], number, lists)
        file.problems.raise_if_any()
        made.insert(0, file)
    sources = list(
        dict.fromkeys(s for f in made for rule in f.rules for given in rule.values_from.values() for s in given)
    )
    read = [source for source in sources if not source.startswith("list:")]
    tools = [table for file in made for table in file.document.tool]
    return Ruleset(
        allow=tuple(file.allow for file in made if file.allow is not None),
        deny=tuple(file.deny for file in made),
        ask=tuple(file.ask for file in made),
        tools=tuple(tools),
        tool_names=Names([table.name for table in tools]),
        redactions={
            i: found for i, found in enumerate(one for file in made for one in file.redactions) if found is not None
        },
        rules=tuple(rule for file in made for rule in file.rules),
        sequences=tuple(one for file in made for one in file.sequences),
        labels=tuple(one for file in made for one in file.labels),
        roles=tuple(one for file in made for one in file.roles),
        lists=lists,
        approvals=_approvals([file.document for file in made]),
        sources=tuple(read),
        source_names={source: Names([source.removeprefix("tool:")]) for source in read if source != "task"},
    )


def _approvals(documents: Sequence[PolicyDocument]) -> Approvals:
    tables = [document.approvals for document in documents]
    return Approvals(
        approvers=next((tuple(table.approvers) for table in tables if table.approvers), ()),
        needed=max(table.needed for table in tables),
        expires_s=min(table.expires_seconds for table in tables),
    )


class _File:
    """One document, compiled; what is wrong with it is in `problems`."""

    def __init__(self, source: Source, document: PolicyDocument, number: int, lists: dict[str, Index]) -> None:
        self.source = source
        self.document = document
        self.problems = Problems(source)
        self._number = number
        self._lists = lists
        self._unique_names()
        for name, values in document.lists.items():
            if f"list:{name}" in lists:
                self.problems.add(("lists", name), f"list {name!r} is also in a file that this one extends; rename it")
            index = lists[f"list:{name}"] = Index()
            index.add(values)
        self.allow = None if document.tools.allow is None else self._list("allow", document.tools.allow)
        self.deny = self._list("deny", document.tools.deny)
        self.ask = self._list("ask", document.tools.ask)
        self._contradictions()
        self.redactions = [
            None if table.redact is None else self._redactions(("tool", i, "redact"), table.redact)
            for i, table in enumerate(document.tool)
        ]
        self.rules = [self._rule(("rule", i), table) for i, table in enumerate(document.rule)]
        self.sequences = [
            one
            for i, table in enumerate(document.sequence)
            if (one := self._sequence(("sequence", i), table)) is not None
        ]
        self.labels = [
            Label(
                item=self._item("label", table.name, ("label", i)),
                tools=Names(table.tools),
                when=(when := self._condition(("label", i), "when", table.name, table.when, late=True)),
                is_late=when is not None and not _LATE.isdisjoint(when.needs.fields),
            )
            for i, table in enumerate(document.label)
        ]
        self.roles = [
            Role(
                item=self._item("role", table.name, ("role", i)),
                agents=Names(table.agents),
                tools=Names(table.tools),
                approve=Names(table.approve),
                file=number,
            )
            for i, table in enumerate(document.role)
        ]
        self._approvals_possible()

    def _item(self, kind: Literal["rule", "sequence", "label", "role"], name: str, path: Path) -> Item:
        return Item(kind=kind, name=name, rule=name, source=self.source.at(path))

    def _list(self, kind: Literal["allow", "deny", "ask"], patterns: Sequence[str]) -> ToolList:
        def item(name: str, path: Path) -> Item:
            return Item(kind=kind, name=name, rule=f"tools.{kind}", source=self.source.at(path))

        path: Path = ("tools", kind)
        return ToolList(
            names=Names(patterns),
            items=tuple(item(pattern, (*path, i)) for i, pattern in enumerate(patterns)),
            whole=item("", path),
        )

    # Contradictions

    def _unique_names(self) -> None:
        for kind in ("rule", "sequence", "label", "role", "tool"):
            tables: Sequence[RuleTable] = getattr(self.document, kind)
            first: dict[str, int] = {}
            for i, table in enumerate(tables):
                earlier = first.setdefault(table.name, i)
                if earlier != i:
                    at = self.source.line((kind, earlier, "name"))
                    self.problems.add((kind, i, "name"), f"there is another one of this name at line {at}; rename one")

    def _contradictions(self) -> None:
        tools = self.document.tools
        for other in ("allow", "ask"):
            for i, name in enumerate(getattr(tools, other) or []):
                if not is_glob(name) and name in tools.deny:
                    at = self.source.line(("tools", "deny", tools.deny.index(name)))
                    self.problems.add(
                        ("tools", other, i),
                        f"{name!r} is in {other!r} and, at line {at}, in 'deny'; take it out of one",
                    )

    def _approvals_possible(self) -> None:
        table = self.document.approvals
        if len(set(table.approvers)) != len(table.approvers):
            self.problems.add(("approvals", "approvers"), "an approver is named twice; take one out")

    # Parts

    def _condition(self, path: Path, key: str, name: str, text: str | None, *, late: bool = False) -> Condition | None:
        if text is None:
            return None
        try:
            from oao_harness.policy.conditions import Condition  # noqa: PLC0415 - an optional library behind it
        except ModuleNotFoundError:
            self.problems.add((*path, key), f"{key!r} is a condition, and conditions need a library: {_INSTALL}")
            return None
        where = f"{self.source.at((*path, key))}: condition of {path[0]} {name!r}"
        variables = ("args", "call", "run", *(sorted(_LATE) if late else ()))
        try:
            return Condition(text, where, variables)
        except ValueError as error:
            self.problems.add((*path, key), f"{key!r} {error}")
            return None

    def _rule(self, path: Path, table: RuleTable) -> Rule:
        requires = [key for key in ("require", "values_from", "roles") if getattr(table, key)]
        if table.then is not None and requires:
            self.problems.add(
                (*path, "then"), f"'then' and {requires[0]!r} do not go together; write 'otherwise', or two rules"
            )
        if table.then is None and not requires:
            what = "'otherwise' needs a 'require', 'values_from' or 'roles'" if table.otherwise else "nothing happens"
            self.problems.add(path, f'{what}; add then = "deny", "ask" or "allow", or a requirement')
        if table.then is not None and table.otherwise is not None:
            self.problems.add((*path, "otherwise"), "'otherwise' belongs to a requirement, not to 'then'; take it out")
        if table.access is not None and table.models is not None:
            self.problems.add((*path, "access"), "only tools read or write; take out 'access' or 'models'")
        for argument, sources in table.values_from.items():
            for i, source in enumerate(sources):
                self._check_source((*path, "values_from", argument, i), source)
        tools = _EVERY if table.tools is None and table.models is None else None
        item = self._item("rule", table.name, path)
        return Rule(
            item=item,
            tools=tools if table.tools is None else Names(table.tools),
            models=None if table.models is None else Names(table.models),
            access=table.access,
            agents=None if table.agents is None else Names(table.agents),
            when=self._condition(path, "when", table.name, table.when),
            then=table.then,
            require=self._condition(path, "require", table.name, table.require),
            values_from=table.values_from,
            roles=frozenset(table.roles or ()),
            otherwise=table.otherwise or "deny",
            reason=table.reason,
            allowed=Verdict(verdict="allow", item=item, reason=table.reason),
        )

    def _check_source(self, path: Path, source: str) -> None:
        kind, _, name = source.partition(":")
        if source == "task" or (kind == "tool" and name):
            return
        if kind != "list" or not name:
            self.problems.add(path, f"{source!r} is no source; write 'task', 'tool:NAME' or 'list:NAME'")
        elif source not in self._lists:
            known = sorted(found.removeprefix("list:") for found in self._lists)
            self.problems.add(path, f"there is no list {name!r} in [lists]{close_to(name, known)}")

    def _sequence(self, path: Path, table: SequenceTable) -> Sequenced | None:
        forms = (("after", "never"), ("only", "after_success_of"), ("at_most", "of"))
        begun = [pair for pair in forms if any(getattr(table, key) is not None for key in pair)]
        if len(begun) != 1:
            what = "two forms at once" if begun else "no form"
            self.problems.add(
                path, f"{what}; write 'after' and 'never', 'only' and 'after_success_of', or 'at_most' and 'of'"
            )
            return None
        missing = next((key for key in begun[0] if getattr(table, key) is None), None)
        if missing is not None:
            self.problems.add(path, f"{missing!r} is missing; {begun[0][0]!r} and {begun[0][1]!r} belong together")
            return None
        form: Literal["never", "only", "at_most"] = "never" if table.after else "only" if table.only else "at_most"
        rule = SequenceRule(
            name=table.name,
            form=form,
            first=Names(table.after or table.after_success_of or table.of or ()),
            second=Names(table.never or table.only or ()),
            limit=table.at_most or 0,
            reason=table.reason,
        )
        return Sequenced(item=self._item("sequence", table.name, path), rule=rule, then=table.then)

    def _redactions(self, path: Path, tables: Sequence[RedactTable]) -> tuple[Redaction, ...]:
        found: list[Redaction] = []
        for i, table in enumerate(tables):
            at = (*path, i)
            if (table.pattern is None) == (table.field is None):
                self.problems.add(at, "give one of 'pattern' and 'field' in each item of 'redact'")
                continue
            try:
                pattern = None if table.pattern is None else re.compile(table.pattern)
            except (re.error, RecursionError, OverflowError) as error:
                self.problems.add((*at, "pattern"), f"pattern {table.pattern!r} is no regular expression: {error}")
                continue
            if pattern is not None and pattern.search("") is not None:
                self.problems.add((*at, "pattern"), f"pattern {table.pattern!r} matches the empty text; make it longer")
                continue
            found.append(Redaction(pattern=pattern, field=table.field, replacement=table.replacement))
        return tuple(found)
