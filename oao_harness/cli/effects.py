"""What became of calls, by two witnesses: the journals, and what the tools themselves wrote down. Values only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from oao_harness.journal.chain import verify
from oao_hookspecs import Record

__all__ = ["Counts", "count_effects"]


@dataclass(slots=True)
class Counts:
    """Sums over runs; what is wrong is named."""

    runs: int = 0
    calls: int = 0
    """Tool calls that have an outcome."""
    lost: int = 0
    """Runs that did not end, and calls that ended without an effect."""
    repeated: int = 0
    """Effects of calls that were finished already, and of calls that no journal knows."""
    again: int = 0
    """Calls in doubt that were made once more, as their tools allow."""
    wrong: list[str] = field(default_factory=list[str])
    """Journals that are not what was written, runs with more than one end, what did not succeed."""


def count_effects(journals: Mapping[str, Sequence[Record]], effects: Iterable[str]) -> Counts:
    """Compare journals with effects.

    A call is written before its body runs, and again before it is made once more. So a body ran as often as its journal
    says at most, and whatever goes beyond was not allowed.

    Args:
        journals: By id of the run; a run that is missing has no records.
        effects: The idempotency key of every body that ran, in any order.
    """
    ran, counts = Counter(effects), Counts(runs=len(journals))
    for id_, records in journals.items():
        _add(counts, id_, records, ran)
    strangers = [key for key in ran if key.rpartition("#")[0] not in journals]
    counts.repeated += len(strangers)
    counts.wrong += [f"an effect of a run that nobody submitted: {key}" for key in strangers]
    return counts


def _add(counts: Counts, id_: str, records: Sequence[Record], ran: Mapping[str, int]) -> None:
    allowed: Counter[int] = Counter()
    finished: set[int] = set()
    for record in records:
        n, kind = cast("int", record.get("n", 0)), record["type"]
        if kind == "run.queued":
            # Calls that failed: they are made once more, as the journal says.
            finished -= set(cast("Sequence[int]", record.get("again") or ()))
        elif kind == "outcome":
            if n in finished:
                counts.wrong.append(f"{id_}#{n} has two outcomes")
            finished.add(n)
        elif kind == "again" or (kind == "call" and record["kind"] == "tool"):
            allowed[n] += 1
            counts.again += kind == "again" and n not in finished
            counts.repeated += n in finished
    for n, times in allowed.items():
        counts.calls += n in finished
        counts.lost += n in finished and not ran.get(f"{id_}#{n}")
        counts.repeated += max(0, ran.get(f"{id_}#{n}", 0) - times)
    ends = [record for record in records if record["type"] == "run.finished"]
    counts.lost += not ends
    if len(ends) > 1:
        counts.wrong.append(f"{id_} has {len(ends)} ends")
    if ends and ends[0]["status"] != "SUCCESS":
        counts.wrong.append(f"{id_}: {ends[0]['status']}: {ends[0]['error']}")
    chain = verify(records, id_) if records else None
    if chain is not None and chain.damage is not None:
        counts.wrong.append(f"{id_}: {chain.damage}")
