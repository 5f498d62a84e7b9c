"""Approvals: the question a held call becomes, and the answers a person gives. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from oao_hookspecs.calls import Json

__all__ = ["ApprovalAnswer", "ApprovalRequest", "Approve", "Principal", "Reject"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a run acts for, or who answers a question. oao does not check it: the caller vouches for it."""

    id: str
    """For example a user name or the subject of a token."""
    roles: tuple[str, ...] = ()
    tenant: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.roles, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            # Each role that is a part of the text would be had.
            raise TypeError(f"roles={self.roles!r} of principal {self.id!r} is one text; give a tuple of roles")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """A call that a policy holds until a person answers. Good for this one call, once."""

    id: str
    """Of the question: `execution_id` and a number, for example `3f0c...-1`."""
    execution_id: str
    agent_name: str
    tool: str
    """Name of the tool, or of the model."""
    kind: Literal["tool", "model"]
    arguments: Mapping[str, Json]
    """What the call asks for, whole."""
    call_id: str | None
    """The id that the model gave to the call, where a model asked for it."""
    principal: Principal | None
    """Who the run acts for."""
    rule: str
    reason: str
    source: str
    """Where the rule is written, as `file:line`."""
    digest: str
    """SHA-256 over the canonical JSON (RFC 8785) of agent, principal, tool, arguments and policy version."""
    policy: str
    """Version of the policies: a digest of all of them."""
    requested_at: float
    """Unix seconds."""
    expires_at: float
    """Unix seconds; an approval after it counts for nothing."""
    approvers: tuple[str, ...] = ()
    """Roles of those who may answer; empty: anybody."""
    needed: int = 1
    """How many different people must approve; more than one excludes the principal of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """The call may happen, once, as it was asked about or with the arguments given here."""

    by: Principal
    arguments: Mapping[str, Json] | None = None
    """Replaces the arguments; the policies judge the call again with them. None: as asked."""
    note: str = ""
    verdict: Literal["approve"] = "approve"

    def __post_init__(self) -> None:
        """Refuse a `by` that names nobody."""
        _require_principal(self.by)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The call must not happen; the run is halted."""

    by: Principal
    note: str = ""
    """Why, for the report."""
    verdict: Literal["reject"] = "reject"

    def __post_init__(self) -> None:
        """Refuse a `by` that names nobody."""
        _require_principal(self.by)


ApprovalAnswer: TypeAlias = Approve | Reject


def _require_principal(by: object) -> None:
    if not isinstance(by, Principal):
        raise TypeError(f"by={by!r:.100} is no Principal; write by=Principal(id=...)")
