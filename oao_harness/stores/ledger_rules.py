"""What every bundled ledger asks of its arguments, and how names and holds are written down."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final, cast

from oao_harness.errors import ConfigError, StoreError
from oao_hookspecs import Refusal

__all__ = [
    "MOST",
    "SETTLED_KEPT_S",
    "dump_amounts",
    "dump_name",
    "in_use",
    "load_amounts",
    "load_name",
    "require_amounts",
    "require_names",
    "require_ttl",
    "settled_already",
    "would_pass",
]

MOST: Final = 2**53 - 1
"""The limit of a counter without a limit. Lua's numbers are exact up to here."""

SETTLED_KEPT_S: Final = 600
"""Seconds for which the id of a settled hold is known, and the longest time to live: a repeat changes nothing."""

_MOST_BYTES: Final = 1024


def require_names(*names: object) -> None:
    """Refuse an account, a hold or a counter that is no name.

    Raises:
        ConfigError: It is not a string, is empty, or is too long.
    """
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigError(
                f"{name!r:.80} is no name for an account, hold or counter; give a string that is not empty"
            )
        # A character has at least one byte: most names need no encoding to be measured.
        size = len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
        if size > _MOST_BYTES:
            raise ConfigError(
                f"the name {name[:40]!r}... of an account, hold or counter has {size} bytes; at most 1024"
            )


def require_amounts(what: str, amounts: Mapping[str, int]) -> None:
    """Refuse amounts or limits that are out of range.

    Args:
        what: Of what, for a person.
        amounts: Whole numbers by counter.

    Raises:
        ConfigError: One is not a whole number from 0 to `MOST`, or its counter is no name.
    """
    require_names(*amounts)
    for counter, amount in amounts.items():
        # A subclass of int may compare as it likes.
        if type(amount) is not int or not 0 <= amount <= MOST:
            raise ConfigError(f"{what} {counter!r:.80}: {amount!r:.80} is no whole number from 0 to 2**53 - 1")


def require_ttl(ttl_s: object) -> None:
    """Refuse a time to live that is out of range.

    Raises:
        ConfigError: It is not a number of seconds above 0, up to `SETTLED_KEPT_S`.
    """
    number = isinstance(ttl_s, int | float) and not isinstance(ttl_s, bool)
    if not number or not math.isfinite(cast("float", ttl_s)) or not 0 < cast("float", ttl_s) <= SETTLED_KEPT_S:
        raise ConfigError(f"ttl_s={ttl_s!r:.80}: give seconds, more than 0 and at most {SETTLED_KEPT_S}")


def would_pass(counter: str, asked: int, limits: Mapping[str, int], spent: int, held: int) -> Refusal | None:
    """Return why an amount cannot be taken of a counter, or None where it can."""
    limit = limits.get(counter, MOST)
    if spent + held + asked <= limit:
        return None
    return Refusal(counter=counter, limit=limit, spent=spent, held=held, asked=asked)


def in_use(account: str, hold: str) -> StoreError:
    """Return the error for an id that holds other amounts."""
    return StoreError(
        f"account {account!r}: hold {hold!r} is in use for other amounts; give each call an id of its own"
    )


def settled_already(account: str, hold: str) -> StoreError:
    """Return the error for a reservation whose id was settled."""
    return StoreError(f"account {account!r}: hold {hold!r} was settled already; give each call an id of its own")


def dump_name(name: str) -> str:
    """Return a name as printable ASCII on one line; two names never become one."""
    # A model may name a tool with half of a surrogate pair, which UTF-8 cannot hold.
    return name if name.isalnum() and name.isascii() else json.dumps(name)[1:-1]


def load_name(text: str) -> str:
    """Return the name that `dump_name` wrote."""
    return cast("str", json.loads(f'"{text}"'))


def dump_amounts(amounts: Mapping[str, int]) -> str:
    """Return amounts as lines, name and number in turn, sorted and without zeros: equal amounts, equal text."""
    return "\n".join(f"{dump_name(counter)}\n{amount}" for counter, amount in sorted(amounts.items()) if amount)


def load_amounts(text: str) -> dict[str, int]:
    """Return the amounts that `dump_amounts` wrote."""
    lines = text.split("\n") if text else []
    return {load_name(counter): int(amount) for counter, amount in zip(lines[::2], lines[1::2], strict=True)}
