"""Deletes all items of one user from a table: records, pointers and events.

    python -m tools.purge_user --table TABLE --user USER_ID

A user id may be any text, so it is never inserted into an expression or a command. An interrupted
run can be repeated: the records, by which the other items are found, are deleted last.
Credentials, region and AWS_ENDPOINT_URL are configured as for the AWS CLI.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import boto3
from boto3.dynamodb.conditions import Attr, ConditionBase, Key
from botocore.exceptions import BotoCoreError, ClientError

Item = dict[str, Any]


def purge_user(table: Any, user_id: str) -> int:
    """Delete the items of a user.

    Parameters
    ----------
    table : boto3 resource
        The table.
    user_id : str
        The user's id.

    Returns
    -------
    int
        The number of deleted items.
    """
    of_user = list(_keys(table, Key("pk").eq(f"USER#{user_id}"), ConsistentRead=True))
    stripe_ids = {part for item in of_user for part in item["sk"].split("#")[1::2]}
    deleted = 0
    for stripe_id in stripe_ids:
        is_of_customer = Key("customer_id").eq(stripe_id)
        for event in list(_keys(table, is_of_customer, IndexName="by_customer")):
            deleted += _delete(table, event, Attr("pk").exists())
        pointer = {"pk": f"STRIPE#{stripe_id}", "sk": "POINTER"}
        deleted += _delete(table, pointer, Attr("user_id").eq(user_id))
    return deleted + sum(_delete(table, item, Attr("pk").exists()) for item in of_user)


def _keys(table: Any, condition: ConditionBase, **how: Any) -> Iterator[Item]:
    query = {"KeyConditionExpression": condition, "ProjectionExpression": "pk, sk", **how}
    while True:
        page = table.query(**query)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        query["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _delete(table: Any, item: Item, condition: ConditionBase) -> bool:
    """Delete an item; returns whether it existed and met the condition."""
    try:
        table.delete_item(Key={"pk": item["pk"], "sk": item["sk"]}, ConditionExpression=condition)
    except table.meta.client.exceptions.ConditionalCheckFailedException:
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 if nothing is left."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.purge_user", description="Delete all items of one user from a table."
    )
    parser.add_argument("--table", required=True, metavar="NAME")
    parser.add_argument("--user", required=True, metavar="USER_ID")
    given = parser.parse_args(arguments)
    if not given.user:
        parser.error("the user id is empty")
    try:
        deleted = purge_user(boto3.resource("dynamodb").Table(given.table), given.user)
    except (BotoCoreError, ClientError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(f"{deleted} items deleted from {given.table}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
