"""What holds of every invocation, whatever it was invoked with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import stripe

from simulation.deployment import TABLE_NAME
from stripe_integrations.entrypoints.http import MAX_API_BODY_BYTES
from stripe_integrations.entrypoints.webhook_signature import TOLERANCE_SECONDS
from stripe_integrations.errors import (
    DatabaseUnavailableError,
    InvocationFailedError,
    StripeIntegrationsError,
)
from stripe_integrations.models.fields import value_at
from tests.fuzz.invocations import ADMIN_SCOPE, USERS, Invocation
from tests.fuzz.stage import Outcome
from tests.marked import marks_in, user_id
from tests.marked_world import MarkedWorld

_COMMON = {400, 403, 409, 413, 415, 422}
STATUSES = {
    "create_customer": {200, 201, *_COMMON},
    "get_customer": {200, 403, 404, 422},
    "update_customer": {200, 404, *_COMMON},
    "sync_customer": {200, 403, 404, 409, 422},
    "soft_delete_customer": {204, 403, 404, 409, 422},
    "adopt_customer": {200, 201, 400, 403, 404, 409, 413, 415, 422},
    "link_customer": {200, 400},
}
"""What the functions behind HTTP may return while Stripe and the database are well."""
TAKE_JSON = ("adopt_customer", "create_customer", "update_customer", "link_customer")
MAY_RAISE = ("replay_events", "erase_customer", "walk_account")
"""Functions that are invoked by hand: they refuse their input with an error of the product."""
_PROBLEM = "urn:stripe-integrations:problem:"


def violations(invocation: Invocation, outcome: Outcome, world: MarkedWorld) -> Iterator[str]:
    """The promises that an invocation has broken, in words."""
    for place in marks_in(outcome.output):
        yield f"logged: {place}"
    if outcome.error is not None:
        if invocation.function not in MAY_RAISE or not _is_refusal(outcome.error):
            yield f"raised {type(outcome.error).__name__}: {outcome.error}"
        return
    try:
        json.dumps(outcome.response, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        yield f"Lambda can't send the response: {error}"
        return
    if invocation.function in STATUSES:
        yield from _over_http(invocation, outcome)
    if invocation.function == "link_customer":
        yield from _by_webhook(invocation, outcome, world)
    if invocation.function in STATUSES.keys() - {"link_customer"}:
        yield from _by_authorizer(invocation, outcome)
    if invocation.token is not None:
        yield from _by_token(invocation, outcome)
    if invocation.function == "apply_event":
        yield from _by_stream(outcome.response)


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, StripeIntegrationsError) and not isinstance(
        error, InvocationFailedError | DatabaseUnavailableError
    )


def _over_http(invocation: Invocation, outcome: Outcome) -> Iterator[str]:
    body = _body(outcome)
    if outcome.status not in STATUSES[invocation.function]:
        yield f"returned {outcome.status} {body}"
    if outcome.status < 400:
        if invocation.function in TAKE_JSON:
            yield from _of_accepted_body(_carried(invocation.event)[0] or b"", invocation.function)
        return
    if not (
        isinstance(body, dict)
        and outcome.response["headers"].get("content-type") == "application/problem+json"
        and str(body.get("type")).startswith(_PROBLEM)
        and body.get("status") == outcome.status
        and all(isinstance(body.get(name), str) and body[name] for name in ("title", "detail"))
    ):
        yield f"no problem details: {outcome.response}"
    if outcome.changed:
        yield f"refused, and changed {sorted(outcome.changed)}"
    if outcome.new_on_stripe:
        yield "refused, and made something on Stripe"


def _by_webhook(invocation: Invocation, outcome: Outcome, world: MarkedWorld) -> Iterator[str]:
    body = _body(outcome)
    carried, header = _carried(invocation.event)
    if carried is None:
        expected = "malformed-request"
    elif _stripe_accepts(carried, header, invocation.webhook_secret, world.time):
        expected = None
    else:
        expected = "invalid-signature"
    problem = body.get("type", "").removeprefix(_PROBLEM) if outcome.status >= 400 else None
    if expected != problem and (expected or problem == "invalid-signature"):
        yield f"stripe.Webhook: {expected or 'accepts the signature'}; here: {problem}"
    if outcome.status == 200:
        key = {"pk": {"S": f"EVENT#{body['id']}"}, "sk": {"S": "EVENT"}}
        found = world.database.request("GetItem", {"TableName": TABLE_NAME, "Key": key})
        if "Item" not in found.body:
            yield "returned 200 for an event that is not stored"


def _carried(event: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the signature that an event carries, as AWS's payload format 2.0 has them."""
    if not isinstance(event, dict):
        return b"", None
    text = event.get("body") or ""
    headers = event.get("headers")
    given = headers.items() if isinstance(headers, dict) else ()
    named = [str(value) for name, value in given if str(name).lower() == "stripe-signature"]
    header = named[-1] if named else None
    if not event.get("isBase64Encoded"):
        return str(text).encode("utf-8", "surrogatepass"), header
    try:
        return base64.b64decode(str(text), validate=True), header
    except ValueError:
        return None, header


