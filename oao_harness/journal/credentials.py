"""Finds what still looks like a credential. Names the place and the kind, never the value."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from oao_hookspecs import Json

__all__ = ["Finding", "find_credentials", "kinds_in", "may_hold_credentials", "without_credentials"]

# Kind, what any of them has in its text (searched first, because that is a hundred times faster), and the shape.
# Lengths and alphabets as the issuers document them; bounded on both sides, so that base64 does not hold one by chance.
_SHAPES: Final = (
    ("an Anthropic API key", ("sk-ant-",), r"(?<![\w-])sk-ant-[A-Za-z0-9_-]{24,}"),
    (
        "an OpenAI API key",
        ("sk-",),
        r"(?<![\w-])sk-(?!ant-)(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}",
    ),
    ("a Stripe key", ("_live_", "_test_"), r"(?<![\w-])[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("a GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"(?<![\w-])gh[pousr]_[A-Za-z0-9]{30,}(?!\w)"),
    ("a GitHub token", ("github_pat_",), r"(?<![\w-])github_pat_[A-Za-z0-9_]{22,}"),
    ("a GitLab token", ("glpat-",), r"(?<![\w-])glpat-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", ("AKIA", "ASIA"), r"(?<![A-Za-z0-9/+_-])A[KS]IA[A-Z2-7]{16}(?![A-Za-z0-9/+_-])"),
    ("a Slack token", ("xox",), r"(?<![\w-])xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    ("a Google API key", ("AIza",), r"(?<![A-Za-z0-9/+_-])AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9/+_-])"),
    ("a Hugging Face token", ("hf_",), r"(?<![\w-])hf_[A-Za-z0-9]{30,}(?!\w)"),
    ("an API key of an oao server", ("oao_",), r"(?<![\w-])oao_[0-9a-f]{12}_[0-9a-f]{64}(?!\w)"),
    (
        "a private key",
        ("PRIVATE KEY",),
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s*[A-Za-z0-9+/=\\\s:,.-]{32,}",
    ),
    (
        "a JSON web token",
        ("eyJ",),
        r"(?<![A-Za-z0-9/+_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}(?![A-Za-z0-9/+_-])",
    ),
)
_BEARER: Final = re.compile(r"(?<!\w)bearer[ \t]+([A-Za-z0-9._~+/-]{16,}=*)", re.IGNORECASE)
_BASIC: Final = re.compile(r"(?<!\w)basic[ \t]+([A-Za-z0-9+/]{8,}={0,2})(?![A-Za-z0-9+/=])", re.IGNORECASE)
_URL: Final = re.compile(
    r"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>`]{0,64}:([^\s/@\"'<>`]{4,128})@[\w.\[-]", re.IGNORECASE
)
_COMPILED: Final = tuple((kind, signs, re.compile(shape)) for kind, signs, shape in _SHAPES)
# As far as a blank, where there is one: they are looked for in words.
_SIGNS: Final = tuple(dict.fromkeys(sign.split()[0] for _, signs, _ in _COMPILED for sign in signs))
_LOWER_SIGNS: Final = ("bearer", "basic")

# Keys whose values are secrets, written in any of the usual ways: apiKey, API-KEY, x-api-key.
_SECRET_KEY: Final = re.compile(
    r"(?:^|_)(?:api_?key|apikey|access_?key|secret_?key|private_?key|secret|client_?secret|password|passwd|passphrase|pwd|"
    r"authorization|auth_?token|access_?token|refresh_?token|bearer_?token|session_?token|id_?token|token|credentials?)$"
)
# What a JSON text has, in lower case, where one of these is a key. With the quote where the word alone is common.
_KEY_SIGNS: Final = (
    *("secret", "passw", "passphrase", "pwd", "authorization", "credential", "apikey", "api_key", "api-key"),
    *('_key"', '-key"', 'accesskey"', 'privatekey"', 'token"', 'token\\"', 'key\\"'),
)
# What a person writes where a secret would be.
_PLACEHOLDER: Final = re.compile(
    r"^(?:<.*>|\$\{?\w+\}?|\{+.*\}+|\[.*\]|\*+|x{4,}|\.{3,}"
    r"|.*(?:redacted|example|placeholder|your[-_ ]|changeme|dummy|fake).*)$",
    re.IGNORECASE,
)
_SIMPLE_PASSWORD: Final = re.compile(
    r"(?:pass(?:word|wd)?|pwd|secret|user|admin|root|postgres|test|guest|port|\d+)\d*", re.IGNORECASE
)
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{8,}", re.ASCII)
_LEAST_BITS: Final = 3.0
"""Per character; a random text of 16 letters and digits has about 3.7, a word about 2.5."""
_LEAST_BITS_OF_LETTERS: Final = 4.0
_LEAST_TOTAL_BITS: Final = 34.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that looks like a credential."""

    kind: str
    """With its article: `an AWS access key`."""
    path: str
    """Where it stands: `req.headers.authorization`."""


