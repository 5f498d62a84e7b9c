"""HTTP responses of `httpx` and `httpx2`, to journal values and back: what a client's own code is fed in a replay."""

from __future__ import annotations

import datetime as dt
import functools
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, cast

from oao_harness.adapters.wire import content_of, response_to_json
from oao_harness.errors import CodecError
from oao_harness.journal.codec import encode
from oao_hookspecs import Json, Outcome

__all__ = [
    "Recorded",
    "decoded",
    "keep_failure",
    "library_of",
    "recorded_of",
    "respond",
    "result_to_json",
    "wire_of",
]

_Node = Mapping[str, Json]

_LIBRARIES: Final = ("httpx2", "httpx")
_KEPT: Final = "oao_response"
"""The attribute of a client's error under which the journal finds the response that it was raised for."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded response, on its way to the client's own code."""

    value: _Node

    @classmethod
    def of(cls, value: Json) -> Recorded:
        """Return a journaled response.

        Raises:
            CodecError: It is none.
        """
        if not isinstance(value, Mapping) or not value.keys() & {"status", "fault", "result"}:
            raise CodecError("it is no response of a model provider's client; record again")
        return cls(value)


def recorded_of(outcome: Outcome | Exception) -> Recorded | None:
    """Return the response that an outcome, or an error that was read back, stands for; None where there was none."""
    if isinstance(outcome, Exception):
        found: Json = vars(outcome).get(_KEPT)
    elif outcome.error is not None:
        attributes = outcome.error.data.get("attributes")
        found = attributes.get(_KEPT) if isinstance(attributes, Mapping) else None
    else:
        return Recorded.of(outcome.value)
    return None if found is None else Recorded.of(found)


def keep_failure(error: Exception, *, value: _Node | None = None) -> None:
    """Let a client's error carry the response, or the fault of the connection, that it was raised for.

    Args:
        error: What the client raised.
        value: What had come of a stream by then.
    """
    response: Any = getattr(error, "response", None)
    if value is None and response is not None and _is_read(response):
        kept = wire_of(response, response.content)
    else:
        cause = error.__cause__ or error
        fault: dict[str, Json] = {"type": type(cause).__name__, "message": str(cause)}
        kept = {**(value or {}), "fault": fault}
    setattr(error, _KEPT, kept)


def _is_read(response: Any) -> bool:
    try:
        return isinstance(response.content, bytes)
    except Exception:  # noqa: BLE001 - the library's own class for a body that was not read
        return False


def wire_of(response: Any, content: bytes) -> dict[str, Json]:
    """Return a response as JSON.

    Args:
        response: Of either library.
        content: The decoded body.
    """
    return response_to_json(response.status_code, response.headers.multi_items(), content)


def decoded(response: Any, raw: bytes) -> bytes:
    """Return the body of a response from the bytes that were sent, which may be compressed, and cut short."""
    if not response.headers.get("content-encoding"):
        return raw
    try:
        return cast("bytes", library_of(response).Response(200, headers=response.headers, content=raw).content)
    except Exception:  # noqa: BLE001 - what was abandoned may end in the middle of a compressed block
        return b""


def library_of(of: object) -> Any:
    """Return the library that a request, a response or a client comes from: `httpx2` or `httpx`."""
    cls = of if isinstance(of, type) else type(of)
    for base in cls.__mro__:
        top = base.__module__.partition(".")[0]
        if top in _LIBRARIES:
            return sys.modules[top]
    raise CodecError(f"a {cls.__module__}.{cls.__qualname__} comes from neither of {', '.join(_LIBRARIES)}")


def respond(request: Any, recorded: Recorded, *, streams: bool) -> Any:
    """Return the response that was recorded, as the request's library would.

    Args:
        request: What would be sent.
        recorded: What was received.
        streams: True where the client reads the body piece by piece.

    Raises:
        Exception: The library's own, where the connection had failed.
    """
    library, node = library_of(request), recorded.value
    given = node.get("fault")
    fault = _fault(library, given, request) if isinstance(given, Mapping) else None
    if fault is not None and (not streams or "status" not in node):
        raise fault
    status, headers = node["status"], cast("Mapping[str, str]", node.get("headers") or {})
    if streams:
        body = _body_class(library)(content_of(node), fault)
        response = library.Response(status, headers=headers, stream=body, request=request)
    else:
        response = library.Response(status, headers=headers, content=b"".join(content_of(node)), request=request)
    response.elapsed = dt.timedelta(0)
    return response


def _fault(library: Any, fault: _Node, request: Any) -> Exception:
    cls = getattr(library, str(fault.get("type")), None)
    if not isinstance(cls, type) or not issubclass(cls, library.RequestError):
        cls = library.ConnectError
    return cast("Exception", cls(str(fault.get("message", "")), request=request))


class _Body:
    """A recorded body, chunk by chunk."""

    def __init__(self, chunks: list[bytes], fault: Exception | None) -> None:
        self._chunks, self._fault = chunks, fault

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        if self._fault is not None:
            raise self._fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        """Release nothing."""

    async def aclose(self) -> None:
        """Release nothing."""


@functools.cache
def _body_class(library: ModuleType) -> type[Any]:
    return type("RecordedBody", (_Body, library.SyncByteStream, library.AsyncByteStream), {})


def result_to_json(result: object) -> dict[str, Json]:
    """Return an answer for which nothing was sent: a middleware of the client's gave it."""
    return {"result": encode(result)}
