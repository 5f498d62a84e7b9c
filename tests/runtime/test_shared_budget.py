"""A budget that many processes draw from: calls become amounts, refusals become denials, holds stay alive."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from oao_harness import ConfigError, SharedBudget, StoreError
from oao_harness.runtime.renewal import release_all
from oao_harness.runtime.shared_budget import SharedHold
from oao_harness.stores.memory_ledger import MemoryLedger
from oao_harness.stores.sqlite_ledger import SQLiteLedger
from oao_hookspecs import Amounts, Deny, Limits, ModelCall, Price, ProposedCall, Refusal, ToolCall, Usage

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Let no test renew the holds of another."""
    yield
    release_all()


PRICE = Price(input_per_million=2.0, output_per_million=10.0)


def ask(text: str = "x" * 393, **params: Any) -> ModelCall:
    """A request of about 100 tokens."""
    return ModelCall(name="m", messages=[{"content": text}], params=params)


def search(name: str = "search") -> ToolCall:
    return ToolCall(name=name, arguments={})


def taken(answer: SharedHold | Deny) -> SharedHold:
    assert isinstance(answer, SharedHold), answer
    return answer


def denied(answer: object) -> Deny:
    assert isinstance(answer, Deny), answer
    return answer


def budget(ledger: MemoryLedger | SQLiteLedger | str | None = None, **limits: Any) -> SharedBudget:
    return SharedBudget("team", MemoryLedger() if ledger is None else ledger, limits=Limits(**limits))


def test_a_model_call_is_reserved_at_its_worst_and_settled_as_it_was() -> None:
    """Estimated input and declared output are held; what the provider reports is spent."""
    team = budget(max_tokens=1000)
    hold = taken(team.reserve(ask(max_tokens=500), PRICE))
    assert team.totals() == {
        "steps": Amounts(held=1),
        "model_calls": Amounts(held=1),
        "input_tokens": Amounts(held=100),
        "output_tokens": Amounts(held=500),
        "tokens": Amounts(held=600),
        "cost": Amounts(held=100 * 2_000 + 500 * 10_000),
    }

    assert team.settle(hold, Usage(input_tokens=90, output_tokens=20)) is None
    assert {counter: found.spent for counter, found in team.totals().items()} == {
        "steps": 1, "model_calls": 1, "input_tokens": 90, "output_tokens": 20, "tokens": 110, "cost": 380_000,
    }  # fmt: skip
    assert not any(found.held for found in team.totals().values())


def test_a_denial_says_what_is_left_and_what_is_in_flight() -> None:
    """Two budgets over one ledger are one budget."""
    ledger = MemoryLedger()
    one, other = budget(ledger, max_tokens=1000), budget(ledger, max_tokens=1000)
    taken(one.reserve(ask(max_tokens=500)))

    denial = denied(other.reserve(ask(max_tokens=400)))
    assert denial == Deny(
        rule="max_tokens",
        plugin="budget",
        reason="budget 'team': tokens: 500 asked, 400 of 1000 left (600 held by calls in flight)",
    )


@pytest.mark.parametrize(
    ("limits", "call", "rule"),
    [
        ({"max_steps": 1}, search(), "max_steps"),
        ({"max_tool_calls": 1}, search(), "max_tool_calls"),
        ({"tool_limits": {"search": 1}}, search(), "tool_limits.search"),
        ({"tool_limits": {"sea*": 1}}, search(), "tool_limits.sea*"),
        ({"max_model_calls": 1}, ask(), "max_model_calls"),
        ({"max_tokens": 150}, ask(), "max_tokens"),
        ({"max_input_tokens": 150}, ask(), "max_input_tokens"),
        ({"max_output_tokens": 150}, ask(max_tokens=100), "max_output_tokens"),
        ({"max_output_tokens": 150, "assumed_output_tokens": 100}, ask(), "max_output_tokens"),
        ({"max_cost_usd": 0.0003}, ask(), "max_cost_usd"),
    ],
)
def test_every_limit_lets_one_through_and_no_second(limits: dict[str, Any], call: Any, rule: str) -> None:
    """The rule is the name of the limit."""
    team = budget(**limits)
    taken(team.reserve(call, PRICE))
    assert denied(team.reserve(call, PRICE)).rule == rule


def test_tools_of_one_pattern_count_together_and_others_do_not() -> None:
    """As in the budget of a run."""
    team = budget(tool_limits={"web_*": 2})
    taken(team.reserve(search("web_get")))
    taken(team.reserve(search("web_post")))
    assert "tool:web_*: 1 asked, 0 of 2 left" in denied(team.reserve(search("web_get"))).reason
    taken(team.reserve(search("calculate")))


