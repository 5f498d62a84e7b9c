"""A fleet in one process: jobs are runs that wait for a worker, and none is lost, done twice, or done unasked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

import oao_harness as oao
from oao_harness import (
    AgentError,
    Agents,
    ConfigError,
    DistributedScheduler,
    Fleet,
    MemoryStore,
    Retries,
    SQLiteStore,
    UsageError,
)
from oao_harness.fleet.agents import Registered
from oao_harness.journal.chain import intact
from oao_harness.schedulers.local import LocalScheduler
from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Job, Principal, Store
from pytest_oao.testing import RedisServer

ME = Principal(id="dana")
made: list[str] = []
failures = {"left": 0}


@oao.tool(effect="once")
def charge(order: str) -> str:
    made.append(f"charge {order}")
    return f"charged {order}"


@oao.tool(effect="idempotent")
def notify(order: str) -> str:
    call = oao.current_call()
    assert call is not None
    made.append(f"notify {order} {call.idempotency_key}")
    if failures["left"] > 0:
        failures["left"] -= 1
        raise ConnectionError("the mail server is away")
    return f"notified {order}"


class Desk:
    """Charges, then notifies."""

    def invoke(self, task: str) -> dict[str, str]:
        return {"output": f"{charge(task)}, {notify(task)}"}


def failing(task: str) -> str:
    raise ValueError("no such order")


async def hanging(task: str) -> str:
    made.append(f"hanging {task}")
    await asyncio.sleep(60)
    return "never"


def counting(task: int) -> int:
    made.append(f"counting {task}")
    return task + 1


AGENTS = Agents.of({"desk": Desk(), "failing": failing, "hanging": hanging, "counting": counting})


@pytest.fixture(autouse=True)
def _forget() -> None:
    made.clear()
    failures["left"] = 0


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """The one on a server is written to by many runs at once."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        opened: Store = RedisStore(f"{server.url}?prefix={uuid4().hex}")
    else:
        opened = MemoryStore() if request.param == "memory" else SQLiteStore(str(tmp_path / "fleet.db"))
    yield opened
    opened.close()


@asynccontextmanager
async def working(
    store: Store, *, slots: int = 4, drain_s: float = 5.0, agents: Agents = AGENTS
) -> AsyncIterator[Fleet]:
    """A fleet with one worker."""
    fleet, stop = Fleet(LocalScheduler(), store, agents), asyncio.Event()
    worker = asyncio.create_task(fleet.work(slots, stop, drain_s))
    try:
        yield fleet
    finally:
        stop.set()
        await worker


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen in 5 s"
        await asyncio.sleep(0.01)


async def test_a_job_is_done_and_its_journal_says_so(store: Store) -> None:
    """A submitted job is a run: queued, begun by a worker, over, and its report can be fetched."""
    async with working(store) as fleet:
        job = await fleet.submit("desk", "A-1", tenant="shop", principal=ME)
        report = await fleet.fetch(job, 5)
        status = await fleet.status(job)
    assert report is not None
    assert (report.status, report.final_output) == ("SUCCESS", "charged A-1, notified A-1")
    assert (report.tool_calls, report.tool_usage) == (2, {"charge": 1, "notify": 1})
    assert report.state_history == ["INIT", "PLAN", "EXECUTE", "REVIEW", "TERMINATE"]
    assert (status.status, status.attempts, status.tenant) == ("SUCCESS", 1, "shop")
    records = intact(list(store.read(job)), job)
    assert [record["type"] for record in records].count("run.started") == 1
    assert "waited_s" in next(record for record in records if record["type"] == "plan")


async def test_an_unknown_agent_is_refused_before_anything_is_written(store: Store) -> None:
    """Code is never named by a job."""
    fleet = Fleet(LocalScheduler(), store, AGENTS)
    for name in ("dusk", "os:system", "tests.fleet.test_fleet:hanging"):
        with pytest.raises(AgentError, match="desk"):
            await fleet.submit(name, "x")
    assert list(store.runs()) == []


async def test_a_task_that_cannot_travel_is_refused(store: Store) -> None:
    """An object of this process is nothing that a worker could be handed."""
    fleet = Fleet(LocalScheduler(), store, AGENTS)
    with pytest.raises(UsageError, match="cannot travel"):
        await fleet.submit("desk", object())
    assert list(store.runs()) == []


