"""HTTP requests and responses: decoding, encoding, and errors as problem details (RFC 9457).

Requests have payload format 2.0, which HTTP APIs and Lambda Function URLs share.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from stripe_integrations import errors, observability
from stripe_integrations.context import current
from stripe_integrations.entrypoints.caller import Caller
from stripe_integrations.entrypoints.invocation import (
    LambdaHandler,
    begin_invocation,
    count_internal_error,
    observed,
)
from stripe_integrations.entrypoints.user_in_url import is_me_route, user_id_in_url
from stripe_integrations.models.fields import value_at
from stripe_integrations.observability import Metric, error_log_fields, logger

Json = dict[str, Any]

MAX_API_BODY_BYTES = 64 * 1024
_RETRY_AFTER_SECONDS = "5"
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's phrases, of which Python before 3.13 has older ones."""
_NOT_SET_UP = "The deployment is not set up correctly."
_OUR_FAULT = "The request failed on our side."


@dataclass(frozen=True)
class Request:
    """A request from the API or the Function URL.

    Parameters
    ----------
    event : mapping
        The Lambda event, payload format 2.0.
    """

    event: Mapping[str, Any] = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Header values under lower-case names."""
        headers = self.event.get("headers")
        if not isinstance(headers, Mapping):
            return {}
        return {str(name).lower(): str(value) for name, value in headers.items()}

    @property
    def idempotency_key(self) -> str | None:
        """The header Idempotency-Key."""
        return self.headers.get("idempotency-key")

    @cached_property
    def body(self) -> bytes:
        """The raw bytes of the body, base64-decoded if necessary."""
        body = self.event.get("body") or ""
        if not self.event.get("isBase64Encoded"):
            return str(body).encode("utf-8", "surrogatepass")
        try:
            return base64.b64decode(str(body), validate=True)
        except (binascii.Error, ValueError):
            raise errors.MalformedRequestError("the body is not valid base64") from None

    def json(self) -> Json:
        """The body as a JSON object.

        Raises
        ------
        MalformedRequestError
            It is not one.
        """
        try:
            parsed = json.loads(
                self.body.decode(), parse_constant=_refuse_constant, parse_float=_finite
            )
        except (ValueError, RecursionError):
            raise errors.MalformedRequestError("the body is not JSON in UTF-8") from None
        if not isinstance(parsed, dict):
            raise errors.MalformedRequestError("the body is not a JSON object")
        return parsed

    def api_json(self) -> Json:
        """The body as a JSON object, for the API, which limits its content type and size."""
        media_type = self.headers.get("content-type", "application/json").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            raise errors.UnsupportedMediaTypeError("the body must be application/json")
        if len(self.body) > MAX_API_BODY_BYTES:
            raise errors.RequestTooLargeError(f"the body is over {MAX_API_BODY_BYTES} bytes")
        return self.json()

    @cached_property
    def caller(self) -> Caller:
        """The caller of the API: see `Caller.from_event`."""
        return Caller.from_event(self.event)

    def require_authorized(self) -> Caller:
        """Return the caller, or raise `ForbiddenError` if the request was not authorized."""
        return self.caller

    def user_id(self) -> str:
        """The user in the URL, for whom the caller may act; on the routes `/me`, the token's user.

        Raises
        ------
        ForbiddenError
            The caller may not act for this user.
        InvalidFieldError
            The URL has no valid user id; or, on the routes `/me`, there is a query or a body, which
            might name a user.
        """
        if is_me_route(self.event) and self.event.get("body"):
            raise errors.InvalidFieldError(
                "user_id", "is taken from the token's sub: the body must be empty"
            )
        return self.user_id_for({})

    def user_id_for(self, fields: Json) -> str:
        """The user in the URL, as in `user_id`, of a request whose body has other fields."""
        if "user_id" in fields:
            raise errors.InvalidFieldError("user_id", "must not be in the body")
        if is_me_route(self.event):
            return self._own_user()
        return self.caller.authorize_user(user_id_in_url(self.event))

    def take_user_id(self, fields: Json) -> str:
        """Remove `user_id` from a body's fields and return it, if the caller may act for this user.

        On the routes `/me`, return the token's user.

        Raises
        ------
        ForbiddenError
            The caller may not act for this user.
        InvalidFieldError
            The body has no valid `user_id`; or, on the routes `/me`, it has the field, or the
            request has a query.
        """
        if is_me_route(self.event):
            return self.user_id_for(fields)
        return self.caller.authorize_user(fields.pop("user_id", None))

    def _own_user(self) -> str:
        if self.event.get("rawQueryString") or self.event.get("pathParameters"):
            raise errors.InvalidFieldError(
                "user_id", "is taken from the token's sub: the query must be empty"
            )
        return self.caller.own_user()


@dataclass(frozen=True)
class Response:
    """An HTTP response.

    Parameters
    ----------
    status : int
        HTTP status.
    body : mapping, optional
        JSON object; None for no body.
    headers : mapping
        Beyond the content type.
    media_type : str
        Of the body.
    logged : mapping
        Log fields besides the status: ids, and no value.
    """

    status: int
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    logged: Mapping[str, object] = field(default_factory=dict)

    def to_lambda(self) -> Json:
        """The response in payload format 2.0."""
        if self.body is None:
            return {"statusCode": self.status, "headers": dict(self.headers)}
        return {
            "statusCode": self.status,
            "headers": {"content-type": self.media_type, **self.headers},
            "body": json.dumps(self.body),
        }


def http_handler(operation: Callable[[Request], Response]) -> LambdaHandler[Json]:
    """Make a Lambda handler of an operation: it translates errors, and logs the outcome."""

    @observed
    def handler(event: Any, context: LambdaContext) -> Json:
        logger.set_correlation_id(_request_id(event))
        request = Request(event if isinstance(event, dict) else {})
        try:
            begin_invocation(context)
            response = operation(request)
        except errors.StripeIntegrationsError as error:
            response = problem(error, request)
            level, message, fields = logging.WARNING, "refused", error_log_fields(error)
            if isinstance(error, errors.SignatureVerificationError):
                current().add_metric(Metric.SIGNATURES_REFUSED)
        except Exception as error:
            response = _problem(500, "internal-error", _OUR_FAULT)
            level, message, fields = logging.ERROR, "failed", error_log_fields(error)
        else:
            level, message, fields = logging.INFO, "responded", dict(response.logged)
        observability.set_outcome(level, message, status=response.status, **fields)
        if response.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            count_internal_error()
        return response.to_lambda()

    return handler


def api_handler(operation: Callable[[Request], Response]) -> LambdaHandler[Json]:
    """Make a Lambda handler of an operation of the API, for authorized requests."""

    def authorized(request: Request) -> Response:
        request.require_authorized()
        return operation(request)

    return http_handler(authorized)


def _request_id(event: object) -> str | None:
    request_id = value_at(event, "requestContext", "requestId")
    return request_id if isinstance(request_id, str) else None


def problem(error: errors.StripeIntegrationsError, request: Request | None = None) -> Response:
    """Translate an error of ours to problem details.

    The ids of other customers are for a request whose caller may act for every user.
    """
    kind = next(kind for kind in _PROBLEMS if isinstance(error, kind))
    status, slug, detail = _PROBLEMS[kind]
    members = _error_members(error)
    if isinstance(error, errors.CustomerExistsError) and request and request.caller.is_trusted:
        members["stripe_ids"] = list(error.stripe_ids)
    response = _problem(status, slug, detail or str(error), **members)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["retry-after"] = _RETRY_AFTER_SECONDS
    return response


_PROBLEMS: dict[type[errors.StripeIntegrationsError], tuple[int, str, str | None]] = {
    errors.MalformedRequestError: (400, "malformed-request", None),
    errors.SignatureVerificationError: (400, "invalid-signature", None),
    errors.ForbiddenError: (403, "forbidden", None),
    errors.CustomerNotFoundError: (404, "customer-not-found", None),
    errors.CustomerSoftDeletedError: (404, "customer-not-found", None),
    errors.CustomerBeingCreatedError: (409, "customer-being-created", None),
    errors.CustomerErasedError: (409, "customer-erased", None),
    errors.CustomerOfAnotherUserError: (409, "customer-of-another-user", None),
    errors.UserHasAnotherCustomerError: (409, "user-has-another-customer", None),
    errors.TakeOverRequiredError: (409, "take-over-required", None),
    errors.CustomerExistsError: (409, "customer-exists", None),
    errors.ConflictError: (409, "conflict", None),
    errors.RequestTooLargeError: (413, "request-too-large", None),
    errors.UnsupportedMediaTypeError: (415, "unsupported-media-type", None),
    errors.ForbiddenFieldError: (403, "forbidden", None),
    errors.InvalidFieldError: (422, "invalid-field", None),
    errors.WrongModeError: (502, "wrong-mode", None),
    errors.StripeUnavailableError: (503, "stripe-unavailable", "Stripe can't be reached now."),
    errors.StripeError: (502, "stripe-refused", "Stripe refused the request."),
    errors.RecordsNotStoredError: (501, "records-not-stored", None),
    errors.SecretUnavailableError: (503, "secret-unavailable", "A secret can't be read now."),
    errors.DatabaseMisconfiguredError: (500, "misconfigured", _NOT_SET_UP),
    errors.DatabaseUnreachableError: (
        503,
        "database-unavailable",
        "The database can't be reached now.",
    ),
    errors.DatabaseUnavailableError: (503, "database-unavailable", "The database is busy."),
    errors.NewerSchemaError: (503, "newer-schema", "A later release has written the record."),
    errors.DatabaseRefusedError: (500, "record-refused", "The record can't be stored."),
    errors.ConfigurationError: (500, "misconfigured", _NOT_SET_UP),
    errors.StripeIntegrationsError: (500, "internal-error", _OUR_FAULT),
}
"""Status, type and detail by error, of which the first that fits is used; by default the detail is
the error's message."""


def _error_members(error: errors.StripeIntegrationsError) -> Json:
    match error:
        case errors.InvalidFieldError(field=first, field_errors=field_errors):
            each = [{"field": name, "detail": reason} for name, reason in field_errors]
            return {"field": first, "errors": each}
        case errors.StripeError(code=str(code)):
            return {"code": code}
    return {}


def _problem(status: int, slug: str, detail: str, **members: Any) -> Response:
    body = {
        "type": f"urn:stripe-integrations:problem:{slug}",
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return Response(status, body, media_type="application/problem+json")


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number
