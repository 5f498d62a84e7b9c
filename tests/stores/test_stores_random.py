"""Random claims, batches, leases, redactions and deletions: every store does what fifty lines of model do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oao_harness import BusyError, FencedError, MemoryStore, SQLiteStore, StoreError
from oao_harness.stores.redis import RedisStore
from oao_hookspecs import Record, RunQuery, RunSummary, Store, digest_of
from pytest_oao.testing import RedisServer
from pytest_oao.testing.store_records import bare, link

TYPES = ["note", "note", "run.started", "run.suspended", "run.resumed", "run.finished"]


def make(seq: int, type_: str, moment: int) -> Record:
    record: dict = {"v": 1, "seq": seq, "type": type_, "at": float(moment)}
    record |= {"agent": f"a{moment}"} if type_ == "run.started" else {}
    record |= {"totals": {"steps": moment}} if type_ in {"run.suspended", "run.finished"} else {}
    return record | ({"status": "SUCCESS"} if type_ == "run.finished" else {})


@dataclass
class Run:
    epoch: int = 0
    leased: bool = False
    records: list[Record] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    row: dict | None = None
    ordinal: int = 0


@dataclass
class Model:
    """A store that can be read at a glance."""

    runs: dict[str, Run] = field(default_factory=dict)
    deleted: int = 0
    begun: int = 0

    def claim(self, id_: str, leased: bool, over: bool) -> int | str:
        run = self.runs.setdefault(id_, Run(self.deleted))
        if run.leased and not over:
            return "busy"
        run.epoch, run.leased = run.epoch + 1, leased
        return run.epoch

    def refusal(self, id_: str, epoch: int, records: list[Record]) -> str:
        if id_ not in self.runs or self.runs[id_].epoch != epoch:
            return "fenced"
        count = len(self.runs[id_].records)
        return "" if [r["seq"] for r in records] == [count + 1 + n for n in range(len(records))] else "error"

    def append(self, id_: str, epoch: int, records: list[Record]) -> str:
        refusal = self.refusal(id_, epoch, records)
        for record in records if not refusal else []:
            run = self.runs[id_]
            run.hashes.append(link(run.hashes[-1] if run.hashes else "", digest_of(record)))
            run.records.append(record)
            type_ = record["type"]
            if type_ in {"run.suspended", "run.finished"}:
                run.leased = False
            if type_ == "run.started":
                self.begun += not run.ordinal
                run.ordinal = run.ordinal or self.begun
                run.row = {"agent_name": record["agent"], "status": "RUNNING", "started_at": record["at"]}
            elif run.row is not None and type_ == "run.finished":
                run.row |= {"status": "SUCCESS", "finished_at": record["at"], "totals": record["totals"]}
            elif run.row is not None and type_ != "note":
                run.row |= {"status": "SUSPENDED" if type_ == "run.suspended" else "RUNNING"}
                run.row |= {"totals": record["totals"]} if type_ == "run.suspended" else {}
        return refusal or "kept"

    def rewrite(self, id_: str, epoch: int, seqs: list[int], records: list[Record]) -> str:
        refusal = self.refusal(id_, epoch, records)
        if not refusal and not all(1 <= seq <= len(self.runs[id_].records) for seq in seqs):
            refusal = "error"
        if refusal:
            return refusal
        for seq in seqs:
            self.runs[id_].records[seq - 1] = {**make(seq, "note", 0), "redacted": "x"}
        return self.append(id_, epoch, records)

    def listed(self) -> list[RunSummary]:
        begun = [(run.row["started_at"], run.ordinal, id_, run.row) for id_, run in self.runs.items() if run.row]
        return [RunSummary(execution_id=id_, **row) for _, _, id_, row in sorted(begun, key=lambda b: b[:2])[::-1]]


IDS = st.sampled_from(["a", "b", "ab"])
BATCH = st.lists(st.tuples(st.sampled_from(TYPES), st.integers(0, 3)), max_size=4)
BEHIND = st.sampled_from([0, 0, 0, 0, 1, -1])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), IDS, st.booleans(), st.booleans()),
        st.tuples(st.just("append"), IDS, BEHIND, BEHIND, BATCH),
        st.tuples(st.just("append"), IDS, st.just(0), st.just(0), BATCH),
        st.tuples(st.just("rewrite"), IDS, BEHIND, st.lists(st.integers(1, 5), max_size=3, unique=True), BATCH),
        st.tuples(st.just("release"), IDS, BEHIND),
        st.tuples(st.just("renew"), IDS, BEHIND),
        st.tuples(st.just("delete"), IDS),
    ),
    max_size=25,
)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Store]]:
    """Stores over one place that take turns, so that what one of them remembers is of no use to it."""
    stores: list[Store]
    if request.param == "memory":
        stores = [MemoryStore(keep=None)]
    elif request.param == "sqlite":
        stores = [SQLiteStore(tmp_path / "oao.db"), SQLiteStore(tmp_path / "oao.db")]
    else:
        url = f"{request.getfixturevalue('redis_server').url}?prefix={tmp_path.name}"
        stores = [RedisStore(url), RedisStore(url)]
    yield stores
    for store in stores:
        store.close()


def answer_of(store: Store, step: tuple, id_: str, epoch: int, records: list[Record]) -> int | str:
    try:
        if step[0] == "claim":
            return store.claim(id_, owner="me", ttl_s=60 if step[2] else 0, over=epoch if step[3] else None)
        if step[0] == "append":
            store.append(id_, epoch, *records)
        elif step[0] == "rewrite":
            replaced = {seq: {**make(seq, "note", 0), "redacted": "x"} for seq in step[3]}
            store.rewrite(id_, epoch, replaced, *records)
        elif step[0] == "delete":
            store.delete(id_)
        elif step[0] == "release":
            store.release(id_, epoch)
        else:
            store.renew(id_, epoch, 60)
    except BusyError:
        return "busy"
    except FencedError:
        return "fenced"
    except StoreError:
        return "error"
    return "kept"


_NUMBERS = itertools.count()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
@given(steps=STEPS)
def test_a_store_is_its_model(pair: list[Store], redis_server: RedisServer, steps: list[tuple]) -> None:
    """The same answers, the same journals and the same list after every step."""
    prefix = f"random-{next(_NUMBERS)}-"
    model = Model()
    # Other examples have deleted runs here.
    probe = f"{prefix}probe"
    model.deleted = pair[0].claim(probe) - 1
    pair[0].delete(probe)
    model.deleted += 1
    for turn, step in enumerate(steps):
        store, id_ = pair[turn % len(pair)], prefix + step[1]
        run = model.runs.get(id_, Run(model.deleted))
        epoch = run.epoch - (step[2] if step[0] != "claim" and len(step) > 2 else 0)
        shift = step[3] if step[0] == "append" else 0
        batch = step[4] if step[0] in {"append", "rewrite"} else []
        records = [make(len(run.records) + 1 + n + shift, *what) for n, what in enumerate(batch)]
        answer = answer_of(store, step, id_, epoch, records)
        if step[0] == "claim":
            expected: int | str = model.claim(id_, step[2], step[3])
        elif step[0] == "append":
            expected = model.append(id_, epoch, records)
        elif step[0] == "rewrite":
            expected = model.rewrite(id_, epoch, step[3], records)
        elif step[0] == "delete":
            expected = "kept"
            if id_ in model.runs:
                model.deleted = max(model.deleted, model.runs.pop(id_).epoch)
        else:
            known = id_ in model.runs and epoch == run.epoch
            expected = "kept" if known or step[0] == "release" else "fenced"
            if known:
                run.leased = step[0] == "renew"
        assert answer == expected
        found = list(store.read(id_))
        kept = model.runs.get(id_, Run())
        assert [bare(item) for item in found] == kept.records
        assert [item["hash"] for item in found] == kept.hashes
        assert list(store.runs(None, query=RunQuery(starts_with=prefix))) == model.listed()
