"""`oao plugins`: which plugins are used, and whether they are what was signed; nothing of them is run."""

from __future__ import annotations

from typing import Final

import click
from rich.text import Text

from oao_harness.cli.columns import Column, print_columns
from oao_harness.cli.console import console, one_line, print_json
from oao_harness.cli.plugins_new import command as new
from oao_harness.cli.plugins_sign import keygen, sign
from oao_harness.cli.plugins_trust import trust, untrust
from oao_harness.cli.plugins_verify import STYLES, verify
from oao_harness.errors import ConfigError
from oao_harness.plugins.found import installed, package_of, verdict_on
from oao_harness.plugins.project import ProjectPlugins, project_plugins
from oao_harness.plugins.trust import find_trust
from oao_harness.plugins.verification import Verdict
from oao_hookspecs import Json

__all__ = ["command"]

_COLUMNS: Final = (
    Column(title="plugin"),
    Column(title="package"),
    Column(title="used"),
    Column(title="state"),
    Column(title="signed by", optional=True),
    Column(title="why", shrinks=True, wraps=True),
)


@click.group("plugins", short_help="Show the plugins; sign, check, trust and write them.")
def command() -> None:
    """Say which installed plugins are used; sign them, check them, say whom the project trusts.

    A plugin is a package with an entry point in the group `oao`. It may observe and provide; it decides where
    pyproject.toml names it under [tool.oao] plugins. With verify = "strict" there, only those are imported that were
    signed by somebody whom oao-trust.json names.

    \b
    Examples:
      oao plugins list
      oao plugins new quiet-hours
      oao plugins keygen
      oao plugins sign dist/shop_guard-1.0-py3-none-any.whl
      oao plugins trust shop-guard
      oao plugins verify
    """  # noqa: D301 - click reads the control character as "do not wrap"


@command.command("list", short_help="List the installed plugins; imports none of them.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
def list_(*, as_json: bool) -> None:
    """List the installed plugins: what each may do here, and whether it is what was signed.

    Nothing of them is imported. `used` says: decides (configuration names it), observes (it was merely found), left
    out (it is not verified, and the project admits no others), refused (nothing starts with it), disabled.

    \b
    Examples:
      oao plugins list
      oao plugins list --json | jq '.[] | select(.state != "verified").plugin'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    project, rows = project_plugins(), list[tuple[list[Text], dict[str, Json]]]()
    trusted = find_trust()
    names = [point.name for point in installed()]
    for point in installed():
        try:
            verdict = verdict_on(point, trusted, strict=project.verify_from, afresh=True)
        except ConfigError as error:
            verdict = Verdict(state="altered", reason=str(error))
        used = "refused" if names.count(point.name) > 1 else _use(point.name, project, verdict)
        if used == "observes" and verdict.state == "untrusted" and point.dist is not None:
            used = "refused" if trusted.who_signs(point.dist.name) else used
        hooks = [] if verdict.manifest is None else list(verdict.manifest.hooks)
        why = verdict.reason or (f"may only have {', '.join(hooks)}" if verdict.state == "verified" else "")
        if names.count(point.name) > 1:
            why = "another package has a plugin of this name"
        rows.append(
            (
                [
                    Text(one_line(point.name), style="bold"),
                    Text(one_line(package_of(point))),
                    Text(used, style="red" if used == "refused" else ""),
                    Text(verdict.state, style=STYLES[verdict.state]),
                    Text(one_line(verdict.owner)),
                    Text(one_line(why), style="dim"),
                ],
                {
                    "plugin": point.name,
                    "package": package_of(point),
                    "used": used,
                    "state": verdict.state,
                    "signed_by": verdict.owner,
                    "hooks": list(hooks),
                    "why": why,
                },
            )
        )
    missing = {name: where for name, where in project.named.items() if name not in names}
    if as_json:
        print_json([one for _, one in rows], indent=2)
        return
    on = console()
    if rows:
        print_columns(on, _COLUMNS, [cells for cells, _ in rows])
    else:
        on.print("No plugin is installed: no package has an entry point in the group 'oao'.", soft_wrap=True)
    for name, where in missing.items():
        on.print(Text(f"{name} is named at {where}, and not installed: nothing starts.", style="red"), soft_wrap=True)


def _use(name: str, project: ProjectPlugins, verdict: Verdict) -> str:
    if name in project.disabled:
        return "disabled"
    if verdict.state in {"altered", "incompatible"}:
        return "refused"
    if project.verify == "strict" and verdict.state != "verified":
        return "refused" if name in project.named else "left out"
    return "decides" if name in project.plugins else "observes"


for _one in (sign, keygen, verify, trust, untrust, new):
    command.add_command(_one)
