"""Takes secrets out of what is written: values of the environment, and what a project declares.

Pure over a snapshot, so that a recorded and a live request are changed alike.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, TypeAlias, cast
from urllib.parse import quote, quote_plus

from oao_harness.journal.events import RecordedEvent
from oao_harness.journal.records import key_of
from oao_hookspecs import ErrorInfo, Json

__all__ = ["REDACTED", "Redaction", "Scrubber", "scrub"]

REDACTED: Final = "<redacted>"
_log: Final = logging.getLogger(__name__)
_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SHORTEST: Final = 8
# The codec's names of binary values: their text is base64, which must stay base64.
_BINARY: Final = frozenset({"bytes", "bytearray"})
_Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """What a project declares under `[tool.oao.redact]`."""

    patterns: tuple[re.Pattern[str], ...] = ()
    """What they find becomes `<redacted>`; where one has groups, only what these hold."""
    paths: tuple[_Path, ...] = ()
    """Places, in parts: kind, name, `req`, `res` or `error`, then keys. `*` stands in a part for anything, `**` for
    any number of parts."""
    functions: tuple[Callable[[str], str], ...] = ()
    """Of plugins: each is given every text. Where one fails, the text is withheld."""

    @property
    def reads_texts(self) -> bool:
        """True where each text must be looked at by itself."""
        return bool(self.patterns or self.functions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubber:
    """Replaces secrets in values.

    Use `of`. What it returns depends on nothing else: scrubbing twice, or at another time, gives the same.
    """

    replacements: Mapping[str, str] = field(default_factory=dict[str, str])
    """What stands for each secret, in every spelling, longest first."""
    redact: Redaction = field(default_factory=Redaction)
    _pattern: re.Pattern[str] | None = None
    _signs: tuple[str, ...] = ()
    """One of them is in the JSON text of each value that holds a secret."""
    _raw: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None, redact: Redaction | None = None) -> Scrubber:
        """Take a snapshot of an environment.

        Args:
            environ: Its variables; those of this process by default.
            redact: What the project declares.
        """
        redact = redact or Redaction()
        found = {
            name: value
            for name, value in (os.environ if environ is None else environ).items()
            if len(value) >= _SHORTEST and _SECRET_NAME.search(name)
        }
        # Sorted, so that two variables of the same value are named alike everywhere.
        return cls.naming({value: f"<env:{name}>" for name, value in sorted(found.items(), reverse=True)}, redact)

    @classmethod
    def naming(cls, secrets: Mapping[str, str], redact: Redaction | None = None) -> Scrubber:
        """Replace these texts, in every spelling that JSON, URLs and base64 give them.

        Args:
            secrets: What stands for each.
            redact: What else is replaced.
        """
        redact = redact or Redaction()
        if not secrets:
            return cls(redact=redact)
        spelled: dict[str, str] = {}
        signs: set[str] = set()
        for value, name in sorted(secrets.items(), key=lambda item: (item[1], item[0])):
            for spelling in filter(None, _spellings(value)):
                spelled.setdefault(spelling, name)
                signs.update(_signs(spelling))
        longest = dict(sorted(spelled.items(), key=lambda item: (-len(item[0]), item[0])))
        raw = sorted(
            ((value.encode("utf-8", "replace"), name.encode()) for value, name in secrets.items()),
            key=lambda pair: -len(pair[0]),
        )
        return cls(
            replacements=longest,
            redact=redact,
            _pattern=re.compile("|".join(map(re.escape, longest))),
            _signs=tuple(sorted(signs)),
            _raw=tuple(raw),
        )

    def touches(self, text: str) -> bool:
        """Return True where a JSON text may hold something to replace."""
        if self.redact.functions:
            return True
        return any(sign in text for sign in self._signs) or any(p.search(text) for p in self.redact.patterns)

    def scrub(self, value: Json) -> Json:
        """Return a value without secrets; the same object where it holds none."""
        if not self._signs and not self.redact.reads_texts:
            return value
        # A pattern is asked about each text: with `^` or `\n` in it, it may not be found in JSON.
        if not self.redact.reads_texts and not self.touches(json.dumps(value, ensure_ascii=False)):
            return value
        return self._scrub(value)

    def _scrub(self, value: Json) -> Json:
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            if value.get("$oao") in _BINARY and isinstance(value.get("value"), str):
                return {**value, "value": self._binary(cast("str", value["value"]))}
            return {self._text(key): self._scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._scrub(item) for item in value]
        return value

    def _text(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(lambda found: self.replacements[found[0]], text)
        for pattern in self.redact.patterns:
            text = pattern.sub(_redact_match, text)
        for redact in self.redact.functions:
            text = _redacted_by(redact, text)
        return text

    def _binary(self, text: str) -> str:
        try:
            content = base64.b64decode(text, validate=True)
        except ValueError:
            return self._text(text)
        for secret, name in self._raw:
            content = content.replace(secret, name)
        return base64.b64encode(content).decode()

    def request(self, kind: str, name: str, request: Mapping[str, Json]) -> Mapping[str, Json]:
        """Return what a call asks for without secrets, as a recording holds it.

        Args:
            kind: Of the call.
            name: Of the call.
            request: What it asks for; the same object is returned where it holds nothing to replace.
        """
        placed = self.placed(kind, name, "req", cast("Json", request))
        return cast("Mapping[str, Json]", self.scrub(placed))

    def events(self, events: Iterable[RecordedEvent], text: str | None = None) -> tuple[RecordedEvent, ...]:
        """Return events without secrets, their keys computed again.

        Args:
            events: The events.
            text: Their JSON text, where somebody has it: then it tells at once that there is nothing to do.
        """
        events = tuple(events)
        # A pattern may look for what JSON spells differently: only the texts themselves tell.
        if text is not None and not self.redact.paths and not self.redact.reads_texts and not self.touches(text):
            return events
        known = dict[int, tuple[Json, Json]]()
        return tuple(self._event(event, known) for event in events)

    def _event(self, event: RecordedEvent, known: dict[int, tuple[Json, Json]]) -> RecordedEvent:
        def once(value: Json) -> Json:
            # Messages are shared by the events: each is looked at once, and stays shared.
            if id(value) not in known:
                known[id(value)] = (value, self._scrub(value))
            return known[id(value)][1]

        kind, name = event.kind, self._text(event.name)
        placed = cast("Mapping[str, Json]", self.placed(kind, event.name, "req", cast("Json", event.request)))
        request = {
            self._text(key): cast("Json", [once(one) for one in item])
            if kind == "model" and key in {"messages", "tools"} and isinstance(item, list)
            else self._scrub(item)
            for key, item in placed.items()
        }
        value = self.placed(kind, event.name, "res", event.value)
        if kind == "model" and isinstance(value, Mapping) and isinstance(value.get("message"), Mapping):
            rest = {self._text(key): self._scrub(item) for key, item in value.items() if key != "message"}
            value = {"message": once(value["message"]), **rest}
        else:
            value = self._scrub(value)
        error = event.error
        if error is not None:
            data = self._scrub(self.placed(kind, event.name, "error", cast("Json", error.data)))
            error = ErrorInfo(type=error.type, message=self._text(error.message), data=cast("Mapping[str, Json]", data))
        return replace(
            event,
            name=name,
            request=request,
            value=value,
            error=error,
            decision=self._text(event.decision),
            run=self._text(event.run),
            call_id=None if event.call_id is None else self._text(event.call_id),
            key=key_of(kind, name, request),
            extra=cast("Mapping[str, Json]", self._scrub(cast("Json", event.extra))),
        )

    def placed(self, kind: str, name: str, part: str, value: Json) -> Json:
        """Return a value with what stands at declared paths redacted."""
        if not self.redact.paths:
            return value
        here = [kind, *name.split("."), part]
        left = [rest for path in self.redact.paths for rest in _after(path, here)]
        return _redact_at(value, left) if left else value


def _after(path: _Path, here: Sequence[str]) -> Iterator[_Path]:
    """Yield what is left of a path below a place; more than one where `**` may end in several."""
    if not here:
        yield path
    elif path and path[0] == "**":
        yield from _after(path[1:], here)
        yield from _after(path, here[1:])
    elif path and fnmatchcase(here[0], path[0]):
        yield from _after(path[1:], here[1:])


def _redact_at(value: Json, paths: Sequence[_Path]) -> Json:
    if any(not path or set(path) == {"**"} for path in paths):
        return REDACTED
    if isinstance(value, Mapping):
        below = {key: [rest for path in paths for rest in _after(path, [key])] for key in value}
        return {key: _redact_at(item, below[key]) if below[key] else item for key, item in value.items()}
    if isinstance(value, list):
        inner = [[rest for path in paths for rest in _after(path, [str(i)])] for i in range(len(value))]
        return [_redact_at(item, left) if left else item for item, left in zip(value, inner, strict=True)]
    return value


def _redacted_by(redact: Callable[[str], object], text: str) -> str:
    try:
        found = redact(text)
    except Exception:  # noqa: BLE001 - a plugin's, and what it would have taken out may be in the text
        _log.exception("a redactor failed, so the text is withheld: %r", redact)
        return REDACTED
    if not isinstance(found, str):
        _log.error("a redactor returned no text, so the text is withheld: %r", redact)
        return REDACTED
    return found


def _redact_match(found: re.Match[str]) -> str:
    if not found.re.groups:
        return REDACTED
    text, begin = found[0], found.start()
    for number in range(found.re.groups, 0, -1):
        first, last = found.span(number)
        if first >= 0:
            text = text[: first - begin] + REDACTED + text[last - begin :]
    return text


def _spellings(secret: str) -> Iterator[str]:
    """Yield a secret as it is, as JSON and URLs write it, and as it looks inside of base64."""
    yield secret
    for ascii_only in (False, True):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield json.dumps(escaped, ensure_ascii=False)[1:-1]
    yield quote(secret, safe="", errors="replace")
    yield quote(secret, errors="replace")
    yield quote_plus(secret, errors="replace")
    content = secret.encode("utf-8", "replace")
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(content).decode()
        yield whole
        for offset in range(3):
            # Of what the secret's own bits make up alone: its neighbours decide the rest.
            text = encode(b"\0" * offset + content).decode().rstrip("=")
            first, last = -(-offset * 8 // 6), (offset + len(content)) * 8 // 6
            yield text[first:last]


def _signs(spelling: str) -> Iterator[str]:
    """Yield what is in a JSON text where a spelling is in the value: by lines, because a recording splits them."""
    line = max(spelling.split("\n"), key=len)
    yield json.dumps(line, ensure_ascii=False)[1:-1]
    yield json.dumps(line)[1:-1]


@functools.lru_cache(maxsize=4)
def _of_items(items: tuple[tuple[str, str], ...]) -> Callable[[Json], Json]:
    return Scrubber.of(dict(items)).scrub


def scrub(value: Json) -> Json:
    """Return a value without the secrets that this process's environment holds now; see `Scrubber`."""
    named = tuple(sorted((name, value) for name, value in os.environ.items() if _SECRET_NAME.search(name)))
    return _of_items(named)(value)
