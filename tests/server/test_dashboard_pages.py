"""The dashboard over HTTP: errors that a person can read, streams that come back, actions only for our pages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oao_harness.fleet.jobs import Jobs
from oao_harness.server.keys import KeyFile
from tests.server.dashboard_site import GATES, Site, serving

PAGE = {"HX-Request": "true"}
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("site")) as found:
        yield found


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=60) as found:
        yield found


def events_of(client: httpx.Client, path: str, headers: dict[str, str], until: int) -> list[tuple[str, str, str]]:
    """Return so many events of a stream, each as its name, id and data."""
    found: list[tuple[str, str, str]] = []
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        event: dict[str, list[str]] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                key, _, value = line.partition(": ")
                event.setdefault(key, []).append(value)
                continue
            if event:
                found.append((event["event"][0], event.get("id", [""])[0], "\n".join(event.get("data", []))))
            event = {}
            if len(found) >= until or (found and found[-1][0] == "end"):
                return found
    return found


def test_errors_are_pages(http: httpx.Client) -> None:
    """An address that leads nowhere says so in words, in the page or in its notice, and leads back."""
    answer = http.get("/ui/runs/nobody")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such thing" in answer.text
    assert 'href="/"' in answer.text
    told = http.get("/ui/runs/%3Cscript%3E/calls/1", headers=PAGE)
    assert told.status_code == 404
    assert "<script" not in told.text
    assert "&lt;script&gt;" in told.text
    assert http.get("/ui/runs/nobody/live").status_code == 404
    assert http.get("/?page=0").status_code == 422


def test_only_our_pages_may_act(site: Site, http: httpx.Client) -> None:
    """A form on another site cannot approve anything, even where no key is needed."""
    held = site.run("payer", "a trap")
    path = f"/ui/approvals/{held['execution_id']}-1"
    refused = http.post(path, data={"verdict": "approve"}, headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403
    assert all(one["type"] != "approval.answered" for one in site.journal(held["execution_id"]))
    assert http.post(path, data={"verdict": "maybe"}, headers=PAGE).status_code == 422
    assert http.post(path, data={"verdict": "reject", "note": "no"}, headers=PAGE).status_code == 200
    again = http.post(path, data={"verdict": "approve"}, headers=PAGE)
    assert again.status_code == 409
    assert "already" in again.text


def test_a_stream_tells_what_was_missed(site: Site, http: httpx.Client) -> None:
    """Who is up to date is told nothing; who comes back is told everything; a run that is over ends its stream."""
    held = site.run("payer", "streams")
    path = f"/ui/runs/{held['execution_id']}/live"
    seq = len(site.journal(held["execution_id"]))
    late = events_of(http, f"{path}?after=1", {}, 8)
    assert {name for name, _, _ in late} == {
        "title", "actions", "head", "asks", "timeline", "result", "budgets", "kin"
    }  # fmt: skip
    back = events_of(http, f"{path}?after={seq}", {"Last-Event-ID": str(seq)}, 8)
    assert [name for name, _, _ in back] == [name for name, _, _ in late]
    assert {id_ for _, id_, _ in back} == {str(seq)}
    told: list[tuple[str, str, str]] = []
    listening = threading.Thread(target=lambda: told.extend(events_of(http, f"{path}?after={seq}", {}, 99)))
    listening.start()
    time.sleep(1.0)
    assert told == []
    with httpx.Client(base_url=site.url) as other:
        other.post(f"/ui/approvals/{held['execution_id']}-1", data={"verdict": "approve"}, headers=PAGE)
    listening.join(20)
    assert told[-1][0] == "end"
    assert any(name == "title" and "Succeeded" in data for name, _, data in told)
    over = events_of(http, f"{path}?after=99999", {}, 99)
    assert over[-1][0] == "end"


def test_a_list_stream_is_silent_until_something_changes(site: Site, http: httpx.Client) -> None:
    """The list says what it shows already; a new run is marked as new."""
    seen = re.search(r"seen=(\w+)", http.get("/?agent=stepper").text)
    assert seen is not None
    told: list[tuple[str, str, str]] = []
    path = f"/ui/live?agent=stepper&seen={seen[1]}"
    listening = threading.Thread(target=lambda: told.extend(events_of(http, path, {}, 1)))
    listening.start()
    time.sleep(1.0)
    assert told == []
    name = uuid.uuid4().hex
    GATES[name] = threading.Event()
    GATES[name].set()
    site.run("stepper", name)
    listening.join(20)
    assert 'class="fresh"' in told[0][2]


def test_filters_and_pages_of_the_list(site: Site, http: httpx.Client) -> None:
    """Status, agent and start of the id are asked of the store; what is empty says what to do."""
    first = site.run("many", 0)["execution_id"]
    for _ in range(50):
        site.run("many", 0)
    page = http.get("/?agent=many")
    assert page.text.count("data-run=") == 50
    assert "Older" in page.text
    assert http.get("/?agent=many&page=2").text.count("data-run=") >= 1
    assert http.get(f"/?starts_with={first}").text.count("data-run=") == 1
    assert "No run matches" in http.get("/?status=DEAD&agent=many").text
    assert "No run matches" in http.get("/", params={"agent": '"><script>'}).text


def test_an_empty_store_says_how_to_begin(tmp_path: Path) -> None:
    """The first page of a new server is no empty table."""
    with serving(tmp_path) as fresh:
        assert "No run yet" in httpx.get(fresh.url).text
        assert "Nothing waits for you" in httpx.get(f"{fresh.url}/ui/approvals").text
        assert "The queue is empty" in httpx.get(f"{fresh.url}/ui/fleet").text


def test_an_agent_is_run_from_the_page(site: Site, http: httpx.Client) -> None:
    """The form's answer leads to the run's page; a text stays one, an object is one; what is wrong is said at once."""
    page = http.get("/").text
    assert 'hx-post="/ui/runs"' in page
    assert "<option>payer</option>" in page
    for written, task in (("rent", "rent"), ('{"to": "bob"}', {"to": "bob"}), ("[not JSON", "[not JSON"), ("7", "7")):
        begun = http.post("/ui/runs", data={"agent": "payer", "task": written}, headers=PAGE)
        assert begun.status_code == 200
        execution_id = begun.headers["HX-Redirect"].removeprefix("/ui/runs/")
        assert site.journal(execution_id)[0]["task"] == task
    unknown = http.post("/ui/runs", data={"agent": "payr", "task": "x"}, headers=PAGE)
    assert unknown.status_code == 404
    assert "payer" in unknown.text
    assert http.post("/ui/runs", data={"agent": "payer", "task": "x"}).status_code == 403


def test_dead_letters_are_driven_again_or_ended(site: Site, http: httpx.Client) -> None:
    """A job that fails for good is on the fleet's page with why; both buttons do what they say."""
    jobs = [http.post("/jobs", json={"agent": "failing", "task": str(i), "retries": 0}).json() for i in range(2)]
    ids = [job["execution_id"] for job in jobs]
    until = time.monotonic() + 30
    while (page := http.get("/ui/fleet").text).count("no such host") < 2:
        assert time.monotonic() < until, page
        time.sleep(0.1)
    assert isinstance(site.app.state.service.jobs, Jobs)
    assert f'hx-post="/ui/runs/{ids[0]}/cancel"' in page
    ended = http.post(f"/ui/runs/{ids[0]}/cancel", headers=PAGE)
    assert ended.status_code == 200, ended.text
    assert site.journal(ids[0])[-1]["status"] == "FAILED"
    again = http.post(f"/ui/runs/{ids[1]}/resume", headers=PAGE)
    assert again.status_code == 200, again.text
    assert any(one["type"] == "run.queued" for one in site.journal(ids[1]))


