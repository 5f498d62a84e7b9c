"""What the server refuses, as errors; `problems` says them over HTTP."""

from __future__ import annotations

from oao_harness.errors import OaoError, UsageError

__all__ = [
    "AgentUnavailable",
    "CutOff",
    "ForbiddenError",
    "InProgress",
    "InvalidRequest",
    "KeyReused",
    "NotFound",
    "Stopping",
    "TooBusy",
    "WrongState",
]


class NotFound(UsageError):  # noqa: N818 - named by what it says, as over HTTP
    """There is nothing of that name, or the caller may not know of it."""


class InvalidRequest(UsageError):  # noqa: N818
    """What is asked for cannot be done as it is asked."""


class KeyReused(UsageError):  # noqa: N818
    """An Idempotency-Key was used before for something else."""


class ForbiddenError(UsageError):
    """The caller may not do that."""


class WrongState(UsageError):  # noqa: N818
    """The run is not in a state in which that can be done."""


class InProgress(OaoError):  # noqa: N818
    """The same request is at work; its answer comes later.

    Args:
        reason: One line for a person.
        retry_after_s: Seconds after which it makes sense to ask again.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class TooBusy(OaoError):  # noqa: N818
    """There is no room for another run now.

    Args:
        reason: One line for a person.
        retry_after_s: Seconds after which it makes sense to ask again.
    """

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class AgentUnavailable(OaoError):  # noqa: N818
    """A registered agent cannot be imported or made, or did not begin in time."""


class CutOff(AgentUnavailable):
    """A run was cancelled by something in its own loop, for example by its agent; its journal may have its end."""


class Stopping(OaoError):  # noqa: N818
    """The server is being shut down."""
