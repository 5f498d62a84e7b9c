"""The HTTP of one test: which requests are its agents' and tools' own, what answers them, and what is journaled.

Nothing here knows vcrpy: `http_vcr` hands over requests and responses. Requests in the body of a model call are left
alone, for the model's answer is recorded; those to model providers are governed as always.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final, Literal, NoReturn, cast

from oao_harness.adapters.http_clients import is_model_traffic
from oao_harness.errors import FrameworkError, ReplayDiverged, RunHalted
from oao_harness.journal.codec import encode_error
from oao_harness.journal.events import HttpCall
from oao_harness.journal.http_replay import lane_of_call, lane_of_run
from oao_harness.journal.http_requests import HttpResponse, error_of, http_call, response_from_json, response_to_json
from oao_harness.journal.records import error_to_json, request_of
from oao_harness.journal.replay import Divergence
from oao_harness.runtime.callers import caller_line
from oao_harness.runtime.context import Frame, frame, here
from oao_harness.runtime.dispatch import drive
from oao_harness.runtime.outside import governed_model_call, is_watched
from oao_harness.runtime.passage import diverging
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, Json, Record

if TYPE_CHECKING:
    from pytest_oao.session import TestSession
    from pytest_oao.world import Phase

__all__ = ["INSTALL", "Exchange", "HttpLayer", "current", "missing", "unrecordable"]

INSTALL: Final = "pip install 'oao-harness[http]'"
_STREAMS: Final = ("text/event-stream", "application/x-ndjson", "multipart/x-mixed-replace")
_BODILESS: Final = frozenset({204, 304})

current: Final[ContextVar[Exchange | None]] = ContextVar("oao_exchange", default=None)
"""The request that is being answered in this context: what a client sends below it is the same request."""


def missing() -> bool:
    """Return True where vcrpy is not installed."""
    try:
        version("vcrpy")
    except PackageNotFoundError:
        return True
    return False


def unrecordable(status: int, headers: Mapping[str, str], *, method: str, streamed: bool) -> str:
    """Return why a response may never end, and so is not recorded; "" where it is.

    Args:
        status: Of the response.
        headers: Of the response; any mapping that does not care about case.
        method: Of the request.
        streamed: True where the caller asked the client for a stream.
    """
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind in _STREAMS:
        return f"a stream ({kind})"
    if status == 101:
        return "another protocol"
    endless = streamed and headers.get("content-length") is None and method != "HEAD" and status not in _BODILESS
    return "a stream of unknown length" if endless else ""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request on its way: ask, and where there is no answer send it and tell how it ended."""

    layer: HttpLayer
    method: str
    url: str
    run: Run | None
    inside: Frame | None
    live: bool = False
    """True where it is sent, and nothing is recorded of it."""
    _number: int | None = None
    _ended: bool = False
    _began: float = 0.0
    _status: int = 0
    call: HttpCall | None = field(default=None)

    @contextmanager
    def watched(self) -> Generator[None]:
        """Surround whatever a client does for this request: an error of it is recorded too."""
        token = current.set(self)
        try:
            yield
        except Exception as error:
            self._failed(error)
            raise
        except BaseException:
            self.passed("it was cancelled")
            raise
        finally:
            current.reset(token)

    def ask(self, method: str, url: str, body: object, content_type: str) -> HttpResponse | None:
        """Return the recorded response, or None where the request must be sent.

        Raises:
            RunHalted: It is not what was recorded.
            Exception: What the client raised when it was recorded.
        """
        self.call = http_call(method, url, body, content_type)
        self._ended = False
        found = self.layer.serve(self)
        if found is not None and not found.live:
            return found
        self.live = found is not None
        self._begin()
        return None

    def _begin(self) -> None:
        if self.live or self.call is None:
            return
        fields: dict[str, Json] = {"name": self.call.name, "req": dict(self.call.request)}
        if self.inside is not None and self.inside.run is self.run:
            fields["parent"] = self.inside.n
        self._number, self._began = self.layer.number(), time.perf_counter()
        self.layer.write(self.run, "http", {"h": self._number, **fields})

    def answered(self, response: HttpResponse) -> None:
        """Record how the request that was sent ended."""
        self._end({"res": response_to_json(response)})

    def also_answered(self, method: str, url: str, body: object, response: HttpResponse) -> None:
        """Record a request that the client made by itself after this one: it followed a redirect."""
        if not self._ended:
            self.answered(response)
            return
        self.call, self._ended = http_call(method, url, body, ""), False
        self._begin()
        self.answered(response)

    def passed(self, why: str, status: int = 0) -> None:
        """Record that a response is not recorded."""
        if self.live or self._number is None or self._ended:
            return
        if self.run is not None and status:
            self.run.note_ungoverned(f"http: {self.method} {_shown(self.url)}: {why} is not recorded")
        self._end({"res": response_to_json(HttpResponse(status=status, live=why))})

    def _failed(self, error: Exception) -> None:
        self._end({"error": error_to_json(encode_error(error))})

    def _end(self, fields: dict[str, Json]) -> None:
        if self.live or self._number is None or self._ended:
            return
        self._ended = True
        took: dict[str, Json] = {"duration_s": round(time.perf_counter() - self._began, 6)}
        self.layer.write(self.run, "http.ended", {"h": self._number, **fields, **took})


