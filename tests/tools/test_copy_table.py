"""The copy of a restored table: whole, or refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tools.copy_table import RefusedError, copy_table, main
from tools.template import table_properties

SOURCE, TARGET = "restored", "customers"


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


class TestCopy:
    def test_replaces_all_items(
        self, dynamodb: Any, restored: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(dynamodb, restored, 130, "old")
        fill(dynamodb, TARGET, 60, "new")

        assert main(["--from", restored, "--to", TARGET, "--empty-target"]) == 0

        assert items(dynamodb, TARGET) == items(dynamodb, restored)
        assert len(items(dynamodb, TARGET)) == 130
        assert capsys.readouterr().out == (
            "60 items deleted from customers, 130 copied from restored\n"
        )

    def test_repeats_unprocessed_items(
        self, dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
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
        assert 0 < max(pauses) <= 5

    def test_can_be_repeated_after_failure(
        self, dynamodb: Any, restored: str, monkeypatch: pytest.MonkeyPatch
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


class TestRefusal:
    def test_target_has_items(
        self, dynamodb: Any, restored: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(dynamodb, restored, 1, "old")
        fill(dynamodb, TARGET, 3, "new")
        assert main(["--from", restored, "--to", TARGET]) == 1
        assert len(items(dynamodb, TARGET)) == 3
        assert "customers is not empty" in capsys.readouterr().err

    def test_source_is_empty(self, dynamodb: Any, restored: str) -> None:
        fill(dynamodb, TARGET, 3, "new")
        with pytest.raises(RefusedError, match="restored is empty"):
            copy_table(dynamodb, restored, TARGET, empty_target=True)
        assert len(items(dynamodb, TARGET)) == 3

    @pytest.mark.parametrize("named_by_arn", [None, "source", "target"])
    def test_same_table(self, dynamodb: Any, table_name: str, named_by_arn: str | None) -> None:
        fill(dynamodb, TARGET, 3, "new")
        names = {"source": TARGET, "target": TARGET}
        if named_by_arn:
            names[named_by_arn] = dynamodb.describe_table(TableName=TARGET)["Table"]["TableArn"]

        def resolve_arn(params: Any, **_: Any) -> None:
            # As DynamoDB does; not every engine of these tests would.
            if "TableName" in params:
                params["TableName"] = params["TableName"].rpartition("/")[2]

        dynamodb.meta.events.register("before-parameter-build.dynamodb", resolve_arn)
        try:
            with pytest.raises(RefusedError, match="into itself"):
                copy_table(dynamodb, names["source"], names["target"], empty_target=True)
        finally:
            dynamodb.meta.events.unregister("before-parameter-build.dynamodb", resolve_arn)
        assert len(items(dynamodb, TARGET)) == 3
