"""A table's change log: what a Lambda function gets in ``event["Records"]``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from simulation.database.storage import stable_hash
from simulation.database.values import Item, Token, copied

Record = dict[str, Any]


class Stream:
    """The changes of a table's items, in order, in shards.

    All changes of one hash key are in one shard. Follows
    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html

    Parameters
    ----------
    arn : str
        The stream's ARN, as it stands in every record.
    region : str
        The region, as it stands in every record.
    view_type : str
        KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES.
    shards : int
        How many shards there are.
    """

    def __init__(self, arn: str, region: str, view_type: str, shards: int) -> None:
        self.arn = arn
        self.region = region
        self.view_type = view_type
        self._records: list[Record] = []
        self._shards: list[list[Record]] = [[] for _ in range(shards)]

    @property
    def records(self) -> Sequence[Record]:
        """Every record, in the order in which the changes were made. To be read only."""
        return self._records

    @property
    def shards(self) -> Sequence[Sequence[Record]]:
        """The same records, shard by shard. To be read only: `read` gives copies."""
        return self._shards

    def read(self, shard: int, position: int = 0, limit: int = 1000) -> list[Record]:
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
        return [_copied(record) for record in self._shards[shard][position : position + limit]]

    def append(
        self, partition: Token, key: Item, old: Item | None, new: Item | None, moment: float
    ) -> None:
        """Note the change of one item.

        Parameters
        ----------
        partition : str, bytes or Decimal
            The item's hash key, which decides the shard.
        key : dict
            The item's key.
        old, new : dict or None
            The item before and after; None where there was none.
        moment : float
            Now, in Unix seconds.
        """
        number = len(self._records) + 1
        name = "MODIFY" if old is not None else "INSERT"
        change: Record = {
            "ApproximateCreationDateTime": int(moment),
            "Keys": key,
            "SequenceNumber": f"{number:021d}",
            "StreamViewType": self.view_type,
        }
        if new is None:
            name = "REMOVE"
        elif self.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["NewImage"] = new
        if old is not None and self.view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            change["OldImage"] = old
        record = {
            "eventID": f"{zlib.crc32(self.arn.encode()):08x}{number:024x}",
            "eventName": name,
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": self.region,
            "dynamodb": change,
            "eventSourceARN": self.arn,
        }
        self._records.append(record)
        self._shards[stable_hash(partition) % len(self._shards)].append(record)


def _copied(record: Record) -> Record:
    change = dict(record["dynamodb"])
    for part in ("Keys", "NewImage", "OldImage"):
        if part in change:
            change[part] = copied(change[part])
    return {**record, "dynamodb": change}
