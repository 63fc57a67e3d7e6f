"""A table's change log: what a Lambda function gets in ``event["Records"]``."""

from __future__ import annotations

import zlib

from simulation.database.responses import Json

_REGION = "eu-west-1"
SHARDS = 2
"""The default number of shards of a stream."""


class Stream:
    """The changes of a table's items, in order, in shards.

    All changes of one hash key are in one shard. Follows
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html

    Parameters
    ----------
    table_name : str
        The table.
    view_type : str
        KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES.
    shards : int
        The number of shards.

    Attributes
    ----------
    records : list of dict
        Every record, in the order in which the changes were made. To be read only.
    shards : list of list
        The same records, shard by shard. To be read only.
    """

    def __init__(self, table_name: str, view_type: str, shards: int) -> None:
        self.records: list[Json] = []
        self.shards: list[list[Json]] = [[] for _ in range(shards)]
        self._view_type = view_type
        table = f"arn:aws:dynamodb:{_REGION}:123456789012:table/{table_name}"
        self._arn = f"{table}/stream/2027-01-01T00:00:00.000"

    def append(
        self, event_name: str, key: Json, old: Json | None, new: Json | None, moment: float
    ) -> None:
        """Record the change of one item.

        Parameters
        ----------
        event_name : str
            INSERT, MODIFY or REMOVE.
        key : dict
            The item's key, its hash key first: this one decides the shard.
        old, new : dict or None
            The item before and after; None where there was none.
        moment : float
            Now, in Unix seconds.
        """
        number = len(self.records) + 1
        change: Json = {
            "ApproximateCreationDateTime": int(moment),
            "Keys": key,
            "SequenceNumber": f"{number:021d}",
            "StreamViewType": self._view_type,
        }
        if new is not None and self._view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["NewImage"] = new
        if old is not None and self._view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["OldImage"] = old
        record = {
            "eventID": f"{number:032x}",
            "eventName": event_name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": _REGION,
            "dynamodb": change,
            "eventSourceARN": self._arn,
        }
        self.records.append(record)
        # Python's own hash differs from process to process.
        (hash_key,) = next(iter(key.values())).values()
        shard = zlib.crc32(hash_key.encode("utf-8", "replace")) % len(self.shards)
        self.shards[shard].append(record)
