"""`oao hooks`: the contract for plugin authors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oao_harness.plugins.manager import hook_names

if TYPE_CHECKING:
    from tests.cli.conftest import Oao


def test_every_hook_is_printed_under_its_mode(oao: Oao) -> None:
    """All hooks of a mode follow its heading, in the order of their file."""
    shown = oao("hooks", width=120).stdout

    expected = [word for mode, names in hook_names().items() for word in (f"{mode} ─", *(f"\n{n}(" for n in names))]
    places = [shown.find(word) for word in expected]
    assert -1 not in places
    assert places == sorted(places)


def test_one_hook_has_its_signature_its_text_and_its_mode(oao: Oao) -> None:
    """The text is the hookspec's own; the prefix may be left out."""
    shown = oao("hooks", "oao_decide_tool_call", width=120).stdout

    assert shown.startswith("oao_decide_tool_call(call: ToolCall, run: RunView) -> Decision | None | Awaitable[")
    assert "    Judge a tool call before its body runs.\n" in shown
    assert "        call: Name, arguments and" in shown
    assert "    Mode: decide.\n" in shown
    assert oao("hooks", "decide_tool_call", width=120).stdout == shown
    assert "Mode: provide, the first answer wins." in oao("hooks", "oao_open_store").stdout


def test_one_hook_shows_how_it_is_written_and_what_its_values_hold(oao: Oao) -> None:
    """Enough to write the hook without reading oao's source."""
    price, answer = oao("hooks", "oao_price").stdout, oao("hooks", "oao_answer_approval").stdout

    assert "    from oao_hookspecs import Price, hookimpl\n" in price
    assert "        def oao_price(self, call): ...\n" in price
    assert "    Price: What a model costs, in US dollars for a million tokens.\n" in price
    assert "      input_per_million: float\n" in price
    assert "    from oao_hookspecs import Approve, Reject, hookimpl\n" in answer
    assert "      by: Principal\n" in answer
    assert "      note: str (may be left out)\n" in answer


def test_an_unknown_hook_suggests_near_ones(oao: Oao) -> None:
    """A typing error is answered with the nearest names; exit code 2."""
    result = oao("hooks", "oao_decide_tol_call")

    assert result.exit_code == 2
    assert "there is no hook 'oao_decide_tol_call'; did you mean oao_decide_tool_call" in result.stderr
    for unlike in ("qqqqqq", "nope", "oao_nope"):
        assert "`oao hooks` lists them" in oao("hooks", unlike).stderr


def test_hooks_fit_the_console(oao: Oao) -> None:
    """Documentation is wrapped to 80 columns; only a signature may be longer."""
    lines = oao("hooks").stdout.splitlines()

    assert [line for line in lines if len(line) > 80 and not line.lstrip().startswith(("oao_", "->"))] == []
