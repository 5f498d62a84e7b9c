"""API keys: shown once, kept as hashes, refused when anything about them or their file is not right."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oao_harness import ConfigError, UsageError
from oao_harness.cli import main
from oao_harness.journal.credentials import find_credentials, may_hold_credentials, without_credentials
from oao_harness.server.callers import LOCAL, Caller
from oao_harness.server.keys import KeyFile

Oao = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sub" / "keys.json"


@pytest.fixture
def keys(path: Path) -> KeyFile:
    return KeyFile(path)


# Callers


@pytest.mark.parametrize(
    ("roles", "may"),
    [
        (["viewer"], {"read"}),
        (["operator"], {"read", "run"}),
        (["approver"], {"read", "approve"}),
        (["operator", "approver"], {"read", "run", "approve"}),
        (["admin"], {"read", "run", "approve", "admin"}),
        (["manager", "Admin", "admin "], set()),
        ([], set()),
    ],
)
def test_a_role_gives_permissions(roles: list[str], may: set[str]) -> None:
    """Those that the server knows do, to the letter; all go on to policies and approvals."""
    caller = Caller.of("ann", roles, "acme")
    assert caller.permissions == may
    assert [caller.may(one) for one in ("read", "admin")] == ["read" in may, "admin" in may]
    assert (caller.principal.id, caller.principal.roles, caller.principal.tenant) == ("ann", tuple(roles), "acme")
    assert LOCAL.may("admin")


# Keys


def test_a_key_is_its_callers(keys: KeyFile) -> None:
    """Nothing but the whole key is."""
    made = keys.create("ann", ["operator", "manager"], tenant="acme")
    assert re.fullmatch(r"oao_[0-9a-f]{12}_[0-9a-f]{64}", made.text)
    assert keys.caller_of(made.text) == Caller.of("ann", ["operator", "manager"], "acme")
    other = keys.create("bob", ["admin"]).text
    secret, other_secret = made.text.rpartition("_")[2], other.rpartition("_")[2]
    for wrong in (
        "",
        "oao_",
        made.text[:-1],
        made.text + "0",
        made.text + "\n",
        made.text.upper(),
        f" {made.text}",
        made.text.replace(secret, other_secret),
        made.text.replace(made.key.id, "0" * 12),
        f"oao_{made.key.id}_{made.key.sha256}",
        made.key.sha256,
        "oao_" + "\ud83d" * 12,
    ):
        assert keys.caller_of(wrong) is None, wrong


def test_the_file_holds_no_key_and_is_its_owners_alone(keys: KeyFile, path: Path) -> None:
    """Whoever reads it cannot use it."""
    made = [keys.create(name, ["viewer"]) for name in ("ann", "bob")]
    content = path.read_text()
    for one in made:
        assert one.text not in content
        assert one.text.rpartition("_")[2] not in content
        assert one.text.rpartition("_")[2] not in repr(one) + repr(one.key)
    assert [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()] == [0o600] * 2
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_key_expires(path: Path) -> None:
    """At the second, on the server's clock."""
    now = [1000.0]
    keys = KeyFile(path, clock=lambda: now[0])
    made = keys.create("ann", ["viewer"], expires_in_s=60)
    now[0] = 1059.9
    assert keys.caller_of(made.text) is not None
    assert keys.active(made.key.id) is not None
    now[0] = 1060.0
    assert keys.caller_of(made.text) is None
    assert keys.active(made.key.id) is None
    assert keys.keys()[0].state(now[0]) == "expired"


def test_a_running_server_sees_each_change(path: Path) -> None:
    """A new key, a revoked one, a file that comes, goes, and comes back."""
    server, other = KeyFile(path), KeyFile(path)
    assert not server.exists()
    assert server.keys() == []
    first = other.create("ann", ["viewer"])
    assert server.exists()
    for _ in range(20):
        made = other.create("bob", ["viewer"])
        assert server.caller_of(made.text) is not None
        (ended,) = other.revoke(made.key.id)
        assert server.caller_of(made.text) is None
        assert server.active(ended.id) is None
    content = path.read_bytes()
    path.unlink()
    assert server.caller_of(first.text) is None
    path.write_bytes(content)
    path.chmod(0o600)
    assert server.caller_of(first.text) is not None


