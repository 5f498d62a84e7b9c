"""Makes manifests: of a project's folder, a wheel, an installed package, a single file. Runs nothing of them."""

from __future__ import annotations

import ast
import importlib.metadata
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from oao_harness.errors import ConfigError
from oao_harness.plugins.files import Altered, check_kind, files_below, modules_of, read_below, recorded_files
from oao_harness.plugins.found import installed, package_of
from oao_harness.plugins.loader import MANIFEST_SUFFIX
from oao_harness.plugins.manifest import (
    FILE_NAME,
    Manifest,
    checked_hooks,
    digest_of,
    hooks_in_source,
    is_plain_path,
)
from oao_harness.plugins.signing import sign
from oao_harness.plugins.trust import Trust, write_text
from oao_harness.plugins.verification import is_editable, oao_version, points_of, root_of
from oao_harness.plugins.wheels import checked_points, read_wheel, sign_wheel
from oao_hookspecs import PROJECT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["Signing", "sign_target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """What who signs says about a plugin."""

    hooks: Sequence[str] = ()
    """All that it may implement; by default those that its source defines."""
    api: str = ""
    """Versions of oao; by default from this one to the next that may break it."""
    version: str = ""
    """Of a project or a file that does not say it in a way that can be read without running it."""


def sign_target(target: str, signing: Signing, key: Ed25519PrivateKey, trust: Trust) -> tuple[Manifest, Path]:
    """Sign a plugin; return its manifest, and where that was written.

    Args:
        target: A wheel, a `.py` file, the folder of a project or of a package in it, or the name of an installed
            plugin or of its package.
        signing: What its manifest is to say.
        key: Whose signature it gets.
        trust: The project's: manifests of installed packages are kept beside it.

    Raises:
        ConfigError: It is nothing of these, or cannot be signed.
    """
    place = Path(target)
    try:
        if place.suffix == ".whl":
            wheel = read_wheel(place)
            points = checked_points(wheel.points, str(place))
            manifest = _manifest(wheel.name, wheel.version, points, wheel.files, signing=signing, source=str(place))
            return sign_wheel(wheel, manifest, key), place
        if place.suffix == ".py":
            return _sign_file(place, signing, key)
        if place.is_dir():
            return _sign_folder(place.resolve(), signing, key)
        return _sign_installed(target, signing, key, trust)
    except Altered as error:
        raise ConfigError(f"{target} cannot be signed: {error}") from error


def _manifest(
    name: str, version: str, points: Mapping[str, str], files: Mapping[str, bytes], *, signing: Signing, source: str
) -> Manifest:
    modules = modules_of(dict.fromkeys(files, ""))
    for point, value in points.items():
        if value.partition(":")[0] not in modules:
            raise ConfigError(f"{source}: its entry point {point!r} is {value!r}, and no file of it is that module")
    found = set[str]()
    for module in modules.values():
        if module.path in files and module.path.endswith(".py"):
            found |= hooks_in_source(files[module.path], module.path)
    hooks = checked_hooks(signing.hooks or found, "--hook")
    if not hooks:
        raise ConfigError(f"{source} defines no hook of oao that can be seen in its source; name them with --hook")
    return Manifest(
        name=name,
        version=_version(version, source),
        api=_api(signing.api),
        hooks=hooks,
        entry_points=points,
        files={path: digest_of(content) for path, content in files.items()},
    )


def _version(text: str, source: str) -> str:
    try:
        Version(text)
    except InvalidVersion as error:
        raise ConfigError(f"{source}: {text!r:.80} is no version; give one with --version") from error
    return text


def _api(text: str) -> str:
    if text:
        try:
            return str(SpecifierSet(text))
        except InvalidSpecifier as error:
            raise ConfigError(f"--api {text!r}: {error}; write for example '>=0.1,<0.2'") from error
    here = Version(oao_version())
    # Before 1.0 each second number may break what is there.
    above = f"{here.major + 1}" if here.major else f"0.{here.minor + 1}"
    return f">={here.major}.{here.minor},<{above}"


def _sign_file(path: Path, signing: Signing, key: Ed25519PrivateKey) -> tuple[Manifest, Path]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    found = hooks_in_source(source, str(path))
    version = signing.version or _constant(source, "version")
    if not version:
        raise ConfigError(f"{path}: its version cannot be read without running it; give it with --version")
    manifest = Manifest(
        name=canonicalize_name(path.stem),
        version=_version(version, str(path)),
        api=_api(signing.api),
        hooks=checked_hooks(signing.hooks or found, "--hook"),
        entry_points={},
        files={path.name: digest_of(source)},
    )
    signed, beside = sign(manifest, key), path.with_name(path.name + MANIFEST_SUFFIX)
    write_text(beside, signed.text())
    return signed, beside


def _constant(source: bytes, name: str) -> str:
    """Return the text that a property returns, or an attribute of a class is, where the source has it as a literal."""
    for node in ast.walk(ast.parse(source)):
        value: ast.expr | None = None
        if isinstance(node, ast.FunctionDef) and node.name == name:
            value = next((one.value for one in node.body if isinstance(one, ast.Return)), None)
        elif isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            value = node.value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return ""


def _sign_folder(folder: Path, signing: Signing, key: Ed25519PrivateKey) -> tuple[Manifest, Path]:
    """Sign the package of a project: its manifest becomes a file of it, which every build takes along."""
    home = next((one for one in (folder, *folder.parents[:2]) if (one / "pyproject.toml").is_file()), None)
    if home is None:
        raise ConfigError(f"{folder} is in no project: there is no pyproject.toml, which names the entry points")
    where = home / "pyproject.toml"
    try:
        project = cast("dict[str, object]", tomllib.loads(where.read_text(encoding="utf-8")).get("project", {}))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from error
    groups = cast("dict[str, dict[str, str]]", project.get("entry-points", {}))
    points = checked_points({k: v.replace(" ", "") for k, v in groups.get(PROJECT, {}).items()}, str(where))
    name, version = project.get("name"), signing.version or project.get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        raise ConfigError(f"{where} does not say name and version in [project]; give the version with --version")
    tops = sorted({value.partition(":")[0].partition(".")[0] for value in points.values()})
    root = next((one for one in (home, home / "src") if all((one / top).is_dir() for top in tops)), None)
    if root is None or len(tops) != 1 or not (root / tops[0] / "__init__.py").is_file():
        raise ConfigError(
            f"{home}: the entry points name {', '.join(tops)}, and a folder can be signed where that is one package; "
            "build a wheel and sign it: oao plugins sign dist/*.whl"
        )
    files = {
        path: read_below(root, path)
        for path in files_below(root, tops[0])
        if path.rpartition("/")[2] != FILE_NAME and _checked(path)
    }
    signed = sign(_manifest(canonicalize_name(name), version, points, files, signing=signing, source=str(home)), key)
    write_text(root / tops[0] / FILE_NAME, signed.text())
    return signed, root / tops[0] / FILE_NAME


def _checked(path: str) -> bool:
    check_kind(path)
    return True


def _sign_installed(target: str, signing: Signing, key: Ed25519PrivateKey, trust: Trust) -> tuple[Manifest, Path]:
    """Sign a package as it is installed here; the manifest is kept in the project."""
    dist = installed_as(target)
    if is_editable(dist):
        raise ConfigError(
            f"{dist.name} is installed with `pip install -e`: sign the folder of its project, or a wheel of it"
        )
    root, name = root_of(dist), canonicalize_name(dist.name)
    points = checked_points(points_of(dist), name)
    files = {path: read_below(root, path) for path in _installed_files(dist, root, points)}
    signed = sign(_manifest(name, dist.version, points, files, signing=signing, source=name), key)
    place = trust.manifests / f"{name}.json"
    write_text(place, signed.text())
    return signed, place


def installed_as(name: str) -> importlib.metadata.Distribution:
    """Return the installed package that has a plugin, by the name of either.

    Raises:
        ConfigError: There is none.
    """
    for point in installed():
        if point.dist is not None and name in {point.name, point.dist.name, canonicalize_name(point.dist.name)}:
            return point.dist
    known = ", ".join(sorted(f"{point.name} ({package_of(point)})" for point in installed())) or "none"
    raise ConfigError(
        f"{name!r} is no wheel, no .py file, no folder, and no installed plugin; installed plugins: {known}"
    )


def _installed_files(dist: importlib.metadata.Distribution, root: Path, points: Mapping[str, str]) -> Iterator[str]:
    recorded = recorded_files(dist.read_text("RECORD") or "")
    found = {
        path
        for path in recorded
        if is_plain_path(path)
        and not path.partition("/")[0].endswith(".dist-info")
        and not path.endswith(".pyc")
        and path.rpartition("/")[2] != FILE_NAME
    }
    for path in recorded:
        if path.endswith(".pth"):
            check_kind(path.rpartition("/")[2])
    tops = {path.partition("/")[0] for path in found if "/" in path}
    for value in points.values():
        top = value.partition(":")[0].partition(".")[0]
        if (root / f"{top}.py").is_file():
            found.add(f"{top}.py")
        elif (root / top / "__init__.py").is_file():
            tops.add(top)
    for top in tops:
        # A folder without it is shared with other packages.
        if (root / top / "__init__.py").is_file():
            found |= {path for path in files_below(root, top) if path.rpartition("/")[2] != FILE_NAME}
    for path in sorted(found):
        check_kind(path)
        yield path
