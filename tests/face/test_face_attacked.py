"""Attacks on what a replay promises not to do for real, and on what must never be on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ONLINE = """
import socket

def online():
    if not LIVE:
        return
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            CALL
    except BaseException:
        pass

def test_refund():
    FIRST
    agent("order 123")
    SECOND
"""


@pytest.mark.parametrize(
    "call",
    [
        "sock.sendmsg([b'x'], [], 0, ('192.0.2.1', 9))",
        "socket.gethostbyname('example.invalid')",
        "socket.gethostbyname_ex('example.invalid')",
        "socket.gethostbyaddr('192.0.2.1')",
    ],
)
def test_no_way_around_the_closed_network(recorded: Any, call: str) -> None:
    """A datagram or a look-up tells a name server, or anybody, what the test is about."""
    test = ONLINE.replace("CALL", call).replace("FIRST", "pass").replace("SECOND", "online()")
    recorded.write(test="\nLIVE = True" + test)

    result = recorded.run("--oao-record=none")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["network: connect to * during replay (loopback)"])


def test_the_network_is_closed_before_the_first_call_too(recorded: Any) -> None:
    """Where there is a recording, the body of the test is a replay from its first line."""
    call = "socket.create_connection(('192.0.2.1', 80), timeout=1)"
    test = ONLINE.replace("CALL", call).replace("FIRST", "online()").replace("SECOND", "pass")
    recorded.write(test="\nLIVE = True" + test)

    result = recorded.run("--oao-record=none")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["network: connect to 192.0.2.1:80 during replay (loopback)"])


def _on_disk(folder: Path, secret: str) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    return [str(path) for path in files if secret in path.name or secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("ending", ["", "\n    raise ValueError('failed')", "\n    os._exit(9)"])
def test_what_looks_like_a_credential_is_in_no_attempt(shop: Any, ending: str) -> None:
    """The attempt that was refused, failed or crashed is kept; the rest of what it says is there."""
    key = "AKIA" + "Q3EGVLXPRTYMZK7D"
    shop.write(('{"paid": 49.99}', '{"paid": 49.99, "note": "use " + "AKIA" + "Q3EGVLXPRTYMZK7D"}'))
    source = (shop.path / "test_shop.py").read_text()
    (shop.path / "test_shop.py").write_text(source + ending)

    shop.run_alone("--oao-record=once")

    assert _on_disk(shop.path, key) == []
    attempts = list((shop.path / ".oao").rglob("*.jsonl"))
    records = [json.loads(line)["record"] for line in attempts[0].read_text().splitlines()]
    found = next(one["res"] for one in records if one["type"] == "outcome" and "paid" in str(one["res"]))
    assert found == {"paid": 49.99, "note": "<redacted: an AWS access key>"}


def test_a_secret_in_the_id_of_a_test_is_in_no_file_name(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its recording is played, also where the secret is another one."""
    monkeypatch.setenv("SHOP_API_KEY", "zz11223344556677")
    test = "\n@pytest.mark.parametrize('key', [os.environ['SHOP_API_KEY']])\ndef test_refund(key):\n    agent(key)\n"
    shop.write(test=test)
    shop.record()
    assert _on_disk(shop.path, "zz11223344556677") == []

    shop.run("--oao-record=none").assert_outcomes(passed=1)
    monkeypatch.setenv("SHOP_API_KEY", "yy99887766554433")
    shop.run("--oao-record=none").assert_outcomes(passed=1)


def test_a_crashed_attempt_outlives_the_next_one(shop: Any) -> None:
    """What a killed process had paid for is not overwritten by trying again."""
    source = (shop.path / "test_shop.py").read_text()
    (shop.path / "test_shop.py").write_text(source + "    os._exit(9)\n")
    shop.run_alone("--oao-record=once")
    (shop.path / "test_shop.py").write_text(source)

    shop.run_alone("--oao-record=once").assert_outcomes(passed=1)

    left = list((shop.path / ".oao").rglob("*.jsonl"))
    assert [path.parent.name for path in left] == ["failed"]
    assert "refunded 49.99" in left[0].read_text()
