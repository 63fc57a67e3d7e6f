"""Copies a table's items into another: a restored table, back into the table of a stack.

DynamoDB restores only to a new table, and CloudFormation manages only the one that it created.

    python -m tools.copy_table --from RESTORED --to TABLE --empty-target

It refuses a target that is not empty, unless `--empty-target` is given. An interrupted run can be
repeated. Credentials, region and AWS_ENDPOINT_URL are configured as for the AWS CLI.
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
_BATCH = 25
"""The maximum number of items in one BatchWriteItem."""
_ATTEMPTS = 20
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 5.0


class RefusedError(Exception):
    """The source or the target can't be right; nothing was written."""


def copy_table(
    client: Any,
    source: str,
    target: str,
    *,
    empty_target: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Copy the items of a table into another one.

    Parameters
    ----------
    client : boto3 client
        A DynamoDB client.
    source, target : str
        The tables' names, or ARNs.
    empty_target : bool
        Whether the target's items are deleted first.
    sleep : callable
        Called with the pauses before retries, in seconds.

    Returns
    -------
    tuple
        The numbers of deleted and of copied items.

    Raises
    ------
    RefusedError
        The tables are the same or their keys differ, the source is empty, or the target is not.
    """
    described_source, described_target = (
        client.describe_table(TableName=table)["Table"] for table in (source, target)
    )
    # A table may be given by its name or by its ARN.
    if described_source["TableArn"] == described_target["TableArn"]:
        raise RefusedError(f"{source} can't be copied into itself")
    keys = _keys_of(described_target)
    if _keys_of(described_source) != keys:
        raise RefusedError(f"{source} and {target} have different keys")
    if not _has_items(client, source):
        raise RefusedError(f"{source} is empty")
    if not empty_target and _has_items(client, target):
        raise RefusedError(f"{target} is not empty; with --empty-target its items are deleted")

    def delete(item: Json) -> Json:
        return {"DeleteRequest": {"Key": {name: item[name] for name in keys}}}

    def put(item: Json) -> Json:
        return {"PutRequest": {"Item": item}}

    deleted = _write_all(client, target, target, delete, sleep) if empty_target else 0
    return deleted, _write_all(client, source, target, put, sleep)


def _keys_of(described: Json) -> list[str]:
    return [key["AttributeName"] for key in described["KeySchema"]]


def _has_items(client: Any, table: str) -> bool:
    return bool(client.scan(TableName=table, Limit=1, ConsistentRead=True)["Items"])


def _write_all(
    client: Any,
    source: str,
    target: str,
    request: Callable[[Json], Json],
    sleep: Callable[[float], None],
) -> int:
    """Send a write request for each item of a table; returns their number."""

    stopped = Event()

    def write_segment(segment: int) -> int:
        count = 0
        items = iter(_items(client, source, segment))
        while not stopped.is_set() and (batch := list(islice(items, _BATCH))):
            _write(client, target, [request(item) for item in batch], sleep)
            count += len(batch)
        return count

    with ThreadPoolExecutor(_SEGMENTS) as pool:
        try:
            return sum(pool.map(write_segment, range(_SEGMENTS)))
        except BaseException:
            # The pool waits for its threads, even after Ctrl-C.
            stopped.set()
            raise


def _items(client: Any, table: str, segment: int) -> Iterator[Json]:
    pages: Iterable[Json] = client.get_paginator("scan").paginate(
        TableName=table, ConsistentRead=True, Segment=segment, TotalSegments=_SEGMENTS
    )
    return (item for page in pages for item in page["Items"])


def _write(client: Any, table: str, requests: list[Json], sleep: Callable[[float], None]) -> None:
    """Write a batch; repeat with the unprocessed items until none are left."""
    pause = _FIRST_PAUSE_SECONDS
    left = {table: requests}
    while True:
        left = client.batch_write_item(RequestItems=left)["UnprocessedItems"]
        if not left:
            return
        sleep(pause * (0.5 + random.random() / 2))  # noqa: S311 - jitter
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns 0 if the copy is complete."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.copy_table",
        description="Copy a table's items into another table with the same keys.",
    )
    parser.add_argument("--from", dest="source", required=True, metavar="NAME")
    parser.add_argument("--to", dest="target", required=True, metavar="NAME")
    parser.add_argument(
        "--empty-target", action="store_true", help="delete the target's items first"
    )
    given = parser.parse_args(arguments)
    # The default is three attempts, too few while an on-demand table adapts to the load.
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
