"""`oao approvals`: the calls that wait for a person."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import compact, console, one_line, print_json
from oao_harness.cli.render import Column, print_columns
from oao_harness.cli.stores import DEFAULT_STORE, kept, open_store, store_option
from oao_harness.cli.units import ago, duration, plural
from oao_harness.journal.doubts import Doubt
from oao_harness.journal.inbox import doubts_of_runs, questions_of_runs
from oao_harness.journal.questions import Question, State, answer_fields, request_fields
from oao_harness.journal.timeline import short_id
from oao_harness.runtime.doubts import doubt_fields
from oao_hookspecs import Approve, Json

__all__ = ["command"]

_COLUMNS = (
    Column(title="id"),
    Column(title="agent", optional=True),
    Column(title="tool", shrinks=True),
    Column(title="rule"),
    Column(title="asked"),
    Column(title="answers"),
    Column(title="expires"),
)
_DOUBT_COLUMNS = (
    Column(title="id"),
    Column(title="agent", optional=True),
    Column(title="tool", shrinks=True),
    Column(title="began"),
    Column(title="state"),
)
_STYLES = {"pending": "yellow", "approved": "green", "rejected": "red", "expired": "dim"}


@click.command("approvals", short_help="List the calls that wait for a person.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list on standard output.")
@store_option
def command(as_json: bool, store: str) -> None:
    """List the calls that wait for a person, the oldest first.

    \b
    Examples:
      oao approvals
      oao approvals --json | jq '.[].arguments'
    """  # noqa: D301 - click reads the control character as "do not wrap"
    now = time.time()
    found: list[tuple[Question, State]] = []
    doubts: list[Doubt] = []
    if kept(store):
        with open_store(store) as opened:
            found = [(question, state) for _, question, state in questions_of_runs(opened, now)]
            doubts = doubts_of_runs(opened)
    if as_json:
        listed = [_as_json(question, state) for question, state in found]
        print_json([*listed, *({**doubt_fields(doubt), "state": "in doubt"} for doubt in doubts)], indent=2)
        return
    on = console()
    where = "" if store == DEFAULT_STORE else f" --store {store}"
    if found:
        _print_questions(on, found, now, where)
    elif not doubts:
        on.print("Nothing waits for an answer.")
    if doubts:
        _print_doubts(on, doubts, now, where)


def _print_questions(on: Console, found: Sequence[tuple[Question, State]], now: float, where: str) -> None:
    rows: list[list[Text] | Text] = []
    for question, state in found:
        rows.append(_cells(question, state, now))
        # Whoever answers must see what: on a line of its own there is most room.
        rows.append(Text(compact(question.request.arguments)))
    print_columns(on, _COLUMNS, rows, under=1)
    on.print()
    hint = f" {plural(len(found), 'question')}; oao approve ID{where} or oao reject ID --reason TEXT{where} answers one"
    on.print(Text(hint, style="dim"), soft_wrap=True)


def _print_doubts(on: Console, doubts: Sequence[Doubt], now: float, where: str) -> None:
    """Print the calls of which nobody knows whether they happened."""
    rows: list[list[Text] | Text] = []
    for doubt in doubts:
        id_ = Text(f"{doubt.execution_id[:8].rstrip('-')}#{doubt.n}", style="bold")
        texts = (Text(one_line(doubt.agent_name)), Text(one_line(doubt.tool)), Text(ago(now - doubt.began_at)))
        rows.append([id_, *texts, Text("in doubt: nobody knows whether it happened", style="red")])
        rows.append(Text(compact(doubt.arguments)))
    on.print()
    print_columns(on, _DOUBT_COLUMNS, rows, under=1)
    on.print()
    hint = f" {plural(len(doubts), 'call')} in doubt; look, then: oao resolve ID --landed | --did-not-happen{where}"
    on.print(Text(hint, style="dim"), soft_wrap=True)


def _cells(question: Question, state: State, now: float) -> list[Text]:
    request = question.request
    left_s = request.expires_at - now
    answered = state if request.needed == 1 or state != "pending" else f"{len(question.answers)} of {request.needed}"
    edited = [
        compact(answer.arguments) for answer in question.answers if isinstance(answer, Approve) and answer.arguments
    ]
    if edited:
        answered += f", for {edited[-1]}"
    return [
        Text(short_id(request.id), style="bold"),
        Text(one_line(request.agent_name)),
        Text(one_line(request.tool)),
        Text(one_line(request.rule)),
        Text(ago(now - request.requested_at)),
        Text(answered, style=_STYLES[state]),
        Text(f"in {duration(left_s)}" if left_s > 0 else "expired"),
    ]


def _as_json(question: Question, state: State) -> dict[str, Json]:
    answers: list[Json] = [answer_fields(question.request, answer) for answer in question.answers]
    return {**request_fields(question.request), "state": state, "answers": answers}
