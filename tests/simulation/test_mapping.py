from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from simulation.deployment import MappingRules, mapping_rules
from simulation.mapping import StreamMapping, matches
from simulation.processes import Outcome
from simulation.schedule import START, Schedule

Json = dict[str, Any]

ALL = ({"eventName": ["INSERT"]},)
FAILED = Outcome(error=RuntimeError("no"))
DONE = Outcome({"batchItemFailures": []})


def stream(*shards: int, created: float = START) -> list[list[Json]]:
    """Shards of some records each, numbered from 1."""
    number = iter(range(1, 1000))
    return [[record(next(number), created) for _ in range(size)] for size in shards]


class Harness:
    """A mapping whose function returns what a test says; records what the function was given."""

    def __init__(
        self, shards: list[list[Json]], respond: Callable[[list[int]], Outcome], **rules: Any
    ) -> None:
        self.schedule = Schedule()
        self.shards = shards
        self.invoked: list[list[int]] = []
        self.dead_letters: list[Json] = []
        self.is_on = True
        usual = {"batch_size": 10, "max_retries": 3, "partial": True, "patterns": ALL, **rules}

        def invoke(records: list[Json], then: Callable[[Outcome], None]) -> None:
            numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
            self.invoked.append(numbers)
            self.schedule.after(1, lambda: then(respond(numbers)))

        self.mapping = StreamMapping(
            schedule=self.schedule,
            shards=shards,
            rules=MappingRules(**usual),
            invoke=invoke,
            on_failure=self.dead_letters.append,
            is_on=lambda: self.is_on,
        )

    def run(self) -> None:
        self.run_until(float("inf"))

    def run_until(self, moment: float) -> None:
        self.mapping.poll()
        self.schedule.run(lambda: self.schedule.now < moment)


def record(number: int, created: float = START, item: int | None = None) -> Json:
    """A record of an item with a number, by default that of the record."""
    change = {
        "SequenceNumber": str(number),
        "ApproximateCreationDateTime": created,
        "Keys": {"pk": {"S": f"item {item or number}"}, "sk": {"S": "x"}},
    }
    return {"eventName": "INSERT", "dynamodb": change}


def reporting(*failed: int) -> Outcome:
    return Outcome({"batchItemFailures": [{"itemIdentifier": str(n)} for n in failed]})


def test_shard_is_read_in_order() -> None:
    harness = Harness(stream(5), lambda _: DONE, batch_size=2)
    harness.run()
    assert harness.invoked == [[1, 2], [3, 4], [5]]
    assert harness.mapping.is_idle


def test_shards_are_independent() -> None:
    harness = Harness(stream(1, 1), lambda ns: FAILED if 1 in ns else DONE, max_retries=0)
    harness.run()
    assert [2] in harness.invoked


class TestParallelizationFactor:
    ITEMS = 3

    def harness(self, factor: int) -> Harness:
        records = [record(number, item=number % self.ITEMS + 1) for number in range(1, 25)]
        return Harness([records], lambda _: DONE, batch_size=1, parallelization_factor=factor)

    def test_is_the_number_of_batches_in_progress(self) -> None:
        for factor in (1, 2, 8):
            harness = Harness(stream(100), lambda _: DONE, parallelization_factor=factor)
            harness.run_until(START + 0.5)
            assert len(harness.invoked) == factor

    def test_keeps_the_order_of_each_item(self) -> None:
        harness = self.harness(factor=4)
        harness.run()
        invoked = [number for numbers in harness.invoked for number in numbers]
        assert sorted(invoked) == list(range(1, 25))
        assert invoked != sorted(invoked)
        for item in range(self.ITEMS):
            of_item = [number for number in invoked if number % self.ITEMS == item]
            assert of_item == sorted(of_item)

    def test_failing_batch_does_not_delay_the_others_of_its_shard(self) -> None:
        harness = Harness(
            stream(40),
            lambda numbers: FAILED if 1 in numbers else DONE,
            batch_size=40,
            max_retries=1,
            parallelization_factor=2,
        )
        harness.run()
        *first, retried = harness.invoked
        assert sorted(number for numbers in first for number in numbers) == list(range(1, 41))
        assert len(first) == 2
        assert retried in first
        assert 1 in retried


