"""What the command line, the ini file and pyproject.toml ask for: the options of one pytest session."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast

import pytest

from oao_harness.config import project_scrubber
from oao_harness.errors import OaoError, UsageError
from oao_harness.journal.secrets import Scrubber
from oao_harness.journal.shape import Shaper
from oao_harness.journal.tokens import DEFAULT_KINDS
from oao_harness.policy.project import find_project_policy
from oao_harness.runtime.orchestrator import Orchestrator
from oao_harness.runtime.shared_budget import SharedBudget
from oao_hookspecs import Clock, Limits
from pytest_oao.world import missing_clock

__all__ = ["Action", "Mode", "Network", "Order", "Settings", "TestClock", "delete_ledger", "patterns"]

Network: TypeAlias = Literal["closed", "loopback", "open"]
Mode: TypeAlias = Literal["none", "once", "new", "all", "rewrite"]
Order: TypeAlias = Literal["causal", "strict", "any"]
Action: TypeAlias = Literal["fail", "warn", "ignore"]
TestClock: TypeAlias = Literal["frozen", "ticking", "real"]

T = TypeVar("T")

_AGE: Final = re.compile(r"(\d+)\s*d(?:ays?)?")
_HEADS: Final[Mapping[Mode, str]] = {
    "none": "replay",
    "once": "replay, record what has no recording",
    "new": "replay, record what is new",
    "all": "live, compared with the recordings",
    "rewrite": "live, recordings are replaced",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one pytest session."""

    policy: str
    """Name or file of the policy; "" where none was named."""
    policy_from: str
    """Where pyproject.toml names it, as `file:line`; "" where an option does."""
    record: Mode
    network: Network
    root: Path
    """pytest's root folder: `.oao` with the runs that are being recorded lies there."""
    explain: bool = False
    """True prints who decided what about each call."""
    project: Path | None = None
    """The folder in which pytest was started: its pyproject.toml says which plugins are used, wherever a test goes."""
    live: tuple[str, ...] = ()
    """Kinds and names that are not replayed; see `journal.live.is_live`."""
    order: Order = "causal"
    unplayed: Action = "fail"
    """What a recorded call that was not made means."""
    orphans: Action = "warn"
    """What a recording without a test means."""
    ignore: tuple[str, ...] = ()
    """Paths of requests that are not compared."""
    volatile: tuple[str, ...] | None = None
    """Kinds of tokens that may be renamed; None for the default."""
    clock: TestClock = "frozen"
    recordings: str = "recordings"
    """Name of the folder beside the test module."""
    max_age: timedelta | None = None
    """From what age on a recording is called old."""
    mutate: int | None = None
    """How many altered requests each passing replay is tried with; None for none, 0 for all that there are."""
    http: Literal["auto", "off"] = "auto"
    """Whether the HTTP of agents and tools is recorded and played; see `http_layer`."""
    summary: Literal["auto", "all", "slowest", "none"] = "auto"
    report: Path | None = None
    folders: dict[Path, bool] = field(default_factory=dict[Path, bool], compare=False)
    """Which folders of tests have recordings, as far as they were looked at."""
    scrubber: Scrubber = field(default_factory=Scrubber, compare=False)
    """Takes secrets out of recordings, and of the requests that are compared with them."""
    budget: SharedBudget | None = field(default=None, compare=False)
    """What all live calls of the session may cost together."""

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """Read the command line, then the ini file.

        Raises:
            pytest.UsageError: A policy or another value is none that oao knows.
        """
        policy, policy_from = _text(config, "oao_policy"), ""
        if not policy:
            try:
                project = find_project_policy(config.invocation_params.dir)
            except UsageError as error:
                raise pytest.UsageError(f"oao: {error}") from error
            if project is not None:
                policy, policy_from = project.policy, project.source
        report = config.getoption("oao_report")
        mutate = config.getoption("oao_mutate")
        settings = cls(
            policy=policy,
            policy_from=policy_from,
            record=cast("Mode", _choice(config, "oao_record", "none")),
            network=cast("Network", _choice(config, "oao_network", "loopback")),
            root=config.rootpath,
            project=config.invocation_params.dir,
            explain=bool(config.getoption("oao_explain")),
            live=patterns(_text(config, "oao_live")),
            order=cast("Order", _choice(config, "oao_order", "causal")),
            unplayed=cast("Action", _choice(config, "oao_unplayed", "fail")),
            orphans=cast("Action", _choice(config, "oao_orphans", "warn")),
            ignore=tuple(config.getini("oao_ignore")),
            volatile=tuple(config.getini("oao_volatile")) or None,
            clock=cast("TestClock", _choice(config, "oao_clock", "frozen")),
            http=cast("Any", _choice(config, "oao_http", "auto")),
            recordings=_text(config, "oao_recordings") or "recordings",
            max_age=_parsed(config, "oao_max_age", _age),
            mutate=None if mutate is None else _number(mutate, "--oao-mutate"),
            summary=cast("Any", _choice(config, "oao_summary", "auto")),
            report=None if report is None else config.invocation_params.dir / report,
            scrubber=_scrubber(config, "policy 'strict'" if policy == "strict" else ""),
            budget=_budget(config),
        )
        settings.orchestrator([])
        try:
            Shaper(settings.ignore, settings.volatile or DEFAULT_KINDS)
        except UsageError as error:
            raise pytest.UsageError(f"oao: oao_ignore, oao_volatile: {error}") from error
        return settings

    def orchestrator(
        self,
        policies: Sequence[object | str],
        plugins: Sequence[object] = (),
        waivers: Mapping[str, str] | None = None,
        clock: Clock | None = None,
    ) -> Orchestrator:
        """Return an orchestrator under the session's policy and further ones, with further plugins.

        Raises:
            pytest.UsageError: A policy is unknown or unusable.
        """
        try:
            return Orchestrator(
                policy=[*([self.policy] if self.policy else []), *policies],
                plugins=plugins,
                budget=self.budget,
                waivers=waivers,
                clock=clock,
                project=self.project,
            )
        except UsageError as error:
            raise pytest.UsageError(f"oao: {error}") from error

    def has_recordings(self, tests: Path) -> bool:
        """Return True where a folder of tests has recordings. Looked at once: in a replay none are made."""
        if tests not in self.folders:
            self.folders[tests] = (tests / self.recordings).is_dir()
        return self.folders[tests]

    def header(self) -> str:
        """Return the line for the head of the test session."""
        network = {"closed": "closed", "loopback": "loopback only", "open": "open"}[self.network]
        origin = f" (from {self.policy_from})" if self.policy_from else ""
        parts = [f"oao: policy {self.policy or 'none'}{origin}", _HEADS[self.record]]
        if self.live:
            parts.append(f"live: {', '.join(self.live)}")
        if self.record in {"none", "once", "new"}:
            parts.append(f"network in replay: {network}")
        if self.budget is not None:
            parts.append(f"at most ${self.budget.limits.max_cost_usd:g}")
        missing = missing_clock(self.clock)
        return " | ".join(parts) + (f"\noao: {missing}" if missing else "")


