"""`oao fuzz`: searches for an agent program that breaks a rule although a policy is in force."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from oao_harness.cli.console import console, print_json, print_paragraph, symbol
from oao_harness.cli.tools_of import tools_of
from oao_harness.cli.units import count, duration, plural
from oao_harness.errors import UsageError
from oao_harness.loading import import_policies, load_agent, prefer_working_folder
from oao_harness.policy.project import find_project_policy, shown

if TYPE_CHECKING:
    from pytest_oao.testing.fuzz.rules import FuzzRule, Kind
    from pytest_oao.testing.fuzz.saving import Saved
    from pytest_oao.testing.fuzz.search import Outcome

__all__ = ["command"]

F = TypeVar("F", bound=Callable[..., Any])

_RULES: Final = (
    ("never", "TOOLS", "These must not be called: 'pay', 'pay where args.amount > 100', 'send_* after read_inbox'."),
    ("only", "TOOLS", "Only once another one succeeded: 'pay after check_balance'."),
    ("at_most", "TOOLS", "So many calls: 'refund 3'."),
    ("sums_at_most", "TOOL.ARG", "What all calls come to: 'refund.amount 100'."),
    (
        "spends_at_most",
        "WHAT=N",
        "tokens, input_tokens, output_tokens, model_calls, tool_calls or steps: 'tokens=500'.",
    ),
    ("rule", "MODULE:FUNC", "A function that takes the finished trial and asserts."),
)
_SHOWN: Final = 12


def _rule_options(function: F) -> F:
    for name, metavar, help_ in reversed(_RULES):
        flag = f"--{name.replace('_', '-')}"
        function = click.option(flag, name, metavar=metavar, multiple=True, help=help_)(function)
    return function


@click.command("fuzz", short_help="Search for a program that breaks a rule under a policy.")
@click.option("--policy", "policies", multiple=True, metavar="NAME|FILE", help="As in `oao run`.")
@_rule_options
@click.option("--tools", default="", metavar="A,B", help="The only tools there are.")
@click.option("--agent", metavar="MODULE:AGENT", help="The only tools are those of this agent.")
@click.option("--examples", default=1000, show_default=True, type=click.IntRange(1), help="Programs to try at most.")
@click.option(
    "--seconds", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="For how long."
)
@click.option("--seed", default=0, show_default=True, help="Another one tries other programs.")
@click.option("--save", "folder", metavar="FOLDER", help="Where the test is written; tests/ or here by default.")
@click.option("--no-save", is_flag=True, help="Write no files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    policies: Sequence[str],
    tools: str,
    agent: str | None,
    examples: int,
    seconds: float,
    seed: int,
    folder: str | None,
    no_save: bool,
    as_json: bool,
    **said: Sequence[str],
) -> None:
    """Search for an agent program that breaks a stated rule although a policy is in force.

    What is found is made small, printed as code, and saved as a recording and a test: pytest fails until the policy
    is mended. Names of tools are compared without regard to case. Exit code: 0 where nothing was found, which is no
    proof, 1 where a rule was broken, 2 where the command is wrong.

    \b
    Examples:
      oao fuzz --policy policy.toml --never pay
      oao fuzz --policy policy.toml --never 'send_* after read_inbox'
      oao fuzz --policy strict --sums-at-most 'refund.amount 100' --seconds 20
    """  # noqa: D301 - click reads the control character as "do not wrap"
    if importlib.util.find_spec("hypothesis") is None:
        raise UsageError("oao fuzz needs Hypothesis: pip install 'oao-harness[fuzz]'")
    from pytest_oao.testing.fuzz.rules import parse_rule  # noqa: PLC0415 - Hypothesis is an extra
    from pytest_oao.testing.fuzz.saving import save  # noqa: PLC0415
    from pytest_oao.testing.fuzz.search import search  # noqa: PLC0415

    prefer_working_folder()
    rules = [parse_rule(cast("Kind", kind), one) for kind, _, _ in _RULES for one in said[kind]]
    if not rules:
        raise UsageError("say what must hold: --never pay, --at-most 'refund 3' ... (see oao fuzz --help)")
    names = list(policies) or _project_policies()
    import_policies(names)
    known = [name.strip() for name in tools.split(",") if name.strip()]
    if agent is not None:
        known += tools_of(load_agent(agent))
        if not known:
            raise UsageError(f"the tools of {agent!r} cannot be listed; name them with --tools a,b,c")
    with _bar(examples, hidden=as_json) as tell:
        outcome = search(names, rules, tools=known, examples=examples, seconds=seconds, seed=seed, tell=tell)
    saved = None
    if outcome.attempt is not None and not no_save:
        place = folder or ("tests" if Path("tests").is_dir() else ".")
        saved = save(outcome, Path(place), names)
    if as_json:
        print_json(_document(outcome, rules, names, saved), indent=2)
    else:
        _print(console(), outcome, rules, names, saved)
    ctx.exit(0 if outcome.attempt is None else 1)


def _project_policies() -> list[str]:
    project = find_project_policy()
    if project is None:
        raise UsageError("no policy is named: give --policy, or name one in pyproject.toml under [tool.oao]")
    return [project.policy]


class _bar:  # noqa: N801 - used as `with _bar(...)`
    """A progress bar on standard error, only on a terminal."""

    def __init__(self, total: int, *, hidden: bool) -> None:
        on = console(stderr=True)
        columns = (TextColumn("programs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=on, transient=True, disable=hidden or not on.file.isatty())
        self._total = total

    def __enter__(self) -> Callable[[int], None]:
        self._bar.start()
        task = self._bar.add_task("", total=self._total)
        return lambda done: self._bar.update(task, completed=min(done, self._total))

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()


def _print(on: Console, outcome: Outcome, rules: Sequence[FuzzRule], names: Sequence[str], saved: Saved | None) -> None:
    tried = f"{plural(outcome.programs, 'program')} in {duration(outcome.seconds)}, seed {outcome.seed}"
    if outcome.attempt is None or outcome.rule is None:
        said = "; ".join(rule.text for rule in rules)
        print_paragraph(on, Text(f"{symbol(on, '✔')} nothing found that breaks: {said}", style="green"))
        print_paragraph(on, f"{tried}, under {', '.join(names)}: a search, no proof.")
        for line in _searched(outcome):
            print_paragraph(on, Text(line, style="dim"), indent=3)
        return
    print_paragraph(on, Text(f"{symbol(on, '✘')} broken: {outcome.rule.text}", style="bold red"))
    print_paragraph(on, f"{outcome.how}, although {', '.join(names)} was in force.")
    on.print()
    for line in repr(outcome.attempt.program).splitlines():
        on.print(Text(f"   {line}", style="cyan"), soft_wrap=True)
    on.print()
    print_paragraph(
        on, Text(f"found after {tried}; breaks it in {outcome.again} of {outcome.tries} tries", style="dim")
    )
    if saved is not None:
        print_paragraph(
            on, f"saved {shown(saved.test.absolute())} and its recording; until the policy is mended it fails:"
        )
        on.print(Text(f"   pytest {shown(saved.test.absolute())}", style="bold"), soft_wrap=True)


def _searched(outcome: Outcome) -> list[str]:
    from pytest_oao.testing.fuzz.strategies import OPERATIONS  # noqa: PLC0415 - Hypothesis is an extra

    vocabulary, ended = outcome.vocabulary, outcome.ended
    tools = [*vocabulary.wanted, *vocabulary.others]
    more = f" and {len(tools) - _SHOWN} more" if len(tools) > _SHOWN else ""
    arguments = ", ".join(f"{name} ({plural(len(some), 'value')})" for name, some in vocabulary.values.items())
    judged = (
        f"{count(ended['SUCCESS'])} ran to their end, {count(ended['FAILED'])} were refused or failed, "
        f"{count(ended['SUSPENDED'])} were held for a person, whom nobody played"
    )
    return [
        f"operations: {', '.join(OPERATIONS)}",
        f"tools: {', '.join(tools[:_SHOWN])}{more}",
        f"arguments: {arguments or 'none'}",
        judged,
    ]


def _document(
    outcome: Outcome, rules: Sequence[FuzzRule], names: Sequence[str], saved: Saved | None
) -> dict[str, object]:
    vocabulary = outcome.vocabulary
    found = None
    if outcome.attempt is not None and outcome.rule is not None:
        found = {
            "rule": outcome.rule.text,
            "how": outcome.how,
            "program": repr(outcome.attempt.program).splitlines(),
            "breaks_again": [outcome.again, outcome.tries],
            "test": None if saved is None else str(saved.test),
            "recording": None if saved is None else shown(saved.recording),
        }
    return {
        "format": "oao-fuzz/1",
        "policy": list(names),
        "rules": [rule.text for rule in rules],
        "seed": outcome.seed,
        "programs": outcome.programs,
        "seconds": round(outcome.seconds, 3),
        "ended": json.loads(json.dumps(outcome.ended)),
        "tools": [*vocabulary.wanted, *vocabulary.others],
        "arguments": {name: list(some) for name, some in vocabulary.values.items()},
        "found": found,
    }
