"""Governs the clients that Stainless generates, `openai` and `anthropic`: one request of theirs is one model call.

The leaf is `request` of the two base clients. What it sends goes through the HTTP client's `send`, where the response
is taken as it comes, or put in place of sending: so parsing, streams, raw responses and helpers are the client's own,
in a replay too. Requests that ask no model pass untouched, and so does what the body of a governed model call sends.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, cast

from oao_harness.adapters.patching import require, set_method
from oao_harness.adapters.sdk_models import swapped
from oao_harness.adapters.sdk_responses import (
    Recorded,
    decoded,
    keep_failure,
    library_of,
    recorded_of,
    respond,
    result_to_json,
    wire_of,
)
from oao_harness.adapters.sdk_streams import Watch, pulling, pulling_async
from oao_harness.adapters.wire import describe, endpoint_of
from oao_harness.adapters.wire_answers import answer_of
from oao_harness.errors import ConfigError
from oao_harness.journal.codec import decode
from oao_harness.journal.replay import Divergence
from oao_harness.runtime import gate
from oao_harness.runtime.context import Frame, current, frame
from oao_harness.runtime.dispatch import drive
from oao_harness.runtime.outside import governed_model_call, is_watched
from oao_harness.runtime.overrides import is_swap
from oao_harness.runtime.passage import Ticket, diverging
from oao_harness.runtime.run import Run
from oao_hookspecs import Call, Json, ModelCall

__all__ = ["install"]

# By which the client says to itself that its caller reads the body. Source: `_constants.py` of both clients.
_RAW_HEADER: Final = "X-Stainless-Raw-Response"


class _Exchange:
    """What the client's own code sends for one call, and what it receives."""

    __slots__ = ("http", "recorded", "response", "run", "sent")

    def __init__(self, http: object, run: Run | None, recorded: Recorded | None = None) -> None:
        self.http, self.run, self.recorded = http, run, recorded
        self.sent = 0
        self.response: Any = None

    def begin(self) -> None:
        """Count an attempt.

        Raises:
            RunHalted: The run was halted while the client waited to try again.
        """
        if self.run is not None:
            self.run.refuse_if_over()
        self.sent += 1

    def end(self) -> None:
        """Tell the gate how often the client tried."""
        inside = frame.get()
        if isinstance(inside, Ticket):
            inside.attempts += max(0, self.sent - 1)


_exchange: Final[ContextVar[_Exchange | None]] = ContextVar("oao_exchange", default=None)


@dataclass(slots=True)
class _Live:
    """What the client returned, and the response it made it of."""

    result: Any = None
    response: Any = None
    error: Exception | None = None
    """What the client raised over an answer that it did receive: the call itself has succeeded."""
    source: Any = None
    """The iterator over the body, where the caller will read it."""
    original: Any = None

    def outcome(self) -> Any:
        """Return the result, or raise."""
        if self.error is not None:
            raise self.error
        return self.result

    def to_json(self, raw: bytes | None) -> dict[str, Json]:
        """Return the response as the journal keeps it; `raw` is what was read of a stream."""
        if self.response is None:
            return result_to_json(self.result)
        if raw is None:
            return wire_of(self.response, self.response.content)
        return wire_of(self.response, decoded(self.response, raw))


class _Shape:
    """Answers of a client: the response, not the object that the client makes of it."""

    __slots__ = ("_call",)

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def dump(self, value: Any) -> gate.Answer:
        """Return a response, or the pieces of one, as JSON."""
        first, *pieces = cast("Sequence[Any]", value) if isinstance(value, list) else (value,)
        if isinstance(first, Recorded):
            return answer_of(self._call, first.value)
        return answer_of(self._call, first.to_json(None if first.source is None else b"".join(pieces)))

    def load(self, value: Json) -> Recorded:
        """Return a recorded response."""
        return Recorded.of(value)

    def load_chunks(self, value: Json) -> list[Recorded]:
        """Return a recorded response, whole: the client's own code takes it apart."""
        return [Recorded.of(value)]


