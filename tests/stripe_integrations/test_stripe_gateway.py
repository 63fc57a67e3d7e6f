"""The gateway: errors told apart, a rolled key picked up, the other mode refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from local.stripe_double.double import Response
from stripe_integrations import secrets
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    StripeAccessError,
    StripeError,
    StripeNotInstalledError,
    StripeRefusedError,
    StripeUnavailableError,
    WrongModeError,
)
from stripe_integrations.stripe_gateway import RETRIES, StripeGateway
from tests.world import World


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, StripeRefusedError),
        (401, StripeAccessError),
        (402, StripeRefusedError),
        (403, StripeAccessError),
        (404, StripeRefusedError),
        (409, StripeUnavailableError),
        (429, StripeUnavailableError),
        (500, StripeUnavailableError),
        (503, StripeUnavailableError),
    ],
)
def test_what_stripe_answers_is_told_apart(
    world: World, status: int, kind: type[StripeError]
) -> None:
    world.stripe.faults.fail_next(None, status=status, message="jane@example.com is refused")
    with pytest.raises(kind) as told:
        world.context.stripe.retrieve_customer("cus_1")
    assert type(told.value) is kind
    assert told.value.status == status
    assert told.value.request_id
    assert "jane@example.com" not in str(told.value)
    assert told.value.__suppress_context__


def test_an_answer_that_does_not_come_is_told_as_unavailable(world: World) -> None:
    world.stripe.faults.time_out(None)
    with pytest.raises(StripeUnavailableError) as told:
        world.context.stripe.retrieve_customer("cus_1")
    assert told.value.status is None


def test_a_passing_failure_is_asked_again(world: World) -> None:
    customer = world.ask("POST", "/v1/customers", {"email": "jane@example.com"})
    world.stripe.faults.fail_next(RETRIES, status=503)
    assert world.context.stripe.retrieve_customer(customer["id"])["id"] == customer["id"]


def test_a_rolled_key_is_fetched_anew_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = world.ask("POST", "/v1/customers", {"email": "jane@example.com"})
    keys = {False: "sk_test_old", True: "sk_test_new"}
    monkeypatch.setattr(secrets, "api_key", lambda settings, refresh=False: keys[refresh])
    gateway = world.context.stripe
    world.stripe.api_keys = {"sk_test_new"}

    assert gateway.retrieve_customer(customer["id"])["id"] == customer["id"]

    world.stripe.api_keys = {"sk_test_newest"}
    with pytest.raises(StripeAccessError):
        gateway.retrieve_customer(customer["id"])


@pytest.mark.parametrize("answer", [{}, [], None, {"id": 7}, {"id": "cus_other"}, {"data": {}}])
def test_an_answer_that_makes_no_sense_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    customer = StripeCustomer.create(User("u-1"), "jane@example.com")
    response = Response(200, {}, answer)
    monkeypatch.setattr(world.stripe, "request", lambda *_: response)
    before = world.items()

    assert world.sync()["statusCode"] == 503
    with pytest.raises(StripeUnavailableError):
        world.context.stripe.list_subscriptions(customer.stripe_id)
    assert world.items() == before


def test_an_object_of_the_other_mode_is_refused(world: World) -> None:
    customer = world.ask("POST", "/v1/customers", {"email": "jane@example.com"})
    gateway = world.context.stripe
    world.stripe.account.customers[customer["id"]]["livemode"] = True
    with pytest.raises(WrongModeError):
        gateway.retrieve_customer(customer["id"])


def test_without_the_stripe_extra_it_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stripe", None)
    with pytest.raises(StripeNotInstalledError, match="extra"):
        StripeGateway(world.settings)
    context = world.new_context()
    context.make_stripe = None
    with use(context):
        answer = world.create()
    assert (answer["statusCode"], world.items()) == (500, [])
