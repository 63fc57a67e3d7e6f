from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from simulation.deployment import MappingRules, mapping_rules
from simulation.mapping import StreamMapping, matches
from simulation.processes import Outcome
from simulation.schedule import START, Schedule

Json = dict[str, Any]

ALL = ({"eventName": ["INSERT"]},)
FAILED = Outcome(error=RuntimeError("no"))
DONE = Outcome({"batchItemFailures": []})


def stream(*shards: int, created: float = START) -> list[list[Json]]:
    """Shards of so many records, numbered from 1."""
    number = iter(range(1, 1000))
    return [[record(next(number), created) for _ in range(size)] for size in shards]


class Harness:
    """A mapping whose function answers as a test has it; notes what the function was given."""

    def __init__(
        self, shards: list[list[Json]], answer: Callable[[list[int]], Outcome], **rules: Any
    ) -> None:
        self.schedule = Schedule()
        self.invoked: list[list[int]] = []
        self.discarded: list[Json] = []
        self.is_on = True
        usual = {"batch_size": 10, "max_retries": 3, "partial": True, "patterns": ALL, **rules}

        def invoke(records: list[Json], then: Callable[[Outcome], None]) -> None:
            numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in records]
            self.invoked.append(numbers)
            self.schedule.after(1, lambda: then(answer(numbers)))

        self.mapping = StreamMapping(
            schedule=self.schedule,
            shards=shards,
            rules=MappingRules(**usual),
            invoke=invoke,
            on_failure=self.discarded.append,
            is_on=lambda: self.is_on,
        )

    def run(self) -> None:
        self.mapping.poll()
        self.schedule.run()


def record(number: int, created: float = START) -> Json:
    change = {"SequenceNumber": str(number), "ApproximateCreationDateTime": created}
    return {"eventName": "INSERT", "dynamodb": change}


def reporting(*failed: int) -> Outcome:
    return Outcome({"batchItemFailures": [{"itemIdentifier": str(n)} for n in failed]})


def test_a_shard_is_read_in_order_with_one_batch_under_way() -> None:
    harness = Harness(stream(5), lambda _: DONE, batch_size=2)
    harness.run()
    assert harness.invoked == [[1, 2], [3, 4], [5]]
    assert harness.mapping.is_idle


def test_shards_do_not_wait_for_each_other() -> None:
    harness = Harness(stream(1, 1), lambda ns: FAILED if 1 in ns else DONE, max_retries=0)
    harness.run()
    assert [2] in harness.invoked


def test_a_failed_batch_is_split_and_splitting_costs_no_try() -> None:
    harness = Harness(stream(4), lambda ns: FAILED if 3 in ns else DONE, bisect=True, max_retries=1)
    harness.run()
    assert harness.invoked == [[1, 2, 3, 4], [1, 2], [3, 4], [3], [3], [4]]
    assert len(harness.discarded) == 1
    assert harness.discarded[0]["DDBStreamBatchInfo"]["startSequenceNumber"] == "3"


def test_without_bisect_the_whole_batch_is_tried_again_and_given_up() -> None:
    harness = Harness(stream(2), lambda _: FAILED, max_retries=2)
    harness.run()
    assert harness.invoked == [[1, 2]] * 3
    assert harness.discarded[0]["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert harness.mapping.is_idle


def test_a_reported_failure_moves_the_checkpoint_to_the_lowest_of_them() -> None:
    answers = iter([reporting(4, 2), DONE])
    harness = Harness(stream(5), lambda _: next(answers), bisect=True)
    harness.run()
    assert harness.invoked == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]


def test_a_report_of_an_unknown_record_fails_the_whole_batch() -> None:
    answers = iter([reporting(77), DONE])
    harness = Harness(stream(2), lambda _: next(answers))
    harness.run()
    assert harness.invoked == [[1, 2], [1, 2]]


def test_a_report_counts_only_where_it_is_asked_for() -> None:
    harness = Harness(stream(2), lambda _: reporting(1), partial=False)
    harness.run()
    assert harness.invoked == [[1, 2]]


def test_records_over_the_mappings_age_are_given_up() -> None:
    harness = Harness(stream(1, created=START - 100), lambda _: DONE, max_age=60)
    harness.run()
    assert harness.invoked == []
    assert harness.discarded[0]["requestContext"]["condition"] == "RecordAgeExceeded"


def test_records_older_than_a_day_are_lost_without_a_word() -> None:
    harness = Harness(stream(1, created=START - 90_000), lambda _: DONE)
    harness.run()
    assert harness.invoked == []
    assert harness.discarded == []
    assert harness.mapping.counts["records lost by age"] == 1


def test_a_mapping_that_is_off_goes_on_where_it_stood() -> None:
    harness = Harness(stream(2), lambda _: DONE)
    harness.is_on = False
    harness.run()
    assert harness.invoked == []
    harness.is_on = True
    harness.run()
    assert harness.invoked == [[1, 2]]


def test_records_that_no_filter_lets_through_make_no_batch() -> None:
    harness = Harness(stream(3), lambda _: DONE, patterns=({"eventName": ["MODIFY"]},))
    harness.run()
    assert harness.invoked == []
    assert harness.mapping.is_idle


@pytest.mark.parametrize(
    ("pattern", "verdict"),
    [
        ({"a": ["x"]}, True),
        ({"a": ["y", "x"]}, True),
        ({"a": ["y"]}, False),
        ({"b": {"c": ["d"]}}, True),
        ({"a": ["x"], "b": {"c": ["e"]}}, False),
        ({"z": ["x"]}, False),
    ],
)
def test_filter_patterns_decide_as_eventbridges(pattern: Json, verdict: bool) -> None:
    assert matches(pattern, {"a": "x", "b": {"c": "d"}}) is verdict


def test_an_unknown_comparison_in_a_filter_is_an_error() -> None:
    with pytest.raises(ValueError, match="exists"):
        matches({"a": [{"exists": False}]}, {"a": "x"})


def test_the_templates_filters_let_new_events_through_and_no_change_of_them() -> None:
    new: Json = {
        "eventName": "INSERT",
        "dynamodb": {
            "Keys": {"pk": {"S": "EVENT#evt_1"}, "sk": {"S": "EVENT"}},
            "NewImage": {"state": {"S": "pending"}, "record_type": {"S": "Event"}},
        },
    }
    patterns = mapping_rules().patterns
    assert any(matches(pattern, new) for pattern in patterns)
    assert not any(matches(pattern, {**new, "eventName": "MODIFY"}) for pattern in patterns)
