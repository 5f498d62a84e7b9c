"""Puts the server together: service, routes, middleware, lifespan. Only wiring."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from oao_harness.fleet.agents import Agents
from oao_harness.server.assets import add_docs
from oao_harness.server.dashboard.routes import add_dashboard
from oao_harness.server.guarding import guard
from oao_harness.server.problems import Problem, add_handlers
from oao_harness.server.routes import approvals, jobs, login, operations, policies, runs, streams
from oao_harness.server.service import Service
from oao_harness.server.settings import Settings
from oao_harness.server.tracing import REQUESTS, begin_tracing

__all__ = ["create_app"]

_log: Final = logging.getLogger(__name__)

_ROUTERS: Final = tuple(room.router for room in (runs, approvals, policies, jobs, streams, operations, login))
_ABOUT: Final = (
    "Runs registered agents under governance: every model call and every tool call passes one gate, which asks the "
    "policies, writes the journal, and only then acts. Every error is a problem document (RFC 9457)."
)


def create_app(settings: Settings | None = None, agents: Agents | None = None) -> FastAPI:
    """Return the server as an ASGI application.

    Args:
        settings: What it is told; `Settings.load()` by default.
        agents: What it may run; by default the agents of the installed packages and of the project.

    Raises:
        ConfigError: A setting, a URL or a registration is wrong.
        StoreError: The store cannot be opened.
    """
    service = Service(settings or Settings.load(), agents)
    app = FastAPI(
        title="oao",
        version=version("oao-harness"),
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        telemetry=REQUESTS,
    )
    app.state.service = service
    add_handlers(app)
    guard(app, service.settings)
    for router in _ROUTERS:
        app.include_router(router)
    add_docs(app)
    add_dashboard(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    service: Service = app.state.service
    begin_tracing()
    await service.start()
    with _Signals(service.begin_stop):
        yield
    await service.stop()
    app.state.authenticator.close()


class _Signals:
    """Tells the service of SIGTERM and SIGINT as they come.

    A web server ends its lifespan only after every open request, and streams and hanging runs end only when they are
    told to.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for one in (signal.SIGTERM, signal.SIGINT):
            self._before[one] = signal.getsignal(one)
            signal.signal(one, self._came)

    def _came(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(number)
        if callable(before):
            before(number, frame)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told)

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            if signal.getsignal(number) == self._came:
                signal.signal(number, before)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the one schema that only errors have."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        nested = schema.pop("$defs", {})
        components = found.setdefault("components", {})
        components.setdefault("schemas", {}).update({**nested, "Problem": schema})
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "An API key (`oao keys`), or a JWT."},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
        }
        # The empty one: a server without a key lets in whoever is on its machine.
        found["security"] = [{"bearer": []}, {"key": []}, {}]
        app.openapi_schema = found
    return app.openapi_schema
