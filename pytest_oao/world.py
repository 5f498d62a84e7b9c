"""What a test sees of time and chance: in a replay the same as when it was recorded.

The clock stands still, and stands where the last outcome put it: so a prompt that holds the time is the same to the
microsecond. `monotonic`, `perf_counter` and event loops are left alone, and so are all deadlines of oao.
"""

from __future__ import annotations

import functools
import importlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeAlias, cast

from oao_harness.runtime import context
from oao_hookspecs import Json, Record

__all__ = ["ClockMode", "Phase", "World", "missing_clock"]

ClockMode: TypeAlias = Literal["frozen", "ticking", "real"]
Phase: TypeAlias = Literal["setup", "call", "teardown"]

# A frozen clock that is read this often in this time, while nothing is journaled, is being waited for.
_POLLS: Final = 10
_POLLED_NS: Final = 1_000_000_000
# What is left of a sleep in a replay: others may run.
_MOMENT_S: Final = 0.001
# Another stream of chance for ids than for `random`.
_FOR_BYTES: Final = 0x5EED


class World:
    """Time and chance around the phases of one test.

    Args:
        clock: When its clock begins, in Unix seconds.
        seed: Of `random`, numpy and `os.urandom`, 32 bit.
        hash_seed: PYTHONHASHSEED when it was recorded; None where that is now.
        mode: `frozen` stands still between outcomes, `ticking` begins at `clock` and ticks, `real` is the machine's.
        replaying: True where the test plays a recording: then it does not really sleep.
    """

    def __init__(
        self, *, clock: float, seed: int, hash_seed: str | None = None, mode: ClockMode, replaying: bool
    ) -> None:
        self._clock = round(clock, 6)
        self._seed = seed
        self._hash_seed = _hash_seed() if hash_seed is None else hash_seed
        self._mode: ClockMode = mode if _travel() is not None else "real"
        self._replaying = replaying
        self._lock = threading.Lock()
        self._began_ns = time.time_ns() - time.monotonic_ns()
        # Where the clock stands or stood, and since when on the monotonic scale it ticks; one value, read without lock.
        self._state: tuple[int, int | None] = (round(self._clock * 1e6) * 1000, None)
        self._stood_ns = self._state[0]
        self._polled_since: int | None = None
        self._polls = 0
        self._in_flight: set[tuple[str, Json]] = set()
        self._phase: Phase | None = None
        self._thread = 0
        self._before: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []
        self._bytes = random.Random()  # noqa: S311 - it is to be repeatable, not secret

    @classmethod
    def fresh(cls, mode: ClockMode = "frozen") -> World:
        """Return the world of a test that is recorded: from now on, by a new seed."""
        return cls(clock=time.time(), seed=random.SystemRandom().getrandbits(32), mode=mode, replaying=False)

    @classmethod
    def of(cls, header: Mapping[str, Json], mode: ClockMode = "frozen") -> World | None:
        """Return the world that a recording was made in; None where its header does not say.

        Args:
            header: The recording's header, with `clock`, `seed` and `hash_seed`.
            mode: How the clock goes.
        """
        clock, seed = header.get("clock"), header.get("seed")
        if not isinstance(clock, int | float) or not isinstance(seed, int):
            return None
        hash_seed = str(header.get("hash_seed", ""))
        return cls(clock=float(clock), seed=seed, hash_seed=hash_seed, mode=mode, replaying=True)

    def header(self) -> dict[str, Json]:
        """Return `clock`, `seed` and `hash_seed`, for the header of the recording."""
        return {"clock": self._clock, "seed": self._seed, "hash_seed": self._hash_seed}

    def difference(self) -> str | None:
        """Return one line where sets and hashes may be in another order than when it was recorded, for a divergence."""
        recorded, now = self._hash_seed, _hash_seed()
        if recorded in {now, ""}:
            return None
        advice = "unset PYTHONHASHSEED, or record again" if recorded == "random" else f"set PYTHONHASHSEED={recorded}"
        return f"recorded with PYTHONHASHSEED {recorded}, now it is {now}: sets have another order; {advice}"

    # Around a phase

    def enter(self, phase: Phase) -> None:
        """Let the test see this world. `leave` undoes it; between phases pytest sees the real one.

        Args:
            phase: Of the test.
        """
        if self._phase is not None:
            return
        self._phase, self._thread = phase, threading.get_ident()
        try:
            self._enter_chance()
            self._enter_time()
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Take this world away: time and chance are those of the machine. Virtual time stays where it is."""
        if self._phase is None:
            return
        self._phase = None
        with self._lock:
            self._state = (self._virtual_ns(), None)
        while self._undo:
            self._undo.pop()()

    def reseed(self) -> None:
        """Begin chance anew, directly before the test's body: what setup used up, or other plugins seeded, is gone."""
        if self._phase is None:
            return
        random.seed(self._seed)
        self._bytes.seed(self._seed ^ _FOR_BYTES)
        numpy = sys.modules.get("numpy")
        if numpy is not None and hasattr(numpy, "random"):
            numpy.random.seed(self._seed)

    def _enter_chance(self) -> None:
        self._undo += _chance()
        urandom = os.urandom
        self._undo.append(functools.partial(setattr, os, "urandom", urandom))
        os.urandom = functools.partial(self._urandom, urandom)
        if self._phase == "setup":
            self.reseed()
        else:
            random.seed(self._seed)

    def _urandom(self, urandom: Callable[[int], bytes], size: int, /) -> bytes:
        # What a body uses up is not used up in a replay, where it does not run.
        return urandom(size) if context.frame.get() is not None else self._bytes.randbytes(size)

    def _enter_time(self) -> None:
        travel = _travel()
        if travel is None or self._mode == "real":
            return
        with self._lock:
            ticks = self._mode == "ticking" or bool(self._in_flight)
            self._state = (self._state[0], time.monotonic_ns() if ticks else None)
            self._polled_since = None
        traveller = travel(0.0, tick=False)
        moment = traveller.start()
        # Asked at each reading, so that no thread of ours must watch a clock that stands still.
        moment.time_ns = self._now_ns
        self._undo.append(traveller.stop)
        self._undo.append(functools.partial(setattr, time, "sleep", time.sleep))
        time.sleep = functools.partial(self._sleep, time.sleep)

    # The clock

    def time(self) -> float:
        """Return Unix seconds as the journal of the test has them."""
        return time.time() if self._phase is None or self._mode == "real" else self._virtual_ns() / 1e9

    def monotonic(self) -> float:
        """Return seconds that never go back; always those of the machine."""
        return time.monotonic()

    def heard(self, record: Record, run: str = "") -> None:
        """Follow the journal: called with every record, right after it was written.

        Args:
            record: The record.
            run: Name of its run, where there are several.
        """
        kind, key = record["type"], (run, record.get("n"))
        with self._lock:
            if kind == "outcome":
                self._over(key)
                self._stand(self._moment_ns(cast("float", record["at"])), ticks=bool(self._in_flight))
            elif kind == "again" or (kind == "call" and record.get("event") is None and _is_made(record)):
                if not self._in_flight:
                    self._stand(self._virtual_ns(), ticks=True)
                    self._before = _chance() if self._phase is not None else []
                self._in_flight.add(key)
            elif kind in {"run.finished", "run.suspended"}:
                for left in [one for one in self._in_flight if one[0] == run]:
                    self._over(left)
                if not self._in_flight:
                    self._stand(self._virtual_ns(), ticks=False)
            else:
                self._polled_since = None

    def _over(self, key: tuple[str, Json]) -> None:
        """Take back what bodies used up of chance, when the last of those that ran together has ended."""
        if key in self._in_flight:
            self._in_flight.discard(key)
            if not self._in_flight:
                before, self._before = self._before, []
                for restore in before if self._phase is not None else ():
                    restore()

    def _moment_ns(self, at: float) -> int:
        # As a recording keeps it: whole microseconds after the clock began. Else a replay would stand elsewhere.
        return (round(self._clock * 1e6) + round(round(at - self._clock, 6) * 1e6)) * 1000

    def _stand(self, at_ns: int, *, ticks: bool) -> None:
        if self._mode != "frozen":
            return
        self._stood_ns = max(self._stood_ns, at_ns)
        self._state = (self._stood_ns, time.monotonic_ns() if ticks and self._phase is not None else None)
        self._polled_since = None

    def _now_ns(self) -> int:
        if self._replaying and self._in_flight and context.frame.get() is not None:
            # A live call in a world of the past: signatures and tokens of today's services need today's time.
            return self._began_ns + time.monotonic_ns()
        return self._virtual_ns()

    def _virtual_ns(self) -> int:
        at_ns, since = self._state
        if since is not None:
            return at_ns + time.monotonic_ns() - since
        if self._phase is not None and self._mode == "frozen":
            self._polled(at_ns)
        return at_ns

    def _polled(self, at_ns: int) -> None:
        """Let the clock tick where code waits for it and nothing else happens: else it would wait for ever."""
        now = time.monotonic_ns()
        since = self._polled_since
        if since is None:
            self._polled_since, self._polls = now, 0
            return
        self._polls += 1
        if now - since > _POLLED_NS and self._polls > _POLLS:
            self._state = (at_ns, now)

    def _sleep(self, sleep: Callable[[float], None], seconds: float, /) -> None:
        # Other threads sleep when they please: what moves the clock must happen again in a replay.
        is_ours = threading.get_ident() == self._thread or context.here.get() is not None
        if (
            self._mode != "frozen"
            or not is_ours
            or self._phase is None
            or self._state[1] is not None
            or not seconds > 0
        ):
            sleep(seconds)
            return
        until_ns = self._state[0] + round(seconds * 1e9)
        sleep(min(seconds, _MOMENT_S) if self._replaying and self._phase == "call" else seconds)
        with self._lock:
            self._stand(until_ns, ticks=bool(self._in_flight))


def missing_clock(mode: ClockMode = "frozen") -> str | None:
    """Return one line for the head of the session where the clock cannot be what was asked for."""
    if mode == "real" or _travel() is not None:
        return None
    return "time-machine is not installed: replays see the machine's time; pip install 'oao-harness[pytest]'"


def _chance() -> list[Callable[[], object]]:
    """Return what puts the global generators back to where they are now."""
    back: list[Callable[[], object]] = [functools.partial(random.setstate, random.getstate())]
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        back.append(functools.partial(numpy.random.set_state, numpy.random.get_state()))
    return back


def _is_made(record: Record) -> bool:
    return cast("Mapping[str, Json]", record["decision"])["verdict"] != "deny"


def _hash_seed() -> str:
    return os.environ.get("PYTHONHASHSEED") or "random"


@functools.cache
def _travel() -> Any:
    try:
        return importlib.import_module("time_machine").travel
    except ImportError:
        return None
