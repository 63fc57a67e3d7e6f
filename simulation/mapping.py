"""The event source mapping from the table's stream to its function, by AWS's rules.

Each shard is read in order, one batch at a time. A failed batch is split or retried until its
retries or its age run out; then a message goes to the failure destination and the shard resumes.
Follows https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from simulation.deployment import MappingRules
from simulation.processes import Outcome
from simulation.schedule import Schedule

Json = dict[str, Any]

_RETENTION_SECONDS = 24 * 3600.0
"""How long a stream holds its records."""
_POLL_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 60.0


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
        self._position = dict.fromkeys(range(len(shards)), 0)
        self._batches: dict[int, deque[Batch]] = {shard: deque() for shard in self._position}
        self._busy: set[int] = set()
        self.counts: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Whether every record has been read and no batch is pending."""
        return not self._busy and not any(self._has_more(shard) for shard in self._position)

    def poll(self) -> None:
        """Look for new records after the polling interval."""
        if not self._is_on():
            return
        for shard in self._position:
            if shard not in self._busy and self._has_more(shard):
                self._busy.add(shard)
                self._schedule.after(_POLL_SECONDS, partial(self._next, shard))

    def _has_more(self, shard: int) -> bool:
        unread = self._position[shard] < len(self._shards[shard])
        return unread or bool(self._batches[shard])

    def _next(self, shard: int) -> None:
        """Invoke the function with the next batch of a shard, if there is one."""
        batches = self._batches[shard]
        if not self._is_on():
            self._busy.discard(shard)
            return
        if not batches:
            records = self._read(shard)
            if records:
                batches.append(Batch(records))
        if not batches:
            self._busy.discard(shard)
            return
        batch = batches[0]
        self._drop_old(batch)
        if not batch.records:
            batches.popleft()
            self._schedule.after(0, lambda: self._next(shard))
            return
        self._invoke(batch.records, lambda outcome: self._finish(shard, outcome))

    def _read(self, shard: int) -> list[Json]:
        """The next records that pass the filters, at most one batch."""
        records: list[Json] = []
        log = self._shards[shard]
        while self._position[shard] < len(log) and len(records) < self._rules.batch_size:
            position = self._position[shard]
            self._position[shard] += 1
            if self._age(log[position]) > _RETENTION_SECONDS:
                self.counts["records lost by age"] += 1
            elif any(matches(log[position], pattern) for pattern in self._rules.patterns):
                records.append(deepcopy(log[position]))
        return records

    def _drop_old(self, batch: Batch) -> None:
        """Drop records that the stream no longer holds; discard those over the mapping's age."""
        available = [record for record in batch.records if self._age(record) <= _RETENTION_SECONDS]
        self.counts["records lost by age"] += len(batch.records) - len(available)
        max_age = self._rules.max_age
        old = [record for record in available if max_age >= 0 and self._age(record) > max_age]
        if old:
            self._discard(old, "RecordAgeExceeded")
        batch.records = available[len(old) :]

    def _finish(self, shard: int, outcome: Outcome) -> None:
        batches = self._batches[shard]
        batch = batches.popleft()
        failed = self._failed(batch, outcome)
        if failed is None:
            self._schedule.after(0, lambda: self._next(shard))
            return
        self.counts["batches failed"] += 1
        if failed > 0:
            # The records before the checkpoint are done; the rest has failed once.
            rest = Batch(batch.records[failed:], 1)
        else:
            rest = Batch(batch.records, batch.attempts + 1)
        self._retry(batches, rest, reported=failed > 0)
        pause = min(2.0**rest.attempts / 2, _LONGEST_PAUSE_SECONDS)
        self._schedule.after(pause, lambda: self._next(shard))

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
