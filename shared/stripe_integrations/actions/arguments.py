"""What callers pass to the actions: users, records, ids, and objects of Stripe's library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol, TypeGuard, TypeVar
from uuid import UUID

from stripe_integrations.errors import InvalidFieldError
from stripe_integrations.models import Pointer
from stripe_integrations.models.fields import is_text

T = TypeVar("T")

_MAX_BITS = 512
"""No database has longer integers, and Python refuses to write some of them."""


class HasId(Protocol):
    """A user: any object whose `id` is a non-empty string, an integer or a UUID."""

    @property
    def id(self) -> str | int | UUID:
        """Identifies the user; never changes."""


class ToDict(Protocol):
    """An object of Stripe's library, which is not a mapping."""

    def to_dict(self) -> dict[str, Any]:
        """Return the object as JSON."""


StripeData = Mapping[str, Any] | ToDict


def user_id_of(user: HasId) -> str:
    """Return a user's id as it is stored.

    Raises
    ------
    InvalidFieldError
        The user has no `id`, or one that is not a string of 1 to 500 characters, an integer or a
        UUID.
    """
    value = getattr(user, "id", None)
    user_id = _text_of(value)
    if user_id is None:
        what = f"{_name(type(user))} without id" if value is None else _name(type(value))
        raise InvalidFieldError("user_id", f"must be a string, an integer or a UUID, not {what}")
    if not user_id:
        raise InvalidFieldError("user_id", "must not be empty")
    if len(user_id) > Pointer.MAX_USER_ID_LENGTH:
        raise InvalidFieldError(
            "user_id", f"must be at most {Pointer.MAX_USER_ID_LENGTH} characters long"
        )
    if not is_text(user_id):
        raise InvalidFieldError("user_id", "can't be encoded as UTF-8")
    return user_id


def stripe_json(name: str, value: object) -> Mapping[str, Any]:
    """Convert one of Stripe's objects to JSON, whether it is JSON or an object of Stripe's library.

    Raises
    ------
    InvalidFieldError
        It is neither, or contains what is neither; the message names the type.
    """
    if not isinstance(value, Mapping) and not _is_of_stripes_library(value):
        refused = _name(type(value))
        raise InvalidFieldError(name, f"must be Stripe's object or its JSON, not {refused}")

    def converted(nested: object) -> object:
        if isinstance(nested, Decimal):
            return str(nested)  # as Stripe sent it
        if _is_of_stripes_library(nested):
            return nested.to_dict()
        raise InvalidFieldError(name, f"contains {_name(type(nested))}, which is not JSON")

    try:
        parsed = json.loads(json.dumps(value, default=converted))
    except (RecursionError, TypeError, ValueError):  # too deep, or with keys that are not strings
        parsed = value
    if not isinstance(parsed, Mapping):
        raise InvalidFieldError(name, "must be an object")
    return parsed


def require_type(name: str, value: object, expected_type: type[T]) -> T:
    """Return an argument that is of this type: a record, or an id.

    Raises
    ------
    InvalidFieldError
        It is of another type, which the message names.
    """
    if not isinstance(value, expected_type):
        raise InvalidFieldError(
            name, f"must be of type {_name(expected_type)}, not {_name(type(value))}"
        )
    return value


def _is_of_stripes_library(value: object) -> TypeGuard[ToDict]:
    return callable(getattr(value, "to_dict", None)) and not isinstance(value, type)


def _text_of(user_id: object) -> str | None:
    match user_id:
        case str():
            return user_id
        case UUID():
            return str(user_id)
        case int() if not isinstance(user_id, bool) and user_id.bit_length() < _MAX_BITS:
            return str(int(user_id))
    return None


def _name(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
