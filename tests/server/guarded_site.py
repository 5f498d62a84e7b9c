"""A server with keys on a free port, every route that it has, and what each needs to be asked at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import Mount, Route

from oao_harness import tool
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.server import Settings, create_app
from oao_harness.server.keys import KeyFile
from tests.server.serving import serving

PAGE = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}
"""What a browser sends with an action of one of our own pages."""
DESK = '[tools]\nallow = ["look"]\nask = ["pay"]\n'


@dataclass(frozen=True)
class Asked:
    """How a route is asked so that nothing but the caller can be wrong."""

    json: object = None
    form: Mapping[str, str] | None = None
    query: Mapping[str, str] = field(default_factory=dict)


# A route that is not here is asked without a body and without a query.
ASKED: Mapping[tuple[str, str], Asked] = {
    ("POST", "/run"): Asked(json={"agent": "echo", "task": "own"}),
    ("POST", "/run-multi"): Asked(json={"agents": ["echo"], "task": "own"}),
    ("POST", "/jobs"): Asked(json={"agent": "echo", "task": "own"}),
    ("POST", "/policy/diff"): Asked(json={"before": ["standard"], "after": ["strict"]}),
    ("POST", "/doubts/{execution_id}/{n}/resolve"): Asked(json={"landed": False}),
    ("POST", "/runs/{execution_id}/fork"): Asked(json={"at": 1}),
    ("GET", "/policies/coverage"): Asked(query={"policy": "{desk}"}),
    ("GET", "/ui/policies/coverage"): Asked(query={"policy": "{desk}"}),
    ("GET", "/ui/runs/{execution_id}/diff"): Asked(query={"other": "{other}"}),
    ("POST", "/ui/approvals/{id_}"): Asked(form={"verdict": "approve"}),
    ("POST", "/ui/doubts/{execution_id}/{n}"): Asked(form={"landed": "no"}),
    ("POST", "/ui/runs"): Asked(form={"agent": "echo", "task": "own"}),
    ("POST", "/ui/runs/{execution_id}/fork"): Asked(form={"at": "1"}),
    ("POST", "/ui/policies/diff"): Asked(form={"before": "standard", "after": "strict"}),
    ("POST", "/login"): Asked(form={"key": "none"}),
    ("POST", "/logout"): Asked(form={}),
}


@tool(effect="pure")
def look(what: str) -> str:
    """Look something up."""
    return f"seen {what}"


@tool(effect="once")
def pay(amount: str) -> str:
    """Send money."""
    return f"paid {amount}"


async def echo(task: object) -> object:
    return task


def payer(task: str) -> str:
    look(task)
    return pay(task)


class Site:
    """The server, and clients of it by who they are."""

    def __init__(self, url: str, app: Any, keys: KeyFile, folder: Path) -> None:
        self.url, self.app, self.keys, self.folder = url, app, keys, folder
        self.gate = threading.Event()
        self._clients: list[httpx.Client] = []

    def client(self, name: str, *roles: str, tenant: str = "", **headers: str) -> httpx.Client:
        """Return a client with a key of its own; without roles it has no key."""
        if roles:
            headers["Authorization"] = f"Bearer {self.keys.create(name, roles, tenant=tenant).text}"
        made = httpx.Client(base_url=self.url, headers=headers, timeout=20)
        self._clients.append(made)
        return made

    def close(self) -> None:
        self.gate.set()
        for client in self._clients:
            client.close()


@contextmanager
def guarded(folder: Path, **settings: Any) -> Iterator[Site]:
    """Serve two agents and one that waits for the test."""
    (folder / "desk.toml").write_text(DESK)
    keys = KeyFile(folder / "keys.json")
    keys.create("first", ["viewer"])
    sites: list[Site] = []

    def gated(task: str) -> str:
        look(task)
        assert sites[0].gate.wait(60)
        return look(task)

    def named(name: str, agent: object, *policy: str) -> Registered:
        return Registered(name=name, source="tests", load=lambda: agent, policy=policy)

    desk = str(folder / "desk.toml")
    agents = Agents([named("echo", echo), named("payer", payer, desk), named("gated", gated, desk)])
    given: dict[str, Any] = {"store": f"sqlite:{folder / 'oao.db'}", "grace_s": 1.0, "heartbeat_s": 1.0} | settings
    app = create_app(Settings(keys=str(folder / "keys.json"), **given), agents)
    with serving(app) as url:
        site = Site(url, app, keys, folder)
        sites.append(site)
        try:
            yield site
        finally:
            site.close()


def routes_of(app: Any) -> list[tuple[str, str]]:
    """Return method and path of every route, also of those that the document does not have; WS for a WebSocket."""
    found: list[tuple[str, str]] = []

    def walk(routes: Any, prefix: str) -> None:
        for route in routes:
            if isinstance(route, APIWebSocketRoute):
                found.append(("WS", prefix + route.path))
            elif isinstance(route, APIRoute | Route):
                found.extend((method, prefix + route.path) for method in sorted(route.methods or ()))
            elif isinstance(route, Mount):
                found.append(("GET", f"{prefix}{route.path}/{{name}}"))
            elif (inner := getattr(route, "original_router", None)) is not None:
                walk(inner.routes, prefix + getattr(route.include_context, "prefix", ""))
            else:
                raise AssertionError(f"the test does not know what {route!r} is")

    walk(app.routes, "")
    return sorted({(method, path) for method, path in found if method != "HEAD"})


def send(client: httpx.Client, method: str, path: str, given: Mapping[str, object]) -> httpx.Response:
    """Ask a route; of a stream only the head is read. Close the answer."""
    asked = ASKED.get((method, path), Asked())
    url = path.format_map(given)
    page = PAGE if path.startswith("/ui/") and method == "POST" else {}
    found = {name: value.format_map(given) for name, value in asked.query.items()}
    request = client.build_request(method, url, json=asked.json, data=asked.form, params=found or None, headers=page)
    answer = client.send(request, stream=True)
    if "event-stream" not in answer.headers.get("content-type", ""):
        answer.read()
    return answer
