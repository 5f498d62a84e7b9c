"""Limits that stop a call before it happens: tokens in and out, money, calls by tool, wall time of one call."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from oao_harness import FilePolicy, Orchestrator, model, tool
from oao_hookspecs import Json, Limits, ModelCall, Price, RunView, ToolCall, ToolTraits, hookimpl

SENT: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    SENT.clear()


class Limited:
    """Nothing but limits, and a price where one is given."""

    name = "limited"

    def __init__(self, price: object = None, **limits: Any) -> None:
        self.limits = Limits(**limits)
        self.price = price

    @hookimpl
    def oao_limits(self, run: RunView) -> Limits:
        return self.limits

    @hookimpl
    def oao_price(self, call: ModelCall) -> Any:
        return self.price


def answers(tokens_in: int, tokens_out: int) -> Any:
    @model(name="some-model")
    def think(prompt: str, max_tokens: int | None = None) -> dict[str, Json]:
        SENT.append(prompt)
        return {"text": "x", "usage": {"input_tokens": tokens_in, "output_tokens": tokens_out}}

    return think


def ask(think: Any, times: int, **kwargs: Any) -> Any:
    def agent(task: str) -> int:
        for _ in range(times):
            think("abcd", **kwargs)
        return times

    return agent


@pytest.mark.parametrize(
    ("limits", "kwargs", "sent", "rule"),
    [
        ({"max_input_tokens": 25}, {}, 3, "max_input_tokens"),
        ({"max_output_tokens": 10}, {}, 3, "max_output_tokens"),
        ({"max_output_tokens": 10}, {"max_tokens": 11}, 0, "max_output_tokens"),
        ({"max_output_tokens": 12}, {"max_tokens": 5}, 2, "max_output_tokens"),
        ({"max_output_tokens": 7, "assumed_output_tokens": 8}, {}, 0, "max_output_tokens"),
        ({"max_tokens": 40, "assumed_output_tokens": 8}, {}, 2, "max_tokens"),
        ({"max_tokens": 0}, {}, 0, "max_tokens"),
        ({"max_cost_usd": 0.0}, {}, 0, "max_cost_usd"),
        ({"max_cost_usd": 0.00005}, {}, 3, "max_cost_usd"),
        ({"max_cost_usd": 0.00005}, {"max_tokens": 100}, 0, "max_cost_usd"),
        ({"max_model_calls": 2}, {}, 2, "max_model_calls"),
    ],
)
def test_a_limit_refuses_the_call_that_would_pass_it(
    limits: dict[str, Any], kwargs: dict[str, Any], sent: int, rule: str
) -> None:
    """10 tokens in, 4 out, 1 and 2 USD a million: 18 micro dollars a call."""
    price = Price(input_per_million=1.0, output_per_million=2.0)
    report = Orchestrator(Limited(price, **limits)).run(ask(answers(10, 4), 9, **kwargs), "t")
    assert report.violation is not None, report
    assert (report.violation["rule"], len(SENT)) == (rule, sent), report.error


def test_money_is_reported_where_it_is_limited() -> None:
    """US dollars of all calls; None where nobody asked for prices."""
    price = Price(input_per_million=1.0, output_per_million=2.0)
    report = Orchestrator(Limited(price, max_cost_usd=1.0)).run(ask(answers(10, 4), 3), "t")
    assert (report.status, report.cost_usd) == ("SUCCESS", pytest.approx(54e-6))
    assert Orchestrator(Limited(price)).run(ask(answers(10, 4), 3), "t").cost_usd is None


def test_an_unknown_price_is_a_denial_or_the_named_estimate_never_free() -> None:
    """Where money is limited, a model that nobody can price is not called."""
    report = Orchestrator(Limited(max_cost_usd=1.0)).run(ask(answers(10, 4), 1), "t")
    assert report.violation is not None
    assert report.violation["rule"] == "unknown_price"
    assert SENT == []
    estimate = Price(input_per_million=1000.0, output_per_million=0.0)
    report = Orchestrator(Limited(max_cost_usd=1.0, unknown_price=estimate)).run(ask(answers(10, 4), 2), "t")
    assert report.cost_usd == pytest.approx(0.02)


@pytest.mark.parametrize(
    "price",
    [
        Price(input_per_million=-1.0, output_per_million=0.0),
        Price(input_per_million=float("nan"), output_per_million=1),
    ],
)
def test_a_price_that_is_none_denies(price: Price) -> None:
    """A negative price would be a way to earn budget."""
    report = Orchestrator(Limited(price, max_cost_usd=1.0)).run(ask(answers(10, 4), 1), "t")
    assert report.status == "FAILED"
    assert SENT == []


def test_list_prices_come_from_genai_prices() -> None:
    """The published price of a known model, and nothing for one that it does not know."""
    pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
    from oao_harness.policy.prices import oao_price

    known = oao_price(ModelCall(name="gpt-4o", messages=()))
    assert known is not None
    assert known.output_per_million > known.input_per_million > 0
    assert oao_price(ModelCall(name="no-such-model-of-mine", messages=())) is None


def test_calls_that_failed_before_they_cost_are_refunded() -> None:
    """A call that raised reports no tokens: what it had reserved comes back, so the budget is not eaten by errors."""
    failures = [3]

    @model(name="some-model")
    def think(prompt: str, max_tokens: int) -> dict[str, Json]:
        if failures[0]:
            failures[0] -= 1
            raise ValueError("bad request")
        return {"usage": {"input_tokens": 1, "output_tokens": 1}}

    def agent(task: str) -> str:
        for _ in range(4):
            try:
                think("abcd", max_tokens=90)
            except ValueError:
                continue
        return "done"

    report = Orchestrator(Limited(max_tokens=100)).run(agent, "t")
    assert (report.status, report.total_tokens, report.model_calls) == ("SUCCESS", 2, 4), report.error


def test_parallel_calls_reserve_so_that_they_cannot_pass_a_limit_together() -> None:
    """Ten threads, room for three: exactly three are sent, whatever their order."""
    barrier = threading.Barrier(10, timeout=10)

    @model(name="some-model")
    def think(prompt: str, max_tokens: int) -> dict[str, Json]:
        SENT.append(prompt)
        time.sleep(0.05)
        return {"usage": {"input_tokens": 1, "output_tokens": 30}}

    def agent(task: str) -> None:
        def one() -> None:
            barrier.wait()
            try:
                think("abcd", max_tokens=30)
            except BaseException:
                return

        threads = [threading.Thread(target=one) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    report = Orchestrator(Limited(max_output_tokens=100)).run(agent, "t")
    assert len(SENT) <= 3
    assert report.output_tokens <= 100
    assert report.status == "FAILED"


@tool
def read_mail() -> str:
    return "mail"


@tool
def read_file() -> str:
    return "file"


def test_calls_by_tool_are_limited_by_name_and_glob() -> None:
    """All tools that match a glob count together."""

    def agent(task: str) -> None:
        read_mail()
        read_file()
        read_mail()

    report = Orchestrator(Limited(tool_limits={"read_*": 2})).run(agent, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "tool_limits.read_*"
    assert report.tool_usage == {"read_mail": 1, "read_file": 1}
    assert Orchestrator(Limited(tool_limits={"read_mail": 2, "other": 0})).run(agent, "t").status == "SUCCESS"


def test_a_batch_that_would_pass_a_tool_limit_together_does_not_start() -> None:
    """None of the siblings runs, so that which of them ran is no matter of chance."""

    @model
    def think(prompt: str) -> dict[str, Json]:
        return {"tool_calls": [{"name": "read_mail", "args": {}, "id": str(i)} for i in range(3)]}

    def agent(task: str) -> None:
        think(task)
        read_mail()

    report = Orchestrator(Limited(tool_limits={"read_*": 2})).run(agent, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "tool_limits.read_*"
    assert report.tool_calls == 0


def test_nested_runs_draw_from_the_outer_budget() -> None:
    """An inner run under its own, wider limits cannot spend what the outer one does not have."""
    inner = Orchestrator(Limited(max_tool_calls=100))

    def inner_agent(task: str) -> str:
        for _ in range(5):
            read_mail()
        return "done"

    def outer_agent(task: str) -> str:
        return str(inner.run(inner_agent, task).status)

    report = Orchestrator(Limited(tool_limits={"read_mail": 3})).run(outer_agent, "t")
    assert report.violation is not None
    assert report.violation["rule"] == "tool_limits.read_mail"
    assert report.tool_usage == {"read_mail": 3}


@pytest.mark.parametrize("is_async", [False, True])
def test_one_call_that_takes_too_long_halts_the_run(is_async: bool) -> None:
    """Sync and async bodies; the report does not wait for the body."""

    @tool
    def hang() -> None:
        time.sleep(3)

    @tool
    async def hang_async() -> None:
        await asyncio.sleep(3)

    def agent(task: str) -> None:
        read_mail()
        hang()

    async def async_agent(task: str) -> None:
        read_mail()
        await hang_async()

    started = time.monotonic()
    report = Orchestrator(Limited(call_timeout_s=0.2)).run(async_agent if is_async else agent, "t")
    assert time.monotonic() - started < 2
    assert report.violation is not None, report
    assert report.violation["rule"] == "call_timeout"
    assert report.violation["n"] == 2
    assert "took longer than 0.2 s" in report.violation["reason"]


def test_calls_within_their_time_are_left_alone() -> None:
    """The limit is for one call, not for all of them together."""

    def agent(task: str) -> str:
        for _ in range(5):
            read_mail()
            time.sleep(0.06)
        return "done"

    assert Orchestrator(Limited(call_timeout_s=0.2)).run(agent, "t").status == "SUCCESS"


class Redacts:
    name = "redacts"

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail

    @hookimpl
    def oao_redact_result(self, call: ToolCall, value: Json) -> Json:
        if self.fail:
            raise ValueError("no")
        if isinstance(value, list):
            return [self.oao_redact_result(call, item) for item in value]
        return value.replace("secret", "[gone]") if isinstance(value, str) else value


def test_what_is_redacted_reaches_neither_the_agent_nor_the_journal(store: Any) -> None:
    """The result is changed before it is written and before it is returned; sync, async, and streams as one text."""

    @tool
    def fetch() -> str:
        return "my secret"

    @tool
    async def afetch() -> str:
        return "my secret"

    @tool
    def chunks() -> Any:
        yield "one secret"
        yield "two"

    async def agent(task: str) -> list[str]:
        return [fetch(), await afetch(), *chunks()]

    report = Orchestrator(Redacts(), store).run(agent, "t")
    assert report.final_output == ["my [gone]", "my [gone]", "one [gone]two"]
    journal = str(list(store.read(report.execution_id)))
    assert "[gone]" in journal
    assert "secret" not in journal


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_redacted_is_not_in_an_error_either(store: Any, is_async: bool) -> None:
    """Message and attributes of what a tool raises; the class stays, so that handlers and retries still know it."""

    def fail() -> str:
        raise ValueError("the secret is out")

    fetch = tool(name="fetch")(fail)

    async def afail() -> str:
        raise ValueError("the secret is out")

    afetch = tool(name="afetch")(afail)
    heard: list[BaseException] = []

    class RedactsAll(Redacts):
        @hookimpl
        def oao_redact_result(self, call: ToolCall, value: Json) -> Json:
            return _replaced(value)

    async def async_agent(task: str) -> str:
        try:
            return await afetch()
        except ValueError as error:
            heard.append(error)
            return "failed"

    def agent(task: str) -> str:
        try:
            return fetch()
        except ValueError as error:
            heard.append(error)
            return "failed"

    report = Orchestrator(RedactsAll(), store).run(async_agent if is_async else agent, "t")
    assert report.final_output == "failed", report.error
    assert [str(error) for error in heard] == ["the [gone] is out"]
    assert heard[0].__context__ is None
    assert heard[0].__cause__ is None
    assert "secret" not in str(list(store.read(report.execution_id)))


def _replaced(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: _replaced(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item) for item in value]
    return value.replace("secret", "[gone]") if isinstance(value, str) else value


def test_a_redactor_that_fails_withholds_the_result(store: Any) -> None:
    """Nobody sees a result that could not be redacted; the run is halted."""

    @tool
    def fetch() -> str:
        return "my secret"

    report = Orchestrator(Redacts(fail=True), store).run(lambda task: fetch(), "t")
    assert report.violation is not None
    assert report.violation["rule"] == "policy-error"
    assert "secret" not in str(list(store.read(report.execution_id)))


def test_what_is_declared_about_a_tool_reaches_policies_and_the_journal(store: Any) -> None:
    """Traits from a plugin; what the author of the tool declared is stronger."""
    seen: list[ToolCall] = []

    class Declares:
        @hookimpl
        def oao_describe_tool(self, name: str) -> ToolTraits:
            return ToolTraits(effect="pure", access="read")

        @hookimpl
        def oao_decide_tool_call(self, call: ToolCall) -> None:
            seen.append(call)

    @tool(effect="once")
    def own(values: list[int]) -> list[int]:
        values.append(1)
        return values

    given: list[int] = []
    report = Orchestrator(Declares(), store).run(lambda task: (own(given), read_mail()), "t")
    assert report.status == "SUCCESS"
    assert [(call.effect, call.access) for call in seen] == [("once", "read"), ("pure", "read")]
    assert given == [1], "the body got the caller's own object, not a copy"
    calls = [record for record in store.read(report.execution_id) if record["type"] == "call"]
    assert [(call["effect"], call["access"]) for call in calls] == [("once", "read"), ("pure", "read")]


def test_observe_judges_and_reports_and_never_stops() -> None:
    """The report names each call that strict would have stopped."""

    def agent(task: str) -> str:
        for _ in range(7):
            read_mail()
        return "done"

    report = Orchestrator("observe").run(agent, "t")
    assert report.status == "SUCCESS"
    assert len(report.observed) == 2
    assert report.observed[0] == ("tool read_mail: would deny: max_tool_calls: 6, and the limit of strict is 5")


def test_a_limit_says_where_it_is_written() -> None:
    """In the report, the journal and the denial: file and line of the stricter of two limits."""
    wide = FilePolicy.from_text("[limits]\nmax_tool_calls = 9\ntimeout_seconds = 60\n", name="wide.toml")
    tight = FilePolicy.from_text('[limits]\nmax_steps = 50\nmax_tool_calls = 1\n[[tool]]\nname = "x"\nmax_calls = 0\n')

    def agent(task: str) -> None:
        read_mail()
        read_mail()

    for policies in ([wide, tight], [tight, wide]):
        report = Orchestrator(policies).run(agent, "t")
        assert report.violation is not None
        assert report.violation["source"] == "policy.toml:3"
    limits = wide.limits.tightened(tight.limits)
    assert limits.sources["timeout_s"] == "wide.toml:3"
    assert limits.sources["tool_limits.x"] == "policy.toml:6"


@pytest.mark.parametrize("answer", [None, object(), {1, 2}])
def test_a_redactor_that_forgets_to_return_json_withholds_the_result(answer: object) -> None:
    """A forgotten return does not make the result None."""

    class Forgets:
        @hookimpl
        def oao_redact_result(self, call: ToolCall, value: Json) -> object:
            return answer

    report = Orchestrator(Forgets()).run(lambda task: read_mail(), "t")
    assert report.violation is not None
    assert report.violation["rule"] == "policy-error"
