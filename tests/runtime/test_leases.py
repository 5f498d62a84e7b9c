"""Who is at work on a run: one process at a time, and a dead one is nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from oao_harness import BusyError, ConfigError, Orchestrator, SQLiteStore, tool
from oao_harness.journal.leases import claim
from oao_harness.runtime import context
from oao_hookspecs import Store

ROOT = Path(__file__).parents[2]


def agent_that_waits(begun: threading.Event, go_on: threading.Event) -> object:
    def agent(task: str) -> str:
        begun.set()
        assert go_on.wait(20)
        return "done"

    return agent


def test_a_run_that_somebody_is_at_work_on_is_not_resumed(store: Store) -> None:
    """Not by another thread either, and not for as long as it runs, which is longer than one lease."""
    begun, go_on, reports = threading.Event(), threading.Event(), list[object]()
    agent = agent_that_waits(begun, go_on)
    orchestrator = Orchestrator(store=store, lease_s=0.4)
    thread = threading.Thread(target=lambda: reports.append(orchestrator.run(agent, "t", execution_id="r")))
    thread.start()
    assert begun.wait(20)
    for _ in range(4):
        time.sleep(0.25)
        with pytest.raises(BusyError, match=f"held by pid {os.getpid()} on "):
            orchestrator.resume("r", agent)
    go_on.set()
    thread.join(20)

    assert [getattr(report, "status", None) for report in reports] == ["SUCCESS"]
    assert [record["type"] for record in store.read("r")].count("run.resumed") == 0
    assert claim(store, "r") == 2


def test_an_id_that_is_in_use_is_refused_and_the_run_goes_on(store: Store) -> None:
    """Whoever gives a run the id of one that is running takes nothing away from it."""
    orchestrator = Orchestrator(store=store)

    @tool
    def again(task: str) -> str:
        with pytest.raises(BusyError):
            Orchestrator(store=store).run(lambda task: task, task, execution_id="r")
        return "refused"

    assert orchestrator.run(lambda task: again(task), "t", execution_id="r").final_output == "refused"


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lease_of_a_dead_process_holds_nobody_up(tmp_path: Path, reaped: bool) -> None:
    """Also where its parent has not heard of its death yet."""
    path = tmp_path / "oao.db"
    code = (
        "import os\nfrom oao_harness import SQLiteStore\nfrom oao_harness.journal.leases import claim\n"
        f"claim(SQLiteStore({str(path)!r}), 'r', ttl_s=600)\nprint('claimed', flush=True)\nos.kill(os.getpid(), 19)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hookspecs'}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    store = SQLiteStore(path)
    with pytest.raises(BusyError):
        claim(store, "r")  # stopped is not dead

    os.kill(process.pid, signal.SIGKILL)
    if reaped:
        process.wait(20)
    deadline = time.monotonic() + 20
    while True:
        try:
            assert claim(store, "r") == 2
            break
        except BusyError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    process.wait(20)
    process.stdout.close()
    store.close()


@pytest.mark.parametrize(
    "owner",
    [
        "pid 1 on some-other-host [abc-1]",
        f"pid {os.getpid()} on some [host] [0-0]",
        "a plugin of somebody's",
        "",
    ],
    ids=["another host", "odd name", "other words", "nobody"],
)
def test_of_other_owners_nobody_knows(store: Store, owner: str) -> None:
    """Their leases hold until they lapse."""
    store.claim("r", owner=owner, ttl_s=0.3)
    with pytest.raises(BusyError):
        claim(store, "r")
    time.sleep(0.4)
    assert claim(store, "r") == 2


def test_a_run_that_lost_its_lease_has_no_end(store: Store) -> None:
    """Also where its store can be written to again: who goes on ends it, and no finished call is repeated."""
    ran: list[str] = []
    lost_once: list[bool] = []

    @tool(effect="idempotent")
    def step(name: str) -> str:
        ran.append(name)
        return name

    def agent(task: str) -> str:
        first = step("first")
        if not lost_once:
            lost_once.append(True)
            (run,) = context.open_runs({"r"})
            run.lose("the store was away for longer than the lease")
        return f"{first}, {step('second')}"

    orchestrator = Orchestrator(store=store, lease_s=0.3)
    lost = orchestrator.run(agent, "t", execution_id="r")

    assert (lost.status, (lost.violation or {}).get("rule")) == ("FAILED", "lease")
    assert "run.finished" not in [record["type"] for record in store.read("r")]
    time.sleep(0.4)
    assert orchestrator.resume("r", agent).final_output == "first, second"
    assert ran == ["first", "second"]


def test_a_lease_without_time_is_no_lease() -> None:
    """Refused where it is given."""
    with pytest.raises(ConfigError, match="lease_s=0"):
        Orchestrator(lease_s=0)
