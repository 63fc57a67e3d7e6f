"""Objects in the S3 bucket of a deployment: reports of runs, and mappings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from stripe_integrations.adapters.aws import client_config
from stripe_integrations.config import Settings
from stripe_integrations.errors import StorageError

_CHUNK_BYTES = 65_536
_LINE_BYTES = 65_536
_NOTHING_LEFT = "InvalidRange"


def store_text(settings: Settings, key: str, text: str) -> None:
    """Store a text as an object, if the deployment has a bucket.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html

    Parameters
    ----------
    settings : Settings
        Has the bucket.
    key : str
        The object's; one that exists is replaced.
    text : str
        Stored as UTF-8.

    Raises
    ------
    StorageError
        S3 did not accept it.
    """
    if settings.reports_bucket:
        _call("put_object", Bucket=settings.reports_bucket, Key=key, Body=text.encode())


def read_lines(settings: Settings, key: str, offset: int = 0) -> Iterator[tuple[bytes, int]]:
    """Read an object line by line; the whole of it is never in memory.

    Bytes after the first 64 KiB of a line may be left out of it.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html

    Parameters
    ----------
    settings : Settings
        Has the bucket.
    key : str
        The object's.
    offset : int
        The byte at which the first line begins.

    Yields
    ------
    tuple
        A line without the line feed that ends it, and the offset of the next line.

    Raises
    ------
    StorageError
        S3 did not return it, or not to its end: continue from the last offset.
    """
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    try:
        arguments = {"Bucket": settings.reports_bucket, "Key": key, "Range": f"bytes={offset}-"}
        body = _call("get_object", **arguments)["Body"]
    except StorageError as error:
        if str(error).endswith(_NOTHING_LEFT):
            return
        raise
    pending, left_out = b"", 0
    try:
        for chunk in body.iter_chunks(_CHUNK_BYTES):
            *ends, beginning = chunk.split(b"\n")
            for end in ends:
                line = pending + end
                offset += len(line) + left_out + 1
                yield line, offset
                pending, left_out = b"", 0
            pending += beginning
            left_out += len(pending[_LINE_BYTES:])
            pending = pending[:_LINE_BYTES]
    except BotoCoreError as error:
        raise StorageError(f"s3: {type(error).__name__}") from error
    if pending:
        yield pending, offset + len(pending) + left_out


def _call(operation: str, **arguments: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        response: dict[str, Any] = getattr(_client(), operation)(**arguments)
    except ClientError as error:
        raise StorageError(f"s3: {error.response['Error']['Code']}") from error
    except BotoCoreError as error:
        raise StorageError(f"s3: {type(error).__name__}") from error
    return response


@cache
def _client() -> Any:
    """Made, and boto3 imported, when the first object is stored or read."""
    import boto3  # noqa: PLC0415

    return boto3.client("s3", config=client_config())
