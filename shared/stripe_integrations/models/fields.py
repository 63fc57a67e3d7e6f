"""The field table: a record declares each field's type, its place on Stripe and who may set it.

Validation, storage, the mapping from Stripe's objects, the HTTP responses and openapi.json all read
these declarations; there is no second list of fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeGuard, TypeVar, cast

from pynamodb.attributes import Attribute
from pynamodb.constants import BOOLEAN, NUMBER, STRING

if TYPE_CHECKING:
    from pynamodb.models import Model

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_DYNAMODB_LIMIT = 10**38
"""DynamoDB stores 38 digits."""

Shape = str
"""The kind of Stripe object that a value is read from: customer, card, subscription, …"""


class StripeField(Attribute[T]):
    """One row of the field table.

    Parameters
    ----------
    param : str, optional
        The parameter of Stripe's create call that takes this field.
    settable : bool, optional
        Whether `create` takes the field; by default, whether Stripe does.
    clearable : bool
        Whether Stripe's update call can clear it.
    private : bool, optional
        For internal use: no HTTP response contains it.
    **paths : str
        Where each shape of Stripe object has the value, as ``shape="dotted.path"``.
    """

    def __init__(
        self,
        *,
        param: str | None = None,
        settable: bool | None = None,
        clearable: bool = True,
        private: bool = False,
        **paths: str,
    ) -> None:
        super().__init__(null=True)
        self.param = param
        self.settable = param is not None if settable is None else settable
        self.clearable = clearable
        self.private = private
        self.paths: Mapping[Shape, str] = paths

    JSON_TYPE: ClassVar[str]
    """The JSON Schema type of a value."""
    JSON_LIMITS: ClassVar[Mapping[str, Any]] = {}
    """What `refusal` requires of a value besides its type, as JSON Schema keywords."""
    JSON_NOT_EMPTY: ClassVar[Mapping[str, Any]] = {}
    """The JSON Schema keywords that exclude an empty value."""

    @property
    def request_schema(self) -> dict[str, Any]:
        """The JSON Schema of a caller's value: what `refusal` accepts, or null for none."""
        return {"type": [self.JSON_TYPE, "null"], **self.JSON_LIMITS}

    @property
    def update_schema(self) -> dict[str, Any]:
        """The JSON Schema of a caller's value in an update, where null clears."""
        if self.clearable:
            return self.request_schema
        return {**self.request_schema, "type": self.JSON_TYPE, **self.JSON_NOT_EMPTY}

    @property
    def response_schema(self) -> dict[str, Any]:
        """The JSON Schema of what `to_json` returns; null where a record may lack the value."""
        return {"type": [self.JSON_TYPE, "null"] if self.null else self.JSON_TYPE}

    def refusal(self, value: object) -> str | None:
        """Why a caller's value is refused; None where it is accepted."""
        raise NotImplementedError

    def from_stripe(self, value: object) -> object:
        """Convert the value of Stripe's object: None where it is of another type."""
        return value

    def to_json(self, value: T) -> object:
        """Convert the value for an HTTP response."""
        return value


class Text(StripeField[str | None]):
    """A string. Where Stripe has expanded an id to the whole object, the id is stored."""

    attr_type = STRING
    MAX_LENGTH = 5000
    """Stripe's own limit on the longest of its strings, in characters."""
    JSON_TYPE = "string"
    JSON_LIMITS: ClassVar[Mapping[str, Any]] = {"maxLength": MAX_LENGTH}
    JSON_NOT_EMPTY: ClassVar[Mapping[str, Any]] = {"minLength": 1}

    def refusal(self, value: object) -> str | None:
        if not isinstance(value, str):
            return "must be a string"
        if len(value) > self.MAX_LENGTH:
            return f"must be at most {self.MAX_LENGTH} characters long"
        return None

    def from_stripe(self, value: object) -> object:
        if isinstance(value, Mapping):
            value = value.get("id")
        # JSON can contain half a surrogate pair, and DynamoDB's strings can't.
        return value.encode(errors="replace").decode() if isinstance(value, str) else None


class Integer(StripeField[int | None]):
    """A whole number: an amount in the currency's smallest unit, a count, or Unix seconds."""

    attr_type = NUMBER
    LIMIT = 10**12
    JSON_TYPE = "integer"
    JSON_LIMITS: ClassVar[Mapping[str, Any]] = {"minimum": -LIMIT, "maximum": LIMIT}

    def refusal(self, value: object) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "must be a whole number"
        if abs(value) > self.LIMIT:
            return "is out of range"
        return None

    def from_stripe(self, value: object) -> object:
        return whole_number(value)

    def serialize(self, value: int) -> str:
        return str(value)

    def deserialize(self, value: str) -> int:
        return int(value)


