"""A store that tells what was appended to it, and how long that took; all else is the store's that it stands before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeAlias, cast

from oao_hookspecs import Record, RunQuery, RunSummary, Store

__all__ = ["Appended", "ObservedStore"]

Appended: TypeAlias = Callable[[str, Sequence[Record], float], None]
"""Hears the id of a run, the records that its store has kept, and the seconds that took; from the thread that wrote.
It must be quick and must not raise."""


class ObservedStore:
    """Stands before a store.

    Args:
        store: The store.
        appended: Hears of every append that the store has kept, in the order of each run's journal.
    """

    def __init__(self, store: Store, *appended: Appended) -> None:
        self.inner = store
        self._appended = appended

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        began = perf_counter()
        self.inner.append(execution_id, epoch, *records)
        took_s = perf_counter() - began
        for told in self._appended:
            told(execution_id, records, took_s)

    @property
    def groups(self) -> bool:
        """True where the store has `claim_many` and `append_many`."""
        return bool(getattr(self.inner, "groups", False))

    def claim_many(
        self, execution_ids: Sequence[str], *, owner: str, ttl_s: float
    ) -> list[tuple[int, Sequence[Record]] | Exception]:
        """Claim several runs at once; see `RedisStore.claim_many`."""
        found: list[tuple[int, Sequence[Record]] | Exception] = cast("Any", self.inner).claim_many(
            execution_ids, owner=owner, ttl_s=ttl_s
        )
        return found

    def append_many(self, appends: Sequence[tuple[str, int, Sequence[Record]]]) -> list[Exception | None]:
        """Append to several runs at once; see `RedisStore.append_many`. Each is told to have taken the time of all."""
        began = perf_counter()
        errors: list[Exception | None] = cast("Any", self.inner).append_many(appends)
        took_s = perf_counter() - began
        for (execution_id, _, records), error in zip(appends, errors, strict=True):
            if error is None:
                for told in self._appended:
                    told(execution_id, records, took_s)
        return errors

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`."""
        return self.inner.claim(execution_id, owner=owner, ttl_s=ttl_s, over=over)

    def claim_and_read(
        self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None
    ) -> tuple[int, Sequence[Record] | None]:
        """Claim a run and return its epoch and its records; None for them where the store has no such step."""
        both = getattr(self.inner, "claim_and_read", None)
        if both is None:
            return self.inner.claim(execution_id, owner=owner, ttl_s=ttl_s, over=over), None
        return cast("tuple[int, Sequence[Record] | None]", both(execution_id, owner=owner, ttl_s=ttl_s, over=over))

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        self.inner.renew(execution_id, epoch, ttl_s)

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        self.inner.release(execution_id, epoch)

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run; see `Store.read`."""
        return self.inner.read(execution_id, after=after)

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first; see `Store.runs`."""
        return self.inner.runs(limit, offset=offset, query=query)

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        self.inner.rewrite(execution_id, epoch, replaced, *records)

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        self.inner.delete(execution_id)

    def close(self) -> None:
        """Release what the store holds."""
        self.inner.close()
