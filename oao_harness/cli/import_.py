"""`oao import`: cassettes of vcrpy become recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli import preview
from oao_harness.cli.console import console, one_line, print_paragraph, symbol
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.units import count, plural
from oao_harness.errors import UsageError
from oao_harness.journal.recording import RecordedEvent
from oao_hookspecs import Json

__all__ = ["command"]

_SUFFIX = ".oao.json"
_LONGEST_ANSWER = 30
_COLUMNS = (
    Column(title="call", right=True),
    Column(title="model"),
    Column(title="asked", shrinks=True),
    Column(title="answer", optional=True),
    Column(title="tokens", right=True),
)


@click.command("import", short_help="Turn vcrpy cassettes into recordings.")
@click.argument("cassettes", metavar="CASSETTE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Where to; by default beside the cassette.",
)
@click.option("--test", default="", metavar="NODEID", help="The test that is to play it; by default any may.")
@click.option("--force", is_flag=True, help="Replace a recording that is there.")
def command(cassettes: Sequence[Path], output: Path | None, test: str, force: bool) -> None:
    """Turn vcrpy cassettes into recordings that a test plays without a network.

    A cassette knows the requests of the model providers' clients, and nothing of the agent. So a test that plays it
    runs the agent and its tools as they are; each request must be the recorded one, and is answered from the recording.

    \b
    Examples:
      oao import refund.yaml -o tests/recordings/test_shop/test_refund.oao.json
      oao import cassettes/*.yaml -o tests/recordings/test_shop/
    """  # noqa: D301 - click reads the control character as "do not wrap"
    from oao_harness.importing.recordings import import_cassette  # noqa: PLC0415 - its extra may be missing

    is_folder = output is not None and (output.is_dir() or not output.name.endswith(".json"))
    if len(cassettes) > 1 and output is not None and not is_folder:
        raise UsageError(f"-o {str(output)!r} is one file, and there are {len(cassettes)} cassettes; name a folder")
    if len(cassettes) > 1 and test:
        raise UsageError("--test names one test; import its cassette alone")
    targets = [_target(cassette, output, is_folder=is_folder) for cassette in cassettes]
    if len(set(targets)) < len(targets):
        raise UsageError("two of the cassettes have the same name; import them one by one, each with its own -o")
    taken = [] if force else [target for target in targets if target.exists()]
    if taken:
        raise UsageError(f"{str(taken[0])!r} is already there; --force replaces it")
    # All are read before one is written: a mistake in the last leaves nothing half done.
    found = [import_cassette(cassette, test) for cassette in cassettes]
    on = console()
    for cassette, target, imported in zip(cassettes, targets, found, strict=True):
        imported.recording.save(target)
        events = imported.recording.events
        on.print(Text.assemble((f"{symbol(on, '✔')} ", "green"), (one_line(str(cassette)), "bold")), soft_wrap=True)
        print_columns(on, _COLUMNS, [_cells(event) for event in events])
        for skipped in imported.skipped:
            print_paragraph(on, Text(f"skipped {skipped.number}. {skipped.what}: {skipped.reason}", style="yellow"))
        on.print(f" {plural(len(events), 'model call')} {symbol(on, '→')} {target}", soft_wrap=True)
        _say_who_plays(on, target, test)


def _target(cassette: Path, output: Path | None, *, is_folder: bool) -> Path:
    if output is not None and not is_folder:
        return output
    stem = cassette.name.removesuffix(".gz")
    stem = stem.removesuffix(".yaml").removesuffix(".yml")
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
