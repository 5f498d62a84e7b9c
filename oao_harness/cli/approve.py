"""`oao approve` and what `oao reject` shares with it: a person's answer to a held call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

import click
from rich.text import Text

from oao_harness.cli.console import compact, console, one_line
from oao_harness.cli.principals import as_user, principal_options
from oao_harness.cli.stores import DEFAULT_STORE, kept, open_store, store_option
from oao_harness.errors import UsageError
from oao_harness.journal.inbox import answer_question
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import ApprovalAnswer, ApprovalRequest, Approve, Json

__all__ = ["command", "give_answer"]


@click.command("approve", short_help="Let a held call happen, once.")
@click.argument("id", metavar="ID")
@click.option("--edit", metavar="JSON", help="Other arguments, as a JSON object; the policies judge the call again.")
@click.option("--note", default="", metavar="TEXT", help="Kept in the journal.")
@principal_options
@store_option
def command(
    id: str, *, edit: str | None, note: str, who: str | None, roles: Sequence[str], tenant: str, store: str
) -> None:
    """Let a held call happen, once. `oao resume` then goes on with the run.

    ID is the id of a question (oao approvals), the unique start of one, such as the id of its run, or `last`, the
    newest one. The approval is good for exactly this call: agent, tool, arguments, principal and policy.

    \b
    Examples:
      oao approve 3f2a --as alice --role manager
      oao approve 3f2a --edit '{"to": "bob", "amount": 5}' --note "less will do"
    """  # noqa: D301 - click reads the control character as "do not wrap"
    answer = Approve(by=as_user(who, roles, tenant), arguments=None if edit is None else _arguments(edit), note=note)
    request = give_answer(store, id, answer)
    on = console()
    shown = Text.assemble(
        ("approved ", "green"), f"{one_line(request.tool)} {compact(answer.arguments or request.arguments)}"
    )
    on.print(shown, soft_wrap=True)
    where = "" if store == DEFAULT_STORE else f" --store {store}"
    on.print(Text(f"go on with: oao resume {request.execution_id}{where}", style="dim"), soft_wrap=True)


def give_answer(store: str, id: str, answer: ApprovalAnswer) -> ApprovalRequest:
    """Write an answer into the journal of the suspended run."""
    if not kept(store):
        raise UsageError("no run is journaled here yet, so nothing waits for an answer")
    with open_store(store) as opened:
        return answer_question(opened, id, answer, SystemClock())


def _arguments(text: str) -> dict[str, Json]:
    try:
        found: object = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--edit {text!r:.60} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"--edit {text!r:.60} is no JSON object; give all arguments, for example '{{\"amount\": 5}}'")
    return cast("dict[str, Json]", found)
