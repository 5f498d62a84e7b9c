"""A real server with agents that a test can hold still, and a real browser to look at it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.chrome.service import Service as ChromeDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from oao_harness import tool
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.server import Settings, create_app

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="Chromium and chromedriver are not installed: apt install chromium-driver",
)
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT_S = 20.0
HOSTILE = "</svg><img src=x onerror=alert(1)>"
_POLICY = """\
[limits]
max_tool_calls = 20

[[rule]]
name = "large-sums"
tools = ["pay"]
when = "args.amount > 100"
then = "ask"
reason = "more than 100 EUR"

[[rule]]
name = "never-used"
tools = ["shell"]
then = "deny"
"""


@tool(effect="pure")
def look(at: str) -> str:
    """Look at something."""
    return f"saw {at}"


@tool(effect="pure")
def hold(at: str) -> str:
    """Wait until the test lets go."""
    assert GATES[at].wait(60)
    return f"held {at}"


@tool(effect="once")
def pay(to: str, amount: float) -> str:
    """Send money."""
    return f"{amount} to {to}"


@tool(name=HOSTILE, effect="pure")
def hostile_tool(**given: str) -> dict[str, str]:
    """Answer with everything that a page must not believe."""
    return {"<b>": "<script>document.title='taken'</script>", "control": "\x1b[31m\x07\x00", "half": "\ud800"}


@tool(effect="pure")
def count(i: int) -> int:
    """Do nothing much."""
    return i


GATES: dict[str, threading.Event] = {}


def stepper(task: str) -> str:
    """Look, wait for the test, look again."""
    look("before")
    hold(task)
    return look("after")


def payer(task: str) -> str:
    """Ask for money until somebody says so."""
    look("balance")
    return pay("bob", 900)


def hostile(task: str) -> str:
    """Say what no page may act on."""
    hostile_tool(given='"><script>alert(2)</script>', braces="{{7*7}}")
    raise ValueError("<img src=x onerror=alert(3)>\x1b[2J")


def many(task: int) -> str:
    """Make as many calls as the task says."""
    for i in range(task):
        count(i)
    return "counted"


@tool(effect="once")
def charge(card: str) -> str:
    """Charge a card, unless this process is one that dies of it."""
    if os.environ.get("DIES_OF_IT"):
        os._exit(3)
    return f"charged {card}"


def charger(task: str) -> str:
    """Charge once."""
    return charge(task)


def failing(task: str) -> str:
    """Fail each time."""
    raise ConnectionError("no such host")


@dataclass
class Site:
    """A server that answers on a free port."""

    url: str
    app: Any
    folder: Path
    gates: dict[str, threading.Event] = field(default_factory=lambda: GATES)

    def run(self, agent: str, task: object) -> dict[str, Any]:
        """Ask for a run by HTTP, as anybody would."""
        answer = httpx.post(f"{self.url}/run", json={"agent": agent, "task": task}, timeout=120)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def begin(self, agent: str, task: object) -> threading.Thread:
        """Ask for a run that takes long."""
        thread = threading.Thread(target=self.run, args=(agent, task), daemon=True)
        thread.start()
        return thread

    def journal(self, execution_id: str) -> list[dict[str, Any]]:
        """Return what is written of a run."""
        return [dict(record) for record in self.app.state.service.store.read(execution_id)]


def guarded(app: Any) -> Any:
    """Return the application as it is where a policy for content is demanded, whoever sends the header."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                if b"content-security-policy" not in names:
                    message["headers"] = [
                        *message["headers"], (b"content-security-policy", b"default-src 'self'")
                    ]  # fmt: skip
            await send(message)

        await app(scope, receive, told if scope["type"] == "http" else send)

    return answer


@contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """Serve until the end of the block."""
    policy = folder / "policy.toml"
    policy.write_text(_POLICY)

    def named(name: str, agent: Callable[..., object], *policies: str) -> Registered:
        return Registered(name=name, source="tests", load=lambda: agent, policy=policies)

    agents = Agents(
        [
            named("stepper", stepper, str(policy)),
            named("payer", payer, str(policy)),
            named("hostile", hostile, str(policy)),
            named("many", many, "off"),
            named("failing", failing),
            named("charger", charger, "off"),
        ]
    )
    settings = Settings(store=f"sqlite:{folder / 'oao.db'}", grace_s=1.0, keys=str(folder / "keys.json"))
    app = create_app(settings, agents)
    # Held from here on: nobody else takes the port before the server has it.
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(guarded(app), log_level="warning", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    loops: list[Any] = []

    def serve() -> None:
        async def main() -> None:
            loops.append(asyncio.get_running_loop())
            await server.serve(sockets=[listening])

        asyncio.run(main())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    until = time.monotonic() + WAIT_S
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)
    try:
        yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", app, folder)
    finally:
        for gate in GATES.values():
            gate.set()
        with suppress(RuntimeError):
            loops[0].call_soon_threadsafe(app.state.service.begin_stop)
        server.should_exit = True
        thread.join(WAIT_S)
        listening.close()
        assert not thread.is_alive()


class Browser:
    """A window, and what a test asks of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)
        if url == "about:blank":
            return
        # A loaded machine may still have nothing of the page where the browser says that it is there.
        self.until(lambda: self.script("return !!document.querySelector('main, pre, body > *')"), f"{url} is empty")

    def one(self, css: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def script(self, code: str, *given: object) -> Any:
        return self.driver.execute_script(code, *given)

    def until(self, check: Callable[[], object], what: str) -> Any:
        """Wait for something, without a reload."""
        return WebDriverWait(self.driver, WAIT_S, 0.05).until(lambda _: check(), what)

    def text(self, css: str) -> str:
        return str(self.script("return (document.querySelector(arguments[0]) || {}).textContent || ''", css))

    def until_text(self, css: str, part: str) -> None:
        self.until(lambda: part in self.text(css), f"{part!r} in {css}, which has {self.text(css)!r:.300}")

    def size(self, width: int, height: int) -> None:
        given = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)

    def media(self, **features: str) -> None:
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": given})

    def complaints(self, *, but: str = "\0") -> list[str]:
        """Return what the console has to say since the last time."""
        return [one["message"] for one in self.driver.get_log("browser") if but not in one["message"]]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last time."""
        found: list[str] = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Open a window until the end of the block."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*_FLAGS.split(), f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=ChromeDriver(DRIVER))
    try:
        driver.set_page_load_timeout(60)
        browser = Browser(driver)
        browser.size(1400, 900)
        yield browser
    finally:
        driver.quit()
