"""HTTP requests and responses as JSON: what a recording holds of them, and what a replay compares. Pure.

Of the headers only a few are kept, and none of a request's: the others hold credentials, or are new in every run.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

from oao_harness.errors import CodecError
from oao_harness.journal.codec import blank_error, decode, decode_error, encode
from oao_harness.journal.events import HttpCall
from oao_harness.journal.secrets import REDACTED
from oao_hookspecs import ErrorInfo, Json

__all__ = ["HttpResponse", "decompressed", "error_of", "http_call", "response_from_json", "response_to_json"]

_KEPT: Final = frozenset(
    {
        *("content-type", "content-disposition", "content-range", "etag", "last-modified", "link", "location"),
        *("retry-after", "x-total-count"),
    }
)
_SECRET_PARAMETER: Final = re.compile(
    r"(?:^|[-_])(?:api[-_]?key|access[-_]?key|key[-_]?id|app[-_]?id|token|secret|sig|signature|password|passwd|pwd"
    r"|credentials?|authorization|auth)$",
    re.IGNORECASE,
)
_BOUNDARY: Final = re.compile(r"""boundary=(?:"([^"]+)"|([^;\s]+))""", re.IGNORECASE)
_SAME_BOUNDARY: Final = b"oao-boundary"
_GZIP: Final = b"\x1f\x8b"

