"""What may stand in a queue: plain values of a known shape. Owns the check of every entry before Docket reads it.

Docket reads entries with cloudpickle, so that whoever writes to the queue could run code in each worker; one it cannot
read ends the worker, and the next one. So no entry reaches it that was not read here: by an unpickler that knows no
class and no function. The very bytes that were checked are what Docket reads afterwards.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from urllib.parse import quote, unquote

from oao_hookspecs.schedulers import Job

__all__ = ["SAFEGUARD", "TASK", "Checked", "arguments_of", "checked", "id_of", "key_of"]

TASK: Final = "oao_job"
"""The one name that a job has: a worker drops names it does not know, so it must never change."""
SAFEGUARD: Final = "_safeguard_wake"
"""Docket's own: wakes jobs that wait for a limit whose holders died."""

_FIELDS: Final = (b"key", b"when", b"function", b"args", b"kwargs", b"attempt", b"generation")
_ARGUMENTS: Final[Mapping[str, Mapping[str, type]]] = {
    TASK: {"execution_id": str, "agent": str, "tenant": str, "nested": bool, "priority": str},
    SAFEGUARD: {"waiter_stream": str, "max_concurrent": int},
}
_LARGEST: Final = 100_000
"""Bytes of one field: ids and names, nothing else."""


_OPCODES: Final = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "BINGET", "LONG_BINGET", "EMPTY_TUPLE", "EMPTY_DICT", "SETITEM"}
    | {"SETITEMS", "SHORT_BINUNICODE", "BINUNICODE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"}
)
"""What a dict of text, numbers and truth values is written with. Not PUT: its argument alone can ask for 30 GB."""


class _Plain(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed in a queue")

    def persistent_load(self, pid: Any, /) -> Any:
        raise pickle.UnpicklingError("a persistent id is not allowed in a queue")


def _load(data: bytes) -> Any:
    if len(data) > _LARGEST:
        raise ValueError(f"{len(data)} bytes are too many")
    if odd := {opcode.name for opcode, _, _ in pickletools.genops(data)} - _OPCODES:
        raise ValueError(f"it holds more than plain values ({', '.join(sorted(odd))})")
    return _Plain(io.BytesIO(data)).load()


def key_of(execution_id: str) -> str:
    """Return the key of a run's job: any id as plain ASCII, and apart from the other keys of the queue."""
    return "job:" + quote(execution_id, safe="", errors="surrogatepass")


def id_of(key: str) -> str:
    """Return the id of the run whose job has this key."""
    return unquote(key.removeprefix("job:"), errors="surrogatepass")


def arguments_of(job: Job) -> dict[str, str | bool]:
    """Return what a job's entry carries: only what limits count by. What is to be done is in the run's journal."""
    return {
        "execution_id": key_of(job.execution_id),
        "agent": quote(job.agent, safe="", errors="surrogatepass"),
        "tenant": quote(job.tenant, safe="", errors="surrogatepass"),
        "nested": job.nested,
        "priority": job.priority,
    }


class Checked(NamedTuple):
    """An entry that Docket may read."""

    id: bytes
    """Its place in the stream."""
    fields: dict[bytes, bytes]
    """Those that are known, and no more."""
    task: str
    """Its name."""
    arguments: dict[str, Any]
    """What the task is called with."""


def checked(id_: bytes, fields: Mapping[bytes, bytes], prefix: str) -> Checked:
    """Return an entry as Docket may read it.

    Args:
        id_: Its place in the stream.
        fields: As they stand in the queue.
        prefix: What the fleet's keys begin with.

    Raises:
        ValueError: The entry is none of ours; it must not be read.
    """
    try:
        entry = {name: fields[name] for name in _FIELDS}
        name, key = entry[b"function"].decode(), entry[b"key"].decode()
        if datetime.fromisoformat(entry[b"when"].decode()).tzinfo is None:
            raise ValueError("its time has no zone")
        if int(entry[b"attempt"]) < 1 or int(entry[b"generation"]) < 0:
            raise ValueError("it counts below zero")
        if not name.isidentifier() or name not in _ARGUMENTS:
            raise ValueError(f"no task is named {name[:60]!r}")
        if _load(entry[b"args"]) != ():
            raise ValueError("it has positional arguments")
        found = _load(entry[b"kwargs"])
        if type(found) is not dict:
            raise ValueError("it has no named arguments")
        named = cast("dict[object, object]", found)
        if {argument: type(value) for argument, value in named.items()} != _ARGUMENTS[name]:
            raise ValueError("its arguments are not those of a job")
        if name == TASK and named["execution_id"] != key:
            raise ValueError("its key is another job's")
        if name == SAFEGUARD and not str(named["waiter_stream"]).startswith(f"{prefix}:concurrency:"):
            raise ValueError("it wakes what is no limit's")
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return Checked(id_, entry, name, cast("dict[str, Any]", named))
