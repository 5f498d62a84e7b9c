"""`oao diff`: what a pending recording changes, or how two runs or recordings differ."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import clean, console, print_json, print_paragraph
from oao_harness.cli.recorded import changes_as_json, is_file_name, print_changes, shown
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.totals import Side, print_sides
from oao_harness.cli.units import plural
from oao_harness.errors import UsageError
from oao_harness.journal.changes import Changes, changes
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.pending import Pending, find_pending
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import Timeline, text
from oao_hookspecs import Store

__all__ = ["command"]


@click.command("diff", short_help="Show how two runs or recordings differ.")
@click.argument("one", metavar="[ID|PATH]", required=False)
@click.argument("other", metavar="[ID2|PATH2]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@click.option("--check", "--exit-code", is_flag=True, help="Exit code 1 where the behaviour differs.")
@store_option
@click.pass_context
def command(ctx: click.Context, one: str | None, other: str | None, *, as_json: bool, check: bool, store: str) -> None:
    """Show how two runs or recordings differ, step by step, or what a pending recording changes.

    ID is the id of a stored run, the unique start of one, or last; a fork alone is compared with the run that it was
    forked from. PATH is a recording; alone, with its pending file; by default the one that is pending below the working
    folder. Times, tokens, tries, and ids that a provider makes up are no change of behaviour.

    \b
    Examples:
      oao diff
      oao diff 3f2a 77b0
      oao diff last tests/recordings/test_refund/test_refund.oao.json
      oao diff before.oao.json after.oao.json --check
    """  # noqa: D301 - click reads the control character as "do not wrap"
    on = console()
    if one is None or (other is None and is_file_name(one)):
        if one is not None and Path(one).is_dir():
            raise UsageError(f"{one!r} is a folder; name one recording, or walk through all with oao review {one}")
        found = (_only_pending() if one is None else find_pending([one])[0]).changes()
        if as_json:
            print_json(changes_as_json(found), indent=2)
        else:
            _print_changes(on, found)
    else:
        old, new = _sides(one, other, store)
        found = changes(old.recording, new.recording)
        if as_json:
            print_json(_document(old, new, found), indent=2)
        else:
            _print(on, old, new, found)
    ctx.exit(1 if check and found.behaviour else 0)


def _sides(one: str, other: str | None, store: str) -> tuple[Side, Side]:
    """Return what is compared, the older first where one is a fork of the other."""
    stored = [given for given in (one, other) if given is not None and not is_file_name(given)]
    if not stored:
        return _recording(one), _recording(str(other))
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    with open_store(store) as opened:
        first = _recording(one) if is_file_name(one) else _run(opened, one)
        if other is not None:
            return first, _recording(other) if is_file_name(other) else _run(opened, other)
        if not first.forked_from:
            raise UsageError(f"run {first.name} is no fork; name what it is compared with: oao diff {one} ID")
        if next(iter(opened.read(first.forked_from)), None) is None:
            raise UsageError(
                f"run {first.forked_from}, which {first.name} was forked from, is not in this store any more"
            )
        return _run(opened, first.forked_from), first


def _recording(path: str) -> Side:
    if Path(path).is_dir():
        raise UsageError(f"{path!r} is a folder; name one recording")
    return Side.of_recording(shown(Path(path)), Recording.load(path))


def _run(store: Store, wanted: str) -> Side:
    records = find_outer_run(store, wanted)
    tape = tape_of(text(records[0], "execution_id"), lambda nested: list(store.read(nested)))
    return Side.of_run(Timeline.of(records), Recording.from_records(tape, header={"at": "", "policy": ""}))


def _print(on: Console, old: Side, new: Side, found: Changes) -> None:
    print_sides(on, old, new)
    on.print()
    at = _parting(old, new)
    if at is not None:
        source = old if new.forked_from == old.execution_id else new
        before = plural(at - 1, "call") if at > 1 else "no call"
        line = f" a fork of {source.name}: {before} from there, its own from call #{at} on"
        on.print(Text(line, style="cyan"), soft_wrap=True)
    _print_changes(on, found)


def _print_changes(on: Console, found: Changes) -> None:
    equal = len(found.steps) - len(found.behaviour)
    more = f"; {plural(equal, 'step')} equal" if found.behaviour else ""
    print_paragraph(on, Text.assemble((clean(found.headline), "bold"), (more, "dim")))
    print_changes(on, found, most=len(found.steps))


def _parting(old: Side, new: Side) -> int | None:
    """Return the number of the call at which one of two parts from the other, where it is a fork of it."""
    for fork, source in ((new, old), (old, new)):
        if fork.forked_from and fork.forked_from == source.execution_id:
            return fork.forked_at
    if old.forked_from and old.forked_from == new.forked_from:
        # Two forks of one run part where the first of them went its own way.
        return min((one.forked_at for one in (old, new) if one.forked_at is not None), default=None)
    return None


def _document(old: Side, new: Side, found: Changes) -> dict[str, object]:
    equal = len(found.steps) - len(found.behaviour)
    sides = {"old": old.to_json(), "new": new.to_json()}
    return {**changes_as_json(found), "equal": equal, **sides, "parts_at": _parting(old, new)}


def _only_pending() -> Pending:
    found = find_pending([Path()])
    if not found:
        raise UsageError("nothing is pending; name two runs or recordings to compare them: oao diff ID ID2")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} recordings are pending; name one, for example oao diff {found[0].path}, "
            "or walk through all with oao review"
        )
    return found[0]
