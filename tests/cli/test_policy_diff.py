"""`oao policy diff`: what it takes, what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oao_harness import FilePolicy, Orchestrator, SQLiteStore, tool
from tests.cli.conftest import Oao
from tests.importing.test_forms import LOG, TAU

DATA = Path(__file__).parents[3] / "shared" / "data"
STORE = ".oao/oao.db"


@pytest.fixture
def files(folder: Path) -> Path:
    """Two recorded runs of others, and policies."""
    (folder / "runs").mkdir()
    (folder / "runs" / "log.json").write_text(json.dumps(LOG), "utf-8")
    (folder / "runs" / "tau.json").write_text(json.dumps(TAU), "utf-8")
    (folder / "no-find.toml").write_text('[tools]\ndeny = ["find"]\n', "utf-8")
    (folder / "ask.toml").write_text('[tools]\nask = ["find"]\n', "utf-8")
    return folder


def document(oao: Oao, *arguments: str) -> dict[str, Any]:
    done = oao("policy", "diff", *arguments, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_table_says_what_changes(oao: Oao, files: Path) -> None:
    """By rule, tool and agent, with the calls, the runs that are halted and what is not recorded."""
    done = oao("policy", "diff", "--from", "off", "--to", "no-find.toml", "runs", width=120)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]

    assert done.exit_code == 0, done.output
    for line in (
        "2 runs, 8 calls (4 of tools, 4 of models)", "newly denied 2", "same 6", "tools.deny 2 2 0 → 2", "find 2 2",
        "banking 5 1",
        "tau-bench 3 1",
        "log.json #2 find allow deny tools.deny", "tau.json:task-3-trial-0 #2 find allow deny tools.deny",
        "runs halted 0 → 2 (2 newly)", "tokens saved unknown in 2 runs",
    ):  # fmt: skip
        assert line in lines, line
    assert "1 run: 1 tool calls that the model asked for have no recorded result" in lines


def test_the_document_has_a_version_and_every_change(oao: Oao, files: Path) -> None:
    """The same numbers for programs."""
    found = document(oao, "--from", "ask.toml", "--to", "no-find.toml", "runs/log.json")

    assert found["format"] == "oao-policy-diff/1"
    assert (found["from"], found["to"], found["runs"], found["calls"]) == ("ask.toml", "no-find.toml", 1, 5)
    assert found["changes"] == {"denied": 1, "allowed": 0, "asked": 0, "released": 0, "modified": 0, "same": 4}
    assert found["tools"]["find"]["from"] == {"deny": 0, "ask": 1}
    assert found["tools"]["find"]["to"] == {"deny": 1, "ask": 0}
    change, batch = found["changed_calls"]
    assert (batch["stage"], batch["call"], batch["name"]) == ("batch", "#1", "p"), "its calls are asked for together"
    assert change["call"] == "#2"
    assert (change["from"]["verdict"], change["to"]["verdict"], change["rule"]) == ("ask", "deny", "tools.deny")
    assert change["to"]["source"] == "no-find.toml:2"
    assert found["halted"] == {"from": 0, "to": 1, "newly": 1, "no_longer": 0, "elsewhere": 0}
    assert (found["errors"], found["skipped"]) == ([], [])


@pytest.mark.parametrize(
    ("before", "after", "what", "code"),
    [
        ("off", "no-find.toml", "denied", 1),
        ("off", "no-find.toml", "any", 1),
        ("off", "no-find.toml", "asked", 0),
        ("no-find.toml", "off", "allowed", 1),
        ("no-find.toml", "off", "denied", 0),
        ("off", "ask.toml", "asked", 1),
        ("no-find.toml", "ask.toml", "asked", 1),
        ("ask.toml", "off", "released", 1),
        ("ask.toml", "ask.toml", "any", 0),
    ],
)
def test_exit_codes_for_ci(oao: Oao, files: Path, before: str, after: str, what: str, code: int) -> None:
    """1 for what is asked to fail, and only for that."""
    done = oao("policy", "diff", "--from", before, "--to", after, "runs/log.json", "--fail-on", what)
    assert done.exit_code == code, done.output
    assert oao("policy", "diff", "--from", before, "--to", after, "runs/log.json").exit_code == 0


def test_a_damaged_file_is_named_and_the_others_are_judged(oao: Oao, files: Path) -> None:
    """Exit code 2, whatever changed; what is of no known form is skipped in a folder, and an error by its name."""
    (files / "runs" / "cut.json").write_text('{"suite_name": "x", "messages": [', "utf-8")
    (files / "runs" / "list.json").write_text("[1, 2]", "utf-8")
    (files / "runs" / "notes.txt").write_text("not a run", "utf-8")
    done = oao("policy", "diff", "--from", "off", "--to", "no-find.toml", "runs", "--fail-on", "denied")

    assert done.exit_code == 2
    assert "2 runs, 8 calls (4 of tools, 4 of models)" in done.stdout
    assert "error: cannot import 'runs/cut.json': it is truncated or no JSON" in done.stderr
    assert "skipped, of no known form: runs/list.json" in " ".join(done.stdout.split())
    found = document(oao, "--from", "off", "--to", "no-find.toml", "runs", "runs/list.json")
    assert [one["name"] for one in found["errors"]] == ["runs/cut.json"], "found in the folder first"
    found = document(oao, "--from", "off", "--to", "no-find.toml", "runs/list.json", "runs")
    assert [one["name"] for one in found["errors"]] == ["runs/list.json", "runs/cut.json"]
    assert found["runs"] == 2


def test_mistakes_are_said(oao: Oao, files: Path) -> None:
    """Exit code 2, one line, no traceback."""
    for arguments, said in [
        (("--from", "off", "--to", "strikt", "runs"), "unknown policy 'strikt' (did you mean 'strict'?)"),
        (("--from", "off", "--to", "none.toml", "runs"), "there is no policy file"),
        (("--from", "off", "--to", "nowhere:policy", "runs"), "there is no module 'nowhere'"),
        (("--from", "off", "--to", "strict", "none/"), "there is no file or folder 'none/'"),
        (("--from", "off", "--to", "strict", "abc123"), "no run is journaled here yet"),
        (("--from", "off", "--to", "strict", "all"), "no run is journaled here yet"),
        (("--from", "off", "runs"), "error: missing option '--to' (see oao policy diff --help)"),
        (("--from", "off", "--to", "strict"), "error: missing argument"),
    ]:
        done = oao("policy", "diff", *arguments)
        assert done.exit_code == 2, arguments
        assert said in " ".join(done.output.split()), (arguments, done.output)
        assert "Traceback" not in done.output
    done = oao("policy", "diff", "--from", "off", "--to", "strict", "runs", "--agent", "nobody*", "--fail-on", "any")
    assert done.exit_code == 2, "a check that judges nothing must not pass"
    assert "error: no run is of an agent like 'nobody*'; there are: " in done.output
    (files / "empty").mkdir()
    assert "holds no file that ends in" in oao("policy", "diff", "--from", "off", "--to", "off", "empty").output


def test_runs_of_a_store(oao: Oao, files: Path) -> None:
    """By id, by its unique start, `last`, `all`; a nested run is judged with the one that it belongs to."""

    @tool
    def find(what: str) -> str:
        return what

    @tool
    def delegate() -> str:
        Orchestrator().run(lambda _t: find("inner"), "sub", agent_name="helper", execution_id="inner-1")
        return "done"

    store = SQLiteStore(STORE)
    Orchestrator(store=store).run(lambda _t: (find("a"), delegate()), "t", execution_id="outer-1", agent_name="boss")
    held = FilePolicy.from_text('[tools]\nask = ["find"]\n')
    Orchestrator(held, store).run(lambda _t: find("b"), "t", execution_id="second-1", agent_name="other")
    store.close()

    policies = ("--from", "off", "--to", "no-find.toml")
    whole = document(oao, *policies, "all")
    assert (whole["runs"], whole["calls"], whole["changes"]["denied"]) == (2, 4, 3)
    assert {name: row["calls"] for name, row in whole["agents"].items()} == {"boss": 2, "helper": 1, "other": 1}
    one = document(oao, *policies, "outer")
    assert [(c["run"], c["agent"], c["call"]) for c in one["changed_calls"]] == [
        ("outer-1", "boss", "#1"), ("outer-1", "helper", "helper #1"),
    ]  # fmt: skip
    assert document(oao, *policies, "last", "outer-1", "second")["runs"] == 2, "each once"
    mixed = document(oao, *policies, "second-1", "runs/log.json")
    assert (mixed["runs"], mixed["calls"]) == (2, 6)
    assert document(oao, *policies, "all", "--agent", "bo*")["other_agents"] == 1
    assert "no run has an id that starts with 'zzz'" in oao("policy", "diff", *policies, "zzz").output


def test_recordings_and_printed_journals(oao: Oao, agents: str, files: Path) -> None:
    """What `oao export` and `oao show --json` wrote: the same calls."""
    oao("run", f"{agents}:chatty", "Hi")
    assert oao("export", "last", "-o", "r.oao.json").exit_code == 0
    (files / "r.jsonl").write_text(oao("show", "last", "--json").stdout, "utf-8")
    (files / "copy.json").write_text((files / "r.oao.json").read_text("utf-8"), "utf-8")
    found = [
        document(oao, "--from", "off", "--to", "no-find.toml", name)
        for name in ("last", "r.oao.json", "r.jsonl", "copy.json")
    ]
    assert [(one["runs"], one["calls"]) for one in found] == [(1, found[0]["calls"])] * 4
    assert all(one["changes"] == found[0]["changes"] for one in found)
    assert "the task is not recorded: rules that read it judge without" not in found[1]["notes"]


def test_errors_of_a_policy_are_counted_and_said(oao: Oao, files: Path, write: Any) -> None:
    """Each is a denial; the log of the failing policy does not drown the table."""
    write(
        "guards",
        "from oao_hookspecs import hookimpl\n"
        "class Broken:\n"
        "    name = 'broken'\n"
        "    @hookimpl\n"
        "    def oao_decide_tool_call(self, call):\n"
        "        raise ValueError('no idea')\n",
    )
    done = oao("policy", "diff", "--from", "off", "--to", "guards:Broken", "runs", width=120)

    assert done.exit_code == 0
    assert "policy error (--to), 4 times, each a denial: policy 'broken' raised ValueError: no idea" in done.stdout
    assert "Traceback" not in done.output
    found = document(oao, "--from", "off", "--to", "guards:Broken", "runs")
    assert found["policy_errors"][0]["calls"] == found["changes"]["denied"] == 4


def test_several_policies_hold_together(oao: Oao, files: Path) -> None:
    """As for `oao run`: the option may be given more than once; what cannot be judged is said."""
    found = document(oao, "--from", "off", "--to", "no-find.toml", "--to", "strict", "runs/log.json")

    assert found["to"] == "no-find.toml + strict"
    assert found["changes"]["denied"] == 1
    assert found["not_judged"] == ["timeout_s", "require_governed"]


@pytest.mark.skipif(not DATA.is_dir(), reason="the recorded runs (shared/data) are not here")
def test_the_real_runs_by_the_command(oao: Oao, files: Path) -> None:
    """411 runs in one go; denied by name as often as the files ask for it."""
    folders = [str(DATA / name) for name in ("agentdojo", "tau-bench", "tau2-bench")]
    wanted = sum(
        call["function"] == "send_money"
        for file in (DATA / "agentdojo" / "runs").glob("*.json")
        for message in json.loads(file.read_text("utf-8"))["messages"]
        for call in message.get("tool_calls") or ()
    )
    (files / "no-money.toml").write_text('[tools]\ndeny = ["send_money"]\n', "utf-8")
    found = document(oao, "--from", "off", "--to", "no-money.toml", *folders)

    assert found["runs"] == 256 + 100 + 55
    assert found["changes"]["denied"] == found["rules"]["tools.deny"]["denied"] == wanted > 0
    assert [Path(one["name"]).name for one in found["skipped"]] == ["index.json"]


def test_a_changed_call_is_traced_to_its_run_in_a_narrow_terminal(oao: Oao, files: Path) -> None:
    """A long file name loses its beginning, which all share; a made id is cut to what can be typed; the rule stays."""

    @tool
    def find(what: str) -> str:
        return what

    log = (files / "runs" / "log.json").read_text(encoding="utf-8")
    (files / "runs" / f"{'a-long-pipeline-' * 4}user_task_7.json").write_text(log, encoding="utf-8")
    store = SQLiteStore(STORE)
    report = Orchestrator(store=store).run(lambda _t: find("a"), "t")
    store.close()

    shown = oao("policy", "diff", "--from", "off", "--to", "no-find.toml", "runs", "all").stdout

    assert any(
        line.startswith(" …") and "user_task_7.json " in line and " tools.deny" in line for line in shown.splitlines()
    )
    assert f" {report.execution_id[:8]}  " in shown
    assert report.execution_id[:9] not in shown
