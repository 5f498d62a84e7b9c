"""Cassettes of vcrpy become recordings of the wire; what is left out is said."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from oao_harness import Orchestrator
from oao_harness.errors import RecordingError
from oao_harness.importing.recordings import import_cassette, recording_of
from oao_harness.journal.recording import Recording
from pytest_oao.testing import ErrorReply, OpenAIServer, ToolCall, ToolCallReply

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "choices": [{"index": 0, "message": {"content": "yes"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def interaction(
    *, url: str = "https://h.test/v1/chat/completions", body: object = BODY, status: int = 200, method: str = "POST",
    answer: object = ANSWER, kind: str = "application/json", **headers: str,
) -> dict[str, Any]:  # fmt: skip
    sent = {key.replace("_", "-"): [value] for key, value in headers.items()}
    request = {"method": method, "uri": url, "body": body if isinstance(body, str) else json.dumps(body)}
    text = answer if isinstance(answer, str) else json.dumps(answer)
    response = {"status": {"code": status}, "headers": {"Content-Type": [kind]}, "body": {"string": text}}
    return {"request": {**request, "headers": sent}, "response": response}


def cassette(tmp_path: Path, *interactions: dict[str, Any]) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"interactions": list(interactions), "version": 1}))
    return path


def test_events_are_what_the_leaf_journals(tmp_path: Path) -> None:
    """Request, response, tokens, tool calls and error of an import are those of a live run over the same traffic."""
    tools = ToolCallReply(calls=(ToolCall(name="f", arguments={"x": 1}), ToolCall(name="g", arguments={})))
    made: list[dict[str, Any]] = []

    def agent(task: object) -> None:
        client = openai.OpenAI(base_url=server.url, api_key="any", max_retries=0)
        ask: Any = client.chat.completions.with_raw_response.create
        for more in ({}, {"stream": True, "stream_options": {"include_usage": True}}, {}):
            kind, status = "application/json", 200
            try:
                raw = ask(**BODY, **more)
                text, kind = raw.http_response.read().decode(), raw.headers["content-type"]
            except openai.APIStatusError as error:
                text, status = error.response.text, error.status_code
            made.append(interaction(body={**BODY, **more}, answer=text, kind=kind, status=status))

    orchestrator = Orchestrator()
    with OpenAIServer(replies=[tools, tools, ErrorReply(status=404, message="no", code="x")]) as server:
        report = orchestrator.run(agent, "go")
    live = Recording.from_records(orchestrator.store.read(report.execution_id)).events
    imported = recording_of(cassette(tmp_path, *made)).events

    assert len(live) == len(imported) == 3
    for one, other in zip(live, imported, strict=True):
        assert (one.kind, one.name, one.request, one.key) == (other.kind, other.name, other.request, other.key)
        assert (one.value, one.usage) == (other.value, other.usage)
        if one.error is None or other.error is None:
            assert one.error is other.error
            continue
        assert (one.error.type, one.error.message) == (other.error.type, other.error.message)
        mine, yours = (error.data["attributes"] for error in (one.error, other.error))
        assert {key: mine[key] for key in yours} == yours  # type: ignore[index,union-attr]
    assert [(event.start, event.end) for event in imported] == [(1, 2), (3, 4), (5, 6)]


def test_what_is_no_model_call_is_listed(tmp_path: Path) -> None:
    """With its number and the reason; nothing is dropped silently."""
    models = interaction(url="https://h.test/v1/models", method="GET", body="")
    form = interaction(body="a=b")
    imported = import_cassette(cassette(tmp_path, models, interaction(), form), "tests/test_x.py::test_y")

    assert [(one.number, one.reason) for one in imported.skipped] == [
        (1, "no request of a model"),
        (3, "its body is no JSON object"),
    ]
    assert imported.recording.test == "tests/test_x.py::test_y"
    assert imported.recording.header["layer"] == "wire"
    assert len(imported.recording.events) == 1


@pytest.mark.parametrize(
    ("counts", "attempts"), [(("", "", ""), [3]), (("0", "1", "2"), [3]), (("0", "0", "0"), [1, 1, 1])]
)
def test_the_tries_of_a_client_are_one_call(counts: tuple[str, ...], attempts: list[int], tmp_path: Path) -> None:
    """Equal requests after an answer that asks for it; a recorded number of the try decides."""
    tries = [
        interaction(status=status, **({"x_stainless_retry_count": count} if count else {}))
        for status, count in zip((429, 500, 200), counts, strict=True)
    ]
    events = recording_of(cassette(tmp_path, *tries)).events

    assert [event.attempts for event in events] == attempts
    assert events[-1].error is None


def test_equal_requests_that_were_answered_are_calls_of_their_own(tmp_path: Path) -> None:
    """Two answers, or an error that no client tries again."""
    events = recording_of(cassette(tmp_path, interaction(), interaction(status=404), interaction())).events

    assert [event.attempts for event in events] == [1, 1, 1]


def test_a_compressed_cassette_is_read(tmp_path: Path) -> None:
    """`.yaml.gz`, as LangChain records."""
    path = tmp_path / "c.yaml.gz"
    path.write_bytes(gzip.compress(cassette(tmp_path, interaction()).read_bytes()))

    assert recording_of(path).events[0].usage is not None


def _missing(tmp_path: Path) -> Path:
    return tmp_path / "none.yaml"


def _no_cassette(tmp_path: Path) -> Path:
    (tmp_path / "n.yaml").write_text("a: 1")
    return tmp_path / "n.yaml"


def _no_model(tmp_path: Path) -> Path:
    return cassette(tmp_path, interaction(url="https://h.test/v1/files"))


@pytest.mark.parametrize(
    ("make", "said"),
    [(_missing, "there is no such file"), (_no_cassette, "not a vcrpy cassette"), (_no_model, "holds no model call")],
)
def test_what_cannot_be_imported_is_a_mistake(make: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    """That says which file and why."""
    path = make(tmp_path)
    with pytest.raises(RecordingError, match=said) as caught:
        import_cassette(path)

    assert path.name in str(caught.value)
