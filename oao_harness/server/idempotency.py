"""The same request twice is one run: the id of the run is made of the Idempotency-Key, and the journal is the memory.

No table: a key holds as long as the run that it has started is in the store, also over a restart, in any process.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from oao_harness.errors import BusyError, FencedError
from oao_harness.server.callers import Caller
from oao_harness.server.core import Core
from oao_harness.server.refusals import InProgress, KeyReused
from oao_hookspecs import Json, Record

__all__ = ["Idempotent", "Repeated", "Request"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that has an Idempotency-Key."""

    execution_id: str
    """Of the run that it starts."""
    digest: str
    """Of what is asked for: 64 hex digits."""

    @classmethod
    def of(cls, caller: Caller, route: str, key: str, body: object) -> Request:
        """Return a request.

        Args:
            caller: Two callers may use one key for two requests.
            route: What is asked for, with the ids in it.
            key: The key.
            body: What is asked for, as JSON.
        """
        return cls(execution_id=_id_of(["key", caller.tenant, caller.id, route, key]), digest=_digest([route, body]))

    def part(self, name: str) -> Request:
        """Return a part of a request that starts several runs."""
        return Request(execution_id=_id_of(["part", self.execution_id, name]), digest=self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """A request that was made before."""

    execution_id: str
    records: list[Record]


class Idempotent(Core):
    """The part of the service that knows whether a request was made before."""

    _begun: set[str] | None = None

    async def repeated(self, request: Request) -> Repeated | None:
        """Return the run that a request has started before; None where it is new.

        Raises:
            KeyReused: The key was used for something else.
        """
        records = await self.asked(lambda: list(self.store.read(request.execution_id)))
        if not records:
            return None
        first = records[0]
        origin = cast("Mapping[str, Json]", first.get("origin") or {})
        forked = cast("Mapping[str, Json]", first.get("forked") or {})
        if (forked or origin).get("request") != request.digest:
            raise KeyReused("this Idempotency-Key was used for another request; take a new one")
        return Repeated(execution_id=request.execution_id, records=records)

    @contextmanager
    def only_one(self, execution_id: str) -> Generator[None]:
        """Let one request at a time begin a run.

        Raises:
            InProgress: Another one is at it.
        """
        begun = self._begun = set() if self._begun is None else self._begun
        if execution_id in begun:
            raise InProgress(f"run {execution_id} is at work on this very request")
        begun.add(execution_id)
        try:
            yield
        finally:
            begun.discard(execution_id)

    @contextmanager
    def no_other_writer(self, request: Request | None) -> Generator[None]:
        """Tell a request with a key that the same one is at work in another process.

        Raises:
            InProgress: It is; asked again, it is answered with the report.
        """
        try:
            yield
        except (BusyError, FencedError) as error:
            if request is None:
                raise
            raise InProgress(f"run {request.execution_id} is at work on this very request") from error


def _id_of(parts: list[str]) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256(json.dumps(parts).encode()).digest()[:16], version=4))


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
