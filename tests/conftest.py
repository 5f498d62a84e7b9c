"""Fixtures that every test may use: real parts, no patches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from oao_harness import MemoryStore, SQLiteStore
from oao_hookspecs import Store
from pytest_oao.testing import RedisServer
from tests.forked import Pytester

pytest_plugins = ["pytester"]

# Under a CI system pytest prints whole messages in its summary; the sessions of tests shall print the same anywhere.
for _name in ("CI", "BUILD_NUMBER"):
    os.environ.pop(_name, None)
# Clients of HTTP read all the world's authorities when they are made, which takes longer than most tests. There is
# nobody to trust on loopback: they read one, whose key nobody has.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "authority.pem")
# The sessions that tests start read no pyproject.toml of ours.
os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:schemathesis".strip()
_PLUGINS_OF_NOBODY = ("langsmith_plugin", "randomly", "valkey", "platformdirs", "hypothesispytest", "anyio")
# A loaded machine is slow; how long an example takes says nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_collection_finish() -> None:
    """Keep no byte code of what tests write: a module that is written twice in a second would be the first one.

    What is imported until now may be kept, and is what makes the many processes of the tests start quickly.
    """
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    # The sessions that tests start need no plugin that is not named; to import them all takes a second and a half each.
    blocked = " ".join(f"-p no:{name}" for name in _PLUGINS_OF_NOBODY)
    os.environ["PYTEST_ADDOPTS"] = f"{os.environ['PYTEST_ADDOPTS']} {blocked}"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Give each worker whole modules, whose servers and environments are then made once; idle ones take from others."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: many tests wait for processes and servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait longest, so that none of them is alone at the end."""
    items.sort(key=lambda item: item.path.parent.name not in {"faults", "schedulers", "benchmarks"})


@pytest.fixture
def pytester(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Pytester:
    """pytest's own, whose sessions in processes of their own begin quickly."""
    made = Pytester(request, tmp_path_factory, monkeypatch, _ispytest=True)
    # It takes away what is said above.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:schemathesis")
    return made


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Name the test that loads Schemathesis here: from then on Hypothesis prints no example."""
    if sys.modules.pop("schemathesis", None) is not None:
        pytest.fail(f"{item.nodeid} loaded Schemathesis; start its session with -p no:schemathesis", pytrace=False)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every bundled store, one after the other."""
    opened: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "oao.db")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests of a module; skipped where no program is installed."""
    try:
        server = RedisServer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with server:
        yield server