class _Request:
    """A client's request of a model.

    Args:
        function: `request` as the client has it.
        client: Whose method was called.
        arguments: Its arguments.
        named: Those given by name.
        call: The request as the policies judge it.
    """

    __slots__ = ("_args", "_client", "_function", "_kwargs", "_options", "acted", "call", "shape")

    def __init__(
        self, function: Callable[..., Any], client: Any, arguments: tuple[Any, ...], named: Any, call: ModelCall
    ) -> None:
        self._function, self._client = function, client
        cast_to, self._options, *rest = arguments
        self._args, self._kwargs = (cast_to, *rest), named
        self.call, self.shape = call, _Shape(call)
        self.acted = False

    @property
    def streams(self) -> bool:
        """True where the caller reads the body."""
        headers: Any = self._options.headers
        return bool(self._kwargs.get("stream")) or (
            isinstance(headers, Mapping) and cast("Mapping[str, object]", headers).get(_RAW_HEADER) == "stream"
        )

    def exchange(self, run: Run | None, recorded: Recorded | None = None) -> _Exchange:
        """Return a new exchange, with the client's HTTP library watched."""
        http = self._client._client
        _watch(http)
        return _Exchange(http, run, recorded)

    def invoke(self, exchange: _Exchange) -> Any:
        """Run the client's own code once; where it is async, return what must be awaited."""
        # A copy: the client changes what it is given, and a policy may want another try. Recorded attempts are over.
        options = self._options.model_copy(update={"max_retries": 0} if exchange.recorded is not None else None)
        cast_to, *rest = self._args
        return self._function(self._client, cast_to, options, *rest, **self._kwargs)

    def failed(self, exchange: _Exchange, error: Exception) -> _Live:
        """Return an answer over which only the client stumbled; raise what was no answer."""
        response = exchange.response
        if exchange.recorded is None and response is not None and response.is_success and response.is_closed:
            return _Live(response=response, error=error)
        if exchange.recorded is None and exchange.sent:
            keep_failure(error)
        raise error

    def check(self, judged: Call) -> None:
        """Send to another model where that alone was changed; refuse what a policy modified.

        Raises:
            ConfigError: A policy did.
        """
        self.acted = True
        if is_swap(judged, self.call):
            self._options = swapped(self._options, judged, self.call.name)
        elif judged is not self.call:
            raise ConfigError(
                f"model {judged.name!r}: a policy modified the request, and only the arguments of tools can be "
                "modified; let the policy deny the call, or change the prompt in the agent"
            )

    def replayable(self, error: Exception) -> Recorded:
        """Return the response that a recorded error was raised for; raise the error where there is none."""
        recorded = None if self.acted else recorded_of(error)
        if recorded is None:
            raise error
        return recorded

    # Sync

    def send(self, run: Run | None, recorded: Recorded | None = None) -> _Live:
        """Run the client's own code, which sends, or is served the recorded response."""
        exchange = self.exchange(run, recorded)
        token = _exchange.set(exchange)
        try:
            return _Live(self.invoke(exchange), exchange.response)
        except Exception as error:  # noqa: BLE001 - raised again by `failed` where it was no answer
            return self.failed(exchange, error)
        finally:
            _exchange.reset(token)
            exchange.end()

    def replay(self, recorded: Recorded) -> Any:
        """Return what the client makes of a recorded response."""
        if "result" in recorded.value:
            return decode(recorded.value["result"])
        return self.send(None, recorded).outcome()

    def govern(self, run: Run) -> Any:
        """Pass the gate."""

        def act(judged: Call) -> _Live:
            self.check(judged)
            return self.send(run)

        try:
            if self.streams:
                return self._govern_stream(run)
            live: _Live | Recorded = gate.call(run, self.call, act, self.shape)
        except Exception as error:  # noqa: BLE001 - raised again by `replayable` where it is no recorded one
            return self.replay(self.replayable(error))
        return self.replay(live) if isinstance(live, Recorded) else live.outcome()

    def _govern_stream(self, run: Run) -> Any:
        def act(judged: Call) -> Iterator[Any]:
            self.check(judged)
            live = self.send(run)
            if not _is_open(live):
                yield live
                return
            live.original, live.source = live.response.stream, iter(live.response.stream)
            yield live
            watch, raw = _watching(live), list[bytes]()
            try:
                for chunk in live.source:
                    raw.append(chunk)
                    piece = watch.marked(chunk)
                    yield piece
                    if piece is not chunk:
                        return
            except Exception as error:
                keep_failure(error, value=live.to_json(b"".join(raw)))
                raise

        pieces = gate.stream(run, self.call, act, self.shape)
        first = next(pieces)
        if isinstance(first, Recorded) or first.source is None:
            for _ in pieces:
                pass
            return self.replay(first) if isinstance(first, Recorded) else first.outcome()
        first.response.stream = pulling(library_of(first.response), first.original, first.source, pieces)
        return first.result

    # Async

    async def asend(self, run: Run | None, recorded: Recorded | None = None) -> _Live:
        """Run the client's own code; see `send`."""
        exchange = self.exchange(run, recorded)
        token = _exchange.set(exchange)
        try:
            return _Live(await self.invoke(exchange), exchange.response)
        except Exception as error:  # noqa: BLE001 - raised again by `failed` where it was no answer
            return self.failed(exchange, error)
        finally:
            _exchange.reset(token)
            exchange.end()

    async def areplay(self, recorded: Recorded) -> Any:
        """Return what the client makes of a recorded response; see `replay`."""
        if "result" in recorded.value:
            return decode(recorded.value["result"])
        return (await self.asend(None, recorded)).outcome()

    async def agovern(self, run: Run) -> Any:
        """Pass the gate; see `govern`."""

        async def act(judged: Call) -> _Live:
            self.check(judged)
            return await self.asend(run)

        try:
            if self.streams:
                return await self._agovern_stream(run)
            live: _Live | Recorded = await gate.acall(run, self.call, act, self.shape)
        except Exception as error:  # noqa: BLE001 - raised again by `replayable` where it is no recorded one
            return await self.areplay(self.replayable(error))
        return await self.areplay(live) if isinstance(live, Recorded) else live.outcome()

    async def _agovern_stream(self, run: Run) -> Any:
        async def act(judged: Call) -> AsyncIterator[Any]:
            self.check(judged)
            live = await self.asend(run)
            if not _is_open(live):
                yield live
                return
            live.original, live.source = live.response.stream, aiter(live.response.stream)
            yield live
            watch, raw = _watching(live), list[bytes]()
            try:
                async for chunk in live.source:
                    raw.append(chunk)
                    piece = watch.marked(chunk)
                    yield piece
                    if piece is not chunk:
                        return
            except Exception as error:
                keep_failure(error, value=live.to_json(b"".join(raw)))
                raise

        pieces = gate.astream(run, self.call, act, self.shape)
        first = await anext(pieces)
        if isinstance(first, Recorded) or first.source is None:
            async for _ in pieces:
                pass
            return await self.areplay(first) if isinstance(first, Recorded) else first.outcome()
        first.response.stream = pulling_async(library_of(first.response), first.original, first.source, pieces)
        return first.result


