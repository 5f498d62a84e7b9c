"""`oao serve`: the registered agents as a service over HTTP."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_json
from oao_harness.cli.demo_desk import TASK, demo_agents
from oao_harness.cli.fleets import shown_url
from oao_harness.cli.logs import log_option, log_to_stderr
from oao_harness.errors import ConfigError, UsageError
from oao_harness.fleet.agents import Agents
from oao_harness.loading import prefer_working_folder

if TYPE_CHECKING:
    from collections.abc import Generator

    from oao_harness.server.settings import Settings

__all__ = ["command"]

_ALL_ADDRESSES: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - not bound here
_PACKAGES: Final = frozenset(
    {"fastapi", "starlette", "uvicorn", "sse_starlette", "swagger_ui_bundle", "prometheus_client", "limits", "jwt"}
    | {"jinja2", "multipart", "python_multipart"}
)


@click.command("serve", short_help="Serve the registered agents over HTTP.")
@click.option("--host", metavar="ADDRESS", help="The address to listen on; this machine only by default.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="8000 by default; 0 takes a free one.")
@click.option("--store", metavar="URL|PATH", help="Where the journals are; by default [tool.oao] store, else a file.")
@click.option("--scheduler", metavar="URL", help="The queue: redis://HOST:PORT/DB, or local: for this process.")
@click.option("--slots", type=click.IntRange(1, 100_000), metavar="N", help="Runs of one agent at once.")
@click.option(
    "--deadline",
    "deadline_s",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    metavar="SECONDS",
    help="What a run may take where the request does not say.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0, max=3600),
    metavar="SECONDS",
    help="What runs at work may take to end after SIGTERM; the others can be resumed.",
)
@click.option(
    "--work/--no-work", default=None, help="Do the jobs of the queue here; by default only where it is local:."
)
@click.option("--demo", is_flag=True, help="Register an agent that asks for an approval; it needs no model.")
@log_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document when it listens, nothing else.")
def command(
    *,
    host: str | None,
    port: int | None,
    store: str | None,
    scheduler: str | None,
    slots: int | None,
    deadline_s: float | None,
    grace_s: float | None,
    work: bool | None,
    demo: bool,
    log_format: str,
    as_json: bool,
) -> None:
    """Serve the registered agents over HTTP: the dashboard at /, the API at /docs.

    A request names an agent that is registered here, never code: [tool.oao.agents] in pyproject.toml, entry points
    oao.agents, or the hook oao_agents. It listens on this machine only, unless callers can be told apart by keys.
    SIGTERM or Ctrl-C ends it within --grace, also where an agent hangs; what was at work can be resumed.

    \b
    Examples:
      oao serve --demo
      oao serve --port 8080 --deadline 60
      oao serve --scheduler redis://localhost:6379/0
    """  # noqa: D301 - click reads the control character as "do not wrap"
    prefer_working_folder()
    with _needing_the_extra():
        import uvicorn  # noqa: PLC0415 - an extra

        from oao_harness.server.app import create_app  # noqa: PLC0415
        from oao_harness.server.connections import connections, most_connections  # noqa: PLC0415
        from oao_harness.server.origins import require_safe_binding  # noqa: PLC0415
        from oao_harness.server.settings import Settings  # noqa: PLC0415
    settings = Settings.load(
        host=host,
        port=port,
        store=store,
        scheduler=scheduler,
        slots=slots,
        deadline_s=deadline_s,
        grace_s=grace_s,
        work=work,
    )
    agents = Agents.discover()
    if demo:
        agents = Agents([*agents, *(one for one in demo_agents() if one.name not in agents)])
    log_to_stderr(log_format)
    listening = _listen(settings)
    app = create_app(settings, agents)
    has_keys: bool = app.state.authenticator.has_keys
    require_safe_binding(settings.host, has_keys)
    # Whoever is told that Ctrl-C ends it may press it at once. The web server raises it again when it is done.
    with contextlib.suppress(KeyboardInterrupt):
        _say(settings, agents, listening, has_keys=has_keys, demo=demo, as_json=as_json)
        config = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            log_config=None,
            lifespan="on",
            http=connections(settings.body_s),
            limit_concurrency=most_connections(),
            timeout_graceful_shutdown=math.ceil(settings.grace_s) + 1,
        )
        uvicorn.Server(config).run(sockets=[listening])


@contextlib.contextmanager
def _needing_the_extra() -> Generator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise ConfigError(
            f"the server needs the package {error.name}; install it with: pip install 'oao-harness[server]'"
        ) from error


def _listen(settings: Settings) -> socket.socket:
    """Return a socket that listens; a port that is taken is said before anything is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            why = f"port {settings.port} is in use; give another one with --port, or 0 for a free one"
        else:
            why = (
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; check --host and --port"
            )
        raise UsageError(why) from error
    # Whoever is told the address may connect at once; it is answered when the server has begun.
    listening.listen(2048)
    return listening


def _say(
    settings: Settings, agents: Agents, listening: socket.socket, *, has_keys: bool, demo: bool, as_json: bool
) -> None:
    url = _url(settings.host, listening.getsockname()[1])
    if as_json:
        named: list[object] = list(agents.names())
        said = {"event": "listening", "pid": os.getpid(), "url": url, "agents": named}
        print_json({**said, "store": shown_url(settings.store), "scheduler": shown_url(settings.scheduler)})
        return
    # Nobody can open "all addresses".
    here = _url("localhost" if settings.host in _ALL_ADDRESSES else settings.host, listening.getsockname()[1])
    on = console()
    on.print(Text.assemble((f" oao serves {url}", "bold"), ("  Ctrl-C ends it", "dim")), soft_wrap=True)
    rows = [
        ("open", f"{here} (the dashboard)"),
        ("API", f"{here}/docs"),
        ("agents", ", ".join(agents.names()) or "none"),
        ("callers", "who has a key or a token" if has_keys else "this machine alone; keys let in others: oao keys"),
        ("store", shown_url(settings.store)),
        ("queue", f"{shown_url(settings.scheduler)}{'' if settings.works else ', worked elsewhere: oao worker'}"),
    ]
    for label, value in rows:
        on.print(Text.assemble((f" {label:<8}", "dim"), one_line(value)), soft_wrap=True)
    for index, line in enumerate(_next(agents, here, has_keys=has_keys, demo=demo)):
        on.print(Text.assemble((f" {'' if index else 'next':<8}", "dim"), (line, "cyan")), soft_wrap=True)
    on.print()


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _next(agents: Agents, url: str, *, has_keys: bool, demo: bool) -> list[str]:
    """Return what to do now, in words and as a command."""
    if not agents.names():
        return ['name an agent in pyproject.toml, [tool.oao.agents] support = "shop:support"; or see: oao serve --demo']
    agent, task = ("demo", TASK) if demo else (agents.names()[0], "...")
    key = ' -H "Authorization: Bearer $OAO_KEY"' if has_keys else ""
    body = f'{{"agent": "{agent}", "task": "{task}"}}'
    line = f"curl {url}/run{key} -H 'Content-Type: application/json' -d '{body}'"
    if demo:
        return ["open the dashboard, run the agent demo there, and approve the refund that it asks for; or:", line]
    return [line]