def _of_accepted_body(body: bytes, function: str) -> Iterator[str]:
    """What is wrong with it: it is too large, or Python's parser takes it and RFC 8259 does not."""
    if function != "link_customer" and len(body) > MAX_API_BODY_BYTES:
        yield f"accepted a body of {len(body)} bytes"
    try:
        json.dumps(json.loads(body), allow_nan=False)
    except ValueError:
        yield "accepted a body that is not JSON"


def _stripe_accepts(body: bytes, header: str | None, secrets: str, now: float) -> bool:
    """Return whether Stripe's own library accepts a signature, made with any of the secrets."""

    def accepts(secret: str) -> bool:
        try:
            stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE_SECONDS)
        except (stripe.SignatureVerificationError, TypeError, UnicodeDecodeError):
            # A TypeError is how it refuses a signature that is not ASCII.
            return False
        return True

    with mock.patch("stripe._webhook.time", SimpleNamespace(time=lambda: now)):
        return any(accepts(secret) for secret in secrets.split())


def _by_authorizer(invocation: Invocation, outcome: Outcome) -> Iterator[str]:
    """A request was authorized by the one authorizer that the deployment's routes require."""
    required = "iam" if invocation.token is None else "jwt"
    passed = value_at(invocation.event, "requestContext", "authorizer")
    is_passed = isinstance(passed, dict) and set(passed) == {required}
    if outcome.status < 400 and not is_passed:
        yield f"served a request that was not authorized by the {required} authorizer"


def _by_token(invocation: Invocation, outcome: Outcome) -> Iterator[str]:
    """A token gives access to its own subject's customer alone; under `/me`, even an admin's."""
    claims = value_at(invocation.token, "claims")
    route = value_at(invocation.event, "routeKey")
    if _is_admin(claims) and route not in ("GET /me", "POST /me", "POST /me/sync"):
        return
    subject = claims.get("sub") if isinstance(claims, dict) else None
    own = f"USER#{subject}" if isinstance(subject, str) else None
    for pk, sk in outcome.changed:
        if pk.startswith(("USER#", "UNASSIGNED#")) and pk != own:
            yield f"the token of {subject} changed another customer: {pk} {sk}"
    body = _body(outcome)
    if "stripe_ids" in (body or ()):
        yield f"the token of {subject} got the ids of customers that are no user's"
    if outcome.status < 300 and (own is None or (body and body["user_id"] != subject)):
        yield f"the token of {subject} got another user's customer"
    marks = marks_in(json.dumps(body))
    for name in USERS:
        if subject != user_id(name) and any(place.endswith(f" of {name}") for place in marks):
            yield f"the token of {subject} got what is {name}'s"


def _is_admin(claims: Any) -> bool:
    scopes = [claims.get(name) for name in ("scope", "scp")] if isinstance(claims, dict) else []
    return any(isinstance(s, str) and f" {ADMIN_SCOPE} " in f" {s.strip('[]')} " for s in scopes)


def _by_stream(response: Any) -> Iterator[str]:
    if not (isinstance(response, dict) and set(response) == {"batchItemFailures"}):
        yield f"no partial batch response: {response}"
        return
    for failure in response["batchItemFailures"]:
        if not isinstance(failure.get("itemIdentifier"), str):
            yield f"a failure without a sequence number: {failure}"
        else:
            yield "asks for a record again, though nothing around the function has failed"


def _body(outcome: Outcome) -> Any:
    body = outcome.response.get("body") if isinstance(outcome.response, dict) else None
    try:
        return None if body is None else json.loads(body)
    except (TypeError, ValueError):
        return None
