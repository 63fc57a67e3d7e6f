"""What the functions say of themselves: structured logs that carry ids, and nothing personal."""

from __future__ import annotations

import traceback
from typing import Any

from aws_lambda_powertools import Logger

from stripe_integrations import errors

logger = Logger()


def told(error: BaseException) -> dict[str, Any]:
    """What a log may tell of a failure: its kind, ids and places, and no message but our own."""
    match error:
        case errors.StripeError():
            return {
                "error": type(error).__name__,
                "stripe_request_id": error.request_id,
                "stripe_status": error.status,
                "stripe_code": error.code,
            }
        case errors.InvalidFieldError():
            return {"error": type(error).__name__}  # the field's name is the caller's own text
        case errors.StripeIntegrationsError():
            return {"error": type(error).__name__, "detail": str(error)}
    return {"error": type(error).__name__, "where": where(error)}


def where(error: BaseException) -> list[str]:
    """The places a failure came through, without its message: that may quote what was sent."""
    return [
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
