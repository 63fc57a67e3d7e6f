"""Conditions and operands of expressions, after they were parsed.

A parsed expression knows the placeholders alone, so that one parse serves every request that
uses the same text; `Bindings` are what a request puts in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from simulation.database.documents import Place, look_up
from simulation.database.errors import invalid
from simulation.database.values import KINDS, SCALARS, SETS, Item, Value, kind_of, size_of, token


@dataclass(frozen=True, slots=True)
class Bindings:
    """What a request's placeholders stand for: names by `#name`, canonical values by `:value`."""

    names: Mapping[str, str]
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Path:
    """A document path as it was written, placeholders included."""

    parts: tuple[str | int, ...]

    def place(self, bound: Bindings) -> Place:
        """The path with the names that its placeholders stand for."""
        names = bound.names
        return tuple(
            names[part] if isinstance(part, str) and part[0] == "#" else part for part in self.parts
        )

    def find(self, item: Item, bound: Bindings) -> Value | None:
        """What stands there in an item."""
        return look_up(item, self.place(bound))


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that the request brings along."""

    placeholder: str

    def find(self, item: Item, bound: Bindings) -> Value | None:  # noqa: ARG002
        """The value, whatever the item holds."""
        return bound.values[self.placeholder]


@dataclass(frozen=True, slots=True)
class Size:
    """The function `size`."""

    of: Operand

    def find(self, item: Item, bound: Bindings) -> Value | None:
        """The size of what its argument finds."""
        value = self.of.find(item, bound)
        size = None if value is None else size_of(value)
        return None if size is None else {"N": str(size)}


Operand = Path | Literal | Size


class Condition(Protocol):
    """Something that holds for an item or does not."""

    def check(self, bound: Bindings) -> None:
        """Refuse what can hold for no item, by the values alone."""

    def holds(self, item: Item, bound: Bindings) -> bool:
        """Whether it holds."""

    def places(self, bound: Bindings) -> list[Place]:
        """The places in an item that it looks at."""


@dataclass(frozen=True, slots=True)
class Both:
    """AND."""

    left: Condition
    right: Condition

    def check(self, bound: Bindings) -> None:
        self.left.check(bound)
        self.right.check(bound)

    def holds(self, item: Item, bound: Bindings) -> bool:
        return self.left.holds(item, bound) and self.right.holds(item, bound)

    def places(self, bound: Bindings) -> list[Place]:
        return self.left.places(bound) + self.right.places(bound)


@dataclass(frozen=True, slots=True)
class Either:
    """OR."""

    left: Condition
    right: Condition

    def check(self, bound: Bindings) -> None:
        self.left.check(bound)
        self.right.check(bound)

    def holds(self, item: Item, bound: Bindings) -> bool:
        return self.left.holds(item, bound) or self.right.holds(item, bound)

    def places(self, bound: Bindings) -> list[Place]:
        return self.left.places(bound) + self.right.places(bound)


@dataclass(frozen=True, slots=True)
class Negation:
    """NOT."""

    condition: Condition

    def check(self, bound: Bindings) -> None:
        self.condition.check(bound)

    def holds(self, item: Item, bound: Bindings) -> bool:
        return not self.condition.holds(item, bound)

    def places(self, bound: Bindings) -> list[Place]:
        return self.condition.places(bound)


def _below(left: Value, right: Value) -> bool:
    return _comparable(left, right) and token(left) < token(right)  # type: ignore[operator]


def _comparable(left: Value, right: Value) -> bool:
    kind = kind_of(left)
    return kind in SCALARS and kind in right


_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "<": _below,
    ">": lambda left, right: _below(right, left),
    "<=": lambda left, right: _comparable(left, right) and not _below(right, left),
    ">=": lambda left, right: _comparable(left, right) and not _below(left, right),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One of = <> < <= > >=."""

    operator: str
    left: Operand
    right: Operand

    def check(self, bound: Bindings) -> None:
        _check_distinct(bound, self.left, self.right)
        _check_sizes(bound, self.left, self.right)
        if self.operator in _COMPARISONS:
            _check_kinds(bound, self.operator, SCALARS, self.left, self.right)

    def holds(self, item: Item, bound: Bindings) -> bool:
        left = self.left.find(item, bound)
        right = self.right.find(item, bound)
        if left is None or right is None:
            return self.operator == "<>"
        if self.operator == "<>":
            return left != right
        if self.operator == "=":
            return left == right
        return _COMPARISONS[self.operator](left, right)

    def places(self, bound: Bindings) -> list[Place]:
        return _places(bound, self.left, self.right)


@dataclass(frozen=True, slots=True)
class Between:
    """BETWEEN, both ends included."""

    operand: Operand
    low: Operand
    high: Operand

    def check(self, bound: Bindings) -> None:
        _check_distinct(bound, self.operand, self.low, self.high)
        _check_sizes(bound, self.operand, self.low, self.high)
        _check_kinds(bound, "BETWEEN", SCALARS, self.operand, self.low, self.high)
        if isinstance(self.low, Literal) and isinstance(self.high, Literal):
            low, high = (bound.values[end.placeholder] for end in (self.low, self.high))
            if not _comparable(low, high):
                raise invalid("The BETWEEN operator requires same data type for both bounds")
            if _below(high, low):
                raise invalid("The BETWEEN operator requires upper bound to be the greater one")

    def holds(self, item: Item, bound: Bindings) -> bool:
        value, low, high = (
            operand.find(item, bound) for operand in (self.operand, self.low, self.high)
        )
        if value is None or low is None or high is None:
            return False
        return _COMPARISONS[">="](value, low) and _COMPARISONS["<="](value, high)

    def places(self, bound: Bindings) -> list[Place]:
        return _places(bound, self.operand, self.low, self.high)