def test_a_revoked_key_stays_revoked(keys: KeyFile) -> None:
    """By id or by name; a second time changes nothing; an unknown one is an error."""
    one, two, three = (keys.create(name, ["viewer"]) for name in ("ann", "ann", "bob"))
    assert [key.id for key in keys.revoke("ann")] == [one.key.id, two.key.id]
    revoked_at = keys.keys()[0].revoked_at
    assert keys.revoke(one.key.id) == []
    assert keys.keys()[0].revoked_at == revoked_at
    assert keys.caller_of(three.text) is not None
    with pytest.raises(UsageError, match="no key has the id or the name 'eve'"):
        keys.revoke("eve")


def create_some(path: Path, name: str) -> list[str]:
    return [KeyFile(path).create(f"{name}{n}", ["viewer"]).text for n in range(5)]


def test_two_who_create_at_once_lose_nothing(path: Path) -> None:
    """Neither processes nor threads: each key that was shown is in the file."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        made = pool.starmap_async(create_some, [(path, name) for name in "abcdef"], chunksize=1).get(60)
    keys = KeyFile(path)
    texts = [text for some in made for text in some]
    assert len(set(texts)) == len(keys.keys()) == 30
    assert all(keys.caller_of(text) is not None for text in texts)


def valid(**changes: object) -> dict[str, object]:
    key = {"id": "0" * 12, "name": "a", "roles": ["admin"], "tenant": "", "created_at": 1.0, "expires_at": None}
    return {**key, "revoked_at": None, "sha256": "0" * 64, **changes}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2, "keys": []}',
        '{"version": 1}',
        '{"version": 1, "keys": {}}',
        json.dumps({"version": 1, "keys": [valid(), valid()]}),
        json.dumps({"version": 1, "keys": [valid(sha256="")]}),
        json.dumps({"version": 1, "keys": [valid(sha256="0" * 64 + "\n")]}),
        json.dumps({"version": 1, "keys": [valid(roles="admin")]}),
        json.dumps({"version": 1, "keys": [valid(tenant=None)]}),
        json.dumps({"version": 1, "keys": [valid(expires_at="never")]}),
        json.dumps({"version": 1, "keys": [valid(expires_at=float("nan"))]}),
        json.dumps({"version": 1, "keys": [valid(revoked=True)]}),
        json.dumps({"version": 1, "keys": [{k: v for k, v in valid().items() if k != "revoked_at"}]}),
        "[" * 100_000,
        "\x00\ud83d",
    ],
    ids=lambda content: f"{content!a:.60}",
)
def test_with_a_damaged_file_nobody_gets_in(path: Path, content: str) -> None:
    """Not those whose keys were read before it was damaged either; and nothing is written over it."""
    keys = KeyFile(path)
    good = keys.create("ann", ["viewer"])
    assert keys.caller_of(good.text) is not None
    before = content.encode("utf-8", "surrogatepass")
    path.write_bytes(before)
    for _ in range(2):
        with pytest.raises(ConfigError, match="nobody gets in"):
            keys.caller_of(good.text)
        with pytest.raises(ConfigError, match="nobody gets in"):
            keys.active(good.key.id)
    with pytest.raises(ConfigError, match="nobody gets in"):
        keys.create("bob", ["admin"])
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_a_damaged_file_does_not_show_its_hashes(path: Path, keys: KeyFile) -> None:
    """The message says what is wrong, and where."""
    made = keys.create("ann", ["viewer"])
    path.write_text(path.read_text().replace(made.key.sha256, made.key.sha256 + "0"))
    with pytest.raises(ConfigError, match=r"keys\.0\.sha256") as caught:
        keys.keys()
    assert made.key.sha256 not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
@pytest.mark.parametrize("mode", [0o622, 0o660, 0o602])
def test_a_file_that_others_may_write_lets_nobody_in(path: Path, keys: KeyFile, mode: int) -> None:
    """They could have put a key of theirs into it."""
    made = keys.create("ann", ["viewer"])
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600"):
        keys.caller_of(made.text)


def test_a_file_that_cannot_be_read_is_no_missing_file(tmp_path: Path) -> None:
    """An open door must not come of a mistake: it is there, and nobody gets in."""
    for odd in (tmp_path, tmp_path / "loop"):
        if odd != tmp_path:
            odd.symlink_to(odd)
        keys = KeyFile(odd)
        assert keys.exists()
        with pytest.raises(ConfigError, match="nobody gets in"):
            keys.keys()


@pytest.mark.parametrize(
    ("name", "roles", "tenant"),
    [("", ["viewer"], ""), ("a b", ["viewer"], ""), ("a\n", ["viewer"], ""), ("a", ["x y"], ""), ("a", [""], ""),
     ("a", ["viewer"], "a\x1b[2J"), ("x" * 200, ["viewer"], "")],
)  # fmt: skip
def test_a_name_that_is_none_is_an_error(keys: KeyFile, path: Path, name: str, roles: list[str], tenant: str) -> None:
    """And makes no file."""
    with pytest.raises(UsageError, match="is no"):
        keys.create(name, roles, tenant=tenant)
    assert not path.exists()


def test_a_key_is_scrubbed_from_recordings(keys: KeyFile) -> None:
    """Wherever it stands it is known for what it is."""
    text = keys.create("ann", ["viewer"]).text
    for value in (text, f"use {text}, please", {"headers": {"x": text}}, json.dumps({"note": text})):
        assert may_hold_credentials(json.dumps(value))
        assert any(one.kind == "an API key of an oao server" for one in find_credentials(value, "req"))
        assert text not in json.dumps(without_credentials(value))
    assert list(find_credentials("oao_runs_total and oao_server", "req")) == []


# The command


@pytest.fixture
def oao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Oao:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OAO_KEYS_FILE", raising=False)

    def run(*args: str) -> Result:
        result = CliRunner(env={"COLUMNS": "120"}).invoke(main, args, prog_name="oao")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_a_key_is_made_listed_and_revoked(oao: Oao, caplog: pytest.LogCaptureFixture) -> None:
    """It stands on standard output alone, once, and in no log."""
    caplog.set_level(logging.DEBUG)
    made = oao("keys", "create", "alice", "--role", "operator", "--role", "manager", "--tenant", "acme")
    text = made.stdout.strip()
    assert made.exit_code == 0
    assert text not in made.stderr
    assert "may: read, run" in made.stderr
    caller = KeyFile(".oao/keys.json").caller_of(text)
    assert caller == Caller.of("alice", ["operator", "manager"], "acme")
    listed = oao("keys", "list")
    for word in ("alice", "operator, manager", "acme", "active", text.split("_")[1]):
        assert word in listed.stdout
    (found,) = json.loads(oao("keys", "list", "--json").stdout)
    assert (found["state"], found["permissions"]) == ("active", ["read", "run"])
    assert found["expires_at"] - found["created_at"] == pytest.approx(90 * 86_400)
    assert "sha256" not in found
    secret = text.rpartition("_")[2]
    revoked = oao("keys", "revoke", text)
    assert "revoked 1 key" in revoked.stdout
    assert KeyFile(".oao/keys.json").caller_of(text) is None
    assert "revoked already" in oao("keys", "revoke", "alice").stdout
    assert secret not in caplog.text + listed.output + revoked.output + json.dumps(found)


def test_a_key_is_made_for_a_script(oao: Oao, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As JSON, in a file of its own; without a role it may only read."""
    monkeypatch.setenv("OAO_KEYS_FILE", str(tmp_path / "mine.json"))
    made = json.loads(oao("keys", "create", "ci", "--expires", "never", "--json").stdout)
    assert (made["roles"], made["permissions"], made["expires_at"]) == (["viewer"], ["read"], None)
    assert KeyFile(tmp_path / "mine.json").caller_of(made["key"]) == Caller.of("ci", ["viewer"])
    assert not (tmp_path / ".oao").exists()
    assert "There are no keys" in oao("keys", "list", "--file", "other.json").stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["create", "a b"], "is no name"),
        (["create", "a", "--expires", "soon"], "--expires 'soon' is no time span"),
        (["create", "a", "--expires", "0d"], "cannot expire"),
        (["revoke", "nobody"], "no key has"),
        (["revoke", "oao_" + "1" * 12 + "_" + "2" * 64], "'111111111111'"),
        (["list", "--file", "."], "cannot be read"),
    ],
)
def test_a_mistake_is_one_line(oao: Oao, args: list[str], said: str) -> None:
    """Exit code 2; a key that was pasted is not said again."""
    result = oao("keys", *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert "2" * 64 not in result.output
