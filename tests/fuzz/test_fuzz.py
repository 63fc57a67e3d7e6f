"""A few hundred invocations of the fuzz, and the proof that its invariants can fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase
from moto.core.models import botocore_stubber

from stripe_integrations.entrypoints.http import Request
from stripe_integrations.observability import logger
from tests.fuzz.explore import BATCH, explore
from tests.fuzz.invariants import violations
from tests.fuzz.invocations import Invocation
from tests.fuzz.stage import Outcome, Stage, staged
from tests.marked import mark, user_id

BATCHES = 25
PROBLEM = "urn:stripe-integrations:problem:forbidden"


@pytest.fixture(scope="module")
def stage(aws: None) -> Iterator[Stage]:
    # moto would answer every call too, though nothing would come of that.
    with mock.patch.object(botocore_stubber, "enabled", False), staged() as stage:
        yield stage


def raise_key_error(*_: Any) -> Any:
    raise KeyError


def ignore(*_: Any) -> None:
    pass


def any_user(_: Request, user_id: object) -> object:
    return user_id


def log_body(request: Request) -> Any:
    logger.debug("received", extra={"body": request.body.decode("latin-1")})
    return {}


class TestExplore:
    def test_product_holds(self, stage: Stage) -> None:
        report = explore(stage, "3", 60)
        assert report.failure is None
        assert report.counts.total() == 60 * BATCH
        assert len({line.split()[0] for line in report.counts}) == 9

    def test_name_decides(self, stage: Stage) -> None:
        assert explore(stage, "3", 3) == explore(stage, "3", 3)
        assert explore(stage, "3", 3) != explore(stage, "4", 3)

    @pytest.mark.parametrize(
        ("target", "replacement", "violation"),
        [
            ("stripe_integrations.actions.StripeCustomer.get", raise_key_error, "answered 500"),
            (
                "stripe_integrations.entrypoints.webhook_signature.verify",
                ignore,
                "stripe.Webhook: invalid",
            ),
            ("stripe_integrations.entrypoints.http.Request.json", log_body, "logged: "),
            (
                "stripe_integrations.entrypoints.http.Request.authorized_user_id",
                any_user,
                "another user's customer",
            ),
            ("stripe_integrations.models.Event.store", lambda event: event, "is not stored"),
        ],
    )
    def test_finds_fault(
        self, stage: Stage, target: str, replacement: Callable[..., Any], violation: str
    ) -> None:
        with mock.patch(target, replacement):
            report = explore(stage, "1", BATCHES, [Phase.generate])
        assert report.failure is not None
        assert violation in report.failure


def answered(status: int, body: Any = None, **details: Any) -> Outcome:
    headers = {"content-type": "application/problem+json"}
    answer = {"statusCode": status, "headers": headers, "body": json.dumps(body)}
    return Outcome(**{"answer": answer, "error": None, "output": "", "changed": {}} | details)


REFUSAL = {"type": PROBLEM, "status": 403, "title": "Forbidden", "detail": "not this user's"}
ANN, BOB = user_id("ann"), user_id("bob")


@pytest.mark.parametrize(
    ("invocation", "outcome", "violation"),
    [
        ("get_customer", answered(403, {**REFUSAL, "detail": ""}), "no problem details"),
        ("get_customer", answered(403, REFUSAL, changed={("x", "y"): (1, 2)}), "and changed"),
        ("get_customer", answered(403, REFUSAL, new_on_stripe=1), "made something on Stripe"),
        ("get_customer", answered(200, {}, output=mark("name of ann")), "logged: name of ann"),
        ("get_customer", answered(200, {"user_id": BOB}), "got another user's customer"),
        ("get_customer", answered(200, {"user_id": ANN, "name": mark("name of bob")}), "is bob's"),
        (
            "soft_delete_customer",
            answered(204, changed={(f"USER#{BOB}", "CLAIM"): (1, 2)}),
            f"changed USER#{BOB}",
        ),
        ("apply_event", Outcome({}, None, "", {}), "no partial batch response"),
        ("apply_event", Outcome(float("nan"), None, "", {}), "can't send the answer"),
        ("replay_events", Outcome(None, KeyError(), "", {}), "raised KeyError"),
    ],
)
def test_invariant_is_violated(
    stage: Stage, invocation: str, outcome: Outcome, violation: str
) -> None:
    token = {"claims": {"sub": ANN}}
    given = Invocation(invocation, {}, token if "customer" in invocation else None)
    assert violation in "; ".join(violations(given, outcome, stage.world))
