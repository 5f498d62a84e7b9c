"""Journals in Redis or Valkey (7 or newer, no modules), which the workers of many machines may share."""

from __future__ import annotations

import functools
import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from oao_harness.errors import ConfigError, StoreError
from oao_harness.stores.redis_client import Asked, RedisClient, Value
from oao_harness.stores.refusals import (
    busy,
    damaged,
    deleted_meanwhile,
    fenced,
    first_of,
    gap,
    missing,
    require_own_seq,
)
from oao_harness.stores.summaries import OPEN, Told, told
from oao_hookspecs import Record, RunQuery, RunSummary, chained, line_of, without_hash

__all__ = ["RedisStore"]

_SCRIPTS: Final = ("claim", "read", "lease", "append", "write", "delete", "runs")
_CONNECTIONS: Final = 250  # twice a worker's 100 runs, and 50
_PAGE: Final = 1000
_SCANNED: Final = 5000
_REMEMBERED: Final = 10_000
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


_T = TypeVar("_T")


class _Options(NamedTuple):
    """What a URL says to this store; the rest of it is the client's."""

    url: str
    prefix: str
    keep_ms: int
    zero_loss: bool


class _Doubt(NamedTuple):
    """An append of which nobody knows whether it happened."""

    epoch: int
    first: int
    previous: str


class _Write(NamedTuple):
    """A write that can be sent."""

    asked: Asked
    execution_id: str
    doubt: _Doubt
    """What is known of it where no answer comes."""
    added: int
    """How many records it appends."""
    hashed: str
    """Hash of the last one."""
    ends_lease: bool


