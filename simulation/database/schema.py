"""Keys of tables and indexes, as CreateTable describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from simulation.database.errors import Json, invalid
from simulation.database.values import Item, Token, Value, read_value, token, value_size

_LONGEST_HASH_BYTES = 2048
_LONGEST_RANGE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """One attribute of a key, with its type: S, N or B."""

    name: str
    kind: str
    longest: int

    def check(self, value: Value) -> None:
        """Refuse a value that can't be this part of a key."""
        if self.kind not in value:
            raise invalid(f"Type mismatch for key {self.name}, expected: {self.kind}")
        if not value[self.kind]:
            raise invalid(f"The value of the key {self.name} can't be empty")
        if value_size(value) > self.longest:
            raise invalid(f"Size of the key {self.name} has exceeded the maximum size limit")


@dataclass(frozen=True, slots=True)
class KeySchema:
    """The key of a table or of an index."""

    hash: KeyAttribute
    range: KeyAttribute | None

    @classmethod
    def read(cls, elements: Sequence[Mapping[str, str]], kinds: Mapping[str, str]) -> KeySchema:
        """The key that a request describes.

        Parameters
        ----------
        elements : sequence
            The request's ``KeySchema``.
        kinds : mapping
            Attribute name to type, from its ``AttributeDefinitions``.
        """
        by_role = {element["KeyType"]: element["AttributeName"] for element in elements}
        if len(by_role) != len(elements) or "HASH" not in by_role:
            raise invalid("Invalid KeySchema: the first element must be a HASH key")
        if not kinds.keys() >= set(by_role.values()):
            raise invalid("Some index key attributes are not defined in AttributeDefinitions")
        name = by_role["HASH"]
        hash_key = KeyAttribute(name, kinds[name], _LONGEST_HASH_BYTES)
        if "RANGE" not in by_role:
            return cls(hash_key, None)
        name = by_role["RANGE"]
        return cls(hash_key, KeyAttribute(name, kinds[name], _LONGEST_RANGE_BYTES))

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """The key's one or two attributes."""
        return (self.hash,) if self.range is None else (self.hash, self.range)

    @property
    def names(self) -> set[str]:
        """The names of the key's attributes."""
        return {attribute.name for attribute in self.attributes}

    def read_key(self, key: object) -> Item:
        """The key that a request gives, in canonical form.

        Raises
        ------
        RefusedError
            It is not a key of this schema.
        """
        if not isinstance(key, Mapping):
            raise invalid("The provided key element does not match the schema")
        read = {name: read_value(value) for name, value in key.items()}
        if read.keys() != self.names:
            raise invalid("The provided key element does not match the schema")
        self.check(read)
        return read

    def check(self, item: Item) -> None:
        """Refuse an item that lacks a part of this key, or has it in a wrong type."""
        for attribute in self.attributes:
            if attribute.name not in item:
                raise invalid(f"Missing the key {attribute.name} in the item")
            attribute.check(item[attribute.name])

    def key_of(self, item: Item) -> Item:
        """The part of an item that is this key."""
        return {attribute.name: item[attribute.name] for attribute in self.attributes}

    def tokens(self, item: Item) -> tuple[Token, tuple[Token, ...]]:
        """Where an item stands: its partition, and its place in it."""
        in_partition = () if self.range is None else (token(item[self.range.name]),)
        return token(item[self.hash.name]), in_partition


@dataclass(frozen=True, slots=True)
class IndexSchema:
    """A global secondary index: its key, and the attributes that are copied into it."""

    name: str
    key: KeySchema
    table: KeySchema
    projection: Json

    @property
    def projects_all(self) -> bool:
        """Whether the index holds whole items."""
        return bool(self.projection.get("ProjectionType") == "ALL")

    def holds(self, item: Item) -> bool:
        """Whether an item stands in the index: it has the index's key."""
        return all(attribute.name in item for attribute in self.key.attributes)

    def check(self, item: Item) -> None:
        """Refuse an item whose attributes can't be this index's key."""
        for attribute in self.key.attributes:
            if attribute.name in item:
                attribute.check(item[attribute.name])

    def shows(self, names: Iterable[str]) -> bool:
        """Whether all of these attributes are copied into the index."""
        return self.projects_all or self._projected_names.issuperset(names)

    def project(self, item: Item) -> Item:
        """The part of an item that is copied into the index."""
        if self.projects_all:
            return item
        names = self._projected_names
        return {name: value for name, value in item.items() if name in names}

    @property
    def _projected_names(self) -> set[str]:
        return {*self.key.names, *self.table.names, *self.projection.get("NonKeyAttributes", ())}

    def tokens(self, item: Item) -> tuple[Token, tuple[Token, ...]]:
        """Where an item stands: items of one index key are told apart by the table's key."""
        partition, place = self.key.tokens(item)
        table_partition, table_place = self.table.tokens(item)
        return partition, (*place, table_partition, *table_place)

    def key_of(self, item: Item) -> Item:
        """What names an item's place in the index: the index's key and the table's."""
        return {**self.key.key_of(item), **self.table.key_of(item)}

    def read_key(self, key: object) -> Item:
        """A place in the index that a request gives, in canonical form."""
        if not isinstance(key, Mapping) or key.keys() != self.key.names | self.table.names:
            raise invalid("The provided starting key is invalid")
        read = {name: read_value(value) for name, value in key.items()}
        self.key.check(read)
        self.table.check(read)
        return read


def read_kinds(definitions: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Attribute name to type, from a request's ``AttributeDefinitions``."""
    return {each["AttributeName"]: each["AttributeType"] for each in definitions}
