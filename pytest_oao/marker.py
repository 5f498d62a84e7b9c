"""The marker `@pytest.mark.oao(...)`: what it may say, and what it says about a test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, cast

import pytest

from oao_harness import StrictPolicy, ToolPolicy
from oao_harness.errors import UsageError
from oao_harness.journal.shape import Shaper
from oao_harness.runtime.orchestrator import Orchestrator
from pytest_oao.settings import CHOICES, patterns

__all__ = ["Waiver", "check_marker", "option_of", "policies_of", "recording_name", "waivers_of"]

_LIMITS: Final = ("max_steps", "max_model_calls", "max_tool_calls", "max_tokens", "timeout_seconds")
_NO_LIMITS: Final[Mapping[str, Any]] = dict.fromkeys(_LIMITS)
_REPLAY: Final = ("recording", "live", "order", "unplayed", "ignore", "network", "clock", "http", "waive")
_KNOWN: Final = ("policy", "deny", "allow", *_LIMITS, *_REPLAY)
_UNWAIVABLE: Final = frozenset(_LIMITS) | {"max_cost_usd", "max_input_tokens", "max_output_tokens"}
_UNTIL: Final = re.compile(r"(?P<why>.*?\S),?\s+until\s+(?P<day>\d{4}-\d{2}-\d{2})")


class Waiver:
    """A rule that does not count in one test, for a reason and until a day.

    Args:
        rule: `rule` or `rule:tool`.
        why: `OPS-12, until 2027-01-31`.

    Raises:
        ValueError: The reason or the day is missing, or the rule is a limit.
    """

    def __init__(self, rule: str, why: str) -> None:
        found = _UNTIL.fullmatch(why.strip())
        if found is None:
            raise ValueError(f"waive {rule!r}: {why!r} names no reason and day; write 'OPS-12, until 2027-01-31'")
        name, colon, tool = rule.partition(":")
        if not name or (colon and not tool):
            raise ValueError(f"waive {rule!r}: write the name of a rule, or rule:tool")
        if any(sign in name for sign in "*?["):
            raise ValueError(f"waive {rule!r}: name one rule; only the tool behind the colon may be a glob")
        if name in _UNWAIVABLE:
            raise ValueError(f"waive {rule!r}: a limit cannot be waived")
        try:
            self.until = date.fromisoformat(found["day"])
        except ValueError:
            raise ValueError(f"waive {rule!r}: there is no day {found['day']}") from None
        self.rule, self.why = rule, found["why"]

    @property
    def is_over(self) -> bool:
        """True after its last day."""
        return date.today() > self.until

    def __str__(self) -> str:
        return f"{self.rule}: {self.why}, {'was' if self.is_over else 'until'} {self.until}"


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
    for name in ("order", "unplayed", "network", "clock", "http"):
        value = mark.kwargs.get(name)
        if value is not None and value not in CHOICES[f"oao_{name}"]:
            choices = ", ".join(CHOICES[f"oao_{name}"])
            raise pytest.UsageError(f"{nodeid}: @pytest.mark.oao({name}={value!r}); choose one of {choices}")
    try:
        _check_lists(mark)
        waivers_of([mark])
        policies = policies_of([mark])
        if "policy" in mark.kwargs:
            Orchestrator(policy=policies)
    except (UsageError, ValueError) as error:
        raise pytest.UsageError(f"{nodeid}: @pytest.mark.oao: {error}") from error


def _check_lists(mark: pytest.Mark) -> None:
    for name in ("live", "ignore"):
        value: object = mark.kwargs.get(name, ())
        is_list = isinstance(value, list | tuple | set | frozenset)
        items = cast("Iterable[object]", value) if is_list else None
        if not isinstance(value, str) and (items is None or not all(isinstance(one, str) for one in items)):
            raise ValueError(f"{name}={value!r}: write a text with commas, or a list of texts")
    Shaper(option_of([mark], "ignore", ()))
    recording = mark.kwargs.get("recording")
    if recording is not None and (not isinstance(recording, str) or not Path(recording).name):
        raise ValueError(f"recording={recording!r}: write a name, without a folder")


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


def option_of(marks: Sequence[pytest.Mark], name: str, default: Any) -> Any:
    """Return what the nearest marker says about an option, else the default; a list may be a text with commas."""
    for mark in marks:
        if name in mark.kwargs:
            value: object = mark.kwargs[name]
            if not isinstance(default, tuple):
                return value
            return patterns(value) if isinstance(value, str) else tuple(map(str, cast("Iterable[object]", value)))
    return default


def waivers_of(marks: Sequence[pytest.Mark]) -> list[Waiver]:
    """Return the waivers of all markers, also those that are over.

    Raises:
        ValueError: One has no reason or no day.
    """
    found: list[Waiver] = []
    for mark in marks:
        given = mark.kwargs.get("waive", {})
        if not isinstance(given, Mapping):
            raise ValueError(f"waive={given!r} is no mapping; write waive={{'rule': 'reason, until 2027-01-31'}}")  # noqa: TRY004
        found += [Waiver(str(rule), str(why)) for rule, why in cast("Mapping[object, object]", given).items()]
    return found