def test_money_without_a_price_is_a_denial() -> None:
    """Unknown is never free; `unknown_price` is what somebody decided."""
    assert denied(budget(max_cost_usd=1.0).reserve(ask())).rule == "unknown_price"
    taken(budget(max_cost_usd=1.0).reserve(search()))
    team = budget(max_cost_usd=0.0003, unknown_price=PRICE)
    taken(team.reserve(ask()))
    assert denied(team.reserve(ask())).reason == (
        "budget 'team': cost: 0.000200 USD asked, 0.000100 USD of 0.000300 USD left "
        "(0.000200 USD held by calls in flight)"
    )


def test_who_spends_more_than_was_reserved_and_allowed_is_told() -> None:
    """The next call must not happen; the spending is counted."""
    team = budget(max_tokens=150)
    denial = denied(team.settle(taken(team.reserve(ask())), Usage(input_tokens=100, output_tokens=900)))
    assert (denial.rule, denial.reason) == ("max_tokens", "budget 'team': tokens: 1000 spent, the limit is 150")


@pytest.mark.parametrize("reported", [10**40, 2**53])
def test_nonsense_of_a_provider_is_counted_as_much(reported: int) -> None:
    """And a negative count is none."""
    team = budget(max_tokens=150)
    hold = taken(team.reserve(ask()))
    assert denied(team.settle(hold, Usage(input_tokens=reported, output_tokens=-5))).rule == "max_tokens"
    assert team.totals()["tokens"].spent == 2**53 - 1
    assert "output_tokens" not in team.totals()


def test_a_call_that_will_not_happen_costs_nothing() -> None:
    """`release` gives everything back."""
    team = budget(max_steps=1)
    team.release(taken(team.reserve(search())))
    assert team.totals() == {}


def test_a_batch_is_refused_as_a_whole() -> None:
    """Where its calls together would pass a limit; nothing is reserved by the question."""
    team = budget(max_tool_calls=3, tool_limits={"pay": 1})
    taken(team.reserve(search()))
    batch = [ProposedCall(name=name, arguments={}) for name in ("search", "search", "pay")]

    assert team.refuse_batch(batch[:2]) is None
    assert denied(team.refuse_batch(batch)).rule == "max_tool_calls"
    assert denied(team.refuse_batch([batch[2], batch[2]])).rule == "tool_limits.pay"
    assert team.totals()["tool_calls"] == Amounts(held=1)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"limits": Limits(max_steps=-1)}, "-1 of steps"),
        ({"limits": Limits(max_cost_usd=math.nan)}, "nan of cost"),
        ({"limits": Limits(max_cost_usd=math.inf)}, "inf of cost"),
        ({"limits": Limits(max_tokens=1.5)}, r"1\.5 of tokens"),  # type: ignore[arg-type]
        ({"limits": Limits(tool_limits={"a": True})}, "True of tool:a"),
        ({"ttl_s": 0.5}, "ttl_s"),
        ({"ttl_s": math.nan}, "ttl_s"),
        ({"name": ""}, "name"),
        ({"name": "x" * 10_240}, "name"),
        ({"ledger": "mongo:x"}, "mongo:x"),
    ],
)
def test_what_is_wrong_is_found_at_once(arguments: dict[str, Any], match: str) -> None:
    """When the budget is made, not at the first call."""
    with pytest.raises(ConfigError, match=match):
        SharedBudget(**{"name": "team", "ledger": MemoryLedger(), "limits": Limits(), **arguments})


def test_a_tool_with_an_impossible_name_is_denied() -> None:
    """A model may ask for anything; nothing is raised."""
    team = budget(max_steps=5)
    assert "has 10245 bytes" in denied(team.reserve(search("x" * 10_240))).reason
    taken(team.reserve(search("\ud83d {x}\n")))


class Fragile(MemoryLedger):
    """A ledger that can be unplugged."""

    down = False

    def _require_process(self) -> None:
        if self.down:
            raise StoreError("the ledger redis://far:6379/0 failed: gone")


def until(true: Any) -> None:
    """Wait for a thread, with a bound."""
    give_up = time.monotonic() + 20
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_ledger_that_is_down_denies_and_is_told_later_what_was_spent() -> None:
    """The spending happened: it is settled as soon as the ledger is back, and once."""
    ledger = Fragile()
    team = SharedBudget("team", ledger, limits=Limits(max_steps=2), ttl_s=1)
    one, other = taken(team.reserve(search())), taken(team.reserve(search()))
    ledger.down = True
    assert denied(team.reserve(search())).reason == "budget 'team': the ledger redis://far:6379/0 failed: gone"
    assert denied(team.settle(one, None)).rule == "ledger"
    team.release(other)
    assert denied(team.refuse_batch([ProposedCall(name="a", arguments={})])).rule == "ledger"
    ledger.down = False

    until(lambda: team.totals() == {c: Amounts(spent=1) for c in ("steps", "tool_calls", "tool:search")})


