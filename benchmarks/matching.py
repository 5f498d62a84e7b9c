"""What it costs to find the recorded call that answers a live one, in short and in long recordings.

Run: `python benchmarks/matching.py`. Each number is the best of three rounds; the first row that grows is a defect,
but for a conversation that is sent again whole with every call, whose requests grow themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from oao_harness.journal.matcher import Matcher
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.replay import Served
from oao_hookspecs import Call, Json, ModelCall, ToolCall

ROUNDS = 3
LENGTHS = (10, 100, 1_000, 10_000)
MOST_TURNS = 1_000
TEXT = "The order was paid by card on Monday and has not been shipped yet. " * 4

Case = tuple[list[RecordedEvent], list[Call]]


def uuid(n: int, run: int) -> str:
    return f"{n:08x}-{run:04x}-4000-8000-000000000000"


def event(n: int, call: Call, start: int, end: int) -> RecordedEvent:
    return RecordedEvent(
        n=n, kind=call.kind, name=call.name, run="main", start=start, end=end, request=call.request,
        key=key_of(call.kind, call.name, call.request), value="ok",
    )  # fmt: skip


def in_a_row(calls: list[Call], live: list[Call]) -> Case:
    return [event(n, call, 2 * n, 2 * n + 1) for n, call in enumerate(calls, 1)], live


def at_once(calls: list[Call], live: list[Call]) -> Case:
    return [event(n, call, n, len(calls) + n) for n, call in enumerate(calls, 1)], live


def tools(count: int, run: int = 0, *, same: bool = False) -> list[Call]:
    return [
        ToolCall(name="search", arguments={"query": "weather" if same else f"weather {n}", "trace": uuid(n, run)})
        for n in range(count)
    ]


def plain(count: int) -> list[Call]:
    return [ToolCall(name="search", arguments={"query": "weather", "limit": 5}) for _ in range(count)]


def turns(count: int) -> list[Call]:
    """A conversation that is sent again with every call, as new values each time, as an adapter makes them."""
    return [
        ModelCall(name="gpt-x", messages=[message(i) for i in range(n + 2)], tools=[{"name": "search"}])
        for n in range(min(count, MOST_TURNS))
    ]


def message(n: int) -> dict[str, Json]:
    if n == 0:
        return {"role": "system", "content": TEXT * 8}
    return {"role": "user" if n % 2 else "assistant", "content": f"{n}: {TEXT}"}


def microseconds(case: Callable[[], Case]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        events, live = case()
        matcher = Matcher(Recording(events=tuple(events)))
        started = time.perf_counter()
        for call in live:
            answer = matcher.serve(call, "main")
            assert isinstance(answer, Served), answer
        best = min(best, (time.perf_counter() - started) / len(live))
    return best * 1e6


def main() -> None:
    cases: list[tuple[str, Callable[[int], Case]]] = [
        ("tool calls, all different, new ids", lambda n: in_a_row(tools(n), tools(n, 1))),
        ("identical tool calls in a row", lambda n: in_a_row(plain(n), plain(n))),
        ("identical tool calls at once", lambda n: at_once(plain(n), plain(n))),
        ("identical tool calls at once, new ids", lambda n: at_once(tools(n, same=True), tools(n, 1, same=True))),
    ]
    table = Table("us for a served call", *(f"{n:,}" for n in LENGTHS), title=f"matching, best of {ROUNDS} rounds")
    for name, case in cases:
        table.add_row(name, *(f"{microseconds(lambda case=case, n=n: case(n)):.1f}" for n in LENGTHS))
    lengths = [n for n in LENGTHS if n <= MOST_TURNS]
    resent = [microseconds(lambda n=n: in_a_row(turns(n), turns(n))) for n in lengths]
    table.add_row("model calls, the history sent again", *(f"{cost:.1f}" for cost in resent), "")
    a_message = [cost / (n / 2 + 1.5) for cost, n in zip(resent, lengths, strict=True)]
    table.add_row("  for a message of it", *(f"{cost:.1f}" for cost in a_message), "")
    Console().print(table)


if __name__ == "__main__":
    main()