def patterns(text: str) -> tuple[str, ...]:
    """Return the parts of a list that is written with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _text(config: pytest.Config, name: str) -> str:
    return str(config.getoption(name, None) or config.getini(name) or "")


CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "oao_record": ("none", "once", "new", "all", "rewrite"),
    "oao_network": ("closed", "loopback", "open"),
    "oao_order": ("causal", "strict", "any"),
    "oao_unplayed": ("fail", "warn", "ignore"),
    "oao_orphans": ("fail", "warn", "ignore"),
    "oao_summary": ("auto", "all", "slowest", "none"),
    "oao_clock": ("frozen", "ticking", "real"),
    "oao_http": ("auto", "off"),
}


def _choice(config: pytest.Config, name: str, default: str) -> str:
    value = str(config.getoption(name, None) or config.getini(name) or default)
    if value not in CHOICES[name]:
        raise pytest.UsageError(f"oao: {name} = {value!r} in the ini file; choose one of {', '.join(CHOICES[name])}")
    return value


def _parsed(config: pytest.Config, name: str, parse: Callable[[str], T]) -> T | None:
    value = str(config.getini(name) or "")
    if not value:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise pytest.UsageError(f"oao: {name} = {value!r} in the ini file: {error}") from error


def _age(value: str) -> timedelta:
    found = _AGE.fullmatch(value.strip())
    if found is None:
        raise ValueError("write it in days, for example 90d")
    return timedelta(days=int(found[1]))


def _number(value: str, option: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if number < 0:
        raise pytest.UsageError(f"oao: {option}={value} must be a whole number, 0 or more")
    return number


def _scrubber(config: pytest.Config, strict: str) -> Scrubber:
    try:
        return project_scrubber(config.invocation_params.dir, strict=strict)
    except UsageError as error:
        raise pytest.UsageError(f"oao: {error}") from error


def _budget(config: pytest.Config) -> SharedBudget | None:
    """Return what the live calls of all processes of the session may cost together, None for no limit."""
    value = _text(config, "oao_max_cost")
    if not value or value == "unlimited":
        return None
    try:
        limit = float(value)
        if not limit >= 0:
            raise ValueError
    except ValueError:
        raise pytest.UsageError(
            f"oao: --oao-max-cost={value}: write US dollars, for example 2.50, or unlimited"
        ) from None
    # All workers of xdist spend from one account; without it the account is of this process.
    uid = cast("Mapping[str, str]", getattr(config, "workerinput", {})).get("testrunuid")
    ledger = "memory:pytest"
    if uid is not None:
        file = _ledger_file(config.rootpath, uid)
        file.parent.mkdir(exist_ok=True)
        ledger = f"sqlite:{file}"
    try:
        return SharedBudget(f"pytest-{uid or os.getpid()}", ledger, limits=Limits(max_cost_usd=limit))
    except OaoError as error:
        raise pytest.UsageError(f"oao: --oao-max-cost={value}: {error}") from error


def delete_ledger(root: Path, uid: str) -> None:
    """Delete the account that the workers of a session have spent from; its files, where nobody holds them open.

    Args:
        root: pytest's root folder.
        uid: Of the session, by xdist.
    """
    file = _ledger_file(root, uid)
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            file.with_name(file.name + suffix).unlink(missing_ok=True)


def _ledger_file(root: Path, uid: str) -> Path:
    return root / ".oao" / f"spent-{uid}.db"
