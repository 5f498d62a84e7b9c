"""Volatile tokens: ids, addresses, ports and temporary paths that are new in every run. Pure; knows no recording.

```text
uuid    550e8400-e29b-41d4-a716-446655440000
callid  call_9pRX..., toolu_01A..., chatcmpl-..., resp_..., run--550e8400-...   a prefix and a random tail
addr    the digits of `<Agent at 0x7f3c...>`
port    of 127.0.0.1, localhost, 0.0.0.0 and [::1]; the host is compared
tmp     /tmp, /var/folders/../../T and what tempfile and pytest make in them; the names below are compared
time    2026-11-22T07:00:00Z; only where it is asked for
```

What is recognised never depends on the machine: a recording is made on one and played on another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

from oao_harness.errors import ConfigError

__all__ = ["DEFAULT_KINDS", "KINDS", "Token", "TokenKind", "cut", "kinds_of"]

TokenKind: TypeAlias = Literal["uuid", "callid", "addr", "port", "tmp", "time"]
"""What a volatile token is."""

Token: TypeAlias = tuple[str, str]
"""Kind and text."""

KINDS: Final[tuple[str, ...]] = get_args(TokenKind)
DEFAULT_KINDS: Final = frozenset({"uuid", "callid", "addr", "port", "tmp"})

_UUID: Final = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_COMPONENT: Final = r"[^\s/\\\"'<>|:*?]+"
_PATTERNS: Final = {
    "callid": (
        r"(?<![0-9A-Za-z_-])(?P<callid>"
        r"(?:call|fc|rs|resp|msg|req|run|item|lc|lc_run|pyd_ai|toolu|srvtoolu|chatcmpl|cmpl|gen|thread|asst)"
        r"(?:_vrtx|_bdrk|_\d{1,2}(?=_))?(?:_|--?)(?:tool-|\d{10}-)?"
        rf"(?:{_UUID}(?:-\d+)?|(?P<tail>[0-9A-Za-z]{{8,}}))"
        r"|tooluse_(?P<tail64>[0-9A-Za-z_-]{16,})"
        r")(?![0-9A-Za-z_]|-[0-9A-Za-z])"
    ),
    "uuid": rf"(?<![0-9A-Za-z])(?P<uuid>{_UUID})(?![0-9A-Za-z])",
    "time": (
        r"(?<![0-9A-Za-z-])(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)"
        r"(?![0-9A-Za-z])"
    ),
    "addr": r"(?P<addr>(?<=\bat )0x[0-9a-fA-F]{6,16}|(?<![0-9A-Za-z])0x7f[0-9a-f]{10})(?![0-9A-Za-z])",
    "port": (
        r"(?<![\w.-])(?P<host>(?:127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1\]):)(?P<port>\d{1,5})(?![0-9A-Za-z]|\.\d)"
    ),
    "tmp": (
        # Not after the `//` that a host follows.
        r"(?<![\w.~-])(?<![:\s\"'(=]/)(?<!^/)(?P<tmp>"
        # Wherever the folder of temporary files is, what pytest and tempfile make in it looks the same.
        rf"(?:[A-Za-z]:)?(?:[/\\]{_COMPONENT})*?[/\\]"
        rf"(?:pytest-of-{_COMPONENT}[/\\]pytest-(?:\d+|current)(?:[/\\]popen-gw\d+)?(?:[/\\]{_COMPONENT})?"
        # What tempfile draws has a digit or `_` in it nearly always, and a name that a person gave has none.
        r"|tmp(?=[a-z]{0,7}[0-9_])[a-z0-9_]{8}(?![\w-]))"
        rf"|(?:(?:/private)?/var/folders/{_COMPONENT}/{_COMPONENT}/T|(?:/private|/var)?/tmp"
        rf"|[A-Za-z]:[/\\]Users[/\\]{_COMPONENT}[/\\]AppData[/\\]Local[/\\]Temp)(?![\w-])"
        r")"
    ),
}
_MARK: Final = "\x1a"
_LONG: Final = 16
_SHORT_IDS: Final = ("call", "toolu", "srvtoolu", "chatcmpl")
_WORD: Final = re.compile(r"[A-Za-z]?[a-z]+\d{0,4}|[A-Z]+\d{0,4}|\d+")
_TURN: Final = re.compile(r"(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z])(?=[0-9])")
_MOST_REMEMBERED: Final = 1 << 13


def kinds_of(names: Iterable[str]) -> frozenset[str]:
    """Return kinds of tokens by their names.

    Raises:
        ConfigError: There is no such kind.
    """
    kinds = frozenset(names)
    for name in sorted(kinds - set(KINDS)):
        raise ConfigError(f"{name!r} is no kind of volatile token; there are {', '.join(KINDS)}")
    return kinds


@lru_cache(maxsize=_MOST_REMEMBERED)
def cut(text: str, kinds: frozenset[str] = DEFAULT_KINDS) -> tuple[str, tuple[Token, ...]]:
    """Return a text without its volatile tokens, and the tokens in their order.

    Times are cut out and not returned: two readings of a clock may be equal in one run and differ in the next.

    Args:
        text: Any text.
        kinds: What is cut out.
    """
    if _MARK in text:
        # So that no text looks like one that something was cut out of.
        text = text.replace(_MARK, _MARK * 2)
    if not kinds:
        return text, ()
    tokens: list[Token] = []

    def replace(found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        parts = found.groupdict()
        if parts.get("callid") is not None:
            tail = parts["tail"] or parts["tail64"]
            if tail is not None and not _is_random(tail, short=found["callid"].startswith(_SHORT_IDS)):
                return found[0]
            kind = "callid"
        elif parts.get("port") is not None:
            kind = "port"
        if kind != "time":
            tokens.append((kind, found[kind]))
        return f"{parts.get('host') or ''}{_MARK}<{kind}>"

    return _pattern(kinds).sub(replace, text), tuple(tokens)


@lru_cache(maxsize=1 << len(KINDS))
def _pattern(kinds: frozenset[str]) -> re.Pattern[str]:
    return re.compile("|".join(pattern for kind, pattern in _PATTERNS.items() if kind in kinds))


def _is_random(tail: str, *, short: bool) -> bool:
    """Return True where what follows the prefix of an id is no word, such as in `call_recording2024`.

    Args:
        tail: What follows.
        short: True for a prefix that nothing but ids of calls has: `item_M8x40x2mm` is an article, not an id.
    """
    if _WORD.fullmatch(tail):
        return False
    if len(tail) < _LONG:
        return short and len(_TURN.findall(tail)) > 1
    return any(char.isdigit() for char in tail) or sum(char.isupper() for char in tail) * 4 >= len(tail)
