"""`oao plugins verify`: compares plugins with what was signed, every file afresh."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from oao_harness.cli.columns import Column, print_columns
from oao_harness.cli.console import console, one_line, print_json
from oao_harness.cli.units import plural
from oao_harness.errors import ConfigError, UsageError
from oao_harness.plugins.found import installed
from oao_harness.plugins.loader import judge_file
from oao_harness.plugins.sources import installed_as
from oao_harness.plugins.trust import Trust, find_trust
from oao_harness.plugins.verification import Verdict, judge
from oao_harness.plugins.wheels import judge_wheel
from oao_hookspecs import Json

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["STYLES", "verify"]

STYLES: Final = {
    "verified": "green",
    "unsigned": "yellow",
    "untrusted": "yellow",
    "altered": "bold red",
    "incompatible": "red",
}
_COLUMNS: Final = (
    Column(title="plugin"),
    Column(title="state"),
    Column(title="signed by"),
    Column(title="what", shrinks=True, wraps=True),
)


@click.command("verify", short_help="Compare plugins with what was signed.")
@click.argument("targets", nargs=-1, metavar="[NAME|WHEEL|FILE.py]...")
@click.option("--attestation", "attestation", default="", metavar="PATH",
              help="A PEP 740 attestation of the one wheel that is named.")  # fmt: skip
@click.option("--publisher", default="", metavar="REPOSITORY",
              help="The GitHub repository, OWNER/NAME, that must have published the wheel.")  # fmt: skip
@click.option("--workflow", default="", metavar="FILE", help="The workflow of it, for example release.yml.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
def verify(*, targets: Sequence[str], attestation: str, publisher: str, workflow: str, as_json: bool) -> None:
    """Compare plugins with what was signed, all files afresh; all installed ones where none is named.

    The exit code is 1 where one is not verified. Nothing of them is run. With --attestation the wheel is also compared
    with the attestation of the package index that came with it (PEP 740).

    \b
    Examples:
      oao plugins verify
      oao plugins verify dist/shop_guard-1.0-py3-none-any.whl
      oao plugins verify shop.whl --attestation shop.whl.publish.attestation \\
        --publisher acme/shop --workflow release.yml
    """  # noqa: D301 - click reads the control character as "do not wrap"
    trust = find_trust()
    found = [(target, _verdict(target, trust)) for target in targets or sorted({one.name for one in installed()})]
    attested = ""
    if attestation:
        if len(targets) != 1 or not targets[0].endswith(".whl"):
            raise UsageError("--attestation is about one wheel; name it")
        from oao_harness.plugins.attestations import check_attestation  # noqa: PLC0415 - the extra `attestations`

        attested = check_attestation(Path(targets[0]), Path(attestation), publisher, workflow)
    elif publisher or workflow:
        raise UsageError("--publisher and --workflow say who must have attested; give --attestation too")
    if as_json:
        print_json([_as_json(target, verdict, attested) for target, verdict in found], indent=2)
    else:
        on = console()
        if found:
            print_columns(on, _COLUMNS, [_cells(target, verdict) for target, verdict in found])
        else:
            on.print("No plugin is installed: no package has an entry point in the group 'oao'.", soft_wrap=True)
        if attested:
            on.print(Text(attested, style="green"), soft_wrap=True)
    accepted = {"verified", "unsigned", "untrusted"} if attested else {"verified"}
    if any(verdict.state not in accepted for _, verdict in found):
        raise SystemExit(1)


def _verdict(target: str, trust: Trust) -> Verdict:
    place = Path(target)
    if place.suffix == ".whl":
        return judge_wheel(place, trust)
    if place.suffix == ".py":
        return judge_file(place, trust)
    dist: Distribution = installed_as(target)
    try:
        return judge(dist, trust, afresh=True)
    except ConfigError as error:
        return Verdict(state="altered", reason=str(error))


def _cells(target: str, verdict: Verdict) -> list[Text]:
    said = verdict.reason
    if verdict.state == "verified" and verdict.manifest is not None:
        one = verdict.manifest
        files, hooks = plural(len(one.files), "file"), ", ".join(one.hooks) or "no hook"
        said = f"{one.name} {one.version}, {files}; may only have {hooks}"
    return [
        # Of a path the last part: the rest of it would take the room of what is said.
        Text(one_line(Path(target).name or target), style="bold"),
        Text(verdict.state, style=STYLES[verdict.state]),
        Text(one_line(verdict.owner)),
        Text(one_line(said), style="dim"),
    ]


def _as_json(target: str, verdict: Verdict, attested: str) -> dict[str, Json]:
    manifest = verdict.manifest
    return {
        "plugin": target,
        "state": verdict.state,
        "why": verdict.reason,
        "signed_by": verdict.owner,
        "attested": attested,
        "manifest": None if manifest is None else manifest.as_json(),
    }