async def test_the_same_id_is_one_job(store: Store) -> None:
    """Who submits again because an answer got lost gets the job that there is."""
    async with working(store) as fleet:
        await asyncio.gather(*(fleet.submit("counting", 1, execution_id="job-1") for _ in range(5)))
        report = await fleet.fetch("job-1", 5)
        await fleet.submit("counting", 1, execution_id="job-1")
        with pytest.raises(UsageError, match="another one"):
            await fleet.submit("counting", 2, execution_id="job-1")
    assert report is not None
    assert report.final_output == 2
    assert made == ["counting 1"]


async def test_a_transient_failure_is_tried_again_from_where_it_was(store: Store) -> None:
    """The finished call is not made again; the failed one is, under the key that it had."""
    failures["left"] = 2
    async with working(store) as fleet:
        job = await fleet.submit("desk", "A-2", retries=Retries(times=3, first_s=0.01), policy=["off"])
        report = await fleet.fetch(job, 5)
        status = await fleet.status(job)
    assert report is not None
    assert report.status == "SUCCESS"
    assert made == ["charge A-2", *[f"notify A-2 {job}#2"] * 3]
    assert (status.retries, status.attempts) == (2, 3)


async def test_what_failed_too_often_is_a_dead_letter_that_can_be_driven_again(store: Store) -> None:
    """A dead letter waits with all that it did; driven again, it goes on from there."""
    failures["left"] = 3
    async with working(store) as fleet:
        job = await fleet.submit("desk", "A-3", retries=Retries(times=1, first_s=0.01), policy=["off"])
        dead = await fleet.fetch(job, 5)
        status = await fleet.status(job)
        listed = [row.execution_id for row in await fleet.jobs("DEAD")]
        await fleet.redrive(job, ME)
        report = await fleet.fetch(job, 5)
    assert dead is not None
    assert (status.status, listed) == ("DEAD", [job])
    assert "tried 2 times: ConnectionError: the mail server is away" in status.reason
    # One failure was left for the first try after that, and that is tried again too.
    assert report is not None
    assert report.status == "SUCCESS"
    assert made.count("charge A-3") == 1


async def test_a_tool_that_may_have_happened_is_not_tried_again(store: Store) -> None:
    """A failed call of a tool that may not be made twice ends the job, and the report says why."""

    @oao.tool(effect="once")
    def pay() -> str:
        made.append("pay")
        raise ConnectionError("cut")

    async with working(store, agents=Agents.of({"payer": lambda task: pay()})) as fleet:
        job = await fleet.submit("payer", "x", retries=Retries(first_s=0.01), policy=["off"])
        report = await fleet.fetch(job, 5)
    assert report is not None
    assert report.status == "FAILED"
    assert made == ["pay"]
    assert "declare its effect" in report.ungoverned[0]


async def test_other_failures_are_not_tried_again(store: Store) -> None:
    """A ValueError will be one the next time too."""
    async with working(store) as fleet:
        report = await fleet.fetch(await fleet.submit("failing", "x"), 5)
    assert report is not None
    assert (report.status, report.error) == ("FAILED", "ValueError: no such order")


async def test_a_queued_job_is_cancelled(store: Store) -> None:
    """It never begins, and its journal says who cancelled it."""
    async with working(store) as fleet:
        job = await fleet.submit("counting", 1, delay_s=60)
        status = await fleet.cancel(job, ME)
        assert (status.status, status.reason) == ("FAILED", "cancelled by dana")
        with pytest.raises(UsageError, match="is over"):
            await fleet.cancel(job, ME)
    assert made == []


async def test_a_running_job_is_cancelled(store: Store) -> None:
    """A running job stops, and frees its slot."""
    async with working(store, slots=1) as fleet:
        job = await fleet.submit("hanging", "x")
        await until(lambda: made == ["hanging x"])
        status = await fleet.cancel(job, ME)
        assert status.status == "FAILED"
        assert "cancelled" in status.reason
        report = await fleet.fetch(await fleet.submit("counting", 1), 5)
    assert report is not None
    assert report.status == "SUCCESS"


