"""Models that follow a script: what they answer, that they pass the gate, and what they say when the script is over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oao_harness
import pytest_oao.session  # noqa: F401 - loaded before pytester takes its picture of sys.modules
from oao_harness import Orchestrator
from pytest_oao.testing import (
    ErrorReply,
    ScriptedError,
    ScriptedModel,
    ScriptEndedError,
    TextReply,
    ToolCall,
    ToolCallReply,
)

ASKS = ToolCallReply(
    calls=(ToolCall(name="lookup", arguments={"id": "1"}), ToolCall(name="lookup", arguments='{"id": "2"}')), text="so:"
)
USER = [{"role": "user", "content": "order 123"}]


def test_each_call_gets_the_next_reply() -> None:
    """Text, tools with numbered ids, usage: the message of an assistant, ready to be sent again."""
    model = ScriptedModel([ASKS, TextReply(text="done", input_tokens=7, output_tokens=2)], name="gpt-x")

    first, second = model(USER), model([*USER, {"role": "tool", "content": "49.99"}], tools=[{"name": "lookup"}])

    assert first == {
        "role": "assistant",
        "content": "so:",
        "tool_calls": [
            {"id": "call_1_1", "name": "lookup", "arguments": {"id": "1"}},
            {"id": "call_1_2", "name": "lookup", "arguments": {"id": "2"}},
        ],
        "usage": {"input_tokens": 10, "output_tokens": 5},
    }
    assert (second["content"], second["tool_calls"]) == ("done", [])
    assert second["usage"] == {"input_tokens": 7, "output_tokens": 2}
    assert model.requests == [USER, [*USER, {"role": "tool", "content": "49.99"}]]
    assert model.left == 0


async def test_it_answers_alike_in_every_way_of_calling_it() -> None:
    """Sync, async, in words, in words async: the words are the text, the last chunk holds the rest."""
    text = " two  words\n"
    model = ScriptedModel([text] * 4)

    whole, awaited = model("hi"), await model.acall("hi")
    chunks, later = list(model.stream("hi")), [chunk async for chunk in model.astream("hi")]

    assert whole == awaited
    assert chunks == later
    assert "".join(chunk["content"] for chunk in chunks) == whole["content"] == text
    assert len(chunks) == 3
    assert chunks[-1] == {**whole, "content": ""}


def test_errors_are_raised_and_use_up_a_reply() -> None:
    """An API's refusal with its status, any exception as it is, one made by a function too."""
    replies = [
        ErrorReply(status=429, message="slow down"),
        TimeoutError("too slow"),
        lambda _messages: ConnectionError("gone"),
        "ok",
    ]
    model = ScriptedModel(replies)

    with pytest.raises(ScriptedError, match="429: slow down") as refused:
        model("hi")
    assert (refused.value.status_code, refused.value.reply) == (429, replies[0])
    with pytest.raises(TimeoutError, match="too slow"):
        model("hi")
    with pytest.raises(ConnectionError, match="gone"):
        model("hi")
    assert model("hi")["content"] == "ok"


def test_a_function_answers_by_the_conversation() -> None:
    """For all calls, or in the place of one reply."""

    def answer(messages: Any) -> str:
        return f"you said {messages[-1]['content']}"

    assert ScriptedModel(answer)(USER)["content"] == "you said order 123"
    model = ScriptedModel(["first", answer])
    assert [model(USER)["content"] for _ in range(2)] == ["first", "you said order 123"]


@pytest.mark.parametrize(
    ("replies", "words"),
    [
        ([], "request 1 came, but 0 replies were scripted; it asks user: 'order 123'"),
        (["a"], "request 2 came, but 1 reply was scripted; it asks user: 'order 123'"),
    ],
)
def test_it_says_that_the_script_is_over(replies: list[str], words: str) -> None:
    """How many replies there were, and what was asked."""
    model = ScriptedModel(replies, name="gpt-x")
    for _ in replies:
        model(USER)
    with pytest.raises(ScriptEndedError) as over:
        model(USER)
    assert str(over.value) == f"the script of model 'gpt-x' is over: {words}"


def test_a_long_question_is_shortened_where_the_script_is_over() -> None:
    """Never a whole prompt in a message."""
    with pytest.raises(ScriptEndedError) as over:
        ScriptedModel([])("x" * 10_000)
    assert len(str(over.value)) < 250


@pytest.mark.parametrize("wrong", ["hello", [3], [None], [ValueError]])
def test_a_wrong_script_is_refused_at_once(wrong: Any) -> None:
    """Where it is written, not where it is played."""
    with pytest.raises(TypeError, match=r"is not a reply|give a list of replies"):
        ScriptedModel(wrong)


def test_a_function_that_returns_no_reply_is_refused() -> None:
    """With what it returned."""
    with pytest.raises(TypeError, match="42 is not a reply"):
        ScriptedModel(lambda _messages: 42)("hi")  # type: ignore[arg-type,return-value]


def test_it_passes_the_gate_once() -> None:
    """Counted with the scripted tokens, visible to the function adapter, and never wrapped twice."""
    model = ScriptedModel([ASKS, "done"], name="gpt-x")
    assert oao_harness.model(model) is model

    def agent(task: str) -> str:
        model(task)
        return model(task)["content"]

    report = Orchestrator(policy="strict").run(agent, "go")

    assert report.status == "SUCCESS", report.error
    assert report.final_output == "done"
    assert (report.total_steps, report.total_tokens) == (2, 30)


def test_a_policy_judges_the_tools_that_it_asks_for() -> None:
    """The batch of a scripted answer is refused before any of its tools could start."""
    model = ScriptedModel([ASKS])

    report = Orchestrator(policy=oao_harness.ToolPolicy(deny=["lookup"])).run(lambda task: model(task), "go")

    assert report.status == "FAILED"
    assert "lookup" in str(report.error)


SESSION = """
def test_it(oao_scripted):
    model = oao_scripted(["hello"], name="gpt-x")
    assert model("hi")["content"] == "hello"
    print("ASKED", len(model.requests))
"""


def test_it_is_recorded_and_replayed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the fixture `oao_scripted`; in replay the script is not asked."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(SESSION)
    options = ("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-s")

    recorded = pytester.runpytest_inprocess(*options, "--oao-record=once")
    replayed = pytester.runpytest_inprocess(*options, "--oao-policy=strict")

    recorded.assert_outcomes(passed=1)
    recorded.stdout.fnmatch_lines(["*ASKED 1*"])
    replayed.assert_outcomes(passed=1)
    replayed.stdout.fnmatch_lines(["*ASKED 0*"])


def test_it_needs_no_framework() -> None:
    """Nor does the OpenAI server that shares its replies."""
    code = (
        "import sys; from pytest_oao.testing import ScriptedModel; ScriptedModel(['a'])('hi'); "
        "print(*(name for name in ('langchain_core', 'openai', 'httpx', 'pytest') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(oao_harness.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == []
