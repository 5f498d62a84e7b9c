"""Hooks of the providing mode: always `def`, called when something is set up.

An error means that the set-up fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oao_hookspecs._markers import hookspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oao_hookspecs.calls import ModelCall, ToolTraits
    from oao_hookspecs.decisions import Limits, Price
    from oao_hookspecs.interfaces import Adapter, Ledger, RunView, Store
    from oao_hookspecs.schedulers import Scheduler, SchedulerSettings


@hookspec
def oao_limits(run: RunView) -> Limits | None:
    """Name what the run may spend.

    Called once per run, in PLAN. All answers are combined, the strictest value of each field holds. The
    gate keeps the limits itself, so that parallel calls cannot pass one together.

    Args:
        run: The run, before anything of it happened; `run.limits` is empty.

    Mode: provide.
    """


@hookspec(firstresult=True)
def oao_price(call: ModelCall) -> Price | None:
    """Name the price of a model.

    Called once per model name and orchestrator, where a limit on money is set. The first answer
    that is not None is used; where there is none, the price is unknown, which is never free.

    Args:
        call: A request to the model.

    Mode: provide.
    """


@hookspec(firstresult=True)
def oao_describe_tool(name: str) -> ToolTraits | None:
    """Declare what a tool does, for a tool that nobody can edit.

    Called once per tool name and orchestrator. The first answer that is not None is used; what the tool's own
    author declared is stronger.

    Args:
        name: Name of the tool.

    Mode: provide.
    """


@hookspec
def oao_policies() -> Mapping[str, Callable[[], object]]:
    """Offer policies by name, for `--policy NAME` and `Orchestrator(policy="NAME")`.

    Called once per plugin manager. Each value makes a new policy: an object with `oao_` hooks. A name that two
    plugins offer is an error.

    Mode: provide.
    """
    return {}


@hookspec
def oao_adapters() -> Sequence[Adapter]:
    """Offer adapters for further kinds of agent.

    Called once per plugin manager. They are asked before the built-in ones, in the order of registration.

    Mode: provide.
    """
    return ()


@hookspec
def oao_leaves() -> Sequence[tuple[str, Callable[[], None]]]:
    """Offer patches of a framework's leaves: the methods through which its calls really leave.

    Called once per plugin manager, before the first run. Each item is the name of a module and a function; the
    function is called once per process, as soon as that module is imported, which may be at once. It must
    raise where the leaves are missing, and what it patches must be inert outside of runs.

    Mode: provide.
    """
    return ()


@hookspec
def oao_listeners() -> Sequence[object]:
    """Offer listeners: objects that observe runs, where the environment or configuration asks for them.

    Called once per plugin manager. Each is a plugin like any other, and may return the same object every time; one
    that is not offered costs a run nothing.

    Mode: provide.
    """
    return ()


@hookspec(firstresult=True)
def oao_traceparent(run: RunView | None) -> str | None:
    """Name the W3C trace context (`traceparent`) of a run, or of the code that submits a job.

    Called once when a run begins, after `oao_run_started`: its journal keeps the answer, so that who resumes it can
    link to it. And once per submitted job, with None: whoever runs it belongs to that trace. The first answer that is
    not None is used. An error is logged, and means that there is none.

    Args:
        run: The run; None for the code that submits.

    Mode: provide.
    """


@hookspec(firstresult=True)
def oao_open_store(url: str) -> Store | None:
    """Open the store that a URL names, for example `sqlite:.oao/oao.db` or `memory:`.

    Called once per URL. The first answer that is not None is used.

    Args:
        url: What the user wrote: `scheme:rest`.

    Mode: provide.
    """


@hookspec(firstresult=True)
def oao_open_ledger(url: str) -> Ledger | None:
    """Open the ledger that a URL names, for example `memory:team`, `sqlite:.oao/oao.db` or `redis://host:6379/0`.

    Called once per budget that is given a URL. The first answer that is not None is used.

    Args:
        url: What the user wrote: `scheme:rest`.

    Mode: provide.
    """


@hookspec
def oao_agents() -> Mapping[str, Callable[[], object]]:
    """Offer agents by name, for workers and servers: a job names one of these, never code.

    Called once per registry of agents. Each value returns the agent, or makes it; it is called once per process. A
    name that two plugins offer is an error.

    Mode: provide.
    """
    return {}


@hookspec(firstresult=True)
def oao_open_scheduler(url: str, settings: SchedulerSettings) -> Scheduler | None:
    """Open the scheduler that a URL names, for example `local:` or `redis://host:6379/0`.

    Called once per URL. The first answer that is not None is used.

    Args:
        url: What the user wrote: `scheme:rest`.
        settings: What the fleet asks of it.

    Mode: provide.
    """


@hookspec
def oao_redactors() -> Sequence[Callable[[str], str]]:
    """Offer redactors: functions that take out of a text what may not be written.

    Called once whenever the writing of recordings, or of contents, is set up. Each function is given every text
    of them, and returns the text without what is secret: the same for the same text, and nothing new to redact in what
    it returned. Where one fails, the whole text is withheld.

    Mode: provide.
    """
    return ()


@hookspec
def oao_commands() -> Sequence[object]:
    """Offer commands of the command line `oao`: `click.Command` objects, which have names.

    Called once per process, when `oao` lists its commands, or is given one that is not its own. A name that `oao` or
    another plugin has is an error, said in one line; it never replaces a command.

    Mode: provide.
    """
    return ()
