"""Copies a table's items into another: what was restored, back into the table that a stack uses.

DynamoDB restores only to a new table, and CloudFormation keeps to the one that it has made.

    python -m tools.copy_table --from RESTORED --to TABLE --empty-target

It refuses a target that holds anything, unless `--empty-target` is given. It can be run again
after it was stopped. Credentials, region and AWS_ENDPOINT_URL are taken as the AWS CLI takes them.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

Json = dict[str, Any]

_SEGMENTS = 8
_AT_ONCE = 25
"""Items that one BatchWriteItem takes."""
_ATTEMPTS = 20
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0


class RefusedError(Exception):
    """The copy would not be what was meant; nothing was written."""


def copy_table(
    client: Any,
    source: str,
    target: str,
    *,
    empty_target: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Make a table hold what another one holds.

    Parameters
    ----------
    client : boto3 client
        Of DynamoDB.
    source, target : str
        The tables' names, or ARNs.
    empty_target : bool
        Whether what the target holds is deleted first.
    sleep : callable
        Waits for so many seconds.

    Returns
    -------
    tuple
        How many items were deleted, and how many were copied.

    Raises
    ------
    RefusedError
        The tables are the same, have other keys, the source is empty, or the target is not.
    """
    described_source, described_target = (
        client.describe_table(TableName=table)["Table"] for table in (source, target)
    )
    # A table is known by its name and by its ARN.
    if described_source["TableArn"] == described_target["TableArn"]:
        raise RefusedError(f"{source} can't be copied into itself")
    keys = _keys_of(described_target)
    if _keys_of(described_source) != keys:
        raise RefusedError(f"{source} and {target} have other keys")
    if not _holds_anything(client, source):
        raise RefusedError(f"{source} is empty")
    if not empty_target and _holds_anything(client, target):
        raise RefusedError(f"{target} is not empty; with --empty-target its items are deleted")

    def delete(item: Json) -> Json:
        return {"DeleteRequest": {"Key": {name: item[name] for name in keys}}}

    def put(item: Json) -> Json:
        return {"PutRequest": {"Item": item}}

    deleted = _write_all(client, target, target, delete, sleep) if empty_target else 0
    return deleted, _write_all(client, source, target, put, sleep)


def _keys_of(described: Json) -> list[str]:
    return [key["AttributeName"] for key in described["KeySchema"]]


def _holds_anything(client: Any, table: str) -> bool:
    return bool(client.scan(TableName=table, Limit=1, ConsistentRead=True)["Items"])


def _write_all(
    client: Any,
    source: str,
    target: str,
    request: Callable[[Json], Json],
    sleep: Callable[[float], None],
) -> int:
    """Write something for each item of a table; how many there were."""

    stopped = Event()

    def write_segment(segment: int) -> int:
        count = 0
        items = iter(_items(client, source, segment))
        while not stopped.is_set() and (batch := list(islice(items, _AT_ONCE))):
            _write(client, target, [request(item) for item in batch], sleep)
            count += len(batch)
        return count

    with ThreadPoolExecutor(_SEGMENTS) as pool:
        try:
            return sum(pool.map(write_segment, range(_SEGMENTS)))
        except BaseException:
            # The pool waits for its threads, also after Ctrl-C.
            stopped.set()
            raise


def _items(client: Any, table: str, segment: int) -> Iterator[Json]:
    pages: Iterable[Json] = client.get_paginator("scan").paginate(
        TableName=table, ConsistentRead=True, Segment=segment, TotalSegments=_SEGMENTS
    )
    return (item for page in pages for item in page["Items"])


def _write(client: Any, table: str, requests: list[Json], sleep: Callable[[float], None]) -> None:
    """Write a batch, and what DynamoDB left of it, for as long as it leaves something."""
    pause = _FIRST_PAUSE_SECONDS
    left = {table: requests}
    while True:
        left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
        if not left:
            return
        sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - it is for pauses alone
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 where the copy is whole."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.copy_table",
        description="Copy a table's items into another table with the same keys.",
    )
    parser.add_argument("--from", dest="source", required=True, metavar="NAME")
    parser.add_argument("--to", dest="target", required=True, metavar="NAME")
    parser.add_argument(
        "--empty-target", action="store_true", help="delete what the target holds first"
    )
    given = parser.parse_args(arguments)
    # Adaptive alone means three attempts, fewer than a table needs that is growing with the load.
    retries: Any = {"mode": "adaptive", "total_max_attempts": _ATTEMPTS}
    client = boto3.client("dynamodb", config=Config(retries=retries))
    try:
        deleted, copied = copy_table(
            client, given.source, given.target, empty_target=given.empty_target
        )
    except (RefusedError, BotoCoreError, ClientError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(f"{deleted} items deleted from {given.target}, {copied} copied from {given.source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
