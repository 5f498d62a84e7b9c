"""`oao mcp-proxy`: policy and journal in front of any MCP server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import click

from oao_harness.cli.principals import actor_options, principal_of
from oao_harness.cli.stores import store_option, store_url
from oao_harness.errors import ConfigError, RunHalted, UsageError
from oao_harness.loading import import_policies, prefer_working_folder
from oao_harness.mcp.sessions import Options, Session
from oao_harness.policy.project import find_project_policy
from oao_harness.runtime.orchestrator import Orchestrator

__all__ = ["command"]

_PACKAGES: Final = frozenset({"httpx", "starlette", "uvicorn"})
_LAUNCHERS: Final = frozenset({"npx", "uvx", "node", "uv", "run", "docker", "exec", "-m", "python", "python3", "pipx"})


@click.command("mcp-proxy", short_help="Put policy and journal in front of an MCP server.")
@click.argument("server", nargs=-1, metavar="[-- COMMAND...]", type=click.UNPROCESSED)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME|FILE",
    help="See oao run; by default what pyproject.toml names under [tool.oao], else standard.",
)
@click.option("--http", "url", metavar="URL", help="The server is there, over streamable HTTP, and not a command.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen, with --http.")
@click.option("--port", type=click.IntRange(0, 65535), default=9000, show_default=True, help="The same; 0: a free one.")
@click.option("--name", metavar="NAME", help="What the server is called in journals; made of its command by default.")
@click.option("--prefix", default="", metavar="TEXT", help="Put before its tools' names when they are judged.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0, max=86_400),
    default=0.0,
    metavar="SECONDS",
    help="How long a held call waits for oao approve; by default its client is told at once to ask again.",
)
@click.option("--hide-denied", is_flag=True, help="Leave tools that are denied by name out of tools/list.")
@click.option("--halt", "halts", is_flag=True, help="Let the first denial end the session.")
@actor_options
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    server: tuple[str, ...],
    policies: Sequence[str],
    url: str | None,
    host: str,
    port: int,
    name: str | None,
    prefix: str,
    wait_s: float,
    hide_denied: bool,
    halts: bool,
    who: str | None,
    roles: Sequence[str],
    tenant: str,
    store: str,
) -> None:
    """Put policy and journal in front of an MCP server.

    Everything passes as it is, but a call of a tool: that is judged first. A denied or a held call is answered as an
    error of the tool, so that the model reads why. A session is a run, and each call is a run in it: oao runs, oao
    show, oao approvals. Exit code: that of the server where it ended by itself, 0 where its client left, 2 where the
    command is wrong.

    \b
    Examples:
      oao mcp-proxy --policy strict -- python server.py
      oao mcp-proxy --wait 300 -- npx -y @modelcontextprotocol/server-filesystem .
      oao mcp-proxy --http http://localhost:8000/mcp --port 9001
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if bool(server) == bool(url):
        raise UsageError("give either the command of the server after --, or its address: --http http://HOST:PORT/mcp")
    prefer_working_folder()
    project = None if policies else find_project_policy()
    named = list(policies) or ([project.policy] if project is not None else ["standard"])
    import_policies(named)
    options = Options(
        name=name or (_name_of_url(url) if url else _name_of_command(server)),
        prefix=prefix,
        wait_s=wait_s,
        halts=halts,
        principal=principal_of(who, roles, tenant),
    )
    orchestrator = Orchestrator(named, store_url(store))
    try:
        if url:
            _serve(orchestrator, options, url, host, port, hide_denied=hide_denied)
        else:
            ctx.exit(_pipe(orchestrator, options, server, hide_denied=hide_denied))
    finally:
        orchestrator.store.close()


def _pipe(orchestrator: Orchestrator, options: Options, server: Sequence[str], *, hide_denied: bool) -> int:
    from oao_harness.mcp.guard import Guard  # noqa: PLC0415 - only what is used
    from oao_harness.mcp.lists import Lists  # noqa: PLC0415
    from oao_harness.mcp.stdio import StdioProxy, private_pipes  # noqa: PLC0415

    client_in, client_out = private_pipes()
    try:
        session = Session(orchestrator, options)
    except RunHalted as halt:
        raise UsageError(f"a policy refuses the session: {halt.rule}: {halt.reason}") from halt
    try:
        lists = Lists(session.hides if hide_denied else None)
        guard = Guard(lambda: session)

        async def stand_between() -> int:
            proxy = StdioProxy(guard, server, lists, client_in=client_in, client_out=client_out, say=_say)
            return await proxy.run()

        return asyncio.run(stand_between())
    finally:
        session.close()


def _serve(orchestrator: Orchestrator, options: Options, url: str, host: str, port: int, *, hide_denied: bool) -> None:
    try:
        from oao_harness.mcp.http import serve  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise ConfigError(
            f"the proxy over HTTP needs the package {error.name}; install it with: pip install 'oao-harness[mcp]'"
        ) from error
    serve(orchestrator, options, url, host=host, port=port, hide_denied=hide_denied, say=_say)


def _say(text: str) -> None:
    # Standard output is the protocol's.
    click.echo(f"oao mcp-proxy: {text}", file=sys.stderr)


def _name_of_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError(f"--http {url!r} is no address of a server; give for example http://localhost:8000/mcp")
    return parts.netloc.rpartition("@")[2]


def _name_of_command(server: Sequence[str]) -> str:
    """Return the first part of a command that names the server and not what starts it."""
    for part in server:
        if not part.startswith("-") and os.path.basename(part) not in _LAUNCHERS:
            return os.path.basename(part.rstrip("/")) or part
    return os.path.basename(server[0])
