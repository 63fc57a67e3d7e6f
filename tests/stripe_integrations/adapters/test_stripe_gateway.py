"""The gateway: errors told apart, a rolled key picked up, the other mode refused."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import pytest

from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import Response
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.adapters import secrets
from stripe_integrations.adapters.stripe_gateway import RETRIES, StripeGateway
from stripe_integrations.context import use
from stripe_integrations.errors import (
    StripeAccessError,
    StripeError,
    StripeNotInstalledError,
    StripeRefusedError,
    StripeUnavailableError,
    WrongModeError,
)
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
    assert "jane@example.com" not in "".join(traceback.format_exception(told.value))


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


# ---- rate


def fetches(world: World) -> int:
    return sum(request.method == "GET" for request in world.stripe.requests)


@pytest.fixture
def stripe_id(world: World) -> str:
    return str(world.ask("POST", "/v1/customers", {"email": "jane@example.com"})["id"])


def test_a_call_that_is_too_much_is_repeated_after_a_pause(world: World, stripe_id: str) -> None:
    world.stripe.faults.fail_next(2, status=429)
    before = world.time
    assert world.context.stripe.retrieve_customer(stripe_id)["id"] == stripe_id
    assert fetches(world) == 3
    assert 0.5 < world.time - before < 5


def test_a_call_that_stays_too_much_is_given_up_after_a_few_tries(
    world: World, stripe_id: str
) -> None:
    world.stripe.faults.fail_next(None, status=429)
    before = world.time
    with pytest.raises(StripeUnavailableError) as told:
        world.context.stripe.retrieve_customer(stripe_id)
    assert told.value.status == 429
    assert fetches(world) == 3
    assert world.time - before < 10


def test_a_pause_that_does_not_fit_the_invocation_is_not_begun(
    world: World, stripe_id: str
) -> None:
    gateway = world.context.stripe
    world.context.begin_invocation(8_200)
    world.stripe.faults.fail_next(None, status=429)
    before = world.time
    with pytest.raises(StripeUnavailableError, match="limits the rate") as told:
        gateway.retrieve_customer(stripe_id)
    assert told.value.status == 429
    assert world.time == before
    assert fetches(world) == 1


def test_after_a_429_the_next_call_of_the_process_waits(world: World, stripe_id: str) -> None:
    gateway = world.context.stripe
    world.stripe.faults.fail_next(3, status=429)
    with pytest.raises(StripeUnavailableError):
        gateway.retrieve_customer(stripe_id)
    before = world.time
    gateway.retrieve_customer(stripe_id)
    assert world.time > before


def test_the_longer_stripe_asks_to_slow_down_the_longer_are_the_pauses_within_bounds(
    world: World, stripe_id: str
) -> None:
    gateway = world.context.stripe
    world.stripe.faults.fail_next(None, status=429)
    lasted = []
    for _ in range(6):
        before = world.time
        with pytest.raises(StripeUnavailableError):
            gateway.retrieve_customer(stripe_id)
        lasted.append(world.time - before)
    assert lasted[0] < lasted[-1] < 25


def test_once_stripe_is_well_again_nothing_waits(world: World, stripe_id: str) -> None:
    gateway = world.context.stripe
    world.stripe.faults.fail_next(1, status=429)
    gateway.retrieve_customer(stripe_id)
    world.time += 10
    before = world.time
    for _ in range(5):
        gateway.retrieve_customer(stripe_id)
    assert world.time == before


def test_another_failure_than_429_slows_nothing_down(world: World, stripe_id: str) -> None:
    gateway = world.context.stripe
    world.stripe.faults.fail_next(None, status=503)
    with pytest.raises(StripeUnavailableError):
        gateway.retrieve_customer(stripe_id)
    world.stripe.faults.clear()
    before = world.time
    gateway.retrieve_customer(stripe_id)
    assert world.time == before


# ---- lists


def test_a_list_that_changes_while_it_is_read_is_told_as_unavailable(
    world: World, stripe_id: str
) -> None:
    for _ in range(101):
        method = world.ask(
            "POST", "/v1/payment_methods", {"type": "card", "card": {"token": "tok_visa"}}
        )
        world.ask("POST", f"/v1/payment_methods/{method['id']}/attach", {"customer": stripe_id})
    gateway = world.context.stripe

    def refuse_the_next_page() -> None:
        world.during_sleep = lambda: None
        world.stripe.faults.fail_next(1, status=400, code="resource_missing")

    world.during_sleep = refuse_the_next_page
    with pytest.raises(StripeUnavailableError, match="the list changed"):
        gateway.list_card_payment_methods(stripe_id)


def test_a_first_page_that_is_refused_is_told_as_refused(world: World, stripe_id: str) -> None:
    world.stripe.faults.fail_next(1, status=400)
    with pytest.raises(StripeRefusedError):
        world.context.stripe.list_card_payment_methods(stripe_id)


@pytest.mark.parametrize("answer", [{}, {"data": None}, {"data": {}}])
def test_a_list_of_events_that_makes_no_sense_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(world.stripe, "request", lambda *_: Response(200, {}, answer))
    with pytest.raises(StripeUnavailableError, match="malformed"):
        world.context.stripe.list_events(0, [], None)


@pytest.mark.parametrize("data", [[], [None], [{"object": "payment_method"}]])
def test_a_list_that_goes_on_from_nothing_makes_no_sense(world: World, data: list[Any]) -> None:
    customer = StripeCustomer.create(User("u-1"), "jane@example.com")
    listed = {"object": "list", "data": data, "has_more": True}

    class Odd(StripeDoubleClient):
        def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            content, status, headers = super().request(method, url, *args, **kwargs)
            return (json.dumps(listed) if "payment_methods" in url else content), status, headers

    gateway = StripeGateway(world.settings, Odd(world.stripe))
    with pytest.raises(StripeUnavailableError, match="malformed"):
        gateway.list_card_payment_methods(customer.stripe_id)
