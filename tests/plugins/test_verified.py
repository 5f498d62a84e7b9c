"""Verified before import: each way to slip code in, and a side effect that never happens."""

from __future__ import annotations

import importlib
import json
import logging
import os
import py_compile
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import ConfigError, Orchestrator, StrictPolicy
from oao_harness.plugins.manager import make_manager
from oao_harness.plugins.manifest import digest_of
from oao_harness.plugins.signing import make_key
from oao_harness.plugins.trust import Trust

if TYPE_CHECKING:
    from tests.plugins.conftest import Site

Sign = Callable[..., Path]
Trusting = Callable[..., Trust]
Configure = Callable[..., Path]


@pytest.fixture
def signed(site: Site, sign: Sign, trusting: Trusting, configure: Configure) -> Site:
    """A plugin that is signed by somebody trusted, in a project that admits no others."""
    site.install()
    sign("shop-guard")
    trusting()
    configure(verify="strict", plugins=["guard"])
    return site


def refused(site: Site, said: str) -> None:
    """Nothing starts, and nothing of the plugin ran."""
    with pytest.raises(ConfigError, match=said):
        make_manager(())
    assert not site.ran


def test_a_signed_plugin_is_used(signed: Site) -> None:
    """Its files are those that were signed, by somebody whom the project trusts."""
    manager, _ = make_manager(())

    assert signed.ran
    assert manager.has_plugin("guard")
    assert "guard" not in manager.undecided
    # Imported without cached byte code, and none is written.
    assert not list(signed.folder.rglob("*.pyc"))


def test_an_unsigned_plugin_is_refused_where_it_is_named(site: Site, configure: Configure) -> None:
    """Before one line of it ran; the message says what to do."""
    site.install()
    configure(verify="strict", plugins=["guard"])

    refused(site, r"'guard' \(shop-guard 1.0\) is refused: nobody signed it, and pyproject.toml:2 admits verified")


