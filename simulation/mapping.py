"""The mapping from the table's stream to its function, by AWS's rules.

Each shard is read in order with one batch under way. A batch that failed is split or tried again
until its tries or its age run out; then word of it goes to the destination and the shard goes on.
Follows https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-params.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-ddb-batchfailurereporting.html
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

from simulation.deployment import MappingRules
from simulation.processes import Outcome
from simulation.schedule import Schedule

Json = dict[str, Any]

_KEPT_SECONDS = 24 * 3600.0
"""How long a stream keeps its records."""
_POLL_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass
class Batch:
    """Records that are tried together.

    Parameters
    ----------
    records : list
        In the order of their sequence numbers.
    tries : int
        How often they failed.
    """

    records: list[Json]
    tries: int = 0


class StreamMapping:
    """One event source mapping.

    Parameters
    ----------
    schedule : Schedule
        Virtual time.
    shards : sequence
        The records of the table's stream, shard by shard.
    rules : MappingRules
        As the template configures it.
    invoke : callable
        Invokes the function with a batch's records; its second argument gets the outcome.
    give_up : callable
        Gets word of records that are given up, for the failure destination.
    is_on : callable
        Whether the mapping is enabled now.
    """

    def __init__(
        self,
        *,
        schedule: Schedule,
        shards: Sequence[Sequence[Json]],
        rules: MappingRules,
        invoke: Callable[[list[Json], Callable[[Outcome], None]], None],
        give_up: Callable[[Json], None],
        is_on: Callable[[], bool] = lambda: True,
    ) -> None:
        self._schedule = schedule
        self._shards = shards
        self._rules = rules
        self._invoke = invoke
        self._give_up = give_up
        self._is_on = is_on
        self._position = dict.fromkeys(range(len(shards)), 0)
        self._batches: dict[int, deque[Batch]] = {shard: deque() for shard in self._position}
        self._busy: set[int] = set()
        self.counts: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Whether no record is left that it could still read."""
        return not self._busy and not any(self._has_more(shard) for shard in self._position)

    def notice(self) -> None:
        """Look for new records, a moment from now."""
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
        """Take the shard's next batch, if it has one."""
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
        """The next records that the filters let through, as many as make a batch."""
        records: list[Json] = []
        log = self._shards[shard]
        while self._position[shard] < len(log) and len(records) < self._rules.batch_size:
            position = self._position[shard]
            self._position[shard] += 1
            if self._age(log[position]) > _KEPT_SECONDS:
                self.counts["records lost by age"] += 1
            elif any(fits(pattern, log[position]) for pattern in self._rules.patterns):
                records.append(deepcopy(log[position]))
        return records

    def _drop_old(self, batch: Batch) -> None:
        """Drop what the stream no longer has, and give up what is over the mapping's age."""
        kept = [record for record in batch.records if self._age(record) <= _KEPT_SECONDS]
        self.counts["records lost by age"] += len(batch.records) - len(kept)
        oldest = self._rules.oldest
        old = [record for record in kept if oldest >= 0 and self._age(record) > oldest]
        if old:
            self._abandon(old, "RecordAgeExceeded")
        batch.records = kept[len(old) :]

    def _finish(self, shard: int, outcome: Outcome) -> None:
        batches = self._batches[shard]
        batch = batches.popleft()
        failed = self._failed(batch, outcome)
        if failed is None:
            self._schedule.after(0, lambda: self._next(shard))
            return
        self.counts["batches failed"] += 1
        if failed > 0:
            # What stands before the checkpoint is done; the rest has failed once.
            rest = Batch(batch.records[failed:], 1)
        else:
            rest = Batch(batch.records, batch.tries + 1)
        self._retry(batches, rest, reported=failed > 0)
        pause = min(2.0**rest.tries / 2, _LONGEST_PAUSE_SECONDS)
        self._schedule.after(pause, lambda: self._next(shard))

    def _retry(self, batches: deque[Batch], batch: Batch, *, reported: bool) -> None:
        if self._rules.bisect and not reported and len(batch.records) > 1:
            # Splitting does not count towards the tries.
            middle = len(batch.records) // 2
            batches.appendleft(Batch(batch.records[middle:], batch.tries - 1))
            batches.appendleft(Batch(batch.records[:middle], batch.tries - 1))
        elif 0 <= self._rules.retries < batch.tries:
            self._abandon(batch.records, "RetryAttemptsExhausted")
        else:
            batches.appendleft(batch)

    def _failed(self, batch: Batch, outcome: Outcome) -> int | None:
        """The place of the first record that failed, None where all went well."""
        if outcome.died or outcome.error:
            return 0
        if not self._rules.partial or not outcome.answer:
            return None
        failures = outcome.answer.get("batchItemFailures") or []
        if not failures:
            return None
        numbers = [record["dynamodb"]["SequenceNumber"] for record in batch.records]
        reported = [failure.get("itemIdentifier") for failure in failures]
        if not all(number in numbers for number in reported):
            return 0
        return min(numbers.index(number) for number in reported)

    def _abandon(self, records: list[Json], condition: str) -> None:
        self.counts["records given up"] += len(records)
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        info = {
            "batchSize": len(records),
            "startSequenceNumber": numbers[0],
            "endSequenceNumber": numbers[-1],
            "streamArn": records[0].get("eventSourceARN"),
        }
        self._give_up({"requestContext": {"condition": condition}, "DDBStreamBatchInfo": info})

    def _age(self, record: Json) -> float:
        created: float = record["dynamodb"]["ApproximateCreationDateTime"]
        return self._schedule.now - created


def fits(pattern: Mapping[str, Any], value: Any) -> bool:
    """Whether a record fits a filter pattern.

    Follows https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html, as far as
    the template may use it: equality, `exists`, `prefix` and `anything-but`.
    """
    return all(_fits(wanted, name, value) for name, wanted in pattern.items())


def _fits(wanted: Any, name: str, value: Any) -> bool:
    there = isinstance(value, Mapping) and name in value
    if isinstance(wanted, Mapping):
        return there and fits(wanted, value[name])
    return any(_fits_rule(rule, there, value[name] if there else None) for rule in wanted)


def _fits_rule(rule: Any, there: bool, value: Any) -> bool:
    if not isinstance(rule, Mapping):
        return there and bool(value == rule)
    match rule:
        case {"exists": bool(wanted)}:
            return there is wanted
        case {"prefix": str(prefix)}:
            return isinstance(value, str) and value.startswith(prefix)
        case {"anything-but": list(excluded)}:
            return there and value not in excluded
    raise ValueError(f"a filter rule that the simulation does not know: {rule}")