class RedisStore:
    """A store on a server; see `Store`.

    Each write is one script, so it happens wholly or not at all, and one round trip. The clock is the server's.
    A connection that breaks is tried again for half a second; a script that had run already finds its own record, by
    number and hash, and does nothing. What a server keeps that dies is its own business: with `appendonly yes`
    everything that was answered survives its process, and the last second may be lost with the power, unless
    `appendfsync always`; without it a restart forgets all journals, and a warning is logged.

    All keys of a store have one hash tag, `{oao}` unless the URL says: a cluster keeps a store on one node, which the
    URL must name; give several prefixes to spread over more.

    Args:
        url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, with the options of redis-py and
            `keep=30d` (forget finished runs after that time: s, m, h or d; else they stay), `prefix=NAME`, and
            `zero_loss=1` (refuse a server without `appendonly yes` and `maxmemory-policy noeviction`).
        timeout_s: Seconds to wait for a connection or an answer.

    Raises:
        ConfigError: The URL is wrong, or the server would lose journals: it evicts them, or see `zero_loss`.
        StoreError: The server cannot be reached.
    """

    groups = True
    """It has `claim_many` and `append_many`."""

    def __init__(self, url: str, *, timeout_s: float = 5.0) -> None:
        options = _options(url)
        self._client = RedisClient(
            options.url,
            what="store",
            loss="journals are lost",
            scripts=("journal_lua", _SCRIPTS),
            timeout_s=timeout_s,
            connections=_CONNECTIONS,
            zero_loss=options.zero_loss,
        )
        tag = f"{{{options.prefix}}}"
        self._runs, self._due, self._counts = f"{tag}:runs", f"{tag}:due", f"{tag}:counts"
        self._run_prefix, self._log_prefix = f"{tag}:run:".encode(), f"{tag}:log:".encode()
        self._keep_ms = options.keep_ms
        self._last: dict[str, tuple[int, int, str]] = {}
        """Epoch, number and hash of the last record of the runs that are written here: only that epoch appends."""
        self._doubts: dict[str, _Doubt] = {}

    def claim(self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None) -> int:
        """Become the only writer of a run; see `Store.claim`. The lease is on the clock of the server."""
        asked = self._claiming(execution_id, owner, ttl_s, over, most=-1)
        return self._epoch_of(execution_id, self._client.run(asked.script, asked.keys, asked.args))[0]

    def claim_and_read(
        self, execution_id: str, *, owner: str = "", ttl_s: float = 0.0, over: int | None = None
    ) -> tuple[int, Sequence[Record]]:
        """Become the only writer of a run, and return its epoch and its records, in one round trip.

        Of a run that does not exist nobody becomes the writer: its epoch is 0.
        """
        asked = self._claiming(execution_id, owner, ttl_s, over, most=_PAGE)
        return self._claimed(execution_id, self._client.run(asked.script, asked.keys, asked.args))

    def claim_many(
        self, execution_ids: Sequence[str], *, owner: str, ttl_s: float
    ) -> list[tuple[int, Sequence[Record]] | Exception]:
        """Do `claim_and_read` for several runs in one round trip; return for each its answer, or its error."""
        asked = [self._claiming(one, owner, ttl_s, None, most=_PAGE) for one in execution_ids]
        answers = zip(execution_ids, self._client.run_many(asked), strict=True)
        return [_or_error(functools.partial(self._claimed, one, answer)) for one, answer in answers]

    def _claimed(self, execution_id: str, answer: Sequence[Any]) -> tuple[int, Sequence[Record]]:
        epoch, count, found = self._epoch_of(execution_id, answer)
        try:
            if len(found) != count:
                return epoch, list(self.read(execution_id))
            return epoch, [_record(execution_id, seq, body) for seq, body in enumerate(found, start=1)]
        except BaseException:
            # Nobody knows of the claim who could give it back.
            self.release(execution_id, epoch)
            raise

    def _claiming(self, execution_id: str, owner: str, ttl_s: float, over: int | None, *, most: int) -> Asked:
        dead = "" if over is None else str(over)
        keys: list[Value] = [self._run(execution_id), self._runs, self._due, self._counts, self._log(execution_id)]
        token = secrets.token_hex(8)
        args = (self._run_prefix, self._log_prefix, _bytes(owner), _ms(ttl_s), dead, token, most)
        return Asked("claim", keys, args, lambda: args)

    def _epoch_of(self, execution_id: str, answer: Sequence[Any]) -> tuple[int, int, Sequence[bytes]]:
        """Return the epoch of a claim, how many records there are, and those, if there are not more than asked for."""
        if isinstance(answer, Exception):
            raise answer
        epoch = int(answer[1])
        if answer[0] == b"busy":
            raise busy(execution_id, epoch, _text(answer[2]), int(answer[3]) / 1000)
        if epoch:
            self._remember(execution_id, epoch, int(answer[2]), answer[3].decode())
        return epoch, int(answer[2]), answer[4]

    def _remember(self, execution_id: str, epoch: int, seq: int, hashed: str) -> None:
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[execution_id] = (epoch, seq, hashed)

    def renew(self, execution_id: str, epoch: int, ttl_s: float) -> None:
        """Let a lease live on; see `Store.renew`."""
        if self._client.run("lease", [self._run(execution_id)], (epoch, _ms(ttl_s))) == b"fenced":
            raise fenced(execution_id, epoch)

    def release(self, execution_id: str, epoch: int) -> None:
        """End a lease; see `Store.release`."""
        self._client.run("lease", [self._run(execution_id)], (epoch, 0))

    def append(self, execution_id: str, epoch: int, *records: Record) -> None:
        """Append records; see `Store.append`."""
        self._write(execution_id, epoch, {}, records)

    def rewrite(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], *records: Record) -> None:
        """Put other records in place of some; see `Store.rewrite`."""
        require_own_seq(execution_id, replaced)
        self._write(execution_id, epoch, replaced, records)

    def append_many(self, appends: Sequence[tuple[str, int, Sequence[Record]]]) -> list[Exception | None]:
        """Do `append` for several runs in one round trip; return for each its error, or None.

        Args:
            appends: Of each run its id, the epoch and the records; no run twice.
        """
        found: list[Exception | None] = [None] * len(appends)
        writes: list[tuple[int, _Write]] = []
        for place, (execution_id, epoch, records) in enumerate(appends):
            write = _or_error(functools.partial(self._writing, execution_id, epoch, {}, records))
            if isinstance(write, Exception):
                found[place] = write
            else:
                writes.append((place, write))
        answers = self._client.run_many([write.asked for _, write in writes])
        for (place, write), answer in zip(writes, answers, strict=True):
            error = _or_error(functools.partial(self._written, write, answer))
            found[place] = error if isinstance(error, Exception) else None
        return found

    def _write(self, execution_id: str, epoch: int, replaced: Mapping[int, Record], records: Sequence[Record]) -> None:
        write = self._writing(execution_id, epoch, replaced, records)
        asked = write.asked
        try:
            answer = self._client.run(asked.script, asked.keys, asked.args, lost=asked.lost)
        except BaseException as error:  # noqa: BLE001 - raised again, with what is known of the write
            answer = error
        self._written(write, answer)

    def _writing(
        self, execution_id: str, epoch: int, replaced: Mapping[int, Record], records: Sequence[Record]
    ) -> _Write:
        first = first_of(execution_id, records) if records else 1
        says = told(execution_id, records)
        previous, again = ("", False) if not records else self._before(execution_id, epoch, first)
        if first is None or previous is None:
            raise self._refusal(execution_id, epoch, records[0])
        lines, hashed = list[Value](), previous
        for record in records:
            line, hashed = chained(hashed, record)
            lines.append(line)
        keys, start, rest = list[Value](), list[Value](), list[Value]()
        if says is None and not replaced and lines:
            script, keys = "append", [self._run(execution_id), self._log(execution_id)]
            rest = [first, *lines]
        else:
            script, keys, start = "write", self._keys(execution_id), [_bytes(execution_id)]
            rest = [self._keep_ms, *_told(says), len(replaced)]
            for seq, record in replaced.items():
                rest += [seq, line_of(without_hash(record))[:-1]]
            rest += [first, *lines]

        def args(*, lost: bool) -> Sequence[Value]:
            return [*start, epoch, "1" if lost else "", previous, hashed, *rest]

        asked = Asked(script, keys, args(lost=again), lambda: args(lost=True))
        ends_lease = says is not None and says.ends_lease
        return _Write(asked, execution_id, _Doubt(epoch, first, previous), len(lines), hashed, ends_lease)

    def _written(self, write: _Write, answer: Any) -> None:
        """Take the answer of the server to a write, or the error that it has none."""
        epoch, first, _ = write.doubt
        if isinstance(answer, BaseException):
            if write.added:
                self._doubts[write.execution_id] = write.doubt
            raise answer
        if answer != 1:
            raise _refused(write.execution_id, epoch, first, answer)
        if write.added and not write.ends_lease:
            self._remember(write.execution_id, epoch, first + write.added - 1, write.hashed)

    def _before(self, execution_id: str, epoch: int, first: int | None) -> tuple[str | None, bool]:
        """Return the hash before a record, and whether that record may be there already.

        It is forgotten here: only an append that is kept makes it known again.
        """
        known, doubt = self._last.pop(execution_id, None), self._doubts.pop(execution_id, None)
        if first is None:
            return None, False
        if doubt is not None and doubt[:2] == (epoch, first):
            return doubt.previous, True
        if known is not None and known[:2] == (epoch, first - 1):
            return known[2], False
        return self._hash_before(execution_id, first), False

    def _hash_before(self, execution_id: str, first: int) -> str | None:
        """Return the hash of the record before one, None where that is not the last one."""
        count, hashed = self._client.command("HMGET", self._run(execution_id), "count", "hash")
        return hashed.decode() if count is not None and int(count) == first - 1 else None

    def _refusal(self, execution_id: str, epoch: int, record: Record) -> StoreError:
        found, count = self._client.command("HMGET", self._run(execution_id), "epoch", "count")
        if found is None or int(found) != epoch:
            return fenced(execution_id, epoch)
        return gap(execution_id, record["seq"], int(count))

    def delete(self, execution_id: str) -> None:
        """Forget a run; see `Store.delete`."""
        self._last.pop(execution_id, None)
        self._doubts.pop(execution_id, None)
        self._client.run("delete", self._keys(execution_id), [_bytes(execution_id)])

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        """Yield the records of a run in order; those that it has when the reading begins."""
        keys: list[Value] = [self._run(execution_id), self._log(execution_id)]
        found, page = self._client.run("read", keys, (after, _PAGE))
        count, seq = int(found), after
        while seq < count:
            if not page and not self._client.command("EXISTS", keys[0]):
                raise deleted_meanwhile(execution_id)
            for body in page or [None]:
                seq += 1
                yield _record(execution_id, seq, body)
            if seq < count:
                page = self._client.command("LRANGE", keys[1], seq, min(seq + _PAGE, count) - 1)

    def runs(self, limit: int | None = 100, *, offset: int = 0, query: RunQuery | None = None) -> Sequence[RunSummary]:
        """Return the newest runs first; see `Store.runs`.

        A filter is asked of 5,000 runs at a time, on the server: of 100,000 runs that is a fraction of a second.
        """
        asked = query or RunQuery()
        # Without a filter the first ones need not be looked at.
        seen, wanted = (offset, limit) if asked == RunQuery() else (0, None if limit is None else offset + limit)
        filters: list[Value] = [
            _bytes(asked.starts_with),
            _bytes(asked.status),
            _bytes(asked.agent_name),
            _bytes(asked.forked_from),
            "" if asked.started_before is None else repr(float(asked.started_before)),
            "1" if asked.outer else "",
            b"" if asked.tenant is None else b"=" + _bytes(asked.tenant),
        ]
        found, cursor, ended = dict[str, RunSummary](), b"", False
        while not ended and (wanted is None or len(found) < wanted):
            most = _SCANNED if wanted is None else min(_SCANNED, wanted - len(found))
            args: list[Value] = [self._run_prefix, self._log_prefix, cursor, seen, _SCANNED, most, *filters]
            cursor, seen, end, rows = self._client.run("runs", [self._runs, self._due], args)
            ended = end == b"1"
            for row in rows:
                summary = _summary(row)
                found.setdefault(summary.execution_id, summary)
        rows_found = list(found.values())
        return rows_found if asked == RunQuery() else rows_found[offset:]

    def _keys(self, execution_id: str) -> list[Value]:
        return [self._run(execution_id), self._log(execution_id), self._runs, self._due, self._counts]

    def _run(self, execution_id: str) -> bytes:
        return self._run_prefix + _bytes(execution_id)

    def _log(self, execution_id: str) -> bytes:
        return self._log_prefix + _bytes(execution_id)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _or_error(asked: Callable[[], _T]) -> _T | Exception:
    try:
        return asked()
    except Exception as error:  # noqa: BLE001 - handed to whose it is
        return error


