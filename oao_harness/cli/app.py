"""The group `oao`: names its commands without importing them, and prints the user's mistakes without a traceback."""

from __future__ import annotations

import difflib
import importlib
import keyword
import sys
from importlib.metadata import entry_points
from typing import Final, cast

import click
from click.exceptions import NoArgsIsHelpError

from oao_harness.errors import StoreError, UsageError

__all__ = ["COMMANDS", "main"]

# Said here and not in the commands, because importing those to print a list would cost half a second.
COMMANDS: Final = {
    "accept": "Make pending recordings the recordings.",
    "approvals": "List the calls that wait for a person.",
    "approve": "Let a held call happen, once.",
    "demo": "See in ten seconds what oao does; needs no key and no server.",
    "diff": "Show how two runs or recordings differ.",
    "export": "Make a stored run a recording file.",
    "fork": "Run an agent again from the middle of a run.",
    "fuzz": "Search for a program that breaks a rule under a policy.",
    "graph": "Draw a graph of agents.",
    "hooks": "Print every hook that a plugin can implement.",
    "import": "Turn cassettes and other tools' runs into recordings.",
    "jobs": "Show what a fleet has to do, and who does it.",
    "keys": "Make, list and revoke the API keys of a server.",
    "mcp-proxy": "Put policy and journal in front of an MCP server.",
    "pending": "List the recordings that wait for a person.",
    "plugins": "Show the plugins; sign, check, trust and write them.",
    "policy": "Check a policy; see what another one would change.",
    "prune": "Delete recordings whose test is gone.",
    "redact": "Take a text or a content out of a stored run, for good.",
    "reject": "Refuse a held call, or delete pending recordings.",
    "replay": "Play a recording or a stored run again, offline.",
    "resolve": "Say what became of a call in doubt.",
    "resume": "Go on with a run that was suspended or interrupted.",
    "review": "Walk through the pending recordings: accept, reject, skip.",
    "run": "Run an agent under governance and report.",
    "runs": "List the journaled runs, newest first; delete old ones.",
    "serve": "Serve the registered agents over HTTP.",
    "show": "Show what happened in one run, call by call.",
    "submit": "Queue a run of a registered agent for a worker.",
    "verify": "Check that the journal of a run is what was written.",
    "worker": "Do the jobs of a fleet, until told to stop.",
}


class _Mistake(click.ClickException):
    r"""Something that the user can mend: one red line, exit code 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        from oao_harness.cli.console import print_error  # noqa: PLC0415 - rich, only where it is needed

        print_error(self.message)


class _Commands(click.Group):
    r"""Imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            # No plugin is imported for a command of ours.
            return _of_plugins()[0].get(cmd_name)
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name.replace("-", "_")
        return cast("click.Command", importlib.import_module(f"oao_harness.cli.{module}").command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            offered, problems = _of_plugins()
            if args[0] not in offered:
                known = sorted({*COMMANDS, *offered})
                close = difflib.get_close_matches(args[0], known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise _Mistake("\n".join([f"there is no command {args[0]!r}; {hint}", *problems]))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))
        offered, problems = _of_plugins()
        if offered:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, one.get_short_help_str()) for name, one in sorted(offered.items())])
        if problems:
            from oao_harness.cli.console import print_error  # noqa: PLC0415 - rich, only where it is needed

            for problem in problems:
                print_error(problem)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _mistake(error) from error

    def invoke(self, ctx: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):
            # An agent may say what the terminal's encoding does not have: shown escaped, never a crash.
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except (UsageError, StoreError) as error:
            raise _Mistake(str(error)) from error
        except click.UsageError as error:
            raise _mistake(error) from error


def _of_plugins() -> tuple[dict[str, click.Command], list[str]]:
    """Return the commands of installed plugins by name, and what is wrong with some, a line for each."""
    if not any(True for _ in entry_points(group="oao")):
        return {}, []
    # Policies, packages of signatures and TOML: only where there is a plugin.
    from oao_harness.plugins.offers import offered_commands  # noqa: PLC0415

    offers, problems = offered_commands()
    found: dict[str, tuple[str, click.Command]] = {}
    taken: set[str] = set()
    for offer in offers:
        command = offer.what
        if not isinstance(command, click.Command) or not command.name:
            problems.append(f"plugin {offer.plugin!r} offers {command!r:.80} as a command; offer click commands")
        elif command.name in COMMANDS:
            problems.append(f"plugin {offer.plugin!r} offers a command {command.name!r}, which oao has; it is left out")
        elif command.name in found:
            taken.add(command.name)
            problems.append(
                f"plugins {found[command.name][0]!r} and {offer.plugin!r} both offer a command {command.name!r}; both "
                "are left out: disable one under [tool.oao]"
            )
        else:
            found[command.name] = offer.plugin, command
    return {name: command for name, (_, command) in found.items() if name not in taken}, problems


def _mistake(error: click.UsageError) -> click.ClickException:
    """Return what click says in four lines as one; a group without a command is no mistake, and prints its help."""
    if isinstance(error, NoArgsIsHelpError):
        return error
    said = error.format_message().rstrip(".")
    command = "oao" if error.ctx is None else error.ctx.command_path
    return _Mistake(f"{said[:1].lower()}{said[1:]} (see {command} --help)")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="oao-harness", message="oao %(version)s")
def main() -> None:
    """Govern, record and replay AI agents.

    Every model call and every tool call of an agent goes through one gate, which asks the policies, writes the
    journal, and only then acts.

    \b
    Examples:
      oao demo
      oao run my_agents:support "Order A-1042 arrived broken"
      oao show last
    """  # noqa: D301 - click reads the control character as "do not wrap"
