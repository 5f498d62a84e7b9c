"""`oao redact`: takes a text or a whole content out of a stored run, for good."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import cast

import click
from rich.console import Console
from rich.text import Text

from oao_harness.cli.console import console, one_line
from oao_harness.cli.erasing import compact_store
from oao_harness.cli.principals import as_user
from oao_harness.cli.stores import find_outer_run, kept, open_store, store_option
from oao_harness.cli.trees import forks_of, nested_in
from oao_harness.cli.units import plural
from oao_harness.config import project_scrubber
from oao_harness.errors import StoreError, UsageError
from oao_harness.journal.records import VERSION
from oao_harness.journal.redacting import Redactor, Wanted, content_of, declaration, places
from oao_harness.journal.secrets import REDACTED, Redaction, Scrubber
from oao_harness.journal.timeline import text
from oao_harness.runtime.clock import SystemClock
from oao_hookspecs import Record, Store, without_hash

__all__ = ["command"]

_LEASE_S = 60.0
# Below this, what a text looks like inside of base64 is too short to be told from chance.
_SPELLED = 8
_SHORTEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the options name."""

    texts: Mapping[str, str]
    """What stands for each text."""
    redaction: Redaction
    declared: bool
    wanted: Wanted

    def scrubber(self, records: Sequence[Record]) -> Scrubber:
        """Return what is replaced everywhere, the contents of the calls that are named among it."""
        contents = dict.fromkeys(content_of(records, self.wanted), REDACTED)
        texts = {**contents, **self.texts}
        short = tuple(re.compile(re.escape(one)) for one in texts if len(one) < _SPELLED)
        redaction = replace(self.redaction, patterns=(*self.redaction.patterns, *short))
        if self.declared:
            declared = project_scrubber()
            texts = {**declared.replacements, **texts}
            redaction = Redaction(
                patterns=(*declared.redact.patterns, *redaction.patterns),
                paths=(*declared.redact.paths, *redaction.paths),
            )
        return Scrubber.naming({one: name for one, name in texts.items() if len(one) >= _SPELLED}, redaction)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What is to be put in place of which records of one run."""

    execution_id: str
    records: Sequence[Record]
    replaced: Mapping[int, Record]


@click.command("redact", short_help="Take a text or a content out of a stored run, for good.")
@click.argument("id", metavar="ID")
@click.option(
    "--text",
    "texts",
    multiple=True,
    metavar="TEXT",
    help="This text, wherever it stands; - reads it from standard input.",
)
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="The value of this environment variable.")
@click.option(
    "--pattern", "patterns", multiple=True, metavar="REGEX", help="What it finds, or its groups where it has any."
)
@click.option(
    "--field", "fields", multiple=True, metavar="PATH", help="A place, as in [tool.oao.redact]: tool.pay.req.card"
)
@click.option(
    "--call", "calls", multiple=True, type=click.IntRange(min=1), metavar="N", help="All that call N asked and got."
)
@click.option("--task", is_flag=True, help="The task of the run.")
@click.option("--output", is_flag=True, help="The output of the run.")
@click.option("--content", is_flag=True, help="Task, output, and all that any call asked and got.")
@click.option("--declared", is_flag=True, help="What [tool.oao.redact] declares, and the secrets of the environment.")
@click.option("--forks", is_flag=True, help="Also in the runs that were forked from it.")
@click.option("--by", default=None, metavar="NAME", help="Who does it; the login name by default.")
@click.option("--note", default="", metavar="TEXT", help="Why; kept in the journal.")
@click.option("--dry-run", is_flag=True, help="Say what would be replaced, and replace nothing.")
@click.option("--yes", is_flag=True, help="Do it without asking.")
@store_option
def command(
    id: str,
    *,
    texts: Sequence[str],
    secrets: Sequence[str],
    patterns: Sequence[str],
    fields: Sequence[str],
    calls: Sequence[int],
    task: bool,
    output: bool,
    content: bool,
    declared: bool,
    forks: bool,
    by: str | None,
    note: str,
    dry_run: bool,
    yes: bool,
    store: str,
) -> None:
    """Take a text or a whole content out of a stored run and the runs nested in it, for good.

    Nothing of it is left in the store. The journal says who did it, when and why, and oao verify still vouches for the
    rest. A text is also found as JSON, URLs and base64 spell it; longer texts of a content that goes (--call, --task,
    --output) go wherever else they stand. Recordings and exports are files of their own: they stay as they are.

    \b
    Examples:
      oao redact 3f2a --text alice@example.com --note "request 117" --dry-run
      oao redact 3f2a --secret STRIPE_KEY --pattern '[0-9]{16}'
      oao redact last --call 4 --task --yes
    """  # noqa: D301 - click reads the control character as "do not wrap"
    wanted = Wanted(calls=frozenset(calls), task=task or content, output=output or content, everything=content)
    named = {**dict.fromkeys(map(_text, texts), REDACTED), **{_secret(one): f"<env:{one}>" for one in secrets}}
    redaction = Redaction(
        patterns=tuple(map(_pattern, patterns)), paths=tuple(tuple(path.split(".")) for path in map(_path, fields))
    )
    asked = _Asked(texts=named, redaction=redaction, declared=declared, wanted=wanted)
    if not (named or patterns or fields or calls or task or output or content or declared):
        raise UsageError(
            "say what shall go: --text, --secret, --pattern, --field, --call, --task, --output or --content"
        )
    if not kept(store):
        raise UsageError("no run is journaled here yet, so there is nothing to redact")
    who = as_user(by, (), "").id
    on = console()
    with open_store(store) as opened, ExitStack() as leases:
        records = find_outer_run(opened, id)
        execution_id = text(records[0], "execution_id")
        _require_calls(records, wanted, execution_id)
        ids = _family(opened, execution_id, records, forks=forks)
        if not dry_run:
            preview = _plans(opened, ids, asked, records)
            _print_plans(on, preview)
            if not any(plan.replaced for plan in preview):
                _print_forks(on, opened, execution_id, asked, records, forks=forks)
                return
            if not yes and not _confirmed(preview):
                on.print("Nothing was redacted.")
                return
        epochs = {} if dry_run else {one: _claimed(opened, one, who, leases) for one in ids}
        # Read again: nobody else writes any more.
        plans = _plans(opened, ids, asked, list(opened.read(execution_id)))
        if dry_run:
            _print_plans(on, plans)
            on.print(Text("nothing was replaced: --dry-run", style="dim"))
        else:
            for plan in plans:
                if plan.replaced:
                    _rewrite(opened, plan, epochs[plan.execution_id], who, _said(note, asked, records))
            leases.close()
            compact_store(opened, on)
            on.print(Text.assemble(("redacted ", "green"), _counted(plans)), soft_wrap=True)
        _print_forks(on, opened, execution_id, asked, records, forks=forks)


def _text(given: str) -> str:
    found = sys.stdin.read().strip("\r\n") if given == "-" else given
    if len(found) < _SHORTEST:
        raise UsageError(
            f"--text needs {_SHORTEST} characters or more, or it is found everywhere; use --pattern or --field"
        )
    return found


def _secret(name: str) -> str:
    value = os.environ.get(name, "")
    if len(value) < _SHORTEST:
        what = "is not set" if not value else "is too short to be a secret"
        raise UsageError(
            f"--secret {name}: the environment variable {name} {what}; give the value on standard input: --text -"
        )
    return value


def _pattern(given: str) -> re.Pattern[str]:
    try:
        found = re.compile(given)
    except re.error as error:
        raise UsageError(f"--pattern {given!r:.80} is no regular expression: {error}") from error
    if found.search(""):
        raise UsageError(f"--pattern {given!r:.80} finds the empty text, which is everywhere; write what it must find")
    return found


def _path(given: str) -> str:
    parts = given.split(".")
    if len(parts) < 2 or not all(parts) or parts[0] not in {"tool", "model", "http", "*", "**"}:
        raise UsageError(f"--field {given!r:.80} is no place; write kind, name, req|res|error, keys: tool.pay.req.card")
    return given


def _require_calls(records: Sequence[Record], wanted: Wanted, execution_id: str) -> None:
    known = {cast("int", record["n"]) for record in records if record["type"] == "call"}
    unknown = sorted(set(wanted.calls) - known)
    if unknown:
        raise UsageError(
            f"run {execution_id[:8]} has no call #{unknown[0]}; oao show {execution_id[:8]} lists its {len(known)}"
        )


def _family(store: Store, execution_id: str, records: Sequence[Record], *, forks: bool) -> list[str]:
    """Return the ids of a run, of those nested in it and, where asked, of its forks and those nested in them."""
    found = [execution_id, *(one for one in nested_in(store, records) if any(True for _ in store.read(one)))]
    if forks:
        for row in forks_of(store, execution_id):
            found += _family(store, row.execution_id, list(store.read(row.execution_id)), forks=True)
    return list(dict.fromkeys(found))


def _plans(store: Store, ids: Sequence[str], asked: _Asked, records: Sequence[Record]) -> list[_Plan]:
    scrubber = asked.scrubber(records)
    plans: list[_Plan] = []
    for one in ids:
        own = list(store.read(one))
        is_outer = one == ids[0] or any(record.get("forked") for record in own[:1])
        # A number means a call of the run that was named, and of its forks, which share its beginning.
        wanted = asked.wanted if is_outer else Wanted(everything=asked.wanted.everything)
        redactor = Redactor(scrubber=scrubber, wanted=wanted)
        kept_back = redactor.kept_back(own)
        if kept_back:
            seq, name = kept_back[0]
            raise UsageError(
                f"it also stands in {name!r} of record {seq} of run {one[:8]}, by which runs are found: it cannot "
                "be redacted; choose a narrower --pattern, or delete the run with oao runs prune"
            )
        plans.append(_Plan(execution_id=one, records=own, replaced=redactor.replacements(own)))
    return plans


def _claimed(store: Store, execution_id: str, who: str, leases: ExitStack) -> int:
    epoch = store.claim(execution_id, owner=f"oao redact by {who}", ttl_s=_LEASE_S)
    leases.callback(store.release, execution_id, epoch)
    return epoch


def _said(note: str, asked: _Asked, records: Sequence[Record]) -> str:
    return Redactor(scrubber=asked.scrubber(records)).note(note)


def _rewrite(store: Store, plan: _Plan, epoch: int, by: str, note: str) -> None:
    told: Record = {
        "v": VERSION,
        "seq": len(plan.records) + 1,
        "type": "redaction",
        "at": SystemClock().time(),
        **declaration(plan.replaced, by, note),
    }
    try:
        store.rewrite(plan.execution_id, epoch, plan.replaced, told)
    except StoreError as error:
        raise StoreError(f"run {plan.execution_id[:8]} was not redacted: {error}; do it again") from error


def _print_plans(on: Console, plans: Sequence[_Plan]) -> None:
    for plan in plans:
        if not plan.replaced:
            continue
        on.print(Text(f" run {plan.execution_id}", style="bold"), soft_wrap=True)
        for seq, new in sorted(plan.replaced.items()):
            old = without_hash(plan.records[seq - 1])
            number = f" #{old['n']}" if "n" in old else ""
            count = sum(places(old[key], new[key]) for key in old if key != "redacted")
            where = ", ".join(key for key in old if key != "redacted" and old[key] != new[key])
            name = f" {one_line(text(old, 'name'))}" if "name" in old and old["name"] == new["name"] else ""
            line = f"   record {seq}: {old['type']}{number}{name}, {plural(count, 'place')} in {where}"
            on.print(Text(line), no_wrap=True, overflow="ellipsis", crop=True)
    if not any(plan.replaced for plan in plans):
        on.print("nothing of it is in this run")


def _counted(plans: Sequence[_Plan]) -> str:
    touched = [plan for plan in plans if plan.replaced]
    runs = f" in {plural(len(touched), 'run')}" if len(touched) > 1 else ""
    return f"{plural(sum(len(plan.replaced) for plan in touched), 'record')}{runs}"


def _confirmed(plans: Sequence[_Plan]) -> bool:
    what = _counted(plans)
    if not sys.stdin.isatty():
        raise UsageError(f"{what} would be redacted for good; say --yes to do it without being asked, or --dry-run")
    return click.confirm(f"Redact {what} for good?")


def _print_forks(
    on: Console, store: Store, execution_id: str, asked: _Asked, records: Sequence[Record], *, forks: bool
) -> None:
    """Name the runs that hold copies of what was taken out."""
    related = {} if forks else {row.execution_id: "is a fork of it" for row in forks_of(store, execution_id)}
    source = records[0].get("forked")
    if isinstance(source, Mapping):
        related[text(source, "run")] = "is what it was forked from"
    for one, what in related.items():
        own = list(store.read(one))
        ids = _family(store, one, own, forks=True) if own else []
        if any(plan.replaced for plan in _plans(store, ids, replace(asked, wanted=Wanted()), records)):
            line = f"run {one[:8]} {what} and holds it too: oao redact {one[:8]} ... --forks"
            on.print(Text(line, style="yellow"), soft_wrap=True)
