"""The event source mapping from the table's stream to its function, by AWS's rules.

Each shard is read in order, by as many slots as the parallelization factor: a slot has one batch in
progress at a time, and all records of an item belong to one slot. A failed batch is split or
retried until its retries or its age run out; then a message goes to the failure destination and the
slot resumes. Slots do not wait for each other. Follows
https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html,
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

from simulation.deployment import MappingRules
from simulation.processes import Outcome
from simulation.schedule import Schedule

Json = dict[str, Any]

_RETENTION_SECONDS = 24 * 3600.0
"""How long a stream holds its records."""
_POLL_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 60.0


class Slot(NamedTuple):
    """One of the concurrent readers of a shard.

    Parameters
    ----------
    shard, number : int
        The shard, and which of its slots this is.
    """

    shard: int
    number: int


@dataclass
class Batch:
    """Records of one invocation.

    Parameters
    ----------
    records : list
        Stream records in the order of their sequence numbers.
    attempts : int
        How often the batch failed.
    """

    records: list[Json]
    attempts: int = 0


def matches(value: object, pattern: Any) -> bool:
    """Return whether a record, or a value in it, passes a filter of exact values and `exists`.

    Follows https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html: `exists` is
    about a value that is no object, and false too where an object around it is missing.
    """
    if isinstance(pattern, dict):
        inner = value if isinstance(value, dict) else {}
        return all(matches(inner.get(name), part) for name, part in pattern.items())
    is_present = value is not None and not isinstance(value, dict)
    return any(
        each["exists"] is is_present if isinstance(each, dict) else each == value
        for each in pattern
    )


class StreamMapping:
    """One event source mapping.

    Parameters
    ----------
    schedule : Schedule
        Virtual time.
    shards : sequence
        The records of the table's stream, shard by shard.
    rules : MappingRules
        The configuration from the template.
    invoke : callable
        Invokes the function with the records of a batch and calls its second argument with the
        outcome.
    on_failure : callable
        Called with the message to the failure destination when records are discarded.
    is_on : callable
        Returns whether the mapping is enabled now.
    """

    def __init__(
        self,
        *,
        schedule: Schedule,
        shards: Sequence[Sequence[Json]],
        rules: MappingRules,
        invoke: Callable[[list[Json], Callable[[Outcome], None]], None],
        on_failure: Callable[[Json], None],
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._schedule = schedule
        self._shards = shards
        self._rules = rules
        self._invoke = invoke
        self._on_failure = on_failure
        self._is_on = is_on
        slots = [
            Slot(s, n) for s in range(len(shards)) for n in range(rules.parallelization_factor)
        ]
        self._position = dict.fromkeys(slots, 0)
        self._batches: dict[Slot, deque[Batch]] = {slot: deque() for slot in slots}
        self._busy: set[Slot] = set()
        self._gathered_since: dict[Slot, float] = {}
        self.counts: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Whether every record has been read and no batch is pending."""
        return not self._busy and not any(self._has_more(slot) for slot in self._position)

    def poll(self) -> None:
        """Look for new records after the polling interval."""
        if not self._is_on():
            return
        for slot in self._position:
            if slot not in self._busy and self._has_more(slot):
                self._busy.add(slot)
                self._schedule.after(_POLL_SECONDS, partial(self._next, slot))

    def _has_more(self, slot: Slot) -> bool:
        unread = self._position[slot] < len(self._shards[slot.shard])
        return unread or bool(self._batches[slot])

    def _next(self, slot: Slot) -> None:
        """Invoke the function with the next batch of a slot, if there is one."""
        batches = self._batches[slot]
        if not self._is_on():
            self._busy.discard(slot)
            return
        if not batches:
            records, end = self._read(slot)
            if records and self._gathers(slot, len(records)):
                self._schedule.after(_POLL_SECONDS, lambda: self._next(slot))
                return
            self._position[slot] = end
            if records:
                batches.append(Batch(deepcopy(records)))
        if not batches:
            self._busy.discard(slot)
            return
        batch = batches[0]
        self._drop_old(batch)
        if not batch.records:
            batches.popleft()
            self._schedule.after(0, lambda: self._next(slot))
            return
        self._invoke(batch.records, lambda outcome: self._finish(slot, outcome))

    def _read(self, slot: Slot) -> tuple[list[Json], int]:
        """The next records of a slot, at most one batch, and the position after them."""
        records: list[Json] = []
        log, position = self._shards[slot.shard], self._position[slot]
        while position < len(log) and len(records) < self._rules.batch_size:
            record = log[position]
            position += 1
            if self._passes_filters(record) and self._slot_number(record) == slot.number:
                records.append(record)
        return records, position

    def _slot_number(self, record: Json) -> int:
        """The slot that reads the records of an item: a hash other than that of the shards."""
        key = json.dumps(record["dynamodb"]["Keys"], sort_keys=True)
        digest = blake2b(key.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self._rules.parallelization_factor

    def _passes_filters(self, record: Json) -> bool:
        return any(matches(record, pattern) for pattern in self._rules.patterns)

    def _gathers(self, slot: Slot, number: int) -> bool:
        """Return whether a slot with this number of records waits for more."""
        since = self._gathered_since.setdefault(slot, self._schedule.now)
        is_over = self._schedule.now - since >= self._rules.batch_window
        if is_over or number >= self._rules.batch_size:
            del self._gathered_since[slot]
            return False
        return True

    def _drop_old(self, batch: Batch) -> None:
        """Drop records that the stream no longer holds; discard those over the mapping's age."""
        available = [record for record in batch.records if self._age(record) <= _RETENTION_SECONDS]
        self.counts["records lost by age"] += len(batch.records) - len(available)
        max_age = self._rules.max_age
        old = [record for record in available if max_age >= 0 and self._age(record) > max_age]
        if old:
            self._discard(old, "RecordAgeExceeded")
        batch.records = available[len(old) :]

    def _finish(self, slot: Slot, outcome: Outcome) -> None:
        batches = self._batches[slot]
        batch = batches.popleft()
        failed = self._failed(batch, outcome)
        if failed is None:
            self._schedule.after(0, lambda: self._next(slot))
            return
        self.counts["batches failed"] += 1
        if failed > 0:
            # The records before the checkpoint are done; the rest has failed once.
            rest = Batch(batch.records[failed:], 1)
        else:
            rest = Batch(batch.records, batch.attempts + 1)
        self._retry(batches, rest, reported=failed > 0)
        pause = min(2.0**rest.attempts / 2, _LONGEST_PAUSE_SECONDS)
        self._schedule.after(pause, lambda: self._next(slot))

    def _retry(self, batches: deque[Batch], batch: Batch, *, reported: bool) -> None:
        if self._rules.bisect and not reported and len(batch.records) > 1:
            # Splitting does not count towards the attempts.
            middle = len(batch.records) // 2
            batches.appendleft(Batch(batch.records[middle:], batch.attempts - 1))
            batches.appendleft(Batch(batch.records[:middle], batch.attempts - 1))
        elif 0 <= self._rules.max_retries < batch.attempts:
            self._discard(batch.records, "RetryAttemptsExhausted")
        else:
            batches.appendleft(batch)

    def _failed(self, batch: Batch, outcome: Outcome) -> int | None:
        """The index of the first record that failed; None if all succeeded."""
        if outcome.died or outcome.error:
            return 0
        if not self._rules.partial or not outcome.response:
            return None
        failures = outcome.response.get("batchItemFailures") or []
        if not failures:
            return None
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch.records]
        reported = [failure.get("itemIdentifier") for failure in failures]
        if not all(number in numbers for number in reported):
            return 0
        return min(numbers.index(number) for number in reported)

    def _discard(self, records: list[Json], condition: str) -> None:
        self.counts["records discarded"] += len(records)
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        info = {
            "batchSize": len(records),
            "startSequenceNumber": numbers[0],
            "endSequenceNumber": numbers[-1],
            "streamArn": records[0].get("eventSourceARN"),
        }
        self._on_failure({"requestContext": {"condition": condition}, "DDBStreamBatchInfo": info})

    def _age(self, record: Json) -> float:
        created: float = record["dynamodb"]["ApproximateCreationDateTime"]
        return self._schedule.now - created
