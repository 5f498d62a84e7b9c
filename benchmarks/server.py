"""The server beside a bare FastAPI endpoint, 1,000 open streams, and hanging agents beside good ones; all on loopback.

    python -m benchmarks.server [--rounds 3] [--seconds 3] [--clients 32] [--store memory:]

Each is a process of its own, and so is the one that asks; competitors take turns in every round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AGENTS = """
import asyncio, time

async def echo(task):
    return task

async def hang(task):
    await asyncio.sleep(3600)

def hang_sync(task):
    time.sleep(3600)

async def block_loop(task):
    time.sleep(3600)
"""
PROJECT = """
[tool.oao.agents]
echo = "served:echo"
hang = "served:hang"
hang-sync = "served:hang_sync"
block-loop = "served:block_loop"
"""
BARE = """
from typing import Any
from fastapi import FastAPI
from pydantic import BaseModel

class Request(BaseModel):
    agent: str
    task: Any

class Report(BaseModel):
    execution_id: str
    status: str
    final_output: Any

app = FastAPI()

@app.post("/run")
async def run(body: Request) -> Report:
    return Report(execution_id="x", status="SUCCESS", final_output=body.task)

@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {}
"""


def start(folder: Path, app: str, port: int, store: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), str(root / "hookspecs")])
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--no-access-log", "--log-level", "error"]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths, "OAO_STORE": store})


def request(path: str, body: object = None) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    kind = "Content-Type: application/json"
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(length)


async def ready(port: int) -> None:
    for _ in range(600):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("/healthz"))
            status, _ = await answer(reader)
            writer.close()
            if status == 200:
                return
        except OSError:
            await asyncio.sleep(0.1)
    raise TimeoutError


async def load(port: int, clients: int, seconds: float) -> float:
    """Return the requests per second of clients that each ask again as soon as they are answered."""
    asked = request("/run", {"agent": "echo", "task": "hello"})
    done = 0
    until = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < until:
            writer.write(asked)
            status, body = await answer(reader)
            assert status == 200, body
            assert b'"SUCCESS"' in body
            done += 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began)


def memory_mb(pid: int) -> float:
    """Return what a process holds of the machine's memory, 1e6 bytes; Linux."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


async def streams(port: int, number: int, pid: int) -> str:
    """Open many streams of the list of runs, run one agent, and see when the last one has heard of it."""
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    before_mb, began = memory_mb(pid), time.perf_counter()
    for _ in range(number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/events"))
        opened.append((reader, writer))
    await asyncio.gather(*(reader.readuntil(b": oao") for reader, _ in opened))
    opened_s, with_mb = time.perf_counter() - began, memory_mb(pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(request("/run", {"agent": "echo", "task": "heard"}))
    await answer(reader)
    ran_s = time.perf_counter() - began
    await asyncio.wait_for(asyncio.gather(*(one.readuntil(b'"SUCCESS"') for one, _ in opened)), 60)
    heard_s = time.perf_counter() - began
    for _, one in opened:
        one.close()
    beside = f"a run beside them {ran_s * 1e3:.0f} ms, all heard in {heard_s:.2f} s"
    held = f"{before_mb:.0f} MB before, {with_mb:.0f} MB with them"
    return f"{number} streams opened in {opened_s:.2f} s; {beside}; {held}"


async def hanging(port: int) -> str:
    """Run 6 agents that hang beside 100 good ones."""
    bad = [
        asyncio.create_task(one(port, name, {"deadline_s": 5}))
        for name in ("hang", "hang-sync", "block-loop", "hang", "hang-sync", "block-loop")
    ]
    await asyncio.sleep(0.5)
    took = sorted(await asyncio.gather(*(one(port, "echo", {}) for _ in range(100))))
    late = await asyncio.gather(*bad)
    good = f"median {statistics.median(took) * 1e3:.0f} ms, last {took[-1] * 1e3:.0f} ms"
    return (
        f"100 good runs beside 6 that hang: {good}; "
        f"those that hang, with a deadline of 5 s: {min(late):.2f} to {max(late):.2f} s"
    )


async def one(port: int, agent: str, more: dict[str, object]) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.perf_counter()
    writer.write(request("/run", {"agent": agent, "task": "x", **more}))
    status, _ = await answer(reader)
    assert status == 200
    writer.close()
    return time.perf_counter() - began


async def measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in (("served.py", AGENTS), ("pyproject.toml", PROJECT), ("bare.py", BARE)):
            (folder / file).write_text(text)
        started = [
            start(folder, "bare:app", 18901, ""),
            start(folder, "oao_harness.server:app", 18902, options.store),
        ]
        try:
            await asyncio.gather(ready(18901), ready(18902))
            found: dict[str, list[float]] = {"bare FastAPI": [], f"oao, {options.store}": []}
            for port in (18901, 18902):
                await load(port, options.clients, 1)
            for _ in range(options.rounds):
                for rates, port in zip(found.values(), (18901, 18902), strict=True):
                    rates.append(await load(port, options.clients, options.seconds))
            for title, rates in found.items():
                print(f"{title:<24} {statistics.median(rates):8.0f} requests/s   {[round(one) for one in rates]}")
            bare, ours = found.values()
            shares = [b / a for a, b in zip(bare, ours, strict=True)]
            print(
                f"{'share of the bare one':<24} {statistics.median(shares):8.2f}   {[round(one, 2) for one in shares]}"
            )
            print(await streams(18902, options.streams, started[1].pid))
            print(await hanging(18902))
            began = time.perf_counter()
            started[1].terminate()
            started[1].wait(30)
            print(f"stopped in {time.perf_counter() - began:.2f} s")
        finally:
            for process in started:
                process.kill()
                process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--store", default="memory:")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
