"""A few hundred invocations of the fuzz, and the proof that its invariants can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from hypothesis import Phase
from moto.core.models import botocore_stubber

from stripe_integrations.entrypoints.caller import Caller
from stripe_integrations.entrypoints.http import Request, Response, problem
from stripe_integrations.errors import CustomerExistsError, StripeIntegrationsError
from stripe_integrations.observability import logger
from tests.fuzz.explore import BATCH, explore
from tests.fuzz.stage import Stage, staged

BATCHES = 100


@pytest.fixture(scope="module")
def stage(aws: None) -> Iterator[Stage]:
    # moto would handle every call too, though nothing would come of that.
    with mock.patch.object(botocore_stubber, "enabled", False), staged() as stage:
        yield stage


def raise_key_error(*_: Any) -> Any:
    raise KeyError


def ignore(*_: Any) -> None:
    pass


def any_user(_: Caller, user_id: object) -> object:
    return user_id


def log_body(request: Request) -> Any:
    logger.debug("received", extra={"body": request.body.decode("latin-1")})
    return {}


def with_ids_for_everyone(error: StripeIntegrationsError, _: Request) -> Response:
    response = problem(error)
    ids = error.stripe_ids if isinstance(error, CustomerExistsError) else ()
    return replace(response, body={**(response.body or {}), "stripe_ids": ids}) if ids else response


@pytest.mark.exhaustive
class TestExplore:
    def test_product_holds(self, stage: Stage) -> None:
        report = explore(stage, "3", 60)
        assert report.failure is None
        assert report.counts.total() == 60 * BATCH
        assert len({line.split()[0] for line in report.counts}) == 12

    def test_name_decides(self, stage: Stage) -> None:
        assert explore(stage, "3", 3) == explore(stage, "3", 3)
        assert explore(stage, "3", 3) != explore(stage, "4", 3)

    @pytest.mark.parametrize(
        ("target", "replacement", "violation"),
        [
            ("stripe_integrations.actions.StripeCustomer.get", raise_key_error, "returned 500"),
            (
                "stripe_integrations.entrypoints.webhook_signature.verify",
                ignore,
                "stripe.Webhook: invalid",
            ),
            ("stripe_integrations.entrypoints.http.Request.json", log_body, "logged: "),
            (
                "stripe_integrations.entrypoints.caller.Caller.authorize_user",
                any_user,
                "another user's customer",
            ),
            (
                "stripe_integrations.entrypoints.http.problem",
                with_ids_for_everyone,
                "got the ids of customers",
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
