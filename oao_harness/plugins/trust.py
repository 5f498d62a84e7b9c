"""The trust file of a project, `oao-trust.json`: whose signatures count, for which plugins, until when."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from oao_harness.errors import ConfigError
from oao_harness.plugins.manifest import Manifest
from oao_harness.plugins.signing import fingerprint

__all__ = ["FILE_NAME", "MANIFESTS", "Trust", "TrustedKey", "find_trust"]

FILE_NAME: Final = "oao-trust.json"
MANIFESTS: Final = "oao-manifests"
"""Folder beside the trust file: manifests of plugins that bring none, `NAME.json`."""
FORMAT: Final = "oao-trust/1"
_KEY: Final = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
_FOR: Final = re.compile(r"\s*([A-Za-z0-9*?][A-Za-z0-9*?._-]*)\s*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A key, and what it may sign."""

    key: str
    """`ed25519:...`."""
    owner: str
    """Who that is, for people."""
    signs: tuple[str, ...]
    """Names of distributions (globs), each with versions: `shop-guard>=1.2,<2`, `acme-*`."""
    expires: str = ""
    """Day, as `YYYY-MM-DD` in UTC, from which on its signatures count no more; empty for never."""

    def refusal(self, manifest: Manifest, today: date | None = None) -> str:
        """Return why this key's signature of a manifest does not count; empty where it does."""
        if self.expires and (today or datetime.now(UTC).date()) >= date.fromisoformat(self.expires):
            return f"the trust in {self.owner}'s key ended on {self.expires}"
        said = ""
        for pattern in self.signs:
            name, versions = parse_signs(pattern)
            if not fnmatchcase(manifest.name, name):
                continue
            if versions.contains(Version(manifest.version), prereleases=True):
                return ""
            said = f"{self.owner}'s key may sign {pattern}, and this is version {manifest.version}"
        return said or f"{self.owner}'s key may not sign {manifest.name}, only {', '.join(self.signs)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom a project trusts."""

    path: Path
    """The file; it need not exist."""
    keys: Sequence[TrustedKey] = field(default_factory=tuple[TrustedKey, ...])

    @property
    def manifests(self) -> Path:
        """The folder of the project's own manifests."""
        return self.path.parent / MANIFESTS

    def refusal(self, manifest: Manifest) -> str:
        """Return why nobody who is trusted vouches for a manifest; empty where somebody does."""
        keys = [one for one in self.keys if one.key == manifest.key]
        if not keys:
            return f"nobody trusts the key {fingerprint(manifest.key)} that signed it"
        refusals = [one.refusal(manifest) for one in keys]
        return "" if "" in refusals else refusals[0]

    def owner(self, key: str) -> str:
        """Return whose key it is; empty for a key that is not trusted."""
        return next((one.owner for one in self.keys if one.key == key), "")

    def who_signs(self, name: str) -> str:
        """Return who is trusted to sign a distribution, in any version; empty for nobody.

        Who may sign everything (`*`) is not said to sign everything.
        """
        for one in self.keys:
            names = [parse_signs(sign)[0] for sign in one.signs]
            if any(pattern != "*" and fnmatchcase(name, pattern) for pattern in names):
                return one.owner
        return ""

    def having(self, added: TrustedKey) -> Trust:
        """Return this with one more key; what it said of the same key and the same packages holds no more."""
        names = {parse_signs(sign)[0] for sign in added.signs}
        kept: list[TrustedKey] = []
        for one in self.keys:
            others = tuple(sign for sign in one.signs if one.key != added.key or parse_signs(sign)[0] not in names)
            if others and (one.key, one.owner, one.expires) == (added.key, added.owner, added.expires):
                added = replace(added, signs=(*others, *added.signs))
            elif others:
                kept.append(replace(one, signs=others))
        return Trust(path=self.path, keys=(*kept, added))

    def save(self) -> None:
        """Write the file, whole or not at all.

        Raises:
            ConfigError: It cannot be written.
        """
        keys = [
            {
                "owner": one.owner,
                "key": one.key,
                "fingerprint": fingerprint(one.key),
                "signs": list(one.signs),
                **({"expires": one.expires} if one.expires else {}),
            }
            for one in self.keys
        ]
        write_text(self.path, json.dumps({"format": FORMAT, "keys": keys}, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error


def find_trust(start: Path | None = None) -> Trust:
    """Return whom the project that a folder is in trusts: the first `oao-trust.json` upwards, as for pyproject.toml.

    Where there is none, it belongs beside the nearest pyproject.toml, or into the folder itself.

    Args:
        start: The folder; the working folder by default.

    Raises:
        ConfigError: The file is not what `oao plugins trust` writes.
    """
    here = (start or Path.cwd()).resolve()
    home = None
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return read_trust(folder / FILE_NAME)
        if home is None and (folder / "pyproject.toml").is_file():
            home = folder
        if (folder / ".git").exists():
            break
    return Trust(path=(home or here) / FILE_NAME)


def read_trust(path: Path) -> Trust:
    """Return what a trust file says.

    Raises:
        ConfigError: It is not what `oao plugins trust` writes.
    """
    try:
        found: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the trust file cannot be read: {error}") from error
    table = cast("dict[str, object]", found if isinstance(found, dict) else {})
    keys = table.get("keys")
    if table.get("format") != FORMAT or not isinstance(keys, list) or set(table) != {"format", "keys"}:
        raise ConfigError(f"{path}: this is no trust file of format {FORMAT!r}; see: oao plugins trust --help")
    return Trust(
        path=path, keys=tuple(_key(one, f"{path}: keys[{i}]") for i, one in enumerate(cast("list[object]", keys)))
    )


def _key(value: object, where: str) -> TrustedKey:
    table = cast("dict[str, object]", value if isinstance(value, dict) else {})
    if unknown := sorted(set(table) - {"owner", "key", "fingerprint", "signs", "expires"}):
        raise ConfigError(f"{where}: unknown key {unknown[0]!r:.80}; known: owner, key, fingerprint, signs, expires")
    key, owner, signs, expires = (table.get(name, "") for name in ("key", "owner", "signs", "expires"))
    texts = cast("list[object]", signs) if isinstance(signs, list) else []
    if not isinstance(key, str) or not isinstance(owner, str) or not owner or not isinstance(expires, str):
        raise ConfigError(f"{where}: give owner, key and signs; see: oao plugins trust --help")
    # A fingerprint is for people who read the file: one that is another key's would deceive them.
    if table.get("fingerprint") not in {None, fingerprint(checked_key(key, where))}:
        raise ConfigError(f"{where}: the fingerprint is not that of the key; do not trust it")
    return TrustedKey(
        key=key,
        owner=owner,
        signs=checked_signs([one if isinstance(one, str) else "" for one in texts], where),
        expires=checked_day(expires, where),
    )


def checked_key(key: str, where: str) -> str:
    """Return a public key.

    Raises:
        ConfigError: It is none.
    """
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{where}: {key!r:.80} is no public key; it looks like ed25519: and 44 characters of base64")
    return key


def checked_day(day: str, where: str) -> str:
    """Return a day, or an empty text.

    Raises:
        ConfigError: It is none.
    """
    try:
        return date.fromisoformat(day).isoformat() if day else ""
    except ValueError as error:
        raise ConfigError(f"{where}: {day!r:.80} is no day; write for example 2030-12-31") from error


def checked_signs(signs: Sequence[str], where: str) -> tuple[str, ...]:
    """Return what a key may sign.

    Raises:
        ConfigError: There is nothing, or one is no name with versions.
    """
    if not signs:
        raise ConfigError(f"{where}: say what the key may sign, for example 'shop-guard>=1.2'")
    for one in signs:
        try:
            parse_signs(one)
        except (ValueError, InvalidSpecifier) as error:
            raise ConfigError(f"{where}: {one!r:.80}: write the name of a package and versions, as in "
                              "'shop-guard>=1.2' or 'acme-*'") from error  # fmt: skip
    return tuple(signs)


def parse_signs(text: str) -> tuple[str, SpecifierSet]:
    """Return the glob and the versions of one entry of `signs`.

    Raises:
        ValueError: It has another form.
        InvalidSpecifier: The versions are none.
    """
    found = _FOR.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return canonicalize_name(found[1]), SpecifierSet(found[2])
