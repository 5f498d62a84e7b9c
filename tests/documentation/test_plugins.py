"""`docs/how-to/plugins.md`: its files are written, its commands and programs run, from top to bottom, word for word."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness.plugins.manifest import HOOKS
from tests.console_pages import ROOT, executed

if TYPE_CHECKING:
    from tests.plugins.conftest import Oao, Site

TEXT = executed("how-to/plugins.md")
BLOCKS = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", TEXT, re.S | re.M)


def test_the_page_is_true(site: Site, project: Path, oao: Oao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One session: what the page installs, signs, trusts and runs, with the answers that it prints."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = tmp_path / "key.pem"
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key.write_bytes(Ed25519PrivateKey.from_private_bytes(bytes(32 * [1])).private_bytes(*pem))
    key.chmod(0o600)
    monkeypatch.setenv("OAO_SIGNING_KEY", str(key))
    ran = 0
    for language, file, code in BLOCKS:
        if file == "shop_guard.py":
            site.install(sources={file: code})
        elif file:
            (project / file).write_text(code, encoding="utf-8")
            compile(code, file, "exec") if language == "python" else None
        elif language == "python":
            exec(compile(code, "docs/how-to/plugins.md", "exec"), {})
        elif language == "console":
            for command, said in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", code, re.M):
                if command.startswith("pip install"):
                    extra = re.search(r"\[(\w+)\]", command)
                    assert extra is not None
                    assert f"\n{extra[1]} = [" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
                    continue
                assert oao(*shlex.split(command)[1:], width=120).output == said, command
                ran += 1
    assert ran == 7


def test_redactors_and_commands_of_the_page_work(site: Site, oao: Oao) -> None:
    """Installed as a plugin, they are found."""
    from oao_harness.config import project_scrubber

    source = next(code for _, file, code in BLOCKS if file == "shop_tools.py")
    site.install("shop-tools", points={"tools": "shop_tools"}, sources={"shop_tools.py": source})

    assert oao("refunds").stdout == "none today\n"
    assert project_scrubber().scrub("card 4111 1111 1111 1111") == "card <card>"


def test_what_the_page_names_exists() -> None:
    """Hooks, and the subcommands of `oao plugins`."""
    from oao_harness.cli.plugins import command

    for name in re.findall(r"\boao_(?!harness|hookspecs)\w+", TEXT):
        assert any(hook.startswith(name) for hook in HOOKS), name
    for name in re.findall(r"oao plugins (\w+)", TEXT):
        assert name in command.commands
    for extra in ("trust", "attestations"):
        assert f"`{extra}`" in TEXT