class TestBatchWindow:
    def harness(self, size: int, **rules: Any) -> Harness:
        harness = Harness(stream(1), lambda _: DONE, batch_size=size, **rules)
        shard = harness.shards[0]
        for number in (2, 3):
            later = partial(shard.append, record(number, START + number))
            harness.schedule.at(START + 0.3 * number, later)
        return harness

    def test_gathers_records_until_it_ends(self) -> None:
        harness = self.harness(10, batch_window=2)
        harness.run()
        assert harness.invoked == [[1, 2, 3]]

    def test_ends_when_the_batch_is_full(self) -> None:
        harness = self.harness(2, batch_window=60)
        harness.run_until(START + 10)
        assert harness.invoked == [[1, 2]]

    def test_is_none_by_default(self) -> None:
        harness = self.harness(10)
        harness.run()
        assert harness.invoked == [[1], [2, 3]]


def test_bisect_costs_no_retry() -> None:
    harness = Harness(stream(4), lambda ns: FAILED if 3 in ns else DONE, bisect=True, max_retries=1)
    harness.run()
    assert harness.invoked == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [3], [4]]
    assert len(harness.dead_letters) == 1
    assert harness.dead_letters[0]["DDBStreamBatchInfo"]["startSequenceNumber"] == "3"


def test_retries_whole_batch_without_bisect() -> None:
    harness = Harness(stream(2), lambda _: FAILED, max_retries=2)
    harness.run()
    assert harness.invoked == [[1, 2]] * 3
    assert harness.dead_letters[0]["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert harness.mapping.is_idle


def test_partial_failure_moves_checkpoint() -> None:
    responses = iter([reporting(4, 2), DONE])
    harness = Harness(stream(5), lambda _: next(responses), bisect=True)
    harness.run()
    assert harness.invoked == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]


def test_unknown_record_fails_batch() -> None:
    responses = iter([reporting(77), DONE])
    harness = Harness(stream(2), lambda _: next(responses))
    harness.run()
    assert harness.invoked == [[1, 2], [1, 2]]


def test_old_records_are_dead_lettered() -> None:
    harness = Harness(stream(1, created=START - 100), lambda _: DONE, max_age=60)
    harness.run()
    assert harness.invoked == []
    assert harness.dead_letters[0]["requestContext"]["condition"] == "RecordAgeExceeded"


def test_resumes_after_being_off() -> None:
    harness = Harness(stream(2), lambda _: DONE)
    harness.is_on = False
    harness.run()
    assert harness.invoked == []
    harness.is_on = True
    harness.run()
    assert harness.invoked == [[1, 2]]


def test_filtered_records_make_no_batch() -> None:
    harness = Harness(stream(3), lambda _: DONE, patterns=({"eventName": ["MODIFY"]},))
    harness.run()
    assert harness.invoked == []
    assert harness.mapping.is_idle


def test_templates_filters_pass_new_events_only() -> None:
    new: Json = {
        "eventName": "INSERT",
        "dynamodb": {
            "Keys": {"pk": {"S": "EVENT#evt_1"}, "sk": {"S": "EVENT"}},
            "NewImage": {"state": {"S": "pending"}, "record_type": {"S": "Event"}},
        },
    }
    patterns = mapping_rules().patterns
    assert any(matches(new, pattern) for pattern in patterns)
    assert not any(matches({**new, "eventName": "MODIFY"}, pattern) for pattern in patterns)


def test_filter_asks_whether_a_value_exists() -> None:
    absent = {"NewImage": {"run_id": {"S": [{"exists": False}]}}}
    present = {"NewImage": {"run_id": {"S": [{"exists": True}]}}}
    walked = {"NewImage": {"run_id": {"S": "1-a"}}}
    without: list[Json] = [{}, {"NewImage": {}}, {"NewImage": {"run_id": {}}}]
    for record in without:
        assert matches(record, absent)
        assert not matches(record, present)
    assert matches(walked, present)
    assert not matches(walked, absent)
    # It is about values: an object around them does not count.
    assert matches(walked, {"NewImage": {"run_id": [{"exists": False}]}})
