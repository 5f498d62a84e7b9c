"""`oao plugins`: what is about plugins."""

from __future__ import annotations

import click

from oao_harness.cli.plugins_new import command as new

__all__ = ["command"]


@click.group("plugins", short_help="Write plugins.")
def command() -> None:
    """Write plugins.

    \b
    Examples:
      oao plugins new quiet-hours
    """  # noqa: D301 - click reads the control character as "do not wrap"


command.add_command(new)
