"""Conditions: what they may call, what they read, and that whatever goes wrong is no answer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oao_harness.policy.conditions import _NATIVE, Condition
from oao_harness.policy.ruling import ConditionError

CALLS = {
    "size": "size('ab') == 2", "contains": "'ab'.contains('a')", "startsWith": "'ab'.startsWith('a')",
    "endsWith": "'ab'.endsWith('b')", "matches": "'ab'.matches('a.')", "int": "int('3') == 3", "uint": "uint(3) == 3u",
    "double": "double(3) == 3.0", "string": "string(3) == '3'", "bytes": "size(bytes('ab')) == 2",
    "timestamp": "timestamp('2026-01-02T03:04:05Z') < timestamp('2027-01-02T03:04:05Z')",
    "duration": "duration('1h') > duration('1m')", "type": "type(1) == int", "dyn": "dyn(1) == 1",
} | {
    name: f"timestamp('2026-01-02T03:04:05Z').{name}() == {value}"
    for name, value in {
        "getFullYear": 2026, "getMonth": 0, "getDate": 2, "getDayOfMonth": 1, "getDayOfWeek": 5, "getDayOfYear": 1,
        "getHours": 3, "getMinutes": 4, "getSeconds": 5, "getMilliseconds": 0,
    }.items()
}  # fmt: skip


def answer(text: str, **variables: Any) -> bool:
    condition = Condition(text, "here", ("args", "call", "run", "result", "result_text"))
    return condition.holds(condition.context_of(variables, condition.functions))


@pytest.mark.parametrize("name", sorted(_NATIVE))
def test_every_function_that_is_let_through_exists(name: str) -> None:
    """What the check at the start accepts is there when it is called."""
    assert answer(CALLS[name]) is True


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("args.a > 1 && args['b'] == 2 && has(args.c.d)", {"args": {"a", "b", "c"}}),
        ("args.exists(k, k == 'x')", {"args": None}),
        ("size(args) > 1 && args.a", {"args": None}),
        ("args['a b'] == 1", {"args": None}),
        ("'args.x' == \"run.steps\" // call.name", {}),
        ("run.steps > 1 || 'l' in run.labels", {"run": {"steps", "labels"}}),
        ("run.principal.roles.exists(r, r == call.name)", {"run": {"principal"}, "call": {"name"}}),
        ("result.x == 1 && result_text == ''", {"result": None, "result_text": None}),
        ("[1].exists(args, args == 1)", {"args": None}),
    ],
)
def test_only_what_is_read_is_converted(text: str, needs: dict[str, set[str] | None]) -> None:
    """Converting the values costs more than judging them."""
    condition = Condition(text, "here", ("args", "call", "run", "result", "result_text"))

    assert {name: wanted and set(wanted) for name, wanted in condition.needs.fields.items()} == needs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("args.x", "here failed: it answered 3, neither true nor false"),
        ("args.y == 1", "here failed: no such key 'y'"),
        ("args.x == 1 && args.x / 0 == 1 || args.x / 0 == 1", "here failed: division by zero"),
        ("args.x < 'a'", "here failed: its values are of types that do not go together"),
        ("[1][args.x] == 1", "here failed: index out of bounds: 3"),
        ("'a'.matches('(')", "here failed: Function 'matches' error"),
        ("'a,b'.split(',')[5] == 'a'", "here failed: index out of bounds: 5"),
        ("'a'.charAt(99) == 'a'", "here failed: "),
    ],
)
def test_what_fails_is_no_answer(text: str, said: str) -> None:
    """One error class, one line, that begins with where."""
    with pytest.raises(ConditionError, match="^" + said.replace("(", r"\(")) as error:
        answer(text, args={"x": 3})
    assert "\n" not in str(error.value)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
TEXTS = st.sampled_from([
    "args.a > 1", "has(args.a) && args.a == 'x'", "args.a.b.c == 1", "args.exists(k, args[k] == 1)", "size(args.a) > 1",
    "args.a in args.b", "!args.a", "args.a.matches(args.b)", "args.a + args.b > 1", "args.a[0] == 1",
    "args.a.split(',')[0] == 'x'",
])  # fmt: skip


@settings(deadline=None)
@given(TEXTS, st.dictionaries(st.sampled_from(["a", "b"]), JSON))
def test_any_arguments_give_true_false_or_an_error_of_ours(text: str, args: dict[str, Any]) -> None:
    """Nothing else comes out, whatever a model makes up."""
    try:
        assert answer(text, args=args) in {True, False}
    except ConditionError:
        pass


def test_the_library_comes_without_its_terminal_and_can_still_be_used_whole() -> None:
    """Its command line is not loaded with it, and is itself when somebody imports it."""
    code = (
        "import sys, oao_harness.policy.conditions; assert 'prompt_toolkit' not in sys.modules\n"
        "import cel.cli; assert cel.cli.app and 'prompt_toolkit' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_deep_argument_does_not_break_the_process() -> None:
    """As deep as the gate itself can freeze."""
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    assert answer("size(args.x) == 1", args={"x": deep})
