"""Ways to spoil what was valid: JSON values, bytes, headers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS: tuple[object, ...] = (
    0,
    -1,
    1,
    True,
    False,
    -0.0,
    0.1,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    2**31,
    2**63,
    -(2**63),
    10**38,
    10**400,
    10**4000,
)
TEXTS = (
    "",
    " ",
    "0",
    "null",
    "\x00",
    "a\x00b",
    "\ud800",
    "x\udfffy",
    "\u202etxet",
    "e\u0301\u200d",
    "\U0001f4b3",
    "\ufeff",
    "../../etc",
    "%2e%2e%2f",
    "%",
    "a/b",
    "a#b",
    "{{7*7}}",
    "' OR 1=1 --",
    "constructor",
    "__class__",
    "9" * 400,
    "NaN",
    "x" * 256,
    "x" * 501,
    "é" * 2100,
    "EVENT#evt_1",
    "STRIPE#cus_1",
    "USER#",
)
_NUMBERS_IN_TEXT = (b"NaN", b"Infinity", b"1e400", b"-1e400", b"-0", b"1" + b"0" * 400, b"0x10")
_DEEP = 60
_VERY_DEEP = 50_000
_BLOCKS = 6 * 1024 * 1024

Path = tuple[Any, ...]


def junk(chance: random.Random, level: int = 0) -> Any:
    """Some value that nobody expects."""
    match chance.randrange(9):
        case 0:
            return None
        case 1 | 2:
            return chance.choice(NUMBERS)
        case 3 | 4 | 5:
            return chance.choice(TEXTS)
        case 6:
            return [] if level > 2 else [junk(chance, level + 1)] * chance.choice((0, 1, 2, 200))
        case 7 if level <= 2:
            return {chance.choice(TEXTS): junk(chance, level + 1)}
    return {}


def mangled(
    value: Any, chance: random.Random, times: int | None = None, *, spared: Sequence[Path] = ()
) -> Any:
    """A copy of a JSON value with a few things about it changed.

    Parameters
    ----------
    value : object
        What is valid.
    chance : random.Random
        Decides what is changed.
    times : int, optional
        How many changes; by default one to four.
    spared : sequence of tuple
        Paths at which nothing is changed, nor anything above them.
    """
    value = copied(value)
    for _ in range(times or chance.choice((1, 1, 1, 2, 2, 3, 4))):
        value = _changed(value, chance, spared)
    return value


def copied(value: Any) -> Any:
    """A copy that shares nothing."""
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [copied(entry) for entry in value]
    return value


def _changed(value: Any, chance: random.Random, spared: Sequence[Path]) -> Any:
    places = [
        (holder, key)
        for path, holder, key in _places(value)
        if not any(spare[: len(path)] == path for spare in spared)
    ]
    if not places:
        return value if spared else junk(chance)
    holder, key = chance.choice(places)
    if isinstance(holder, dict):
        _change_entry(holder, key, chance)
    else:
        _change_element(holder, key, chance)
    return value


def _places(value: Any, path: Path = ()) -> list[tuple[Path, Any, Any]]:
    """Everywhere in a value, but for itself."""
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))
    else:
        return []
    places = []
    for key, entry in entries:
        places.append(((*path, key), value, key))
        places += _places(entry, (*path, key))
    return places


def _change_entry(holder: dict[Any, Any], key: Any, chance: random.Random) -> None:
    match chance.randrange(8):
        case 0 | 1:
            del holder[key]
        case 2:
            holder[chance.choice(TEXTS)] = junk(chance)
        case 3:
            holder[_odd_case(str(key), chance)] = holder[key]
        case 4:
            holder[key] = retyped(holder[key], chance)
        case _:
            holder[key] = junk(chance)


def _change_element(holder: list[Any], key: int, chance: random.Random) -> None:
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1:
            holder.insert(key, copied(holder[key]))
        case 2:
            holder.append(junk(chance))
        case 3:
            holder[key] = retyped(holder[key], chance)
        case _:
            holder[key] = junk(chance)


def retyped(value: Any, chance: random.Random) -> Any:
    """Almost the same value, of another type."""
    match chance.randrange(6):
        case 0:
            return [value]
        case 1:
            return {"id": value}
        case 2 if isinstance(value, str):
            return value + chance.choice(TEXTS)
        case 3 if isinstance(value, str):
            return value[: chance.randrange(len(value) + 1)]
        case 4:
            return nested(value, chance.randrange(2, _DEEP))
    return int(value) if isinstance(value, bool) else bool(value)


def nested(value: Any, levels: int) -> Any:
    """A value under so many levels of lists and objects."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def mangled_bytes(body: bytes, chance: random.Random) -> bytes:
    """Bytes with a few things about them changed, without a thought of what they mean."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        body = chance.choice(_BYTE_CHANGES)(body, chance)
    return body


def _flip(body: bytes, chance: random.Random) -> bytes:
    if not body:
        return b"\xff"
    changed = bytearray(body)
    for _ in range(chance.choice((1, 1, 4))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(body: bytes, chance: random.Random) -> bytes:
    return body[: chance.randrange(len(body) + 1)]


def _insert(body: bytes, chance: random.Random) -> bytes:
    piece = chance.choice(
        (b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b",", b"{", b'"')
    )
    place = chance.randrange(len(body) + 1)
    return body[:place] + piece + body[place:]


def _repeat(body: bytes, chance: random.Random) -> bytes:
    begin = chance.randrange(len(body) + 1)
    end = min(len(body), begin + chance.randrange(40))
    return body[:end] + body[begin:end] + body[end:]


def _renumber(body: bytes, chance: random.Random) -> bytes:
    """Another number in the place of some digits."""
    digits = [place for place, byte in enumerate(body) if 48 <= byte <= 57]
    if not digits:
        return body
    begin = end = chance.choice(digits)
    while end < len(body) and 48 <= body[end] <= 57:
        end += 1
    return body[:begin] + chance.choice(_NUMBERS_IN_TEXT) + body[end:]


def _say_twice(body: bytes, chance: random.Random) -> bytes:
    """The first key once more, with another value."""
    key = chance.choice((b'"id"', b'"type"', b'"user_id"', b'"data"', b'"livemode"'))
    return body.replace(b"{", b"{" + key + b": " + chance.choice(_NUMBERS_IN_TEXT[2:4]) + b",", 1)


def _recode(body: bytes, chance: random.Random) -> bytes:
    encoding = chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "latin-1"))
    return body.decode("utf-8", "replace").encode(encoding, "replace")


def _deepen(body: bytes, chance: random.Random) -> bytes:
    """Deeper than any parser goes."""
    levels = chance.choice((_DEEP, 500, _VERY_DEEP))
    opening, closing = chance.choice(((b"[", b"]"), (b'{"a":', b"}")))
    deep = opening * levels + b"1" + (closing * levels if chance.random() < 0.8 else b"")
    match chance.randrange(3):
        case 0:
            return deep
        case 1 if b"}" in body:
            head, _, tail = body.rpartition(b"}")
            return head + b',"deep":' + deep + b"}" + tail
    return body.replace(b"null", deep, 1)


def _pad(body: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.9:
        return body + b" " * chance.choice((1, 1000, 70_000))
    # As large as what Lambda takes.
    return chance.choice((b" " * _BLOCKS + body, b'{"a": "' + b"x" * _BLOCKS + b'"}'))


_BYTE_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *[_flip] * 6,
    *[_truncate] * 4,
    *[_insert] * 6,
    *[_repeat] * 4,
    *[_renumber] * 6,
    *[_say_twice] * 4,
    *[_recode] * 2,
    *[_deepen] * 2,
    _pad,
)


def mangled_headers(headers: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Headers in another case, gone, doubled, or with values that are none."""
    changed = dict(headers)
    for name in chance.sample(sorted(changed), min(len(changed), chance.choice((1, 2)))):
        value = changed[name]
        match chance.randrange(7):
            case 0:
                del changed[name]
            case 1:
                changed[_odd_case(name, chance)] = changed.pop(name)
            case 2:
                changed[_odd_case(name, chance)] = junk(chance)
            case 3:
                changed[name] = f"{value},{value}"
            case 4:
                changed[name] = f" {value}; {chance.choice(TEXTS)}"
            case 5:
                changed[name] = mangled_text(str(value), chance)
            case _:
                changed[name] = junk(chance)
    return changed


def mangled_text(text: str, chance: random.Random) -> str:
    """A text with a few characters changed, moved, doubled or lost."""
    characters = list(text)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(characters) + 1)
        match chance.randrange(4):
            case 0 if place < len(characters):
                characters[place] = chance.choice("0123456789abcdef=,tv1 +_-é\ud800\x00٣")
            case 1:
                characters.insert(place, chance.choice("0123456789abcdef=,tv1 +_-\n"))
            case 2 if place < len(characters):
                del characters[place]
            case _ if place < len(characters):
                other = chance.randrange(len(characters))
                characters[place], characters[other] = characters[other], characters[place]
    return "".join(characters)


def _odd_case(name: str, chance: random.Random) -> str:
    return chance.choice((name.upper(), name.title(), name.swapcase(), f"{name} ", f" {name}"))