async def test_a_worker_that_stops_hands_back_what_takes_too_long(store: Store) -> None:
    """Another worker goes on with it; it is neither failed nor lost."""
    async with working(store, drain_s=0.1) as fleet:
        job = await fleet.submit("hanging", "x")
        await until(lambda: made == ["hanging x"])
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert (await fleet.status(job)).status == "QUEUED"
    async with working(store, drain_s=0.1):
        await until(lambda: made == ["hanging x", "hanging x"])


async def test_a_worker_that_is_cancelled_hands_everything_back(store: Store) -> None:
    """It begins with nothing again, and what it had is neither failed nor lost."""
    fleet = Fleet(LocalScheduler(), store, AGENTS)
    worker = asyncio.create_task(fleet.work(4))
    job = await fleet.submit("hanging", "x")
    await until(lambda: made == ["hanging x"])
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    status = await fleet.status(job)
    assert (status.status, status.attempts) == ("QUEUED", 1)
    assert made == ["hanging x"]


async def test_a_worker_that_stops_ends_what_it_can(store: Store) -> None:
    """Drain: what ends in time is done, not handed back."""

    async def slow(task: str) -> str:
        made.append("slow")
        await asyncio.sleep(0.3)
        return "done"

    async with working(store, agents=Agents.of({"slow": slow})) as fleet:
        job = await fleet.submit("slow", "x")
        await until(lambda: made == ["slow"])
    assert (await fleet.status(job)).status == "SUCCESS"


async def test_jobs_that_no_queue_knows_are_found_in_the_store(store: Store) -> None:
    """A queue that was lost loses no job: a worker that starts finds them in the store."""
    lost = Fleet(LocalScheduler(), store, AGENTS)
    jobs = [await lost.submit("counting", n) for n in range(5)]
    async with working(store) as fleet:
        reports = [await fleet.fetch(job, 5) for job in jobs]
    assert [report.final_output if report else None for report in reports] == [1, 2, 3, 4, 5]
    assert sorted(made) == [f"counting {n}" for n in range(5)]


async def test_what_was_never_submitted_is_not_done(store: Store) -> None:
    """Whoever can write to the queue can make workers do nothing that the store does not hold."""
    orchestrator = oao.Orchestrator(store=store)
    orchestrator.run(counting, 7, execution_id="mine")
    made.clear()
    async with working(store) as fleet:
        for name in ("mine", "unheard-of", "../../etc"):
            await fleet.scheduler.submit(Job(execution_id=name, agent="counting"))
        report = await fleet.fetch(await fleet.submit("counting", 1), 5)
    assert report is not None
    assert made == ["counting 1"]


async def test_an_agent_of_other_workers_waits_for_them(store: Store) -> None:
    """A worker that lacks the agent hands the job back; it is not failed."""
    async with working(store, agents=Agents.of({"counting": counting})) as fleet:
        submitting = Fleet(fleet.scheduler, store, AGENTS)
        job = await submitting.submit("desk", "x")
        await fleet.fetch(await fleet.submit("counting", 1), 5)
        assert (await fleet.status(job)).status == "QUEUED"
    assert made == ["counting 1"]


async def test_an_approval_suspends_a_job_and_its_answer_wakes_it(store: Store, tmp_path: Path) -> None:
    """A person's answer is found in the store; nobody must submit the job again."""
    policy = tmp_path / "ask.toml"
    policy.write_text('[tools]\nask = ["charge"]\n')
    agents = Agents([Registered(name="desk", source="test", load=Desk, policy=(str(policy),))])
    async with working(store, agents=agents) as fleet:
        job = await fleet.submit("desk", "A-4")
        held = await fleet.fetch(job, 5)
        assert held is not None
        assert held.status == "SUSPENDED"
        assert made == []
        oao.Orchestrator(store=store).approve(held.approvals[0]["id"], by=ME)
        await until(lambda: len(made) == 2)
        report = await fleet.fetch(job, 5)
    assert report is not None
    assert report.status == "SUCCESS"