def test_policies_coverage_and_what_another_would_change(site: Site, http: httpx.Client) -> None:
    """Which rules spoke and which never did; recorded calls under another policy, call by call."""
    site.run("payer", "to be judged")
    policy = str(site.folder / "policy.toml")
    page = http.get("/ui/policies").text
    assert "payer" in page
    assert "policy.toml" in page
    covered = http.get("/ui/policies/coverage", params={"policy": policy}).text
    assert re.search(r"never-used\s*<span class=\"tag\">never", covered)
    assert "large-sums" in covered
    assert "1 of 2 rules matched" in covered
    given = {"before": policy, "after": "off", "limit": "50"}
    diff = http.post("/ui/policies/diff", data=given, headers=PAGE)
    assert diff.status_code == 200, diff.text
    assert "large-sums" in diff.text
    wrong = http.post("/ui/policies/diff", data={**given, "after": "nonsense"}, headers=PAGE)
    assert wrong.status_code == 422
    assert "nonsense" in wrong.text


def test_who_may_not_is_offered_nothing_and_refused(tmp_path: Path) -> None:
    """A viewer sees the question without its buttons, and a click that was forged is a 403."""
    keys = KeyFile(tmp_path / "keys.json")
    viewer, operator = (keys.create(role, [role]).text for role in ("viewer", "operator"))
    with serving(tmp_path) as guarded, httpx.Client(base_url=guarded.url, timeout=60) as client:
        may_run, may_look = ({"Authorization": f"Bearer {one}"} for one in (operator, viewer))
        held = client.post("/run", json={"agent": "payer", "task": "x"}, headers=may_run).json()
        page = client.get(f"/ui/runs/{held['execution_id']}", headers=may_look)
        assert page.status_code == 200
        assert "more than 100 EUR" in page.text
        assert 'value="approve"' not in page.text
        assert "/cancel" not in page.text
        assert "/cancel" in client.get(f"/ui/runs/{held['execution_id']}", headers=may_run).text
        assert "Run an agent" not in client.get("/", headers=may_look).text
        assert "Run an agent" in client.get("/", headers=may_run).text
        for path, data in (
            (f"/ui/approvals/{held['execution_id']}-1", {"verdict": "approve"}),
            (f"/ui/runs/{held['execution_id']}/cancel", {}),
            ("/ui/runs", {"agent": "payer", "task": "x"}),
        ):
            refused = client.post(path, data=data, headers={**may_look, **PAGE})
            assert refused.status_code == 403
            assert refused.headers["content-type"].startswith("text/html")
        assert [one["type"] for one in guarded.journal(held["execution_id"])][-1] == "run.suspended"
        # Nobody at all is sent to the form.
        assert client.get("/", headers={"Accept": "text/html"}).headers["location"] == "/login"
        assert client.get("/ui/live", headers=PAGE).headers["HX-Redirect"] == "/login"
        assert "Log in to oao" in client.get("/login").text
        assert client.get("/ui/static/dashboard.css").status_code == 200


