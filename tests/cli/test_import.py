"""`oao import`: cassettes become recordings, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path

from oao_harness.journal.recording import Recording
from tests.cli.conftest import Oao
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
