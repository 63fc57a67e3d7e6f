"""Objects in the S3 bucket of a deployment: reports of runs, and mappings."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import BotoCoreError

from stripe_integrations.adapters.aws import call
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
        call(
            "s3",
            "put_object",
            StorageError,
            Bucket=settings.reports_bucket,
            Key=key,
            Body=text.encode(),
        )


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
    try:
        arguments = {"Bucket": settings.reports_bucket, "Key": key, "Range": f"bytes={offset}-"}
        body = call("s3", "get_object", StorageError, **arguments)["Body"]
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
