"""What the command line, the ini file and markers ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import pytest

from oao_harness import StrictPolicy, ToolPolicy
from oao_harness.errors import UsageError
from oao_harness.policy.project import find_project_policy
from oao_harness.runtime.orchestrator import Orchestrator

__all__ = ["Network", "Settings", "check_marker", "policies_of", "recording_name"]

Network: TypeAlias = Literal["closed", "loopback", "open"]

_LIMITS: Final = ("max_steps", "max_model_calls", "max_tool_calls", "max_tokens", "timeout_seconds")
_NO_LIMITS: Final[Mapping[str, Any]] = dict.fromkeys(_LIMITS)
_KNOWN: Final = ("policy", "deny", "allow", "recording", *_LIMITS)
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "oao_record": ("none", "once"),
    "oao_network": ("closed", "loopback", "open"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one pytest session."""

    policy: str
    """Name or file of the policy; "" where none was named."""
    policy_from: str
    """Where pyproject.toml names it, as `file:line`; "" where an option does."""
    record: Literal["none", "once"]
    network: Network

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read the command line, then the ini file.

        Raises:
            pytest.UsageError: The policy is unknown, or an ini value is none of its choices.
        """
        policy, policy_from = _option(config, "oao_policy"), ""
        if not policy:
            try:
                project = find_project_policy(config.invocation_params.dir)
            except UsageError as error:
                raise pytest.UsageError(f"oao: {error}") from error
            if project is not None:
                policy, policy_from = project.policy, project.source
        settings = cls(
            policy=policy,
            policy_from=policy_from,
            record=cast("Literal['none', 'once']", _option(config, "oao_record") or "none"),
            network=cast("Network", _option(config, "oao_network") or "loopback"),
        )
        settings.orchestrator([])
        return settings

    def orchestrator(self, policies: Sequence[object | str]) -> Orchestrator:
        """Return an orchestrator under the session's policy and further ones.

        Raises:
            pytest.UsageError: A policy is unknown or unusable.
        """
        try:
            return Orchestrator(policy=[*([self.policy] if self.policy else []), *policies])
        except UsageError as error:
            raise pytest.UsageError(f"oao: {error}") from error

    def header(self) -> str:
        """Return the line for the head of the test session."""
        mode = "replay" if self.record == "none" else "replay, record what has no recording"
        network = {"closed": "closed", "loopback": "loopback only", "open": "open"}[self.network]
        origin = f" (from {self.policy_from})" if self.policy_from else ""
        return f"oao: policy {self.policy or 'none'}{origin} | {mode} | network in replay: {network}"


def _option(config: pytest.Config, name: str) -> str:
    value = str(config.getoption(name) or config.getini(name) or "")
    choices = _CHOICES.get(name)
    if value and choices is not None and value not in choices:
        raise pytest.UsageError(f"oao: {name} = {value!r} in the ini file; choose one of {', '.join(choices)}")
    return value


def check_marker(nodeid: str, mark: pytest.Mark) -> None:
    """Refuse a marker that says something oao does not know.

    Raises:
        pytest.UsageError: It has a positional or an unknown argument, or a value that makes no policy.
    """
    if mark.args:
        raise pytest.UsageError(f"{nodeid}: @pytest.mark.oao takes keywords only, got {mark.args!r}")
    unknown = [key for key in mark.kwargs if key not in _KNOWN]
    if unknown:
        raise pytest.UsageError(f"{nodeid}: @pytest.mark.oao({unknown[0]}=...) is unknown; known: {', '.join(_KNOWN)}")
    try:
        policies = policies_of([mark])
        if "policy" in mark.kwargs:
            Orchestrator(policy=policies)
    except UsageError as error:
        raise pytest.UsageError(f"{nodeid}: @pytest.mark.oao: {error}") from error


def policies_of(marks: Sequence[pytest.Mark]) -> list[object | str]:
    """Return the policies that markers add; they hold beside the session's, so they can only tighten it."""
    policies: list[object | str] = []
    for mark in marks:
        if "policy" in mark.kwargs:
            policies.append(mark.kwargs["policy"])
        if "deny" in mark.kwargs or "allow" in mark.kwargs:
            policies.append(ToolPolicy(allow=mark.kwargs.get("allow"), deny=mark.kwargs.get("deny", ())))
        limits = {key: mark.kwargs[key] for key in _LIMITS if key in mark.kwargs}
        if limits:
            policies.append(StrictPolicy(**cast("dict[str, Any]", {**_NO_LIMITS, **limits})))
    return policies


def recording_name(marks: Sequence[pytest.Mark]) -> str | None:
    """Return the recording's name that the nearest marker gives, if one does."""
    for mark in marks:
        if "recording" in mark.kwargs:
            return Path(str(mark.kwargs["recording"])).name
    return None
