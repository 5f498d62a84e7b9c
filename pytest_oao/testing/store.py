"""What every store promises, as tests that the author of a store inherits.

```python
class TestMyStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        store = MyStore(tmp_path)
        yield store
        store.close()

    @pytest.fixture
    def open_again(self, tmp_path):
        return functools.partial(MyStore, tmp_path)
```
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import pytest

from oao_harness.errors import BusyError, FencedError, StoreError
from oao_hookspecs import Json, Record, RunQuery, Store
from pytest_oao.testing.capabilities import needs
from pytest_oao.testing.store_records import (
    assert_journal,
    bare,
    digest,
    finished,
    link,
    listed,
    note,
    numbers,
    queries,
    started,
)
from pytest_oao.testing.store_together import StoreTogether

__all__ = ["StoreConformance"]

_DEEP: Final = 200
_ODD: Final[tuple[Json, ...]] = (
    "zwölf ✓ 🚀",
    "half \ud83d and \udc00 half",
    'line\nbreak\r\t\0\x7f\u2028"\\/',
    "",
    "\ufeff\uffff",
    [1, [2, [[], {}]], {"a": [None, True, False]}],
    {"": "", "b": 1, "a": 2, "hash": "not a hash", "seq": 99},
    10**100,
    -(2**63) - 1,
    2**53 + 1,
    0.1,
    1e308,
    5e-324,
    -0.0,
    1e22,
    3.0,
    "x" * 300_000,
)
_ODD_IDS: Final = ("a b", "zwölf-🚀", "{braces}:*?[x]", "' or 1=1 --", "half \ud83d", "nul \0", "x" * 500, "%_\\")


class StoreConformance(StoreTogether):
    """Inherit it in a class whose name starts with `Test`, and override the fixture `store`.

    Override `open_again` where other processes can open the same place, and `elapse` where the store's clock can be
    moved: else the tests wait, about 2 seconds in all. The runs that these tests write need not be the only ones.

    A store may declare (`CANNOT`) that it cannot `reopen` (a second one over the same place), `processes` (nor in
    another process), `rewrite` (redaction) or `delete`.
    """

    TTL_S = 0.2
    """Seconds that a short lease lives in these tests."""

    @pytest.fixture
    def store(self) -> Store:
        """Override this: return the store to test."""
        raise NotImplementedError("override the fixture `store` in your class")

    @pytest.fixture
    def open_again(self) -> Callable[[], Store] | None:
        """Override this where you can: return what opens the same place once more; it must survive a pickle."""
        return None

    @pytest.fixture
    def elapse(self) -> Callable[[float], None]:
        """Override this where you can: return what lets seconds pass for the store's leases."""
        return time.sleep

    @pytest.fixture
    def run(self) -> str:
        """Return the id that a test uses: one that nobody used before."""
        return f"conformance-{uuid.uuid4().hex}"

    # Order, fencing, all or nothing

    def test_nothing_is_known_of_an_unknown_run(self, store: Store, run: str) -> None:
        """To read, release or delete it is no error, and makes no run."""
        assert list(store.read(run)) == []
        store.release(run, 1)
        store.delete(run)
        assert listed(store, run) == []

    def test_what_was_appended_is_read_in_order(self, store: Store, run: str) -> None:
        """Each with its hash as the last field, and else as it was."""
        epoch = store.claim(run)
        assert epoch >= 1
        written = [note(seq, value=seq) for seq in range(1, 8)]
        store.append(run, epoch, written[0])
        store.append(run, epoch, *written[1:4])
        for record in written[4:]:
            store.append(run, epoch, record)
        assert_journal(store, run, written)
        assert_journal(store, run, written)

    def test_a_journal_is_read_from_the_middle(self, store: Store, run: str) -> None:
        """What comes after a record is the same as at the end of the whole; behind the last one is nothing."""
        epoch = store.claim(run)
        store.append(run, epoch, *[note(seq) for seq in range(1, 1205)])
        whole = list(store.read(run))
        for after in (0, 1, 1000, 1001, 1203, 1204, 5000):
            assert list(store.read(run, after=after)) == whole[after:]
        assert list(store.read(f"{run}-unknown", after=3)) == []

    @pytest.mark.parametrize("value", _ODD, ids=lambda value: f"{value!a:.20}")
    def test_a_value_comes_back_as_it_was(self, store: Store, run: str, value: Json) -> None:
        """Any JSON, half of a surrogate pair and big numbers too: the same type, the same bytes."""
        written = [note(1, value=value), note(2, value={"inner": [value]})]
        store.append(run, store.claim(run), *written)
        assert_journal(store, run, written)

    def test_deep_nesting_comes_back(self, store: Store, run: str) -> None:
        """Lists in objects in lists."""
        value: Json = 1
        for _ in range(_DEEP):
            value = {"inner": [value]}
        store.append(run, store.claim(run), note(1, value=value))
        assert_journal(store, run, [note(1, value=value)])

    @pytest.mark.parametrize("suffix", _ODD_IDS, ids=lambda id_: f"{id_!a:.20}")
    def test_an_id_may_hold_any_character(self, store: Store, run: str, suffix: str) -> None:
        """And so may the name of an agent, an owner and another run's id."""
        id_ = f"{run}{suffix}"
        epoch = store.claim(id_, owner=suffix, ttl_s=60)
        begun = started(1, agent=suffix, parent=f"p{suffix}", forked={"run": f"f{suffix}", "at": 1})
        store.append(id_, epoch, begun)
        assert_journal(store, id_, [begun])
        (row,) = store.runs(None, query=RunQuery(forked_from=f"f{suffix}", starts_with=run))
        assert (row.execution_id, row.agent_name) == (id_, suffix)
        assert (row.parent, row.forked_from) == (f"p{suffix}", f"f{suffix}")
        with pytest.raises(BusyError) as caught:
            store.claim(id_)
        assert caught.value.owner == suffix
        store.delete(id_)
        assert list(store.read(id_)) == []

    def test_who_never_claimed_is_refused(self, store: Store, run: str) -> None:
        """Whatever the epoch."""
        for epoch in (0, 1, 2):
            with pytest.raises(FencedError):
                store.append(run, epoch, note(1))
        assert list(store.read(run)) == []

    def test_who_was_superseded_is_refused(self, store: Store, run: str) -> None:
        """Every write of an older epoch; the newer one goes on where that stopped."""
        first = store.claim(run)
        store.append(run, first, note(1))
        second = store.claim(run)
        assert second == first + 1

        for seq in (1, 2, 3):
            with pytest.raises(FencedError, match="superseded"):
                store.append(run, first, note(seq))
        with pytest.raises(FencedError):
            store.append(run, second + 1, note(2))
        with pytest.raises(FencedError):
            store.renew(run, first, 60)
        with pytest.raises(FencedError):
            store.rewrite(run, first, {1: note(1, redacted="x")})
        store.append(run, second, note(2))
        assert_journal(store, run, [note(1), note(2)])

    @pytest.mark.parametrize("seq", [0, 1, 2, 4, -1, 2**70, True, 3.5, "3", None])
    def test_a_record_that_is_not_the_next_is_refused(self, store: Store, run: str, seq: Json) -> None:
        """A gap, a repetition, or no number at all; the journal is as it was and can be continued."""
        epoch = store.claim(run)
        store.append(run, epoch, note(1), note(2))
        with pytest.raises(StoreError, match="after 2 records") as caught:
            store.append(run, epoch, {**note(1), "seq": seq})
        assert not isinstance(caught.value, FencedError)
        store.append(run, epoch, note(3))
        assert_journal(store, run, [note(1), note(2), note(3)])

    def test_a_repeated_record_is_refused_where_it_is_equal_too(self, store: Store, run: str) -> None:
        """Only the store itself may find out that an answer of its own got lost."""
        epoch = store.claim(run)
        store.append(run, epoch, note(1))
        with pytest.raises(StoreError, match="after 1 records"):
            store.append(run, epoch, note(1))

    def test_a_batch_is_kept_wholly_or_not_at_all(self, store: Store, run: str) -> None:
        """A gap within it, a repetition at its start, or an old epoch: nothing of it stays."""
        epoch = store.claim(run)
        store.append(run, epoch, started(1), note(2))
        end = finished(4)
        for batch in ([note(3), end, note(6)], [note(2), note(3), end], [note(4), note(5)]):
            with pytest.raises(StoreError, match="records"):
                store.append(run, epoch, *batch)
        with pytest.raises(FencedError):
            store.append(run, epoch - 1, note(3), end)
        assert_journal(store, run, [started(1), note(2)])
        assert [row.status for row in listed(store, run)] == ["RUNNING"]
        store.append(run, epoch, note(3), end)
        assert_journal(store, run, [started(1), note(2), note(3), end])

    def test_a_large_batch(self, store: Store, run: str) -> None:
        """The beginning of a long run is copied to a fork at once, and read again in order."""
        written = [started(1), *(note(seq, text="x" * 50) for seq in range(2, 5001))]
        epoch = store.claim(run)
        store.append(run, epoch, *written)
        store.append(run, epoch, note(5001))
        assert_journal(store, run, [*written, note(5001)])

    def test_nothing_to_append(self, store: Store, run: str) -> None:
        """Changes nothing."""
        epoch = store.claim(run)
        store.append(run, epoch)
        assert list(store.read(run)) == []

    # Leases

    def test_a_lease_keeps_others_away(self, store: Store, run: str) -> None:
        """The refusal says whose it is and for how long; the holder writes on."""
        epoch = store.claim(run, owner="host 1", ttl_s=60)
        with pytest.raises(BusyError, match="host 1") as caught:
            store.claim(run, owner="host 2", ttl_s=60)
        assert (caught.value.epoch, caught.value.owner) == (epoch, "host 1")
        assert 50 < caught.value.left_s <= 60
        with pytest.raises(BusyError):
            store.claim(run)
        store.append(run, epoch, note(1))

    def test_a_claim_without_a_lease_keeps_nobody_away(self, store: Store, run: str) -> None:
        """Only the epoch does then."""
        epoch = store.claim(run, owner="one")
        assert store.claim(run, owner="two", ttl_s=60) == epoch + 1

    def test_a_lease_lapses(self, store: Store, run: str, elapse: Callable[[float], None]) -> None:
        """Then anybody may claim; until somebody does, the epoch may still write."""
        epoch = store.claim(run, ttl_s=self.TTL_S)
        elapse(self.TTL_S * 1.5)
        store.append(run, epoch, note(1))
        assert store.claim(run) == epoch + 1
        with pytest.raises(FencedError):
            store.append(run, epoch, note(2))

    def test_a_renewed_lease_lives_on(self, store: Store, run: str, elapse: Callable[[float], None]) -> None:
        """From now; also where it has lapsed and nobody came."""
        epoch = store.claim(run, ttl_s=self.TTL_S)
        store.renew(run, epoch, 60)
        elapse(self.TTL_S * 1.5)
        with pytest.raises(BusyError):
            store.claim(run)
        store.renew(run, epoch, self.TTL_S)
        elapse(self.TTL_S * 1.5)
        store.renew(run, epoch, 60)
        with pytest.raises(BusyError):
            store.claim(run)

    def test_a_released_lease_is_over(self, store: Store, run: str) -> None:
        """The epoch may still write; who was superseded releases nothing."""
        epoch = store.claim(run, ttl_s=60)
        store.release(run, epoch)
        store.append(run, epoch, note(1))
        second = store.claim(run, ttl_s=60)
        store.release(run, epoch)
        with pytest.raises(BusyError):
            store.claim(run)
        assert store.claim(run, over=second) == second + 1

    @pytest.mark.parametrize("ends", ["run.finished", "run.suspended"])
    def test_a_run_that_ends_ends_its_lease(self, store: Store, run: str, ends: str) -> None:
        """Nobody waits for a writer that is done; other records end nothing."""
        epoch = store.claim(run, ttl_s=60)
        store.append(run, epoch, started(1), note(2))
        with pytest.raises(BusyError):
            store.claim(run)
        store.append(run, epoch, finished(3) if ends == "run.finished" else {**note(3), "type": ends})
        assert store.claim(run, ttl_s=60) == epoch + 1

    def test_the_lease_of_a_dead_holder_does_not_count(self, store: Store, run: str) -> None:
        """Only where the dead one's epoch is named, so that two who know of its death are not both served."""
        epoch = store.claim(run, owner="dead", ttl_s=60)
        with pytest.raises(BusyError):
            store.claim(run, over=epoch + 1)
        assert store.claim(run, owner="heir", ttl_s=60, over=epoch) == epoch + 1
        with pytest.raises(BusyError, match="heir"):
            store.claim(run, owner="second heir", ttl_s=60, over=epoch)
        with pytest.raises(FencedError):
            store.append(run, epoch, note(1))

    def test_one_of_many_gets_the_lease(self, store: Store, run: str) -> None:
        """Whoever asks at the same moment."""

        def claim(_: int) -> int:
            try:
                return store.claim(run, ttl_s=60)
            except BusyError:
                return 0

        with ThreadPoolExecutor(8) as pool:
            epochs = list(pool.map(claim, range(16)))
        assert sorted(epochs)[:-1] == [0] * 15

    # The list of runs

    def test_the_row_of_a_run_follows_its_records(self, store: Store, run: str) -> None:
        """Claimed only, it is not listed; then each record that tells of it changes it."""
        epoch = store.claim(run)
        assert listed(store, run) == []
        store.append(run, epoch, started(1, at=1.25, agent="a", parent="outer", forked={"run": "source", "at": 3}))
        (row,) = listed(store, run)
        assert (row.execution_id, row.agent_name, row.status, row.started_at) == (run, "a", "RUNNING", 1.25)
        assert (row.finished_at, row.totals, row.parent, row.forked_from) == (None, None, "outer", "source")

        store.append(run, epoch, {**note(2), "type": "run.suspended"})
        assert listed(store, run) == [replace(row, status="SUSPENDED")]
        store.append(run, epoch, {**note(3), "type": "run.resumed"}, note(4))
        assert listed(store, run) == [row]
        store.append(run, epoch, {**note(5), "type": "run.suspended", "totals": {"steps": 2}})
        assert listed(store, run) == [replace(row, status="SUSPENDED", totals={"steps": 2})]
        store.append(run, epoch, {**note(6), "type": "run.resumed"})
        assert listed(store, run) == [replace(row, totals={"steps": 2})]
        totals: Json = {"steps": 3, "text": "✓"}
        store.append(run, epoch, {**finished(7, at=2.5), "status": "FAILED", "totals": totals})
        assert listed(store, run) == [replace(row, status="FAILED", finished_at=2.5, totals={"steps": 3, "text": "✓"})]

    @pytest.mark.parametrize(
        ("fields", "tenant"),
        [
            ({}, ""),
            ({"principal": None, "job": {"tenant": ""}}, ""),
            ({"principal": {"id": "ann", "roles": [], "tenant": "acme"}}, "acme"),
            ({"job": {"tenant": "acme"}}, "acme"),
            ({"job": {"tenant": "acme"}, "principal": {"id": "ann", "roles": [], "tenant": "other"}}, "acme"),
            ({"tenant": "acme", "job": {"tenant": "other"}}, "acme"),
            ({"tenant": "", "principal": {"id": "ann", "roles": [], "tenant": "other"}}, ""),
            ({"tenant": "zwölf \ud83d"}, "zwölf \ud83d"),
        ],
        ids=lambda value: None if isinstance(value, dict) else f"{value!a}",
    )
    def test_a_row_says_whose_the_run_is(self, store: Store, run: str, fields: dict[str, Json], tenant: str) -> None:
        """From the first record on, whatever comes later; and a query for another tenant does not find it."""
        epoch = store.claim(run)
        store.append(run, epoch, {**started(1), **fields})
        store.append(run, epoch, finished(2))
        for asked in (None, tenant):
            (row,) = store.runs(None, query=RunQuery(starts_with=run, tenant=asked))
            assert (row.tenant, row.status) == (tenant, "SUCCESS")
        for other in {"", "acme", "acm", "acme ", "%", "="} - {tenant}:
            assert list(store.runs(None, query=RunQuery(starts_with=run, tenant=other))) == []

    def test_runs_are_listed_newest_first(self, store: Store, run: str) -> None:
        """By their beginning; of two that began in the same moment the one that was written later first."""
        starts = [3.0, 1.0, 2.0, 2.0, 2.0, 3.0000001, 1e9, 2.0]
        for n, at in enumerate(starts):
            # Later ids are smaller in every order of texts.
            store.append(f"{run}-{9 - n}", store.claim(f"{run}-{9 - n}"), started(1, at=at))
        expected = sorted(range(len(starts)), key=lambda n: (-starts[n], -n))
        assert numbers(store, run) == [9 - n for n in expected]

    def test_runs_come_in_pages(self, store: Store, run: str) -> None:
        """Each run once, in the order of the whole list, whatever is asked for."""
        for n in range(12):
            store.append(f"{run}-{n}", store.claim(f"{run}-{n}"), started(1, at=float(n // 4), agent=f"a{n % 2}"))
        for query in (RunQuery(starts_with=run), RunQuery(starts_with=run, agent_name="a1")):
            whole = store.runs(None, query=query)
            assert len(whole) == (6 if query.agent_name else 12)
            for size in (1, 5, 12, 50):
                pages = [store.runs(size, offset=start, query=query) for start in range(0, len(whole), size)]
                assert [row for page in pages for row in page] == list(whole)
            assert list(store.runs(5, offset=12, query=query)) == []
            assert list(store.runs(0, query=query)) == []
            assert list(store.runs(None, offset=2, query=query)) == list(whole)[2:]
        assert len(store.runs(3)) == 3

    def test_a_query_answers_what_it_matches(self, store: Store, run: str) -> None:
        """Every field alone and together, as `RunQuery.matches` says."""
        for n in range(24):
            id_ = f"{run}-{'ab'[n % 2]}-{n}"
            more: dict[str, Json] = {"parent": f"{run}-a-0"} if n % 3 == 0 else {}
            more |= {"forked": {"run": f"{run}-source-{n % 2}", "at": 1}} if n % 4 == 0 else {}
            more |= {"job": {"tenant": f"tenant {n % 3}"}} if n % 7 else {}
            epoch = store.claim(id_)
            store.append(id_, epoch, started(1, at=float(n), agent=f"agent {n % 5}", **more))
            if n % 5 < 2:
                store.append(id_, epoch, finished(2) if n % 2 else {**note(2), "type": "run.suspended"})
        rows = store.runs(None, query=RunQuery(starts_with=run))
        assert len(rows) == 24
        for query in queries(run):
            expected = [row for row in rows if query.matches(row)]
            assert list(store.runs(None, query=query)) == expected, query
            assert list(store.runs(2, offset=1, query=query)) == expected[1:3], query
            assert query == RunQuery(starts_with=run) or len(expected) < 24

    # Redaction, deletion

    @needs("rewrite")
    def test_a_rewritten_record_keeps_its_hash(self, store: Store, run: str) -> None:
        """The chain goes on over it; what says so is appended with it."""
        written = [started(1), note(2, text="secret"), note(3), note(4, text="secret")]
        epoch = store.claim(run)
        store.append(run, epoch, *written)
        before = list(store.read(run))
        replaced: dict[int, Record] = {
            seq: {**note(seq, text="gone"), "redacted": digest(written[seq - 1])} for seq in (2, 4)
        }
        said = {**note(5), "type": "redaction"}
        store.rewrite(run, epoch, replaced, said)
        store.append(run, epoch, note(6))

        after = list(store.read(run))
        assert [record["hash"] for record in after[:4]] == [record["hash"] for record in before]
        assert [bare(after[1]), bare(after[3])] == [replaced[2], replaced[4]]
        assert [bare(record) for record in (after[0], after[2], *after[4:])] == [started(1), note(3), said, note(6)]
        hashed = str(before[3]["hash"])
        for record in (said, note(6)):
            hashed = link(hashed, digest(record))
        assert after[5]["hash"] == hashed
        assert "secret" not in json.dumps(after)

    def test_a_rewrite_happens_wholly_or_not_at_all(self, store: Store, run: str) -> None:
        """A record that is not there, a wrong number, a gap in what is appended."""
        epoch = store.claim(run)
        written = [started(1), note(2, text="kept"), note(3)]
        store.append(run, epoch, *written)
        other = note(2, text="other")
        for replaced, appended in (
            ({2: other, 4: note(4)}, [note(4)]),
            ({2: other, 0: {**note(1), "seq": 0}}, []),
            ({2: other, 3: note(1)}, []),
            ({2: other}, [note(5)]),
            ({2: other}, [note(4), finished(6)]),
        ):
            with pytest.raises(StoreError):
                store.rewrite(run, epoch, replaced, *appended)
        assert_journal(store, run, written)
        with pytest.raises(FencedError):
            store.rewrite(f"{run}-unknown", 1, {1: note(1)})

    @needs("delete")
    def test_a_deleted_run_is_gone(self, store: Store, run: str) -> None:
        """Its row, its journal, its lease; who wrote to it is refused, also after somebody has claimed its id."""
        old = store.claim(run, ttl_s=60)
        store.append(run, old, started(1), note(2))
        store.append(f"{run}-other", store.claim(f"{run}-other"), started(1))
        store.delete(run)

        assert list(store.read(run)) == []
        assert [row.execution_id for row in listed(store, run)] == [f"{run}-other"]
        with pytest.raises(FencedError):
            store.append(run, old, note(3))
        with pytest.raises(FencedError):
            store.renew(run, old, 60)
        new = store.claim(run)
        store.append(run, new, started(1))
        for seq in (1, 2, 3):
            with pytest.raises(FencedError):
                store.append(run, old, note(seq))
        assert_journal(store, run, [started(1)])
        store.delete(run)
        store.delete(run)
        assert list(store.read(run)) == []

    def test_closing_twice_is_allowed(self, store: Store) -> None:
        """The second time nothing is left to do."""
        store.close()
        store.close()
