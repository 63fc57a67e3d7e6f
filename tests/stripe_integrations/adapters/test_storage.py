"""Objects in the bucket: stored under a key, and read line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError

from stripe_integrations.adapters import storage
from stripe_integrations.adapters.aws import client as aws_client
from stripe_integrations.config import Settings
from stripe_integrations.errors import StorageError
from tests.engines import REGION
from tests.world import hooked

SETTINGS = Settings(table_name="customers", reports_bucket="reports")
KEY = "runs/1-a/customers-1/0.jsonl"


@pytest.fixture(autouse=True)
def bucket(aws: None) -> Iterator[Any]:
    """The bucket; emptied after the test."""
    s3 = boto3.resource("s3")
    bucket = s3.Bucket("reports")
    bucket.create(CreateBucketConfiguration={"LocationConstraint": REGION})
    yield bucket
    bucket.objects.delete()
    bucket.delete()


def time_out(**_: Any) -> None:
    raise ReadTimeoutError(endpoint_url="https://s3")


class TestStoreText:
    def test_replaces_object(self, bucket: Any) -> None:
        for text in ("old", "né"):
            storage.store_text(SETTINGS, KEY, text)
        (stored,) = bucket.objects.all()
        assert stored.key == KEY
        assert stored.get()["Body"].read().decode() == "né"

    def test_without_bucket_does_nothing(self, bucket: Any) -> None:
        storage.store_text(Settings(table_name="customers"), KEY, "text")
        assert list(bucket.objects.all()) == []

    def test_refusal_is_an_error_of_ours(self) -> None:
        settings = Settings(table_name="customers", reports_bucket="another")
        with pytest.raises(StorageError, match="s3: NoSuchBucket"):
            storage.store_text(settings, KEY, "text")

    def test_time_out_is_an_error_of_ours(self) -> None:
        with (
            hooked(aws_client("s3"), "before-send.s3.PutObject", time_out),
            pytest.raises(StorageError, match="s3: ReadTimeoutError"),
        ):
            storage.store_text(SETTINGS, KEY, "text")


class TestReadLines:
    def test_reads_every_line_with_the_offset_of_the_next(self) -> None:
        storage.store_text(SETTINGS, KEY, "a\r\nné\n\nlast")
        lines = list(storage.read_lines(SETTINGS, KEY))
        assert lines == [(b"a\r", 3), ("né".encode(), 7), (b"", 8), (b"last", 12)]

    def test_resumes_at_any_offset(self) -> None:
        storage.store_text(SETTINGS, KEY, "one\ntwo\nthree\n")
        lines = list(storage.read_lines(SETTINGS, KEY))
        for number, (_, offset) in enumerate(lines, start=1):
            assert list(storage.read_lines(SETTINGS, KEY, offset)) == lines[number:]

    def test_of_empty_object(self) -> None:
        storage.store_text(SETTINGS, KEY, "")
        assert list(storage.read_lines(SETTINGS, KEY)) == []

    def test_lines_longer_than_a_chunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(storage, "_CHUNK_BYTES", 3)
        storage.store_text(SETTINGS, KEY, "customers\nof\n")
        assert [line for line, _ in storage.read_lines(SETTINGS, KEY)] == [b"customers", b"of"]

    def test_has_only_the_beginning_of_an_endless_line(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(storage, "_LINE_BYTES", 4)
        monkeypatch.setattr(storage, "_CHUNK_BYTES", 3)
        storage.store_text(SETTINGS, KEY, "0123456789\nabc\n0123456789")
        lines = list(storage.read_lines(SETTINGS, KEY))
        assert [following for _, following in lines] == [11, 15, 25]
        assert [line[:4] for line, _ in lines] == [b"0123", b"abc", b"0123"]
        assert all(len(line) <= 4 + 3 for line, _ in lines)

    def test_of_missing_object_is_an_error_of_ours(self) -> None:
        with pytest.raises(StorageError, match="s3: NoSuchKey"):
            list(storage.read_lines(SETTINGS, KEY))
