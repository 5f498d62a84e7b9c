"""The manifest of a plugin, `oao-plugin.json`: what it is, which hooks it asks for, the hash of each of its files.

Reads and checks the text only; see `signing` for who wrote it, and `verification` for whether the files are those.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import rfc8785
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from oao_harness.errors import ConfigError
from oao_harness.policy.reading import close_to
from oao_hookspecs import PROJECT, Json, decide, observe, provide

__all__ = ["FILE_NAME", "FORMAT", "HOOKS", "Manifest", "digest_of", "hooks_in_source", "is_plain_path", "read_manifest"]

FILE_NAME: Final = "oao-plugin.json"
FORMAT: Final = "oao-plugin/1"
HOOKS: Final = tuple(
    name for module in (decide, observe, provide) for name in vars(module) if name.startswith(f"{PROJECT}_")
)
_MOST_BYTES: Final = 8_000_000
_KEYS: Final = frozenset(
    {"format", "name", "version", "api", "hooks", "entry_points", "files", "signed_at", "key", "signature"}
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_KEY: Final = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{86}==")
_POINT: Final = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a plugin says about itself, and who vouches for it."""

    name: str
    """Name of the distribution, normalized; for a single file the name of its plugin."""
    version: str
    """Version of the distribution."""
    api: str
    """Versions of oao that it works with, as a set of PEP 440 specifiers."""
    hooks: tuple[str, ...]
    """All that it may implement."""
    entry_points: Mapping[str, str]
    """Of the group `oao`: name, and `module:attribute`."""
    files: Mapping[str, str]
    """Hash (`sha256:...`) of each file, by its path from the folder that holds the packages."""
    signed_at: str = ""
    """UTC, for people: whoever has the key can write any time."""
    key: str = ""
    """Public key of who signed, `ed25519:...`."""
    signature: str = field(default="", repr=False)
    """Ed25519, base64; over the canonical JSON (RFC 8785) of all other fields."""

    def signed_part(self) -> bytes:
        """Return the bytes that the signature is over: canonical JSON (RFC 8785) of all but the signature."""
        return rfc8785.dumps(cast("Any", self.as_json(signature=False)))

    def as_json(self, *, signature: bool = True) -> dict[str, Json]:
        """Return it as the file holds it."""
        signed: dict[str, Json] = {"signature": self.signature} if signature else {}
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "api": self.api,
            "hooks": list(self.hooks),
            "entry_points": dict(self.entry_points),
            "files": dict(sorted(self.files.items())),
            "signed_at": self.signed_at,
            "key": self.key,
            **signed,
        }

    def text(self) -> str:
        """Return the whole file."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    def fits(self, version: str) -> bool:
        """Return True where a version of oao is one that the plugin works with."""
        return SpecifierSet(self.api).contains(Version(version), prereleases=True)


def digest_of(content: bytes) -> str:
    """Return the hash of a file as manifests write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def is_plain_path(path: str) -> bool:
    """Return True for a path that stays below the folder that it starts in, on any system."""
    parts = path.split("/")
    return (
        bool(path)
        and not any(part in {"", ".", ".."} or part.endswith((".", " ")) for part in parts)
        and not any(char in '\\:*?"<>|' or not char.isprintable() for char in path)
    )


def read_manifest(content: bytes, source: str) -> Manifest:
    """Return the manifest that a file holds.

    Args:
        content: The whole file.
        source: How messages name it.

    Raises:
        ConfigError: It is no manifest of this format; a key is missing, unknown, double or of another kind.
    """
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{source}: larger than {_MOST_BYTES:,} bytes; that is no manifest of a plugin")
    try:
        found: object = json.loads(content.decode("utf-8"), object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: this is no manifest of a plugin: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{source}: this is no manifest of a plugin: it holds no table")
    table = cast("dict[str, object]", found)
    if table.get("format") != FORMAT:
        raise ConfigError(
            f"{source}: its format is {table.get('format')!r:.80}, and this oao reads {FORMAT!r}; sign the plugin "
            "again, or install the oao that it was signed for"
        )
    if wrong := sorted(_KEYS ^ set(table)):
        what = "is missing" if wrong[0] in _KEYS else "is unknown"
        raise ConfigError(f"{source}: the key {wrong[0]!r:.80} {what}; sign the plugin again")
    hooks = table["hooks"]
    if not isinstance(hooks, list) or not all(isinstance(hook, str) for hook in cast("list[object]", hooks)):
        raise ConfigError(f"{source}: hooks is {hooks!r:.80}; it must be a list of names")
    manifest = Manifest(
        name=_text(table, "name", source),
        version=_text(table, "version", source),
        api=_text(table, "api", source),
        hooks=checked_hooks(cast("list[str]", hooks), source),
        entry_points=_texts(table, "entry_points", source, _POINT),
        files=_texts(table, "files", source, _DIGEST),
        signed_at=_text(table, "signed_at", source),
        key=_text(table, "key", source, _KEY),
        signature=_text(table, "signature", source, _SIGNATURE),
    )
    for path in manifest.files:
        if not is_plain_path(path):
            raise ConfigError(f"{source}: {path!r:.120} is no path inside of the plugin; do not install it")
    if manifest.name != canonicalize_name(manifest.name):
        raise ConfigError(f"{source}: name {manifest.name!r:.80} is not normalized; sign the plugin again")
    try:
        Version(manifest.version)
        SpecifierSet(manifest.api)
    except (InvalidVersion, InvalidSpecifier) as error:
        raise ConfigError(f"{source}: {error}; sign the plugin again") from error
    return manifest


def checked_hooks(hooks: Iterable[str], source: str) -> tuple[str, ...]:
    """Return names of hooks, sorted.

    Raises:
        ConfigError: One of them does not exist.
    """
    for hook in (names := sorted(set(hooks))):
        if hook not in HOOKS:
            near = close_to(hook, HOOKS)
            hint = near if "did you mean" in near else "; `oao hooks` lists them"
            raise ConfigError(f"{source}: {hook!r:.80} is no hook of oao{hint}")
    return tuple(names)


def hooks_in_source(source: bytes, shown: str) -> set[str]:
    """Return the hooks that a module's source defines or assigns, without running it.

    Args:
        source: The whole file.
        shown: How messages name it.

    Raises:
        ConfigError: It is no Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{shown}: this is no Python: {error}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names & set(HOOKS)


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Of two values of a key, two readers may each take another one.
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r:.80} is there twice")
        found[key] = value
    return found


def _text(table: Mapping[str, object], key: str, source: str, form: re.Pattern[str] | None = None) -> str:
    value = table[key]
    if not isinstance(value, str) or (form is not None and not form.fullmatch(value)):
        raise ConfigError(f"{source}: {key} is {value!r:.80}, which is none; sign the plugin again")
    return value


def _texts(table: Mapping[str, object], key: str, source: str, form: re.Pattern[str]) -> dict[str, str]:
    found = table[key]
    if not isinstance(found, dict):
        raise ConfigError(f"{source}: {key} is {found!r:.80}; it must be a table")
    for name, value in cast("dict[str, object]", found).items():
        if not isinstance(value, str) or not form.fullmatch(value):
            raise ConfigError(f"{source}: {key}: {name!r:.80} is {value!r:.80}, which is none; sign the plugin again")
    return cast("dict[str, str]", found)
