"""How commands that run agents for others write log records: on standard error, each with its run and its trace."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import click

from oao_harness.listeners.logs import JsonFormatter, install_log_fields

__all__ = ["log_option", "log_to_stderr"]

F = TypeVar("F", bound=Callable[..., Any])


def log_option(function: F) -> F:
    """Give a command the option `--log-format`."""
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How log records are written on standard error; each has execution_id and trace_id.",
    )(function)


def log_to_stderr(log_format: str) -> None:
    """Write warnings and errors of this process on standard error.

    Args:
        log_format: `text`, or `json` for one object a line.
    """
    install_log_fields()
    handler = logging.StreamHandler()
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
