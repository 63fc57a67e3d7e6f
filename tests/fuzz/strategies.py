"""Values that no caller should send: JSON, bytes and text, invented or made of something valid."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
Text = TypeVar("Text", str, bytes)

RAW = "raw:"
"""A string that begins with this is written into JSON without its quotes."""

_NUMBERS = (0, -1, 0.1, float("inf"), float("nan"), 2**63, 10**38, 10**400, f"{RAW}1e400")
_ODD_TEXTS = ("", "\x00", "\ud800", "x\udfffy", "../../etc", "USER#", "EVENT#evt_1", "STRIPE#cus_1")
_LONG_TEXTS = ("9" * 400, "x" * 256, "x" * 501, "é" * 2100, "x" * 70_000)
_DEEP = f"{'[' * 500}{']' * 500}"
_TOO_DEEP = f"{'[' * 50_000}{']' * 50_000}"
_RAW_TEXTS = tuple(RAW + text for text in ("0x10", _DEEP, _TOO_DEEP))
_CHARACTERS = st.sampled_from("0123456789abcdef=,tv1 +_-\n")
_LAMBDAS_LIMIT_BYTES = 6 * 1024 * 1024


def weighted(*choices: tuple[int, st.SearchStrategy[T]]) -> st.SearchStrategy[T]:
    """One of several strategies, each drawn as often as its weight says."""
    many = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.sampled_from(many).flatmap(lambda strategy: strategy)


def mostly(value: T, *odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or now and then what should not be in its place: the first of these most often."""
    first, *others = odd
    return weighted((12, st.just(value)), (3, first), *((1, strategy) for strategy in others))


def _nested(value: Any, levels: int) -> Any:
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


_PIECES_OF_TEXT = st.text(_CHARACTERS, max_size=3) | st.sampled_from(("\ud800", "\x00", "é", "٣"))
TEXT = st.sampled_from(_ODD_TEXTS + _LONG_TEXTS + _RAW_TEXTS) | _PIECES_OF_TEXT
_SCALAR: st.SearchStrategy[Any] = weighted(
    (4, TEXT), (2, st.sampled_from(_NUMBERS)), (1, st.none()), (1, st.booleans())
)
JUNK: st.SearchStrategy[Any] = weighted(
    (6, _SCALAR),
    (1, st.builds(lambda value, times: [value] * times, _SCALAR, st.sampled_from((0, 1, 200)))),
    (1, st.dictionaries(TEXT, _SCALAR, max_size=2)),
    (1, st.builds(_nested, _SCALAR, st.integers(2, 60))),
)
"""A JSON value, or what Python's JSON parser takes for one."""

_PIECES_OF_BYTES = weighted(
    (4, st.binary(max_size=4)),
    (4, st.sampled_from((b"\xff\xfe", b"\xed\xa0\x80", b"\\ud800", b",", b"{", b'"', b"NaN"))),
    (2, st.sampled_from((b" " * 70_000, b'"id": 1, '))),
)

_BODY_CHANGES = st.sampled_from(
    (*["splice"] * 30, "deepen", "enlarge", "utf-16", "utf-8-sig", "latin-1")
)
_CHANGES = st.sampled_from(("replace", "replace", "replace", "rename", "remove"))
_A_FEW = st.integers(1, 3)


@st.composite
def spliced(draw: st.DrawFn, whole: Text, pieces: st.SearchStrategy[Text]) -> Text:
    """Text or bytes of which a few parts were cut out, replaced, or moved apart by others."""
    for _ in range(draw(_A_FEW)):
        begin = draw(st.integers(0, len(whole)))
        end = draw(
            st.sampled_from((begin, begin, begin, begin + 1, begin + 1, begin + 3, len(whole)))
        )
        whole = whole[:begin] + draw(pieces) + whole[end:]
    return whole


def spliced_text(text: str) -> st.SearchStrategy[str]:
    """A text that is almost this one."""
    return spliced(text, _PIECES_OF_TEXT)


@st.composite
def spliced_bytes(draw: st.DrawFn, body: bytes) -> bytes:
    """A body that is almost this one: deeper, larger, in another encoding, or spliced."""
    match draw(_BODY_CHANGES):
        case "deepen":
            return _TOO_DEEP.encode() + body
        case "enlarge":
            return body.rjust(_LAMBDAS_LIMIT_BYTES)
        case "splice":
            return draw(spliced(body, _PIECES_OF_BYTES))
        case encoding:
            return body.decode("utf-8", "replace").encode(encoding, "replace")


@st.composite
def mangled(draw: st.DrawFn, value: Any) -> Any:
    """A copy of a JSON value in which a few entries are gone, renamed, or other than they were."""
    value = deepcopy(value)
    for _ in range(draw(_A_FEW)):
        places = list(_places(value))
        if not places:
            return draw(JUNK)
        outermost = [(holder, key) for holder, key in places if holder is value]
        holder, key = draw(st.sampled_from(outermost) | st.sampled_from(places))
        entry = holder[key]
        match draw(_CHANGES):
            case "replace" if isinstance(entry, str):
                holder[key] = draw(spliced_text(entry) | JUNK)
            case "replace":
                holder[key] = draw(JUNK | st.sampled_from(([entry], {"id": entry}, bool(entry))))
            case "rename" if isinstance(holder, dict):
                name = str(key)
                alike = st.sampled_from((name.upper(), name.title(), f" {name}"))
                holder[draw(weighted((3, alike), (1, TEXT)))] = holder.pop(key)
            case _:
                del holder[key]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each entry in a JSON value, however deep: what holds it, and its key there."""
    entries: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    for key, entry in entries:
        yield value, key
        yield from _places(entry)
