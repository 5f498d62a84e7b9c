"""`oao plugins`: sign, verify, trust, list; nothing of a plugin runs, and no mistake prints a traceback."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness.plugins.manager import make_manager

if TYPE_CHECKING:
    from tests.plugins.conftest import Oao, Site

Configure = Callable[..., Path]


@pytest.fixture(autouse=True)
def key(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that `oao plugins sign` takes."""
    monkeypatch.setenv("OAO_SIGNING_KEY", str(key_file))


@pytest.fixture
def wheel(tmp_path: Path, site: Site) -> Path:
    """A wheel that is not installed."""
    path = tmp_path / "shop_guard-1.0-py3-none-any.whl"
    info = "shop_guard-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("shop_guard/__init__.py", site.guard())
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: shop-guard\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/entry_points.txt", "[oao]\nguard = shop_guard:guard\n")
        file.writestr(f"{info}/RECORD", f"shop_guard/__init__.py,,\n{info}/RECORD,,\n")
    return path


def test_from_nothing_to_a_verified_plugin(oao: Oao, site: Site, configure: Configure, tmp_path: Path) -> None:
    """What a person types, in order; the state of each step is said, and nothing runs before the end."""
    site.install()
    configure(verify="strict", plugins=["guard"])
    assert "refused  unsigned" in oao("plugins", "list").stdout
    made = oao("plugins", "keygen", "--out", str(tmp_path / "key.pem"))
    assert made.stdout.startswith("ed25519:")
    assert (tmp_path / "key.pem").stat().st_mode & 0o077 == 0

    signed = oao("plugins", "sign", "guard", "--key", str(tmp_path / "key.pem"))
    assert "signed shop-guard 1.0" in signed.stdout
    assert "may only have: oao_decide_tool_call" in signed.stdout
    verified = oao("plugins", "verify")
    assert (verified.exit_code, "untrusted" in verified.stdout) == (1, True)
    asked = oao("plugins", "trust", "guard", input="n\n")
    assert (asked.exit_code, "nothing was changed" in asked.stderr) == (2, True)
    assert "trusts Acme with shop-guard>=1.0" in oao("plugins", "trust", "guard", "--owner", "Acme", "--yes").stdout

    assert "decides  verified  Acme" in oao("plugins", "list").stdout
    assert oao("plugins", "verify", "guard").exit_code == 0
    assert json.loads(oao("plugins", "list", "--json").stdout)[0]["hooks"] == ["oao_decide_tool_call"]
    assert "Acme" in oao("plugins", "trust").stdout
    assert not site.ran
    make_manager(())
    assert site.ran

    assert "trusts Acme no more" in oao("plugins", "untrust", "Acme").stdout
    assert oao("plugins", "verify").exit_code == 1


def test_a_wheel_is_signed_checked_installed_and_used(oao: Oao, site: Site, wheel: Path, configure: Configure) -> None:
    """The manifest travels in it, and its RECORD names the manifest."""
    assert oao("plugins", "verify", str(wheel)).exit_code == 1
    assert oao("plugins", "sign", str(wheel)).exit_code == 0
    assert oao("plugins", "trust", str(wheel), "--yes").exit_code == 0
    assert "verified" in oao("plugins", "verify", str(wheel)).stdout
    with zipfile.ZipFile(wheel) as file:
        assert "oao-plugin.json,sha256=" in file.read("shop_guard-1.0.dist-info/RECORD").decode()
        file.extractall(site.folder)
    configure(verify="strict", plugins=["guard"])

    assert "decides  verified" in oao("plugins", "list").stdout
    assert make_manager(())[0].has_plugin("guard")


def test_a_wheel_that_was_changed_is_altered(oao: Oao, wheel: Path, site: Site) -> None:
    """A file more is enough."""
    oao("plugins", "sign", str(wheel))
    oao("plugins", "trust", str(wheel), "--yes")
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr("shop_guard/more.py", site.touch())

    checked = oao("plugins", "verify", str(wheel))
    assert checked.exit_code == 1
    assert "altered" in checked.stdout
    assert "shop_guard/more.py is not the file that was signed" in checked.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil.py", "is no path inside of the plugin"),
        ("/evil.py", "is no path inside of the plugin"),
        ("evil.pth", "is run by Python at every start"),
        ("shop_guard-1.0.data/purelib/evil.py", "lands outside of the packages"),
        ("other-1.0.dist-info/METADATA", "has 2 folders of metadata"),
    ],
)
def test_wheels_that_cannot_be_signed(oao: Oao, wheel: Path, name: str, said: str) -> None:
    """What an installer puts where nobody compares it, or what runs before anybody can."""
    with zipfile.ZipFile(wheel, "a") as file:
        file.writestr(name, "x")

    refused = oao("plugins", "sign", str(wheel))
    assert refused.exit_code == 2
    assert said in refused.stderr