def may_hold_credentials(text: str) -> bool:
    """Return False where a JSON text cannot hold any: a fast look at the whole, before the slow one at each value."""
    # Each word once, because a conversation has few that are new: looking for each sign takes as long as the text is.
    words = "\n".join(set(text.split()))
    if any(sign in words for sign in _SIGNS) or "://" in words:
        return True
    lower = words.lower()
    return any(sign in lower for sign in (*_LOWER_SIGNS, *_KEY_SIGNS))


def kinds_in(text: str) -> Iterator[str]:
    """Yield the kinds of credentials that a text looks like it holds."""
    for kind, signs, shape in _COMPILED:
        if any(sign in text for sign in signs) and any(not _is_placeholder(found[0]) for found in shape.finditer(text)):
            yield kind
    lower = text.lower() if len(text) < 1_000_000 else text
    if "bearer" in lower and any(_is_random(found[1]) for found in _BEARER.finditer(text)):
        yield "a bearer token"
    if "basic" in lower and any(_is_user_and_password(found[1]) for found in _BASIC.finditer(text)):
        yield "a user name with its password (basic authorization)"
    if "://" in text and any(_is_password(found[1]) for found in _URL.finditer(text)):
        yield "a password in a URL"


def find_credentials(value: Json, path: str) -> Iterator[Finding]:
    """Yield what looks like a credential inside of a value, in its keys too.

    Args:
        value: Any JSON.
        path: Of the value.
    """
    yield from _walk(value, path, "")


def without_credentials(value: Json, key: str = "") -> Json:
    """Return a value with `<redacted: an AWS access key>` for each text that `find_credentials` would find.

    Args:
        value: Any JSON.
        key: What it stands under.
    """
    if isinstance(value, str):
        found = next(_walk(value, "", key), None)
        return value if found is None else f"<redacted: {found.kind}>"
    if isinstance(value, Mapping):
        kinds = {name: next(kinds_in(name), None) for name in value}
        return {
            name if kinds[name] is None else f"<redacted: {kinds[name]}>": without_credentials(item, name)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_credentials(item, key) for item in value]
    return value


def _walk(value: Json, path: str, key: str) -> Iterator[Finding]:
    if isinstance(value, str):
        kinds = list(kinds_in(value))
        if not kinds and key and _is_secret_key(key) and _is_secret_value(value):
            kinds = [f"a secret under the key {key!r}"]
        yield from (Finding(kind=kind, path=path) for kind in kinds)
        if value[:1] in {"{", "["} and len(value) < 100_000:
            yield from _walk_inner(value, path)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (Finding(kind=kind, path=f"{path} (a key)") for kind in kinds_in(name))
            yield from _walk(item, f"{path}.{name}" if path else name, name)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]", key)


def _walk_inner(text: str, path: str) -> Iterator[Finding]:
    """Yield what stands under a secret key in JSON that is a text: how models write the arguments of a tool."""
    lower = text.lower()
    if not any(sign in lower for sign in _KEY_SIGNS):
        return
    try:
        inner: object = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(inner, dict | list):
        for found in _walk(cast("Json", inner), path, ""):
            if found.kind.startswith("a secret under"):
                yield found


def _is_secret_key(key: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()
    return _SECRET_KEY.search(words) is not None


def _is_secret_value(text: str) -> bool:
    value = text.partition(" ")[2] if text.lower().startswith(("bearer ", "basic ", "token ")) else text
    return _is_random(value)


def _is_placeholder(text: str) -> bool:
    return _PLACEHOLDER.match(text) is not None or len(set(text[-12:])) < 4


def _is_password(text: str) -> bool:
    """Return False for what stands in examples and in the containers of tests."""
    return not _is_placeholder(text) and _SIMPLE_PASSWORD.fullmatch(text) is None


def _is_random(text: str) -> bool:
    """Return True for one word without a pattern: long enough, of mixed characters, of high entropy."""
    if not _TOKEN.fullmatch(text) or _is_placeholder(text) or _UUID.fullmatch(text) or "<env:" in text:
        return False
    bits = -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
    if bits < _LEAST_BITS or bits * len(text) < _LEAST_TOTAL_BITS:
        return False
    digits, lower, upper = (any(map(test, text)) for test in (str.isdigit, str.islower, str.isupper))
    # Without digits it may be words joined in any of the usual ways, unless it is long and mixed.
    return (digits and (lower or upper)) or (lower and upper and bits >= _LEAST_BITS_OF_LETTERS)


def _is_user_and_password(text: str) -> bool:
    try:
        plain = base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return False
    user, colon, password = plain.partition(":")
    return bool(colon and password) and plain.isprintable() and not _is_placeholder(password) and bool(user or password)