_DIES = """
import sys
from oao_harness import Orchestrator
from tests.server.dashboard_site import charger
Orchestrator("off", store=sys.argv[1]).run(charger, "card-1", execution_id="in-doubt", agent_name="charger")
"""


def test_a_call_in_doubt_is_resolved_and_the_run_ends(site: Site, http: httpx.Client) -> None:
    """A process died in a call that may not be made twice: the page asks what became of it, and the answer counts."""
    store = f"sqlite:{site.folder / 'oao.db'}"
    path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
    env = {**os.environ, "DIES_OF_IT": "1", "PYTHONPATH": path}
    died = subprocess.run([sys.executable, "-c", _DIES, store], env=env, timeout=60, check=False)
    assert died.returncode == 3
    until = time.monotonic() + 60
    while (resumed := http.post("/ui/runs/in-doubt/resume", headers=PAGE)).status_code == 409:
        # Until its lease has lapsed it may still be alive.
        assert time.monotonic() < until, resumed.text
        time.sleep(1)
    assert resumed.status_code == 200, resumed.text
    assert "Did call #1" in http.get("/ui/runs/in-doubt").text
    assert "Did call #1" in http.get("/ui/approvals").text
    wrong = http.post("/ui/doubts/in-doubt/1", data={"landed": "yes", "result": "{"}, headers=PAGE)
    assert wrong.status_code == 422
    said = http.post("/ui/doubts/in-doubt/1", data={"landed": "yes", "result": '"charged it"'}, headers=PAGE)
    assert said.status_code == 200, said.text
    while site.journal("in-doubt")[-1]["type"] != "run.finished":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert site.journal("in-doubt")[-1]["output"] == "charged it"


def test_a_call_in_full(site: Site, http: httpx.Client) -> None:
    """Request, result, decision with its rule and where that is written; a number that is none is a 404."""
    held = site.run("payer", "in full")
    found = http.get(f"/ui/runs/{held['execution_id']}/calls/1", headers=PAGE).text
    assert "saw balance" in found
    assert "Fork from #1" in found
    assert http.get(f"/ui/runs/{held['execution_id']}/calls/77", headers=PAGE).status_code == 404
