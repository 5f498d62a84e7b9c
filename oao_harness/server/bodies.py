"""How the bodies of requests are read: strict JSON, or a 422 that says what is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

__all__ = ["StrictRoute"]

_MANY_DIGITS: Final = re.compile(rb"[0-9]{300}")
_MOST_BITS: Final = 1024


class _Strict(Request):
    """A request whose JSON has no lone surrogates, no infinities, no endless numbers, and is not nested too deep."""

    async def json(self) -> Any:
        """Return the body.

        Raises:
            JSONDecodeError: It is no such JSON.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                found = from_json(body, allow_inf_nan=False, cache_strings="keys")
            except ValueError as error:
                raise json.JSONDecodeError(str(error), "", 0) from None
            if _MANY_DIGITS.search(body) and _is_endless(found):
                raise json.JSONDecodeError("a number has too many digits", "", 0)
            self._json = found
        return self._json


class StrictRoute(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route, given a strict request."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_Strict(request.scope, request.receive))

        return strict


def _is_endless(value: object) -> bool:
    if isinstance(value, dict):
        return any(_is_endless(one) for one in cast("dict[str, object]", value).values())
    if isinstance(value, list):
        return any(_is_endless(one) for one in cast("list[object]", value))
    return isinstance(value, int) and value.bit_length() > _MOST_BITS
