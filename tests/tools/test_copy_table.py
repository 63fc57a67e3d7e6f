"""The copy of a restored table: whole, or refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tools.copy_table import RefusedError, copy_table, main
from tools.template import table_properties

SOURCE, TARGET = "restored", "customers"
OTHER_KEYS = {
    "BillingMode": "PAY_PER_REQUEST",
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
}


@pytest.fixture
def restored(dynamodb: Any, table_name: str) -> Iterator[str]:
    dynamodb.create_table(TableName=SOURCE, **table_properties())
    yield SOURCE
    dynamodb.delete_table(TableName=SOURCE)


def fill(dynamodb: Any, table: str, count: int, mark: str) -> None:
    for number in range(count):
        item = {"pk": f"USER#{mark}{number}", "sk": "CLAIM", "token": mark, "padding": "x" * 100}
        dynamodb.put_item(TableName=table, Item={n: {"S": value} for n, value in item.items()})


def items(dynamodb: Any, table: str) -> list[Any]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    found = [item for page in pages for item in page["Items"]]
    return sorted(found, key=lambda item: item["pk"]["S"])


@contextmanager
def before_each_request(dynamodb: Any, happens: Callable[..., None]) -> Iterator[None]:
    """Let something happen to a request's parameters, or instead of it."""
    events = dynamodb.meta.events
    events.register("before-parameter-build.dynamodb", happens)
    try:
        yield
    finally:
        events.unregister("before-parameter-build.dynamodb", happens)


def test_a_copy_holds_what_the_restored_table_holds_and_nothing_else(
    dynamodb: Any, restored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(dynamodb, restored, 130, "old")
    fill(dynamodb, TARGET, 60, "new")

    assert main(["--from", restored, "--to", TARGET, "--empty-target"]) == 0

    assert items(dynamodb, TARGET) == items(dynamodb, restored)
    assert len(items(dynamodb, TARGET)) == 130
    assert capsys.readouterr().out == (
        "60 items deleted from customers, 130 copied from restored\n"
    )


def test_a_table_that_holds_something_is_left_alone(
    dynamodb: Any, restored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(dynamodb, restored, 1, "old")
    fill(dynamodb, TARGET, 3, "new")

    assert main(["--from", restored, "--to", TARGET]) == 1

    assert len(items(dynamodb, TARGET)) == 3
    assert "customers is not empty" in capsys.readouterr().err


def test_an_empty_backup_empties_nothing(dynamodb: Any, restored: str) -> None:
    fill(dynamodb, TARGET, 3, "new")
    with pytest.raises(RefusedError, match="restored is empty"):
        copy_table(dynamodb, restored, TARGET, empty_target=True)
    assert len(items(dynamodb, TARGET)) == 3


def test_a_table_is_not_copied_into_itself(dynamodb: Any, table_name: str) -> None:
    fill(dynamodb, TARGET, 3, "new")
    with pytest.raises(RefusedError, match="into itself"):
        copy_table(dynamodb, TARGET, TARGET, empty_target=True)
    assert len(items(dynamodb, TARGET)) == 3


@pytest.mark.parametrize("named_by_arn", ["source", "target"])
def test_a_table_is_not_copied_into_itself_by_another_name(
    dynamodb: Any, table_name: str, named_by_arn: str
) -> None:
    fill(dynamodb, TARGET, 3, "new")
    arn = dynamodb.describe_table(TableName=TARGET)["Table"]["TableArn"]
    names = {"source": TARGET, "target": TARGET, named_by_arn: arn}

    def know_it_by_its_arn(params: Any, **_: Any) -> None:
        # As DynamoDB does; not every engine of these tests would.
        if "TableName" in params:
            params["TableName"] = params["TableName"].rpartition("/")[2]

    with (
        before_each_request(dynamodb, know_it_by_its_arn),
        pytest.raises(RefusedError, match="into itself"),
    ):
        copy_table(dynamodb, **names, empty_target=True)
    assert len(items(dynamodb, TARGET)) == 3


def test_a_table_of_another_kind_is_refused(dynamodb: Any, table_name: str) -> None:
    dynamodb.create_table(TableName="other", **OTHER_KEYS)
    try:
        with pytest.raises(RefusedError, match="other keys"):
            copy_table(dynamodb, "other", TARGET, empty_target=True)
    finally:
        dynamodb.delete_table(TableName="other")


def test_a_table_that_is_not_there_is_told(
    table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--from", "nowhere", "--to", TARGET]) == 1
    assert "ResourceNotFoundException" in capsys.readouterr().err


def test_what_dynamodb_leaves_of_a_batch_is_written_again(
    dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dynamodb, restored, 40, "old")
    pauses: list[float] = []
    write = dynamodb.batch_write_item

    def write_half(RequestItems: Any) -> Any:  # noqa: N803 - boto3's own
        (requests,) = RequestItems.values()
        half = (len(requests) + 1) // 2
        write(RequestItems={TARGET: requests[:half]})
        return {"UnprocessedItems": {TARGET: requests[half:]} if requests[half:] else {}}

    monkeypatch.setattr(dynamodb, "batch_write_item", write_half)
    assert copy_table(dynamodb, restored, TARGET, sleep=pauses.append) == (0, 40)

    assert items(dynamodb, TARGET) == items(dynamodb, restored)
    assert pauses
    assert max(pauses) <= 5


def test_a_copy_that_was_stopped_is_run_again(
    dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dynamodb, restored, 60, "old")
    write, left = dynamodb.batch_write_item, iter(range(2))

    def write_for_a_while(**request: Any) -> Any:
        if next(left, None) is None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "BatchWriteItem")
        return write(**request)

    with monkeypatch.context() as patched:
        patched.setattr(dynamodb, "batch_write_item", write_for_a_while)
        with pytest.raises(ClientError):
            copy_table(dynamodb, restored, TARGET)
    assert 0 < len(items(dynamodb, TARGET)) < 60

    copy_table(dynamodb, restored, TARGET, empty_target=True)

    assert items(dynamodb, TARGET) == items(dynamodb, restored)


def test_a_copy_that_is_interrupted_ends_with_the_batches_it_is_at(
    dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dynamodb, restored, 400, "old")
    stopped, write = Event(), dynamodb.batch_write_item
    monkeypatch.setattr("tools.copy_table.Event", lambda: stopped)

    def write_when_it_is_stopped(**request: Any) -> Any:
        assert stopped.wait(timeout=30)
        return write(**request)

    def interrupt(params: Any, **_: Any) -> None:
        if params.get("Segment") == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(dynamodb, "batch_write_item", write_when_it_is_stopped)
    with before_each_request(dynamodb, interrupt), pytest.raises(KeyboardInterrupt):
        copy_table(dynamodb, restored, TARGET)

    assert len(items(dynamodb, TARGET)) <= 7 * 25  # the other segments, one batch each


def test_a_request_is_tried_many_times(
    dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(dynamodb, restored, 1, "old")
    made: list[Any] = []

    def client(service: str, *, config: Any) -> Any:
        made.append(config.retries)
        return dynamodb

    with monkeypatch.context() as patched:
        patched.setattr(boto3, "client", client)
        assert main(["--from", restored, "--to", TARGET]) == 0
    assert [retries["total_max_attempts"] for retries in made] == [20]
