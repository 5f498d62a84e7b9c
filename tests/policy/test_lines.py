"""Where the keys of a TOML file are: what the line map says is where a person finds them."""

from __future__ import annotations

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oao_harness.policy.lines import LineMap, error_line_of

TEXT = '''# a comment with [brackets] and # marks
name = "bank"            # [not a header]
limits.max_steps = 3
inline = { a = 1, b = [ "x", "y" ] }
text = """
[[rule]]
name = "inside of a text"
"""
raw = \'\'\'one \' quote\'\'\'

[tools]
allow = [
    "a",   # ]
    "b]",
    "c#d",
]
deny = ["x", "y"]
"quoted.key" = 1

[[rule]]
name = "first"
values_from = { recipient = ["task"] }
[[rule.nested]]
x = 1
[[rule.nested]]
x = 2

[[rule]]
name = "second"
  [rule.table]
  deep.er = """a
b"""
  after = 1
[[rule.nested]]
x = 3
'''


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("limits", "max_steps"), 3),
        (("inline", "b", 1), 4),
        (("text",), 5),
        (("raw",), 9),
        (("tools",), 11),
        (("tools", "allow"), 12),
        (("tools", "allow", 0), 13),
        (("tools", "allow", 1), 14),
        (("tools", "allow", 2), 15),
        (("tools", "deny", 1), 17),
        (("tools", "quoted.key"), 18),
        (("rule", 0), 20),
        (("rule", 0, "name"), 21),
        (("rule", 0, "values_from", "recipient", 0), 22),
        (("rule", 0, "nested", 1, "x"), 26),
        (("rule", 1, "name"), 29),
        (("rule", 1, "table", "deep", "er"), 31),
        (("rule", 1, "table", "after"), 33),
        (("rule", 1, "nested", 0, "x"), 35),
        (("rule", 1, "no", "such"), 28),
        (("nothing",), 1),
    ],
    ids=str,
)
def test_each_key_is_where_a_person_finds_it(path: tuple[str | int, ...], line: int, ending: str) -> None:
    """Headers, dotted keys, inline tables, texts and arrays over many lines, comments that look like syntax."""
    assert LineMap(TEXT.replace("\n", ending)).line(path) == line


# Keys and texts that try to look like syntax.
KEYS = st.text("ab]=#[\"'. \\", min_size=1, max_size=6)
VALUES = st.one_of(st.integers(), st.booleans(), st.text("x]}#=\"'[{\n\\", max_size=12))


def toml_text(value: object, spread: bool) -> str:
    if isinstance(value, list):
        return (
            "[\n  " + ",\n  ".join(toml_text(item, spread) for item in value) + "\n]" if spread else json.dumps(value)
        )
    if isinstance(value, str) and spread and "\n" in value:
        return '"""\n' + json.dumps(value)[1:-1].replace("\\n", "\n") + '"""'
    return json.dumps(value)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "[table]", "[[many]]"]),
            st.dictionaries(KEYS, st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=4),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_every_key_of_any_document_has_its_line(parts: list[tuple[str, dict[str, object]]], spread: bool) -> None:
    """Whatever tomllib reads: the line that the map gives is the one the key was written on."""
    lines: list[str] = []
    expected: dict[tuple[str | int, ...], int] = {}
    opened, many = False, -1
    for header, content in parts:
        if (header == "[table]" and opened) or (not header and lines):
            continue
        prefix: tuple[str | int, ...] = ()
        if header:
            many += header == "[[many]]"
            opened = opened or header == "[table]"
            prefix = ("table",) if header == "[table]" else ("many", many)
            lines.append(header)
            expected[prefix] = len(lines)
        for key, value in content.items():
            expected[(*prefix, key)] = len(lines) + 1
            lines += f"{json.dumps(key)} = {toml_text(value, spread)}".split("\n")
    text = "\n".join(lines)
    tomllib.loads(text)

    found = LineMap(text)

    assert {path: found.line(path) for path in expected} == expected


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\nb = \nc = 2", 2), ("a = 1\n\n[x\n", 3), ('a = 1\nb = """\nnever closed\n', 3)]
)
def test_a_document_that_is_wrong_is_wrong_at_a_line(text: str, line: int) -> None:
    """The parser's own position, or the last line where it ran out of text."""
    with pytest.raises(tomllib.TOMLDecodeError) as error:
        tomllib.loads(text)

    assert error_line_of(error.value, text) == line
