"""The gate: retries, streams, tokens, batches, and what is written when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from oao_harness import MemoryStore, Orchestrator, StrictPolicy, ToolPolicy, model, tool
from oao_hookspecs import Record

FAST = {"max_retries": 2, "initial_delay": 0.001, "backoff_factor": 1.0}


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "ok"


class Busy(Exception):
    status_code = 429


def records(orchestrator: Orchestrator, execution_id: str, type: str) -> list[Record]:
    return [record for record in orchestrator.store.read(execution_id) if record["type"] == type]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    ("failures", "error", "status", "calls"),
    [
        (2, ConnectionError("lost"), "SUCCESS", 3),
        (2, TimeoutError(), "SUCCESS", 3),
        (2, Busy("slow down"), "SUCCESS", 3),
        (3, ConnectionError("lost"), "FAILED", 3),
        (1, ValueError("wrong"), "FAILED", 1),
        (1, TypeError("bug"), "FAILED", 1),
    ],
)
def test_a_single_call_is_retried_for_a_transient_cause_only(
    is_async: bool, failures: int, error: Exception, status: str, calls: int
) -> None:
    """A lost connection is tried again, twice; a programming error never."""
    flaky = Flaky(failures, error)

    if is_async:

        @tool
        async def fetch() -> str:
            return flaky()

        async def agent(task: str) -> str:
            return await fetch()
    else:

        @tool
        def fetch() -> str:
            return flaky()

        def agent(task: str) -> str:  # type: ignore[misc]
            return fetch()

    orchestrator = Orchestrator(policy=StrictPolicy(retry_config=FAST))
    report = orchestrator.run(agent, "x")

    assert (report.status, flaky.calls) == (status, calls), report.error
    assert report.tool_calls == 1
    assert len(records(orchestrator, report.execution_id, "retry")) == calls - 1
    (outcome,) = records(orchestrator, report.execution_id, "outcome")
    assert outcome.get("attempts", 1) == calls


def test_a_tool_whose_effect_is_once_is_not_retried() -> None:
    """The lost answer may belong to an effect that happened."""
    flaky = Flaky(1, ConnectionError("lost"))
    pay = tool(effect="once", name="pay")(flaky)

    report = Orchestrator(policy=StrictPolicy(retry_config=FAST)).run(lambda task: pay(), "x")

    assert (report.status, flaky.calls) == ("FAILED", 1)


def test_a_retry_does_not_pass_the_deadline() -> None:
    """A delay that would end after the deadline is not slept."""
    flaky = Flaky(1, ConnectionError("lost"))
    fetch = tool(name="fetch")(flaky)
    policy = StrictPolicy(timeout_seconds=5, retry_config={"initial_delay": 60})

    report = Orchestrator(policy=policy).run(lambda task: fetch(), "x")

    assert report.error == "ConnectionError: lost"
    assert report.execution_time_seconds < 4


def test_without_a_policy_nothing_is_retried() -> None:
    """A repeated side effect must be asked for."""
    flaky = Flaky(1, ConnectionError("lost"))
    fetch = tool(name="fetch")(flaky)

    assert Orchestrator().run(lambda task: fetch(), "x").status == "FAILED"
    assert flaky.calls == 1


@model(name="gpt-x")
def talk(prompt: str) -> Iterator[dict[str, object]]:
    yield {"content": "Hel"}
    yield {"content": "lo"}
    yield {"content": "", "usage": {"input_tokens": 4, "output_tokens": 2}}


@model(name="gpt-x")
async def atalk(prompt: str) -> AsyncIterator[dict[str, object]]:
    for chunk in ({"content": "Hel"}, {"content": "lo", "usage": {"input_tokens": 4, "output_tokens": 2}}):
        await asyncio.sleep(0)
        yield chunk


def test_a_stream_is_passed_on_chunk_by_chunk() -> None:
    """The consumer has the first chunk before the producer makes the second."""
    log: list[str] = []

    @tool
    def numbers() -> Iterator[int]:
        for n in range(3):
            log.append(f"made {n}")
            yield n

    def agent(task: str) -> None:
        for n in numbers():
            log.append(f"used {n}")

    assert Orchestrator().run(agent, "x").status == "SUCCESS"
    assert log == ["made 0", "used 0", "made 1", "used 1", "made 2", "used 2"]


def test_tokens_of_streams_are_counted() -> None:
    """Sync and async; the last chunk reports them."""

    async def agent(task: str) -> None:
        async for _ in atalk(task):
            pass

    for report in (Orchestrator().run(lambda task: list(talk(task)), "hi"), Orchestrator().run(agent, "hi")):
        assert (report.total_tokens, report.tokens_estimated, report.model_calls) == (6, False, 1)


def test_a_stream_that_is_left_early_is_written_with_what_came() -> None:
    """Tokens that were not reported are estimated and flagged."""

    def agent(task: str) -> str:
        stream = talk(task)
        first = next(stream)
        stream.close()  # type: ignore[attr-defined]
        return str(first["content"])

    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "hi")

    (outcome,) = records(orchestrator, report.execution_id, "outcome")
    assert outcome["res"] == [{"content": "Hel"}]
    assert report.tokens_estimated
    assert report.total_tokens > 0


def test_a_stream_that_fails_is_written_as_a_failure() -> None:
    """The error is journaled and reaches the agent."""

    @tool
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("snapped")

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: list(broken()), "x")

    assert report.error == "ValueError: snapped"
    (outcome,) = records(orchestrator, report.execution_id, "outcome")
    assert outcome["error"]["message"] == "snapped"  # type: ignore[index,call-overload]


@pytest.mark.parametrize(("before", "calls"), [(True, 2), (False, 1)])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_stream_is_retried_only_before_its_first_chunk(before: bool, calls: int, is_async: bool) -> None:
    """What the consumer has seen cannot be taken back."""
    made: list[int] = []

    def produce() -> Iterator[int]:
        made.append(1)
        if before and len(made) == 1:
            raise ConnectionError("lost")
        yield 1
        if not before:
            raise ConnectionError("lost")

    if is_async:

        @tool
        async def numbers() -> AsyncIterator[int]:
            for n in produce():
                yield n

        async def agent(task: str) -> list[int]:
            return [n async for n in numbers()]
    else:
        numbers = tool(name="numbers")(produce)

        def agent(task: str) -> list[int]:  # type: ignore[misc]
            return list(numbers())

    report = Orchestrator(policy=StrictPolicy(retry_config=FAST)).run(agent, "x")

    assert report.status == ("SUCCESS" if before else "FAILED"), report.error
    assert len(made) == calls


def test_a_denied_stream_does_not_start() -> None:
    """The producer is not even created."""
    ran: list[int] = []

    @tool
    def numbers() -> Iterator[int]:
        ran.append(1)
        yield 1

    report = Orchestrator(policy=ToolPolicy(deny=["numbers"])).run(lambda task: list(numbers()), "x")

    assert report.status == "FAILED"
    assert ran == []


@pytest.mark.parametrize("answer", ["just text", {"content": "no usage here"}, None])
def test_unknown_usage_is_estimated_and_flagged_never_zero(answer: object) -> None:
    """A model that reports nothing still costs."""

    @model
    def ask(prompt: str) -> object:
        return answer

    report = Orchestrator().run(lambda task: ask(task), "twelve chars")

    assert report.tokens_estimated
    assert report.total_tokens >= 3


@pytest.mark.parametrize(
    "usage",
    [
        {"usage_metadata": {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}},
        {"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}},
        {"usage": {"input_tokens": 7, "output_tokens": 5}},
        {"response_metadata": {"token_usage": {"prompt_tokens": 7, "completion_tokens": 5}}},
        {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 12}},
        {"usage": {"inputTokens": 7, "outputTokens": 5, "totalTokens": 12}},
    ],
    ids=["langchain", "openai", "anthropic", "langchain-old", "google", "bedrock"],
)
def test_the_token_shapes_of_today_are_read(usage: dict[str, object]) -> None:
    """OpenAI, Anthropic, Google, Bedrock and LangChain spell it differently."""

    @model
    def ask(prompt: str) -> object:
        return {"content": "hi", **usage}

    report = Orchestrator().run(lambda task: ask(task), "x")

    assert (report.input_tokens, report.total_tokens, report.tokens_estimated) == (7, 12, False)


def test_a_model_call_that_cannot_fit_is_denied_before_it_is_made() -> None:
    """The request alone is larger than what is left."""
    ran: list[int] = []

    @model
    def ask(prompt: str) -> str:
        ran.append(1)
        return "ok"

    report = Orchestrator(policy=StrictPolicy(max_tokens=100)).run(lambda task: ask(task), "word " * 200)

    assert report.violation is not None
    assert report.violation["rule"] == "max_tokens"
    assert ran == []


def test_a_model_that_spent_too_much_is_stopped_at_once() -> None:
    """Its answer does not reach the agent: the next thing it would do is spend more."""
    reached: list[str] = []

    @model
    def ask(prompt: str) -> object:
        return {"content": "long", "usage": {"input_tokens": 5, "output_tokens": 5000}}

    def agent(task: str) -> None:
        ask(task)
        reached.append("after")

    report = Orchestrator(policy=StrictPolicy(max_tokens=4000)).run(agent, "x")

    assert report.violation is not None
    assert report.violation["reason"] == "5005 tokens spent, the limit is 4000"
    assert report.total_tokens == 5005
    assert reached == []


BATCH = {"tool_calls": [{"name": name, "args": {}, "id": name} for name in ("read", "write", "drop")]}


@pytest.mark.parametrize("policy", [ToolPolicy(deny=["drop"]), StrictPolicy(max_tool_calls=2)])
def test_a_batch_is_judged_before_any_of_it_starts(policy: object) -> None:
    """One denied sibling, or one too many, and none of them runs."""
    ran: list[str] = []

    @model
    def ask(prompt: str) -> object:
        return BATCH

    @tool
    def read() -> None:
        ran.append("read")

    def agent(task: str) -> None:
        ask(task)
        read()

    report = Orchestrator(policy=policy).run(agent, "x")

    assert report.status == "FAILED"
    assert ran == []


def test_errors_of_tools_reach_the_agent_and_the_journal() -> None:
    """A tool's error is the agent's to handle."""

    @tool
    def broken() -> None:
        raise LookupError("nothing there")

    def agent(task: str) -> str:
        try:
            broken()
        except LookupError as error:
            return f"handled {error}"
        return "no"

    orchestrator = Orchestrator()
    report = orchestrator.run(agent, "x")

    assert report.final_output == "handled nothing there"
    (outcome,) = records(orchestrator, report.execution_id, "outcome")
    assert outcome["error"]["type"] == "builtins:LookupError"  # type: ignore[index,call-overload]


def test_a_result_that_resists_the_journal_does_not_undo_its_call() -> None:
    """The effect has happened: the agent gets its result, the journal says that it could not keep it."""

    class Resisting:
        def __repr__(self) -> str:
            raise RuntimeError("look away")

    ran: list[int] = []

    @tool
    def act() -> object:
        ran.append(1)
        return Resisting()

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: type(act()).__name__, "x")

    assert (report.status, report.final_output, ran) == ("SUCCESS", "Resisting", [1])
    assert "could not be journaled: RuntimeError: look away" in report.ungoverned[0]
    assert len(records(orchestrator, report.execution_id, "outcome")) == 1


def test_a_call_inside_a_call_names_its_parent() -> None:
    """The journal shows which call made which."""

    @tool
    def inner() -> str:
        return "in"

    @tool
    def outer() -> str:
        return inner()

    orchestrator = Orchestrator()
    report = orchestrator.run(lambda task: outer(), "x")

    calls = records(orchestrator, report.execution_id, "call")
    assert [(call["name"], call.get("parent")) for call in calls] == [("outer", None), ("inner", 1)]


class BrokenStore(MemoryStore):
    """A disk that is full from the nth record of a type on."""

    def __init__(self, type: str) -> None:
        super().__init__()
        self.type = type

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        if any(record["type"] == self.type for record in records):
            raise OSError("disk full")
        super().append(execution_id, epoch, *records)


@pytest.mark.parametrize(("type", "runs"), [("call", 0), ("outcome", 1)])
def test_nothing_happens_that_was_not_written(type: str, runs: int) -> None:
    """A journal that fails stops the run: before the effect, or right after it."""
    ran: list[int] = []

    @tool
    def act() -> None:
        ran.append(1)

    def agent(task: str) -> None:
        for _ in range(3):
            try:
                act()
            except BaseException:
                continue

    report = Orchestrator(store=BrokenStore(type)).run(agent, "x")

    assert report.status == "FAILED"
    assert report.error == "journal: the journal failed: disk full" or "disk full" in str(report.error)
    assert len(ran) == runs
