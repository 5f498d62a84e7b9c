"""The journals of a run and of the runs nested in it, as one tape: what a recording is made of. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

from oao_hookspecs import Record

__all__ = ["tape_of"]


@dataclass(slots=True, kw_only=True)
class _Lane:
    """One journal, and how far it is told."""

    name: str
    records: Sequence[Record]
    at: int = 0
    inside: int | None = None
    """Number of the call of the outer run inside whose body this one was started."""
    lanes: list[_Lane] = field(default_factory=list["_Lane"])
    """The runs nested in it that have begun."""


def tape_of(execution_id: str, read: Callable[[str], Sequence[Record]]) -> list[tuple[str, Record]]:
    """Return the records of a run and of all nested in it, as `(run name, record)` pairs in the order they happened.

    The outer run is `main`, another has the name of its agent, a second one of that agent `#2`. By time; where the
    clock is too coarse, a nested run lies between the start and the end of the call that started it.

    Args:
        execution_id: Of the outer run.
        read: Returns the journal of a run; nothing where it is not known.
    """
    names: Counter[str] = Counter({"main": 1})
    main = _Lane(name="main", records=read(execution_id))
    return list(_told(main, read, names, None))


def _told(
    lane: _Lane, read: Callable[[str], Sequence[Record]], names: Counter[str], until: float | None
) -> Iterator[tuple[str, Record]]:
    """Yield what happened in a run and in those nested in it, up to a time."""
    while lane.at < len(lane.records):
        record = lane.records[lane.at]
        when = cast("float", record["at"])
        if until is not None and when > until:
            return
        for nested in lane.lanes:
            yield from _told(nested, read, names, when)
        if record["type"] == "outcome":
            for nested in lane.lanes:
                if nested.inside == record["n"]:
                    yield from _told(nested, read, names, None)
        if record["type"] == "run.finished":
            for nested in lane.lanes:
                yield from _told(nested, read, names, None)
        lane.at += 1
        yield lane.name, record
        if record["type"] == "child":
            records = read(str(record["execution_id"]))
            if records:
                agent = str(records[0].get("agent") or "agent")
                names[agent] += 1
                name = agent if names[agent] == 1 else f"{agent}#{names[agent]}"
                lane.lanes.append(_Lane(name=name, records=records, inside=cast("int | None", record.get("n"))))
    for nested in lane.lanes:
        yield from _told(nested, read, names, until)
