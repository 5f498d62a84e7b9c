"""A replay of model calls beside vcrpy, which matches the bodies of their requests."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure, is_quick, once

HERE = "benchmarks.rows.replay"
CALLS = 1_000
FEW_CALLS = 200
"""vcrpy's cost for a call grows with the cassette: 1,000 calls take it minutes, see the row `replay-1000`."""
TURNS = 50
URL = "https://api.openai.com/v1"
SYSTEM = "You are careful. Look an order up before you refund it, and never refund twice. " * 4
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-x",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Looked up."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}  # fmt: skip
GOAL = 300.0


def contenders(calls: int) -> tuple[Contender, ...]:
    ours = {
        "oao, openai client": ("with_openai", ("openai",)),
        "oao, ChatOpenAI": ("with_chat_model", ("langchain-openai",)),
        "oao, the matcher alone": ("matcher_alone", ()),
    }
    return (
        *(
            Contender(name=name, make=f"{HERE}:{make}", options={"calls": calls}, packages=packages)
            for name, (make, packages) in ours.items()
        ),
        Contender(
            name="openai client, HTTP answered at once, nothing replayed", make=f"{HERE}:nothing_replayed",
            options={"calls": calls}, process="vcrpy", packages=("openai",),
        ),
        Contender(
            name="vcrpy, openai client", make=f"{HERE}:vcrpy", options={"calls": calls}, process="vcrpy",
            packages=("vcrpy", "openai"),
        ),
    )  # fmt: skip


def row() -> Row:
    return Row(
        id="replay",
        title=f"replay of {FEW_CALLS} model calls",
        how="Conversations of 50 turns, the history sent again with each; the agent is run again with the recording, "
        "and every call is answered from it. Processor time for a call. vcrpy matches method, URL and body.",
        figures=(Figure(key="cpu_us", unit="us a call"), Figure(key="wall_us", unit="us wall")),
        contenders=contenders(FEW_CALLS),
        goals=(),
        rounds=5,
        note="Most of what a call of the openai client takes is the client itself, which checks every message that it "
        "is given; the lines without it are ours alone. What vcrpy takes for a call grows with the calls in its "
        "cassette; the goal is about 1,000 of them: see the next row.",
    )


def thousand() -> Row:
    return Row(
        id="replay-1000",
        title="replay of 1,000 model calls",
        how="The same with 1,000 calls, measured once: vcrpy takes minutes. `python -m benchmarks replay-1000 --save`.",
        figures=(Figure(key="cpu_us", unit="us a call"), Figure(key="wall_us", unit="us wall")),
        contenders=contenders(CALLS),
        goals=(
            Goal(
                says="300 times as quick as vcrpy",
                contender="vcrpy, openai client",
                at_least=GOAL,
                than=("oao, openai client",),
            ),
        ),
        rounds=1,
        limit_s=900.0,
        takes_minutes=True,
    )


def conversations(calls: int) -> Iterator[list[dict[str, str]]]:
    """Yield the messages of each call, as new values."""
    for number in itertools.count():
        messages = [{"role": "system", "content": f"{SYSTEM}Customer {number}."}]
        for turn in range(TURNS):
            if number * TURNS + turn == calls:
                return
            messages = [*messages, {"role": "user", "content": f"What of order {number}-{turn}? " * 4}]
            yield messages
            messages = [*messages, {"role": "assistant", "content": "Looked up."}]


def fake_http(bodies: list[bytes]) -> Any:
    """Return a client of HTTP that answers itself, and keeps what it was asked."""
    import httpx2

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return httpx2.Response(200, json=ANSWER)

    return httpx2.Client(transport=httpx2.MockTransport(answer))


def asker(calls: int, client: Any) -> Callable[[object], None]:
    """Return an agent that makes the calls with a client of OpenAI."""
    asked = list(conversations(calls))

    def agent(_task: object) -> None:
        for messages in asked:
            client.chat.completions.create(model="gpt-x", messages=messages)

    return agent


def recorded(agent: Callable[[object], None], calls: int) -> Any:
    """Run an agent and return the recording of the run."""
    from oao_harness import MemoryStore, Orchestrator
    from oao_harness.journal.recording import Recording

    store = MemoryStore()
    report = Orchestrator(policy="off", store=store).run(agent, "go")
    assert report.model_calls == calls, report.error
    return Recording.from_records(store.read(report.execution_id))


def replayed(agent: Callable[[object], None], calls: int) -> Measure:
    """Return what measures the replay of an agent."""
    from oao_harness import Orchestrator

    recording = recorded(agent, calls)

    def run() -> None:
        report = Orchestrator(policy="off").replay(agent, "go", recording)
        assert report.status == "SUCCESS", report.error
        assert report.model_calls == calls

    return once(run, calls)


def with_openai(*, calls: int) -> Measure:
    import openai

    return replayed(asker(calls, openai.OpenAI(api_key="none", base_url=URL, http_client=fake_http([]))), calls)


def nothing_replayed(*, calls: int) -> Measure:
    import openai

    agent = asker(calls, openai.OpenAI(api_key="none", base_url=URL, http_client=fake_http([])))
    return once(lambda: agent(None), calls)


def with_chat_model(*, calls: int) -> Measure:
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model="gpt-x", api_key="none", base_url=URL, http_client=fake_http([]))  # type: ignore[arg-type]
    asked = list(conversations(calls))

    def agent(_task: object) -> None:
        for messages in asked:
            model.invoke(messages)

    return replayed(agent, calls)


def matcher_alone(*, calls: int) -> Measure:
    import openai

    from oao_harness.journal.matcher import Matcher
    from oao_harness.journal.replay import Served

    client = openai.OpenAI(api_key="none", base_url=URL, http_client=fake_http([]))
    recording = recorded(asker(calls, client), calls)

    def run() -> None:
        matcher = Matcher(recording)
        assert all(isinstance(matcher.serve(event.call, "main"), Served) for event in recording.events)

    return once(run, calls)


def vcrpy(*, calls: int) -> Measure:
    import openai
    import vcr
    import yaml

    if is_quick():
        calls = min(calls, 20)
    bodies: list[bytes] = []
    asker(calls, openai.OpenAI(api_key="none", base_url=URL, http_client=fake_http(bodies)))(None)
    response = {
        "status": {"code": 200, "message": "OK"},
        "headers": {"content-type": ["application/json"]},
        "body": {"string": json.dumps(ANSWER)},
    }
    request = {"method": "POST", "uri": f"{URL}/chat/completions", "headers": {}}
    interactions = [{"request": {**request, "body": body.decode()}, "response": response} for body in bodies]
    cassette = Path(tempfile.mkdtemp(prefix="oao-bench-")) / "all.yaml"
    cassette.write_text(yaml.dump({"version": 1, "interactions": interactions}, Dumper=yaml.CSafeDumper), "utf-8")
    agent = asker(calls, openai.OpenAI(api_key="none", base_url=URL))

    def run() -> None:
        with vcr.use_cassette(str(cassette), record_mode="none", match_on=("method", "uri", "body")) as played:
            agent(None)
        assert played.all_played

    return once(run, calls)
