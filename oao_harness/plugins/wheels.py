"""Wheels of plugins: a manifest of what they hold is written into them, and compared with them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from configparser import ConfigParser
from configparser import Error as ParseError
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name

from oao_harness.errors import ConfigError
from oao_harness.plugins.files import Altered, check_kind
from oao_harness.plugins.manifest import FILE_NAME, Manifest, digest_of, read_manifest
from oao_harness.plugins.signing import is_signed_by_its_key, sign
from oao_harness.plugins.trust import Trust
from oao_harness.plugins.verification import Verdict, check_fits
from oao_hookspecs import PROJECT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Wheel", "judge_wheel", "read_wheel", "sign_wheel"]

_UNSIGNED: Final = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s", FILE_NAME})
"""Files of the metadata that installers write again, and the manifest itself."""
_MOST_BYTES: Final = 1_000_000_000
_LINK: Final = 0o120000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """What a wheel holds."""

    path: Path
    name: str
    version: str
    info: str
    """Its folder of metadata."""
    points: Mapping[str, str]
    """Entry points in the group `oao`."""
    files: Mapping[str, bytes]
    """All that is signed."""
    manifest: bytes | None


def read_wheel(path: Path) -> Wheel:
    """Return what a wheel holds.

    Raises:
        ConfigError: It is no wheel, or holds what cannot be signed: links, paths that lead out of it, files that land
            outside of the packages, files that Python runs at its start.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            return _read(path, wheel)
    except Altered as error:
        raise ConfigError(f"{path}: {error}; such a wheel cannot be signed") from error
    except (OSError, zipfile.BadZipFile, KeyError, ParseError, UnicodeDecodeError, RuntimeError) as error:
        raise ConfigError(f"{path} cannot be read as a wheel: {error}; build it again: python -m build") from error


def _read(path: Path, wheel: zipfile.ZipFile) -> Wheel:
    entries = [entry for entry in wheel.infolist() if not entry.is_dir()]
    names = [entry.filename for entry in entries]
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise Altered(f"it unpacks to more than {_MOST_BYTES:,} bytes")
    if len(set(names)) != len(names):
        raise Altered("it holds a file twice")
    for entry in entries:
        check_kind(entry.filename)
        if (entry.external_attr >> 16) & 0o170000 == _LINK:
            raise Altered(f"{entry.filename} is a link")
        if entry.filename.partition("/")[0].endswith(".data"):
            raise Altered(f"{entry.filename} lands outside of the packages, where nobody compares it")
    infos = {name.partition("/")[0] for name in names if name.partition("/")[0].endswith(".dist-info")}
    if len(infos) != 1:
        raise Altered(f"it has {len(infos)} folders of metadata (*.dist-info), and not one")
    info = infos.pop()
    metadata = BytesHeaderParser().parsebytes(wheel.read(f"{info}/METADATA"))
    points: dict[str, str] = {}
    if f"{info}/entry_points.txt" in names:
        parser = ConfigParser(delimiters=("=",), interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(wheel.read(f"{info}/entry_points.txt").decode("utf-8"))
        if parser.has_section(PROJECT):
            points = {name: value.partition("[")[0].replace(" ", "") for name, value in parser.items(PROJECT)}
    unsigned = {f"{info}/{name}" for name in _UNSIGNED}
    return Wheel(
        path=path,
        name=canonicalize_name(str(metadata["Name"])),
        version=str(metadata["Version"]),
        info=info,
        points=points,
        files={name: wheel.read(name) for name in names if name not in unsigned},
        manifest=wheel.read(f"{info}/{FILE_NAME}") if f"{info}/{FILE_NAME}" in names else None,
    )


def judge_wheel(path: Path, trust: Trust) -> Verdict:
    """Compare a wheel that is not installed with its manifest, and that with whom the project trusts.

    Raises:
        ConfigError: It is no wheel, its manifest is none, or `cryptography` is missing.
    """
    wheel = read_wheel(path)
    if wheel.manifest is None:
        return Verdict(state="unsigned", reason="nobody signed it")
    manifest = read_manifest(wheel.manifest, f"{FILE_NAME} of {path}")
    reason = ""
    if not is_signed_by_its_key(manifest):
        reason = "its manifest is not what was signed"
    elif (manifest.name, manifest.version) != (wheel.name, wheel.version):
        reason = f"its manifest is that of {manifest.name} {manifest.version}"
    elif dict(manifest.entry_points) != dict(wheel.points):
        reason = "its entry points are not those that were signed"
    else:
        holds = {name: digest_of(content) for name, content in wheel.files.items()}
        other = sorted(name for name in {*holds, *manifest.files} if holds.get(name) != manifest.files.get(name))
        if other:
            reason = f"{other[0]} is not the file that was signed"
    if reason:
        return Verdict(state="altered", reason=reason, manifest=manifest)
    if reason := check_fits(manifest):
        return Verdict(state="incompatible", reason=reason, manifest=manifest)
    if reason := trust.refusal(manifest):
        return Verdict(state="untrusted", reason=reason, manifest=manifest)
    return Verdict(state="verified", manifest=manifest, owner=trust.owner(manifest.key))


def sign_wheel(wheel: Wheel, manifest: Manifest, key: Ed25519PrivateKey) -> Manifest:
    """Write a signed manifest into a wheel, and into its RECORD; the file is replaced as a whole.

    Raises:
        ConfigError: It cannot be written.
    """
    signed = sign(manifest, key)
    content = signed.text().encode()
    place, record = f"{wheel.info}/{FILE_NAME}", f"{wheel.info}/RECORD"
    try:
        number, name = tempfile.mkstemp(dir=wheel.path.parent, prefix=f".{wheel.path.name}.")
        try:
            with (
                os.fdopen(number, "wb") as file,
                zipfile.ZipFile(wheel.path) as old,
                zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new,
            ):
                lines = _recorded(old.read(record).decode("utf-8"), place, content)
                for entry in old.infolist():
                    if entry.filename not in {record, place}:
                        new.writestr(entry, old.read(entry))
                new.writestr(place, content)
                new.writestr(record, lines)
            Path(name).chmod(wheel.path.stat().st_mode & 0o777)
            Path(name).replace(wheel.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except (OSError, KeyError) as error:
        raise ConfigError(f"{wheel.path} cannot be written: {error}") from error
    return signed


def _recorded(record: str, place: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    rows = [row for row in csv.reader(record.splitlines()) if row and row[0] != place]
    written = io.StringIO()
    # RECORD names itself last.
    csv.writer(written, lineterminator="\n").writerows(
        [*rows[:-1], [place, f"sha256={digest}", len(content)], rows[-1]]
    )
    return written.getvalue()


def checked_points(points: Mapping[str, str], source: str) -> dict[str, str]:
    """Return the entry points of a plugin.

    Raises:
        ConfigError: There are none.
    """
    if not points:
        raise ConfigError(
            f"{source} has no entry point in the group 'oao', so it is no plugin; add to its pyproject.toml: "
            '[project.entry-points.oao] NAME = "module:attribute"'
        )
    return dict(points)