def _record(execution_id: str, seq: int, body: bytes | None) -> Record:
    """Read a record as the log has it; None where it has none."""
    try:
        record = json.loads(body or b"")
    except (ValueError, RecursionError) as error:
        why = "it is missing" if body is None else f"it is not JSON: {error}"
        raise damaged(execution_id, seq, why) from error
    if not isinstance(record, dict) or cast("Record", record).get("seq") != seq:
        raise damaged(execution_id, seq, "another one stands in its place")
    return cast("Record", record)


def _options(url: str) -> _Options:
    parts = urlsplit(url)
    given = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in given if name in {"keep", "prefix", "zero_loss"}}
    rest = [(name, value) for name, value in given if name not in ours]
    prefix = ours.get("prefix", "oao")
    if not prefix or set(prefix) & set("{}"):
        raise ConfigError(f"the store's prefix {prefix!r} is wrong: give a name without braces, as in ?prefix=oao")
    zero_loss = ours.get("zero_loss", "0")
    if zero_loss not in {"0", "1"}:
        raise ConfigError(f"the store's zero_loss={zero_loss} is wrong: give 1 or 0")
    keep_ms = 0
    if "keep" in ours:
        span = _SPAN.fullmatch(ours["keep"])
        keep_ms = round(float(span[1]) * _SECONDS[span[2]] * 1000) if span else 0
        if keep_ms < 1:
            raise ConfigError(f"the store's keep={ours['keep']} is wrong: give a number and s, m, h or d: keep=30d")
    return _Options(urlunsplit(parts._replace(query=urlencode(rest))), prefix, keep_ms, zero_loss == "1")


