"""What the commands about recording files share: paths, how a change looks, a recording as records."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, cast

from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import clean, one_line, print_paragraph
from oao_harness.cli.units import plural
from oao_harness.errors import RecordingError
from oao_harness.journal.changes import Change, Changes, changes_as_json
from oao_harness.journal.decompiling import Times, decompiled
from oao_harness.journal.pending import SUFFIX, Pending, pending_path
from oao_harness.journal.recording import Recording
from oao_harness.journal.records import VERSION
from oao_hookspecs import Json, Record

__all__ = ["accept_or_reject", "changes_as_json", "is_file_name", "print_changes", "print_lines", "records_of", "shown"]

_SIGNS: Final = {"changed": "~", "added": "+", "removed": "-"}
_STYLES: Final = {"~": "yellow", "+": "green", "-": "red"}
_MOST_SHOWN: Final = 20


def shown(path: Path) -> str:
    """Return a path as short as it can be said in the working folder."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(path)


def is_file_name(given: str) -> bool:
    """Return True where an argument names a recording or a folder, and not the id of something in a store."""
    path = Path(given)
    return given.endswith((".json", ".jsonl", SUFFIX)) or "/" in given or "\\" in given or path.exists()


def print_changes(on: Console, found: Changes, *, most: int = _MOST_SHOWN) -> None:
    """Print what a recording changes: one line for each step, below it what is different.

    Args:
        on: Where to.
        found: The changes.
        most: How many steps.
    """
    for step in found.behaviour[:most]:
        _print_step(on, step)
    if len(found.behaviour) > most:
        on.print(Text(f" and {plural(len(found.behaviour) - most, 'step')} more", style="dim"))
    notes = [*found.quiet, *(["header"] if found.header else [])]
    if notes:
        on.print(Text(f" different too, but no change of behaviour: {', '.join(notes)}", style="dim"))
    for line in found.header:
        print_paragraph(on, Text(clean(line), style="dim"), indent=3)


def _print_step(on: Console, step: Change) -> None:
    sign, event = _SIGNS[step.kind], step.event
    numbers = f"#{event.n}"
    if step.old is not None and step.new is not None and step.old.n != step.new.n:
        numbers = f"#{step.old.n} -> #{step.new.n}"
    style = "dim" if step.follows else _STYLES[sign]
    line = Text.assemble((f" {sign} ", style), (f"{numbers} {event.kind} {one_line(event.name)}", f"{style} bold"))
    on.print(line, soft_wrap=True)
    for text in step.lines:
        print_paragraph(on, _coloured(clean(text), dim=step.follows), indent=5)


def _coloured(line: str, *, dim: bool) -> Text:
    """Return a line of `differences.details` with what went in red and what came in green."""
    text = Text(line, style="dim" if dim else "")
    text.highlight_regex(r"\[-.*?-\]", "red")
    text.highlight_regex(r"\{\+.*?\+\}", "green")
    if line[:1] in _STYLES and not dim:
        text.stylize(_STYLES[line[0]], 0, 1)
    return text


def print_lines(on: Console, pending: Pending) -> None:
    """Print what a pending file changes in the text of the recording, as a patch."""
    old = pending.path.read_text("utf-8").splitlines() if pending.path.exists() else []
    new = pending.file.read_text("utf-8").splitlines()
    names = shown(pending.path) if old else "nothing", shown(pending.file)
    for line in difflib.unified_diff(old, new, *names, n=2, lineterm=""):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        on.print(Text(clean(line), style="bold" if line.startswith(("+++", "---")) else style), soft_wrap=True)


def accept_or_reject(on: Console, pendings: Sequence[Pending], *, accept: bool) -> None:
    """Accept or reject pending recordings, and say so, one line each.

    Raises:
        RecordingError: One of them cannot be; those before it are done.
    """
    for pending in pendings:
        is_new = pending.is_new
        if accept:
            pending.accept()
        else:
            pending.reject()
        what = ("accepted", "green") if accept else ("rejected", "red")
        note = " (new)" if accept and is_new else ""
        on.print(Text.assemble(what, f" {shown(pending.path)}{note}"), soft_wrap=True)


def named_files(given: Iterable[str]) -> list[Path]:
    """Return paths that users named.

    Raises:
        RecordingError: One of them does not exist, nor is anything pending for it.
    """
    paths = [Path(one) for one in given]
    for path in paths:
        if not path.exists() and not pending_path(path).exists():
            raise RecordingError(f"there is no file or folder {str(path)!r}")
    return paths


def records_of(recording: Recording) -> list[Record]:
    """Return a recording as the records of one run, in the order of its ticks."""
    times = Times(recording)
    records: list[tuple[int, int, dict[str, Json]]] = []
    for event in recording.events:
        began, ended = times.of(event)
        rounded = round(began, 6), round(ended, 6)
        first, last = decompiled(event, n=event.n, parent=event.parent, times=rounded, run=event.run)
        records.append((event.start, 0, first))
        if last is not None:
            records.append((event.end, 1, last))
    records.sort(key=lambda record: record[:2])
    started: dict[str, Json] = {"type": "run.started", "agent": recording.test, "execution_id": "", "at": times.clock}
    whole = [started, *(record for _, _, record in records)]
    return [cast("Record", {"v": VERSION, "seq": seq, **record}) for seq, record in enumerate(whole)]
