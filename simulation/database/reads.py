"""Query and Scan, over tables and indexes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from simulation.database.bindings import Body, Expressions
from simulation.database.conditions import (
    BeginsWith,
    Between,
    Bindings,
    Both,
    Comparison,
    Condition,
    Literal,
    Operand,
    Path,
)
from simulation.database.documents import Place, project
from simulation.database.errors import Json, invalid
from simulation.database.schema import IndexSchema, KeyAttribute, KeySchema
from simulation.database.storage import LAST, Partition, Partitions, Stored, stable_hash
from simulation.database.table import Table
from simulation.database.values import Item, Token, Value, copied, token

PAGE_BYTES = 1024 * 1024

_SELECTS = {
    None,
    "ALL_ATTRIBUTES",
    "ALL_PROJECTED_ATTRIBUTES",
    "SPECIFIC_ATTRIBUTES",
    "COUNT",
}


@dataclass(frozen=True, slots=True)
class _Source:
    """What is read: a table or one of its indexes."""

    items: Partitions
    schema: KeySchema | IndexSchema

    @property
    def key(self) -> KeySchema:
        """The key by which it is queried."""
        return self.schema.key if isinstance(self.schema, IndexSchema) else self.schema


class _Reading:
    """What Query and Scan have in common."""

    def __init__(self, table: Table, body: Body) -> None:
        self.source = _source(table, body)
        self.limit = body.get("Limit")
        if self.limit is not None and self.limit < 1:
            raise invalid("Limit must be greater than or equal to 1")
        self.expressions = Expressions(body)
        self.filter = self.expressions.condition("FilterExpression")
        self.projection = self.expressions.projection()
        self.counts = _counts(self.source, body, self.projection)
        self._refuse_unprojected(self.projection or [])
        start = body.get("ExclusiveStartKey")
        self.start = None if start is None else self.source.schema.read_key(start)

    def refuse_filter(self) -> None:
        """Refuse a filter of a query that looks at the key, or at what the index does not hold."""
        if self.filter is None:
            return
        places = self.filter.places(self.expressions.bound)
        if any(place[0] in self.source.key.names for place in places):
            raise invalid("Filter Expression can only contain non-primary key attributes")
        self._refuse_unprojected(places)

    def _refuse_unprojected(self, places: list[Place]) -> None:
        schema = self.source.schema
        if isinstance(schema, IndexSchema) and not schema.shows(str(each[0]) for each in places):
            raise invalid("The secondary index does not project all of these attributes")

    def page(self, candidates: Iterable[Stored]) -> Json:
        """Read up to the limit, or up to a page's size."""
        taken: list[Item] = []
        scanned = size = 0
        last: Item | None = None
        for stored in candidates:
            scanned += 1
            size += stored.size
            if self.filter is None or self.filter.holds(stored.item, self.expressions.bound):
                taken.append(stored.item)
            if scanned == self.limit or size > PAGE_BYTES:
                last = stored.item
                break
        answer: Json = {"Count": len(taken), "ScannedCount": scanned}
        if not self.counts:
            answer["Items"] = [shown(item, self.projection) for item in taken]
        if last is not None:
            answer["LastEvaluatedKey"] = copied(self.source.schema.key_of(last))
        return answer


def shown(item: Item, projection: list[Place] | None) -> Item:
    """A copy of what is asked for of an item."""
    return copied(item if projection is None else project(item, projection))


def query(table: Table, body: Body) -> Json:
    """Answer a Query."""
    reading = _Reading(table, body)
    condition = reading.expressions.condition("KeyConditionExpression")
    reading.expressions.refuse_unused()
    if condition is None:
        raise invalid("Either the KeyConditions or KeyConditionExpression parameter is required")
    reading.refuse_filter()
    wanted = _KeyCondition.read(condition, reading.source.key, reading.expressions.bound)
    low, high, found = wanted.slice(reading.source.items)
    forward = body.get("ScanIndexForward", True)
    if reading.start is not None:
        partition, place = reading.source.schema.tokens(reading.start)
        if partition != wanted.partition:
            raise invalid("The provided starting key is outside query boundaries")
        if forward:
            low = max(low, bisect_right(found.places, place))
        else:
            high = min(high, bisect_left(found.places, place))
    places = range(low, high) if forward else range(high - 1, low - 1, -1)
    return reading.page(found.items[found.places[position]] for position in places)


def scan(table: Table, body: Body) -> Json:
    """Answer a Scan."""
    reading = _Reading(table, body)
    reading.expressions.refuse_unused()
    after = None if reading.start is None else reading.source.schema.tokens(reading.start)
    return reading.page(_segment(reading.source, body, after))


def _segment(
    source: _Source, body: Body, after: tuple[Token, tuple[Token, ...]] | None
) -> Iterator[Stored]:
    everything = source.items.scan(after)
    segment, segments = body.get("Segment"), body.get("TotalSegments")
    if segment is None and segments is None:
        return everything
    if segment is None or segments is None or not 0 <= segment < segments:
        raise invalid("Segment must be less than TotalSegments, and both be given")
    return (
        stored
        for stored in everything
        if stable_hash(source.schema.tokens(stored.item)[0]) % segments == segment
    )