def _refused(execution_id: str, epoch: int, first: int, answer: Sequence[bytes]) -> StoreError:
    """Return what the script's refusal means."""
    word, *numbers = answer[0].decode(), *map(int, answer[1:])
    if word == "fenced":
        return fenced(execution_id, epoch)
    if word == "gap":
        return gap(execution_id, first, numbers[0])
    if word == "missing":
        return missing(execution_id, numbers[0], numbers[1])
    if word == "hash":
        return damaged(execution_id, first - 1, "its hash is not the one that this writer knows")
    return damaged(execution_id, numbers[0], "it has no hash")


def _told(says: Told | None) -> Sequence[Value]:
    """Return what the script needs of the row of a run."""
    if says is None:
        return ["", "", "", "", 0]
    row = says.row
    finished = row.finished_at is not None and row.status not in OPEN
    fields: dict[str, str | bytes] = {"status": _bytes(row.status)}
    if row.finished_at is not None:
        fields["finished"] = repr(row.finished_at)
    if row.totals is not None:
        fields["totals"] = json.dumps(row.totals)
    if says.begun:
        fields |= {"agent": _bytes(row.agent_name), "started": repr(row.started_at)}
        fields |= {} if row.parent is None else {"parent": _bytes(row.parent)}
        fields |= {} if row.forked_from is None else {"forked": _bytes(row.forked_from)}
        fields |= {"tenant": _bytes(row.tenant)} if row.tenant else {}
    flat = [part for pair in fields.items() for part in pair]
    flags = ["1" if flag else "" for flag in (says.ends_lease, row.status in OPEN, finished)]
    return ["begun" if says.begun else "moved", *flags, len(fields), *flat]


def _summary(row: Sequence[bytes | None]) -> RunSummary:
    id_, agent, status, started, finished, totals, parent, forked, tenant = row
    return RunSummary(
        execution_id=_text(id_ or b""),
        agent_name=_text(agent or b""),
        status=_text(status or b""),
        started_at=float(started or 0),
        finished_at=None if finished is None else float(finished),
        totals=None if totals is None else json.loads(totals),
        parent=None if parent is None else _text(parent),
        forked_from=None if forked is None else _text(forked),
        tenant=_text(tenant or b""),
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(kept: bytes) -> str:
    return kept.decode("utf-8", "surrogatepass")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000)) if seconds else 0
