"""Imports verified plugins from the bytes that were compared: no cached byte code, nothing exchanged in between.

A finder on `sys.meta_path` answers for the modules of verified plugins, and for nothing else. A module that is imported
later is compared then. Extension modules are compared, and loaded by the system a moment later.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from oao_harness.plugins.files import Altered, Verified, read_below
from oao_harness.plugins.manifest import digest_of

__all__ = ["import_from"]

_LOCK: Final = threading.Lock()


class _Source(SourceFileLoader):
    """Compiles a module's source as it was signed."""

    def __init__(self, name: str, verified: Verified, path: str) -> None:
        super().__init__(name, str(verified.root / path))
        self.verified = verified

    def get_code(self, fullname: str) -> CodeType:
        # Not the inherited one: that would take byte code that lies in `__pycache__`.
        return self.source_to_code(self.get_data(self.path), self.path)

    def get_data(self, path: str) -> bytes:
        return _read(self.verified, Path(path))


class _Extension(ExtensionFileLoader):
    """Compares an extension module before the system loads it."""

    def __init__(self, name: str, verified: Verified, path: str) -> None:
        super().__init__(name, str(verified.root / path))
        self.verified = verified

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _read(self.verified, Path(self.path))
        return super().create_module(spec)


def _read(verified: Verified, place: Path) -> bytes:
    name, path = verified.manifest.name, place.relative_to(verified.root).as_posix()
    if path not in verified.manifest.files:
        raise Altered(f"plugin package {name}: {path} is not among the files that were signed")
    content = read_below(verified.root, path)
    if digest_of(content) != verified.manifest.files[path]:
        raise Altered(f"plugin package {name}: {path} was changed after it was checked; install the plugin again")
    return content


class _Finder(MetaPathFinder):
    """Answers for the modules of one verified plugin."""

    def __init__(self, verified: Verified) -> None:
        self.verified = verified
        self.tops = verified.tops

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(fullname == top or fullname.startswith(f"{top}.") for top in self.tops):
            return None
        module = self.verified.modules.get(fullname)
        if module is None:
            # Nobody else may answer: a file that was added later is not the plugin's.
            raise ModuleNotFoundError(f"No module named {fullname!r} in what was signed", name=fullname)
        place = self.verified.root / module.path
        if module.is_package and not module.path.endswith("__init__.py"):
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        if module.is_extension:
            return importlib.util.spec_from_file_location(
                fullname, place, loader=_Extension(fullname, self.verified, module.path)
            )
        return importlib.util.spec_from_file_location(
            fullname,
            place,
            loader=_Source(fullname, self.verified, module.path),
            submodule_search_locations=[str(place.parent)] if module.is_package else None,
        )


def import_from(verified: Verified) -> None:
    """Have a verified plugin's modules imported from what was compared, from now on and in this process.

    Raises:
        Altered: A module of it was imported from elsewhere, or lies in a package of somebody else.
    """
    with _LOCK:
        if any(isinstance(finder, _Finder) and finder.verified == verified for finder in sys.meta_path):
            return
        for name, module in verified.modules.items():
            loaded = sys.modules.get(name)
            if loaded is None or not module.path.endswith(".py"):
                continue
            place = getattr(loaded, "__file__", None)
            if place is None or Path(place).resolve() != verified.root / module.path:
                raise Altered(f"a module {name!r} was imported from {place!r} before, which is not the one signed")
        for top in verified.tops:
            _check_namespace(top)
        sys.meta_path[:] = [
            finder
            for finder in sys.meta_path
            # Of an older copy of the same package, which is not looked at any more.
            if not (isinstance(finder, _Finder) and finder.tops & verified.tops)
        ]
        sys.meta_path.insert(0, _Finder(verified))


def _check_namespace(top: str) -> None:
    """Refuse a module whose parent is a package of somebody else: its `__init__` would run first, unchecked."""
    parts = top.split(".")
    path: Sequence[str] | None = None
    for end in range(1, len(parts)):
        name = ".".join(parts[:end])
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return
        if spec.origin is not None:
            raise Altered(f"{name!r}, which {top!r} is in, is a package of somebody else ({spec.origin})")
        path = list(spec.submodule_search_locations or ())
