"""What the functions say of themselves: structured logs that carry ids, and nothing personal."""

from __future__ import annotations

import traceback

from aws_lambda_powertools import Logger

logger = Logger()


def where(error: BaseException) -> list[str]:
    """The places a failure came through, without its message: that may quote what was sent."""
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
