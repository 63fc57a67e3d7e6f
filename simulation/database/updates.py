"""Update expressions, after they were parsed: what they set, remove, add and delete."""

from __future__ import annotations

from dataclasses import dataclass

from simulation.database.conditions import Bindings, Literal, Path
from simulation.database.documents import Draft, Place, refuse_overlaps
from simulation.database.errors import invalid
from simulation.database.values import (
    EXACT,
    SETS,
    Item,
    Value,
    kind_of,
    number,
    write_number,
    write_set,
)


@dataclass(frozen=True, slots=True)
class IfNotExists:
    """The function `if_not_exists`."""

    path: Path
    otherwise: Source

    def find(self, item: Item, bound: Bindings) -> Value | None:
        """What stands at the path, or else the other operand, which must be there anyway."""
        value = self.path.find(item, bound)
        otherwise = _found(self.otherwise, item, bound)
        return otherwise if value is None else value


@dataclass(frozen=True, slots=True)
class ListAppend:
    """The function `list_append`."""

    first: Source
    second: Source

    def find(self, item: Item, bound: Bindings) -> Value | None:
        """Both lists, one behind the other."""
        first, second = _found(self.first, item, bound), _found(self.second, item, bound)
        if "L" not in first or "L" not in second:
            raise _wrong_type()
        return {"L": first["L"] + second["L"]}


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """The operators + and -."""

    operator: str
    left: Source
    right: Source

    def find(self, item: Item, bound: Bindings) -> Value | None:
        """The sum or the difference."""
        left, right = _found(self.left, item, bound), _found(self.right, item, bound)
        return _sum(left, right, negative=self.operator == "-")


Source = Path | Literal | IfNotExists | ListAppend | Arithmetic


def _found(source: Source, item: Item, bound: Bindings) -> Value:
    value = source.find(item, bound)
    if value is None:
        raise invalid("The provided expression refers to an attribute that does not exist")
    return value


def _sum(left: Value, right: Value, *, negative: bool = False) -> Value:
    if "N" not in left or "N" not in right:
        raise _wrong_type()
    one, other = number(left["N"]), number(right["N"])
    total = EXACT.subtract(one, other) if negative else EXACT.add(one, other)
    return {"N": write_number(total)}


@dataclass(frozen=True, slots=True)
class Update:
    """What an update expression does, clause by clause."""

    sets: tuple[tuple[Path, Source], ...] = ()
    removes: tuple[Path, ...] = ()
    adds: tuple[tuple[Path, Literal], ...] = ()
    deletes: tuple[tuple[Path, Literal], ...] = ()

    def check(self, bound: Bindings) -> list[Place]:
        """Refuse what can't be done to any item; the places that it writes to otherwise."""
        for _, source in self.sets:
            _check_source(source, bound)
        for _, literal in self.adds:
            _check_literal(literal, bound, {"N", *SETS}, "ADD")
        for _, literal in self.deletes:
            _check_literal(literal, bound, SETS, "DELETE")
        places = self.places(bound)
        refuse_overlaps(places)
        return places

    def places(self, bound: Bindings) -> list[Place]:
        """The places that it writes to."""
        paths = [path for path, _ in self.sets]
        paths += self.removes
        paths += [path for path, _ in (*self.adds, *self.deletes)]
        return [path.place(bound) for path in paths]

    def apply(self, item: Item, bound: Bindings) -> Item:
        """The item as it is afterwards; the one that was given stays as it is.

        Raises
        ------
        RefusedError
            An operand, or the place for a value, is not there or of the wrong type.
        """
        draft = Draft(item)
        # Operands see the item as it was, and so do positions in lists: what is set stands before
        # anything is removed, what is appended comes by position, and removals go backwards.
        values = [(path.place(bound), _found(source, item, bound)) for path, source in self.sets]
        for path, literal in self.adds:
            values.append((path.place(bound), _added(path, literal, item, bound)))
        for path, literal in self.deletes:
            place = path.place(bound)
            left = _deleted(path, literal, item, bound)
            if left is None:
                draft.remove(place)
            else:
                values.append((place, left))
        for place, value in sorted(values, key=lambda pair: _position(pair[0])):
            draft.write(place, value)
        removed = [path.place(bound) for path in self.removes]
        for place in sorted(removed, key=_position, reverse=True):
            draft.remove(place)
        return draft.item


def _position(place: Place) -> int:
    return place[-1] if isinstance(place[-1], int) else 0


def _added(path: Path, literal: Literal, item: Item, bound: Bindings) -> Value:
    old = path.find(item, bound)
    new = bound.values[literal.placeholder]
    if old is None:
        return new
    kind = kind_of(new)
    if kind not in old:
        raise _wrong_type()
    if kind == "N":
        return _sum(old, new)
    return write_set(kind, {*old[kind], *new[kind]})


def _deleted(path: Path, literal: Literal, item: Item, bound: Bindings) -> Value | None:
    old = path.find(item, bound)
    gone = bound.values[literal.placeholder]
    if old is None:
        return None
    kind = kind_of(gone)
    if kind not in old:
        raise _wrong_type()
    left = set(old[kind]) - set(gone[kind])
    return write_set(kind, left) if left else None


def _check_source(source: Source, bound: Bindings) -> None:
    match source:
        case IfNotExists(path=path, otherwise=otherwise):
            if isinstance(otherwise, Path) and otherwise.place(bound) == path.place(bound):
                raise invalid("The first operand of if_not_exists must be distinct from the other")
            _check_source(otherwise, bound)
        case ListAppend(first=one, second=other):
            _check_operands((one, other), bound, {"L"}, "list_append")
        case Arithmetic(operator=operator, left=one, right=other):
            _check_operands((one, other), bound, {"N"}, operator)
        case _:
            pass


def _check_operands(
    sources: tuple[Source, ...], bound: Bindings, kinds: set[str], operator: str
) -> None:
    for source in sources:
        _check_source(source, bound)
        if isinstance(source, Literal):
            _check_literal(source, bound, kinds, operator)


def _check_literal(literal: Literal, bound: Bindings, kinds: set[str], operator: str) -> None:
    kind = kind_of(bound.values[literal.placeholder])
    if kind not in kinds:
        raise invalid(f"Incorrect operand type for operator: {operator}, operand type: {kind}")


def _wrong_type() -> Exception:
    return invalid("An operand in the update expression has an incorrect data type")
