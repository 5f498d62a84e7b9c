"""Files of a plugin on disk: read without following links, compared with a manifest, named as modules."""

from __future__ import annotations

import csv
import functools
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from oao_harness.errors import ConfigError
from oao_harness.plugins.manifest import FILE_NAME, Manifest, digest_of, is_plain_path

__all__ = [
    "Altered",
    "Module",
    "Verified",
    "check_kind",
    "compare",
    "compare_once",
    "files_below",
    "modules_of",
    "read_below",
    "recorded_files",
]


class Altered(ConfigError):  # noqa: N818 - what is wrong with the plugin, in its own word
    """The files of a plugin are not those of its manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of a plugin."""

    path: str
    """Of its file, from the folder that holds the packages; a folder for a namespace inside of a package."""
    is_package: bool = False
    is_extension: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A plugin whose files are those of its manifest."""

    manifest: Manifest
    root: Path
    """The folder that holds its packages."""
    modules: Mapping[str, Module] = field(repr=False)

    @property
    def tops(self) -> frozenset[str]:
        """The modules of it that are in no package of its own: below them everything is the plugin's."""
        return tops_of(self.modules)


def read_below(root: Path, path: str) -> bytes:
    """Return what a file below a folder holds.

    Args:
        root: The folder; it may be a link itself.
        path: A plain path from there, see `manifest.is_plain_path`.

    Raises:
        Altered: It is missing, no ordinary file, or a part of its path is a link.
    """
    here = root
    for part in path.split("/")[:-1]:
        here /= part
        if here.is_symlink():
            raise Altered(f"{path}: {part!r} is a link; a link can lead elsewhere any time")
    place = root / path
    if place.is_symlink():
        raise Altered(f"{path} is a link; a link can lead elsewhere any time")
    try:
        # A pipe would wait for ever for who writes to it.
        number = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Altered(f"{path} is no ordinary file")
            return file.read()
    except FileNotFoundError:
        raise Altered(f"{path} is missing") from None
    except OSError as error:
        raise Altered(f"{path} cannot be read: {error.strerror or error}") from error


def files_below(root: Path, folder: str) -> Iterator[str]:
    """Yield the path, from a root, of each file in a package, without byte code that Python has cached.

    Args:
        root: The folder that holds the package.
        folder: Path of the package from there.

    Raises:
        Altered: Something in it is a link, no ordinary file, or in a folder `__pycache__` without being byte code.
    """
    for entry in _entries(root / folder):
        path = f"{folder}/{entry.name}"
        if entry.is_symlink():
            raise Altered(f"{path} is a link; a link can lead elsewhere any time")
        if entry.is_dir():
            if entry.name == "__pycache__":
                _check_cached(root, path)
            else:
                yield from files_below(root, path)
        elif entry.is_file():
            yield path
        else:
            raise Altered(f"{path} is no ordinary file")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda one: one.name)


def _check_cached(root: Path, folder: str) -> None:
    """Admit what Python caches. Nothing of it is ever executed: verified modules are compiled from their source."""
    for entry in _entries(root / folder):
        if entry.is_symlink() or not entry.is_file() or ".pyc" not in entry.name:
            raise Altered(f"{folder}/{entry.name} is no byte code, and does not belong there")


def modules_of(files: Mapping[str, str]) -> dict[str, Module]:
    """Return the modules that files make, by their dotted names; folders that are only namespaces are left out.

    Args:
        files: By path from the folder that holds the packages.
    """
    found: dict[str, Module] = {}
    for path in files:
        folder, _, name = path.rpartition("/")
        parts = folder.split("/") if folder else []
        if name == "__init__.py":
            found[".".join(parts)] = Module(path=path, is_package=True)
            continue
        suffix = next((one for one in (".py", *EXTENSION_SUFFIXES) if name.endswith(one)), None)
        if suffix is None or not all(part.isidentifier() for part in (*parts, name.removesuffix(suffix))):
            continue
        dotted = ".".join((*parts, name.removesuffix(suffix)))
        # As Python does: a package before a module, an extension before a source.
        if not found.get(dotted, Module(path="")).is_package:
            if dotted in found and suffix == ".py":
                continue
            found[dotted] = Module(path=path, is_extension=suffix != ".py")
    tops = tops_of(found)
    for dotted in list(found):
        parent = dotted.rpartition(".")[0]
        while parent and parent not in found and any(parent.startswith(f"{top}.") for top in tops):
            found[parent] = Module(path=parent.replace(".", "/"), is_package=True)
            parent = parent.rpartition(".")[0]
    return found


def tops_of(modules: Mapping[str, Module]) -> frozenset[str]:
    """Return those modules of which no package of the same plugin is a parent."""
    return frozenset(name for name in modules if not any(parent in modules for parent in _parents(name)))


def _parents(dotted: str) -> Iterator[str]:
    while dotted := dotted.rpartition(".")[0]:
        yield dotted


def recorded_files(record: str) -> list[str]:
    """Return the paths in a `RECORD`, as they are written there: nobody vouches for them."""
    return [row[0] for row in csv.reader(record.splitlines()) if row]


@functools.lru_cache(maxsize=256)
def _compared(root: Path, _signature: str, manifest: _Hashable) -> Verified:
    return compare(root, manifest.manifest)


@dataclass(frozen=True, slots=True, eq=False)
class _Hashable:
    manifest: Manifest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashable) and self.manifest == other.manifest

    def __hash__(self) -> int:
        return hash(self.manifest.signature)


def compare_once(root: Path, manifest: Manifest) -> Verified:
    """Compare files with a manifest, once per process: modules are compared again when they are imported.

    Raises:
        Altered: See `compare`.
    """
    return _compared(root, manifest.signature, _Hashable(manifest))


def compare(root: Path, manifest: Manifest) -> Verified:
    """Compare files with a manifest: each must be there as it was signed, and in its packages there must be no other.

    Args:
        root: The folder that holds the packages.
        manifest: Its signature was checked.

    Raises:
        Altered: A file is missing, another one, too many, a link, or of a kind that runs before it can be checked.
    """
    for path, digest in manifest.files.items():
        check_kind(path)
        if digest_of(read_below(root, path)) != digest:
            raise Altered(f"{path} is not the file that was signed")
    modules = modules_of(manifest.files)
    for top in tops_of(modules):
        folder = top.replace(".", "/")
        if not modules[top].is_package:
            continue
        for path in files_below(root, folder):
            if path not in manifest.files and path.rpartition("/")[2] != FILE_NAME:
                raise Altered(f"{path} is not among the files that were signed")
    return Verified(manifest=manifest, root=root, modules=modules)


def check_kind(path: str) -> None:
    """Refuse files that Python runs when it starts, before anybody can look at them.

    Raises:
        Altered: It is one of these, or no plain path.
    """
    if not is_plain_path(path):
        raise Altered(f"{path!r:.120} is no path inside of the plugin")
    if path.endswith((".pth", ".egg-link")):
        raise Altered(f"{path} is run by Python at every start, before anything can be checked")
