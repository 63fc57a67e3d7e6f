"""Places inside an item: read, projected, written and removed along document paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from simulation.database.errors import invalid
from simulation.database.values import Item, Value, copied_value

Place = tuple[str | int, ...]
"""An attribute's name, then names of members and positions in lists."""
Tree = dict[str | int, "Tree"]


def look_up(item: Item, place: Place) -> Value | None:
    """What stands at a place; None where nothing does."""
    value = item.get(place[0])  # type: ignore[arg-type]
    for part in place[1:]:
        if value is None:
            return None
        value = _child(value, part)
    return value


def _child(value: Value, part: str | int) -> Value | None:
    child: Value | None = None
    if isinstance(part, str):
        child = value["M"].get(part) if "M" in value else None
    elif "L" in value and part < len(value["L"]):
        child = value["L"][part]
    return child


def refuse_overlaps(places: Sequence[Place]) -> None:
    """Refuse places of which one lies inside another, or that take one thing for map and list."""
    for one, other in combinations(places, 2):
        shorter = min(len(one), len(other))
        if one[:shorter] == other[:shorter]:
            raise invalid("Two document paths overlap with each other")
        fork = next(i for i in range(shorter) if one[i] != other[i])
        if isinstance(one[fork], str) is not isinstance(other[fork], str):
            raise invalid("Two document paths conflict with each other")


def project(item: Item, places: Iterable[Place]) -> Item:
    """The part of an item that stands at the given places; elements of lists close up."""
    tree: Tree = {}
    for place in places:
        node = tree
        for part in place:
            node = node.setdefault(part, {})
    return _projected_members(item, tree)


def _projected_members(members: Item, tree: Tree) -> Item:
    found: Item = {}
    for name, value in members.items():
        if name in tree:
            part = _projected(value, tree[name])
            if part is not None:
                found[name] = part
    return found


def _projected(value: Value, tree: Tree) -> Value | None:
    if not tree:
        return value
    if "M" in value:
        members = _projected_members(value["M"], tree)
        return {"M": members} if members else None
    if "L" in value:
        taken = [
            _projected(element, tree[position])
            for position, element in enumerate(value["L"])
            if position in tree
        ]
        elements = [element for element in taken if element is not None]
        return {"L": elements} if elements else None
    return None


class Draft:
    """A changed version of an item, which stays as it is.

    Parameters
    ----------
    item : dict
        The item to start from.
    """

    def __init__(self, item: Item) -> None:
        self.item = dict(item)
        self._own: set[str] = set()

    def write(self, place: Place, value: Value) -> None:
        """Put a value at a place; behind the end of a list it is appended.

        Raises
        ------
        RefusedError
            The document that should hold it is not there, or is none.
        """
        name = place[-1]
        if len(place) == 1:
            self.item[str(name)] = value
            return
        holder = self._holder(place)
        if isinstance(name, str):
            holder["M"][name] = value
        elif name < len(holder["L"]):
            holder["L"][name] = value
        else:
            holder["L"].append(value)

    def remove(self, place: Place) -> None:
        """Take away what stands at a place, if anything does.

        Raises
        ------
        RefusedError
            The document that should hold it is not there, or is none.
        """
        name = place[-1]
        if len(place) == 1:
            self.item.pop(str(name), None)
            return
        holder = self._holder(place)
        if isinstance(name, str):
            holder["M"].pop(name, None)
        elif name < len(holder["L"]):
            del holder["L"][name]

    def _holder(self, place: Place) -> Value:
        root = str(place[0])
        if root in self.item and root not in self._own:
            self.item[root] = copied_value(self.item[root])
            self._own.add(root)
        holder = look_up(self.item, place[:-1])
        if holder is None or ("M" if isinstance(place[-1], str) else "L") not in holder:
            raise invalid("The document path provided in the update expression is invalid")
        return holder
