"""The simulation's database and AWS's DynamoDB Local answer generated requests alike."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from decimal import Decimal
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import pytest

from simulation.database import Answer, Database
from tests.dynamodb_local.generated_requests import TABLES, Requests
from tests.engines import ENDPOINT
from tools import dynamodb_local, engine

Json = dict[str, Any]

SEEDS = range(8)
REQUESTS = 400

IGNORED = {"message", "Message", "ConsumedCapacity"}
"""Messages are for people. DynamoDB Local adds a capacity that nobody asked for to DeleteItem."""

HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Date": "20270101T000000Z",
}


class DynamoDBLocal:
    """DynamoDB Local, asked directly: a client would refuse to send what is malformed.

    Parameters
    ----------
    endpoint : str
        Its address.
    access_key : str
        Every access key has a database of its own.
    """

    def __init__(self, endpoint: str, access_key: str) -> None:
        address = urlsplit(endpoint)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._authorization = (
            f"AWS4-HMAC-SHA256 Credential={access_key}/20270101/eu-west-1/dynamodb/aws4_request, "
            "SignedHeaders=host, Signature=0"
        )

    def request(self, operation: str, body: Json) -> Answer:
        """Ask it."""
        headers = {
            **HEADERS,
            "Authorization": self._authorization,
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        }
        self._connection.request("POST", "/", json.dumps(body), headers)
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read()))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of a DynamoDB Local; the one that serves all tests, if there is one."""
    with ExitStack() as stack:
        try:
            yield os.environ.get(ENDPOINT) or stack.enter_context(dynamodb_local.serve())
        except engine.NotRunError as why:
            pytest.skip(f"NOT RUN: {why}")


def plain(value: Any) -> Any:
    """A value with its sets in one order and its numbers in one notation, wherever they stand."""
    if isinstance(value, list):
        return [plain(element) for element in value]
    if not isinstance(value, dict):
        return value
    return {name: _content(name, content) for name, content in value.items()}


def _content(name: str, content: Any) -> Any:
    if name == "N" and isinstance(content, str):
        return _number(content)
    if name == "NS":
        return sorted(map(_number, content))
    return sorted(content) if name in ("SS", "BS") else plain(content)


def _number(text: str) -> str:
    return format(Decimal(text).normalize(), "f") if Decimal(text) else "0"


def comparable(answer: Answer) -> Json:
    """What of an answer must be equal: everything but messages."""
    body = {name: value for name, value in answer.body.items() if name not in IGNORED}
    if "__type" in body:
        body["__type"] = body["__type"].rpartition("#")[2]
    if "CancellationReasons" in body:
        body["CancellationReasons"] = [
            {name: value for name, value in reason.items() if name not in IGNORED}
            for reason in body["CancellationReasons"]
        ]
    return {"status": answer.status, **plain(body)}


def in_one_order(operation: str, body: Json, answer: Json) -> Json:
    """An answer with its items in one order, where DynamoDB promises none."""
    if operation == "Scan" and "Items" in answer:
        return {**answer, "Items": sorted(answer["Items"], key=_text)}
    if "IndexName" in body and "Items" in answer:
        runs = groupby(answer["Items"], key=lambda item: item.get("n"))
        items = [item for _, run in runs for item in sorted(run, key=_text)]
        return {**answer, "Items": items}
    if operation == "BatchGetItem" and "Responses" in answer:
        found = answer["Responses"].items()
        return {**answer, "Responses": {name: sorted(items, key=_text) for name, items in found}}
    return answer


def _text(item: Json) -> str:
    return json.dumps(item, sort_keys=True)


def is_known_deviation(operation: str, body: Json, local: Json, ours: Json) -> bool:
    """Whether answers differ where DynamoDB Local is known not to do as DynamoDB does.

    - It writes numbers as they were sent; DynamoDB as they are kept, without zeros that say
      nothing. `plain` puts all numbers into one notation.
    - An update inside a transaction that finds no place for its value fails the request as a
      whole; by DynamoDB's documentation it cancels the transaction, with a reason of
      `ValidationError` for that action.
    - An update may give an index's key a type that the index does not have, where the value does
      not stand in the expression as it is; DynamoDB refuses that.
    - A page that ends with its limit at the very end of the key condition's range has no
      LastEvaluatedKey. DynamoDB leaves it out only where it came to
      the end before the limit. That says the same; callers read one empty page more.

    Not drawn, for the same reason: what is no string or no base64 (it takes a number, and breaks
    on the other), two actions on one item in a transaction whose conditions fail (it notices
    only afterwards), a filter of an index's scan (it sees attributes that the index lacks), and
    a filter over more than a megabyte (it counts what the filter takes, not what was read).
    """
    refused = "ValidationException" in str(ours) or "ValidationError" in str(ours)
    if local.get("__type") == "ValidationException":
        return {"Code": "ValidationError"} in ours.get("CancellationReasons", [])
    if operation == "Query" and "LastEvaluatedKey" in ours and "LastEvaluatedKey" not in local:
        rest = {name: value for name, value in ours.items() if name != "LastEvaluatedKey"}
        return local == rest and body.get("Limit") == local["ScannedCount"]
    return refused and re.search(r"'UpdateExpression': '[^']*\b[gn]\b", str(body)) is not None


def reconcile(databases: Sequence[Database | DynamoDBLocal], body: Json) -> None:
    """Delete the items that only one database has written, so that the sequence can go on."""
    actions = [next(iter(action.values())) for action in body.get("TransactItems", [])] or [body]
    for action in actions:
        table = next(table for table in TABLES if table["TableName"] == action["TableName"])
        names = [element["AttributeName"] for element in table["KeySchema"]]
        key = {name: (action.get("Key") or action["Item"])[name] for name in names}
        for database in databases:
            database.request("DeleteItem", {"TableName": action["TableName"], "Key": key})


@pytest.mark.parametrize("seed", SEEDS)
def test_generated_requests_are_answered_alike(endpoint: str, seed: int) -> None:
    real = DynamoDBLocal(endpoint, f"differential{seed}")
    ours = Database(clock=lambda: 1_800_000_000.0)
    for table in TABLES:
        assert real.request("CreateTable", table).status == 200
        assert ours.request("CreateTable", table).status == 200
    requests = Requests(random.Random(seed))
    differences = []
    for number in range(REQUESTS):
        operation, body = requests.next()
        expected = in_one_order(operation, body, comparable(real.request(operation, body)))
        given = in_one_order(operation, body, comparable(ours.request(operation, body)))
        requests.note(expected)
        if expected == given:
            continue
        if not is_known_deviation(operation, body, expected, given):
            differences.append((number, operation, body, expected, given))
        elif expected["status"] == 200 != given["status"]:
            reconcile((real, ours), body)
    assert not differences, _report(differences)
    for table in TABLES:
        real.request("DeleteTable", {"TableName": table["TableName"]})


def _report(differences: list[tuple[int, str, Json, Json, Json]]) -> str:
    lines = [f"{len(differences)} answers differ; the first:"]
    for number, operation, body, expected, given in differences[:5]:
        lines.append(f"{number}: {operation} {json.dumps(body)}")
        lines.append(f"    DynamoDB Local: {json.dumps(expected)[:1500]}")
        lines.append(f"    ours:           {json.dumps(given)[:1500]}")
    return "\n".join(lines)
