"""The page `/metrics`: by the rules of its formats, there whatever fails, and quick beside ten thousand runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from oao_harness import MemoryStore, Orchestrator, SQLiteStore, StoreError
from oao_harness.listeners.metrics import Metrics
from oao_harness.listeners.metrics_exposition import Exposition
from oao_harness.listeners.metrics_table import FAMILIES
from oao_harness.listeners.metrics_waiting import PendingQuestions
from oao_hookspecs import Principal, QueueStats, Record
from tests.listeners.metrics_lint import lint
from tests.listeners.metrics_traffic import Policy, busy_page, find, payer, value

ME = Principal(id="me")


async def test_the_page_passes_the_lint(tmp_path: Path) -> None:
    """HELP and TYPE, names, units, histograms, no series twice; every metric of the table is on it."""
    page = await busy_page(tmp_path)
    assert lint(page) == []
    shown = {line.split(" ")[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    assert shown == {one.name for one in FAMILIES}
    kinds = {line.split(" ")[2]: line.split(" ")[3] for line in page.splitlines() if line.startswith("# TYPE ")}
    assert kinds == {one.name: one.kind for one in FAMILIES}


async def test_the_labels_are_those_of_the_table(tmp_path: Path) -> None:
    """No series has a label that is not documented."""
    page = await busy_page(tmp_path)
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = set(next(one for one in FAMILIES if one.name == name).labels)
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, name


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("oao_x 1\n", "no help"),
        ("# HELP oao_x_total a\n# TYPE oao_x_total gauge\noao_x_total 1\n", "only a counter"),
        ("# HELP oao_x a\n# TYPE oao_x gauge\noao_x 1\noao_x 2\n", "twice"),
        ("# HELP oao_x_ms a\n# TYPE oao_x_ms gauge\noao_x_ms 1\n", "base unit"),
        ("# HELP oao_x a\n# TYPE oao_x gauge\noao_x 1", "does not end"),
        ("# HELP oao_xY a\n# TYPE oao_xY gauge\noao_xY 1\n", "lower case"),
        ('# HELP h a\n# TYPE h histogram\nh_bucket{le="1.0"} 1\nh_count 1\nh_sum 1\n', "+Inf"),
        (
            '# HELP h a\n# TYPE h histogram\nh_bucket{le="1.0"} 3\nh_bucket{le="+Inf"} 2\nh_count 2\nh_sum 1\n',
            "do not grow",
        ),
    ],
)
def test_the_lint_finds_mistakes(page: str, wrong: str) -> None:
    """A check that cannot fail would be none."""
    assert any(wrong in one for one in lint(page)), lint(page)


async def test_open_metrics_by_request(tmp_path: Path) -> None:
    """By the Accept header of a Prometheus; anything else gets the text format, whatever it says."""
    page = await busy_page(tmp_path, "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3,*/*;q=0.1")
    found = {one.name for one in open_metrics(page)}
    assert "oao_executions" in found
    assert page.endswith("# EOF\n")
    exposition = Exposition(Metrics())
    plain = "application/openmetrics-text"
    assert exposition.answer(plain)[1].startswith(f"{plain}; version=1.0.0")
    for accept in ("", "*/*", "text/html", "application/json;version=x", "\ud800"):
        assert exposition.answer(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"
    assert exposition.answer(f"{plain};version=nonsense")[1].startswith(f"{plain}; version=1.0.0")


class Moody(MemoryStore):
    """Fails, or hangs, when it is told to."""

    mood = ""

    def runs(self, *args: object, **named: object) -> list[object]:  # type: ignore[override]
        if self.mood == "fails":
            raise StoreError("away")
        if self.mood == "hangs":
            self.let_go.wait(20)
        return list(super().runs(*args, **named))  # type: ignore[arg-type]

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()


def test_a_store_that_fails_takes_only_its_own_metrics(caplog: pytest.LogCaptureFixture) -> None:
    """The page says so, the log says so once, and when it is back, so are they."""
    store, metrics = Moody(), Metrics()
    exposition = Exposition(metrics, store=store, stats=lambda: QueueStats(queued=3, delayed=0, running=0), fresh_s=0)

    def page() -> str:
        return exposition.answer()[0].decode()

    Orchestrator(plugins=[metrics]).run(lambda task: find("x"), "x", agent_name="a")
    store.mood = "fails"
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            failed = page()
    assert value(failed, "oao_scrape_up", source="store") == 0
    assert value(failed, "oao_approvals_pending") is None
    assert value(failed, "oao_scrape_up", source="queue") == 1
    assert value(failed, "oao_queue_size", state="queued") == 3
    assert value(failed, "oao_executions_total", status="SUCCESS", agent_type="a") == 1
    assert lint(failed) == []
    assert [record.message.count("StoreError: away") for record in caplog.records] == [1]
    store.mood = ""
    assert value(page(), "oao_scrape_up", source="store") == 1
    assert value(page(), "oao_approvals_pending") == 0


def test_a_store_that_hangs_does_not_hang_the_page() -> None:
    """The first scrape waits three seconds, the others not; no threads pile up."""
    store = Moody()
    exposition = Exposition(Metrics(), store=store, fresh_s=0)
    store.mood = "hangs"
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert value(exposition.answer()[0].decode(), "oao_scrape_up", source="store") == 0
        took.append(time.monotonic() - began)
    assert took[0] < 4
    assert max(took[1:]) < 1
    assert sum(thread.name == "oao-scrape-store" for thread in threading.enumerate()) == 1
    store.mood = ""
    store.let_go.set()
    give_up = time.monotonic() + 10
    while value(exposition.answer()[0].decode(), "oao_scrape_up", source="store") != 1:
        assert time.monotonic() < give_up


def test_scrapes_side_by_side() -> None:
    """Each is a whole page, while runs go on."""
    metrics = Metrics()
    exposition = Exposition(metrics, store=MemoryStore(), fresh_s=0)
    orchestrator = Orchestrator(Policy(), plugins=[metrics])
    wrong: list[object] = []
    stop = threading.Event()

    def scrape() -> None:
        try:
            while not stop.is_set():
                wrong.extend(lint(exposition.answer()[0].decode()))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        orchestrator.run(lambda task: find("x"), "x", agent_name=f"a{number}")
    stop.set()
    for thread in threads:
        thread.join(20)
    assert wrong == []


class Counting(SQLiteStore):
    """Counts the records that are read."""

    records_read = 0

    def read(self, execution_id: str, *, after: int = 0) -> Iterator[Record]:
        for record in super().read(execution_id, after=after):
            self.records_read += 1
            yield record


def test_pending_questions_are_counted_and_only_news_is_read(tmp_path: Path) -> None:
    """An answer is seen, in whatever process it was given; what was read is not read again."""
    store = Counting(tmp_path / "runs.db")
    orchestrator = Orchestrator(Policy(), store)
    held = [orchestrator.run(payer, "go").execution_id for _ in range(3)]
    questions = PendingQuestions(store)
    now = time.time() + 50
    assert questions.count(now).questions == 3
    assert 50 <= questions.count(now).oldest_age_s < 70
    before = store.records_read
    assert questions.count(now).questions == 3
    assert store.records_read == before
    other = Orchestrator(Policy(), SQLiteStore(tmp_path / "runs.db"))
    other.reject(held[0], by=ME)
    assert questions.count(now).questions == 2
    assert store.records_read == before + 1
    other.approve(held[1], by=ME)
    other.resume(held[1], payer)
    assert questions.count(now).questions == 1
    store.delete(held[2])
    assert questions.count(now) == (0, 0.0)


def test_a_scrape_is_cheap_beside_ten_thousand_runs(tmp_path: Path) -> None:
    """Only what waits is looked at."""
    store = SQLiteStore(tmp_path / "runs.db")
    for number in range(10_000):
        id_ = f"r{number}"
        epoch = store.claim(id_)
        store.append(
            id_,
            epoch,
            {"v": 1, "seq": 1, "type": "run.started", "at": float(number), "agent": "a", "execution_id": id_},
            {"v": 1, "seq": 2, "type": "run.finished", "at": number + 1.0, "status": "SUCCESS", "totals": {"steps": 1}},
        )
    orchestrator = Orchestrator(Policy(), store)
    for _ in range(5):
        orchestrator.run(payer, "go")
    exposition = Exposition(Metrics(), store=store, fresh_s=0)
    began = time.perf_counter()
    page = exposition.answer()[0].decode()
    took_s = time.perf_counter() - began
    print(f"scrape: {1000 * took_s:.1f} ms")
    assert value(page, "oao_approvals_pending") == 5
    assert took_s < 0.5
