"""The pytest face: options, marker, hooks. Imports pytest and nothing else; idle without an option or marker."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from pytest_oao.fixture import Oao
    from pytest_oao.session import TestSession
    from pytest_oao.settings import Settings
    from pytest_oao.world import Phase

_SETTINGS: Final[pytest.StashKey[Settings | None]] = pytest.StashKey()
_EVERY_TEST: Final[pytest.StashKey[bool]] = pytest.StashKey()
_SESSION: Final[pytest.StashKey[TestSession]] = pytest.StashKey()
_ROWS: Final[pytest.StashKey[list[dict[str, Any]]]] = pytest.StashKey()

_MARKER_HELP: Final = (
    "oao(policy=, deny=, allow=, max_steps=, max_model_calls=, max_tool_calls=, max_tokens=, timeout_seconds=, "
    "recording=): govern the agent runs of this test; tightens the policy of the command line"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of them named oao."""
    group = parser.getgroup("oao", "governance, record and replay for agent runs (oao)")
    group.addoption(
        "--oao-policy",
        metavar="NAME",
        help="policy for every agent run: off, observe, standard, strict, a .toml file, or module:attribute; "
        "by default what pyproject.toml names under [tool.oao]",
    )
    group.addoption(
        "--oao-record",
        metavar="MODE",
        choices=("none", "once"),
        help="none: replay, fail where nothing is recorded (default). once: record what has none, replay the rest",
    )
    group.addoption(
        "--oao-network",
        metavar="MODE",
        choices=("closed", "loopback", "open"),
        help="what a replayed test may connect to: closed, loopback (default) or open",
    )
    group.addoption(
        "--oao-explain",
        action="store_true",
        help="print who decided what about each call: rule, file and line, plugin, reason",
    )
    parser.addini("oao_policy", "policy for every agent run, as --oao-policy", default="")
    parser.addini("oao_record", "none or once, as --oao-record", default="")
    parser.addini("oao_network", "closed, loopback or open, as --oao-network", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and read the options; nothing of oao is imported where none is given."""
    config.addinivalue_line("markers", _MARKER_HELP)
    config.stash[_SETTINGS] = None
    config.stash[_ROWS] = []
    names = ("oao_policy", "oao_record", "oao_network")
    config.stash[_EVERY_TEST] = any(config.getoption(name) or config.getini(name) for name in names)
    if config.stash[_EVERY_TEST]:
        _settings(config)


def _settings(config: pytest.Config) -> Settings:
    """Return the options of this session; made when first needed."""
    settings = config.stash[_SETTINGS]
    if settings is None:
        from pytest_oao.settings import Settings  # noqa: PLC0415 - not before oao is asked for

        settings = config.stash[_SETTINGS] = Settings.of(config)
    return settings


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Refuse a marker with an argument that does not exist."""
    for item in items:
        for mark in item.iter_markers("oao"):
            from pytest_oao.settings import check_marker  # noqa: PLC0415

            check_marker(item.nodeid, mark)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which policy is in force and that the network is closed."""
    settings = config.stash[_SETTINGS]
    return settings.header() if settings is not None else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Surround the test with a session of its own; each rerun of a test gets a fresh one."""
    marks = list(item.iter_markers("oao"))
    # Not by the settings: the first marked test makes them, and those after it are none of oao's for that.
    if not item.config.stash[_EVERY_TEST] and not marks:
        return (yield)
    from pytest_oao.session import TestSession  # noqa: PLC0415

    session = TestSession(item, _settings(item.config), marks)
    item.stash[_SESSION] = session
    session.enter()
    with _within(session, "setup"):
        return (yield)


@contextlib.contextmanager
def _within(session: TestSession, phase: Phase) -> Generator[None]:
    """Let a phase of the test see the time and the chance of its recording."""
    if session.world is None:
        yield
        return
    session.world.enter(phase)
    try:
        yield
    finally:
        session.world.leave()


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Seed chance directly around the test's body: other plugins seed before it."""
    session = pyfuncitem.stash.get(_SESSION, None)
    if session is not None and session.world is not None:
        session.world.reseed()
    return (yield)


@pytest.fixture
def oao(request: pytest.FixtureRequest) -> Oao:
    """The agent run of this test: `run`, `runs`, `task`, `approve`, `reject`, `expect_violation`."""
    from pytest_oao.fixture import Oao  # noqa: PLC0415

    session = request.node.stash.get(_SESSION, None)
    if session is None:
        raise pytest.UsageError(
            "the fixture `oao` needs a governed test: give --oao-policy or --oao-record, or mark it @pytest.mark.oao"
        )
    return Oao(session)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test for what was halted, whatever the test made of it; keep the recording of a test that passed."""
    session = item.stash.get(_SESSION, None)
    if session is None:
        return (yield)
    raised: BaseException | None = None
    result: object = None
    try:
        with _within(session, "call"):
            result = yield
    except BaseException as error:  # noqa: BLE001 - a halt is one
        raised = error
    verdict = session.conclude(raised)
    # Outside of the except block, else pytest would print both.
    if verdict is not None:
        raise pytest.fail.Exception(verdict, pytrace=False)
    if raised is not None:
        raise raised
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Take the session away from around the test."""
    session = item.stash.get(_SESSION, None)
    if session is None:
        return (yield)
    verdict: str | None = None
    try:
        with _within(session, "teardown"):
            result = yield
    finally:
        verdict = session.leave()
    if verdict is not None:
        raise pytest.fail.Exception(verdict, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach what oao saw, as JSON: it survives xdist and appears in report logs."""
    report = yield
    session = item.stash.get(_SESSION, None)
    if session is not None and report.when == "setup":
        session.setup_failed = report.failed
    if session is not None and report.when == "call":
        row = session.row()
        if row is not None:
            cast("Any", report).oao = row
            if report.failed:
                report.sections.append(("oao run", session.timeline()))
    return report


class _Collector:
    """Gathers the rows of all reports; on the controller where xdist runs."""

    def __init__(self, config: pytest.Config) -> None:
        self._rows = config.stash[_ROWS]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        row = getattr(report, "oao", None)
        if row is not None:
            self._rows.append({**row, "outcome": report.outcome})


def pytest_sessionstart(session: pytest.Session) -> None:
    """Gather rows where the terminal is."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Collector(session.config), "oao-collector")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print one row for each test in which an agent ran."""
    rows = config.stash[_ROWS]
    if rows:
        from pytest_oao.governance import write_coverage, write_decisions  # noqa: PLC0415
        from pytest_oao.summary import write_summary  # noqa: PLC0415

        write_summary(terminalreporter, rows)
        write_coverage(terminalreporter, rows)
        if config.getoption("oao_explain"):
            write_decisions(terminalreporter, rows)
