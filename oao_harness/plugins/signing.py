"""Signs manifests and checks their signatures: Ed25519, by the package `cryptography` (the extra `trust`)."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oao_harness.errors import ConfigError
from oao_harness.plugins.manifest import Manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["fingerprint", "is_signed_by_its_key", "load_key", "make_key", "public_key", "sign"]

_PREFIX: Final = "ed25519:"


def make_key(path: Path, password: str | None = None) -> str:
    """Make a key pair, keep the private half in a file that only its owner reads, and return the public one.

    Args:
        path: Where to; there must be nothing.
        password: Encrypts the file; None for no encryption.

    Raises:
        ConfigError: The file exists or cannot be written, or `cryptography` is missing.
    """
    _require()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - the extra `trust`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(
            f"there is a file {str(path)!r} already; name another one, a key is not overwritten"
        ) from None
    except OSError as error:
        raise ConfigError(f"the key cannot be written to {str(path)!r}: {error.strerror or error}") from error
    return public_key(key)


def load_key(path: Path, password: str | None = None) -> Ed25519PrivateKey:
    """Return the private key of a file.

    Args:
        path: A PEM file, as `make_key` writes it.
        password: Of the file, where it is encrypted.

    Raises:
        ConfigError: There is no such file, it holds no such key, others may read it, or the password is wrong.
    """
    _require()
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - the extra `trust`
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"there is no key {str(path)!r}; make one with: oao plugins keygen") from None
    except OSError as error:
        raise ConfigError(f"the key {str(path)!r} cannot be read: {error.strerror or error}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"the key {str(path)!r} can be read by others; make it your own: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, password.encode() if password else None)
    except TypeError as error:
        what = "is encrypted; give its password" if password is None else "is not encrypted; give no password"
        raise ConfigError(f"the key {str(path)!r} {what} (OAO_SIGNING_KEY_PASSWORD)") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{str(path)!r} holds no private key in PEM, or its password is another one; see: oao plugins keygen"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{str(path)!r} holds a {type(key).__name__}, and oao signs with Ed25519 keys")
    return key


def public_key(key: Ed25519PrivateKey) -> str:
    """Return the public half of a key, as manifests and trust files write it."""
    return _PREFIX + base64.b64encode(key.public_key().public_bytes_raw()).decode()


def fingerprint(key: str) -> str:
    """Return what people compare of a public key: 16 hexadecimal digits of its hash, in groups."""
    digits = hashlib.sha256(base64.b64decode(key.removeprefix(_PREFIX))).hexdigest()[:16]
    return "-".join(digits[i : i + 4] for i in range(0, 16, 4))


def sign(manifest: Manifest, key: Ed25519PrivateKey) -> Manifest:
    """Return a manifest with a signature of now."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    unsigned = replace(manifest, key=public_key(key), signed_at=now, signature="")
    return replace(unsigned, signature=base64.b64encode(key.sign(unsigned.signed_part())).decode())


def is_signed_by_its_key(manifest: Manifest) -> bool:
    """Return True where the signature is one of the key that the manifest names; nothing says whose key that is.

    Raises:
        ConfigError: `cryptography` is missing.
    """
    _require()
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - the extra `trust`
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(manifest.key.removeprefix(_PREFIX), validate=True))
        key.verify(base64.b64decode(manifest.signature, validate=True), manifest.signed_part())
    except (InvalidSignature, ValueError):
        return False
    return True


def _require() -> None:
    try:
        importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "signatures of plugins need the package 'cryptography': pip install 'oao-harness[trust]'"
        ) from error
