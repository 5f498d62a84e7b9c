"""The pytest face: options, marker, hooks. Imports pytest and nothing else; idle without an option or marker."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_oao.fixture import Oao
    from pytest_oao.settings import Settings
    from pytest_oao.testing.scripted import ScriptedModel

_SETTINGS: Final[pytest.StashKey[Settings | None]] = pytest.StashKey()
_EVERY_TEST: Final[pytest.StashKey[bool]] = pytest.StashKey()
_ROWS: Final[pytest.StashKey[list[dict[str, Any]]]] = pytest.StashKey()
_FINDINGS: Final[pytest.StashKey[dict[str, list[str]]]] = pytest.StashKey()
_RECORDED: Final[pytest.StashKey[dict[Path, bool]]] = pytest.StashKey()
_OVERRIDDEN: Final[pytest.StashKey[bool]] = pytest.StashKey()
_SELECTED: Final[pytest.StashKey[bool]] = pytest.StashKey()

_OVERRIDES: Final = ("oao_config", "oao_policy", "oao_recordings_dir")
_CONFORMANCE: Final = "pytest_oao.testing.conformance"
_TESTED: Final = ("store", "scheduler", "ledger", "listener", "adapter")
_MARKER_HELP: Final = (
    "oao(policy=, deny=, allow=, max_steps=, max_model_calls=, max_tool_calls=, max_tokens=, timeout_seconds=, "
    "waive=, recording=, live=, order=, ignore=, unplayed=, network=, clock=, http=): govern and replay the agent runs "
    "of this test; tightens the policy of the command line"
)
# Name, metavar, choices, help. Each is an ini key too.
_OPTIONS: Final[tuple[tuple[str, str, tuple[str, ...] | None, str], ...]] = (
    (
        "policy",
        "NAME",
        None,
        (
            "policy for every agent run: off, observe, standard, strict, a .toml file, or module:attribute; "
            "by default what pyproject.toml names under [tool.oao]"
        ),
    ),
    (
        "record",
        "MODE",
        ("none", "once", "new", "all", "rewrite"),
        (
            "none: replay, fail where nothing is recorded (default). once: record what has none, replay the rest. "
            "new: replay up to the first difference, go on live, keep the result for `oao review`. all: run live, "
            "compare, keep what differs for `oao review`. rewrite: run live and replace"
        ),
    ),
    (
        "live",
        "KINDS",
        None,
        "what is not replayed, with commas: tool, model, http, or names such as refund, tool:get_*, model:gpt-*",
    ),
    (
        "network",
        "MODE",
        ("closed", "loopback", "open"),
        "what a replayed test may connect to: closed, loopback (default) or open",
    ),
    (
        "order",
        "ORDER",
        ("causal", "strict", "any"),
        (
            "causal: what overlapped when it was recorded may come in any order (default). "
            "strict: exactly as recorded. any: order does not matter"
        ),
    ),
    (
        "unplayed",
        "ACTION",
        ("fail", "warn", "ignore"),
        "a recorded call that was not made: fail (default), warn or ignore",
    ),
    ("orphans", "ACTION", ("fail", "warn", "ignore"), "a recording that no test plays: fail, warn (default) or ignore"),
    ("max-cost", "USD", None, "stop live calls when the session has spent this; unlimited by default"),
    (
        "summary",
        "WHAT",
        ("auto", "all", "slowest", "none"),
        "the table at the end: auto (failures, then the costliest), all, slowest or none",
    ),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of them named oao."""
    group = parser.getgroup("oao", "governance, record and replay for agent runs (oao)")
    for name, metavar, choices, text in _OPTIONS:
        group.addoption(f"--oao-{name}", metavar=metavar, choices=choices, help=text)
        ini = f"oao_{name.replace('-', '_')}"
        parser.addini(ini, f"as --oao-{name}" + (f": {', '.join(choices)}" if choices else ""), default="")
    for kind in _TESTED:
        text = f"for `--pyargs {_CONFORMANCE}`: module:attribute of the {kind} to test; --oao-policy names a policy"
        group.addoption(f"--oao-{kind}", metavar="PKG:X", help=text)
    group.addoption("--oao-report", metavar="FILE", help="write a JSON report (schema oao-report/1)")
    group.addoption("--oao-review", action="store_true", help="review pending recordings at the end, on a terminal")
    group.addoption(
        "--oao-mutate",
        metavar="N",
        nargs="?",
        const="0",
        help="recording strength: try each passing replay with altered requests, N for each call at most; all of them "
        "must be refused",
    )
    group.addoption(
        "--oao-explain",
        action="store_true",
        help="print who decided what about each call: rule, file and line, plugin, reason",
    )
    parser.addini("oao_ignore", "paths of requests that are not compared: metadata.trace", type="linelist")
    parser.addini("oao_volatile", "kinds of tokens that may be renamed one to one: uuid callid ...", type="args")
    parser.addini("oao_recordings", "name of the folder with recordings beside each test module", default="")
    parser.addini("oao_max_age", "from what age on recordings are called old: 90d", default="")
    parser.addini(
        "oao_http", "record the HTTP of agents and tools too: auto (where vcrpy is installed), off", default=""
    )
    parser.addini("oao_clock", "what time a replayed test sees: frozen (default), ticking or real", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and read the options; nothing of oao is imported where none is given."""
    config.addinivalue_line("markers", _MARKER_HELP)
    config.stash[_SETTINGS] = None
    config.stash[_ROWS] = []
    config.stash[_FINDINGS] = {}
    config.stash[_RECORDED] = {}
    config.stash[_SELECTED] = config.stash[_OVERRIDDEN] = False
    names = ("oao_policy", "oao_record", "oao_live", "oao_network", "oao_order", "oao_max_cost")
    if _is_conformance(config):
        # What is named is tested there, and governs nothing.
        config.stash[_EVERY_TEST] = False
        return
    config.stash[_EVERY_TEST] = any(config.getoption(name) or config.getini(name) for name in names) or any(
        config.getoption(name) is not None for name in ("oao_mutate", "oao_report")
    )
    if config.stash[_EVERY_TEST]:
        _settings(config)


def _is_conformance(config: pytest.Config) -> bool:
    """Return True for a session that runs the conformance suites and nothing else."""
    found = [_CONFORMANCE in arg.replace("/", ".").replace("\\", ".") for arg in config.args]
    return bool(found) and all(found)


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
        # A marker is a keyword too, and that takes a tenth of the time.
        for mark in item.iter_markers("oao") if "oao" in item.keywords else ():
            from pytest_oao.marker import check_marker  # noqa: PLC0415

            check_marker(item.nodeid, mark)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember that this session does not run all there is."""
    for item in items[:1]:
        item.config.stash[_SELECTED] = True


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which policy is in force and that the network is closed."""
    settings = config.stash[_SETTINGS]
    return settings.header() if settings is not None else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Surround the test with a session of its own; each rerun of a test gets a fresh one."""
    marks = list(item.iter_markers("oao"))
    # Not by the settings: the first marked test makes them, and those after it are none of oao's for that.
    if not item.config.stash[_EVERY_TEST] and not marks and not _is_recorded(item):
        result = yield
        if type(getattr(item, "funcargs", {}).get("oao")).__module__ == "pytest_oao.fixture":
            from pytest_oao.fixture import NOT_GOVERNED  # noqa: PLC0415

            pytest.fail(NOT_GOVERNED, pytrace=False)
        return result
    from pytest_oao import phases  # noqa: PLC0415 - its hooks cost every test of the session something

    plugins = item.config.pluginmanager
    if not plugins.is_registered(phases) and plugins.register(phases, "oao-phases") is None:
        raise pytest.UsageError("`-p no:oao-phases` leaves out what ends a governed test; `-p no:oao` leaves out oao")
    session = phases.begin(item, _settings(item.config), marks)
    with phases.within(session, "setup"):
        result = yield
    if item.config.stash[_OVERRIDDEN]:
        values = {name: cast("Any", item)._request.getfixturevalue(name) for name in _OVERRIDES}
        session.override(values["oao_config"], values["oao_policy"], values["oao_recordings_dir"])
    return result


@pytest.fixture(scope="session")
def oao_config() -> dict[str, Any]:
    """Override it in a module or conftest: what `@pytest.mark.oao` may say, for all tests there. Markers are stronger.

    Example:
        ```python
        @pytest.fixture(scope="module")
        def oao_config():
            return {"max_tool_calls": 3, "ignore": ["user"]}
        ```
    """
    return {}


@pytest.fixture(scope="session")
def oao_policy() -> object:
    """Override it in a module or conftest: a policy for all tests there, beside that of the command line."""
    return None


@pytest.fixture(scope="session")
def oao_recordings_dir() -> object:
    """Override it in a module or conftest: the folder of the recordings, from the folder of the test module on."""
    return None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find out whether one of the fixtures above is overridden anywhere: asking each test would cost every test."""
    defined: Any = getattr(getattr(session, "_fixturemanager", None), "_arg2fixturedefs", {})
    session.config.stash[_OVERRIDDEN] = any(len(defined.get(name, ())) > 1 for name in _OVERRIDES)


def _is_recorded(item: pytest.Item) -> bool:
    """Return True for a test that has a recording: it is replayed also where no option asks for it, never run live.

    Its folder is looked for once in a session: most modules have none.
    """
    known = item.config.stash[_RECORDED]
    folder = known.get(item.path)
    if folder is None:
        name = item.config.getini("oao_recordings") or "recordings"
        folder = known[item.path] = (item.path.parent / name / item.path.stem).is_dir()
    if not folder:
        return False
    from pytest_oao.paths import recording_path  # noqa: PLC0415

    return recording_path(item, folder=item.config.getini("oao_recordings") or "recordings").exists()


@pytest.fixture(scope="session")
def oao() -> Oao:
    """The agent runs of this test: `run`, `runs`, `events`, `violations`, `usage`, `cost`, `approve` and more."""
    from pytest_oao.fixture import Oao  # noqa: PLC0415

    return Oao()


@pytest.fixture
def oao_scripted() -> type[ScriptedModel]:
    """A chat model that follows a script, without a network; called with the replies: `oao_scripted(["hello"])`."""
    from pytest_oao.testing.scripted import ScriptedModel  # noqa: PLC0415

    return ScriptedModel


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Say how two runs differ, step by step."""
    if op != "==" or (type(left).__module__ != "pytest_oao.runs" and type(left).__module__ != "pytest_oao.fixture"):
        return None
    from pytest_oao.comparing import difference_of  # noqa: PLC0415

    return difference_of(left, right)


class _Collector:
    """Gathers the rows of all reports; on the controller where xdist runs."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = time.time()
        self._crashed = False
        self._uid = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the row of a test."""
        row = getattr(report, "oao", None)
        if row is not None:
            rows = self._config.stash[_ROWS]
            rows.append({**row, "outcome": report.outcome, "duration_s": round(report.duration, 6)})

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Keep what a worker of xdist found; one that crashed has not seen everything."""
        if error:
            self._crashed = True
        self._uid = str(getattr(node, "workerinput", {}).get("testrunuid", ""))
        output = cast("dict[str, Any]", getattr(node, "workeroutput", {}))
        for name, paths in cast("dict[str, list[str]]", output.get("oao", {})).items():
            known = self._config.stash[_FINDINGS].setdefault(name, [])
            known += [path for path in paths if path not in known]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge what was found beside the tests, and write the report."""
        settings = self._config.stash[_SETTINGS]
        if settings is None:
            return
        from pytest_oao.ending import finish  # noqa: PLC0415

        if self._crashed:
            self._config.stash[_FINDINGS].pop("orphans", None)
        rows, findings = self._config.stash[_ROWS], self._config.stash[_FINDINGS]
        finish(session, settings, rows, findings, started=self._started)
        if self._uid and settings.budget is not None:
            from pytest_oao.settings import delete_ledger  # noqa: PLC0415

            delete_ledger(self._config.rootpath, self._uid)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Gather rows where the terminal is."""
    if not hasattr(session.config, "workerinput"):
        session.config.pluginmanager.register(_Collector(session.config), "oao-collector")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Look at the recordings beside the tests, in the process that has collected these."""
    config = session.config
    settings = config.stash[_SETTINGS]
    if settings is None or not config.stash[_EVERY_TEST] or not getattr(session, "items", None):
        return
    from pytest_oao.findings import findings_of, is_selection  # noqa: PLC0415

    whole = not config.stash[_SELECTED] and not is_selection(config) and exitstatus in {0, 1}
    found = findings_of(session.items, settings, whole=whole)
    if hasattr(config, "workeroutput"):
        cast("Any", config).workeroutput["oao"] = found
    else:
        config.stash[_FINDINGS].update(found)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print one row for each test in which an agent ran, and what was found beside the tests."""
    settings, rows, findings = config.stash[_SETTINGS], config.stash[_ROWS], config.stash[_FINDINGS]
    if settings is None:
        return
    from pytest_oao.ending import write_ending  # noqa: PLC0415

    write_ending(terminalreporter, settings, rows, findings)
    if config.getoption("oao_review"):
        from pytest_oao.ending import review  # noqa: PLC0415

        review(terminalreporter, config, findings.get("pending", ()))
