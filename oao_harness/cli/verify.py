"""`oao verify`: whether the journal of a run is what was written."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, one_line, print_json, print_paragraph, symbol
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.trees import nested_in, progress_bar, summary_of
from oao_harness.cli.units import local_time, plural
from oao_harness.errors import DamagedError, UsageError
from oao_harness.journal.chain import Chain, Damage, verify
from oao_harness.journal.timeline import text
from oao_hookspecs import Json, RunSummary, Store

__all__ = ["command"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """One journal, and what is wrong with it."""

    execution_id: str
    chain: Chain
    damage: Damage | None
    gone: bool = False
    """True for a nested run whose journal is not in this store."""


@click.command("verify", short_help="Check that the journal of a run is what was written.")
@click.argument("id", metavar="[ID]", default="last")
@click.option("--head", default="", metavar="HASH", help="A hash that was noted before: its records must be unchanged.")
@click.option("--all", "every", is_flag=True, help="Check all runs of the store, and name the damaged ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
@store_option
@click.pass_context
def command(ctx: click.Context, id: str, *, head: str, every: bool, as_json: bool, store: str) -> None:
    """Check that the journal of a run is what was written, and those of the runs nested in it.

    Each record carries a hash over itself and all before it: a record that was changed, removed or put in is found. A
    journal that somebody wrote anew as a whole, or cut off at its end, is only found with a hash that was noted
    elsewhere: note the head that this command prints, and give it as --head later. Redactions are no damage, and are
    listed. Exit code: 0 intact, 1 damaged, 2 wrong command.

    \b
    Examples:
      oao verify last
      oao verify 3f2a --head 9c1e0d6f2b7a
      oao verify --all
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if head and (every or not re.fullmatch("[0-9a-f]{8,64}", head)):
        told = (
            "goes with one run, not with --all" if every else "is no hash; give 8 to 64 hex digits as oao verify prints"
        )
        raise UsageError(f"--head {head!r:.80} {told}")
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
    on = console()
    with open_store(store) as opened:
        if every:
            checked = _all(opened)
        else:
            execution_id = _found(opened, id)
            ids = [execution_id, *_nested(opened, execution_id)]
            checked = [_check(opened, one, summary_of(opened, one)) for one in ids]
    damaged = sum(one.damage is not None for one in checked)
    place = checked[0].chain.place_of(head) if checked else None
    if as_json:
        print_json(_document(checked, head, place), indent=2)
    elif every:
        _print_all(on, checked)
    else:
        for one in checked:
            _print(on, one, nested=one is not checked[0])
        if head:
            _print_head(on, checked[0], head, place)
    ctx.exit(1 if damaged or (head and place is None) else 0)


def _found(store: Store, wanted: str) -> str:
    try:
        return text(find_outer_run(store, wanted)[0], "execution_id")
    except DamagedError:
        # It cannot be read whole; which run is meant is known all the same.
        rows = [one for one in store.runs(limit=None) if wanted == "last" or one.execution_id.startswith(wanted)]
        exact = [one for one in rows if one.execution_id == wanted]
        return (exact or rows)[0].execution_id


def _nested(store: Store, execution_id: str) -> Sequence[str]:
    try:
        return list(nested_in(store, list(store.read(execution_id))))
    except DamagedError:
        return []


def _check(store: Store, execution_id: str, row: RunSummary | None) -> _Checked:
    chain = verify(store.read(execution_id), execution_id)
    damage, gone = chain.damage, not chain.count and chain.damage is None
    if not gone and damage is None and row is not None and row.finished_at is not None and not chain.complete:
        why = "it is missing, with all after it: the list of runs knows how the run ended"
        damage = Damage(seq=chain.count + 1, why=why)
    return _Checked(execution_id=execution_id, chain=chain, damage=damage, gone=gone)


def _all(store: Store) -> list[_Checked]:
    rows = store.runs(limit=None)
    with progress_bar() as bar:
        return [_check(store, row.execution_id, row) for row in bar.track(rows, description="verifying")]


def _print(on: Console, one: _Checked, *, nested: bool) -> None:
    chain = one.chain
    if one.gone:
        on.print(Text(f" {symbol(on, '·')} nested run {one.execution_id} is not in this store", style="yellow"))
        return
    ok = one.damage is None
    mark, style = ("✔", "green") if ok else ("✘", "red")
    name = f"{'nested run' if nested else 'run'} {one.execution_id}"
    line = Text.assemble((f" {symbol(on, mark)} {'intact' if ok else 'damaged'}", style), f"  {name}")
    on.print(line, soft_wrap=True)
    if one.damage is not None:
        print_paragraph(on, Text(f"record {one.damage.seq}: {one_line(one.damage.why)}", style="red"), indent=3)
        return
    end = "from its start to its end" if chain.complete else "so far; the run has not ended"
    print_paragraph(on, f"{plural(chain.count, 'record')}, {end}", indent=3)
    for redacted in chain.redacted:
        when = local_time(redacted.at, time.time())
        note = f": {one_line(redacted.note)}" if redacted.note else ""
        told = f"record {redacted.seq} ({redacted.type}) redacted by {one_line(redacted.by)}, {when}{note}"
        print_paragraph(on, Text(told, style="yellow"), indent=3)
    on.print(Text(f"   head {chain.head}", style="dim"), soft_wrap=True)


def _print_head(on: Console, one: _Checked, head: str, place: int | None) -> None:
    if place is None:
        print_paragraph(
            on,
            Text(f"no record has the hash {head}: it is another journal, or was written anew", style="red"),
            indent=3,
        )
        return
    since = one.chain.count - place
    more = f"; {plural(since, 'record')} came after it" if since else ""
    print_paragraph(on, Text(f"{head:.16} is the hash of record {place}{more}", style="green"), indent=3)
    later = [str(told.seq) for told in one.chain.redacted if told.seq <= place < told.declared_in]
    if later:
        text = f"what stood in record {', '.join(later)} then was replaced since: the hash says nothing of it"
        print_paragraph(on, Text(text, style="yellow"), indent=3)


def _print_all(on: Console, checked: Sequence[_Checked]) -> None:
    for one in checked:
        if one.damage is not None:
            _print(on, one, nested=False)
    damaged = sum(one.damage is not None for one in checked)
    redacted = sum(bool(one.chain.redacted) for one in checked)
    more = f", {redacted} with redactions" if redacted else ""
    line = f" {plural(len(checked), 'run')}, {plural(sum(one.chain.count for one in checked), 'record')}: "
    end = (f"{damaged} damaged", "red") if damaged else ("all intact", "green")
    on.print(Text.assemble(line, end, more), soft_wrap=True)


def _document(checked: Sequence[_Checked], head: str, place: int | None) -> dict[str, Json]:
    runs: list[Json] = [
        {
            "execution_id": one.execution_id,
            "intact": one.damage is None and not one.gone,
            "gone": one.gone,
            "complete": one.chain.complete,
            "records": one.chain.count,
            "head": one.chain.head,
            "damage": None if one.damage is None else {"seq": one.damage.seq, "why": one.damage.why},
            "redacted": [
                {
                    "seq": it.seq,
                    "type": it.type,
                    "by": it.by,
                    "at": it.at,
                    "note": it.note,
                    "declared_in": it.declared_in,
                }
                for it in one.chain.redacted
            ],
        }
        for one in checked
    ]
    asked: dict[str, Json] = {"head": head, "head_is_record": place} if head else {}
    intact = all(one.damage is None for one in checked) and not (head and place is None)
    return {"intact": intact, "runs": runs, **asked}
