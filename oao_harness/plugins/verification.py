"""Says of an installed plugin whether it is what a trusted person signed, without running any of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from packaging.utils import canonicalize_name

from oao_harness.errors import ConfigError
from oao_harness.plugins.files import Altered, Verified, check_kind, compare, compare_once, modules_of, recorded_files
from oao_harness.plugins.manifest import FILE_NAME, Manifest, is_plain_path, read_manifest
from oao_harness.plugins.signing import is_signed_by_its_key
from oao_harness.plugins.trust import Trust
from oao_hookspecs import PROJECT

__all__ = ["State", "Verdict", "check_fits", "judge", "oao_version", "points_of", "root_of"]

State: TypeAlias = Literal["verified", "unsigned", "untrusted", "altered", "incompatible"]
"""`untrusted`: signed, by nobody whose signature of it counts. `altered`: not what was signed. `incompatible`: signed
for other versions of oao."""

_DIRECT_URL: Final = "direct_url.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of a plugin before it is imported."""

    state: State
    reason: str = ""
    """Why it is not verified."""
    manifest: Manifest | None = None
    verified: Verified | None = None
    owner: str = ""
    """Who signed it, as the trust file names them."""


def judge(dist: Distribution, trust: Trust, *, afresh: bool = False) -> Verdict:
    """Compare an installed distribution with its manifest, and that with whom the project trusts.

    A manifest of the project's own (`oao-manifests/NAME.json`) counts before one that came with the package.

    Args:
        dist: The distribution.
        trust: Whom the project trusts.
        afresh: Whether all files are read again, where that was done in this process.

    Raises:
        ConfigError: `cryptography` is missing, and there is something to check.
    """
    manifest: Manifest | None = None
    try:
        root = root_of(dist)
        found = _manifest_bytes(dist, trust, root)
        if found is None:
            return _unsigned(dist, trust)
        try:
            manifest = read_manifest(*found)
        except ConfigError as error:
            return Verdict(state="altered", reason=str(error))
        if not is_signed_by_its_key(manifest):
            return Verdict(state="altered", reason="its manifest is not what was signed", manifest=manifest)
        _check_identity(dist, manifest, root)
        if not manifest.fits(oao_version()):
            return Verdict(state="incompatible", reason=check_fits(manifest), manifest=manifest)
        verified = (compare if afresh else compare_once)(root, manifest)
    except Altered as error:
        return Verdict(state="altered", reason=str(error), manifest=manifest)
    if reason := trust.refusal(manifest):
        return Verdict(state="untrusted", reason=reason, manifest=manifest)
    return Verdict(state="verified", manifest=manifest, verified=verified, owner=trust.owner(manifest.key))


def check_fits(manifest: Manifest) -> str:
    """Return why a plugin does not work with this oao; empty where it does."""
    here = oao_version()
    return "" if manifest.fits(here) else f"it works with oao {manifest.api}, and this is oao {here}"


def oao_version() -> str:
    """Return the version of oao that runs."""
    try:
        return version("oao-harness")
    except PackageNotFoundError:
        return "0"


def points_of(dist: Distribution) -> dict[str, str]:
    """Return the entry points of a distribution in the group `oao`.

    Raises:
        Altered: Two of them have the same name.
    """
    points = [point for point in dist.entry_points if point.group == PROJECT]
    found = {point.name: _plain(point.value) for point in points}
    if len(found) != len(points):
        raise Altered("two of its entry points have the same name")
    return found


def _plain(value: str) -> str:
    return value.partition("[")[0].replace(" ", "")


def root_of(dist: Distribution) -> Path:
    """Return the folder that holds the packages of a distribution.

    Raises:
        Altered: It is no folder.
    """
    root = Path(str(dist.locate_file("")))
    if not root.is_dir():
        raise Altered(f"it is installed in {str(root)!r}, which is no folder")
    return root.resolve()


def _manifest_bytes(dist: Distribution, trust: Trust, root: Path) -> tuple[bytes, str] | None:
    name = canonicalize_name(dist.name)
    own = trust.manifests / f"{name}.json"
    if own.is_file():
        return own.read_bytes(), str(own)
    shown = f"{FILE_NAME} of {name} {dist.version}"
    text = dist.read_text(FILE_NAME)
    if text is not None:
        return text.encode(), shown
    for value in points_of(dist).values():
        folder = root / value.partition(":")[0].partition(".")[0]
        if (folder / FILE_NAME).is_file() and not is_editable(dist):
            return (folder / FILE_NAME).read_bytes(), shown
    return None


def is_editable(dist: Distribution) -> bool:
    """Return True for `pip install -e`: what it imports lies elsewhere, and changes any time."""
    try:
        found: object = json.loads(dist.read_text(_DIRECT_URL) or "{}")
    except ValueError:
        return False
    info = cast("dict[str, object]", found).get("dir_info") if isinstance(found, dict) else None
    return isinstance(info, dict) and cast("dict[str, object]", info).get("editable") is True


def _unsigned(dist: Distribution, trust: Trust) -> Verdict:
    why = "it is installed with `pip install -e`, and can change any time" if is_editable(dist) else "nobody signed it"
    if whose := trust.who_signs(canonicalize_name(dist.name)):
        # Else taking the manifest away would be a way around it.
        return Verdict(state="altered", reason=f"{why}, and {trust.path.name} says that {whose} does")
    return Verdict(state="unsigned", reason=why)


def _check_identity(dist: Distribution, manifest: Manifest, root: Path) -> None:
    """Compare what a distribution says about itself with what was signed."""
    name = canonicalize_name(dist.name)
    if manifest.name != name:
        raise Altered(f"its manifest is that of {manifest.name}")
    if manifest.version != dist.version:
        raise Altered(f"its manifest is that of version {manifest.version}, and version {dist.version} is installed")
    if is_editable(dist):
        raise Altered("it is installed with `pip install -e`, and can change any time; install a wheel")
    if points_of(dist) != dict(manifest.entry_points):
        raise Altered("its entry points are not those that were signed")
    modules = modules_of(manifest.files)
    for point, value in manifest.entry_points.items():
        if value.partition(":")[0] not in modules:
            raise Altered(f"its entry point {point!r} is {value!r}, which is not among the files that were signed")
    places = {root_of(one) for one in distributions(name=dist.name) if Path(str(one.locate_file(""))).is_dir()}
    if places - {root}:
        others = ", ".join(str(place) for place in sorted(places))
        raise Altered(f"it is installed more than once ({others}); remove all but one")
    for path in recorded_files(dist.read_text("RECORD") or ""):
        if path.endswith(".pth"):
            check_kind(path.rpartition("/")[2])
        # What lies beside (scripts, data) is not imported; its own metadata neither.
        is_metadata = path.partition("/")[0].endswith(".dist-info")
        if is_metadata or not is_plain_path(path) or path.endswith(".pyc") or path.rpartition("/")[2] == FILE_NAME:
            continue
        if path not in manifest.files:
            raise Altered(f"{path} was installed with it, and is not among the files that were signed")


def dist_of(point: EntryPoint) -> Distribution:
    """Return the distribution of an entry point.

    Raises:
        ConfigError: Nobody knows it.
    """
    if point.dist is None:
        raise ConfigError(f"plugin {point.name!r} ({point.value}) belongs to no installed package; install it again")
    return point.dist
