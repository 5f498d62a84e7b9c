"""A resumed run's graphs begin where they began: at the checkpoint that the thread had then, not at the last one.

The interrupted attempt has left its own checkpoints in the user's thread. So each graph that begins in a run writes
down at which checkpoint it does; when the run is resumed, the k-th graph of a thread gets that one. What the attempt
left stays in the thread's history, as a branch that nothing goes on from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

from langgraph._internal._constants import (  # pyright: ignore[reportMissingTypeStubs]
    CONF,
    CONFIG_KEY_CHECKPOINT_ID,
    CONFIG_KEY_CHECKPOINT_NS,
    CONFIG_KEY_THREAD_ID,
)

from oao_harness.errors import RunHalted
from oao_harness.runtime.context import frame
from oao_harness.runtime.run import Run
from oao_hookspecs import Json, Record

__all__ = ["beginning"]

_RECORD: Final = "checkpoint"
_Place = tuple[int | None, str, str]


@dataclass(slots=True)
class _Beginnings:
    """The beginnings of one run, kept in its memory."""

    recorded: dict[tuple[_Place, int], Record]
    begun: Counter[_Place] = field(default_factory=Counter[_Place])

    @classmethod
    def of(cls, run: Run) -> _Beginnings:
        """Return those that the journal of a resumed run holds."""
        found: Counter[_Place] = Counter()
        recorded: dict[tuple[_Place, int], Record] = {}
        for record in run.store.read(run.execution_id) if run.resumption is not None else ():
            if record["type"] == _RECORD:
                place = cast("int | None", record.get("n")), str(record["thread"]), str(record.get("ns", ""))
                recorded[place, found[place]] = record
                found[place] += 1
        return cls(recorded)


@contextmanager
def beginning(run: Run | None, loop: Any) -> Generator[None]:
    """Around the start of a graph: begin where it began, or write down where it does.

    Raises:
        RunHalted: The checkpoint is not there any more.
    """
    place = _place(run, loop) if run is not None else None
    if run is None or place is None or not _is_written(run):
        yield
        return
    beginnings = run.memory(_Beginnings, lambda: _Beginnings.of(run))
    index = beginnings.begun[place]
    beginnings.begun[place] += 1
    record = beginnings.recorded.get((place, index))
    saver = loop.checkpointer
    loop.checkpointer = watched = _Watched(saver, run, place) if record is None else _AsItWas(saver, run, record)
    try:
        yield
    finally:
        loop.checkpointer = saver
    if record is not None:
        # LangGraph took it for the last one of its thread.
        loop._loaded_latest = False
    elif isinstance(watched, _Watched) and not watched.is_written:
        # Part of a graph that was gone back in: LangGraph has chosen by itself.
        chosen = loop._initial_checkpoint_config[CONF].get(CONFIG_KEY_CHECKPOINT_ID)
        _write(run, place, chosen if loop._has_persisted_parent else None, ())


def _is_written(run: Run) -> bool:
    # Not where a recording is played: its thread is another one, and two replays write the same.
    return run.resumption is not None or run.replay is None


def _place(run: Run, loop: Any) -> _Place | None:
    """Return who begins: inside of which call, on which thread, in which namespace; None where there is no thread."""
    conf = cast("Mapping[str, Any]", loop.checkpoint_config.get(CONF, {}))
    thread, namespace = conf.get(CONFIG_KEY_THREAD_ID), str(conf.get(CONFIG_KEY_CHECKPOINT_NS) or "")
    # A namespace with a task's id in it is new in every attempt.
    if not loop.checkpointer or thread is None or ":" in namespace:
        return None
    outer = frame.get()
    return outer.n if outer is not None and outer.run is run else None, str(thread), namespace


def _write(run: Run, place: _Place, checkpoint: str | None, writes: Iterable[Sequence[Any]]) -> None:
    n, thread, namespace = place
    fields: dict[str, Json] = {"thread": thread, "checkpoint": checkpoint}
    if n is not None:
        fields["n"] = n
    if namespace:
        fields["ns"] = namespace
    done = {(str(one[0]), str(one[1])) for one in writes}
    if done:
        fields["done"] = [list(one) for one in sorted(done)]
    run.write(_RECORD, fields)


class _Saver:
    """A user's checkpointer, asked through here."""

    def __init__(self, saver: Any, run: Run) -> None:
        self._saver, self._run = saver, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._saver, name)


class _Watched(_Saver):
    """A checkpointer that writes down, before anything happens, which checkpoint it was asked for."""

    def __init__(self, saver: Any, run: Run, place: _Place) -> None:
        super().__init__(saver, run)
        self._place, self.is_written = place, False

    def _written(self, found: Any) -> Any:
        if not self.is_written:
            self.is_written = True
            checkpoint = None if found is None else str(found.checkpoint["id"])
            _write(self._run, self._place, checkpoint, () if found is None else found.pending_writes or ())
        return found

    def get_tuple(self, config: Mapping[str, Any]) -> Any:
        """Return the checkpoint."""
        return self._written(self._saver.get_tuple(config))

    async def aget_tuple(self, config: Mapping[str, Any]) -> Any:
        """Return the checkpoint."""
        return self._written(await self._saver.aget_tuple(config))


class _AsItWas(_Saver):
    """A checkpointer whose thread is what it was when the run began there; all else is the user's own."""

    def __init__(self, saver: Any, run: Run, record: Record) -> None:
        super().__init__(saver, run)
        self._record = record

    def _config(self, config: Mapping[str, Any]) -> Any:
        return {**config, CONF: {**config[CONF], CONFIG_KEY_CHECKPOINT_ID: self._record["checkpoint"]}}

    def _as_it_was(self, found: Any) -> Any:
        if found is None:
            reason = (
                f"run {self._run.execution_id} began at checkpoint {self._record['at']} of thread "
                f"{self._record['thread']!r}, and the checkpointer does not have it any more; resume with the "
                "checkpointer that the run had"
            )
            self._run.halt_now(RunHalted(reason, rule="resume", plugin="oao"))
            raise self._run.require_halt()
        done = {tuple(one) for one in cast("Sequence[Sequence[str]]", self._record.get("done") or ())}
        writes = [one for one in found.pending_writes or () if (str(one[0]), str(one[1])) in done]
        return found._replace(pending_writes=writes)

    def get_tuple(self, config: Mapping[str, Any]) -> Any:
        """Return the checkpoint of then."""
        if self._record["checkpoint"] is None:
            return None
        return self._as_it_was(self._saver.get_tuple(self._config(config)))

    async def aget_tuple(self, config: Mapping[str, Any]) -> Any:
        """Return the checkpoint of then."""
        if self._record["checkpoint"] is None:
            return None
        return self._as_it_was(await self._saver.aget_tuple(self._config(config)))
