"""`oao import`: cassettes of vcrpy, and runs that other tools recorded, become recordings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_error, print_paragraph, symbol
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.stores import DEFAULT_STORE, open_store, store_option
from oao_harness.cli.units import count, plural
from oao_harness.errors import RecordingError, UsageError
from oao_harness.importing.forms import import_runs, is_cassette
from oao_harness.importing.stored import store_recording
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.wording import preview
from oao_hookspecs import Json

__all__ = ["command"]

_SUFFIX = ".oao.json"
_LONGEST_ANSWER = 30
_LONGEST_NAME = 100
_COLUMNS = (
    Column(title="call", right=True),
    Column(title="model"),
    Column(title="asked", shrinks=True),
    Column(title="answer", optional=True),
    Column(title="tokens", right=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A recording that is to be written."""

    recording: Recording
    target: Path
    source: Path
    left_out: Sequence[str] = ()
    """What of the file is not in it."""
    form: str = ""
    """Of a run that another tool recorded; empty for a cassette."""


@click.command("import", short_help="Turn cassettes and other tools' runs into recordings.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Where to; by default beside the file, for a file with several runs a folder of its name.",
)
@click.option("--test", default="", metavar="NODEID", help="The test that is to play it; by default any may.")
@click.option("--force", is_flag=True, help="Replace a recording that is there.")
@click.option("--agent", default="", metavar="MODULE:AGENT", help="Of a recording: the agent that goes on with it.")
@click.option("--task", metavar="TEXT", help="Of a recording: what the agent was asked, where it does not say.")
@store_option
@click.pass_context
def command(
    ctx: click.Context,
    files: Sequence[Path],
    *,
    output: Path | None,
    test: str,
    force: bool,
    agent: str,
    task: str | None,
    store: str,
) -> None:
    """Turn vcrpy cassettes, and runs that other tools recorded, into recordings; and a recording into a stored run.

    A cassette (.yaml) knows the requests of the model providers' clients, and nothing of the agent. So a test that
    plays it runs the agent and its tools as they are; each request must be the recorded one, and is answered from the
    recording.

    Other files are recognised by what is in them: run logs of AgentDojo, results of tau-bench and tau2-bench, traces
    in OTLP-JSON with GenAI spans. What such a run does not tell, and so cannot be replayed, is said. `oao policy diff`
    reads these files without an import.

    A recording (.oao.json) becomes a run of the store, suspended where the recording ends: `oao resume` and `oao fork`
    go on from there, its calls are served.

    Exit code: 0, or 2 where a file cannot be read, or a recording cannot be written: for example because it would
    hold a credential.

    \b
    Examples:
      oao import refund.yaml -o tests/recordings/test_shop/test_refund.oao.json
      oao import cassettes/*.yaml -o tests/recordings/test_shop/
      oao import trace.json
      oao import results.json -o runs/
      oao import refund.oao.json --agent shop:agent
    """  # noqa: D301 - click reads the control character as "do not wrap"
    is_folder = output is not None and (output.is_dir() or not output.name.endswith(".json"))
    if len(files) > 1 and output is not None and not is_folder:
        raise UsageError(f"-o {str(output)!r} is one file, and there are {len(files)} files; name a folder")
    if len(files) > 1 and test:
        raise UsageError("--test names one test; import its file alone")
    on = console()
    recordings = [file for file in files if file.name.endswith(_SUFFIX)]
    _store(on, recordings, store, agent=agent, task=task)
    files = [file for file in files if file not in recordings]
    cassettes = [_target(file, output, is_folder=is_folder) for file in files if is_cassette(file)]
    _require_free(cassettes, force=force)
    # All are read before one is written: a mistake in the last leaves nothing half done.
    found = [one for file in files for one in _read(file, output, test, is_folder=is_folder)]
    _require_free([one.target for one in found], force=force)
    refused = [one for one in found if not _save(on, one, test)]
    if refused:
        print_error(f"{plural(len(refused), 'recording')} of {len(found)} could not be written")
    ctx.exit(2 if refused else 0)


def _store(on: Console, files: Sequence[Path], store: str, *, agent: str, task: str | None) -> None:
    """Make recordings runs of the store, and say how to go on with them."""
    loaded = [(file, Recording.load(file)) for file in files]
    if not loaded:
        return
    with open_store(store) as opened:
        for file, recording in loaded:
            id_ = store_recording(recording, opened, source=str(file), agent=agent, task=task)
            what = f"{one_line(str(file))}: {plural(len(recording.events), 'call')} {symbol(on, '→')} run {id_}"
            on.print(Text.assemble((f"{symbol(on, '✔')} ", "green"), what), soft_wrap=True)
            where = "" if store == DEFAULT_STORE else f" --store {store}"
            go_on = f"go on with: oao resume {id_[:8]}{'' if agent else ' MODULE:AGENT'}{where}"
            on.print(Text(go_on, style="dim"), soft_wrap=True)


def _require_free(targets: Sequence[Path], *, force: bool) -> None:
    """Refuse to write one file twice, or over one that is there."""
    if len(set(targets)) < len(targets):
        raise UsageError("two of the cassettes have the same name; import them one by one, each with its own -o")
    taken = [] if force else [target for target in targets if target.exists()]
    if taken:
        raise UsageError(f"{str(taken[0])!r} is already there; --force replaces it")


