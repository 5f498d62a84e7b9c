"""`oao redact` and `oao verify`: what is taken out is gone from the file, and the journal says so."""

from __future__ import annotations

import json
import sqlite3
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from oao_harness import SQLiteStore

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

ALLOW = {"verdict": "allow", "rule": "default", "plugin": "oao"}
END = {
    "type": "run.finished",
    "status": "SUCCESS",
    "error": None,
    "output": "sent to alice@example.com",
    "totals": {"steps": 2, "model_calls": 1, "tool_calls": 1, "tokens": 10},
}
SECRET = "alice@example.com"


def mail(journal: Journal, execution_id: str = "run-1", at: float = 1000.0, **started: Any) -> str:
    """A run in which an address stands everywhere."""
    asked = {"messages": [{"role": "user", "content": f"write to {SECRET}, then {SECRET}"}]}
    answer = {"content": "", "tool_calls": [{"name": "send", "args": {"to": SECRET}, "id": f"call-{SECRET}"}]}
    encoded = {"$oao": "bytes", "value": b64encode(f"To: {SECRET}".encode()).decode()}
    refused = {"type": "m:Refused", "message": f"no {SECRET}", "data": {"args": [SECRET]}}
    return journal(
        execution_id,
        {"type": "call", "n": 1, "kind": "model", "name": "m", "req": asked, "decision": ALLOW},
        {"type": "outcome", "n": 1, "duration_s": 0.5, "res": answer, "batch": [f"call-{SECRET}"]},
        {"type": "call", "n": 2, "kind": "tool", "name": "send", "req": {"to": SECRET, "amount": 4111, "body": encoded},
         "call_id": f"call-{SECRET}", "decision": {**ALLOW, "reason": f"{SECRET} is known"}},
        {"type": "retry", "n": 2, "attempt": 1, "delay_s": 1.0, "error": f"Refused: no {SECRET}"},
        {"type": "outcome", "n": 2, "duration_s": 0.5, "error": refused},
        END,
        at=at,
        **started,
    )  # fmt: skip


def raw(folder: Path) -> bytes:
    """Everything that is on the disk."""
    return b"".join(path.read_bytes() for path in sorted((folder / ".oao").iterdir()))


def records(folder: Path, execution_id: str) -> list[Any]:
    store = SQLiteStore(folder / ".oao" / "oao.db")
    found = list(store.read(execution_id))
    store.close()
    return found


def test_a_text_is_gone_from_the_run_and_from_the_disk(oao: Oao, journal: Journal, folder: Path) -> None:
    """Also from errors, ids, base64, free pages and the log; numbers, verdicts and totals stay."""
    mail(journal)
    assert SECRET.encode() in raw(folder)
    heads = [one["hash"] for one in records(folder, "run-1")]

    result = oao("redact", "run-1", "--text", SECRET, "--by", "dora", "--note", f"asked by {SECRET}", "--yes")

    assert result.exit_code == 0
    assert "redacted 6 records" in result.stdout
    assert SECRET not in result.stdout
    left = raw(folder)
    for spelling in (SECRET.encode(), b64encode(f"To: {SECRET}".encode())[8:], b"example.com"):
        assert spelling not in left
    now = records(folder, "run-1")
    assert [one["hash"] for one in now[:-1]] == heads
    assert now[3]["req"]["to"] == "<redacted>"
    assert now[3]["call_id"] == now[2]["batch"][0] == "call-<redacted>"
    assert (now[3]["name"], now[6]["totals"]) == ("send", END["totals"])
    assert (now[-1]["type"], now[-1]["by"], now[-1]["note"]) == ("redaction", "dora", "asked by <redacted>")


def test_the_journal_is_verified_and_names_the_redactions(oao: Oao, journal: Journal) -> None:
    """Twice redacted is still in order; the head from before is still found."""
    mail(journal)
    head = json.loads(oao("verify", "--json").stdout)["runs"][0]["head"]
    oao("redact", "run-1", "--text", SECRET, "--by", "dora", "--note", "request 117", "--yes")
    oao("redact", "run-1", "--pattern", "41+", "--by", "emil", "--yes")

    result = oao("verify", "run-1", "--head", head)

    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    assert "✔ intact run run-1 9 records, from its start to its end" in told
    assert "record 2 (call) redacted by dora" in told
    assert "request 117" in told
    assert "record 4 (call) redacted by emil" in told
    assert "is the hash of record 7; 2 records came after it" in told


def test_a_dry_run_and_an_unconfirmed_one_change_nothing(oao: Oao, journal: Journal, folder: Path) -> None:
    """They say which records, without the text itself."""
    mail(journal)
    before = records(folder, "run-1")

    dry = oao("redact", "run-1", "--text", SECRET, "--dry-run")
    asked = oao("redact", "run-1", "--text", SECRET)

    assert dry.exit_code == 0
    assert "record 4: call #2 send, 4 places in req, call_id, decision" in dry.stdout
    assert SECRET not in dry.stdout
    assert (asked.exit_code, asked.stderr.count("\n")) == (2, 1)
    assert "6 records would be redacted for good; say --yes" in asked.stderr
    assert records(folder, "run-1") == before


