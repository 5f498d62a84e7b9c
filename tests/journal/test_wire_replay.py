"""Recordings of the wire: requests of clients are served, everything else is made."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from oao_harness import ExecutionReport, Orchestrator
from oao_harness.journal.recording import Recording
from oao_harness.journal.wire_replay import WireReplay, replay_of
from pytest_oao.testing import ErrorReply, OpenAIServer, Reply

# Nobody listens here.
NOWHERE = "http://127.0.0.1:9/v1"
LOOKED: list[str] = []


@tool
def look(what: str) -> str:
    """Look."""
    LOOKED.append(what)
    return "seen"


def wire_recording(path: Path, *prompts: str, replies: list[Reply | str] | None = None) -> Recording:
    """What a client journals for some prompts, marked as all that is known."""

    def agent(task: object) -> None:
        for prompt in prompts:
            message: Any = {"role": "user", "content": prompt}
            client = openai.OpenAI(base_url=server.url, api_key="any", max_retries=0)
            with contextlib.suppress(openai.APIStatusError):
                client.chat.completions.create(model="m", messages=[message])

    orchestrator = Orchestrator()
    with OpenAIServer(replies=replies or [f"answer {n}" for n, _ in enumerate(prompts)]) as server:
        report = orchestrator.run(agent, "go")
    made = Recording.from_records(orchestrator.store.read(report.execution_id))
    Recording(events=made.events, header={**made.header, "layer": "wire"}).save(path / "x.oao.json")
    return Recording.load(path / "x.oao.json")


def play(recording: Recording, *prompts: str) -> ExecutionReport:
    """A LangChain agent: a model call and a tool call for each prompt."""

    def agent(task: object) -> list[str]:
        model = ChatOpenAI(model="m", base_url=NOWHERE, api_key="any")  # type: ignore[arg-type]
        return [f"{model.invoke(prompt).text} {look.invoke({'what': prompt})}" for prompt in prompts]

    LOOKED.clear()
    return Orchestrator().replay(agent, "go", recording)


def test_a_framework_plays_what_its_client_would_send(tmp_path: Path) -> None:
    """Its model calls and tools are judged and made, counted once; only the wire is served, from a file."""
    report = play(wire_recording(tmp_path, "one", "two"), "one", "two")

    assert (report.status, report.error) == ("SUCCESS", None)
    assert report.final_output == ["answer 0 seen", "answer 1 seen"]
    assert LOOKED == ["one", "two"]
    assert (report.model_calls, report.tool_calls, report.total_tokens) == (2, 2, 30)


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (("one", "three"), "user message changed (replay diverged)"),
        (("two", "one"), "(replay diverged)"),
        (("one", "two", "two"), "(replay diverged)"),
        (("one",), "1 recorded step not replayed"),
    ],
)
def test_every_difference_is_refused(prompts: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """Another word, another order, one more, one less; nothing is sent."""
    report = play(wire_recording(tmp_path, "one", "two"), *prompts)

    assert report.status == "FAILED"
    assert said in str(report.error)


def test_a_recorded_error_is_not_tried_again(tmp_path: Path) -> None:
    """A policy that retries would ask for what was never recorded: the recording holds every try that was made."""
    recording = wire_recording(tmp_path, "one", replies=[ErrorReply(status=429, message="slow down")])

    def agent(task: object) -> object:
        try:
            return ChatOpenAI(model="m", base_url=NOWHERE, api_key="any").invoke("one")  # type: ignore[arg-type]
        except openai.RateLimitError as error:
            return error.response.json()["error"]["message"]

    report = Orchestrator(policy="strict").replay(agent, "go", recording)

    assert (report.status, report.final_output) == ("SUCCESS", "slow down")


def test_only_a_marked_recording_is_played_so(tmp_path: Path) -> None:
    """The header decides."""
    marked = wire_recording(tmp_path, "one")

    assert isinstance(replay_of(marked), WireReplay)
    assert not isinstance(replay_of(Recording(events=marked.events)), WireReplay)
