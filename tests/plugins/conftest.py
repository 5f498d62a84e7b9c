"""A project, a folder of installed packages, a key: plugins that are written by hand and really imported."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from oao_harness.cli import main
from oao_harness.plugins import files, found
from oao_harness.plugins.loader import PluginLoader
from oao_harness.plugins.signing import load_key, make_key
from oao_harness.plugins.sources import Signing, sign_target
from oao_harness.plugins.trust import Trust, TrustedKey, find_trust

Oao = Callable[..., Result]

GUARD = """
from pathlib import Path
from oao_hookspecs import Deny, hookimpl

Path({ran!r}).write_text("the plugin ran")

class Guard:
    name = "guard"

    @hookimpl
    def oao_decide_tool_call(self, call):
        return Deny(rule="guard", reason="the guard says no")

guard = Guard()
"""


class Site:
    """A folder of installed packages, first on `sys.path`; what is installed there leaves a mark when it runs."""

    def __init__(self, folder: Path, mark: Path) -> None:
        self.folder = folder
        self.mark = mark

    @property
    def ran(self) -> bool:
        """True where any line of a plugin ran."""
        return self.mark.exists()

    def guard(self) -> str:
        """The source of a plugin that denies every tool call."""
        return GUARD.format(ran=str(self.mark))

    def touch(self, name: str = "other") -> str:
        """The source of a module that leaves the mark."""
        return f"from pathlib import Path\nPath({str(self.mark)!r}).write_text({name!r})\n"

    def install(
        self,
        name: str = "shop-guard",
        version: str = "1.0",
        points: Mapping[str, str] | None = None,
        sources: Mapping[str, str] | None = None,
        *,
        folder: Path | None = None,
    ) -> Path:
        """Write a distribution as an installer would; returns its folder of metadata."""
        root = folder or self.folder
        module = name.replace("-", "_")
        written = {f"{module}/__init__.py": self.guard()} if sources is None else sources
        points = {"guard": f"{module}:guard"} if points is None else points
        info = root / f"{module}-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = "\n".join(f"{point} = {value}" for point, value in points.items())
        (info / "entry_points.txt").write_text(f"[oao]\n{lines}\n")
        # A process reads once what is installed.
        found._scanned.cache_clear()
        record = []
        for path, source in written.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(source)
            digest = base64.urlsafe_b64encode(hashlib.sha256(source.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(source)}")
        record += [f"{info.name}/{one}," for one in ("METADATA", "entry_points.txt", "RECORD")]
        (info / "RECORD").write_text("\n".join(record) + "\n")
        return info


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, where nothing is imported from; process-wide traces of plugins are gone afterwards."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = set(sys.modules)
    yield folder
    for name in list(PluginLoader.loaded()):
        PluginLoader.unload(name)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]
    files._compared.cache_clear()


@pytest.fixture
def site(project: Path, tmp_path: Path) -> Site:
    """See `Site`."""
    folder = tmp_path / "site"
    folder.mkdir()
    sys.path.insert(0, str(folder))
    return Site(folder, tmp_path / "ran")


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key."""
    path = tmp_path_factory.mktemp("keys") / "acme.pem"
    make_key(path)
    return path


@pytest.fixture
def sign(key_file: Path, project: Path) -> Callable[..., Path]:
    """Signs a target with the key, or another one; returns where the manifest went."""

    def signed(target: str | Path, key: Path | None = None, **said: Any) -> Path:
        return sign_target(str(target), Signing(**said), load_key(key or key_file), find_trust())[1]

    return signed


@pytest.fixture
def trusting(key_file: Path, project: Path) -> Callable[..., Trust]:
    """Has the project trust the key."""
    from oao_harness.plugins.signing import public_key

    def trusted(*signs: str, expires: str = "", key: Path | None = None) -> Trust:
        one = TrustedKey(
            key=public_key(load_key(key or key_file)), owner="Acme", signs=signs or ("shop-guard",), expires=expires
        )
        find_trust().having(one).save()
        return find_trust()

    return trusted


@pytest.fixture
def configure(project: Path) -> Callable[..., Path]:
    """Writes `[tool.oao]` of the project."""

    def write(**keys: object) -> Path:
        path = project / "pyproject.toml"
        path.write_text("[tool.oao]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
        return path

    return write


@pytest.fixture
def oao(project: Path) -> Oao:
    """Runs `oao` in the project; an exception that is not an exit is the test's own."""

    def run(*args: str, width: int = 160, **more: Any) -> Result:
        result = CliRunner(env={"COLUMNS": str(width), "NO_COLOR": "1"}).invoke(main, args, prog_name="oao", **more)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
