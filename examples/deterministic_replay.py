"""A run is killed again and again, resumed until done, and replayed offline: nothing is lost, nothing is done twice.

Run it: `python examples/deterministic_replay.py`. No key and no server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import oao_harness as oao
from oao_harness import Orchestrator
from oao_harness.journal.recording import Recording

CHAPTERS = 12


@oao.model(name="gpt-x")
def write(prompt: str) -> dict[str, object]:
    """Stand for a model that is paid for each answer."""
    _bill(f"model: {prompt}")
    time.sleep(0.02)
    return {"content": f"text of {prompt}", "usage": {"input_tokens": 200, "output_tokens": 400}}


@oao.tool(effect="idempotent")
def publish(chapter: int, text: str) -> str:
    """Publish a chapter; the shop knows the key, and does nothing the second time."""
    call = oao.current_call()
    assert call is not None
    shop = Path("shop")
    if call.idempotency_key not in (shop.read_text(encoding="utf-8").split() if shop.exists() else []):
        with shop.open("a", encoding="utf-8") as file:
            file.write(f"{call.idempotency_key}\n")
    return f"chapter {chapter} is out"


def _bill(what: str) -> None:
    with Path("bill").open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")


def author(task: str) -> str:
    """Write and publish the chapters of a book."""
    for chapter in range(1, CHAPTERS + 1):
        publish(chapter, str(write(f"{task}, chapter {chapter}")["content"]))
    return f"{task}: {CHAPTERS} chapters"


def work(what: str) -> None:
    """Run or resume the book in this process."""
    orchestrator = Orchestrator(store="sqlite:oao.db")
    if what == "run":
        orchestrator.run(author, "The Gate", execution_id="book")
    else:
        orchestrator.resume("book", author)


def main() -> None:
    """Kill the author's process until the book is done all the same."""
    kills = 0
    while not _is_done():
        what = "resume" if Path("oao.db").exists() and _records() else "run"
        process = subprocess.Popen([sys.executable, __file__, what])
        published = len(_lines("shop"))
        while process.poll() is None:
            if len(_lines("shop")) >= published + 3 and kills < 3:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                print(f"kill -9: {len(_lines('shop'))} of {CHAPTERS} chapters are out")
                break
            time.sleep(0.005)
        process.wait()
    records = _records()
    billed, published = _lines("bill"), _lines("shop")
    print(f"done after {kills} kills: {records[-1]['output']}")
    print(f"published: {len(published)} chapters, {len(published) - len(set(published))} of them twice")
    print(f"paid for: {len(set(billed))} answers; cut off by a kill and asked again: {len(billed) - len(set(billed))}")

    before = _lines("bill")
    replayed = Orchestrator().replay(author, "The Gate", Recording.from_records(records))
    print(f"replayed offline: {replayed.status}, {len(_lines('bill')) - len(before)} answers paid for")
    assert replayed.final_output == records[-1]["output"]


def _records() -> list[object]:
    store = Orchestrator(store="sqlite:oao.db").store
    try:
        return list(store.read("book"))
    finally:
        store.close()


def _is_done() -> bool:
    return Path("oao.db").exists() and bool(found := _records()) and found[-1]["type"] == "run.finished"


def _lines(name: str) -> list[str]:
    return Path(name).read_text(encoding="utf-8").splitlines() if Path(name).exists() else []


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            main()
            os.chdir("/")