@dataclass(frozen=True, slots=True)
class OneOf:
    """IN."""

    operand: Operand
    choices: tuple[Operand, ...]

    def check(self, bound: Bindings) -> None:
        _check_distinct(bound, self.operand, *self.choices)
        _check_sizes(bound, self.operand, *self.choices)

    def holds(self, item: Item, bound: Bindings) -> bool:
        value = self.operand.find(item, bound)
        return value is not None and any(
            choice.find(item, bound) == value for choice in self.choices
        )

    def places(self, bound: Bindings) -> list[Place]:
        return _places(bound, self.operand, *self.choices)


@dataclass(frozen=True, slots=True)
class Exists:
    """The functions `attribute_exists` and `attribute_not_exists`."""

    path: Path
    wanted: bool

    def check(self, bound: Bindings) -> None:
        pass

    def holds(self, item: Item, bound: Bindings) -> bool:
        return (self.path.find(item, bound) is not None) is self.wanted

    def places(self, bound: Bindings) -> list[Place]:
        return [self.path.place(bound)]


@dataclass(frozen=True, slots=True)
class OfType:
    """The function `attribute_type`."""

    path: Path
    kind: Literal

    def check(self, bound: Bindings) -> None:
        kind = bound.values[self.kind.placeholder]
        if kind.get("S") not in KINDS:
            raise invalid("Invalid attribute type name found; attribute_type takes S, N, B, …")

    def holds(self, item: Item, bound: Bindings) -> bool:
        value = self.path.find(item, bound)
        return value is not None and bound.values[self.kind.placeholder]["S"] in value

    def places(self, bound: Bindings) -> list[Place]:
        return [self.path.place(bound)]


@dataclass(frozen=True, slots=True)
class BeginsWith:
    """The function `begins_with`."""

    operand: Operand
    prefix: Operand

    def check(self, bound: Bindings) -> None:
        _check_distinct(bound, self.operand, self.prefix)
        _check_sizes(bound, self.operand, self.prefix)
        _check_kinds(bound, "begins_with", {"S", "B"}, self.operand, self.prefix)

    def holds(self, item: Item, bound: Bindings) -> bool:
        value = self.operand.find(item, bound)
        prefix = self.prefix.find(item, bound)
        if value is None or prefix is None or kind_of(value) not in prefix:
            return False
        return kind_of(value) in ("S", "B") and token(value).startswith(token(prefix))  # type: ignore[union-attr,arg-type]

    def places(self, bound: Bindings) -> list[Place]:
        return _places(bound, self.operand, self.prefix)


@dataclass(frozen=True, slots=True)
class Contains:
    """The function `contains`: a part of a string, a member of a set, an element of a list."""

    operand: Operand
    part: Operand

    def check(self, bound: Bindings) -> None:
        _check_distinct(bound, self.operand, self.part)
        _check_sizes(bound, self.operand, self.part)

    def holds(self, item: Item, bound: Bindings) -> bool:
        whole = self.operand.find(item, bound)
        part = self.part.find(item, bound)
        if whole is None or part is None:
            return False
        ((kind, content),) = whole.items()
        if kind == "L":
            return part in content
        if kind in SETS:
            return part.get(kind[0]) in content
        if kind in ("S", "B") and kind in part:
            return token(part) in token(whole)  # type: ignore[operator]
        return False

    def places(self, bound: Bindings) -> list[Place]:
        return _places(bound, self.operand, self.part)


def _places(bound: Bindings, *operands: Operand) -> list[Place]:
    inner = [operand.of if isinstance(operand, Size) else operand for operand in operands]
    return [operand.place(bound) for operand in inner if isinstance(operand, Path)]


def _check_distinct(bound: Bindings, first: Operand, *others: Operand) -> None:
    if isinstance(first, Path) and any(
        isinstance(other, Path) and other.place(bound) == first.place(bound) for other in others
    ):
        raise invalid("The first operand must be distinct from the remaining operands")


def _check_sizes(bound: Bindings, *operands: Operand) -> None:
    for operand in operands:
        if isinstance(operand, Size) and isinstance(operand.of, Literal):
            value = bound.values[operand.of.placeholder]
            if size_of(value) is None:
                raise invalid(f"Incorrect operand type for function: size, type: {kind_of(value)}")


def _check_kinds(bound: Bindings, operator: str, kinds: set[str], *operands: Operand) -> None:
    for operand in operands:
        if isinstance(operand, Size) and "N" not in kinds:
            raise invalid(f"Incorrect operand type for function: {operator}, type: N")
        if isinstance(operand, Literal):
            kind = kind_of(bound.values[operand.placeholder])
            if kind not in kinds:
                raise invalid(f"Incorrect operand type for function: {operator}, type: {kind}")
