"""API keys and the file that they are in. A key is shown once, when it is made; the file holds a hash of it.

When a key was last used is not kept: that would write a file at every request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oao_harness.errors import ConfigError, UsageError
from oao_harness.server.callers import Caller

__all__ = ["KEYS_FILE", "ApiKey", "KeyFile", "MadeKey", "is_key"]

KEYS_FILE: Final = ".oao/keys.json"
_KEY: Final = re.compile(r"oao_([0-9a-f]{12})_[0-9a-f]{64}")
_ID: Final = r"^[0-9a-f]{12}$"
_ROLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@+-]{0,127}")
_PATIENCE_S: Final = 10.0
_MOST_BYTES: Final = 16 * 1024 * 1024


class ApiKey(BaseModel):
    """What is known of a key; the key itself is not."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(pattern=_ID)
    """Twelve hex digits: the second part of the key."""
    name: str = Field(min_length=1)
    """Who has it: the id of the caller."""
    roles: tuple[str, ...] = Field(strict=False)
    """What the caller may do."""
    tenant: str
    """Whose runs the caller sees; empty for all."""
    created_at: float = Field(allow_inf_nan=False)
    """Unix seconds, as all of these."""
    expires_at: float | None = Field(allow_inf_nan=False)
    """From when on it is good for nothing; null for never."""
    revoked_at: float | None = Field(allow_inf_nan=False)
    """When it was revoked; null where it was not."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    """Hash of the whole key."""

    def state(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Return what it is good for at a moment, in Unix seconds."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.expires_at is None or now < self.expires_at else "expired"

    @property
    def caller(self) -> Caller:
        """Who has it."""
        return Caller.of(self.name, self.roles, self.tenant)


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1]
    keys: tuple[ApiKey, ...] = Field(strict=False)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class MadeKey:
    """A new key, the only time that it can be seen; a `repr` does not show it."""

    key: ApiKey
    text: str
    """What the caller sends."""


def is_key(text: str) -> bool:
    """Return True for a text that has the form of a key."""
    return _KEY.fullmatch(text) is not None


class KeyFile:
    """The keys of a server, in a file that a running server reads again when it has changed.

    Safe to use from many processes: who writes holds a lock beside the file, and puts a whole new file in its place.

    Args:
        path: The file; it need not exist.
        clock: Returns Unix seconds.
    """

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = Path(path)
        self._clock = clock
        self._read: tuple[tuple[int, ...], dict[str, ApiKey]] | None = None
        self.name = repr(str(self._path))
        """How a message names the file."""

    def exists(self) -> bool:
        """Return True where there is something in its place, whatever it is; an error means True."""
        try:
            os.lstat(self._path)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def keys(self) -> Sequence[ApiKey]:
        """Return all keys, in the order in which they were made; none where there is no file.

        Raises:
            ConfigError: The file cannot be read, is damaged, or others may write it. Nobody gets in then.
        """
        return list(self._known().values())

    def caller_of(self, text: str) -> Caller | None:
        """Return who has a key; None for one that is unknown, expired or revoked. See `keys` for the errors."""
        found = _KEY.fullmatch(text)
        kept = self._known().get(found[1]) if found is not None else None
        if kept is None:
            return None
        # 256 random bits cannot be tried out, so a fast hash without salt is as good as a slow one; compared in
        # constant time, because how much of the hash agrees would tell an attacker something.
        same = hmac.compare_digest(_digest(text), kept.sha256)
        return kept.caller if same and kept.state(self._clock()) == "active" else None

    def active(self, id: str) -> ApiKey | None:
        """Return the key of an id while it may be used; see `keys` for the errors."""
        found = self._known().get(id)
        return found if found is not None and found.state(self._clock()) == "active" else None

    def create(
        self, name: str, roles: Iterable[str], *, tenant: str = "", expires_in_s: float | None = None
    ) -> MadeKey:
        """Make a key.

        Args:
            name: Who gets it.
            roles: What they are.
            tenant: Whose runs they see; empty for all.
            expires_in_s: Seconds until it is good for nothing; None for never.

        Raises:
            UsageError: The name, the tenant or a role is none.
            ConfigError: See `keys`; or the file cannot be written.
        """
        given = tuple(dict.fromkeys(roles))
        for what, text, shape in (("name", name, _NAME), *(("role", role, _ROLE) for role in given)):
            if shape.fullmatch(text) is None:
                raise UsageError(f"{text!r:.80} is no {what}; write letters, digits and any of . _ : - without blanks")
        if tenant and _NAME.fullmatch(tenant) is None:
            raise UsageError(
                f"{tenant!r:.80} is no tenant; write letters, digits and any of . _ : @ + - without blanks"
            )
        if expires_in_s is not None and not 0 < expires_in_s < 100 * 365 * 86_400:
            raise UsageError(f"a key cannot expire in {expires_in_s:g} s; give a time from now, or none")
        with self._changing() as known:
            id_ = secrets.token_hex(6)
            while id_ in known:
                id_ = secrets.token_hex(6)
            text, now = f"oao_{id_}_{secrets.token_hex(32)}", self._clock()
            known[id_] = made = ApiKey(
                id=id_,
                name=name,
                roles=given,
                tenant=tenant,
                created_at=now,
                expires_at=None if expires_in_s is None else now + expires_in_s,
                revoked_at=None,
                sha256=_digest(text),
            )
        return MadeKey(key=made, text=text)

    def revoke(self, wanted: str) -> Sequence[ApiKey]:
        """Make keys good for nothing, for good; return those that were not yet.

        Args:
            wanted: Id of one, or the name of who has some.

        Raises:
            UsageError: There is no such key.
            ConfigError: See `keys`; or the file cannot be written.
        """
        with self._changing() as known:
            found = [key for key in known.values() if wanted in {key.id, key.name}]
            if not found:
                raise UsageError(
                    f"no key has the id or the name {wanted!r:.80} in {self.name}; `oao keys list` shows them"
                )
            now = self._clock()
            ended = [key.model_copy(update={"revoked_at": now}) for key in found if key.revoked_at is None]
            known.update({key.id: key for key in ended})
        return ended

    def _known(self) -> dict[str, ApiKey]:
        """Return the keys by id; the file is read again where it is another one than before."""
        try:
            seen = _sign(os.stat(self._path))
        except FileNotFoundError:
            # Where it was there before, nobody gets in: an empty file of keys, not an open door.
            self._read = None
            return {}
        except OSError as error:
            raise ConfigError(
                f"the keys in {self.name} cannot be read: {error}; nobody gets in until they can"
            ) from error
        read = self._read
        if read is not None and read[0] == seen:
            return read[1]
        self._read = None
        sign, known = self._load()
        self._read = (sign, known)
        return known

    def _load(self) -> tuple[tuple[int, ...], dict[str, ApiKey]]:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                text = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"the keys in {self.name} cannot be read: {error}; nobody gets in until they can"
            ) from error
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o022:
            raise ConfigError(
                f"others may write the keys in {self.name} (mode {stat.S_IMODE(found.st_mode):04o}): nobody gets in; "
                "look whether a key in it is not yours, then: chmod 600"
            )
        try:
            if len(text) > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES} bytes")
            content = _Content.model_validate_json(text)
        except (ValidationError, ValueError) as error:
            raise ConfigError(
                f"the keys in {self.name} are damaged: {_first(error)}; nobody gets in: take the last copy of the "
                "file, or move it away and make new keys with: oao keys create"
            ) from error
        known = {key.id: key for key in content.keys}
        if len(known) != len(content.keys):
            raise ConfigError(f"the keys in {self.name} are damaged: an id is there twice; nobody gets in")
        return _sign(found), known

    @contextmanager
    def _changing(self) -> Generator[dict[str, ApiKey]]:
        """Lend the keys to one who changes them, and write them; nothing is written where that fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self._path}.lock", timeout=_PATIENCE_S, mode=0o600):
                known = self._load()[1] if self.exists() else {}
                yield known
                self._write(known.values())
        except Timeout as error:
            raise ConfigError(
                f"another process has been writing {self.name} for {_PATIENCE_S:g} s; wait until it is done, or end it"
            ) from error
        except OSError as error:
            raise ConfigError(f"the keys in {self.name} cannot be written: {error}; nothing was changed") from error

    def _write(self, keys: Iterable[ApiKey]) -> None:
        content = {"version": 1, "keys": [key.model_dump(mode="json") for key in keys]}
        # Made with mode 0600, before anything is in it.
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(content, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sign(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev, found.st_mode)


def _first(error: ValueError) -> str:
    """Return what is wrong, without what stands there."""
    if not isinstance(error, ValidationError):
        return str(error)
    found = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"]