async def test_who_submits_cannot_leave_the_agents_policy_out(store: Store) -> None:
    """The policy of the registration holds for each job of the agent, whatever else is asked for."""
    agents = Agents([Registered(name="desk", source="test", load=Desk, policy=("strict",))])
    async with working(store, agents=agents) as fleet:
        job = await fleet.submit("desk", "A-5", policy=["off"])
        report = await fleet.fetch(job, 5)
        # The queue and the store know of no policy at all here: the worker's own registration counts.
        bare = Fleet(fleet.scheduler, store, Agents.of({"desk": Desk()}))
        other = await fleet.fetch(await bare.submit("desk", "A-6", policy=["off"]), 5)
        plans = (
            [next(one for one in store.read(id_) if one["type"] == "plan") for id_ in (job, other.execution_id)]
            if other
            else []
        )
    assert report is not None
    assert ["StrictPolicy" in str(plan["policy"]) for plan in plans] == [True, True]
    assert [plan["limits"]["max_tool_calls"] for plan in plans] == [5, 5]  # type: ignore[index,call-overload]


async def test_jobs_under_other_code_wait_for_the_worker_that_has_it(store: Store) -> None:
    """Two versions in one fleet: the fingerprint refuses, the job is not failed, and the right worker ends it."""

    def version(number: int) -> Callable[[str], str]:
        @oao.tool(effect="idempotent")
        def slow(n: int) -> str:
            made.append(f"slow {number}")
            if len(made) == 1:
                time.sleep(0.4)
                raise ConnectionError("cut")
            return "ok"

        if number == 1:
            return lambda task: slow(1) + " one"
        return lambda task: slow(2) + " two" * 2

    first, second = version(1), version(2)
    async with working(store, agents=Agents.of({"a": first})) as fleet:
        job = await fleet.submit("a", "x", retries=Retries(first_s=0.5), policy=["off"])
        await until(lambda: made == ["slow 1"])
    assert (await fleet.status(job)).status == "QUEUED"
    async with working(store, agents=Agents.of({"a": second})):
        await asyncio.sleep(0.8)
    assert (await fleet.status(job)).status == "QUEUED"
    assert made == ["slow 1"]
    async with working(store, agents=Agents.of({"a": first})) as fleet:
        report = await fleet.fetch(job, 5)
    assert report is not None
    assert (report.status, report.final_output) == ("SUCCESS", "ok one")


async def test_a_worker_without_agents_does_not_start(store: Store) -> None:
    """It says what to do; so does one with no slot."""
    with pytest.raises(UsageError, match=r"\[tool\.oao\.agents\]"):
        await Fleet(LocalScheduler(), store, Agents()).work()
    with pytest.raises(UsageError, match="at least 1"):
        await Fleet(LocalScheduler(), store, AGENTS).work(0)


async def test_unknown_jobs_and_wrong_requests_are_said(store: Store) -> None:
    """One line each."""
    fleet = Fleet(LocalScheduler(), store, AGENTS)
    for question in (fleet.status("x"), fleet.fetch("x"), fleet.cancel("x", ME), fleet.redrive("x", ME)):
        with pytest.raises(UsageError, match="no run 'x'"):
            await question
    with pytest.raises(UsageError, match="priority"):
        await fleet.submit("counting", 1, priority="urgent")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="strikt"):
        await fleet.submit("counting", 1, policy=["strikt"])
    with pytest.raises(UsageError, match="delay_s"):
        await fleet.submit("counting", 1, delay_s=-1)
    oao.Orchestrator(store=store).run(counting, 1, execution_id="done")
    with pytest.raises(UsageError, match="is over"):
        await fleet.redrive("done", ME)


def test_the_seeds_distributed_scheduler(tmp_path: Path) -> None:
    """Submit, ask, fetch, without an event loop; a worker elsewhere does the job."""
    store = SQLiteStore(str(tmp_path / "fleet.db"))
    with DistributedScheduler("local:", store, AGENTS) as scheduler:
        job = scheduler.submit_job("counting", 41)
        assert scheduler.get_status(job) == "QUEUED"
        assert scheduler.fetch_result(job, timeout_s=0.1) is None

        async def work() -> None:
            async with working(SQLiteStore(str(tmp_path / "fleet.db"))):
                await until(lambda: made == ["counting 41"])

        asyncio.run(work())
        report = scheduler.fetch_result(job, timeout_s=5)
        assert report is not None
        assert report.final_output == 42
        assert scheduler.get_status(job) == "SUCCESS"
