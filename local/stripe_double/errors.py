"""Stripe's error responses as exceptions."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """An error response of Stripe.

    Parameters
    ----------
    status
        HTTP status of the response.
    error_type
        Stripe's error type: ``invalid_request_error``, ``card_error``, ``idempotency_error`` or
        ``api_error``.
    message
        The error message.
    code, param, decline_code
        As in Stripe's error object; omitted if None.
    """

    def __init__(
        self,
        status: int,
        error_type: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        decline_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.code = code
        self.param = param
        self.decline_code = decline_code

    def body(self, request_id: str, livemode: bool) -> Json:
        """Return the JSON body of this error."""
        mode = "" if livemode else "test/"
        error: Json = {
            "message": self.message,
            "request_log_url": f"https://dashboard.stripe.com/{mode}logs/{request_id}",
            "type": self.error_type,
        }
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        if self.decline_code is not None:
            error["decline_code"] = self.decline_code
        return {"error": error}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the 400 of an invalid parameter."""
    return ApiError(400, "invalid_request_error", message, param=param, code=code)


def no_such(kind: str, identifier: str, param: str | None = None) -> ApiError:
    """Return ``resource_missing``: 404 for an object of the URL, 400 for one named by ``param``."""
    return ApiError(
        400 if param else 404,
        "invalid_request_error",
        f"No such {kind}: '{identifier}'",
        code="resource_missing",
        param=param or "id",
    )


def card_declined(decline_code: str) -> ApiError:
    """Return the 402 of a declined card."""
    codes = {
        "expired_card": "expired_card",
        "incorrect_cvc": "incorrect_cvc",
        "processing_error": "processing_error",
    }
    return ApiError(
        402,
        "card_error",
        "The card was declined.",
        code=codes.get(decline_code, "card_declined"),
        decline_code=decline_code,
    )
