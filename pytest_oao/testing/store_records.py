"""Records that the stores' conformance suite writes, and how it knows that they came back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from oao_hookspecs import Json, Record, RunQuery, RunSummary, Store

__all__ = [
    "assert_journal", "bare", "digest", "finished", "line", "link", "listed", "note", "numbers", "queries", "started",
]  # fmt: skip


def note(seq: int, **fields: Json) -> dict[str, Json]:
    """Return a record that tells nothing of its run."""
    return {"v": 1, "seq": seq, "type": "note", "at": 1.5, **fields}


def started(seq: int, *, at: float = 1.0, agent: str = "agent", **fields: Json) -> dict[str, Json]:
    """Return the first record of a run."""
    return {"v": 1, "seq": seq, "type": "run.started", "at": at, "agent": agent, **fields}


def finished(seq: int, *, at: float = 2.0) -> dict[str, Json]:
    """Return the last record of a run."""
    return {"v": 1, "seq": seq, "type": "run.finished", "at": at, "status": "SUCCESS", "totals": {"steps": 1}}


def line(record: Record) -> str:
    """Return the canonical line of a record, as this file understands the contract."""
    return json.dumps(record, separators=(",", ":"))


def digest(record: Record) -> str:
    """Return the SHA-256 of a record."""
    return hashlib.sha256(line(record).encode()).hexdigest()


def link(previous: str, digest: str) -> str:
    """Return the hash of a record from that of the one before it and its digest."""
    return hashlib.sha256((previous + digest).encode()).hexdigest()


def bare(record: Record) -> dict[str, Json]:
    """Return a record without its hash."""
    return {key: value for key, value in record.items() if key != "hash"}


def assert_journal(store: Store, run: str, written: Sequence[Record]) -> None:
    """Fail unless the records of the run are those that were written, with the hashes that this file computes."""
    hashed, expected = "", list[str]()
    for record in written:
        hashed = link(hashed, digest(record))
        expected.append(line({**record, "hash": hashed}))
    assert [line(record) for record in store.read(run)] == expected


def listed(store: Store, run: str) -> list[RunSummary]:
    """Return the rows of the runs whose ids start like this."""
    return list(store.runs(None, query=RunQuery(starts_with=run)))


def numbers(store: Store, run: str) -> list[int]:
    """Return the numbers at the ends of the ids, in the order of the list."""
    rows = store.runs(None, query=RunQuery(starts_with=run))
    return [int(row.execution_id.rpartition("-")[2]) for row in rows]


def queries(run: str) -> Iterator[RunQuery]:
    """Yield queries for every field, alone and together."""
    base = RunQuery(starts_with=run)
    yield base
    for prefix in (f"{run}-a", f"{run}-b-1", f"{run}-b-13", f"{run}-c"):
        yield RunQuery(starts_with=prefix)
    for status in ("RUNNING", "SUSPENDED", "SUCCESS", "FAILED"):
        yield replace(base, status=status)
    for agent in ("agent 0", "agent 3", "agent"):
        yield replace(base, agent_name=agent)
        yield replace(base, agent_name=agent, status="SUCCESS", outer=True)
    for source in (f"{run}-source-0", f"{run}-source-1"):
        yield replace(base, forked_from=source)
        yield RunQuery(forked_from=source)
        yield replace(base, forked_from=source, outer=True, started_before=9.0)
    for moment in (0.0, 10.0, 10.5, 23.0):
        yield replace(base, started_before=moment)
        yield replace(base, started_before=moment, status="SUSPENDED")
    yield replace(base, outer=True)
    for tenant in ("", "tenant 1", "tenant"):
        yield replace(base, tenant=tenant)
        yield replace(base, tenant=tenant, outer=True, started_before=20.0, agent_name="agent 3")
        yield RunQuery(starts_with=f"{run}-a", tenant=tenant)
