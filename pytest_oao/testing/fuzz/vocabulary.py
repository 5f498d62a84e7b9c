"""What programs may say: the names and literals of a policy file and of the rules, and what lies just beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from oao_harness.policy.file import FilePolicy
from oao_harness.policy.globs import Names, is_glob
from oao_harness.policy.schema import PolicyDocument
from oao_hookspecs import Json
from pytest_oao.testing.fuzz.rules import FuzzRule

__all__ = ["Vocabulary", "vocabulary_of"]

_ARGUMENT: Final = re.compile(r"\bargs(?:\.(\w+)|\[['\"](\w+)['\"]\])")
_NUMBER: Final = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_STRING: Final = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_MOST_NAMES: Final = 60
_MOST_VALUES: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What is tried."""

    wanted: tuple[str, ...]
    """Tools that the rules are about."""
    others: tuple[str, ...]
    """All other tools."""
    values: Mapping[str, tuple[Json, ...]]
    """By name of an argument: what it may be."""
    arguments: Sequence[tuple[Names, tuple[str, ...]]]
    """Which tools take which arguments."""
    results: tuple[str, ...]
    """Texts that tools return."""
    numbers: tuple[int, ...]
    """Limits on counts that somebody names."""

    def arguments_of(self, tool: str) -> tuple[str, ...]:
        """Return the arguments that are tried with a tool."""
        found = [name for names, given in self.arguments if tool in names or tool.casefold() in names for name in given]
        return tuple(dict.fromkeys(found))


def vocabulary_of(policies: Sequence[object], rules: Sequence[FuzzRule], tools: Sequence[str] = ()) -> Vocabulary:
    """Return what to try.

    Args:
        policies: Those in force, as objects; of a policy file all that it names.
        rules: What must hold.
        tools: The only tools there are; by default those that policies and rules name, or nearly name.
    """
    documents = [one for policy in policies if isinstance(policy, FilePolicy) for one in policy.documents]
    said = [pattern for rule in rules for pattern in rule.tools]
    patterns = [pattern for document in documents for pattern in _patterns(document)]
    wanted_names = Names([pattern.casefold() for pattern in said])
    if tools:
        names = list(tools)
    else:
        # Plain names first: what is found is shown as the first that does it.
        exact = [one for one in (*said, *patterns) if not is_glob(one)]
        near = [form for one in said for name in _instances(one) for form in (name, name.capitalize(), name.upper())]
        made = [name for one in (*said, *patterns) for name in _instances(one)]
        names = [*exact, *made, *near] or ["tool"]
    names = list(dict.fromkeys(names))[:_MOST_NAMES]
    wanted = tuple(name for name in names if name.casefold() in wanted_names)
    conditions = [*_conditions(documents), *((rule.tools, rule.arguments) for rule in rules)]
    values: dict[str, list[Json]] = {}
    for _, arguments in conditions:
        for argument, text in arguments.items():
            values.setdefault(argument, []).extend(_values(text))
    listed: list[Json] = [value for document in documents for some in document.lists.values() for value in some]
    for found in values.values():
        found += [*listed, "x"]
    late = [label.when for document in documents for label in document.label if label.when]
    return Vocabulary(
        wanted=wanted,
        others=tuple(name for name in names if name not in wanted),
        values={argument: _unique(found) for argument, found in values.items()},
        arguments=[(Names([*some, *(one.casefold() for one in some)]), tuple(given)) for some, given in conditions],
        results=tuple(dict.fromkeys(text for one in late for text in _strings(one))),
        numbers=tuple(sorted({n for document in documents for n in _limits(document)} | {rule.most for rule in rules})),
    )


def _patterns(document: PolicyDocument) -> Iterator[str]:
    yield from (*document.tools.deny, *document.tools.ask, *(document.tools.allow or ()))
    yield from (tool.name for tool in document.tool)
    for rule in document.rule:
        yield from rule.tools or ()
    for one in document.sequence:
        for names in (one.after, one.never, one.only, one.after_success_of, one.of):
            yield from names or ()
    for label in document.label:
        yield from label.tools
    for role in document.role:
        yield from role.tools


def _limits(document: PolicyDocument) -> Iterator[int]:
    limits = document.limits
    yield from (n for n in (limits.max_tokens, limits.max_output_tokens, limits.assumed_output_tokens) if n)


def _instances(pattern: str) -> Iterator[str]:
    """Yield names that a glob selects, from the plainest."""
    if not is_glob(pattern):
        yield pattern
        return
    for filling in ("", "x", "_x"):
        name = pattern.replace("*", filling).replace("?", "x")
        name = re.sub(r"\[!.[^\]]*\]", "z", name)
        name = re.sub(r"\[(.)[^\]]*\]", r"\1", name)
        # `send_*` beside `send`: what a glob just misses.
        for near in (name, name.rstrip("_.-"), name.lstrip("_.-")):
            if near:
                yield near


def _conditions(documents: Iterable[PolicyDocument]) -> Iterator[tuple[Sequence[str], Mapping[str, str]]]:
    for document in documents:
        for rule in document.rule:
            found: dict[str, str] = {}
            for text in (rule.when, rule.require):
                for match in _ARGUMENT.finditer(text or ""):
                    found[match[1] or match[2]] = text or ""
            for path in rule.values_from:
                found.setdefault(path.partition(".")[0], "")
            if found:
                yield rule.tools or ["*"], found


def _values(text: str) -> Iterator[Json]:
    for found in _NUMBER.findall(text):
        number: int | float = float(found) if "." in found else int(found)
        yield from (number, number - 1, number + 1, number // 2 + 1, 1, 0, -1, number * 10, str(number), number + 0.5)
    for one in _strings(text):
        yield from (one, one.upper(), one.capitalize(), f" {one}", f"{one}x", f"x{one}", f"{one}/../x", "")


def _strings(text: str) -> Iterator[str]:
    yield from (a or b for a, b in _STRING.findall(text) if a or b)


def _unique(values: Iterable[Json]) -> tuple[Json, ...]:
    return tuple({(type(value), str(value)): value for value in values}.values())[:_MOST_VALUES]
