"""Loading and saving recordings against HTTP cassettes of the same traffic, as vcrpy keeps them in YAML.

One process, the same conversation: an agent that asks a model, calls a tool, and sends the whole history with every
request. PyYAML runs with libyaml, the fastest that vcrpy uses. Run: `python benchmarks/recording_files.py`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from oao_harness.journal.recording import Recording

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name.replace('_', ' ')}: looks into the system of record, returns what is there.",
            "parameters": {
                "type": "object",
                "properties": {"id": {"type": "string", "description": "the order"}, "limit": {"type": "integer"}},
                "required": ["id"],
            },
        },
    }
    for name in ("lookup_order", "lookup_customer", "refund", "notify", "search_policy")
]
SYSTEM = "\n".join(
    f"Rule {i}: be careful, be brief, and never refund without a reason that you can name." for i in range(8)
)


def conversation(turns: int) -> tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]:
    """Return the journal of an agent of so many turns, and the HTTP cassette of the same traffic."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Refund order 7."},
    ]
    tape: list[tuple[str, dict[str, Any]]] = []
    interactions: list[dict[str, Any]] = []
    decision = {"verdict": "allow", "rule": "default", "plugin": "oao"}
    n = 0

    def add(type_: str, **fields: Any) -> None:
        tape.append(("main", {"v": 1, "seq": len(tape), "type": type_, "at": 1.7e9 + len(tape), **fields}))

    for turn in range(turns):
        call_id = f"call_{turn:08x}"
        asked = {"name": TOOLS[turn % 5]["function"]["name"], "arguments": json.dumps({"id": str(turn), "limit": 5})}  # type: ignore[index]
        answer = {
            "role": "assistant",
            "content": f"I look at part {turn} of the order next, because the one before said nothing about it.",
            "tool_calls": [{"id": call_id, "type": "function", "function": asked}],
        }
        request = {"messages": messages, "tools": TOOLS, "temperature": 0}
        n += 1
        # As they come from a client: every request is a structure of its own.
        add("call", n=n, kind="model", name="gpt-x", req=json.loads(json.dumps(request)), decision=decision)
        usage = {"in": 100 * turn, "out": 30}
        add(
            "outcome",
            n=n,
            duration_s=0.8,
            res=json.loads(json.dumps({"message": answer, "stop": "tool_calls"})),
            usage=usage,
        )
        body = {
            "id": f"chatcmpl-{turn:024x}",
            "object": "chat.completion",
            "model": "gpt-x",
            "choices": [{"index": 0, "message": answer, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 100 * turn, "completion_tokens": 30, "total_tokens": 100 * turn + 30},
        }
        interactions.append(
            {
                "request": {
                    "body": json.dumps({"model": "gpt-x", **request}),
                    "headers": {
                        name: ["x" * 20] for name in ("accept", "connection", "content-type", "host", "user-agent")
                    },
                    "method": "POST",
                    "uri": "https://api.example.com/v1/chat/completions",
                },
                "response": {
                    "body": {"string": json.dumps(body)},
                    "headers": {name: ["x" * 20] for name in ("Content-Type", "Date", "Server", "x-request-id")},
                    "status": {"code": 200, "message": "OK"},
                },
            }
        )
        result = (
            f"part {turn}: paid 49.99 EUR on day {turn % 28 + 1}, delivered, seen by three people, no complaint so far"
        )
        n += 1
        add(
            "call",
            n=n,
            kind="tool",
            name=asked["name"],
            req={"id": str(turn), "limit": 5},
            decision=decision,
            call_id=call_id,
        )
        add("outcome", n=n, duration_s=0.01, res=result)
        messages += [answer, {"role": "tool", "tool_call_id": call_id, "content": result}]
    return tape, interactions


def best_of(count: int, work: Callable[[], object]) -> float:
    """Return the least processor time of so many runs, in milliseconds: other processes do not count."""
    took: list[float] = []
    for _ in range(count):
        begin = time.process_time()
        work()
        took.append((time.process_time() - begin) * 1000)
    return min(took)


def compare(turns: int, times: int, folder: Path) -> dict[str, float]:
    """Measure one length of conversation."""
    tape, interactions = conversation(turns)
    path, cassette = folder / "x.oao.json", folder / "x.yaml"
    recording = Recording.from_records(tape, test="t.py::test")
    recording.save(path)
    document = {"interactions": interactions, "version": 1}
    cassette.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper), encoding="utf-8")
    return {
        "size": path.stat().st_size,
        "cassette size": cassette.stat().st_size,
        "compile": best_of(times, lambda: Recording.from_records(tape)),
        "save": best_of(times, lambda: recording.save(path)),
        "cassette save": best_of(max(1, times // 5), lambda: yaml.dump(document, Dumper=yaml.CSafeDumper)),
        "load": best_of(times, lambda: Recording.load(path)),
        "cassette load": best_of(
            max(1, times // 5), lambda: yaml.load(cassette.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        ),
    }


def main() -> None:
    """Print the table."""
    print(f"{'events':>7} {'what':>10} {'oao':>12} {'YAML cassette':>14} {'times':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for turns, times in ((10, 20), (50, 20), (500, 5)):
            found = compare(turns, times, Path(folder))
            for what, unit, scale in (("size", "kB", 1000), ("save", "ms", 1), ("load", "ms", 1)):
                ours, theirs = found[what] / scale, found[f"cassette {what}"] / scale
                print(f"{2 * turns:>7} {what:>10} {ours:>9.1f} {unit} {theirs:>11.1f} {unit} {theirs / ours:>6.0f}x")
            print(f"{2 * turns:>7} {'compile':>10} {found['compile']:>9.1f} ms")


if __name__ == "__main__":
    main()
