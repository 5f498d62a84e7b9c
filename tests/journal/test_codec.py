"""Values to JSON and back: what survives, what is refused, and that reading never runs code."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oao_harness import CodecError, ReplayedError
from oao_harness.journal.codec import decode, decode_error, encode, encode_error, holds_opaque
from oao_hookspecs import ErrorInfo


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: tuple[int, ...]


class Order(pydantic.BaseModel):
    id: str
    at: dt.date
    items: list[Point] = []


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2.5,
        "text ✓",
        [1, [2, []]],
        {"a": {"b": []}},
        (1, ("x", None)),
        {1: "int key", (1, 2): "tuple key"},
        {"$oao": "a key of ours"},
        b"\x00\xff",
        bytearray(b"x"),
        {1, 2, 3},
        frozenset({"a"}),
        dt.datetime(2026, 11, 22, 7, tzinfo=dt.UTC),
        dt.date(2026, 11, 22),
        dt.time(7, 30),
        dt.timedelta(days=1, seconds=2),
        decimal.Decimal("49.90"),
        uuid.UUID(int=5),
        Colour.RED,
        Point(1, (2, 3)),
        Order(id="o", at=dt.date(2026, 1, 2), items=[Point(1, ())]),
        math.inf,
    ],
    ids=repr,
)
def test_a_value_survives_the_journal(value: object) -> None:
    """Type and content, through real JSON text."""
    encoded = encode(value)

    assert holds_opaque(encoded) is None
    back = decode(json.loads(json.dumps(encoded, allow_nan=False)))
    assert back == value
    assert type(back) is type(value)


def test_nan_survives() -> None:
    """It is not equal to itself, and JSON does not have it."""
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan), allow_nan=False))))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(list, {"a": [1]}), {"a": [1]}),
        (namedtuple("Pair", "x y")(1, 2), (1, 2)),
        (type("Name", (str,), {})("x"), "x"),
    ],
)
def test_subclasses_of_what_json_has_come_back_as_that(value: object, plain: object) -> None:
    """A `defaultdict` comes back as an equal `dict`."""
    assert decode(encode(value)) == plain


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers() | st.just("$oao"), inner)
    ),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_any_nesting_survives(value: object) -> None:
    """Property: decode(encode(x)) == x, through JSON text."""
    assert decode(json.loads(json.dumps(encode(value)))) == value


def test_the_journal_keeps_a_copy() -> None:
    """Changing a value later does not change what was written."""
    value = {"list": [1]}
    encoded = encode(value)
    value["list"].append(2)

    assert encoded == {"list": [1]}


def test_what_cannot_be_read_back_is_marked_and_refused_on_reading() -> None:
    """An open file has only its repr; the error says what to return instead."""
    encoded = encode({"handle": object()})

    assert holds_opaque(encoded) == "builtins:object"
    with pytest.raises(CodecError, match="return plain data"):
        decode(encoded)


def test_a_value_that_holds_itself_does_not_hang() -> None:
    """Endless nesting ends as opaque."""
    loop: list[Any] = []
    loop.append(loop)

    assert holds_opaque(encode(loop)) == "builtins:list"


def test_reading_imports_nothing() -> None:
    """A class of a module that is not loaded is refused, and so is a class that is no data class."""
    for name in ("antigravity:Anything", "subprocess:Popen", "builtins:eval"):
        with pytest.raises(CodecError, match="not a loaded data class"):
            decode({"$oao": "object", "type": name, "value": {}})
    import sys

    assert "antigravity" not in sys.modules


def test_an_unknown_tag_is_refused() -> None:
    """A newer oao may write tags that this one does not know."""
    with pytest.raises(CodecError, match="unknown tag 'hologram'"):
        decode({"$oao": "hologram", "value": 1})


class ApiError(Exception):
    """Like the errors of client libraries: cannot be made from its own arguments."""

    def __init__(self, message: str, *, response: object) -> None:
        super().__init__(message)
        self.response = response
        self.status_code = 429


def test_an_exception_comes_back_as_its_class() -> None:
    """With message, arguments and plain attributes; live objects are left behind."""
    back = decode_error(encode_error(ApiError("slow down", response=object())))

    assert type(back) is ApiError
    assert str(back) == "slow down"
    assert back.status_code == 429
    assert not hasattr(back, "response")


def test_an_exception_of_an_unknown_class_comes_back_as_a_stand_in() -> None:
    """The message survives."""
    back = decode_error(ErrorInfo(type="no_such:Error", message="broken"))

    assert isinstance(back, ReplayedError)
    assert str(back) == "Error: broken"


def test_an_exception_as_a_value_survives() -> None:
    """A tool may return one."""
    back = decode(encode(KeyError("x")))

    assert type(back) is KeyError
    assert back.args == ("x",)
