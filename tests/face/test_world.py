"""Time and chance in a test: the same in a replay as when it was recorded, and those of the machine around it."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from oao_hookspecs import Json, Record
from pytest_oao.world import World, missing_clock

CLOCK = 1_700_000_000.25


def world(**given: object) -> World:
    made: dict[str, object] = {"clock": CLOCK, "seed": 7, "mode": "frozen", "replaying": True, **given}
    return World(**made)  # type: ignore[arg-type]


@pytest.fixture
def inside() -> Iterator[World]:
    """A test in a replay, while its body runs."""
    made = world()
    made.enter("call")
    yield made
    made.leave()


def call(n: int, **more: Json) -> Record:
    return {"type": "call", "n": n, "decision": {"verdict": "allow"}, "at": 0.0, **more}


def outcome(n: int, at: float) -> Record:
    return {"type": "outcome", "n": n, "at": at}


def test_the_clock_stands_still_and_stands_where_the_last_outcome_put_it(inside: World) -> None:
    """To the microsecond, in every way to read it; never back; `monotonic` and sleeping tasks are real."""
    before = time.monotonic()
    asyncio.run(asyncio.sleep(0.01))
    assert time.monotonic() - before >= 0.01
    assert (time.time(), time.time_ns()) == (CLOCK, 1_700_000_000_250_000_000)
    inside.heard(outcome(1, CLOCK + 0.123457))
    assert datetime.now(UTC).isoformat() == "2023-11-14T22:13:20.373457+00:00"
    inside.heard(outcome(2, CLOCK))
    assert time.time_ns() % 1_000_000_000 == 373_457_000


def test_the_clock_is_where_it_stood_when_it_was_recorded() -> None:
    """What a prompt may hold is equal: while it is recorded, the clock stands at what the recording will say."""
    for _ in range(50):
        fresh = World.fresh()
        fresh.enter("call")
        said = [datetime.now(UTC).isoformat()]
        fresh.heard(call(1))
        at = time.time()
        fresh.heard(outcome(1, at))
        said.append(datetime.now(UTC).isoformat())
        fresh.leave()
        header = fresh.header()
        clock = header["clock"]
        assert isinstance(clock, float)
        replayed = World.of(header)
        assert replayed is not None
        replayed.enter("call")
        again = [datetime.now(UTC).isoformat()]
        replayed.heard({**outcome(1, clock + round(at - clock, 6)), "replayed": True})
        again.append(datetime.now(UTC).isoformat())
        replayed.leave()
        assert again == said


def test_the_clock_ticks_while_a_call_is_really_made(inside: World) -> None:
    """A body that waits sees time pass; a served call does not."""
    inside.heard(call(1, event=1))
    time.monotonic()
    assert time.time() == CLOCK
    inside.heard(call(2))
    threading.Event().wait(0.02)
    passed = time.time() - CLOCK
    assert 0.02 <= passed < 5
    inside.heard(outcome(2, CLOCK + 0.5))
    assert time.time() == time.time() == CLOCK + 0.5


def test_a_loop_that_waits_for_the_clock_ends() -> None:
    """Nothing is journaled, and the loop polls: after a second the clock begins to tick."""
    made = world()
    made.enter("call")
    try:
        until, began = time.time() + 0.2, time.monotonic()
        while time.time() < until:
            threading.Event().wait(0.005)
            assert time.monotonic() - began < 10, "it hangs"
        assert time.monotonic() - began > 1
        made.heard(outcome(1, CLOCK + 60))
        assert time.time() == CLOCK + 60
    finally:
        made.leave()


def test_a_single_look_after_a_long_wait_sees_the_clock_stand() -> None:
    """Waiting alone does not make it tick: a prompt after a slow setup has the recorded time."""
    made = world()
    made.enter("call")
    try:
        assert time.time() == CLOCK
        threading.Event().wait(1.1)
        assert time.time() == CLOCK
    finally:
        made.leave()


@pytest.mark.parametrize("replaying", [True, False])
def test_sleeping_moves_the_clock_by_as_much(replaying: bool) -> None:
    """In a replay without the wait; while it is recorded, really."""
    made = world(replaying=replaying)
    seconds = 30.0 if replaying else 0.02
    made.enter("call")
    began = time.monotonic()
    time.sleep(seconds)
    took, now = time.monotonic() - began, time.time()
    made.leave()
    assert now == CLOCK + seconds
    assert took < 2
    assert replaying or took >= seconds


def test_a_sleep_of_another_thread_moves_nothing(inside: World) -> None:
    """When a server in the background sleeps is chance."""
    thread = threading.Thread(target=lambda: time.sleep(0.01))
    thread.start()
    thread.join()
    assert time.time() == CLOCK


def test_between_the_phases_the_world_is_real() -> None:
    """Virtual time goes on where it stopped; chance, sleep and urandom are those of before."""
    made = world()
    state, urandom, sleep = random.getstate(), os.urandom, time.sleep
    made.enter("setup")
    time.sleep(0.5)
    made.leave()
    assert abs(time.time() - CLOCK) > 1_000_000
    assert (random.getstate(), os.urandom, time.sleep) == (state, urandom, sleep)
    made.enter("call")
    now = time.time()
    made.leave()
    assert now == CLOCK + 0.5
    made.leave()


def test_all_is_undone_after_an_error() -> None:
    """Where entering fails, nothing of the world stays."""
    made = world(seed=[])
    state, urandom, sleep = random.getstate(), os.urandom, time.sleep
    with pytest.raises(TypeError):
        made.enter("setup")
    assert (random.getstate(), os.urandom, time.sleep) == (state, urandom, sleep)
    assert abs(time.time() - CLOCK) > 1_000_000


def chance() -> list[object]:
    import numpy

    return [random.random(), uuid.uuid4(), os.urandom(8), numpy.random.rand()]


def test_chance_is_the_same_again_and_secrets_are_secret() -> None:
    """`random`, numpy and `uuid4` by the seed; what is secret is left alone."""
    import numpy  # noqa: F401

    seen, tokens = [], set()
    for _ in range(2):
        made = world()
        made.enter("setup")
        random.random()
        made.leave()
        made.enter("call")
        made.reseed()
        seen.append(chance())
        tokens.add(secrets.token_hex())
        made.leave()
    assert seen[0] == seen[1]
    assert len(tokens) == 2
    other = world(seed=8)
    other.enter("call")
    other.reseed()
    assert chance() != seen[0]
    other.leave()


def test_other_modes() -> None:
    """`ticking` begins at the recorded time; `real` is the machine's."""
    ticking, real = world(mode="ticking"), world(mode="real")
    ticking.enter("call")
    ticking.heard(outcome(1, CLOCK + 100))
    threading.Event().wait(0.01)
    now = time.time()
    ticking.leave()
    assert 0.01 <= now - CLOCK < 50
    real.enter("call")
    now = time.time()
    real.leave()
    assert abs(now - CLOCK) > 1_000_000


