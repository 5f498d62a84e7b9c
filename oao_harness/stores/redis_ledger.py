"""Budgets in Redis or Valkey (7 or newer, no modules), which the workers of many machines may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import quote

from oao_harness.stores.ledger_rules import (
    MOST,
    dump_amounts,
    dump_name,
    in_use,
    load_name,
    require_amounts,
    require_names,
    require_ttl,
    settled_already,
)
from oao_harness.stores.redis_client import RedisClient
from oao_hookspecs import Amounts, Refusal

__all__ = ["RedisLedger"]

_SCRIPTS: Final = ("reserve", "settle", "renew", "totals")
_CONNECTIONS: Final = 100
_KEYS: Final = ("clock", "spent", "held", "holds", "expiry", "settled")


class RedisLedger:
    """A ledger on a server; see `Ledger`.

    Each method is one script, so one round trip. All keys of an account have one hash tag, so that a cluster keeps
    them together. The clock is the server's. A broken connection is tried again for half a second, since every
    script may be repeated; a server that does not answer in time is an error at once.

    How much survives the death of the server is the server's business: without `appendonly yes` a restart forgets
    what was spent, and a warning is logged.

    Args:
        url: `redis://[[user]:password@]host[:port][/db]`, `rediss://` for TLS, with the options of redis-py.
        timeout_s: Seconds to wait for a connection or an answer.

    Raises:
        ConfigError: The URL is wrong, or the server would evict what was spent.
        StoreError: The server cannot be reached.
    """

    def __init__(self, url: str, *, timeout_s: float = 3.0) -> None:
        self._client = RedisClient(
            url,
            what="ledger",
            loss="budgets begin anew",
            scripts=("ledger_lua", _SCRIPTS),
            timeout_s=timeout_s,
            connections=_CONNECTIONS,
        )

    def _call(self, script: str, account: str, *args: str | int) -> Any:
        # A name may hold braces: quoted, it cannot end the hash tag.
        tag = quote(account.encode("utf-8", "surrogatepass"), safe="")
        keys = [f"oao:budget:{{{tag}}}:{key}" for key in _KEYS]
        return self._client.run(script, keys, args)

    def reserve(
        self, account: str, hold: str, amounts: Mapping[str, int], limits: Mapping[str, int], ttl_s: float
    ) -> Refusal | None:
        """Take all amounts, or none; see `Ledger.reserve`."""
        require_names(account, hold)
        require_amounts("amount", amounts)
        require_amounts("limit", limits)
        require_ttl(ttl_s)
        asked = [
            field for counter, amount in amounts.items()
            for field in (dump_name(counter), amount, limits.get(counter, MOST))
        ]  # fmt: skip
        answer = self._call("reserve", account, dump_name(hold), _ms(ttl_s), dump_amounts(amounts), *asked)
        if answer[0] == b"ok":
            return None
        if answer[0] == b"settled":
            raise settled_already(account, hold)
        if answer[0] == b"in use":
            raise in_use(account, hold)
        _, position, spent, held = cast("tuple[bytes, int, bytes, bytes]", tuple(answer))
        counter = list(amounts)[position]
        return Refusal(
            counter=counter,
            limit=limits.get(counter, MOST),
            spent=int(spent),
            held=int(held),
            asked=amounts[counter],
        )

    def settle(self, account: str, hold: str, spent: Mapping[str, int]) -> None:
        """Replace a hold by what was really spent; see `Ledger.settle`."""
        require_names(account, hold)
        require_amounts("spent", spent)
        self._call("settle", account, dump_name(hold), dump_amounts(spent))

    def renew(self, account: str, holds: Sequence[str], ttl_s: float) -> Sequence[str]:
        """Let live holds live on; see `Ledger.renew`."""
        require_names(account, *holds)
        require_ttl(ttl_s)
        lost: list[int] = self._call("renew", account, _ms(ttl_s), *map(dump_name, holds))
        return [holds[position] for position in lost]

    def totals(self, account: str) -> Mapping[str, Amounts]:
        """Return what is spent and held; see `Ledger.totals`."""
        require_names(account)
        spent, held = (
            {load_name(counter.decode()): int(number) for counter, number in zip(row[::2], row[1::2], strict=True)}
            for row in self._call("totals", account)
        )
        return {
            counter: Amounts(spent=spent.get(counter, 0), held=held.get(counter, 0)) for counter in {**spent, **held}
        }

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