def whole_number(value: object) -> int | None:
    """Return a number of Stripe's that an `Integer` can hold; None for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= _DYNAMODB_LIMIT:
        return None
    return value


class Decimal(StripeField[float | None]):
    """A number with decimals, such as a percentage."""

    attr_type = NUMBER
    JSON_TYPE = "number"

    def from_stripe(self, value: object) -> object:
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def serialize(self, value: float) -> str:
        return json.dumps(value)

    def deserialize(self, value: str) -> float:
        number: float = json.loads(value)
        return number


class Flag(StripeField[bool | None]):
    """True or false."""

    attr_type = BOOLEAN
    JSON_TYPE = "boolean"

    def refusal(self, value: object) -> str | None:
        return None if isinstance(value, bool) else "must be true or false"

    def from_stripe(self, value: object) -> object:
        return value if isinstance(value, bool) else None


class Document(StripeField[Any]):
    """A nested value, stored as JSON text."""

    attr_type = STRING
    JSON_TYPE = "object"

    def refusal(self, value: object) -> str | None:
        return None if isinstance(value, Mapping) else "must be an object"

    def from_stripe(self, value: object) -> object:
        return value if isinstance(value, Mapping) else None

    def serialize(self, value: object) -> str:
        return json.dumps(value, separators=(",", ":"))

    def deserialize(self, value: str) -> object:
        return json.loads(value)


class Listing(Document):
    """A list of values."""

    JSON_TYPE = "array"
    JSON_LIMITS: ClassVar[Mapping[str, Any]] = {"items": {"type": "string"}}
    JSON_NOT_EMPTY: ClassVar[Mapping[str, Any]] = {"minItems": 1}

    def refusal(self, value: object) -> str | None:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return None
        return "must be a list of strings"

    def from_stripe(self, value: object) -> object:
        return value if isinstance(value, list) else None


class Moment(StripeField[datetime | None]):
    """A time by our clock, in UTC; ISO 8601 in HTTP responses."""

    attr_type = STRING
    JSON_TYPE = "string"

    @property
    def response_schema(self) -> dict[str, Any]:
        return {**super().response_schema, "format": "date-time"}

    def serialize(self, value: datetime) -> str:
        return value.astimezone(UTC).isoformat()

    def deserialize(self, value: str) -> datetime:
        return datetime.fromisoformat(value)

    def to_json(self, value: datetime | None) -> object:
        return None if value is None else value.isoformat()


class Choice(StripeField[E | None]):
    """A value of an enumeration of ours, stored as its text.

    A later release may have stored a value that is unknown here: it is read as text.
    """

    attr_type = STRING
    JSON_TYPE = "string"

    def __init__(self, choices: type[E], *, private: bool = False) -> None:
        super().__init__(private=private)
        self._choices = choices

    def serialize(self, value: E) -> str:
        return str(value)

    def deserialize(self, value: str) -> E:
        known = value in self._choices.__members__.values()
        return self._choices(value) if known else cast("E", value)


def required(field: StripeField[T | None]) -> StripeField[T]:
    """Declare that every stored record has a value for a field."""
    field.null = False
    return cast("StripeField[T]", field)


@cache
def fields_of(model: type[Model]) -> dict[str, StripeField[Any]]:
    """Return a record's fields by name, in the order of their declaration."""
    return {
        name: value
        for parent in reversed(model.__mro__)
        for name, value in vars(parent).items()
        if isinstance(value, StripeField)
    }


def read_stripe(model: type[Model], shape: Shape, obj: Mapping[str, Any]) -> dict[str, Any]:
    """Read a record's fields from one of Stripe's objects.

    Parameters
    ----------
    model : type
        The record whose fields are read.
    shape : str
        The shape of `obj`; selects the paths.
    obj : mapping
        Stripe's object. A missing key reads as None.

    Returns
    -------
    dict
        Name to value, for every field that has a path in this shape.
    """
    return {
        name: field.from_stripe(value_at(obj, *field.paths[shape].split(".")))
        for name, field in fields_of(model).items()
        if shape in field.paths
    }


def value_at(obj: object, *path: str) -> object:
    """Return the value at a path of keys in nested mappings; None where there is none."""
    for key in path:
        if not isinstance(obj, Mapping):
            return None
        obj = obj.get(key)
    return obj


def is_text(value: object) -> TypeGuard[str]:
    """Return whether a value is a string in UTF-8: JSON can contain half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def depth(value: object, deepest: int) -> int:
    """Count a value's levels of nesting, up to one more than the deepest allowed."""
    levels, level = 0, [value]
    while level and levels <= deepest:
        levels += 1
        level = [
            nested
            for outer in level
            if isinstance(outer, Mapping | list | tuple)
            for nested in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
    return levels
