"""Transactions: all of their actions, or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from simulation.database.bindings import Body
from simulation.database.errors import Json, RefusedError, invalid
from simulation.database.table import Table
from simulation.database.values import item_size
from simulation.database.writes import (
    Outcome,
    Write,
    prepare_check,
    prepare_delete,
    prepare_put,
    prepare_update,
)

MOST_ITEMS = 100
MOST_BYTES = 4 * 1024 * 1024
TOKEN_SECONDS = 600
_LONGEST_TOKEN = 36

_PREPARE: dict[str, Callable[[Table, Body], Write]] = {
    "Put": prepare_put,
    "Update": prepare_update,
    "Delete": prepare_delete,
    "ConditionCheck": prepare_check,
}


class Tokens:
    """The ClientRequestTokens of the last ten minutes, and what was asked under them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked: dict[str, tuple[float, str]] = {}

    def is_repetition(self, token: str, request: Body) -> bool:
        """Whether this very request was carried out under the token already.

        Raises
        ------
        RefusedError
            Another request was.
        """
        if not 1 <= len(token) <= _LONGEST_TOKEN:
            raise invalid("clientRequestToken must have a length of 1 to 36")
        until, asked = self._asked.get(token, (0.0, ""))
        if until <= self._clock():
            return False
        if asked != _essence(request):
            raise RefusedError(
                "IdempotentParameterMismatchException",
                "The request was sent with the same token and other parameters",
            )
        return True

    def keep(self, token: str, request: Body) -> None:
        """Note that a request was carried out."""
        now = self._clock()
        self._asked.pop(token, None)
        while self._asked and self._asked[oldest := next(iter(self._asked))][0] <= now:
            del self._asked[oldest]
        self._asked[token] = (now + TOKEN_SECONDS, _essence(request))


def _essence(request: Body) -> str:
    return json.dumps(request["TransactItems"], sort_keys=True)


def read_writes(table_of: Callable[[Body], Table], request: Body) -> list[Write]:
    """The writes of a TransactWriteItems, each valid by itself.

    Raises
    ------
    RefusedError
        One is not valid, or together they are none.
    """
    writes = []
    for action in read_actions(request):
        ((kind, body),) = action.items()
        if kind not in _PREPARE:
            raise invalid("A TransactItem must contain Put, Update, Delete or ConditionCheck")
        writes.append(_PREPARE[kind](table_of(body), body))
    refuse_twice([(write.table, write.key) for write in writes])
    return writes


def read_actions(request: Body) -> list[Mapping[str, Any]]:
    """The actions of a transaction, one each.

    Raises
    ------
    RefusedError
        There are too many, or none, or an action is ambiguous.
    """
    actions: list[Mapping[str, Any]] = request.get("TransactItems") or []
    if not 1 <= len(actions) <= MOST_ITEMS:
        raise invalid(f"Member must have length between 1 and {MOST_ITEMS}")
    if any(len(action) != 1 for action in actions):
        raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
    return actions


def refuse_twice(keys: list[tuple[Table, Json]]) -> None:
    """Refuse a request that names one item twice."""
    named = {(table.name, table.schema.tokens(key)) for table, key in keys}
    if len(named) != len(keys):
        raise invalid("Transaction request cannot include multiple operations on one item")


def decide_all(writes: list[Write]) -> list[Outcome]:
    """What the writes come to.

    Raises
    ------
    RefusedError
        One of them can't be made: ``TransactionCanceledException`` with a reason for each.
    """
    outcomes: list[Outcome] = []
    reasons: list[Json] = []
    for write in writes:
        try:
            outcomes.append(write.decide(write.old()))
            reasons.append({"Code": "None"})
        except RefusedError as error:
            reasons.append(_reason(error))
    if len(outcomes) < len(writes):
        codes = ", ".join(reason["Code"] for reason in reasons)
        raise RefusedError(
            "TransactionCanceledException",
            f"Transaction cancelled, please refer cancellation reasons for reasons [{codes}]",
            CancellationReasons=reasons,
        )
    if sum(_weight(outcome) for outcome in outcomes) > MOST_BYTES:
        raise invalid("The aggregate size of all items in a transaction is over 4 MB")
    return outcomes


def _reason(error: RefusedError) -> Json:
    codes = {
        "ConditionalCheckFailedException": "ConditionalCheckFailed",
        "ValidationException": "ValidationError",
    }
    return {"Code": codes[error.kind], "Message": error.message, **error.members}


def _weight(outcome: Outcome) -> int:
    return outcome.size or item_size(outcome.old or {})
