"""The changes of events, from the table's stream, as they happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from stripe_integrations.actions import StripeEvent
from stripe_integrations.config import matches_pattern
from stripe_integrations_cli.errors import CommandError
from stripe_integrations_cli.stack import Stack

_POLL_SECONDS = 0.5
_EVENT_KEY = "EVENT#"
_REMEMBERED = 10_000
"""Of how many events the last change is remembered: a tail may run for days."""


def changed_events(
    stack: Stack,
    *,
    kind: str | None = None,
    user_id: str | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Iterator[Any]:
    """Yield each event that is written after the call, as it is stored then.

    Parameters
    ----------
    stack : Stack
        The stack whose table's stream is read.
    kind : str or None
        Only events of this type, or family of types.
    user_id : str or None
        Only events of this user.
    is_wanted : callable
        Called before each read of the stream; False ends the iteration.
    """
    last: dict[str, tuple[Any, ...]] = {}
    for stripe_id in _written_ids(stack, is_wanted):
        event = StripeEvent.get(stripe_id)
        if event is None:
            continue
        shown = (event.state, event.last_error, event.replayed_at)
        if last.get(stripe_id) == shown:
            continue  # a claim, or another write of the same state
        last[stripe_id] = shown
        if len(last) > _REMEMBERED:
            del last[next(iter(last))]
        if kind is not None and not matches_pattern(event.kind, kind):
            continue
        if user_id is not None and event.user_id != user_id:
            continue
        yield event


def _written_ids(stack: Stack, is_wanted: Callable[[], bool]) -> Iterator[str]:
    """Yield the ids of the events whose items are written; a shard that ends has successors."""
    table = stack.client("dynamodb").describe_table(TableName=stack.outputs["TableName"])
    arn = table["Table"].get("LatestStreamArn")
    if not arn:
        raise CommandError("the table has no stream")
    stream = stack.client("dynamodbstreams")
    known: set[str] = set()
    iterators = _iterators(stream, arn, known, "LATEST")
    while is_wanted():
        next_iterators = []
        for iterator in iterators:
            page = stream.get_records(ShardIterator=iterator)
            for record in page["Records"]:
                pk = record["dynamodb"]["Keys"]["pk"]["S"]
                if pk.startswith(_EVENT_KEY) and record["eventName"] != "REMOVE":
                    yield pk.removeprefix(_EVENT_KEY)
            next_iterators.append(page.get("NextShardIterator"))
        if None in next_iterators:
            next_iterators += _iterators(stream, arn, known, "TRIM_HORIZON")
        iterators = [iterator for iterator in next_iterators if iterator]
        time.sleep(_POLL_SECONDS)


def _iterators(stream: Any, arn: str, known: set[str], start: str) -> list[str]:
    """Return iterators of the shards that were not known before."""
    found = []
    described: dict[str, Any] = {}
    while True:
        after = {k: v for k, v in described.items() if k == "ExclusiveStartShardId"}
        page = stream.describe_stream(StreamArn=arn, **after)["StreamDescription"]
        for shard in page["Shards"]:
            shard_id = shard["ShardId"]
            if shard_id in known:
                continue
            known.add(shard_id)
            if start == "LATEST" and "EndingSequenceNumber" in shard["SequenceNumberRange"]:
                continue  # it has ended already
            given = {"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": start}
            found.append(stream.get_shard_iterator(**given)["ShardIterator"])
        if not page.get("LastEvaluatedShardId"):
            return found
        described = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}
