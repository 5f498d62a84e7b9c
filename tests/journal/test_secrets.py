"""Recordings are safe to commit: secrets are replaced, and what still looks like one is not saved."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oao_harness import RecordingError
from oao_harness.journal.credentials import find_credentials, may_hold_credentials
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from oao_harness.journal.secrets import Redaction, Scrubber, scrub
from oao_hookspecs import ErrorInfo, Json

SECRET = "hunter2-is-long"
ENV = {"SHOP_API_KEY": SECRET, "HOME": "/home/someone", "SHORT_TOKEN": "abc"}


def event(value: Json = None, *, kind: str = "tool", **request: Json) -> RecordedEvent:
    return RecordedEvent(
        n=1, kind=kind, name="login", run="", start=1, end=2, request=request, key="stale", value=value
    )


@pytest.mark.parametrize(
    "secret",
    [
        SECRET,
        "-----BEGIN KEY-----\nabcdefghijk\n-----END KEY-----",
        "p\u00e4ssw\u00f6rt-geheim",
        'a"b\\cdefgh',
        "a/b+c=d&e f",
    ],
)
@pytest.mark.parametrize("spelled", ["plain", "json", "ascii", "url", "base64", "urlsafe", "basic", "json in json"])
def test_a_secret_of_the_environment_is_replaced_in_every_spelling(tmp_path: Path, secret: str, spelled: str) -> None:
    """In prompts, results, errors, keys, the header: wherever it stands, however it is written."""
    texts = {
        "plain": secret,
        "json": json.dumps({"token": secret}, ensure_ascii=False),
        "ascii": json.dumps({"token": secret}),
        "url": f"https://x.test/?q={quote(secret, safe='')}&r=1",
        "base64": base64.b64encode(secret.encode()).decode(),
        "urlsafe": base64.urlsafe_b64encode(secret.encode()).decode(),
        "basic": "Basic " + base64.b64encode(f"me:{secret}".encode()).decode(),
        "json in json": json.dumps({"arguments": json.dumps({"token": secret})}),
    }
    text = texts[spelled]
    scrubber = Scrubber.of({"SHOP_PRIVATE_KEY": secret})
    whole = Recording(
        header={"host": text},
        events=(
            event({"said": text, text: [text]}, prompt=text),
            RecordedEvent(
                n=2,
                kind="model",
                name="gpt",
                run="",
                start=3,
                end=4,
                request={"messages": [{"role": "user", "content": f"it is {text}."}]},
                key="",
                error=ErrorInfo(type="builtins:ValueError", message=text, data={"args": [text]}),
            ),
        ),
    )
    whole.save(tmp_path / "x.oao.json", scrubber=scrubber)

    written = (tmp_path / "x.oao.json").read_text()
    loaded = Recording.load(tmp_path / "x.oao.json")
    assert written.count("<env:SHOP_PRIVATE_KEY>") >= 8
    assert text not in json.dumps([loaded.to_json()], ensure_ascii=False)
    for core in (secret, secret.split("\n")[-1], json.dumps(secret)[1:-1]):
        assert core not in written
    # A live request is changed alike, and so it is found.
    for recorded, live in zip(loaded.events, whole.events, strict=True):
        scrubbed = scrubber.request(live.kind, live.name, live.request)
        assert recorded.request == scrubbed
        assert recorded.key == key_of(live.kind, live.name, scrubbed)
    assert [e.key for e in whole.scrubbed(scrubber).events] == [e.key for e in loaded.events]


def test_only_long_values_of_telling_names_are_secrets() -> None:
    """A home folder is none, nor is a value of three letters."""
    value: Json = {"text": f"/home/someone abc {SECRET}"}

    assert Scrubber.of(ENV).scrub(value) == {"text": "/home/someone abc <env:SHOP_API_KEY>"}
    untouched: Json = {"text": "/home/someone abc"}
    assert Scrubber.of(ENV).scrub(untouched) is untouched


def test_the_longer_secret_is_replaced_first() -> None:
    """One may be the beginning of another."""
    scrubber = Scrubber.of({"A_KEY": "abcdefgh", "B_TOKEN": "abcdefgh-ijkl"})

    assert scrubber.scrub("abcdefgh-ijkl abcdefgh") == "<env:B_TOKEN> <env:A_KEY>"


def test_the_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving takes it as it is then; so does `scrub`."""
    monkeypatch.setenv("SHOP_API_KEY", SECRET)
    Recording(events=(event(SECRET),)).save(tmp_path / "x.oao.json")

    assert Recording.load(tmp_path / "x.oao.json").events[0].value == "<env:SHOP_API_KEY>"
    assert scrub([SECRET]) == ["<env:SHOP_API_KEY>"]


