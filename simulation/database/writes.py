"""Writes of one item: alone, in a batch, or as an action of a transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulation.database.bindings import Body, Expressions
from simulation.database.conditions import Bindings, Condition
from simulation.database.documents import Place, look_up
from simulation.database.errors import RefusedError, invalid
from simulation.database.table import Table
from simulation.database.values import Item, copied, read_item

_RETURN_VALUES = {
    "PutItem": {"NONE", "ALL_OLD"},
    "DeleteItem": {"NONE", "ALL_OLD"},
    "UpdateItem": {"NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"},
}


@dataclass(frozen=True, slots=True)
class Write:
    """A write that was found valid by itself, and is not made yet."""

    table: Table
    key: Item
    condition: Condition | None
    bound: Bindings
    result: Callable[[Item | None], Item | None]
    """The item as it should be, from the one that is there."""
    written: tuple[Place, ...] = ()
    """The places that an update writes to."""
    shows_old: bool = False
    """Whether the item that stands in the way is to be shown."""
    given: Item | None = None
    """The item of a put: its index keys are looked at before the condition."""

    def old(self) -> Item | None:
        """The item as it stands. To be read only."""
        return self.table.get(self.key)

    def decide(self, old: Item | None) -> Outcome:
        """What is to be written.

        Raises
        ------
        RefusedError
            The condition does not hold, or the item can't be changed so.
        """
        if self.given is not None:
            self.table.check_indexes(self.given)
        if self.condition is not None and not self.condition.holds(old or {}, self.bound):
            shown = {"Item": copied(old)} if self.shows_old and old is not None else {}
            raise RefusedError(
                "ConditionalCheckFailedException", "The conditional request failed", **shown
            )
        new = self.result(old)
        if new is None or new is old:
            return Outcome(self, old, new, 0)
        if new is not self.given:
            self.table.check_indexes(new)
        return Outcome(self, old, new, self.table.check_size(new))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write comes to."""

    write: Write
    old: Item | None
    new: Item | None
    size: int

    def commit(self) -> None:
        """Write it."""
        self.write.table.replace(self.write.key, self.old, self.new, self.size)

    def attributes(self, wanted: str) -> Item | None:
        """What ``ReturnValues`` asks for; None where that is nothing."""
        item = self.new if wanted.endswith("NEW") else self.old
        if wanted == "NONE" or item is None:
            return None
        if wanted.startswith("UPDATED"):
            roots = {place[0] for place in self.write.written if look_up(item, place) is not None}
            item = {name: value for name, value in item.items() if name in roots}
        return copied(item) or None


def prepare_put(table: Table, body: Body) -> Write:
    """The write of a PutItem, or of a Put in a transaction."""
    if body.get("Item") is None:
        raise invalid("Item to put in PutItem cannot be null")
    item = read_item(body["Item"])
    expressions = Expressions(body)
    condition = _condition(expressions)
    table.schema.check(item)
    table.check_index_kinds(item)
    table.check_size(item)
    return Write(
        table,
        table.schema.key_of(item),
        condition,
        expressions.bound,
        lambda _: item,
        shows_old=_shows_old(body),
        given=item,
    )


def prepare_delete(table: Table, body: Body) -> Write:
    """The write of a DeleteItem, or of a Delete in a transaction."""
    expressions = Expressions(body)
    condition = _condition(expressions)
    key = table.schema.read_key(body.get("Key"))
    return Write(
        table, key, condition, expressions.bound, lambda _: None, shows_old=_shows_old(body)
    )


def prepare_check(table: Table, body: Body) -> Write:
    """A ConditionCheck in a transaction: a write that leaves the item as it is."""
    expressions = Expressions(body)
    condition = _condition(expressions)
    if condition is None:
        raise invalid("The expression of a ConditionCheck can not be empty")
    key = table.schema.read_key(body.get("Key"))
    return Write(
        table, key, condition, expressions.bound, lambda old: old, shows_old=_shows_old(body)
    )


def prepare_update(table: Table, body: Body) -> Write:
    """The write of an UpdateItem, or of an Update in a transaction."""
    expressions = Expressions(body)
    update = expressions.update()
    condition = expressions.condition("ConditionExpression")
    expressions.refuse_unused()
    key = table.schema.read_key(body.get("Key"))
    places = update.check(expressions.bound)
    if any(place[0] in table.schema.names for place in places):
        raise invalid("Cannot update an attribute that is part of the key")
    return Write(
        table,
        key,
        condition,
        expressions.bound,
        lambda old: update.apply(key if old is None else old, expressions.bound),
        tuple(places),
        _shows_old(body),
    )


def return_values(operation: str, body: Body) -> str:
    """What a write is to give back: NONE, ALL_OLD, …"""
    wanted: Any = body.get("ReturnValues") or "NONE"
    if wanted not in _RETURN_VALUES[operation]:
        raise invalid(f"Return values set to invalid value: {wanted}")
    return str(wanted)


def _condition(expressions: Expressions) -> Condition | None:
    condition = expressions.condition("ConditionExpression")
    expressions.refuse_unused()
    return condition


def _shows_old(body: Body) -> bool:
    wanted = body.get("ReturnValuesOnConditionCheckFailure") or "NONE"
    if wanted not in ("NONE", "ALL_OLD"):
        raise invalid("ReturnValuesOnConditionCheckFailure takes NONE or ALL_OLD")
    return bool(wanted == "ALL_OLD")
