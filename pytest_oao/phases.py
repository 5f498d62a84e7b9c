"""What happens around the phases of a test that oao is asked about; registered with the first of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import pytest

from pytest_oao.report import properties_of, row_of
from pytest_oao.session import TestSession
from pytest_oao.settings import Settings
from pytest_oao.summary import timeline
from pytest_oao.world import Phase

__all__ = ["begin", "within"]

_OF_TEST: Final[pytest.StashKey[TestSession]] = pytest.StashKey()


def begin(item: pytest.Item, settings: Settings, marks: Sequence[pytest.Mark]) -> TestSession:
    """Surround a test with a session of its own.

    Args:
        item: The test.
        settings: Of the pytest session.
        marks: The test's `oao` markers, nearest first.
    """
    session = item.stash[_OF_TEST] = TestSession(item, settings, marks)
    session.enter()
    return session


@contextmanager
def within(session: TestSession, phase: Phase) -> Generator[None]:
    """Let a phase of the test see the time and the chance of its recording."""
    with session.http.within(phase):
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
    session = pyfuncitem.stash.get(_OF_TEST, None)
    if session is not None and session.world is not None:
        session.world.reseed()
    return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail the test for what was halted, whatever the test made of it; keep the recording of a test that passed."""
    session = item.stash.get(_OF_TEST, None)
    if session is None:
        return (yield)
    raised: BaseException | None = None
    result: object = None
    try:
        session.begin()
        with within(session, "call"):
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
    session = item.stash.get(_OF_TEST, None)
    if session is None:
        return (yield)
    verdict: str | None = None
    try:
        with within(session, "teardown"):
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
    session = item.stash.get(_OF_TEST, None)
    if session is not None and report.when == "setup":
        session.setup_failed = report.failed
    if session is not None and report.when == "call" and session.has_begun:
        row = row_of(session)
        if row is None:
            return report
        cast("Any", report).oao = row
        # The report of the teardown has them too, and that is where junit looks.
        item.user_properties.extend(properties_of(row))
        if report.failed:
            report.sections.append(("oao run", timeline(session.tape())))
    return report
