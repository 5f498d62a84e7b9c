"""The first command of the README on a bare environment, and the wheel that an sdist makes."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parent.parent


def bare() -> dict[str, str]:
    """An environment without the paths of this test session."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "VIRTUAL_ENV", "PYTEST", "SSL_"))
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with `pip install .` and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder / ".venv", with_pip=True)
    pip = [str(folder / ".venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", str(ROOT)]
    done = subprocess.run(pip, env=bare(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def demo(installed: Path) -> subprocess.CompletedProcess[str]:
    """The demo as the newcomer sees it; whatever test comes first, before any of them installs more."""
    command = [str(installed / ".venv" / "bin" / "oao"), "demo"]
    return subprocess.run(command, cwd=installed, env=bare(), capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_runs_with_nothing_but_python(demo: subprocess.CompletedProcess[str]) -> None:
    """A runaway agent is stopped, a good run is recorded, replayed and shown; no framework is installed."""
    assert demo.returncode == 0, demo.stderr
    for word in ("max_tool_calls", "SUCCESS", "replay diverged"):
        assert word in demo.stdout
    # What it says to type next must exist.
    assert demo.stdout.index("pip install pytest") < demo.stdout.index("pytest --oao-record=once")


def test_the_installed_packages_are_the_three(installed: Path) -> None:
    """The contract, the machine and the pytest face, typed; and no folder `hookspecs`."""
    site = next((installed / ".venv" / "lib").glob("python*/site-packages"))

    for package in ("oao_hookspecs", "oao_harness", "pytest_oao"):
        assert (site / package / "py.typed").exists()
    assert not (site / "hookspecs").exists()
    assert not list(site.glob("langchain*"))


@pytest.mark.usefixtures("demo")
def test_pytest_without_the_machine_in_use_is_not_disturbed(installed: Path) -> None:
    """The plugin is found by its entry point and stays out of the way."""
    python = str(installed / ".venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "pytest"]
    subprocess.run(pip, env=bare(), check=True, timeout=300)
    (installed / "test_plain.py").write_text("def test_plain(): pass\n")

    done = subprocess.run(
        [python, "-m", "pytest", "-q", "test_plain.py"],
        cwd=installed,
        env=bare(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it would be published."""
    pytest.importorskip("build", reason="the package `build` is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--quiet", "--outdir", str(folder), str(ROOT)],
        env=bare(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


# What is asked of a fresh environment that has the wheel with one extra, and nothing else.
_SERVES: Final = """
import json, subprocess, sys, urllib.request
serve = [sys.executable, "-m", "oao_harness", "serve", "--demo", "--port", "0", "--json"]
server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
try:
    url = json.loads(server.stdout.readline())["url"]
    body = json.dumps({"agent": "demo", "task": "broken"}).encode()
    asked = urllib.request.Request(url + "/run", body, {"Content-Type": "application/json"})
    assert json.load(urllib.request.urlopen(asked, timeout=30))["status"] == "SUSPENDED"
    for path in ("/", "/docs", "/metrics", "/ui/static/htmx.min.js", "/ui/static/dashboard.css"):
        assert urllib.request.urlopen(url + path, timeout=30).status == 200, path
finally:
    server.terminate()
    server.communicate(timeout=30)
"""
_COUNTS: Final = """
from oao_harness import Orchestrator, tool
from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_exposition import Exposition
counted = Metrics()
Orchestrator(plugins=[counted]).run(lambda task: tool(len)(task), "abc")
assert b'status="SUCCESS"} 1.0' in Exposition(counted).answer()[0]
"""
_TRACES: Final = """
import http.server, os, threading
got = threading.Event()
class Collector(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        assert self.path == "/v1/traces" and self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        got.set()
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"
from oao_harness import Orchestrator
Orchestrator().run(lambda task: task, "abc")
assert got.wait(20)
"""


@pytest.mark.parametrize(("extra", "script"), [("server", _SERVES), ("metrics", _COUNTS), ("otel", _TRACES)])
def test_an_extra_is_enough_alone(extra: str, script: str, wheel: Path, tmp_path: Path) -> None:
    """The wheel with one extra, and nothing else: what the extra is for works."""
    venv.create(tmp_path / ".venv")
    python = tmp_path / ".venv" / "bin" / "python"
    # Little of it is ever imported.
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile"]
    done = subprocess.run(
        [*pip, f"{wheel}[{extra}]"], env=bare(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr

    (tmp_path / "asks.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [str(python), "asks.py"], cwd=tmp_path, env=bare(), capture_output=True, text=True, timeout=90, check=False
    )

    assert done.returncode == 0, done.stderr


def test_without_the_extra_the_server_says_what_to_install(installed: Path) -> None:
    """One line, no traceback: for the server, and for its keys."""
    oao = str(installed / ".venv" / "bin" / "oao")
    for command in (["serve", "--demo"], ["keys", "create", "ann"]):
        done = subprocess.run(
            [oao, *command], cwd=installed, env=bare(), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "pip install 'oao-harness[server]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_wheel_made_from_the_sdist_holds_the_same(wheel: Path) -> None:
    """`build` goes by way of the sdist: nothing is missing there, least of all what is no Python."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"oao_hookspecs", "oao_harness", "pytest_oao"}
    found = [path for path in (ROOT / "oao_harness").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {".py", ".lua", ".html", ".css", ".js", ".svg", ".txt"} <= {path.suffix for path in found}
    assert {str(path.relative_to(ROOT)) for path in found} <= set(names)


def test_what_others_wrote_is_in_the_wheel_with_its_license(wheel: Path) -> None:
    """Every minified file is named in the file of licenses beside it."""
    packed = zipfile.ZipFile(wheel)
    vendored = [name for name in packed.namelist() if name.endswith(".min.js")]
    assert vendored
    for name in vendored:
        folder, _, file = name.rpartition("/")
        assert f"{file}:" in packed.read(f"{folder}/LICENSES.txt").decode()