def test_bytes_stay_bytes() -> None:
    """A secret inside of binary content is replaced there, and it still decodes."""
    coded = base64.b64encode(b"\x01\x02" + SECRET.encode() + b"\x03").decode()

    scrubbed = cast("dict[str, str]", Scrubber.of(ENV).scrub({"$oao": "bytes", "value": coded}))

    assert base64.b64decode(scrubbed["value"]) == b"\x01\x02<env:SHOP_API_KEY>\x03"


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values, st.text('0123456789+/"\\\n\u00e4', min_size=8, max_size=20), st.text(), st.text())
def test_scrubbing_leaves_no_secret_and_is_done_once(value: Json, secret: str, before: str, after: str) -> None:
    """Twice is once."""
    scrubber = Scrubber.of({"X_TOKEN": secret})
    given_: Json = [value, before + secret + after]

    once = scrubber.scrub(given_)

    assert secret not in cast("list[str]", once)[1]
    assert "<env:X_TOKEN>" in cast("list[str]", once)[1]
    assert scrubber.scrub(once) == once


def test_declared_patterns_and_paths_are_redacted() -> None:
    """By shape, by group, and by place; keys follow what is left."""
    redact = Redaction(
        patterns=(re.compile(r"\b\d{16}\b"), re.compile(r"pin (\d+)")),
        paths=(("tool", "*", "req", "password"), ("tool", "login", "res", "**", "ssn"), ("**", "error", "args", "*")),
    )
    scrubber = Scrubber.of({}, redact)
    asked = event({"list": [{"ssn": "1", "n": 2}], "card": "4111111111111111"}, password="p", text="my pin 1234!")
    failed = event()
    failed = RecordedEvent(
        **{
            **{f: getattr(failed, f) for f in failed.__slots__},
            "error": ErrorInfo(type="t", message="m", data={"args": ["a"]}),
        }
    )

    one, other = scrubber.events([asked, failed])

    assert one.request == {"password": "<redacted>", "text": "my pin <redacted>!"}
    assert one.value == {"list": [{"ssn": "<redacted>", "n": 2}], "card": "<redacted>"}
    assert one.key == key_of("tool", "login", one.request)
    assert scrubber.request("tool", "login", asked.request) == one.request
    assert other.error is not None
    assert other.error.data == {"args": ["<redacted>"]}


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Put together here, so that no scanner takes this file for a leak.
CREDENTIALS = {
    "anthropic": "sk-" + "ant-api03-" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z-_AAA",
    "openai": "sk-" + "proj-" + "Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78",
    "openai old": "sk-" + "Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr78St90Uv12Wx34",
    "stripe": "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc",
    "github": "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
    "github fine": "github_pat_11ABCDEFG0abcdefghijkl_0123456789abcdefghijABCDEFGHIJ0123456789abcdefghijABCDEFGHI",
    "gitlab": "glpat-" + "Ab12Cd34Ef56Gh78Ij90",
    "aws": "AKIA" + "IOSFODNN7QW3RTZU",
    "slack": "xoxb-" + "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
    "google": "AIza" + "SyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    "hugging face": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq+Zp3fV1k0x9y8w7v6u5t4s3r2q1\n-----END",
    "jwt": "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "bearer": "Authorization: Bearer " + "a8F3kd92LmQx71ZbV0pT",
    "basic": "Basic " + b64("admin:x9!kQ2vv"),
    "url": "postgres://shop:" + "x9kQ2vvT@db.internal:5432/shop",
}