def _is_open(live: _Live) -> bool:
    """Return True where the body is yet to be read."""
    response = live.response
    return response is not None and not response.is_closed and not response.is_stream_consumed


def _watching(live: _Live) -> Watch:
    return Watch(is_readable=not live.response.headers.get("content-encoding"))


# The leaf


def install(package: str) -> None:
    """Patch the leaf of a client library; once.

    Args:
        package: `openai` or `anthropic`.

    Raises:
        FrameworkError: The installed version has no such leaf.
    """
    module = sys.modules[f"{package}._base_client"]
    for cls, wrap in ((module.SyncAPIClient, _sync), (module.AsyncAPIClient, _async)):
        require(cls, ("request", "_client"), package)
        set_method(cls, "request", wrap)


def _sync(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        if not _asks_model(options):
            return function(self, cast_to, options, *args, **kwargs)
        prepare = getattr(self, "_copy_and_prepare", None)
        given = options if prepare is None else prepare(options)
        call = _described(given)
        if call is None:
            return function(self, cast_to, given, *args, **kwargs)
        asked = _Request(function, self, (cast_to, given, *args), kwargs, call)
        inside = governed_model_call()
        if inside is not None:
            recorded = _served_inside(inside, call)
            if recorded is not None:
                return asked.replay(recorded)
        run = current() if inside is None else None
        return function(self, cast_to, given, *args, **kwargs) if run is None else asked.govern(run)

    return request


def _async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def request(self: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
        if not _asks_model(options):
            return await function(self, cast_to, options, *args, **kwargs)
        prepare = getattr(self, "_copy_and_prepare", None)
        given = options if prepare is None else await prepare(options)
        call = _described(given)
        if call is None:
            return await function(self, cast_to, given, *args, **kwargs)
        asked = _Request(function, self, (cast_to, given, *args), kwargs, call)
        inside = governed_model_call()
        if inside is not None:
            recorded = _served_inside(inside, call)
            if recorded is not None:
                return await asked.areplay(recorded)
        run = current() if inside is None else None
        return await (function(self, cast_to, given, *args, **kwargs) if run is None else asked.agovern(run))

    return request


def _asks_model(options: Any) -> bool:
    return (
        is_watched()
        and endpoint_of(options.method, options.url) is not None
        and not options.files
        and getattr(options, "content", None) is None
    )


def _described(options: Any) -> ModelCall | None:
    """Return a request as a model call; None where its body is no JSON object, about which the client complains."""
    body, more = options.json_data, getattr(options, "extra_json", None)
    if not isinstance(body, Mapping | None) or not isinstance(more, Mapping | None):
        return None
    try:
        whole = json.loads(json.dumps({**(body or {}), **(more or {})}, default=_plain))
    except (TypeError, ValueError, RecursionError):
        return None
    return describe(cast("str", endpoint_of(options.method, options.url)), options.url, whole)


def _plain(value: Any) -> Any:
    """Return what the clients' own encoder makes of a date and of a model of theirs."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(exclude_unset=True, mode="json", by_alias=True)
    return value.isoformat()


def _served_inside(inside: Frame, call: ModelCall) -> Recorded | None:
    """Return what a wire-level recording holds for a request in the body of a governed call; None: it may be sent.

    Raises:
        RunHalted: It is not the recorded request.
    """
    run, replay = inside.run, inside.run.replay
    if replay is None:
        return None
    run.refuse_if_over()
    served = replay.serve_inside(call, run.label)
    if isinstance(served, Divergence):
        drive(diverging(run, served, inside.n), run.hooks.timeout_s)
        raise run.require_halt()
    return None if served is None else recorded_of(served.outcome)


# Below the leaf: the HTTP client


def _watch(http: Any) -> None:
    """Watch the method that sends, where the client's class, which may be the user's own, defines it."""
    owner = next(base for base in type(http).__mro__ if "send" in vars(base))
    is_async = isinstance(http, library_of(http).AsyncClient)
    set_method(owner, "send", _async_send if is_async else _send)


def _send(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = _exchange.get()
        if exchange is None or exchange.http is not self:
            return function(self, request, *args, **kwargs)
        if exchange.recorded is not None:
            return respond(request, exchange.recorded, streams=bool(kwargs.get("stream")))
        exchange.begin()
        token = _exchange.set(None)
        try:
            exchange.response = function(self, request, *args, **kwargs)
        finally:
            _exchange.reset(token)
        return exchange.response

    return send


def _async_send(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        exchange = _exchange.get()
        if exchange is None or exchange.http is not self:
            return await function(self, request, *args, **kwargs)
        if exchange.recorded is not None:
            return respond(request, exchange.recorded, streams=bool(kwargs.get("stream")))
        exchange.begin()
        token = _exchange.set(None)
        try:
            exchange.response = await function(self, request, *args, **kwargs)
        finally:
            _exchange.reset(token)
        return exchange.response

    return send
