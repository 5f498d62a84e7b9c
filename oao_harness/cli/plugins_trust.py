"""`oao plugins trust` and `untrust`: whose signatures count in a project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from oao_harness.cli.columns import Column, print_columns
from oao_harness.cli.console import console, one_line
from oao_harness.errors import UsageError
from oao_harness.plugins.signing import fingerprint
from oao_harness.plugins.sources import installed_as
from oao_harness.plugins.trust import Trust, TrustedKey, checked_day, checked_key, checked_signs, find_trust
from oao_harness.plugins.verification import judge
from oao_harness.plugins.wheels import judge_wheel
from oao_harness.policy.project import shown

__all__ = ["trust", "untrust"]

_COLUMNS: Final = (
    Column(title="owner"),
    Column(title="key"),
    Column(title="signs", shrinks=True, wraps=True),
    Column(title="until"),
)


@click.command("trust", short_help="Trust a key, or who signed a plugin; list whom the project trusts.")
@click.argument("target", metavar="[KEY|NAME|WHEEL]", default="")
@click.option("--owner", default="", metavar="NAME", help="Whose key it is, for people.")
@click.option("--signs", multiple=True, metavar="PACKAGE",
              help="What the key may sign: 'shop-guard>=1.2', 'acme-*', '*'; may be repeated.")  # fmt: skip
@click.option("--until", default="", metavar="DAY", help="From this day on (YYYY-MM-DD, UTC) it counts no more.")
@click.option("--yes", is_flag=True, help="Do not ask; you have compared the fingerprint.")
def trust(*, target: str, owner: str, signs: Sequence[str], until: str, yes: bool) -> None:
    """Write into oao-trust.json whose signatures count, and of which packages.

    With a public key: it may sign what --signs says. With an installed plugin or a wheel: the key that signed it may
    sign this package from this version on; compare its fingerprint with what its owner says. Without either: lists
    whom the project trusts. The file belongs into the repository: who may change it decides what is trusted.

    \b
    Examples:
      oao plugins trust ed25519:NhD1... --owner "Acme Security" --signs "acme-*"
      oao plugins trust shop-guard
      oao plugins trust dist/shop_guard-1.0-py3-none-any.whl --until 2030-01-01
      oao plugins trust
    """  # noqa: D301 - click reads the control character as "do not wrap"
    trusted = find_trust()
    on = console()
    if not target:
        if owner or signs or until:
            raise UsageError("name a public key, an installed plugin or a wheel (see oao plugins trust --help)")
        _print(trusted)
        return
    if target.startswith("ed25519:"):
        key = checked_key(target, "KEY")
        if not signs:
            raise UsageError("say what the key may sign, for example --signs 'shop-guard>=1.2'")
    else:
        key, package, version = _signer_of(target, trusted)
        signs = signs or (f"{package}>={version}",)
        on.print(f"{one_line(package)} {one_line(version)} is signed by the key {fingerprint(key)}", soft_wrap=True)
        if not yes and not click.confirm("Is that what its owner says?", err=True):
            raise UsageError("nothing was changed")
    added = TrustedKey(
        key=key,
        owner=owner or f"key {fingerprint(key)}",
        signs=checked_signs(signs, "--signs"),
        expires=checked_day(until, "--until"),
    )
    trusting = trusted.having(added)
    trusting.save()
    with_what = ", ".join(trusting.keys[-1].signs)
    on.print(f"{shown(trusted.path)} trusts {one_line(added.owner)} with {with_what}", soft_wrap=True)


@click.command("untrust", short_help="Trust a key no more.")
@click.argument("who", metavar="KEY|FINGERPRINT|OWNER")
def untrust(who: str) -> None:
    """Take a key out of oao-trust.json: what it signed is not verified any more.

    \b
    Examples:
      oao plugins untrust "Acme Security"
      oao plugins untrust 3f2a-9c01-7be4-55d0
    """  # noqa: D301 - click reads the control character as "do not wrap"
    trusted = find_trust()
    gone = [one for one in trusted.keys if who in {one.key, one.owner, fingerprint(one.key)}]
    if not gone:
        known = ", ".join(f"{one.owner} ({fingerprint(one.key)})" for one in trusted.keys) or "nobody"
        raise UsageError(f"{shown(trusted.path)} does not trust {who!r:.80}; it trusts: {known}")
    Trust(path=trusted.path, keys=[one for one in trusted.keys if one not in gone]).save()
    for one in gone:
        console().print(f"{shown(trusted.path)} trusts {one_line(one.owner)} no more", soft_wrap=True)


def _signer_of(target: str, trusted: Trust) -> tuple[str, str, str]:
    """Return the key that signed a plugin, and name and version of its package, which are what was signed."""
    place = Path(target)
    # Without anybody who is trusted: the question is who it is.
    nobody = Trust(path=trusted.path)
    verdict = judge_wheel(place, nobody) if place.suffix == ".whl" else judge(installed_as(target), nobody, afresh=True)
    if verdict.state != "untrusted" or verdict.manifest is None:
        raise UsageError(f"{target} cannot be trusted: {verdict.reason}")
    return verdict.manifest.key, verdict.manifest.name, verdict.manifest.version


def _print(trusted: Trust) -> None:
    on = console()
    if not trusted.keys:
        on.print(f"The project trusts nobody: there is no key in {shown(trusted.path)}.", soft_wrap=True)
        return
    rows = [
        [
            Text(one_line(one.owner), style="bold"),
            Text(fingerprint(one.key)),
            Text(one_line(", ".join(one.signs))),
            Text(one.expires or "for ever"),
        ]
        for one in trusted.keys
    ]
    print_columns(on, _COLUMNS, rows)