def test_another_hash_seed_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where it differs, and with what to do."""
    monkeypatch.setenv("PYTHONHASHSEED", "3")
    assert world(hash_seed="3").difference() is None
    assert "set PYTHONHASHSEED=0" in str(world(hash_seed="0").difference())
    assert "unset PYTHONHASHSEED" in str(world(hash_seed="random").difference())
    assert World.of({"clock": CLOCK}) is None


def test_a_recording_of_before_has_no_world() -> None:
    """Nothing is changed for a test whose recording does not say what it saw."""
    assert World.of({"clock": CLOCK}) is None


def test_without_time_machine_the_clock_is_real(tmp_path: Path) -> None:
    """It says so once, and chance is recorded all the same."""
    code = """
        import sys, time
        sys.modules["time_machine"] = None
        from pytest_oao.world import World, missing_clock
        print(missing_clock())
        world = World(clock=1.0, seed=1, mode="frozen", replaying=True)
        world.enter("call")
        assert time.time() > 1e9
        world.leave()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "time-machine is not installed" in done.stdout
    assert missing_clock() is None


def test_it_costs_little() -> None:
    """Entering and leaving a phase is far below what pytest itself needs for one."""
    made = world()
    began = time.perf_counter()
    for _ in range(200):
        made.enter("call")
        made.leave()
    each_us = (time.perf_counter() - began) / 200 * 1e6
    print(f"{each_us:.0f} us")
    assert each_us < 2000
