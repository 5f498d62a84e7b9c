"""Large contents of recordings, as files of their own beside them: `blobs/<digest>.<ext>`, each content once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from oao_harness.errors import RecordingError
from oao_hookspecs import Json

__all__ = ["FOLDER", "Blobs", "references", "unreferenced", "write_whole"]

FOLDER: Final = "blobs"
_LARGE_BINARY: Final = 4096
"""Bytes; a smaller content stays in the recording."""
_LARGE_TEXT: Final = 32_768
"""Characters."""
_DATA_URL: Final = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
_NAME: Final = re.compile(r"([0-9a-f]{16})\.[a-z0-9]{1,5}", re.ASCII)
_MAGIC: Final = (
    (b"\x89PNG\r\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"\x1f\x8b", "gz"),
)
# Half of a surrogate pair, as a model's answer may hold it, must come back.
_HALVES: Final = "surrogatepass"


class Blobs:
    """The blobs of one recording.

    Args:
        folder: That of the recording.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._put: dict[str, bytes] = {}
        self._read: dict[str, bytes] = {}

    def aside(self, text: str) -> Json:
        """Return what stands in the recording for a text that is a blob, or None where it is none.

        It is written by `write`.
        """
        if len(text) <= _LARGE_BINARY:
            return None
        found = _DATA_URL.match(text[:200])
        prefix = found[0] if found is not None else ""
        content = _decoded(text[len(prefix) :])
        if content is not None and len(content) > _LARGE_BINARY:
            node: dict[str, Json] = {"$blob": self._keep(content, _extension(content)), "as": "base64"}
            return {**node, "prefix": prefix} if prefix else node
        if len(text) > _LARGE_TEXT:
            return {"$blob": self._keep(text.encode("utf-8", _HALVES), "txt"), "as": "text"}
        return None

    def _keep(self, content: bytes, extension: str) -> str:
        name = f"{_digest(content)}.{extension}"
        self._put[name] = content
        return name

    def texts(self) -> Iterator[str]:
        """Yield what was put aside as text, for who looks for secrets: text as it is, binary content as base64."""
        for name, content in self._put.items():
            text = content.decode("utf-8", _HALVES) if name.endswith(".txt") else base64.b64encode(content).decode()
            yield text

    def write(self) -> None:
        """Write what was put aside, each whole or not at all; one that is there already is left alone.

        Raises:
            OSError: It cannot be written.
        """
        for name, content in self._put.items():
            path = self._folder / name
            if not path.exists() or _digest(path.read_bytes()) != name[:16]:
                write_whole(path, content)

    def read(self, node: Mapping[str, Json]) -> str:
        """Return the text that a reference stands for.

        Raises:
            RecordingError: The blob is missing, is not the one that was written, or the reference is none.
        """
        name, form = node.get("$blob"), node.get("as", "text")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or form not in {"text", "base64"}:
            raise RecordingError(f"{dict(node)!r:.100} is no reference to a blob")
        content = self._read.get(name)
        if content is None:
            try:
                content = (self._folder / name).read_bytes()
            except OSError as error:
                reason = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
                raise RecordingError(f"its blob {FOLDER}/{name} is {reason}") from error
            if _digest(content) != name[:16]:
                raise RecordingError(f"its blob {FOLDER}/{name} was changed: its content is not what its name says")
            self._read[name] = content
        if form == "text":
            return content.decode("utf-8", _HALVES)
        return str(node.get("prefix", "")) + base64.b64encode(content).decode()


def references(value: Json) -> Iterator[str]:
    """Yield the names of the blobs that a document refers to."""
    if isinstance(value, Mapping):
        name = value.get("$blob")
        if isinstance(name, str):
            yield name
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def unreferenced(folder: Path, kept: Iterable[Path]) -> list[Path]:
    """Return the blobs of a folder that none of its recordings refers to.

    Args:
        folder: Of the recordings.
        kept: The recordings that stay, pending ones too.

    Raises:
        RecordingError: One of them cannot be read, so nobody knows what it refers to.
    """
    blobs = sorted(path for path in (folder / FOLDER).glob("*") if _NAME.fullmatch(path.name))
    used: set[str] = set()
    for path in kept if blobs else ():
        try:
            used.update(references(json.loads(path.read_bytes())))
        except (OSError, ValueError) as error:
            raise RecordingError(f"{path.name} cannot be read ({error}), so its blobs are not known") from error
    return [path for path in blobs if path.name not in used]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all; its folder is made where it is missing.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _decoded(text: str) -> bytes | None:
    """Return the bytes of a text that is base64 and comes back from them exactly."""
    if len(text) % 4 or not _BASE64.fullmatch(text):
        return None
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return content if base64.b64encode(content).decode() == text else None


def _extension(content: bytes) -> str:
    for magic, extension in _MAGIC:
        if content.startswith(magic):
            return extension
    if content[:4] == b"RIFF":
        return "webp" if content[8:12] == b"WEBP" else "wav"
    return "bin"
