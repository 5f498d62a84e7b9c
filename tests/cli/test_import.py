"""`oao import`: cassettes become recordings, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

from oao_harness.journal.recording import Recording
from tests.cli.conftest import Oao
from tests.importing.test_forms import LOG, TAU
from tests.importing.test_recordings import cassette, interaction


def test_a_cassette_becomes_a_recording_beside_it(oao: Oao, folder: Path) -> None:
    """What was taken over and what was left out is shown, and how a test finds the file."""
    cassette(folder, interaction(), interaction(url="https://h.test/v1/models", method="GET", body=""))
    done = oao("import", "c.yaml")

    assert done.exit_code == 0, done.output
    assert Recording.load(folder / "c.oao.json").events[0].name == "m"
    assert "1 model call" in done.output
    assert " yes " in done.output, "what the model said, not the endpoint"
    assert "← yes" in oao("show", "c.oao.json").output
    assert "skipped 2. GET https://h.test/v1/models: no request of a model" in done.output
    assert "recordings/<module>/<test>.oao.json" in " ".join(done.output.split())


def test_the_test_that_plays_it_is_named(oao: Oao, folder: Path) -> None:
    """Where the file is where pytest looks; said as well where there is no such module yet."""
    cassette(folder, interaction())
    target = "recordings/test_shop/test_refund.oao.json"
    done = oao("import", "c.yaml", "-o", target)

    assert "played by test_shop.py::test_refund; there is no test_shop.py yet" in done.output
    (folder / "test_shop.py").touch()
    done = oao("import", "c.yaml", "-o", target, "--force", "--test", "test_shop.py::test_refund")
    assert "no test_shop.py" not in done.output
    assert json.loads((folder / target).read_text())["test"] == "test_shop.py::test_refund"


def test_mistakes_leave_nothing_behind(oao: Oao, folder: Path) -> None:
    """Exit code 2 and a message that says what to do; all cassettes are read before one is written."""
    cassette(folder, interaction())
    for arguments, said in [
        (("c.yaml", "none.yaml"), "'none.yaml': there is no such file"),
        (("c.yaml", "d.yaml", "-o", "one.oao.json"), "name a folder"),
        (("c.yaml", "d.yaml", "--test", "x"), "--test names one test"),
        (("c.yaml", "sub/c.yaml", "-o", "out"), "the same name"),
    ]:
        done = oao("import", *arguments)
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())
    assert [path.name for path in folder.iterdir()] == ["c.yaml"]
    oao("import", "c.yaml")
    assert "--force replaces it" in oao("import", "c.yaml").output


def test_recorded_runs_of_other_tools_become_recordings(oao: Oao, folder: Path) -> None:
    """One run beside its file, several in a folder of its name; what cannot be replayed is said."""
    (folder / "log.json").write_text(json.dumps(LOG), "utf-8")
    (folder / "tau.json").write_text(json.dumps([*TAU, *TAU]), "utf-8")
    done = oao("import", "log.json", "tau.json")

    assert done.exit_code == 0, done.output
    assert len(Recording.load(folder / "log.oao.json").events) == 5
    names = sorted(path.name for path in (folder / "tau").iterdir())
    assert names == ["task-3-trial-0-2.oao.json", "task-3-trial-0.oao.json"]
    text = " ".join(done.output.split())
    assert "agentdojo: 2 model calls, 3 tool calls → log.oao.json" in text
    assert "its calls cannot be replayed to a client" in text
    assert "find" in oao("show", "log.oao.json").output
    assert "--force replaces it" in oao("import", "tau.json").output
    assert oao("import", "tau.json", "-o", "out", "--force").exit_code == 0
    assert (folder / "out" / "tau" / "task-3-trial-0.oao.json").exists()
    for arguments, said in [
        (("tau.json", "-o", "one.oao.json"), "holds 2 runs; name a folder"),
        (("tau.json", "--test", "t.py::x"), "holds 2 runs"),
        (("tau.json", "none.json", "--force"), "'none.json': it cannot be read"),
        (("pyproject.json",), "it cannot be read"),
    ]:
        done = oao("import", *arguments)
        assert done.exit_code == 2
        assert said in " ".join(done.output.split())


def test_a_run_with_a_credential_is_refused_and_the_others_are_written(oao: Oao, folder: Path) -> None:
    """What a stranger recorded may hold anything: it is named, with the place, and the exit code is 2."""
    rows = [json.loads(json.dumps(TAU[0])) for _ in range(2)]
    rows[0]["traj"][3]["content"] = "key AKIAIOSFODNN7EXAMPLQ and sk-ant-api03-" + "Ab1" * 31
    (folder / "tau.json").write_text(json.dumps(rows), "utf-8")
    done = oao("import", "tau.json")

    assert done.exit_code == 2
    assert "it was not saved" in done.output
    assert "1 recording of 2 could not be written" in done.output
    assert [path.name for path in (folder / "tau").iterdir()] == ["task-3-trial-0-2.oao.json"]
