"""What must hold of every case, whatever was sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import stripe

from simulation.deployment import TABLE_NAME
from stripe_integrations.entrypoints.webhook_signature import TOLERANCE_SECONDS
from stripe_integrations.errors import (
    DatabaseUnavailableError,
    InvocationFailedError,
    StripeIntegrationsError,
)
from tests.fuzz.cases import ADMIN_SCOPE, PEOPLE, Case
from tests.marked import marks_in, user_id
from tests.marked_world import MarkedWorld

Json = dict[str, Any]

_COMMON = {400, 403, 404, 409, 413, 415, 422}
STATUSES = {
    "create_customer": {200, 201, *_COMMON} - {404},
    "get_customer": {200, 403, 404, 422},
    "sync_customer": {200, 403, 404, 409, 422},
    "soft_delete_customer": {204, 403, 404, 409, 422},
    "link_customer": {200, 400},
}
"""What the functions behind HTTP may answer while Stripe and the database are well."""
MAY_REFUSE = ("replay_events", "rebuild_customers")
_PROBLEM = "urn:stripe-integrations:problem:"


@dataclass(frozen=True)
class Outcome:
    """What a function did with a case.

    Parameters
    ----------
    answer : object
        What it returned.
    error : Exception or None
        What it raised instead.
    output : str
        All that it put out.
    changed : dict
        Items of the table that are not what they were: by key, before and after.
    made_on_stripe : int
        How much there is on Stripe that was not before.
    """

    answer: Any
    error: BaseException | None
    output: str
    changed: dict[tuple[str, str], tuple[Any, Any]]
    made_on_stripe: int

    @property
    def status(self) -> int:
        """The HTTP status of its answer."""
        status = self.answer.get("statusCode") if isinstance(self.answer, dict) else None
        return status if isinstance(status, int) else 0

    @property
    def problem(self) -> str | None:
        """The type of the problem that it answered with, if it did."""
        body = _body(self.answer)
        kind = body.get("type") if isinstance(body, dict) else None
        return kind.removeprefix(_PROBLEM) if isinstance(kind, str) and self.status >= 400 else None


def broken(case: Case, outcome: Outcome, world: MarkedWorld) -> Iterator[str]:
    """The promises that were broken, in words."""
    for place in marks_in(outcome.output):
        yield f"put out: {place}"
    if outcome.error is not None:
        if case.function not in MAY_REFUSE or not _is_refusal(outcome.error):
            yield f"raised {type(outcome.error).__name__}: {outcome.error}"
        return
    try:
        json.dumps(outcome.answer, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        yield f"the answer can't be sent: {error}"
        return
    if case.function in STATUSES:
        yield from _broken_over_http(case, outcome)
    if case.function == "link_customer":
        yield from _broken_by_webhook(case, outcome, world)
    if case.has_token:
        yield from _broken_by_token(case, outcome)
    if case.function == "apply_event":
        yield from _broken_by_stream(case, outcome)


def _is_refusal(error: BaseException) -> bool:
    is_ours = isinstance(error, StripeIntegrationsError)
    return is_ours and not isinstance(error, InvocationFailedError | DatabaseUnavailableError)


def _broken_over_http(case: Case, outcome: Outcome) -> Iterator[str]:
    if outcome.status not in STATUSES[case.function]:
        yield f"answered {outcome.status} {outcome.problem}"
    if outcome.status < 400:
        return
    body = _body(outcome.answer)
    if not (
        isinstance(body, dict)
        and outcome.answer["headers"].get("content-type") == "application/problem+json"
        and str(body.get("type")).startswith(_PROBLEM)
        and body.get("status") == outcome.status
        and all(isinstance(body.get(name), str) and body[name] for name in ("title", "detail"))
    ):
        yield f"no problem details: {outcome.answer}"
    if outcome.changed:
        yield f"refused, and changed {sorted(outcome.changed)}"
    if outcome.made_on_stripe:
        yield "refused, and made something on Stripe"


def _broken_by_webhook(case: Case, outcome: Outcome, world: MarkedWorld) -> Iterator[str]:
    refused = outcome.problem == "invalid-signature"
    if case.is_forged and outcome.status < 400:
        yield "accepted a forgery"
    expected = stripes_verdict(case, world.time)
    if expected is not None and refused is expected:
        yield f"stripe.Webhook {'accepts' if expected else 'refuses'} this signature"
    if outcome.status == 200:
        stripe_id = _body(outcome.answer)["id"]
        key = {"pk": {"S": f"EVENT#{stripe_id}"}, "sk": {"S": "EVENT"}}
        if (
            "Item"
            not in world.database.request("GetItem", {"TableName": TABLE_NAME, "Key": key}).body
        ):
            yield "answered 200 for an event that is not stored"


def stripes_verdict(case: Case, now: float) -> bool | None:
    """Whether Stripe's own library accepts a webhook's signature; None where there is no body."""
    body, header = _carried(case.event if isinstance(case.event, dict) else {})
    if body is None:
        return None
    with _stripes_clock(now):
        return any(_verifies(body, header, secret) for secret in case.webhook_secret.split())


def _carried(event: Json) -> tuple[bytes | None, str | None]:
    """The bytes and the signature that an event carries, as AWS's payload format 2.0 has them."""
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


def _verifies(body: bytes, header: str | None, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, TypeError, UnicodeDecodeError):
        # A TypeError is how it refuses a signature that is not ASCII.
        return False
    return True


@contextmanager
def _stripes_clock(now: float) -> Iterator[None]:
    with mock.patch("stripe._webhook.time", SimpleNamespace(time=lambda: now)):
        yield


def _broken_by_token(case: Case, outcome: Outcome) -> Iterator[str]:
    """Whoever comes with a token gets no further than to the customer of its own subject."""
    if _is_admin(case.claims):
        return
    subject = case.claims.get("sub") if isinstance(case.claims, dict) else None
    own = f"USER#{subject}" if isinstance(subject, str) else None
    for pk, sk in outcome.changed:
        if pk.startswith("USER#") and pk != own:
            yield f"the token of {subject} changed {pk} {sk}"
    body = _body(outcome.answer)
    if outcome.status < 300 and (
        not isinstance(subject, str) or (body is not None and body["user_id"] != subject)
    ):
        yield f"the token of {subject} got another user's customer"
    for name in PEOPLE:
        if subject != user_id(name) and any(
            place.endswith(f" of {name}") for place in marks_in(json.dumps(body))
        ):
            yield f"the token of {subject} got what is {name}'s"


def _is_admin(claims: Any) -> bool:
    scopes = [claims.get(name) for name in ("scope", "scp")] if isinstance(claims, dict) else []
    return any(isinstance(s, str) and f" {ADMIN_SCOPE} " in f" {s.strip('[]')} " for s in scopes)


def _broken_by_stream(case: Case, outcome: Outcome) -> Iterator[str]:
    answer = outcome.answer
    if not (isinstance(answer, dict) and set(answer) == {"batchItemFailures"}):
        yield f"not what the stream understands: {answer}"
        return
    for failure in answer["batchItemFailures"]:
        if not isinstance(failure.get("itemIdentifier"), str):
            yield f"a failure without a sequence number: {failure}"
        elif case.kind == "valid":
            # Nothing fails here that would have to be brought again.
            yield "asks for a record again"


def _body(answer: Any) -> Any:
    body = answer.get("body") if isinstance(answer, dict) else None
    try:
        return None if body is None else json.loads(body)
    except (TypeError, ValueError):
        return None
