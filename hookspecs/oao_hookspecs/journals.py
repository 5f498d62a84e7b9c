"""A journal as bytes: the line of a record, and the chain of hashes that ties each one to all before it. Pure.

```text
digest(n) = SHA-256 of the line of record n, 64 hex digits
hash(n)   = SHA-256 of hash(n - 1) + digest(n); hash(0) is the empty text
```

A store keeps each record with its `hash` as the last field. Where a record was redacted, `redacted` holds the digest
of what stood there, so that the chain goes on over it; a later record `redaction` says what was put in its place.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from oao_hookspecs.calls import Json
    from oao_hookspecs.interfaces import Record

__all__ = ["chained", "digest_of", "line_of", "link", "tenant_of", "without_hash"]

_dump: Final = json.JSONEncoder(separators=(",", ":")).encode


def line_of(record: Record) -> str:
    """Return a record as one line: JSON in ASCII without spaces, fields in their order.

    ASCII, because a model's answer may hold half of a surrogate pair, which UTF-8 cannot.

    Raises:
        TypeError: It holds something that is no JSON.
    """
    return _dump(record)


def digest_of(record: Record) -> str:
    """Return the SHA-256 of a record's line without its hash, 64 hex digits."""
    return hashlib.sha256(line_of(without_hash(record)).encode("ascii")).hexdigest()


def link(previous: str, digest: str) -> str:
    """Return the hash of a record.

    Args:
        previous: Hash of the record before it; empty for the first one.
        digest: Of the record, or of what stood there before it was redacted.
    """
    return hashlib.sha256((previous + digest).encode("ascii")).hexdigest()


def chained(previous: str, record: Record) -> tuple[str, str]:
    """Return a record's line with its hash as last field, and that hash.

    Args:
        previous: Hash of the record before it; empty for the first one.
        record: Without a hash.
    """
    line = line_of(record)
    digest = hashlib.sha256(line.encode("ascii")).hexdigest()
    hashed = link(previous, digest)
    return f'{line[:-1]},"hash":"{hashed}"}}', hashed


def without_hash(record: Record) -> Mapping[str, Json]:
    """Return a record as it was handed to its store."""
    return {key: value for key, value in record.items() if key != "hash"} if "hash" in record else record


def tenant_of(started: Record) -> str:
    """Return whose run a journal is of, "" for nobody's.

    What `tenant` says, else the tenant of the job, else that of the principal.

    Args:
        started: The run's first record.
    """
    said = started.get("tenant")
    if isinstance(said, str):
        return said
    for field in ("job", "principal"):
        found = started.get(field)
        tenant = found.get("tenant") if isinstance(found, Mapping) else None
        if isinstance(tenant, str) and tenant:
            return tenant
    return ""