@pytest.mark.parametrize("text", CREDENTIALS.values(), ids=list(CREDENTIALS))
@pytest.mark.parametrize("around", ["{}", "key={}, and more", '{{"k": "{}"}}', "\n{}\n"])
def test_well_known_credentials_are_not_saved(tmp_path: Path, text: str, around: str) -> None:
    """The message names file, place and kind, and what to do; never the value."""
    path = tmp_path / "x.oao.json"
    said = around.format(text)

    with pytest.raises(
        RecordingError, match=r"x.oao.json' would hold .* in event 1 \(tool login\), res.said\[0\]"
    ) as e:
        Recording(events=(event({"said": [said]}),)).save(path, scrubber=Scrubber.of({}))

    assert text[-12:] not in str(e.value)
    assert "[tool.oao.redact]" in str(e.value)
    assert not path.exists()


@pytest.mark.parametrize(
    "key",
    ["api_key", "apiKey", "X-Api-Key", "password", "client_secret", "Authorization", "accessToken", "DB_PASSWORD"],
)
def test_a_random_text_under_a_telling_key_is_not_saved(key: str) -> None:
    """Also in JSON that is a text, as models write the arguments of a tool."""
    value = "q8Zr2LmX0vTb4KwP"

    for held in ({key: value}, {"arguments": json.dumps({key: value})}, {"headers": [{key: f"Token {value}"}]}):
        assert [found.kind for found in find_credentials(cast("Json", held), "res")] == [
            f"a secret under the key {key!r}"
        ]
        assert may_hold_credentials(json.dumps(held))


@pytest.mark.parametrize(
    "value",
    [
        {"image": base64.b64encode(bytes(range(256)) * 12).decode()},
        {"sha": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        {"id": "call_AbCdEf0123456789GhIjKlMn", "tool_call_id": "toolu_01A09q90qw90lq917835lq9"},
        {"id": "chatcmpl-9XyZ0123456789abcdefABCDEF", "system_fingerprint": "fp_44709d6fcb"},
        {"key": "9c2f61d0b7aa0c77", "request_id": "req_7f3k2m9x8v1z"},
        {"uuid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "session_token": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
        {"password": "<redacted>", "api_key": "<env:SHOP_API_KEY>", "token": "your-token-here", "secret": "hunter2"},
        {"password": {"type": "string", "description": "the user's password"}},
        {"authorization": "Bearer <env:SHOP_API_KEY>", "tokens": 123456789, "max_tokens": "123456789012"},
        {"text": "use sk-... as your key, e.g. sk-your-key-here-please-and-thank-you"},
        {"text": "the task-based, risk-averse-but-long-hyphenated-word-list is basic knowledge"},
        {"url": "http://localhost:8000/a@b", "db": "postgres://postgres:postgres@localhost/x"},
        {"text": "bearer of bad news; Basic authentication is described in RFC 7617"},
        {"encrypted_content": "gAAAAABo" + "Ab12Cd34" * 40},
        {"signature": "EqQBCgIYAhIM1gbcDa9GJwZA2b3hGgxBdjrkzLoky3dl1pkiMOYds" * 4},
    ],
)
def test_what_only_looks_odd_is_saved(tmp_path: Path, value: Json) -> None:
    """Images, hashes, ids, schemas, placeholders and prose."""
    assert list(find_credentials(value, "res")) == []
    Recording(events=(event(value),)).save(tmp_path / "x.oao.json", scrubber=Scrubber.of({}))
