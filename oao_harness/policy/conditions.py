"""Conditions in CEL: compiled once, judged often. An error, or an answer that is neither true nor false, is no answer.

Regular expressions in `matches()` are those of Rust: linear in the text, without backtracking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from oao_harness.policy.cel_library import STDLIB_FUNCTIONS, cel
from oao_harness.policy.facts import CALL_FIELDS, RUN_FIELDS, VARIABLES, Needs
from oao_harness.policy.reading import close_to
from oao_harness.policy.ruling import ConditionError

__all__ = ["Condition"]

_MOST_CHARACTERS: Final = 10_000
# Source: the CEL specification, as far as the library implements it; a test calls each of them.
_NATIVE: Final = frozenset({
    "size", "contains", "startsWith", "endsWith", "matches", "int", "uint", "double", "string", "bytes", "timestamp",
    "duration", "type", "dyn", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds",
})  # fmt: skip
_TYPES: Final = frozenset({"int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type", "type"})
_NAMESPACES: Final = frozenset(name.partition(".")[0] for name in STDLIB_FUNCTIONS if "." in name)
_FUNCTIONS: Final[Mapping[str, Any]] = {name: made for name, made in STDLIB_FUNCTIONS.items() if name != "bool"}

_STRING: Final = re.compile(r"""[rRbB]{0,2}(?:'{3}.*?'{3}|"{3}.*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")""", re.S)
_COMMENT: Final = re.compile(r"//[^\n]*")
_BOUND: Final = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*(\w+)\s*,")
_FIELD: Final = re.compile(
    r"(?<![\w.])({})\b\s*(?:\.\s*(\w+)\b(?!\s*\()|\[\s*'(\w*)'\s*\])?".format("|".join(VARIABLES))
)


class Condition:
    """One compiled expression.

    Args:
        text: CEL.
        where: What messages call it: `file:line: condition of rule 'x'`.
        variables: Names of the variables that there are.

    Raises:
        ValueError: It is no CEL, or reads what there is not; the message says what to do.
    """

    __slots__ = ("_program", "functions", "needs", "text", "where")

    def __init__(self, text: str, where: str, variables: Sequence[str] = ("args", "call", "run")) -> None:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"is longer than {_MOST_CHARACTERS:,} characters; split the rule")
        self.text = text
        self.where = where
        try:
            self._program = cel.compile(text)
        except Exception as error:
            raise ValueError(f"is no CEL: {_syntax_error(str(error))}") from error
        # What is inside of quotes is no code; positions do not matter any more.
        bare = _COMMENT.sub(" ", _STRING.sub(_keep_keys, text))
        references = self._program.references()
        self._check(bare, references, variables)
        self.needs = Needs(fields=_fields_of(bare, references["variables"]))
        self.functions = {
            name: made for name, made in _FUNCTIONS.items() if re.search(rf"(?<!\w){re.escape(name)}\s*\(", bare)
        }

    def _check(self, bare: str, references: Mapping[str, Sequence[str]], variables: Sequence[str]) -> None:
        bound = set(_BOUND.findall(bare))
        for name in references["variables"]:
            if name not in variables and name not in bound and name not in _TYPES | _NAMESPACES:
                late = "; it is only there in the `when` of a [[label]]" if name in VARIABLES else ""
                raise ValueError(f"reads {name!r}, which is no variable{late or close_to(name, variables)}")
        flat = {name.rpartition(".")[2] for name in _FUNCTIONS}
        for name in references["functions"]:
            if name.isidentifier() and not name.startswith("_") and name not in _NATIVE | flat:
                raise ValueError(f"calls {name}(), which is no function{close_to(name, sorted(_NATIVE | flat))}")
        for name, known in (("run", RUN_FIELDS), ("call", CALL_FIELDS)):
            if name in references["variables"] and name not in bound:
                for field in re.findall(rf"(?<![\w.]){name}\s*\.\s*(\w+)", bare):
                    if field not in known:
                        raise ValueError(f"reads {name}.{field}, which is no field{close_to(field, known)}")

    def holds(self, context: cel.Context | None) -> bool:
        """Return the answer.

        Args:
            context: From `context_of`, with at least what this condition needs.

        Raises:
            ConditionError: It failed, or answered something else than true or false; the message says which.
        """
        try:
            answer: object = self._program.execute(context)
        except Exception as error:
            raise ConditionError(f"{self.where} failed: {_said(error)}") from error
        if answer is True or answer is False:
            return answer
        raise ConditionError(f"{self.where} failed: it answered {answer!r:.80}, neither true nor false")

    @staticmethod
    def context_of(variables: Mapping[str, Any], functions: Mapping[str, Any]) -> cel.Context:
        """Return what conditions are judged in; one for all conditions about a call, because making it is what costs.

        Args:
            variables: From `variables_of`.
            functions: From the conditions.

        Raises:
            ConditionError: A value has no form in CEL, for example half of a surrogate pair.
        """
        try:
            context = cel.Context(variables=cast("dict[str, Any]", variables))
            for name, made in functions.items():
                context.add_function(name, made)
        except Exception as error:
            raise ConditionError(f"the values cannot be judged: {_said(error)}") from error
        return context


def _keep_keys(found: re.Match[str]) -> str:
    """Leave `args['name']` readable, and take out every other text."""
    key = found[0][1:-1]
    before = found.string[: found.start()].rstrip()
    return f"'{key}'" if before.endswith("[") and key.isidentifier() else "''"


def _fields_of(bare: str, variables: Sequence[str]) -> dict[str, frozenset[str] | None]:
    fields: dict[str, frozenset[str] | None] = {}
    for name, dotted, indexed in _FIELD.findall(bare):
        if name not in variables:
            continue
        field = dotted or indexed
        known = fields.get(name, frozenset())
        whole = not field or name.startswith("result") or known is None
        fields[name] = None if whole else cast("frozenset[str]", known) | {field}
    # What the pattern did not see is read whole.
    fields.update({name: None for name in variables if name in VARIABLES and name not in fields})
    return fields


def _syntax_error(message: str) -> str:
    """Return the library's message without what it repeats: the first error, the line, the caret."""
    lines = message.partition("ERROR: <input>:")[2].splitlines()
    if not lines:
        return message
    where, _, what = lines[0].partition(": ")
    what = what.removeprefix("Syntax error: ").partition(" expecting {")[0]
    drawn = [f"  {line.removeprefix('| ')}" for line in lines[1:3]]
    drawn[1:] = [line.replace(".", " ") for line in drawn[1:]]
    return "\n".join([f"{what} at column {where.rpartition(':')[2]}", *drawn])


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no such key {error.args[0] if error.args else ''!r}"
    first = str(error).partition(". ")[0].partition("\n")[0]
    if first.startswith("No such overload"):
        return "its values are of types that do not go together (a missing or null value, or a text for a number)"
    return first
