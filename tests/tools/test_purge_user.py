"""Purging a user deletes all of the user's items, and none of another user's."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from tools.purge_user import main, purge_user

OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("USER#other", "CUSTOMER#cus_2", {}),
    ("STRIPE#cus_2", "POINTER", {"user_id": "other"}),
    ("EVENT#evt_2", "EVENT", {"customer_id": "cus_2", "created": 1}),
    ("STRIPE#pm_2", "POINTER", {"user_id": "other"}),
    ("SWEEP", "CURSOR", {}),
]


@pytest.fixture
def table(table_name: str) -> Any:
    return boto3.resource("dynamodb").Table(table_name)


def put(table: Any, items: list[tuple[str, str, dict[str, Any]]]) -> None:
    for pk, sk, fields in items:
        table.put_item(Item={"pk": pk, "sk": sk, **fields})


def keys(table: Any) -> set[tuple[str, str]]:
    return {(item["pk"], item["sk"]) for item in table.scan(ConsistentRead=True)["Items"]}


def of_user(user_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (f"USER#{user_id}", "CLAIM", {"stripe_id": "cus_1"}),
        (f"USER#{user_id}", "CUSTOMER#cus_1", {}),
        (f"USER#{user_id}", "CUSTOMER#cus_1#CARD#pm_1", {}),
        (f"USER#{user_id}", "CUSTOMER#cus_1#SUBSCRIPTION#sub_1", {}),
        ("STRIPE#cus_1", "POINTER", {"user_id": user_id}),
        ("STRIPE#pm_1", "POINTER", {"user_id": user_id, "customer_id": "cus_1"}),
        ("EVENT#evt_1", "EVENT", {"customer_id": "cus_1", "created": 1}),
    ]


@pytest.mark.parametrize(
    "user_id", ["user-1", "it's $(whoami) `x` \\", "cus_2", '"}, ":x": {"S": "USER#other']
)
def test_deletes_all_of_a_user(
    table: Any, user_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(table, OTHERS)
    put(table, of_user(user_id))
    assert main([f"--table={table.name}", f"--user={user_id}"]) == 0
    assert keys(table) == {(pk, sk) for pk, sk, _ in OTHERS}
    assert capsys.readouterr().out == f"7 items deleted from {table.name}\n"


def test_leaves_pointer_to_another_user(table: Any) -> None:
    put(table, OTHERS)
    put(table, [("USER#user-1", "CUSTOMER#cus_1#CARD#pm_2", {})])
    assert purge_user(table, "user-1") == 1
    assert keys(table) == {(pk, sk) for pk, sk, _ in OTHERS}


def test_empty_user_deletes_nothing(table: Any) -> None:
    put(table, OTHERS)
    with pytest.raises(SystemExit):
        main([f"--table={table.name}", "--user="])
    assert keys(table) == {(pk, sk) for pk, sk, _ in OTHERS}