class HttpLayer:
    """Decides about the requests of one test; see `TestSession`.

    Args:
        session: The test.
    """

    def __init__(self, session: TestSession) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._phase: Phase | None = None
        self.early: list[tuple[str, Record]] = []
        """What the test's code sent before its first call: then it has no run, and may have no agent."""
        self.uncovered: list[str] = []
        """Client libraries whose requests are neither recorded nor played, each with the reason."""

    @contextmanager
    def within(self, phase: Phase) -> Generator[None]:
        """Let a phase of the test be recorded or played, where it is."""
        if not self._session.has_http:
            yield
            return
        from pytest_oao.http_vcr import find_vcr, installed  # noqa: PLC0415 - imports every client library

        try:
            find_vcr()
        except FrameworkError as error:
            if self._session.recording.plays_http:
                raise
            self.note_uncovered(str(error))
            yield
            return
        self._phase = phase
        try:
            with installed(self):
                yield
        finally:
            self._phase = None

    def begin(self, method: str, url: str, headers: Mapping[str, object] | None = None) -> Exchange | None:
        """Return what answers or records a request; None where that is left alone.

        Args:
            method: GET, POST ...
            url: With its query.
            headers: Of the request.

        Raises:
            RunHalted: It must not be sent.
        """
        if current.get() is not None or not is_watched() or governed_model_call() is not None or _upgrades(headers):
            return None
        inside, run = frame.get(), here.get()
        if is_model_traffic(method, url):
            return None
        recording = self._session.recording
        if run is None and inside is not None:
            run = inside.run
        if run is None:
            if self._phase != "call":
                return None
            run = self._session.main
        if run is not None and recording.plays:
            run.refuse_if_over()
        if (run is not None and run.closed) or not (recording.plays_http or recording.keeps):
            return None
        return Exchange(self, method, url, run, inside)

    def serve(self, exchange: Exchange) -> HttpResponse | None:
        """Return the recorded response of a request; None where it must be sent."""
        recording = self._session.recording
        if not recording.plays_http:
            return None
        self._session.prepare()
        call = cast("HttpCall", exchange.call)
        found = recording.replay.serve(cast("Call", call), self._lane(exchange)) if recording.replay else None
        if found is None:
            return None
        if isinstance(found, Divergence):
            self._diverge(exchange, found)
        if found.event is not None:
            recording.served_http.add(found.event)
        if found.outcome.error is not None:
            raise error_of(found.outcome.error)
        try:
            return response_from_json(found.outcome.value)
        except ValueError as error:
            text = f"step {found.event} http {call.name}: its recorded response cannot be read: {error}"
            self._diverge(exchange, Divergence(kind="unreadable", text=f"{text} (replay diverged)", step=found.event))

    def _lane(self, exchange: Exchange) -> str:
        inside = exchange.inside
        if inside is None or inside.call.kind == "model":
            return lane_of_run(exchange.run.label if exchange.run is not None else "main")
        call = inside.call
        return lane_of_call(call.kind, call.name, request_of(call), f"live {inside.run.label} {inside.n}")

    def _diverge(self, exchange: Exchange, divergence: Divergence) -> NoReturn:
        run = exchange.run or self._session.ambient()
        caller = caller_line()
        text = divergence.text if caller is None else f"{divergence.text}\n  {caller}"
        if run is None:
            raise ReplayDiverged(text, rule="replay", plugin="oao", kind=divergence.kind, step=divergence.step)
        told = Divergence(
            kind=divergence.kind,
            text=text,
            step=divergence.step,
            name=divergence.name,
            differences=divergence.differences,
        )
        drive(diverging(run, told, None), run.hooks.timeout_s)
        raise run.require_halt()

    def number(self) -> int:
        """Return a number for a request that is recorded."""
        return next(self._numbers)

    def write(self, run: Run | None, type: Literal["http", "http.ended"], fields: dict[str, Json]) -> None:
        """Journal a request or how it ended; before the first call of a test, keep it for the recording."""
        if run is None:
            with self._lock:
                self.early.append(
                    ("main", cast("Record", {"v": 1, "seq": 0, "type": type, "at": time.time(), **fields}))
                )
        elif not run.closed:
            try:
                run.write(type, fields)
            except RunHalted:
                if type == "http":
                    raise

    def note_uncovered(self, what: str) -> None:
        """Keep which client library is not covered, for the end of the session."""
        if what not in self.uncovered:
            self.uncovered.append(what)


def _upgrades(headers: Mapping[str, object] | None) -> bool:
    return headers is not None and any(str(name).lower() == "upgrade" for name in headers)


def _shown(url: str) -> str:
    return url.partition("?")[0].partition("#")[0]
