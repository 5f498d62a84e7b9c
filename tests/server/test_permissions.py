"""Permissions: every route there is, asked by everybody there is. A new route is red until it stands in the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.server.guarded_site import ASKED, PAGE, Asked, Site, guarded, routes_of, send

WHO = {"viewer": {"read"}, "operator": {"read", "run"}, "approver": {"read", "approve"}, "auditor": set[str]()}
"""Roles, and what they may do; `auditor` is one that the server does not know. An admin may all."""

# Routes by what they need; `open` needs no key, because it says nothing of any run.
NEEDS: dict[str, list[tuple[str, str]]] = {
    "open": [
        ("GET", "/docs"),
        ("GET", "/docs/assets/{name}"),
        ("GET", "/healthz"),
        ("GET", "/login"),
        ("GET", "/openapi.json"),
        ("GET", "/readyz"),
        ("GET", "/ui/static/{name}"),
        ("POST", "/logout"),
    ],
    "read": [
        ("GET", "/"),
        ("GET", "/agents"),
        ("GET", "/approvals"),
        ("GET", "/approvals/{question}"),
        ("GET", "/doubts"),
        ("GET", "/events"),
        ("GET", "/jobs"),
        ("GET", "/jobs/{execution_id}"),
        ("GET", "/metrics"),
        ("GET", "/policies"),
        ("GET", "/policies/coverage"),
        ("GET", "/queue"),
        ("GET", "/runs"),
        ("GET", "/runs/{execution_id}"),
        ("GET", "/runs/{execution_id}/diff/{other}"),
        ("GET", "/runs/{execution_id}/events"),
        ("GET", "/runs/{execution_id}/journal"),
        ("GET", "/ui/approvals"),
        ("GET", "/ui/approvals/live"),
        ("GET", "/ui/fleet"),
        ("GET", "/ui/fleet/live"),
        ("GET", "/ui/live"),
        ("GET", "/ui/policies"),
        ("GET", "/ui/policies/coverage"),
        ("GET", "/ui/runs/{execution_id}"),
        ("GET", "/ui/runs/{execution_id}/calls/{n}"),
        ("GET", "/ui/runs/{execution_id}/diff"),
        ("GET", "/ui/runs/{execution_id}/live"),
        ("GET", "/ui/runs/{execution_id}/rows"),
        ("POST", "/policy/diff"),
        ("POST", "/ui/policies/diff"),
        ("WS", "/ws/events"),
    ],
    "run": [
        ("POST", "/jobs"),
        ("POST", "/jobs/{execution_id}/cancel"),
        ("POST", "/jobs/{execution_id}/retry"),
        ("POST", "/run"),
        ("POST", "/run-multi"),
        ("POST", "/runs/{execution_id}/cancel"),
        ("POST", "/runs/{execution_id}/fork"),
        ("POST", "/runs/{execution_id}/replay"),
        ("POST", "/runs/{execution_id}/resume"),
        ("POST", "/ui/runs"),
        ("POST", "/ui/runs/{execution_id}/cancel"),
        ("POST", "/ui/runs/{execution_id}/fork"),
        ("POST", "/ui/runs/{execution_id}/replay"),
        ("POST", "/ui/runs/{execution_id}/resume"),
    ],
    "approve": [
        ("POST", "/approvals/{question}/approve"),
        ("POST", "/approvals/{question}/reject"),
        ("POST", "/doubts/{execution_id}/{n}/resolve"),
        ("POST", "/ui/approvals/{id_}"),
        ("POST", "/ui/doubts/{execution_id}/{n}"),
    ],
    "key": [("POST", "/login")],
}
TABLE = {route: need for need, routes in NEEDS.items() for route in routes}
CHANGES = sorted((method, path) for method, path in TABLE if method == "POST" and path != "/login")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with guarded(tmp_path_factory.mktemp("permissions"), caller_rate="", address_rate="") as served:
        yield served


@pytest.fixture(scope="module")
def given(site: Site) -> dict[str, Any]:
    """A run, and a question that waits; they are answered 409 where somebody was allowed and came too late."""
    ask = site.client("maker", "admin")
    done = ask.post("/run", json={"agent": "echo", "task": 1}).json()["execution_id"]
    held = ask.post("/run", json={"agent": "payer", "task": "x"}).json()
    question = held["approvals"][0]["id"]
    desk = str(site.folder / "desk.toml")
    return {
        "execution_id": done, "other": done, "question": question, "id_": question, "n": 1,
        "name": "dashboard.css", "desk": desk,
    }  # fmt: skip


def status(site: Site, client: httpx.Client, route: tuple[str, str], given: dict[str, Any]) -> int:
    method, path = route
    if method != "WS":
        answer = send(client, method, path, given)
        answer.close()
        return answer.status_code
    shown = {name: client.headers[name] for name in ("Authorization", "X-API-Key") if name in client.headers}
    try:
        with connect(f"ws{site.url.removeprefix('http')}{path}", additional_headers=shown):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def test_every_route_stands_in_the_table(site: Site) -> None:
    """A route that nobody has thought about is a failing test, and so is one that is gone."""
    assert set(routes_of(site.app)) == set(TABLE)


def test_nobody_is_let_in_without_a_credential(site: Site, given: dict[str, Any]) -> None:
    """Without a key, with an unknown one and with half a one every route is a 401, except those that say nothing."""
    strangers = [
        site.client("nobody"),
        site.client("nobody", **{"X-API-Key": f"oao_{'0' * 12}_{'0' * 64}"}),
        site.client("nobody", Authorization="Basic YTpi"),
    ]
    wrong: list[tuple[tuple[str, str], int]] = []
    for route, need in TABLE.items():
        # The failures of an address are counted: so few that the count does not matter.
        for client in strangers[: 1 if route != ("GET", "/runs") else 3]:
            found = status(site, client, route, given)
            expected = {200, 303, 404} if need == "open" else {401}
            if found not in expected:
                wrong.append((route, found))
    assert wrong == []


@pytest.mark.parametrize("role", WHO)
def test_a_role_may_what_it_may(site: Site, given: dict[str, Any], role: str) -> None:
    """403 for whatever it may not, and anything but 401 and 403 for the rest."""
    client = site.client(f"a-{role}", role)
    wrong: list[tuple[tuple[str, str], int]] = []
    for route, need in TABLE.items():
        if need in {"open", "key"}:
            continue
        found = status(site, client, route, given)
        if (found == 403) != (need not in WHO[role]) or found == 401 or found >= 500:
            wrong.append((route, found))
    assert wrong == []


def test_an_admin_may_all(site: Site, given: dict[str, Any]) -> None:
    """Nothing is forbidden to one, and each route is found: what was asked for was the right thing."""
    client = site.client("boss", "admin")
    found = {route: status(site, client, route, given) for route, need in TABLE.items() if need != "key"}

    assert {route for route, code in found.items() if code in {401, 403, 422} or code >= 500} == set()
    answered = {route for route, code in found.items() if code == 404}
    # The run has no call 1, no job, and no call in doubt; and the style sheet is none of the API's.
    assert {path for _, path in answered} <= {
        "/jobs/{execution_id}", "/jobs/{execution_id}/cancel", "/jobs/{execution_id}/retry",
        "/doubts/{execution_id}/{n}/resolve", "/ui/doubts/{execution_id}/{n}",
        "/ui/runs/{execution_id}/calls/{n}", "/docs/assets/{name}",
    }  # fmt: skip


def in_browser(site: Site) -> httpx.Client:
    """Return a browser that has logged in."""
    made = site.keys.create("browser", ["admin"])
    client = site.client("browser")
    own = {"Origin": site.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/login", data={"key": made.text}, headers=own).status_code == 303
    return client


FOREIGN = [
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {},
]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_no_other_site_changes_anything_by_a_browsers_cookie(
    site: Site, given: dict[str, Any], foreign: dict[str, str]
) -> None:
    """Every POST with a session's cookie from elsewhere, or from nowhere, is a 403, with or without htmx's header."""
    client = in_browser(site)
    wrong: list[tuple[str, int]] = []
    for method, path in CHANGES:
        if path == "/logout" and not foreign:
            # Whoever has no Origin at all is no browser.
            continue
        asked = ASKED.get((method, path), Asked())
        for more in ({}, {"HX-Request": "true"}):
            answer = client.post(
                path.format_map(given), json=asked.json, data=asked.form, headers={**foreign, **more}
            )  # fmt: skip
            if answer.status_code != 403:
                wrong.append((path, answer.status_code))
    assert wrong == []
    assert client.get("/runs").status_code == 200


def test_an_action_of_the_dashboard_needs_the_header_of_its_pages(site: Site, given: dict[str, Any]) -> None:
    """A plain form, even one of the same origin, is a 403 on every POST under /ui; with the header it is not."""
    client = in_browser(site)
    own = {"Origin": site.url, "Sec-Fetch-Site": "same-origin"}
    for method, path in CHANGES:
        if path.startswith("/ui/"):
            form = ASKED.get((method, path), Asked()).form
            without = client.post(path.format_map(given), data=form, headers=own)
            with_it = client.post(path.format_map(given), data=form, headers={**PAGE, **own})
            assert (without.status_code, path) == (403, path)
            assert with_it.status_code not in {401, 403}, (path, with_it.text)


def test_a_document_of_ones_own_is_the_admins(site: Site) -> None:
    """Rules that a caller writes are judged for an admin alone."""
    body = {"before": ["standard"], "document": DOCUMENT}
    assert site.client("who", "operator", "approver").post("/policy/diff", json=body).status_code == 403
    assert site.client("who", "admin").post("/policy/diff", json=body).status_code == 200


DOCUMENT = '[tools]\nallow = ["look"]\n'
