"""What a replay of model calls costs with oao, and with vcrpy's matching of bodies: the same requests, one process.

Run: `python benchmarks/replay_vs_vcrpy.py [CALLS [ROUNDS]]`, 1,000 and 3 by default, under each vcrpy in question. The
requests are conversations of 50 turns whose history is sent again with each. Processor time, because a busy machine
takes wall time from both; rounds are interleaved, the medians are shown. vcrpy's cost for a call grows with the
cassette: 1,000 calls take minutes.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import openai
import vcr
import yaml
from langchain_openai import ChatOpenAI
from rich.console import Console
from rich.table import Table

from oao_harness import MemoryStore, Orchestrator
from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import Recording
from oao_harness.journal.replay import Served

TURNS = 50
URL = "https://api.openai.com/v1"
SYSTEM = "You are careful. Look an order up before you refund it, and never refund twice. " * 4
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-x",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Looked up."}}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11},
}  # fmt: skip


def conversations(calls: int) -> list[list[dict[str, str]]]:
    found: list[list[dict[str, str]]] = []
    for number in range(calls):
        conversation, turn = divmod(number, TURNS)
        if turn == 0:
            messages = [{"role": "system", "content": f"{SYSTEM}Customer {conversation}."}]
        messages = [*messages, {"role": "user", "content": f"What of order {conversation}-{turn}? " * 4}]
        found.append(messages)
        messages = [*messages, {"role": "assistant", "content": "Looked up."}]
    return found


def main(calls: int, rounds: int) -> None:
    asked, bodies = conversations(calls), list[bytes]()

    def answer(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return httpx2.Response(200, json=ANSWER)

    fake = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(api_key="none", base_url=URL, http_client=fake)
    model = ChatOpenAI(model="gpt-x", api_key="none", base_url=URL, http_client=fake)  # type: ignore[arg-type]
    real = openai.OpenAI(api_key="none", base_url=URL)

    def with_openai(_task: object, by: Any = client) -> None:
        for messages in asked:
            by.chat.completions.create(model="gpt-x", messages=messages)

    def with_langchain(_task: object) -> None:
        for messages in asked:
            model.invoke(messages)

    made: dict[str, tuple[Callable[[object], None], Recording]] = {}
    for name, agent in (("oao, openai client", with_openai), ("oao, ChatOpenAI", with_langchain)):
        store = MemoryStore()
        report = Orchestrator(policy="off", store=store).run(agent, "go")
        made[name] = agent, Recording.from_records(store.read(report.execution_id))
    wire = bodies[:calls]
    response = {
        "status": {"code": 200, "message": "OK"},
        "headers": {"content-type": ["application/json"]},
        "body": {"string": json.dumps(ANSWER)},
    }
    request = {"method": "POST", "uri": f"{URL}/chat/completions", "headers": {}}
    cassette = Path(tempfile.mkdtemp()) / "all.yaml"
    interactions = [{"request": {**request, "body": body.decode()}, "response": response} for body in wire]
    cassette.write_text(yaml.dump({"version": 1, "interactions": interactions}, Dumper=yaml.CSafeDumper), "utf-8")

    def replayed(agent: Callable[[object], None], recording: Recording) -> None:
        report = Orchestrator(policy="off").replay(agent, "go", recording)
        assert report.status == "SUCCESS", report.error

    def matched(recording: Recording) -> None:
        matcher = Matcher(recording)
        assert all(isinstance(matcher.serve(event.call, "main"), Served) for event in recording.events)

    def by_vcrpy() -> None:
        with vcr.use_cassette(str(cassette), record_mode="none", match_on=("method", "uri", "body")):
            with_openai(None, real)

    ways: dict[str, Callable[[], None]] = {
        "oao, the matcher alone": lambda: matched(made["oao, openai client"][1]),
        **{name: (lambda one=one: replayed(*one)) for name, one in made.items()},  # type: ignore[misc]
        f"vcrpy {version('vcrpy')}, openai client": by_vcrpy,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            began = time.process_time()
            way()
            taken[name].append(time.process_time() - began)
    slowest = statistics.median(taken[list(ways)[-1]])
    table = Table("way", "s", "ms a call", "vcrpy takes", title=f"{calls} model calls replayed, processor time")
    for name, rows in taken.items():
        took = statistics.median(rows)
        table.add_row(name, f"{took:.3f}", f"{took / calls * 1e3:.3f}", f"{slowest / took:.0f} times as long")
    Console().print(table)


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(*(given + [1000, 3][len(given) :]))
