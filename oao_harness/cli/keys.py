"""`oao keys`: who may ask a server, and for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import click
from rich.text import Text

from oao_harness.cli.columns import Column, print_columns
from oao_harness.cli.console import console, one_line, print_json
from oao_harness.cli.units import ago, local_time, parse_age, plural
from oao_harness.errors import UsageError
from oao_hookspecs import Json

if TYPE_CHECKING:
    from oao_harness.server.keys import ApiKey, KeyFile

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., object])

_COLUMNS: Final = (
    Column(title="id"),
    Column(title="name", shrinks=True),
    Column(title="roles"),
    Column(title="tenant"),
    Column(title="made", optional=True),
    Column(title="expires"),
    Column(title="state"),
)
_STYLES: Final = {"active": "green", "expired": "dim", "revoked": "dim"}


def _file_option(function: F) -> F:
    return click.option(
        "--file",
        envvar="OAO_KEYS_FILE",
        default=".oao/keys.json",
        show_default=True,
        metavar="PATH",
        help="Where the keys are (also OAO_KEYS_FILE).",
    )(function)


@click.group("keys", short_help="Make, list and revoke the API keys of a server.")
def command() -> None:
    """Make, list and revoke the API keys of a server (oao serve).

    A key is shown once, when it is made: the file holds a hash of it. A running server sees each change at once. When
    a key was last used is not kept. From the first key on, nobody gets in without one.

    \b
    Examples:
      oao keys create alice --role operator --tenant acme
      oao keys list
      oao keys revoke alice
    """  # noqa: D301 - click reads the control character as "do not wrap"


@command.command("create", short_help="Make a key and show it, this once.")
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="NAME",
    help="viewer (the default; reads), operator (reads, runs), approver (reads, approves), admin (all), or any other "
    "name, for policies and approvals; may be repeated.",
)
@click.option("--tenant", default="", metavar="NAME", help="Sees and runs only what is this tenant's; all by default.")
@click.option("--expires", default="90d", show_default=True, metavar="SPAN", help="90d, 12h, 2w; or never.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@_file_option
def create(*, name: str, roles: Sequence[str], tenant: str, expires: str, as_json: bool, file: str) -> None:
    """Make a key for NAME and print it: the only time that it can be seen.

    NAME is who its runs act for, and who answers with it. The key is sent as `Authorization: Bearer KEY`.

    \b
    Examples:
      oao keys create alice --role operator --tenant acme
      oao keys create lead --role approver --role manager --expires 30d
      OAO_KEY=$(oao keys create ci --role operator --expires never)
    """  # noqa: D301 - click reads the control character as "do not wrap"
    expires_in_s = None if expires == "never" else parse_age(expires, "--expires")
    made = _keys(file).create(name, roles or ("viewer",), tenant=tenant, expires_in_s=expires_in_s)
    if as_json:
        print_json({**_as_json(made.key, time.time()), "key": made.text}, indent=2)
        return
    click.echo(made.text)
    err = console(stderr=True)
    may = ", ".join(sorted(made.key.caller.permissions)) or "nothing: the server knows none of its roles"
    told = f"{name} may: {may}. It is kept as a hash in {file}: this key is not shown again."
    err.print(Text(told, style="dim"), soft_wrap=True)


@command.command("list", short_help="List the keys, without the keys themselves.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@_file_option
def list_(*, as_json: bool, file: str) -> None:
    """List the keys in the order in which they were made: ids, names and what they may do.

    \b
    Examples:
      oao keys list
      oao keys list --json | jq '.[] | select(.state == "active").name'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    found, now = _keys(file).keys(), time.time()
    if as_json:
        print_json([_as_json(key, now) for key in found], indent=2)
        return
    on = console()
    if not found:
        on.print("There are no keys; make one with: oao keys create NAME --role operator", soft_wrap=True)
        return
    print_columns(on, _COLUMNS, [_cells(key, now) for key in found])


@command.command("revoke", short_help="Make a key good for nothing, for good.")
@click.argument("key", metavar="ID|NAME")
@_file_option
def revoke(*, key: str, file: str) -> None:
    """Revoke the key with an id, or all keys of a name; a running server refuses them at once.

    \b
    Examples:
      oao keys revoke 3f2a9c017be4
      oao keys revoke alice
    """  # noqa: D301 - click reads the control character as "do not wrap"
    # A key that somebody pastes here must not stand in a message.
    ended = _keys(file).revoke(key.split("_")[1] if key.startswith("oao_") and key.count("_") == 2 else key)
    on = console()
    on.print(f"revoked {plural(len(ended), 'key')}" if ended else "revoked already; nothing was changed")
    for one in ended:
        on.print(Text(f"  {one.id}  {one_line(one.name)}", style="dim"), soft_wrap=True)


def _keys(file: str) -> KeyFile:
    try:
        from oao_harness.server.keys import KeyFile  # noqa: PLC0415 - a package of the extra `server`
    except ModuleNotFoundError as error:
        raise UsageError(
            f"API keys need the package {error.name!r}: pip install 'oao-harness[server]' brings it"
        ) from error
    return KeyFile(file)


def _cells(key: ApiKey, now: float) -> list[Text]:
    state = key.state(now)
    return [
        Text(key.id, style="bold"),
        Text(one_line(key.name)),
        Text(one_line(", ".join(key.roles))),
        Text(one_line(key.tenant)),
        Text(ago(now - key.created_at)),
        Text("never" if key.expires_at is None else local_time(key.expires_at, now)),
        Text(state, style=_STYLES[state]),
    ]


def _as_json(key: ApiKey, now: float) -> dict[str, Json]:
    return {
        "id": key.id,
        "name": key.name,
        "roles": list(key.roles),
        "tenant": key.tenant,
        "permissions": sorted(key.caller.permissions),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "state": key.state(now),
    }
