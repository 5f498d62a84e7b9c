"""Reads vcrpy cassettes: YAML files of recorded HTTP interactions.

It owns the file format and its variants. It must not execute anything a file asks for: only the safe loader.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

import yaml  # type: ignore[import-untyped, unused-ignore]  # the stubs are a package of their own

if TYPE_CHECKING:
    import os

__all__ = ["Interaction", "load_cassette"]

_T = TypeVar("_T")

_GZIP_MAGIC = b"\x1f\x8b"
_NO_ENCODINGS = ("", "identity")
_HTTP_STATUSES = range(100, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """One recorded request and its response.

    Attributes:
        method: The HTTP method, upper case.
        path: The path of the recorded URL, without host and query.
        status: The response's HTTP status.
        headers: The response's headers as recorded, names in lower case, but no `content-encoding`.
        content: The response's body, decoded.
        url: The recorded URL, whole.
        request_headers: The request's headers as recorded, names in lower case.
        request_content: The request's body, decoded; None where it has none, or none that can be read.
    """

    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes
    url: str = ""
    request_headers: tuple[tuple[str, str], ...] = ()
    request_content: bytes | None = None


def load_cassette(path: str | os.PathLike[str]) -> tuple[Interaction, ...]:
    """Return the interactions of a cassette, in the order of recording.

    Understood beside vcrpy's own format: gzipped files, gzip and deflate bodies, `!!binary` and base64
    bodies, `parsed_body` (as pydantic-ai records), the flat responses of old vcrpy versions for httpx.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a cassette; the message names the file and the reason.

    Source:
        vcrpy, `vcr/serialize.py` and `vcr/stubs/httpx_stubs.py`;
        pydantic-ai, `tests/json_body_serializer.py`.
    """
    content = Path(path).read_bytes()
    try:
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        # CSafeLoader is several times faster, and missing where PyYAML was built without libyaml.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        document: object = yaml.load(content, Loader=loader)  # noqa: S506  safe either way
        recorded = _mapping(document, "the file").get("interactions")
        entries = cast("list[object]", _required(recorded, list, "`interactions`"))
        return tuple(_interaction(entry, f"interaction {n}") for n, entry in enumerate(entries, start=1))
    except (ValueError, yaml.YAMLError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: not a vcrpy cassette: {error}") from error


def _interaction(entry: object, where: str) -> Interaction:
    whole = _mapping(entry, where)
    request = _mapping(whole.get("request"), f"the request of {where}")
    response = _mapping(whole.get("response"), f"the response of {where}")
    method = _required(request.get("method"), str, f"the method of {where}")
    uri = _required(request.get("uri"), str, f"the uri of {where}")
    headers = _headers(response, where)
    encoding = ", ".join(value for name, value in headers if name == "content-encoding").lower()
    return Interaction(
        method=method.upper(),
        path=urlsplit(uri).path or "/",
        status=_status(response, where),
        headers=tuple(header for header in headers if header[0] != "content-encoding"),
        content=_decoded(_content(response, where), encoding, where),
        url=uri,
        request_headers=_headers(request, where),
        request_content=_request_content(request, where),
    )


def _request_content(request: Mapping[str, object], where: str) -> bytes | None:
    """Return the body of a request; None for what a reader of responses need not understand."""
    try:
        content = _content(request, where)
        return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content or None
    except (ValueError, OSError, EOFError, zlib.error):
        return None


def _status(response: Mapping[str, object], where: str) -> int:
    status = response.get("status", response.get("status_code"))
    code = cast("Mapping[str, object]", status).get("code") if isinstance(status, Mapping) else status
    if code not in _HTTP_STATUSES:
        raise ValueError(f"the response of {where} has the status {code!r}")
    return _required(code, int, f"the status of {where}")


def _headers(message: Mapping[str, object], where: str) -> tuple[tuple[str, str], ...]:
    recorded = _mapping(message.get("headers") or {}, f"the headers of {where}")
    return tuple(
        (name.lower(), str(value))
        for name, values in recorded.items()
        # vcrpy writes lists; hooks that scrub secrets often put a plain str in their place.
        for value in (cast("Sequence[object]", values) if isinstance(values, list) else [values])
    )


def _content(response: Mapping[str, object], where: str) -> bytes:
    if "parsed_body" in response:
        return json.dumps(response["parsed_body"]).encode()
    body = response.get("body", response.get("content"))
    if isinstance(body, Mapping):
        wrapped = cast("Mapping[str, object]", body)
        if "base64_string" in wrapped:
            return _unbase64(wrapped["base64_string"], where)
        body = wrapped.get("string")
        if wrapped.get("encoding") == "base64":
            return _unbase64(body, where)
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return _required(body, str, f"the response body of {where}").encode()


def _unbase64(body: object, where: str) -> bytes:
    text = body if isinstance(body, bytes) else _required(body, str, f"the base64 body of {where}")
    try:
        return base64.b64decode(text)
    except binascii.Error as error:
        raise ValueError(f"the base64 body of {where} cannot be decoded: {error}") from error


def _decoded(content: bytes, encoding: str, where: str) -> bytes:
    # The header does not tell: a recorder may decode the body and keep the header, or scrub the header alone.
    if content.startswith(_GZIP_MAGIC):
        return gzip.decompress(content)
    if encoding in _NO_ENCODINGS or _is_text(content):
        return content
    if encoding == "deflate":
        try:
            return zlib.decompress(content)
        except zlib.error:
            return zlib.decompress(content, -zlib.MAX_WBITS)  # many servers send it without the zlib header
    raise ValueError(
        f"the response body of {where} has the content-encoding {encoding!r}: "
        "record it with vcrpy's decode_compressed_response=True"
    )


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _mapping(value: object, what: str) -> dict[str, object]:
    return cast("dict[str, object]", _required(value, dict, what))


def _required(value: object, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind):
        # A ValueError: the value of a file is wrong, not the type of an argument.
        raise ValueError(f"{what} is {reprlib.repr(value)}, not a {kind.__name__}")  # noqa: TRY004
    return value
