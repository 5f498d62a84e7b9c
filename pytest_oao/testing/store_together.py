"""The part of the stores' conformance suite in which many write at once: threads, stores over one place, processes."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import pytest

from oao_harness.errors import BusyError, FencedError, StoreError
from oao_hookspecs import Store
from pytest_oao.testing.capabilities import Declaring, needs
from pytest_oao.testing.store_records import assert_journal, bare, note, started

__all__ = ["StoreTogether"]


class StoreTogether(Declaring):
    """Inherited by `StoreConformance`, which has the fixtures."""

    def test_many_threads_write_many_runs(self, store: Store, run: str) -> None:
        """Nothing is lost, nothing is mixed; the refusals of some cost the others nothing."""

        def write(n: int) -> int:
            epoch, refused = store.claim(f"{run}-{n}"), 0
            for seq in range(1, 31):
                store.append(f"{run}-{n}", epoch, started(1) if seq == 1 else note(seq, value=n))
                for wrong_epoch, wrong_seq in ((epoch, seq), (epoch, seq + 2), (epoch + 1, seq + 1)):
                    try:
                        store.append(f"{run}-{n}", wrong_epoch, note(wrong_seq, value=-1))
                    except StoreError:
                        refused += 1
            return refused

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(write, range(12))) == [90] * 12
        for n in range(12):
            assert_journal(store, f"{run}-{n}", [started(1), *(note(seq, value=n) for seq in range(2, 31))])

    def test_many_threads_write_one_run(self, store: Store, run: str) -> None:
        """Of those that offer the same record one is served; the order is total."""
        epoch = store.claim(run)

        def write(n: int) -> list[int]:
            kept = list[int]()
            for seq in range(1, 41):
                with contextlib.suppress(StoreError):
                    store.append(run, epoch, note(seq, value=n))
                    kept.append(seq)
            return kept

        with ThreadPoolExecutor(6) as pool:
            kept = list(pool.map(write, range(6)))
        records = list(store.read(run))
        assert sorted(seq for seqs in kept for seq in seqs) == [record["seq"] for record in records]
        for n, seqs in enumerate(kept):
            assert [record["seq"] for record in records if record["value"] == n] == seqs
        assert_journal(store, run, [bare(record) for record in records])

    def test_a_journal_can_be_read_while_it_grows(self, store: Store, run: str) -> None:
        """What is read is always a beginning of it."""
        epoch = store.claim(run)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(_write_notes, store, run, epoch)
            while not writing.done():
                seqs = [record["seq"] for record in store.read(run)]
                assert seqs == list(range(1, len(seqs) + 1))
            writing.result()
        assert_journal(store, run, [note(seq) for seq in range(1, 301)])

    @needs("reopen")
    def test_what_is_opened_again_holds_the_same(
        self, store: Store, run: str, open_again: Callable[[], Store] | None
    ) -> None:
        """Two stores over one place see and fence each other."""
        if open_again is None:
            pytest.skip("nobody else can open this store")
        epoch = store.claim(run, owner="first", ttl_s=60)
        store.append(run, epoch, started(1), note(2))
        other = open_again()
        try:
            assert_journal(other, run, [started(1), note(2)])
            with pytest.raises(BusyError, match="first"):
                other.claim(run)
            second = other.claim(run, over=epoch)
            other.append(run, second, note(3))
            with pytest.raises(FencedError):
                store.append(run, epoch, note(3))
            with pytest.raises(FencedError):
                store.append(run, epoch, note(4))
            third = store.claim(run)
            store.append(run, third, note(4))
            other.delete(run)
            with pytest.raises(FencedError):
                store.append(run, third, note(5))
            assert list(store.read(run)) == []
        finally:
            other.close()

    @needs("processes")
    def test_another_process_writes_to_the_same_place(
        self, store: Store, run: str, open_again: Callable[[], Store] | None
    ) -> None:
        """Started by `spawn`, at the same time as this one, to runs of its own; then it takes over this one's."""
        if open_again is None:
            pytest.skip("nobody else can open this store")
        epoch = store.claim(run)
        store.append(run, epoch, started(1))
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        process = spawn.Process(target=_write_in_child, args=(open_again, run, theirs), daemon=True)
        process.start()
        try:
            assert ours.poll(60)
            assert ours.recv() == "ready"
            ours.send("go")
            for seq in range(2, 101):
                store.append(run, epoch, note(seq))
            assert ours.poll(60)
            assert ours.recv() == "written"
            assert_journal(store, f"{run}-child", [started(1), *(note(seq) for seq in range(2, 101))])
            ours.send("take over")
            assert ours.poll(60)
            assert ours.recv() == epoch + 1
            with pytest.raises(FencedError):
                store.append(run, epoch, note(101))
            assert_journal(store, run, [started(1), *(note(seq) for seq in range(2, 101)), note(101, child=True)])
        finally:
            process.join(10)
            process.kill()


def _write_notes(store: Store, run: str, epoch: int) -> None:
    for seq in range(1, 301):
        store.append(run, epoch, note(seq))


def _write_in_child(open_again: Callable[[], Store], run: str, parent: Connection) -> None:
    store = open_again()
    epoch = store.claim(f"{run}-child")
    store.append(f"{run}-child", epoch, started(1))
    parent.send("ready")
    parent.recv()
    for seq in range(2, 101):
        store.append(f"{run}-child", epoch, note(seq))
    parent.send("written")
    parent.recv()
    epoch = store.claim(run)
    store.append(run, epoch, note(101, child=True))
    parent.send(epoch)
    store.close()