class Broken:
    """A plugin's ledger that raises what nobody expects."""

    def reserve(self, *_: Any) -> Refusal | None:
        raise ZeroDivisionError("surprise")

    def settle(self, account: str, hold: str, spent: Mapping[str, int]) -> None: ...

    def renew(self, account: str, holds: Sequence[str], ttl_s: float) -> Sequence[str]:
        return []

    def totals(self, account: str) -> Mapping[str, Amounts]:
        return {}

    def close(self) -> None: ...


def test_an_error_of_a_ledger_is_a_denial() -> None:
    """Fail closed, whatever it raises."""
    assert "surprise" in denied(SharedBudget("team", Broken(), limits=Limits()).reserve(search())).reason


def test_a_long_call_keeps_its_hold(tmp_path: Path) -> None:
    """Longer than the time to live, by one thread for all budgets; which ends when nothing is held."""
    ledger = SQLiteLedger(tmp_path / "oao.db")
    budgets = [SharedBudget(f"team-{n}", ledger, limits=Limits(max_steps=1), ttl_s=1) for n in range(3)]
    holds = [taken(team.reserve(search())) for team in budgets]
    finished = time.monotonic() + 2.5
    while time.monotonic() < finished:
        for team in budgets:
            assert isinstance(team.reserve(search()), Deny)
        time.sleep(0.05)
    assert [thread.name for thread in threading.enumerate()].count("oao-renewal") == 1
    for team, hold in zip(budgets, holds, strict=True):
        team.settle(hold, None)
    until(lambda: "oao-renewal" not in [thread.name for thread in threading.enumerate()])
    ledger.close()


def test_a_hold_that_was_lost_is_told_and_its_spending_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """As after a suspension that was longer than the time to live."""
    ledger = MemoryLedger(clock=lambda: now[0])
    now = [0.0]
    team = SharedBudget("team", ledger, limits=Limits(max_steps=1), ttl_s=1)
    hold = taken(team.reserve(search()))
    with caplog.at_level(logging.WARNING):
        now[0] = 100.0
        until(lambda: "1 holds expired while their calls were in flight" in caplog.text)
    team.settle(hold, None)
    assert team.totals()["steps"] == Amounts(spent=1)


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Any]:
    """Run Python with a budget `team` over a SQLite file, and return that file's totals afterwards."""
    path = tmp_path / "oao.db"
    head = (
        "import os, signal\nfrom oao_harness import SharedBudget\nfrom oao_hookspecs import Limits, ToolCall\n"
        f"team = SharedBudget('team', 'sqlite:{path}', limits=Limits(max_steps=5))\n"
        "call = ToolCall(name='t', arguments={})\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}

    def run(code: str) -> tuple[int, Mapping[str, Amounts]]:
        done = subprocess.run([sys.executable, "-c", head + code], env=environment, timeout=60, check=False)
        ledger = SQLiteLedger(path)
        totals = ledger.totals("team")
        ledger.close()
        return done.returncode, totals

    return run


def test_a_process_that_ends_gives_back_what_it_holds(script: Any) -> None:
    """At once; a killed one leaves that to the time to live."""
    assert script("team.reserve(call); team.settle(team.reserve(call), None)") == (
        0,
        {"steps": Amounts(spent=1), "tool_calls": Amounts(spent=1), "tool:t": Amounts(spent=1)},
    )
    code, totals = script("team.reserve(call); os.kill(os.getpid(), signal.SIGKILL)")
    assert (code, totals["steps"]) == (-9, Amounts(spent=1, held=1))


def _child(team: SharedBudget, hold: SharedHold, sent: Any) -> None:
    team.settle(hold, None)
    team.release(hold)
    sent.send((type(team.reserve(search())).__name__, [thread.name for thread in threading.enumerate()]))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_leaves_the_holds_of_its_parent_alone() -> None:
    """It neither settles nor releases nor renews them, also not when it ends, and has no say in a memory ledger."""
    team = budget(f"memory:{uuid.uuid4().hex}", max_steps=5)
    hold = taken(team.reserve(search()))
    fork = multiprocessing.get_context("fork")
    received, sent = fork.Pipe(duplex=False)
    child = fork.Process(target=_child, args=(team, hold, sent))
    child.start()
    assert received.poll(30)
    kind, threads = received.recv()
    child.join(30)

    assert (kind, "oao-renewal" in threads) == ("Deny", False)
    assert team.totals()["steps"] == Amounts(held=1)
    assert team.settle(hold, None) is None
    assert team.totals()["steps"] == Amounts(spent=1)


def test_many_threads_of_many_budgets_spend_exactly_the_limit(tmp_path: Path) -> None:
    """Each with a connection of its own to one file."""
    spent: list[int] = []

    def work() -> None:
        ledger = SQLiteLedger(tmp_path / "oao.db")
        team = SharedBudget("team", ledger, limits=Limits(max_tool_calls=50))
        for _ in range(20):
            hold = team.reserve(search())
            if isinstance(hold, SharedHold):
                spent.append(1)
                team.settle(hold, None)
        ledger.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(spent) == 50