def test_a_secret_is_taken_from_the_environment(
    oao: Oao, journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it stands in no shell's history; its name stands for it."""
    monkeypatch.setenv("MAIL_OF", SECRET)
    mail(journal)

    assert oao("redact", "run-1", "--secret", "MAIL_OF", "--yes").exit_code == 0

    assert records(folder, "run-1")[3]["req"]["to"] == "<env:MAIL_OF>"
    assert SECRET.encode() not in raw(folder)


def test_a_field_a_pattern_and_a_number_are_redacted(oao: Oao, journal: Journal, folder: Path) -> None:
    """A place as in [tool.oao.redact], the group of a pattern, and a number that reads like it."""
    mail(journal)

    assert oao("redact", "run-1", "--field", "tool.send.req.body", "--pattern", "411(1)", "--yes").exit_code == 0

    request = records(folder, "run-1")[3]["req"]
    assert request == {"to": SECRET, "amount": "<redacted>", "body": "<redacted>"}


def test_a_call_goes_as_a_whole_and_its_texts_wherever_they_stand(oao: Oao, journal: Journal, folder: Path) -> None:
    """What a tool was given stands in the model's answer and in the output too."""
    mail(journal)

    assert oao("redact", "run-1", "--call", "2", "--yes").exit_code == 0

    now = records(folder, "run-1")
    assert now[3]["req"] == {"to": "<redacted>", "amount": "<redacted>", "body": "<redacted>"}
    assert now[5]["error"]["message"] == "<redacted>"
    assert now[5]["error"]["type"] == "m:Refused"
    assert SECRET.encode() not in raw(folder)
    assert oao("show", "run-1").exit_code == 0


def test_all_contents_go_and_the_run_can_still_be_read(oao: Oao, journal: Journal, folder: Path) -> None:
    """--content leaves who called what, when, and what it cost."""
    mail(journal)

    assert oao("redact", "run-1", "--content", "--by", "dora", "--yes").exit_code == 0

    assert SECRET.encode() not in raw(folder)
    assert b"the task" not in raw(folder)
    assert oao("verify", "run-1").exit_code == 0
    shown = oao("show", "run-1").stdout
    assert "tool   send" in shown
    assert "redacted by dora" in shown
    assert oao("export", "run-1", "-o", "out.oao.json").exit_code == 0


def test_nested_runs_are_redacted_too_and_forks_are_named(oao: Oao, journal: Journal, folder: Path) -> None:
    """A text that went on into a nested run; a fork holds a copy, which --forks takes along."""
    child = {"type": "child", "execution_id": "inner-1", "n": 1}
    journal(
        "outer-1",
        {"type": "call", "n": 1, "kind": "tool", "name": "ask", "req": {"q": SECRET}, "decision": ALLOW},
        child,
    )
    mail(journal, "inner-1", at=1001.0)
    store = SQLiteStore(folder / ".oao" / "oao.db")
    epoch = store.claim("fork-1")
    started = {"v": 1, "seq": 1, "type": "run.started", "at": 2000.0, "execution_id": "fork-1", "agent": "a"}
    store.append("fork-1", epoch, {**started, "task": SECRET, "forked": {"run": "outer-1", "at": 1}})
    store.close()

    alone = oao("redact", "outer-1", "--text", SECRET, "--yes")

    assert "in 2 runs" in alone.stdout
    assert "run fork-1 is a fork of it and holds it too: oao redact fork-1 ... --forks" in alone.stdout
    assert SECRET.encode() in raw(folder)
    assert oao("verify", "outer-1").stdout.count("✔ intact") == 2
    assert oao("redact", "outer-1", "--text", SECRET, "--forks", "--yes").exit_code == 0
    assert SECRET.encode() not in raw(folder)


def test_a_run_that_somebody_holds_is_refused(oao: Oao, journal: Journal, folder: Path) -> None:
    """A live lease: nothing is changed, and the message says whose it is."""
    mail(journal)
    store = SQLiteStore(folder / ".oao" / "oao.db")
    store.claim("run-1", owner="pid 7 on desk", ttl_s=30)

    result = oao("redact", "run-1", "--text", SECRET, "--yes")

    assert result.exit_code == 2
    assert "run 'run-1' is held by pid 7 on desk" in result.stderr
    store.close()
    assert SECRET.encode() in raw(folder)


def test_a_reader_that_keeps_an_old_copy_alive_is_named(oao: Oao, journal: Journal, folder: Path) -> None:
    """The redaction is made; that the file still holds it is not passed over in silence."""
    mail(journal)
    reader = sqlite3.connect(folder / ".oao" / "oao.db", isolation_level=None)
    reader.execute("begin")
    reader.execute("select count(*) from records").fetchone()

    result = oao("redact", "run-1", "--text", SECRET, "--yes")

    reader.close()
    assert result.exit_code == 0
    assert "another process reads the store" in result.stdout
    assert oao("runs", "compact").exit_code == 0
    assert SECRET.encode() not in raw(folder)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what shall go"),
        (["--text", "ab"], "--text needs 3 characters or more"),
        (["--secret", "NOT_SET_ANYWHERE"], "the environment variable NOT_SET_ANYWHERE is not set"),
        (["--pattern", "("], "is no regular expression"),
        (["--pattern", "x*"], "finds the empty text"),
        (["--field", "to"], "is no place"),
        (["--call", "9"], "run run-1 has no call #9"),
        (["--text", "support"], "it also stands in 'agent' of record 1"),
    ],
)
def test_a_mistake_is_one_line(oao: Oao, journal: Journal, folder: Path, arguments: list[str], said: str) -> None:
    """Exit code 2, what is wrong, what to do, and nothing was changed."""
    mail(journal)
    before = records(folder, "run-1")
    result = oao("redact", "run-1", "--yes", *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr
    assert records(folder, "run-1") == before


def test_what_is_not_there_is_said(oao: Oao, journal: Journal) -> None:
    """Nothing is written where nothing is found."""
    mail(journal)
    result = oao("redact", "run-1", "--text", "bob@example.com", "--yes")
    assert (result.exit_code, result.stdout) == (0, "nothing of it is in this run\n")
    assert "7 records, from" in oao("verify", "run-1").stdout


def change(folder: Path, sql: str) -> None:
    """Does what somebody with an editor for SQLite files can do."""
    db = sqlite3.connect(folder / ".oao" / "oao.db")
    db.execute(sql)
    db.commit()
    db.close()


def test_damage_is_found_with_its_place(oao: Oao, journal: Journal, folder: Path) -> None:
    """A changed record, an unreadable one, an end that was cut off: exit code 1."""
    for name in ("changed", "unreadable", "cut", "whole"):
        mail(journal, name)
    change(folder, "update records set body = replace(body, '4111', '9999') where execution_id = 'changed'")
    change(folder, "update records set body = 'no' where execution_id = 'unreadable' and seq = 3")
    change(folder, "delete from records where execution_id = 'cut' and seq >= 6")

    for name, said in (
        ("changed", "record 4: its hash"),
        ("unreadable", "record 3:"),
        ("cut", "record 6: it is missing"),
    ):
        result = oao("verify", name)
        assert result.exit_code == 1
        assert f"✘ damaged  run {name}" in result.stdout
        assert said in result.stdout
        assert json.loads(oao("verify", name, "--json").stdout)["intact"] is False
    assert oao("verify", "whole").exit_code == 0
    every = oao("verify", "--all")
    assert every.exit_code == 1
    assert "4 runs, 21 records: 3 damaged" in every.stdout


def test_a_head_that_no_record_has_is_damage(oao: Oao, journal: Journal) -> None:
    """The journal was written anew; and what is no hash is a mistake."""
    mail(journal)
    result = oao("verify", "run-1", "--head", "0" * 64)
    assert result.exit_code == 1
    assert "no record has the hash" in result.stdout
    wrong = oao("verify", "run-1", "--head", "HEAD")
    assert (wrong.exit_code, wrong.stderr.count("\n")) == (2, 1)


AGENT = """
    import oao_harness

    @oao_harness.tool(effect="once")
    def look(who):
        return {"mail": who + "@example.com"}

    @oao_harness.tool(effect="once")
    def pay(amount):
        return "paid"

    def agent(task):
        found = look(task)
        return pay(900)
"""
POLICY = '[[rule]]\nname = "sums"\ntools = ["pay"]\nthen = "ask"\nreason = "money"\n[tools]\nallow = ["*"]\n'


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--field", "tool.look.req.who"], "step 1 was redacted after it was recorded"),
        (["--field", "tool.look.res.mail"], "its result was redacted, so that nobody can go on with it"),
    ],
)
def test_a_redacted_run_that_is_resumed_stops_and_says_why(
    oao: Oao, folder: Path, write: Any, option: list[str], said: str
) -> None:
    """Neither a crash nor an agent that goes on with `<redacted>`."""
    write("desk", AGENT)
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    assert oao("run", "desk:agent", "alice", "--policy", "policy.toml").exit_code == 3
    assert oao("redact", "last", *option, "--yes").exit_code == 0
    assert oao("verify", "last").exit_code == 0
    assert oao("approve", "last").exit_code == 0

    result = oao("resume", "last")

    assert result.exit_code == 1
    assert said in " ".join(result.stdout.split())


def test_a_fork_of_a_redacted_run_is_in_order_and_can_be_redacted_too(oao: Oao, folder: Path, write: Any) -> None:
    """It has copies of redacted records, written as they are: no replacement in its own journal."""
    write("desk", AGENT)
    assert oao("run", "desk:agent", "alice").exit_code == 0
    assert oao("redact", "last", "--field", "tool.pay.req.amount", "--yes").exit_code == 0
    assert oao("fork", "last", "--at", "2").exit_code == 0
    fork = json.loads(oao("runs", "--json").stdout)[0]["execution_id"]

    assert oao("verify", fork).exit_code == 0
    assert oao("redact", fork, "--text", "alice", "--yes").exit_code == 0
    assert oao("verify", fork).exit_code == 0
    assert oao("verify", "--all").exit_code == 0