# How servers write JSON: whether they escape what is not ASCII, what stands between, and how deep they indent.
_LAYOUTS: Final[Mapping[str, tuple[bool, tuple[str, str], int | None]]] = {
    "compact": (False, (",", ":"), None),
    "compact, escaped": (True, (",", ":"), None),
    "spaced": (False, (", ", ": "), None),
    "spaced, escaped": (True, (", ", ": "), None),
    "indented": (False, (",", ": "), 2),
    "indented, escaped": (True, (",", ": "), 2),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """What came back, as far as it is kept."""

    status: int
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    live: str = ""
    """Why it was not recorded: then the request is made again."""


def http_call(method: str, url: str, body: object, content_type: str) -> HttpCall:
    """Return a request as it is recorded and compared.

    Args:
        method: GET, POST ...
        url: With its query. Values of parameters whose names say that they are secrets are not kept.
        body: Bytes, text, chunks of either, or what a client makes a body of; None for none.
        content_type: The header, "" where there is none.
    """
    parts = urlsplit(url)
    method, host = method.upper(), (parts.hostname or "").lower()
    netloc = parts.netloc.rpartition("@")[2]
    request: dict[str, Json] = {"method": method, "url": f"{parts.scheme}://{netloc}{parts.path or '/'}"}
    query: dict[str, Json] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        kept = REDACTED if _SECRET_PARAMETER.search(name) else value
        if name in query:
            before = query[name]
            query[name] = [*(before if isinstance(before, list) else [before]), kept]
        else:
            query[name] = kept
    if query:
        request["query"] = query
    found = _body_to_json(_whole(body), content_type)
    if found is not None:
        request["body"] = found
    return HttpCall(name=f"{method} {host}", request=request)


def response_to_json(response: HttpResponse) -> dict[str, Json]:
    """Return a response as it is recorded: decompressed, with the few headers that are kept."""
    if response.live:
        return {"status": response.status, "live": response.live}
    headers = {name.lower(): value for name, value in response.headers.items()}
    body, plain = decompressed(response.body, headers.get("content-encoding", ""))
    kept: dict[str, Json] = {
        name: value
        for name, value in sorted(headers.items())
        if name in _KEPT or (name == "content-encoding" and not plain)
    }
    found: dict[str, Json] = {"status": response.status}
    found |= {"reason": response.reason} if response.reason else {}
    found |= {"headers": kept} if kept else {}
    json_body = _body_to_json(body, headers.get("content-type", ""))
    if isinstance(json_body, Mapping) and "json" in json_body:
        # To the byte: who reads a body as text, or checks its digest, must get what was sent.
        layout = next((name for name in _LAYOUTS if _json_bytes(json_body["json"], name) == body), None)
        json_body = body.decode("utf-8") if layout is None else {**json_body, "layout": layout}
    return found if json_body is None else {**found, "body": json_body}


def response_from_json(value: Json) -> HttpResponse:
    """Read what `response_to_json` returned.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("status"), int):
        raise ValueError("a recorded HTTP response has no status")  # noqa: TRY004 - the file is wrong, no code is
    return HttpResponse(
        status=cast("int", value["status"]),
        reason=str(value.get("reason", "")),
        headers={str(k): str(v) for k, v in cast("Mapping[str, Json]", value.get("headers") or {}).items()},
        body=_body_from_json(value["body"]) if "body" in value else b"",
        live=str(value.get("live", "")),
    )


def error_of(info: ErrorInfo) -> Exception:
    """Return the recorded error of a client; one of its class that says the same where the class cannot be rebuilt."""
    error = decode_error(info)
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the error's own code, without what its constructor makes
        said = None
    if said == info.message:
        return error
    cls = type(error)

    def shown(_self: object) -> str:
        return info.message

    def made(_self: object, *_args: object) -> None:
        return None

    same = cast(
        "type[Exception]",
        type(cls.__name__, (cls,), {"__str__": shown, "__init__": made, "__module__": cls.__module__}),
    )
    again = blank_error(same, error.args)
    vars(again).update(vars(error))
    return again


def _whole(body: object) -> object:
    """Return chunks and files as bytes; anything else as it is."""
    if hasattr(body, "read"):
        body = cast("Any", body).read()
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if isinstance(body, bytearray | memoryview):
        return bytes(cast("bytes", body))
    if hasattr(body, "__iter__") and not isinstance(body, bytes | Mapping | list | tuple):
        chunks = list(cast("Iterable[object]", body))
        if all(isinstance(chunk, bytes | str) for chunk in chunks):
            return b"".join(cast("bytes", _whole(chunk)) for chunk in chunks)
        return chunks
    return body  # pyright: ignore[reportUnknownVariableType]


def _body_to_json(body: object, content_type: str) -> Json:
    """Return a body as JSON where it is JSON, `{"json": ...}`, as text, or as encoded bytes; None where it is empty."""
    if body is None or body == b"":
        return None
    if not isinstance(body, bytes):
        # aiohttp is handed values, and makes the bytes itself.
        try:
            return {"json": encode(body)}
        except (CodecError, TypeError, ValueError):
            return {"json": str(type(body).__name__)}
    found = _BOUNDARY.search(content_type)
    if found is not None and "multipart" in content_type.lower():
        body = body.replace((found[1] or found[2]).encode(), _SAME_BOUNDARY)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return encode(body)
    if "json" in content_type.lower() or text[:1] in "{[":
        try:
            return {"json": json.loads(text, parse_constant=_refuse, object_pairs_hook=_once)}
        except (ValueError, RecursionError):
            return text
    return encode(body) if "\0" in text else text


def _body_from_json(value: Json) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, Mapping) and "json" in value:
        # Where a person has written one, any will do.
        return _json_bytes(value["json"], str(value.get("layout", "")))
    decoded = decode(value)
    if not isinstance(decoded, bytes):
        raise ValueError("a recorded HTTP body is neither text nor bytes nor JSON")  # noqa: TRY004
    return decoded


def _json_bytes(value: Json, layout: str) -> bytes:
    """Return JSON as a server has written it."""
    ascii_only, separators, indent = _LAYOUTS.get(layout, _LAYOUTS["compact"])
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators, indent=indent)
    return text.encode("utf-8", "surrogatepass")


def _refuse(constant: str) -> Json:
    raise ValueError(f"{constant} is no JSON")


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs) or any(key.startswith("$") for key in found):
        # A key that stands twice would be lost, and one with `$` means something to a recording.
        raise ValueError("no plain object")
    return found


def decompressed(body: bytes, encoding: str) -> tuple[bytes, bool]:
    """Return a body as it is read, and whether no header needs to say how it is compressed."""
    try:
        if encoding.lower() in {"gzip", "x-gzip"} and body[:2] == _GZIP:
            return gzip.decompress(body), True
        if encoding.lower() == "deflate":
            try:
                return zlib.decompress(body), True
            except zlib.error:
                return zlib.decompress(body, -zlib.MAX_WBITS), True
    except (OSError, EOFError, zlib.error):
        # Cut short, or decompressed by the client already.
        return body, True
    # A compression that we cannot read; where the client read it, its text is text.
    return body, not encoding or encoding.lower() == "gzip" or _is_text(body)


def _is_text(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
