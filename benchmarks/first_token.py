"""How long the first token of a stream takes while it is governed and recorded, beside the bare client.

A model server in a process of its own waits before it answers and between its chunks; bare and governed calls are made
in turn, the median of each counts. A recorder that buffers would take as long as the whole stream, the last column.

    python benchmarks/first_token.py            a table; exit code 1 where a ratio is above 1.1
    python benchmarks/first_token.py --json     for the record
    python benchmarks/first_token.py --rounds 10 --delay-ms 0
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

import openai
from langchain_openai import ChatOpenAI
from rich.console import Console
from rich.table import Table

from oao_harness import Orchestrator, StrictPolicy
from pytest_oao.testing import OpenAIServer, TextReply

WORDS = 20
CHUNK_DELAY_S = 0.005
ALLOWED = 1.1
POLICY = StrictPolicy(max_tokens=None, max_steps=None, max_tool_calls=None, timeout_seconds=None, require_governed=True)
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "say it " * 200}]}
Times = tuple[float, float]
"""Milliseconds to the first token and to the end."""


def serve(pipe: Connection, delay_s: float) -> None:
    """Answer until told to stop."""
    reply = TextReply(text="word " * WORDS, delay_s=delay_s, chunk_delay_s=CHUNK_DELAY_S)
    with OpenAIServer(respond=lambda body: reply) as server:
        pipe.send(server.url)
        pipe.recv()


async def by_sync_client(url: str) -> Times:
    with openai.OpenAI(base_url=url, api_key="any") as client:
        started, first = time.perf_counter(), 0.0
        for chunk in client.chat.completions.create(**ASK, stream=True):
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter()
        return (first - started) * 1e3, (time.perf_counter() - started) * 1e3


async def by_async_client(url: str) -> Times:
    async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
        started, first = time.perf_counter(), 0.0
        async for chunk in await client.chat.completions.create(**ASK, stream=True):
            if not first and chunk.choices and chunk.choices[0].delta.content:
                first = time.perf_counter()
        return (first - started) * 1e3, (time.perf_counter() - started) * 1e3


async def by_langchain(url: str) -> Times:
    async with openai.AsyncOpenAI(base_url=url, api_key="any") as client:
        model = ChatOpenAI(
            model="m", base_url=url, api_key="any", async_client=client.chat.completions, root_async_client=client
        )  # type: ignore[arg-type]
        started, first = time.perf_counter(), 0.0
        async for chunk in model.astream(ASK["messages"]):
            if not first and chunk.text:
                first = time.perf_counter()
        return (first - started) * 1e3, (time.perf_counter() - started) * 1e3


WAYS: dict[str, Callable[[str], Coroutine[Any, Any, Times]]] = {
    "openai, stream": by_sync_client,
    "openai, async stream": by_async_client,
    "langchain, astream": by_langchain,
}


def governed(way: Callable[[str], Coroutine[Any, Any, Times]], url: str) -> Times:
    """Measure inside of a run, whose journal keeps the stream."""
    found: list[Times] = []

    async def agent(task: object) -> None:
        found.append(await way(url))

    report = asyncio.run(Orchestrator(POLICY).run_async(agent, "go", tools=[way]))
    if report.status != "SUCCESS" or report.model_calls != 1:
        raise SystemExit(f"{way.__name__}: {report.error or report.model_calls}")
    return found[0]


def measure(url: str, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name, way in WAYS.items():
        bare, ours = list[Times](), list[Times]()
        for number in range(rounds + 2):
            pair = (asyncio.run(way(url)), governed(way, url))
            if number >= 2:  # the first import and patch
                bare.append(pair[0])
                ours.append(pair[1])
        first_bare, first_ours = (statistics.median(one[0] for one in times) for times in (bare, ours))
        rows.append(
            {
                "way": name,
                "bare_ms": round(first_bare, 2),
                "governed_ms": round(first_ours, 2),
                "ratio": round(first_ours / first_bare, 3),
                "difference_ms": round(statistics.median(b[0] - a[0] for a, b in zip(bare, ours, strict=True)), 2),
                "whole_ms": round(statistics.median(one[1] for one in ours), 1),
            }
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--delay-ms", type=float, default=100.0, help="before the answer begins")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=serve, args=(there, options.delay_ms / 1e3), daemon=True)
    server.start()
    rows = measure(str(here.recv()), options.rounds)
    here.send("stop")
    server.join(10)
    if options.json:
        print(json.dumps({"python": platform.python_version(), "rounds": options.rounds, "rows": rows}, indent=1))
    else:
        table = Table("way", title=f"first token, median of {options.rounds}; the server waits {options.delay_ms:g} ms")
        for title in ("bare ms", "governed ms", "ratio", "difference ms", "whole stream ms"):
            table.add_column(title, justify="right")
        for row in rows:
            table.add_row(*map(str, row.values()))
        Console().print(table)
    return int(any(float(str(row["ratio"])) > ALLOWED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
