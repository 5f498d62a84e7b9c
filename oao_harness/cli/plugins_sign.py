"""`oao plugins keygen` and `sign`: who vouches for a plugin."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_json
from oao_harness.cli.units import plural
from oao_harness.plugins.signing import fingerprint, load_key, make_key
from oao_harness.plugins.sources import Signing, sign_target
from oao_harness.plugins.trust import find_trust
from oao_harness.policy.project import shown

__all__ = ["keygen", "sign"]

_PASSWORD = "OAO_SIGNING_KEY_PASSWORD"  # noqa: S105 - the name of a variable


def _default_key() -> str:
    return str(Path(click.get_app_dir("oao")) / "signing-key.pem")


@click.command("keygen", short_help="Make a key to sign plugins with.")
@click.option("--out", "path", default=_default_key, show_default="the user's folder for settings", metavar="PATH",
              help="Where the private key goes; never overwrites.")  # fmt: skip
@click.option("--encrypt", is_flag=True, help=f"Ask for a password (or take it from {_PASSWORD}).")
def keygen(*, path: str, encrypt: bool) -> None:
    """Make an Ed25519 key pair: keep the private half in a file, print the public half.

    Who is to trust your plugins needs the public half only. The private one must not come into a repository.

    \b
    Examples:
      oao plugins keygen
      oao plugins keygen --encrypt --out ~/keys/acme.pem
    """  # noqa: D301 - click reads the control character as "do not wrap"
    password = None
    if encrypt:
        password = _password() or str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    public = make_key(Path(path), password)
    click.echo(public)
    err = console(stderr=True)
    told = f"The private key is in {path}. People compare the fingerprint {fingerprint(public)}."
    err.print(Text(told, style="dim"), soft_wrap=True)


def _password() -> str | None:
    return os.environ.get(_PASSWORD) or None


@click.command("sign", short_help="Sign a wheel, a folder, an installed plugin or a .py file.")
@click.argument("target", metavar="WHEEL|FOLDER|NAME|FILE.py")
@click.option("--key", "path", envvar="OAO_SIGNING_KEY", default=_default_key, metavar="PATH",
              show_default="that of keygen", help="The private key (also OAO_SIGNING_KEY).")  # fmt: skip
@click.option("--hook", "hooks", multiple=True, metavar="NAME",
              help="A hook that it may have; may be repeated. By default those that its source defines.")  # fmt: skip
@click.option("--api", default="", metavar="RANGE", help="Versions of oao that it works with, as in '>=0.1,<0.2'.")
@click.option("--version", default="", metavar="VERSION", help="Of the plugin, where it cannot be read off.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest on standard output.")
def sign(*, target: str, path: str, hooks: Sequence[str], api: str, version: str, as_json: bool) -> None:
    """Write down what a plugin is (the hash of each file, its entry points, its hooks), and sign that.

    Nothing of it is run. The manifest goes into a wheel; into the package's folder as oao-plugin.json; beside a .py
    file as FILE.py.oao.json; and for an installed package into the project, as oao-manifests/NAME.json.

    \b
    Examples:
      oao plugins sign dist/shop_guard-1.0-py3-none-any.whl
      oao plugins sign . --hook oao_decide_tool_call
      oao plugins sign shop-guard
      oao plugins sign my_plugin.py --version 1.0.0
    """  # noqa: D301 - click reads the control character as "do not wrap"
    password = _password()
    key = load_key(Path(path), password)
    manifest, place = sign_target(target, Signing(hooks=hooks, api=api, version=version), key, find_trust())
    if as_json:
        print_json(manifest.as_json(), indent=2)
        return
    on = console()
    on.print(f"signed {one_line(manifest.name)} {one_line(manifest.version)}: {shown(place)}", soft_wrap=True)
    told = [
        f"{plural(len(manifest.files), 'file')}, for oao {manifest.api}, key {fingerprint(manifest.key)}",
        f"may only have: {', '.join(manifest.hooks) or 'no hook'}",
    ]
    for line in told:
        on.print(Text(f"  {line}", style="dim"), soft_wrap=True)
