"""A test module for sessions of its own: agents and tools that fetch with every client. `OAO_SERVER` is where from."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest
import requests
import requests.adapters
import urllib3

import oao_harness as oao

BASE = os.environ["OAO_SERVER"]
CITY = os.environ.get("OAO_CITY", "Oslo")
WEATHER = f"{BASE}/weather?city={CITY}&api_key=not-for-anybody"
NOWHERE = "http://127.0.0.1:9/nothing"
SESSION, CLIENT = requests.Session(), httpx.Client()


async def _async_httpx(module: Any, url: str = WEATHER) -> Any:
    async with module.AsyncClient() as client:
        return (await client.get(url)).json()


async def _aiohttp(url: str = WEATHER, **options: Any) -> Any:
    async with aiohttp.ClientSession() as session, session.request(options.pop("method", "GET"), url, **options) as got:
        return got.status, await got.read()


def _retrying() -> int:
    with requests.Session() as session:
        retries = urllib3.Retry(total=2, status_forcelist=[503], backoff_factor=0)
        session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retries))
        return session.get(f"{BASE}/busy").status_code


def _refused(fetch: Callable[[], object]) -> str:
    with pytest.raises(Exception) as caught:
        fetch()
    return f"{caught.type.__module__}.{caught.type.__qualname__}: {caught.value}"


def _in_threads() -> list[int]:
    urls = [f"{BASE}/thread/{number}" for number in range(32)]
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda url: requests.get(url).json()["path"], urls))
        more = pool.map(lambda url: json.load(urllib.request.urlopen(url + "/u"))["path"], urls)
        return [len(set(paths)), len(set(more))]


CLIENTS: dict[str, Callable[[], object]] = {
    "requests": lambda: requests.get(WEATHER).json(),
    "requests_session_made_before": lambda: SESSION.get(WEATHER).json(),
    "httpx": lambda: httpx.get(WEATHER).json(),
    "httpx_client_made_before": lambda: CLIENT.get(WEATHER).json(),
    "httpx2": lambda: httpx2.get(WEATHER).json(),
    "httpx_async": lambda: asyncio.run(_async_httpx(httpx)),
    "httpx2_async": lambda: asyncio.run(_async_httpx(httpx2)),
    "aiohttp": lambda: asyncio.run(_aiohttp()),
    "aiohttp_post": lambda: asyncio.run(_aiohttp(f"{BASE}/up", method="POST", json={"a": [1, 2]})),
    "urllib3": lambda: urllib3.request("GET", WEATHER).json(),
    "urllib": lambda: json.load(urllib.request.urlopen(WEATHER)),
    "redirects": lambda: [
        requests.get(f"{BASE}/redirect").json(),
        httpx.get(f"{BASE}/redirect", follow_redirects=True).json(),
        asyncio.run(_aiohttp(f"{BASE}/redirect")),
    ],
    "gzip": lambda: [
        requests.get(f"{BASE}/gzip").json(),
        httpx.get(f"{BASE}/gzip").json(),
        urllib3.request("GET", f"{BASE}/gzip").json(),
        asyncio.run(_aiohttp(f"{BASE}/gzip")),
    ],
    "bytes": lambda: [
        requests.get(f"{BASE}/bytes").content == bytes(range(256)),
        httpx.get(f"{BASE}/bytes").content == bytes(range(256)),
        urllib.request.urlopen(f"{BASE}/bytes").read() == bytes(range(256)),
    ],
    "no_body": lambda: [
        requests.head(WEATHER).status_code,
        httpx.head(WEATHER).status_code,
        requests.get(f"{BASE}/empty").status_code,
        httpx.get(f"{BASE}/empty").status_code,
        asyncio.run(_aiohttp(f"{BASE}/empty")),
    ],
    "uploads": lambda: [
        requests.post(f"{BASE}/up", files={"f": ("a.txt", b"text")}).json(),
        requests.post(f"{BASE}/up", data=iter([b"ab", b"cd"])).json()["got"],
        httpx.post(f"{BASE}/up", files={"f": ("a.txt", b"text")}).json(),
    ],
    "retries": _retrying,
    "refused": lambda: [
        _refused(lambda: requests.get(NOWHERE)).partition(":")[0],
        _refused(lambda: httpx.get(NOWHERE)),
        _refused(lambda: urllib3.request("GET", NOWHERE, retries=False)).partition(":")[0],
        _refused(lambda: urllib.request.urlopen(NOWHERE)),
        _refused(lambda: asyncio.run(_aiohttp(NOWHERE))),
        _refused(lambda: asyncio.run(_async_httpx(httpx2, NOWHERE))),
    ],
    "threads": _in_threads,
}


@oao.model(name="gpt-x")
def ask(messages: Any) -> Any:
    """Ask a model, by a request that no recording needs."""
    httpx.get(f"{BASE}/asked")
    return {"content": "fetch it", "usage": {"input_tokens": 3, "output_tokens": 1}}


@oao.tool
def fetch(client: str) -> Any:
    """Fetch something with a client."""
    return CLIENTS[client]()


@pytest.mark.parametrize("client", CLIENTS)
def test_in_a_tool(client: str) -> None:
    """All in the body of a tool."""
    ask([{"role": "user", "content": client}])
    print("GOT", client, fetch(client))


@pytest.mark.parametrize("client", CLIENTS)
def test_outside(client: str) -> None:
    """In the agent's own code, before and after its calls."""
    before = CLIENTS[client]()
    ask([{"role": "user", "content": client}])
    print("GOT", client, before, CLIENTS[client]())