def test_an_unsigned_plugin_that_was_merely_found_is_left_out(
    site: Site, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; the run goes on without it."""
    site.install("shop-guard-two", points={"second": "shop_guard_two:guard"})
    configure(verify="strict")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert not make_manager(())[0].has_plugin("second")

    assert not site.ran
    said = "plugin 'second' (shop-guard-two 1.0) is left out: nobody signed it, and pyproject.toml:2 admits verified"
    assert [one.message for one in caplog.records if "left out" in one.message] == [f"{said} plugins only"]


@pytest.mark.parametrize("policy", ["strict", StrictPolicy(), "file"])
def test_the_strict_policy_asks_for_it(site: Site, project: Path, policy: object) -> None:
    """By name, as an object, and where a policy file extends it; `standard` does not."""
    site.install()
    if policy == "file":
        (project / "mine.toml").write_text('extends = "strict"\n')
        policy = "mine.toml"
    Orchestrator(policy)
    with pytest.raises(ConfigError, match="it is named by the program"):
        Orchestrator(policy, plugins=["guard"])
    assert not site.ran

    Orchestrator("standard", plugins=["guard"])
    assert site.ran


def test_each_changed_file_is_found(signed: Site) -> None:
    """One byte is enough."""
    with (signed.folder / "shop_guard" / "__init__.py").open("a") as file:
        file.write("\n")

    refused(signed, "__init__.py is not the file that was signed; install it again")


def test_altered_is_refused_without_strict_too(signed: Site, configure: Configure) -> None:
    """Whoever signs says so to be believed."""
    configure()
    (signed.folder / "shop_guard" / "__init__.py").write_text(signed.touch())

    refused(signed, "is not the file that was signed")


@pytest.mark.parametrize("extra", ["more.py", "deep/__init__.py", "data.json", "__pycache__/evil.py"])
def test_an_extra_file_in_the_package_is_found(signed: Site, extra: str) -> None:
    """A lazy import would run it later."""
    path = signed.folder / "shop_guard" / extra
    path.parent.mkdir(exist_ok=True)
    path.write_text(signed.touch())

    refused(signed, "is not among the files that were signed|does not belong there")


def test_a_missing_file_is_found(signed: Site) -> None:
    """It may have been the one that checks."""
    (signed.folder / "shop_guard" / "__init__.py").unlink()

    refused(signed, "__init__.py is missing")


def test_links_are_refused(signed: Site, tmp_path: Path) -> None:
    """What a link leads to can be exchanged any time: a file, and a folder."""
    init = signed.folder / "shop_guard" / "__init__.py"
    copy = tmp_path / "copy.py"
    shutil.copy(init, copy)
    init.unlink()
    init.symlink_to(copy)
    refused(signed, "is a link")

    shutil.rmtree(signed.folder / "shop_guard")
    (tmp_path / "package").mkdir()
    shutil.copy(copy, tmp_path / "package" / "__init__.py")
    (signed.folder / "shop_guard").symlink_to(tmp_path / "package")
    refused(signed, "is a link")


def test_what_is_no_file_is_refused_and_not_waited_for(signed: Site) -> None:
    """A pipe would block its reader for ever."""
    init = signed.folder / "shop_guard" / "__init__.py"
    init.unlink()
    os.mkfifo(init)

    refused(signed, "no ordinary file")


def test_a_record_that_names_more_is_refused(signed: Site) -> None:
    """A module beside the package that came with it; and a `.pth`, which Python runs at every start."""
    record = next(signed.folder.glob("*.dist-info")) / "RECORD"
    before = record.read_text()
    (signed.folder / "shop_more.py").write_text(signed.touch())
    record.write_text(before + "shop_more.py,,\n")
    refused(signed, "shop_more.py was installed with it, and is not among")

    record.write_text(before + "../../shop.pth,,\n")
    refused(signed, "shop.pth is run by Python at every start")


def test_a_record_that_hides_a_file_hides_nothing(signed: Site) -> None:
    """RECORD is never believed: the folder is."""
    record = next(signed.folder.glob("*.dist-info")) / "RECORD"
    record.write_text("")
    (signed.folder / "shop_guard" / "evil.py").write_text(signed.touch())

    refused(signed, "shop_guard/evil.py is not among the files")


def test_another_version_or_name_is_refused(signed: Site) -> None:
    """A manifest is good for one version of one package."""
    info = next(signed.folder.glob("*.dist-info"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-guard\nVersion: 1.1\n")

    refused(signed, "its manifest is that of version 1.0, and version 1.1 is installed")


def test_other_entry_points_are_refused(signed: Site) -> None:
    """They say which code runs."""
    info = next(signed.folder.glob("*.dist-info"))
    (signed.folder / "shop_evil.py").write_text(signed.touch())
    (info / "entry_points.txt").write_text("[oao]\nguard = shop_evil:guard\n")

    refused(signed, "its entry points are not those that were signed")


def test_an_old_version_that_was_signed_once_is_refused(site: Site, sign: Sign, trusting: Trusting) -> None:
    """Who trusts a version trusts none before it: a hole that was mended stays mended."""
    site.install(version="0.9")
    sign("shop-guard")
    trusting("shop-guard>=1.0")

    refused(site, "Acme's key may sign shop-guard>=1.0, and this is version 0.9")


def test_an_expired_and_an_unknown_key_are_refused(
    site: Site, sign: Sign, trusting: Trusting, configure: Configure, tmp_path: Path
) -> None:
    """The date in a manifest is not asked: a thief writes any."""
    site.install()
    configure(verify="strict", plugins=["guard"])
    sign("shop-guard")
    refused(site, "nobody trusts the key")
    trusting(expires="2020-01-01")
    refused(site, "the trust in Acme's key ended on 2020-01-01")
    (configure().parent / "oao-trust.json").unlink()
    configure(verify="strict", plugins=["guard"])
    trusting("other-package")
    refused(site, "Acme's key may not sign shop-guard, only other-package")
    make_key(tmp_path / "thief.pem")
    trusting()
    sign("shop-guard", key=tmp_path / "thief.pem")
    refused(site, "nobody trusts the key")
    configure()
    refused(site, "nobody trusts the key .* says that Acme signs shop-guard")


def test_taking_the_manifest_away_is_no_way_around_it(signed: Site, configure: Configure, project: Path) -> None:
    """Where the project trusts somebody to sign a package, it must be signed, strict or not."""
    configure()
    shutil.rmtree(project / "oao-manifests")

    refused(signed, "nobody signed it, and oao-trust.json says that Acme does")


def test_a_manifest_that_was_edited_is_refused(signed: Site, project: Path) -> None:
    """More hooks, other files, another format, a key twice: nothing of it passes."""
    path = project / "oao-manifests" / "shop-guard.json"
    good = path.read_text()
    manifest = json.loads(good)
    evil = signed.touch()
    (signed.folder / "shop_guard" / "__init__.py").write_text(evil)
    hashed = {"files": {"shop_guard/__init__.py": digest_of(evil.encode())}}
    for change, said in (
        (hashed, "its manifest is not what was signed"),
        ({**hashed, "key": "ed25519:" + "A" * 43 + "="}, "its manifest is not what was signed"),
        ({"hooks": ["oao_decide_run"]}, "its manifest is not what was signed"),
        ({"format": "oao-plugin/0"}, "its format is 'oao-plugin/0'"),
        ({"files": {"../../evil.py": digest_of(b"")}}, "is no path inside of the plugin"),
        ({"files": {"/etc/passwd": digest_of(b"")}}, "is no path inside of the plugin"),
        ({"files": {"a\\b.py": digest_of(b"")}}, "is no path inside of the plugin"),
        ({"hooks": ["oao_decide_tol_call"]}, "did you mean 'oao_decide_tool_call'"),
        ({"more": 1}, "the key 'more' is unknown"),
        ({"signature": "x"}, "signature is 'x'"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        refused(signed, said)
    path.write_text(good.replace("{", '{"name": "other",', 1))
    refused(signed, "the key 'name' is there twice")
    path.write_text("[" * 100_000)
    refused(signed, "no manifest of a plugin")


def test_cached_byte_code_is_not_executed(signed: Site) -> None:
    """An unchecked `.pyc` holds other code than the source beside it; Python itself would run it."""
    package = signed.folder / "shop_guard"
    evil = package.parent / "evil.py"
    evil.write_text("raise SystemExit('byte code ran')\n")
    cached = importlib.util.cache_from_source(str(package / "__init__.py"))
    py_compile.compile(str(evil), cfile=cached, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    with pytest.raises(SystemExit):
        importlib.import_module("shop_guard")

    assert make_manager(())[0].has_plugin("guard")


def test_a_file_that_is_exchanged_after_the_check_does_not_run(site: Site, sign: Sign, trusting: Trusting) -> None:
    """What is imported later is compared when it is imported; what was added is not found."""
    lazy = """
from oao_hookspecs import hookimpl
@hookimpl
def oao_policies():
    from shop_guard import more
    return {}
"""
    site.install(
        points={"guard": "shop_guard"}, sources={"shop_guard/__init__.py": lazy, "shop_guard/more.py": "x = 1\n"}
    )
    sign("shop-guard")
    trusting()
    make_manager(())
    del sys.modules["shop_guard.more"], sys.modules["shop_guard"].more
    (site.folder / "shop_guard" / "more.py").write_text(site.touch())
    (site.folder / "shop_guard" / "late.py").write_text(site.touch())

    with pytest.raises(ConfigError, match=r"shop_guard/more.py was changed after it was checked"):
        make_manager(())
    with pytest.raises(ModuleNotFoundError, match="in what was signed"):
        importlib.import_module("shop_guard.late")
    assert not site.ran


def test_a_module_of_the_same_name_elsewhere_is_not_imported(signed: Site, tmp_path: Path) -> None:
    """First on the path, and in the working folder: the one that was compared is the one that runs."""
    first = tmp_path / "first"
    (first / "shop_guard").mkdir(parents=True)
    (first / "shop_guard" / "__init__.py").write_text("raise SystemExit('the wrong one ran')\n")
    sys.path.insert(0, str(first))

    manager, _ = make_manager(())

    assert manager.has_plugin("guard")
    assert str(sys.modules["shop_guard"].__file__).startswith(str(signed.folder))


def test_a_module_that_was_imported_from_elsewhere_is_refused(signed: Site, tmp_path: Path) -> None:
    """It would be used in place of the one that was compared."""
    (tmp_path / "shop_guard.py").write_text("guard = None\n")
    sys.path.insert(0, str(tmp_path))
    importlib.import_module("shop_guard")

    refused(signed, "a module 'shop_guard' was imported from .* which is not the one signed")


def test_two_copies_of_one_package_are_refused(signed: Site, tmp_path: Path) -> None:
    """Python takes the first that it finds, whichever was checked."""
    second = tmp_path / "second"
    second.mkdir()
    signed.install(version="2.0", folder=second)
    sys.path.append(str(second))

    refused(signed, "it is installed more than once")


def test_editable_packages_are_not_verified(signed: Site) -> None:
    """What they import lies elsewhere, and changes any time."""
    info = next(signed.folder.glob("*.dist-info"))
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable":true}}')

    refused(signed, "pip install -e")


def test_a_package_of_somebody_else_around_it_is_refused(site: Site, sign: Sign, trusting: Trusting) -> None:
    """The `__init__` of a namespace would run first, unchecked."""
    site.install(points={"guard": "acme.guard:guard"}, sources={"acme/guard.py": site.guard()})
    sign("shop-guard")
    trusting()
    (site.folder / "acme" / "__init__.py").write_text(site.touch())
    refused(site, "is a package of somebody else")

    (site.folder / "acme" / "__init__.py").unlink()
    importlib.invalidate_caches()
    assert make_manager(())[0].has_plugin("guard")


def test_a_plugin_for_other_versions_of_oao_is_refused(site: Site, sign: Sign, trusting: Trusting) -> None:
    """It says so before it is imported."""
    site.install()
    sign("shop-guard", api=">=99")
    trusting()

    refused(site, r"it works with oao >=99, and this is oao 0\.")


def test_only_the_hooks_of_the_manifest_are_given(site: Site, sign: Sign, trusting: Trusting) -> None:
    """A plugin that has more is refused: itself, the policies and the listeners that it offers."""
    source = """
from oao_hookspecs import Limits, hookimpl
class Tiny:
    @hookimpl
    def oao_limits(self, run):
        return Limits()
@hookimpl
def oao_policies():
    return {"tiny": Tiny}
@hookimpl
def oao_listeners():
    return LISTENERS
LISTENERS = []
"""
    site.install("shop-more", points={"more": "shop_more"}, sources={"shop_more.py": source})
    sign("shop-more", hooks=["oao_policies", "oao_listeners"])
    trusting("shop-*")
    site.install()
    sign("shop-guard", hooks=["oao_run_finished"])
    with pytest.raises(ConfigError, match="implements 'oao_decide_tool_call', which its signed manifest does not name"):
        make_manager(())

    sign("shop-guard")
    make_manager(())
    with pytest.raises(ConfigError, match="implements 'oao_limits'"):
        make_manager(["tiny"])
    more = sys.modules["shop_more"]
    more.LISTENERS.append(more.Tiny())  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="implements 'oao_limits'"):
        make_manager(())