@pytest.mark.parametrize("at", [".", "shop_guard"])
def test_a_folder_is_signed_before_it_is_built(oao: Oao, site: Site, project: Path, at: str) -> None:
    """The manifest becomes a file of the package, and installed with it."""
    (project / "shop_guard").mkdir()
    (project / "shop_guard" / "__init__.py").write_text(site.guard())
    (project / "pyproject.toml").write_text(
        '[project]\nname = "shop-guard"\nversion = "1.0"\n[project.entry-points.oao]\nguard = "shop_guard:guard"\n'
    )
    assert oao("plugins", "sign", at).exit_code == 0
    manifest = (project / "shop_guard" / "oao-plugin.json").read_text()
    site.install(sources={"shop_guard/__init__.py": site.guard(), "shop_guard/oao-plugin.json": manifest})
    assert oao("plugins", "trust", "guard", "--yes").exit_code == 0

    assert oao("plugins", "verify", "guard").exit_code == 0
    assert not site.ran


def test_mistakes_are_said_in_one_line(oao: Oao, site: Site, tmp_path: Path, project: Path) -> None:
    """What, where, what to do; exit code 2."""
    site.install()
    (tmp_path / "text.whl").write_text("no wheel")
    (tmp_path / "open.pem").write_text("x")
    (tmp_path / "open.pem").chmod(0o644)
    for args, said in (
        (("sign", "gaurd"), "'gaurd' is no wheel, no .py file, no folder, and no installed plugin; installed plugins"),
        (("sign", str(tmp_path / "text.whl")), "cannot be read as a wheel"),
        (("sign", "guard", "--key", "none.pem"), "make one with: oao plugins keygen"),
        (("sign", "guard", "--key", str(tmp_path / "open.pem")), "chmod 600"),
        (("sign", "guard", "--hook", "oao_decide_tol_call"), "did you mean 'oao_decide_tool_call'?"),
        (("sign", "guard", "--api", "x"), "--api 'x'"),
        (("sign", "."), "is in no project"),
        (("trust", "ed25519:abc", "--signs", "x"), "is no public key"),
        (("trust", "ed25519:" + "A" * 43 + "="), "say what the key may sign"),
        (("trust", "ed25519:" + "A" * 43 + "=", "--signs", ">=1"), "write the name of a package and versions"),
        (("trust", "ed25519:" + "A" * 43 + "=", "--signs", "x", "--until", "soon"), "'soon' is no day"),
        (("trust", "guard"), "guard cannot be trusted: nobody signed it"),
        (("untrust", "nobody"), "does not trust 'nobody'"),
        (("verify", "x.whl"), "cannot be read as a wheel"),
        (("verify", "guard", "--attestation", "x"), "is about one wheel"),
        (("verify", "guard", "--publisher", "x"), "give --attestation too"),
    ):
        result = oao("plugins", *args)
        assert (result.exit_code, said in result.stderr) == (2, True), (args, result.output)
    (project / "oao-trust.json").write_text("{}")
    assert "this is no trust file" in oao("plugins", "list").stderr
    assert not site.ran


def test_an_encrypted_key_needs_its_password(
    oao: Oao, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, where nobody can type."""
    site.install()
    path = str(tmp_path / "key.pem")
    monkeypatch.setenv("OAO_SIGNING_KEY_PASSWORD", "correct horse")
    assert oao("plugins", "keygen", "--encrypt", "--out", path).exit_code == 0
    assert oao("plugins", "sign", "guard", "--key", path).exit_code == 0

    monkeypatch.setenv("OAO_SIGNING_KEY_PASSWORD", "wrong")
    assert "its password is another one" in oao("plugins", "sign", "guard", "--key", path).stderr
    monkeypatch.delenv("OAO_SIGNING_KEY_PASSWORD")
    assert "is encrypted; give its password" in oao("plugins", "sign", "guard", "--key", path).stderr
    assert "a key is not overwritten" in oao("plugins", "keygen", "--out", path).stderr


def test_the_list_says_what_becomes_of_each(oao: Oao, site: Site, configure: Configure) -> None:
    """Disabled, observing, missing; nothing is imported."""
    site.install()
    site.install("shop-two", points={"two": "shop_two:guard"})
    assert oao("plugins", "list").exit_code == 0
    configure(disabled=["two"], required=["three"])

    listed = oao("plugins", "list").stdout
    assert "observes" in listed
    assert "disabled" in listed
    assert "three is named at pyproject.toml:3, and not installed: nothing starts." in listed
    assert not site.ran


def test_an_attestation_is_checked_without_a_network(oao: Oao, wheel: Path, tmp_path: Path) -> None:
    """One that is none, and one that nobody of Sigstore has signed, are refused."""
    pytest.importorskip("pypi_attestations")
    publisher = ("--publisher", "acme/shop", "--workflow", "release.yml")
    path = tmp_path / "shop.attestation"
    path.write_text("{}")
    refused = oao("plugins", "verify", str(wheel), "--attestation", str(path), *publisher)
    assert (refused.exit_code, "this is no attestation" in refused.stderr) == (2, True)
    missing = oao("plugins", "verify", str(wheel), "--attestation", str(path))
    assert "say who must have" in missing.stderr


def test_trusting_again_says_what_holds_now(oao: Oao, site: Site) -> None:
    """A newer floor takes the place of the older one; other packages, and other days, stay."""
    key = "ed25519:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
    for more in (("--signs", "a>=1", "--signs", "b"), ("--signs", "a>=2"), ("--signs", "c", "--until", "2030-01-01")):
        assert oao("plugins", "trust", key, "--owner", "Acme", *more).exit_code == 0

    listed = oao("plugins", "trust").stdout
    assert "b, a>=2" in listed
    assert "a>=1" not in listed
    assert len(listed.splitlines()) == 3
