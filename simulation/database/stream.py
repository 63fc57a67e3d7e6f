"""A table's change log: what a Lambda function gets in ``event["Records"]``."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

from simulation.database.answers import Json

_ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/{}/stream/2027-01-01T00:00:00.000"


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
        How many shards there are.
    """

    def __init__(self, table_name: str, view_type: str, shards: int) -> None:
        self._arn = _ARN.format(table_name)
        self._view_type = view_type
        self._records: list[Json] = []
        self._shards: list[list[Json]] = [[] for _ in range(shards)]

    @property
    def records(self) -> Sequence[Json]:
        """Every record, in the order in which the changes were made. To be read only."""
        return self._records

    @property
    def shards(self) -> Sequence[Sequence[Json]]:
        """The same records, shard by shard. To be read only: `read` gives copies."""
        return self._shards

    def read(self, shard: int, position: int = 0, limit: int = 1000) -> list[Json]:
        """Copies of a shard's records, for a consumer that may do with them what it likes.

        Parameters
        ----------
        shard : int
            Which shard.
        position : int
            How many records to leave out at its beginning.
        limit : int
            How many records to read at most.
        """
        copies: list[Json] = json.loads(
            json.dumps(self._shards[shard][position : position + limit])
        )
        return copies

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
        number = len(self._records) + 1
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
            "awsRegion": "eu-west-1",
            "dynamodb": change,
            "eventSourceARN": self._arn,
        }
        self._records.append(record)
        self._shards[_stable_hash(key) % len(self._shards)].append(record)


def _stable_hash(key: Json) -> int:
    """A hash of the hash key that is the same in every process, unlike Python's own."""
    (value,) = next(iter(key.values())).values()
    return zlib.crc32(value.encode("utf-8", "replace"))
