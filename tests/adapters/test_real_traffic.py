"""Traffic recorded from real providers, through their real clients, inside governed runs; then replayed without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from oao_harness import ExecutionReport, Orchestrator, StrictPolicy
from oao_harness.journal.recording import Recording
from pytest_oao.testing import CassetteServer

CASSETTES = Path(__file__).parents[2].parent / "shared" / "data" / "cassettes"
OPENAI = [
    "otel/test_chat_completion_with_content.yaml",
    "otel/test_chat_completion_tool_calls_with_content.yaml",
    "otel/test_chat_completion_streaming.yaml",
    "otel/test_async_chat_completion_multiple_tools_streaming_with_content.yaml",
    "otel/test_responses_create_captures_tool_call_content_content_mode0_.yaml",
    "otel/test_responses_create_streaming_content_mode0_.yaml",
]
ANTHROPIC = [
    "llm-anthropic/test_prompt.yaml",
    "pydantic-ai/test_anthropic_model_thinking_part_stream.yaml",
    "pydantic-ai/test_multiple_parallel_tool_calls.yaml",
]
FAILING = ["otel/test_chat_completion_404.yaml"]
LIMITS = StrictPolicy(max_tokens=None, max_steps=100, retry_config={"max_retries": 0})

pytestmark = pytest.mark.filterwarnings(r"ignore:The model '[\w-]+' is deprecated:DeprecationWarning")

Agent = Callable[[object], object]


def bodies_of(name: str) -> list[dict[str, Any]]:
    """Return the recorded request bodies."""
    if not CASSETTES.is_dir():
        pytest.skip("the recorded cassettes are not part of this checkout (../shared/data/cassettes)")
    interactions = yaml.safe_load((CASSETTES / name).read_text(encoding="utf-8"))["interactions"]
    requests = [interaction["request"] for interaction in interactions]
    return [request["parsed_body"] if "parsed_body" in request else json.loads(request["body"]) for request in requests]


def openai_model(body: dict[str, Any], url: str) -> tuple[Any, Any]:
    model = ChatOpenAI(
        model=body["model"], base_url=f"{url}/v1", api_key="any", max_retries=0, stream_usage=True,
        use_responses_api="input" in body,
    )  # fmt: skip
    return model, body.get("input") or [{"content": "", **message} for message in body["messages"]]


def anthropic_model(body: dict[str, Any], url: str) -> tuple[Any, Any]:
    model = ChatAnthropic(
        model=body["model"], base_url=url, api_key="any", max_retries=0, max_tokens=body["max_tokens"],
        thinking=body.get("thinking"),
    )  # fmt: skip
    system = [SystemMessage(body["system"])] if body.get("system") else []
    kinds = {"user": HumanMessage, "assistant": AIMessage}
    return model, [*system, *(kinds[message["role"]](message["content"]) for message in body["messages"])]


def agent_over(name: str, url: str, *, edit: str = "", style: str = "recorded") -> Agent:
    """Return an agent that sends the recorded requests, one after the other, and returns all texts and tool calls."""
    make = anthropic_model if name in ANTHROPIC else openai_model

    def agent(task: object) -> object:
        answers: list[AIMessage] = []
        for body in bodies_of(name):
            model, messages = make(body, url)
            if edit:
                messages = [*messages, HumanMessage(edit)]
            runnable = model.bind(**{key: body[key] for key in ("tools", "tool_choice") if key in body})
            streams = bool(body.get("stream")) if style == "recorded" else style == "stream"
            answers.append(merged(runnable.stream(messages)) if streams else runnable.invoke(messages))
        return [{"text": answer.text, "calls": answer.tool_calls, "usage": answer.usage_metadata} for answer in answers]

    return agent


def merged(chunks: Iterator[Any]) -> AIMessage:
    first, *rest = chunks
    for chunk in rest:
        first += chunk
    return first


def governed(name: str) -> tuple[Orchestrator, ExecutionReport, CassetteServer, str]:
    """Run the recorded conversation against the cassette, under a policy."""
    bodies_of(name)
    orchestrator = Orchestrator(policy=LIMITS)
    with CassetteServer(CASSETTES / name) as server:
        report = orchestrator.run(agent_over(name, server.url), "go")
        url = server.url
    return orchestrator, report, server, url


@pytest.mark.parametrize("name", [*OPENAI, *ANTHROPIC])
def test_tokens_of_the_report_are_those_of_the_provider(name: str) -> None:
    """Chat, tool round trips, streams, thinking: what the recorded responses report, exactly and not estimated."""
    _, report, server, _ = governed(name)

    assert report.status == "SUCCESS", report.error
    assert (report.input_tokens, report.output_tokens) == (server.usage.input_tokens, server.usage.output_tokens)
    assert report.total_tokens == server.usage.total_tokens
    assert not report.tokens_estimated
    assert report.model_calls == len(server.requests) == len(bodies_of(name))


@pytest.mark.parametrize("style", ["recorded", "invoke", "stream"])
@pytest.mark.parametrize("name", [*OPENAI, *ANTHROPIC])
def test_recorded_traffic_replays_without_its_server(name: str, style: str, tmp_path: Path) -> None:
    """Same texts, tool calls and tokens, in either call style, from a file, with nobody listening."""
    orchestrator, live, _, url = governed(name)
    path = tmp_path / "x.oao.json"
    Recording.from_records(orchestrator.store.read(live.execution_id)).save(path)

    replayed = orchestrator.replay(agent_over(name, url, style=style), "go", path)

    assert replayed.status == "SUCCESS", replayed.error
    assert replayed.final_output == live.final_output
    assert replayed.total_tokens == live.total_tokens


@pytest.mark.parametrize("name", [*OPENAI, *ANTHROPIC])
def test_one_more_word_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever the provider."""
    orchestrator, live, _, url = governed(name)
    recording = Recording.from_records(orchestrator.store.read(live.execution_id))

    replayed = orchestrator.replay(agent_over(name, url, edit="please"), "go", recording)

    assert replayed.status == "FAILED"
    assert "(replay diverged)" in str(replayed.error)


@pytest.mark.parametrize("name", FAILING)
def test_an_error_of_the_provider_is_recorded_and_raised_again(name: str, tmp_path: Path) -> None:
    """The same class with the same status, without the server."""
    orchestrator, live, _, url = governed(name)
    path = tmp_path / "x.oao.json"
    Recording.from_records(orchestrator.store.read(live.execution_id)).save(path)

    replayed = orchestrator.replay(agent_over(name, url), "go", path)

    assert live.error is not None
    assert "Error code: 404" in live.error
    assert replayed.error == live.error
