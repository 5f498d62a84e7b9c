"""Every exception that oao raises on purpose.

```text
BaseException
  RunHalted               raised into a foreign framework by the gate; sticky, so that catching it changes nothing
    RunSuspended          a call is held until a person answers; the run goes on from its journal then
    PolicyViolation       a policy or a budget refused; also what a policy of one's own may raise
    ReplayDiverged        the run asked for something that its recording does not hold
Exception
  OaoError
    UsageError            the user can mend it; printed without a traceback
      ConfigError         a policy, limit, plugin or option is wrong
      AgentError          there is no way to run this agent, or it cannot be imported
      ChangedError          a run would go on with other code, or under another policy
      FrameworkError      an installed framework lacks the methods that oao governs
      RecordingError      a recording is truncated, of a newer format, or of another test
    GraphError            a node of a graph failed
    CodecError            a value cannot be written to, or read back from, a journal
    StoreError            a journal could not be kept or read
      FencedError         another writer has claimed the run
      BusyError           another writer's lease on the run holds
      DamagedError        a journal is not what was written
    IllegalTransition     the lifecycle was asked for a move it does not have
    ReplayedError         stands for a recorded exception whose class is not importable here
```

`RunHalted` derives from `BaseException`, because tool-error handlers, retries and fallbacks swallow `Exception`.
"""

from __future__ import annotations

__all__ = [
    "AgentError",
    "BusyError",
    "ChangedError",
    "CodecError",
    "ConfigError",
    "DamagedError",
    "FencedError",
    "FrameworkError",
    "GraphError",
    "IllegalTransition",
    "OaoError",
    "PolicyViolation",
    "RecordingError",
    "ReplayDiverged",
    "ReplayedError",
    "RunHalted",
    "RunSuspended",
    "StoreError",
    "UsageError",
]


class RunHalted(BaseException):
    """The run was stopped; every later call of it is refused with the same exception.

    Args:
        reason: One line for a person.
        rule: Name of the rule that stopped the run.
        plugin: Name of the plugin that the rule belongs to.
        n: Number of the refused call in the run, from 1; None where no single call is to blame.
        source: Where the rule is written, as `file:line`; empty where nobody knows.
    """

    def __init__(
        self, reason: str = "", *, rule: str = "", plugin: str = "", n: int | None = None, source: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rule = rule
        self.plugin = plugin
        self.n = n
        self.source = source


class PolicyViolation(RunHalted):
    """A policy or a budget refused a call, a task, an outcome or an output."""


class RunSuspended(RunHalted):
    """A call is held until a person answers; the run stops here and goes on from its journal then."""


class ReplayDiverged(RunHalted):
    """The run asked for something that its recording does not hold.

    Args:
        reason: See `RunHalted`; the first line stands alone.
        rule: See `RunHalted`.
        plugin: See `RunHalted`.
        n: See `RunHalted`.
        source: See `RunHalted`.
        kind: What kind of divergence; see `journal.replay.DivergenceKind`. Empty where nobody said.
        step: Number of the recorded event that the call was compared with; None where there is none.
    """

    def __init__(
        self,
        reason: str = "",
        *,
        rule: str = "",
        plugin: str = "",
        n: int | None = None,
        source: str = "",
        kind: str = "",
        step: int | None = None,
    ) -> None:
        super().__init__(reason, rule=rule, plugin=plugin, n=n, source=source)
        self.kind = kind
        self.step = step


class OaoError(Exception):
    """Base of all errors of oao that are not a halt."""


class UsageError(OaoError):
    """The user can mend it."""


class ConfigError(UsageError):
    """A policy, a limit, a plugin or an option is wrong."""


class AgentError(UsageError):
    """There is no way to run this agent, or it cannot be imported."""


class ChangedError(UsageError):
    """A run would go on with other code, or under another policy, than it began with."""


class FrameworkError(UsageError):
    """An installed framework lacks the methods that oao governs."""


class RecordingError(UsageError):
    """A recording is truncated, of a newer format, or of another test."""


class GraphError(OaoError):
    """A node of a graph failed, or an agent of several that were run together; the message names them."""


class CodecError(OaoError):
    """A value cannot be written to, or read back from, a journal."""


class StoreError(OaoError):
    """A journal could not be kept or read."""


class FencedError(StoreError):
    """Another writer has claimed the run."""


class BusyError(StoreError):
    """Another writer's lease on the run holds.

    Args:
        reason: One line for a person.
        epoch: Of that writer.
        owner: Who it is; empty where it did not say.
        left_s: Seconds until its lease lapses.
    """

    def __init__(self, reason: str, *, epoch: int, owner: str, left_s: float) -> None:
        super().__init__(reason)
        self.epoch = epoch
        self.owner = owner
        self.left_s = left_s


class DamagedError(StoreError):
    """A journal is not what was written: a record is missing, was changed, or cannot be read."""


class IllegalTransition(OaoError):  # noqa: N818 - the lifecycle's own word
    """The lifecycle was asked for a move it does not have."""


class ReplayedError(OaoError):
    """Stands for a recorded exception whose class is not importable here."""