def _read(file: Path, output: Path | None, test: str, *, is_folder: bool) -> list[_Found]:
    if is_cassette(file):
        from oao_harness.importing.recordings import import_cassette  # noqa: PLC0415 - its extra may be missing

        imported = import_cassette(file, test)
        skipped = [f"skipped {one.number}. {one.what}: {one.reason}" for one in imported.skipped]
        target = _target(file, output, is_folder=is_folder)
        return [_Found(recording=imported.recording, target=target, source=file, left_out=skipped)]
    runs = import_runs(file)
    if len(runs) > 1 and output is not None and not is_folder:
        raise UsageError(f"-o {str(output)!r} is one file, and {str(file)!r} holds {len(runs)} runs; name a folder")
    if len(runs) > 1 and test:
        raise UsageError(f"--test names one test, and {str(file)!r} holds {len(runs)} runs")
    names = _file_names([run.name for run in runs])
    whole = _target(file, output, is_folder=is_folder)
    folder = whole.parent / whole.name.removesuffix(_SUFFIX)
    return [
        _Found(
            recording=replace(run.recording, test=test),
            target=whole if len(runs) == 1 else folder / f"{name}{_SUFFIX}",
            source=file,
            left_out=run.notes,
            form=str(run.recording.header.get("form", "")),
        )
        for run, name in zip(runs, names, strict=True)
    ]


def _file_names(names: Sequence[str]) -> list[str]:
    """Return names of runs as names of files, each of them once."""
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_LONGEST_NAME] or "run"
        unique, number = plain, 1
        while unique.lower() in taken:
            number += 1
            unique = f"{plain}-{number}"
        taken.add(unique.lower())
        found.append(unique)
    return found


def _save(on: Console, one: _Found, test: str) -> bool:
    """Write a recording and say so; return False where it may not be written."""
    events = one.recording.events
    try:
        one.recording.save(one.target)
    except RecordingError as error:
        if not one.form:
            raise
        print_error(str(error))
        return False
    on.print(Text.assemble((f"{symbol(on, '✔')} ", "green"), (one_line(str(one.source)), "bold")), soft_wrap=True)
    if one.form:
        calls = Counter(event.kind for event in events)
        what = f"{one.form}: {plural(calls['model'], 'model call')}, {plural(calls['tool'], 'tool call')}"
    else:
        print_columns(on, _COLUMNS, [_cells(event) for event in events])
        what = plural(len(events), "model call")
    for line in one.left_out:
        print_paragraph(on, Text(line, style="yellow"))
    on.print(f" {what} {symbol(on, '→')} {one.target}", soft_wrap=True)
    if not one.form:
        _say_who_plays(on, one.target, test)
    return True


def _target(cassette: Path, output: Path | None, *, is_folder: bool) -> Path:
    if output is not None and not is_folder:
        return output
    stem = cassette.name.removesuffix(".gz")
    for suffix in (".yaml", ".yml", ".jsonl", ".json"):
        stem = stem.removesuffix(suffix)
    return (output if output is not None else cassette.parent) / f"{stem}{_SUFFIX}"


def _cells(event: RecordedEvent) -> list[Text]:
    request = event.call.request
    messages = cast("Sequence[Mapping[str, Json]]", request.get("messages") or ({},))
    said = messages[-1].get("content")
    failed = "" if event.error is None else event.error.type.rpartition(":")[2]
    answer = failed or preview.outcome({"kind": "model"}, {"res": event.value})
    tries = f" after {event.attempts} tries" if event.attempts > 1 else ""
    tokens = "" if event.usage is None else ("~" if event.usage.estimated else "") + count(event.usage.total_tokens)
    return [
        Text(str(event.n)),
        Text(one_line(event.name), style="bold"),
        Text(one_line(said if isinstance(said, str) else str(said or ""))),
        Text(f"{_short(answer)}{tries}", style="red" if failed else ""),
        Text(tokens),
    ]


def _short(answer: str) -> str:
    return answer if len(answer) <= _LONGEST_ANSWER else f"{answer[: _LONGEST_ANSWER - 1]}…"


def _say_who_plays(on: Console, target: Path, test: str) -> None:
    """Say which test will find the file, or where to put it."""
    folder = target.absolute().parent
    name = target.name.removesuffix(_SUFFIX)
    if folder.parent.name == "recordings" and target.name.endswith(_SUFFIX):
        module = folder.parent.parent / f"{folder.name}.py"
        shown = module.relative_to(Path.cwd()) if module.is_relative_to(Path.cwd()) else module
        text = f"played by {test or f'{shown}::{name}'}"
        if not module.exists():
            text += f"; there is no {shown} yet"
    else:
        text = (
            f"to play it, put it beside the test's module as recordings/<module>/<test>{_SUFFIX}, "
            f'or mark the test @pytest.mark.oao(recording="{name}") and put it into recordings/<module>/'
        )
    print_paragraph(on, Text(text, style="dim"))