def _source(table: Table, body: Body) -> _Source:
    name = body.get("IndexName")
    if name is None:
        return _Source(table.items, table.schema)
    index = table.index(name)
    if body.get("ConsistentRead"):
        raise invalid("Consistent reads are not supported on global secondary indexes")
    return _Source(index.items, index.schema)


def _counts(source: _Source, body: Body, projection: list[Place] | None) -> bool:
    select = body.get("Select")
    if select not in _SELECTS:
        raise invalid(f"Invalid Select: {select}")
    if (projection is not None) and select not in (None, "SPECIFIC_ATTRIBUTES"):
        raise invalid(f"Cannot specify the ProjectionExpression when choosing to get {select}")
    if select == "SPECIFIC_ATTRIBUTES" and projection is None:
        raise invalid("Must specify the ProjectionExpression when choosing SPECIFIC_ATTRIBUTES")
    index = source.schema if isinstance(source.schema, IndexSchema) else None
    if select == "ALL_PROJECTED_ATTRIBUTES" and index is None:
        raise invalid("ALL_PROJECTED_ATTRIBUTES can be used only when querying an index")
    if select == "ALL_ATTRIBUTES" and index is not None and not index.projects_all:
        raise invalid("Select type ALL_ATTRIBUTES is not supported for this index")
    return bool(select == "COUNT")


@dataclass(frozen=True, slots=True)
class _KeyCondition:
    """One partition, and a range of places in it."""

    partition: Token
    on_range: Condition | None
    bound: Bindings

    @classmethod
    def read(cls, condition: Condition, key: KeySchema, bound: Bindings) -> _KeyCondition:
        """What a KeyConditionExpression says about a key.

        Raises
        ------
        RefusedError
            It is no condition on this key.
        """
        by_name: dict[str, Condition] = {}
        for part in _parts(condition):
            name = _name(part, bound)
            if name in by_name:
                raise invalid("KeyConditionExpressions must only contain one condition per key")
            by_name[name] = part
        on_hash = by_name.pop(key.hash.name, None)
        if not isinstance(on_hash, Comparison) or on_hash.operator != "=":
            raise invalid(f"Query condition missed key schema element: {key.hash.name}")
        (value,) = _literals(on_hash, key.hash, bound)
        on_range = by_name.pop(key.range.name, None) if key.range else None
        if by_name:
            raise invalid("Query key condition not supported")
        if on_range is not None and key.range is not None:
            _literals(on_range, key.range, bound)
        return cls(token(value), on_range, bound)

    def slice(self, items: Partitions) -> tuple[int, int, Partition]:
        """The positions of the range's beginning and end, and the partition."""
        found = items.partition(self.partition)
        low, high = self._slice(found)
        return low, high, found

    def _slice(self, found: Partition) -> tuple[int, int]:
        places = found.places
        match self.on_range:
            case Comparison(operator=operator, right=Literal() as right):
                value = self._token(right)
                below = bisect_left(places, (value,))
                upto = bisect_left(places, (value, LAST))
                return {
                    "=": (below, upto),
                    "<": (0, below),
                    "<=": (0, upto),
                    ">": (upto, len(places)),
                    ">=": (below, len(places)),
                }[operator]
            case Between(low=Literal() as low, high=Literal() as high):
                start = bisect_left(places, (self._token(low),))
                return start, bisect_left(places, (self._token(high), LAST))
            case BeginsWith(prefix=Literal() as literal):
                prefix = self._token(literal)
                start = bisect_left(places, (prefix,))
                return start, bisect_left(
                    places,
                    True,
                    lo=start,
                    key=lambda place: not place[0].startswith(prefix),  # type: ignore[union-attr,arg-type]
                )
            case _:
                return 0, len(places)

    def _token(self, literal: Literal) -> Token:
        return token(self.bound.values[literal.placeholder])


def _parts(condition: Condition) -> list[Condition]:
    if isinstance(condition, Both):
        return _parts(condition.left) + _parts(condition.right)
    return [condition]


def _operands(condition: Condition) -> tuple[Operand, ...]:
    match condition:
        case Comparison(operator="=" | "<" | "<=" | ">" | ">=", left=left, right=right):
            return left, right
        case Between(operand=operand, low=low, high=high):
            return operand, low, high
        case BeginsWith(operand=operand, prefix=prefix):
            return operand, prefix
    raise invalid("Invalid operator used in KeyConditionExpression")


def _name(condition: Condition, bound: Bindings) -> str:
    path, *_ = _operands(condition)
    if not isinstance(path, Path) or len(path.parts) != 1:
        raise invalid("Invalid condition in KeyConditionExpression: no attribute name")
    return str(path.place(bound)[0])


def _literals(condition: Condition, key: KeyAttribute, bound: Bindings) -> list[Value]:
    _, *others = _operands(condition)
    values = []
    for operand in others:
        if not isinstance(operand, Literal):
            raise invalid("Invalid condition in KeyConditionExpression: no value")
        value = bound.values[operand.placeholder]
        key.check(value)
        values.append(value)
    return values
