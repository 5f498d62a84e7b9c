"""`oao prune`: deletes recordings of tests that are gone, and blobs that nobody refers to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import clean, console
from oao_harness.cli.recorded import named_files, shown
from oao_harness.cli.units import plural
from oao_harness.errors import RecordingError, UsageError
from oao_harness.journal.blobs import unreferenced
from oao_harness.journal.pending import find_pending, find_recordings
from oao_harness.journal.places import standing
from oao_harness.journal.recording import Recording

__all__ = ["command"]


@dataclass(slots=True, kw_only=True)
class _Plan:
    """What would be deleted, and what nobody can decide."""

    gone: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    unknown: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    kept: list[Path] = field(default_factory=list[Path])


@click.command("prune", short_help="Delete recordings whose test is gone.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
def command(paths: Sequence[str], *, yes: bool, dry_run: bool) -> None:
    """Delete recordings whose test is gone, and blobs that no recording refers to.

    A test is gone where its module is, or where that has no such function or class; nothing is run to find out. What
    cannot be decided is said, and stays. PATH is a folder or a recording; by default the working folder.

    \b
    Examples:
      oao prune --dry-run
      oao prune tests/billing --yes
    """  # noqa: D301 - click reads the control character as "do not wrap"
    where = named_files(paths) or [Path()]
    plan = _plan(where)
    folders = [path for path in where if path.is_dir()]
    blobs = list(_blobs(plan, folders))
    plan.gone += [(path, "no recording refers to it") for path in blobs]
    on = console()
    for path, why in plan.unknown:
        on.print(Text.assemble(("cannot decide ", "yellow"), shown(path), (f": {clean(why)}", "dim")), soft_wrap=True)
    for path, why in plan.gone:
        on.print(Text.assemble(("gone ", "red"), shown(path), (f": {clean(why)}", "dim")), soft_wrap=True)
    if not plan.gone:
        on.print("Nothing to delete.")
        return
    what = plural(len(plan.gone), "file")
    if dry_run:
        on.print(Text(f"would delete {what}", style="dim"))
        return
    if not yes and not _confirmed(what):
        on.print("Nothing was deleted.")
        return
    _delete(on, plan)


def _plan(where: Sequence[Path]) -> _Plan:
    plan = _Plan()
    recordings = {path.absolute(): path for path in find_recordings(path for path in where if path.exists())}
    folders = [path for path in where if path.is_dir()]
    for pending in find_pending(folders):
        recordings.setdefault(pending.file.absolute(), pending.file)
    for _, path in sorted(recordings.items()):
        try:
            test = Recording.load(path).test
        except RecordingError as error:
            plan.unknown.append((path, str(error)))
            plan.kept.append(path)
            continue
        found = standing(path, test)
        if found.state == "gone":
            plan.gone.append((path, found.why))
        else:
            plan.kept.append(path)
        if found.state == "unknown":
            plan.unknown.append((path, found.why))
    return plan


def _blobs(plan: _Plan, folders: Iterable[Path]) -> Iterable[Path]:
    """Yield the blobs that none of the recordings beside them refers to, of whole folders only."""
    going = {path.absolute() for path, _ in plan.gone}
    beside = {path.parent.absolute() for folder in folders for path in folder.rglob("blobs") if path.is_dir()}
    for folder in sorted(beside):
        files = [*folder.glob("*.json"), *folder.glob("*.json.new")]
        try:
            yield from unreferenced(folder, [path for path in files if path.absolute() not in going])
        except RecordingError as error:
            plan.unknown.append((folder / "blobs", str(error)))


def _confirmed(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be deleted; say --yes to delete without being asked, or --dry-run")
    return click.confirm(f"Delete {what}?")


def _delete(on: Console, plan: _Plan) -> None:
    for path, _ in plan.gone:
        try:
            path.unlink()
        except OSError as error:
            raise RecordingError(f"{shown(path)!r} cannot be deleted: {error}") from error
        for folder in (path.parent, path.parent.parent):
            # A folder that held nothing else: `recordings/<module>`, `blobs`.
            is_ours = folder.name == "blobs" or folder.parent.name == "recordings"
            if is_ours and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()
    on.print(Text(f"deleted {plural(len(plan.gone), 'file')}", style="green"))
