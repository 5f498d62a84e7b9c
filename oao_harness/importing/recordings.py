"""Turns recorded HTTP traffic into recordings of the wire: what a governed client would have journaled.

Only requests of models are taken over; what is left out is said. The files are data: nothing in them is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, cast

from oao_harness.adapters.wire import describe, endpoint_of, response_to_json
from oao_harness.adapters.wire_answers import answer_of
from oao_harness.errors import RecordingError, UsageError
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of, request_of
from oao_harness.journal.wire_replay import LAYER, WIRE
from oao_hookspecs import ErrorInfo, Json

try:
    from oao_harness.importing.cassette import Interaction, load_cassette
except ImportError as missing:  # PyYAML is an extra
    raise UsageError(f"reading cassettes needs PyYAML ({missing}); pip install 'oao-harness[http]'") from missing

__all__ = ["Imported", "Skipped", "import_cassette", "recording_of"]

# Source: the retry lists of the openai and anthropic clients.
_TRIED_AGAIN: Final = frozenset({408, 409, 429, *range(500, 600)})
_RETRY_COUNT: Final = "x-stainless-retry-count"
# Which class the client raises; a replay lets the client itself make it of the response.
_ERRORS: Final[Mapping[int, str]] = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}
_ANTHROPIC: Final = ("messages", "complete")
_ANTHROPIC_ERRORS: Final[Mapping[int, str]] = {
    413: "RequestTooLargeError",
    503: "ServiceUnavailableError",
    504: "DeadlineExceededError",
    529: "OverloadedError",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An interaction that is no model call."""

    number: int
    """Place in the cassette, from 1."""
    what: str
    """Method and URL."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A recording of the wire, and what of the cassette is not in it."""

    recording: Recording
    skipped: Sequence[Skipped] = ()


def recording_of(path: str | Path, test: str = "") -> Recording:
    """Return the model calls of a vcrpy cassette as a recording; see `import_cassette`."""
    return import_cassette(path, test).recording


def import_cassette(path: str | Path, test: str = "") -> Imported:
    """Read a vcrpy cassette as a recording of the wire.

    A request that follows an equal one whose answer asks to be tried again is the same call: clients repeat by
    themselves. Where the client wrote the number of its try into the request, that decides.

    Args:
        path: `.yaml` or `.yaml.gz`; see `load_cassette` for the variants.
        test: Node id of the test that is to play it; "" for any.

    Raises:
        RecordingError: The file is missing, no cassette, or holds no model call.
    """
    try:
        interactions = load_cassette(path)
    except FileNotFoundError as error:
        raise RecordingError(f"cannot import {str(path)!r}: there is no such file") from error
    except OSError as error:
        raise RecordingError(f"cannot import {str(path)!r}: {error}") from error
    except ValueError as error:
        raise RecordingError(f"cannot import {error}") from error
    events: list[RecordedEvent] = []
    skipped: list[Skipped] = []
    last: Interaction | None = None
    for number, one in enumerate(interactions, start=1):
        found = _event(one, len(events) + 1)
        if isinstance(found, str):
            skipped.append(Skipped(number=number, what=f"{one.method} {one.url}", reason=found))
            continue
        if last is not None and _repeats(one, last) and events[-1].key == found.key:
            again = events.pop()
            found = replace(found, n=again.n, start=again.start, end=again.end, attempts=again.attempts + 1)
        events.append(found)
        last = one
    if not events:
        reasons = "".join(f"\n  {item.number}. {item.what}: {item.reason}" for item in skipped)
        raise RecordingError(f"{str(path)!r} holds no model call that oao knows{reasons}")
    header: dict[str, Json] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "oao": version("oao-harness"),
        "policy": "",
        LAYER: WIRE,
        "source": Path(path).name,
    }
    return Imported(recording=Recording(test=test, events=tuple(events), header=header), skipped=skipped)


def _event(one: Interaction, n: int) -> RecordedEvent | str:
    """Return an interaction as an event, or why it is none."""
    endpoint = endpoint_of(one.method, one.url)
    if endpoint is None:
        return "no request of a model"
    try:
        body: object = json.loads(one.request_content or b"")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return "its body is no JSON object"
    call = describe(endpoint, one.url, cast("dict[str, Json]", body))
    request = request_of(call)
    event = RecordedEvent(
        n=n,
        kind="model",
        name=call.name,
        run="",
        start=2 * n - 1,
        end=2 * n,
        request=request,
        key=key_of("model", call.name, request),
    )
    response = response_to_json(one.status, one.headers, one.content)
    if one.status >= 400:
        return replace(event, error=_error(endpoint, one, response))
    answer = answer_of(call, response)
    return replace(event, value=answer.value, usage=answer.usage)


def _repeats(one: Interaction, before: Interaction) -> bool:
    if before.status not in _TRIED_AGAIN:
        return False
    count = dict(one.request_headers).get(_RETRY_COUNT)
    return count is None or count != "0"


def _error(endpoint: str, one: Interaction, response: dict[str, Json]) -> ErrorInfo:
    """Return the error that a client raises for a response."""
    is_anthropic = endpoint in _ANTHROPIC
    names = {**_ERRORS, **(_ANTHROPIC_ERRORS if is_anthropic else {})}
    name = names.get(one.status) or ("InternalServerError" if one.status >= 500 else "APIStatusError")
    body = response.get("body")
    said = body.get("error", body) if isinstance(body, Mapping) and not is_anthropic else body
    told = body if is_anthropic else said.get("message") if isinstance(said, Mapping) else None
    message = f"Error code: {one.status} - {told}" if told else f"Error code: {one.status}"
    attributes: dict[str, Json] = {"message": message, "status_code": one.status, "body": said}
    return ErrorInfo(
        type=f"{'anthropic' if is_anthropic else 'openai'}:{name}",
        message=message,
        data={"args": [message], "attributes": {**attributes, "oao_response": response}},
    )
