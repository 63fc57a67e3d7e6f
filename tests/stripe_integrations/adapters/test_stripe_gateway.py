"""Calls to Stripe: which error each failure is, how they slow down, and how they list."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import pytest

from local.stripe_double.client import StripeDoubleClient
from local.stripe_double.double import Response
from stripe_integrations.adapters import secrets
from stripe_integrations.adapters.stripe_gateway import RETRIES, StripeGateway
from stripe_integrations.errors import (
    StripeAccessError,
    StripeError,
    StripeKeyReusedError,
    StripeNotInstalledError,
    StripeObjectChangedError,
    StripeObjectLockedError,
    StripeRefusedError,
    StripeUnavailableError,
    WrongModeError,
    is_stripe_outage,
)
from stripe_integrations.models import Customer
from tests.world import World


@pytest.fixture
def stripe_id(world: World) -> str:
    return str(world.request("POST", "/v1/customers", {"email": "jane@example.com"})["id"])


@pytest.fixture
def gateway(world: World) -> StripeGateway:
    return world.context.stripe


class TestIdempotencyKey:
    def test_stored_response_is_marked(self, gateway: StripeGateway, stripe_id: str) -> None:
        responses = [gateway.update_customer(stripe_id, {"name": "Jane"}, "key") for _ in range(2)]
        assert [response.is_replayed for response in responses] == [False, True]
        assert responses[0].data == responses[1].data


class TestErrors:
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
    def test_status_decides_type(
        self, world: World, gateway: StripeGateway, status: int, kind: type[StripeError]
    ) -> None:
        world.stripe.faults.fail_next(None, status=status, message="jane@example.com is refused")
        with pytest.raises(kind) as raised:
            gateway.retrieve_customer("cus_1")
        assert type(raised.value) is kind
        assert raised.value.status == status
        assert raised.value.request_id
        assert raised.value.__suppress_context__
        assert "jane@example.com" not in "".join(traceback.format_exception(raised.value))

    @pytest.mark.parametrize(
        ("status", "code"),
        [(400, "resource_missing"), (429, "lock_timeout"), (429, "rate_limit"), (503, None)],
    )
    def test_code_is_that_of_stripe(
        self, world: World, gateway: StripeGateway, status: int, code: str | None
    ) -> None:
        world.stripe.faults.fail_next(None, status=status, code=code)
        with pytest.raises(StripeError) as raised:
            gateway.retrieve_customer("cus_1")
        assert raised.value.code == code

    def test_reused_idempotency_key_is_error_of_its_own(
        self, gateway: StripeGateway, stripe_id: str
    ) -> None:
        gateway.update_customer(stripe_id, {"name": "Jane"}, "key")
        with pytest.raises(StripeKeyReusedError):
            gateway.update_customer(stripe_id, {"name": "Jane Roe"}, "key")

    def test_timeout_has_no_status(self, world: World, gateway: StripeGateway) -> None:
        world.stripe.faults.time_out(None)
        with pytest.raises(StripeUnavailableError) as raised:
            gateway.retrieve_customer("cus_1")
        assert raised.value.status is None

    def test_transient_failure_is_retried(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(RETRIES, status=503)
        assert gateway.retrieve_customer(stripe_id)["id"] == stripe_id

    def test_rolled_key_is_read_again_once(
        self,
        world: World,
        gateway: StripeGateway,
        stripe_id: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        keys = {False: "sk_test_old", True: "sk_test_new"}
        monkeypatch.setattr(secrets, "api_key", lambda settings, refresh=False: keys[refresh])
        world.stripe.api_keys = {"sk_test_new"}
        assert gateway.retrieve_customer(stripe_id)["id"] == stripe_id

        world.stripe.api_keys = {"sk_test_newest"}
        with pytest.raises(StripeAccessError):
            gateway.retrieve_customer(stripe_id)

    @pytest.mark.parametrize(
        "response",
        [{}, [], None, {"id": 7}, {"id": "cus_other"}, {"data": None}, {"data": {}}],
    )
    def test_malformed_response_is_as_if_stripe_were_down(
        self,
        world: World,
        customer: Customer,
        monkeypatch: pytest.MonkeyPatch,
        response: Any,
    ) -> None:
        gateway = world.context.stripe
        monkeypatch.setattr(world.stripe, "request", lambda *_: Response(200, {}, response))
        before = world.items()

        assert world.sync()["statusCode"] == 503
        with pytest.raises(StripeUnavailableError):
            gateway.update_customer(customer.stripe_id, {"name": "Jane"}, "key")
        with pytest.raises(StripeUnavailableError):
            gateway.list_subscriptions(customer.stripe_id)
        with pytest.raises(StripeUnavailableError, match="malformed"):
            gateway.list_events(0, [], None)
        for list_page in (gateway.list_customers_page, gateway.list_subscriptions_page):
            with pytest.raises(StripeUnavailableError, match="malformed"):
                list_page(None, 1, None)
        assert world.items() == before

    def test_object_of_other_mode_is_refused(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.account.customers[stripe_id]["livemode"] = True
        with pytest.raises(WrongModeError):
            gateway.retrieve_customer(stripe_id)

    def test_missing_package_is_named(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "stripe", None)
        with pytest.raises(StripeNotInstalledError, match="extra"):
            StripeGateway(world.settings)
        world.context.make_stripe = None
        assert (world.create()["statusCode"], world.items()) == (500, [])


class TestRateLimit:
    """After a 429 the gateway waits, longer each time, as far as the invocation has time."""

    def test_limited_call_is_repeated_after_pause(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(2, status=429)
        before = world.time
        assert gateway.retrieve_customer(stripe_id)["id"] == stripe_id
        assert fetches(world) == 3
        assert 0.5 < world.time - before < 5

    def test_call_fails_after_three_attempts(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(None, status=429)
        assert fail(world, gateway, stripe_id) < 10
        assert fetches(world) == 3

    def test_pause_without_time_for_it_is_skipped(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.context.begin_invocation(8_200)
        world.stripe.faults.fail_next(None, status=429)
        before = world.time
        with pytest.raises(StripeUnavailableError, match="limits the rate") as raised:
            gateway.retrieve_customer(stripe_id)
        assert (raised.value.status, fetches(world), world.time) == (429, 1, before)

    @pytest.mark.parametrize(("status", "waits"), [(429, True), (503, False)])
    def test_next_call_waits_after_429_only(
        self, world: World, gateway: StripeGateway, stripe_id: str, status: int, waits: bool
    ) -> None:
        world.stripe.faults.fail_next(None, status=status)
        fail(world, gateway, stripe_id)
        world.stripe.faults.clear()
        before = world.time
        gateway.retrieve_customer(stripe_id)
        assert (world.time > before) is waits

    def test_lock_of_an_object_delays_no_other_call(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(None, status=429, code="lock_timeout")
        with pytest.raises(StripeObjectLockedError) as raised:
            gateway.retrieve_customer(stripe_id)
        assert not is_stripe_outage(raised.value)
        assert fetches(world) == 1
        world.stripe.faults.clear()
        before = world.time
        gateway.retrieve_customer(stripe_id)
        assert world.time == before

    def test_pauses_grow_within_bounds(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(None, status=429)
        lasted = [fail(world, gateway, stripe_id) for _ in range(6)]
        assert lasted[0] < lasted[-1] < 25

    def test_calls_do_not_wait_after_recovery(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(1, status=429)
        gateway.retrieve_customer(stripe_id)
        world.time += 10
        before = world.time
        for _ in range(5):
            gateway.retrieve_customer(stripe_id)
        assert world.time == before


def fetches(world: World) -> int:
    return sum(request.method == "GET" for request in world.stripe.requests)


def fail(world: World, gateway: StripeGateway, stripe_id: str) -> float:
    """Make a call that fails; how many seconds it took."""
    before = world.time
    with pytest.raises(StripeUnavailableError):
        gateway.retrieve_customer(stripe_id)
    return world.time - before


class TestLists:
    def test_list_that_changes_while_it_is_read_is_unavailable(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        for _ in range(101):
            world.attach_card(stripe_id)

        def refuse_next_page() -> None:
            world.during_sleep = lambda: None
            world.stripe.faults.fail_next(1, status=400, code="resource_missing")

        world.during_sleep = refuse_next_page
        with pytest.raises(StripeUnavailableError, match="the list changed"):
            gateway.list_payment_methods(stripe_id, "card")

    def test_refused_first_page_is_refused(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        world.stripe.faults.fail_next(1, status=400)
        with pytest.raises(StripeRefusedError):
            gateway.list_payment_methods(stripe_id, "card")

    @pytest.mark.parametrize(
        ("data", "has_more"),
        [
            ([], True),
            ([None], True),
            ([{"object": "payment_method"}], True),
            ([{"id": None}, {"id": "pm_1"}], False),
        ],
    )
    def test_page_without_ids_is_malformed(
        self, world: World, stripe_id: str, data: list[Any], has_more: bool
    ) -> None:
        listed = {"object": "list", "data": data, "has_more": has_more}

        class OddClient(StripeDoubleClient):
            def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
                _, status, headers = super().request(method, url, *args, **kwargs)
                return json.dumps(listed), status, headers

        gateway = StripeGateway(world.settings, OddClient(world.stripe))
        with pytest.raises(StripeUnavailableError, match="malformed"):
            gateway.list_payment_methods(stripe_id, "card")


PAGES = ["list_customers_page", "list_subscriptions_page"]


class TestCreatedPages:
    """One page of what was created in a window [from, before), for a walk of the account."""

    @pytest.fixture
    def starts(self, world: World) -> list[int]:
        """The times at which three customers with a subscription were created, oldest first."""
        times = []
        for _ in range(3):
            world.time = int(world.time) + 60
            times.append(int(world.time))
            stripe_id = str(world.request("POST", "/v1/customers", {})["id"])
            world.subscribe(stripe_id)
        return times

    @pytest.mark.parametrize("method", PAGES)
    def test_window_is_half_open(
        self, gateway: StripeGateway, starts: list[int], method: str
    ) -> None:
        first, second, third = starts
        assert created(gateway, method, second, third) == [second]
        assert created(gateway, method, second, third + 1) == [third, second]
        assert created(gateway, method, None, third) == [second, first]
        assert created(gateway, method, first, first) == []

    @pytest.mark.parametrize("method", PAGES)
    def test_page_starts_after_object(
        self, gateway: StripeGateway, starts: list[int], method: str
    ) -> None:
        list_page = getattr(gateway, method)
        objects, has_more = list_page(None, starts[-1] + 1, None)
        assert (len(objects), has_more) == (3, False)
        assert list_page(None, starts[-1] + 1, objects[0]["id"]) == (objects[1:], False)

    def test_full_page_has_more(self, world: World, gateway: StripeGateway) -> None:
        for _ in range(101):
            world.request("POST", "/v1/customers", {})
        before = int(world.time) + 1
        objects, has_more = gateway.list_customers_page(None, before, None)
        assert (len(objects), has_more) == (100, True)
        rest, has_more = gateway.list_customers_page(None, before, objects[-1]["id"])
        assert (len(rest), has_more) == (1, False)

    def test_customers_have_sources(
        self, world: World, gateway: StripeGateway, stripe_id: str
    ) -> None:
        source = {"source": "tok_visa"}
        card = world.request("POST", f"/v1/customers/{stripe_id}/sources", source)
        ((customer,), _) = gateway.list_customers_page(None, int(world.time) + 1, None)
        assert [source["id"] for source in customer["sources"]["data"]] == [card["id"]]

    def test_subscriptions_are_of_any_status(
        self, world: World, gateway: StripeGateway, starts: list[int]
    ) -> None:
        world.request(
            "DELETE", f"/v1/subscriptions/{next(iter(world.stripe.account.subscriptions))}"
        )
        listed, _ = gateway.list_subscriptions_page(None, starts[-1] + 1, None)
        assert [subscription["status"] for subscription in listed] == [
            "active",
            "active",
            "canceled",
        ]

    @pytest.mark.parametrize("method", PAGES)
    def test_missing_start_has_error_of_its_own(self, gateway: StripeGateway, method: str) -> None:
        with pytest.raises(StripeObjectChangedError, match="the list changed"):
            getattr(gateway, method)(None, 1, "missing")

    @pytest.mark.parametrize("method", PAGES)
    def test_other_refusal_is_refusal(
        self, world: World, gateway: StripeGateway, method: str
    ) -> None:
        world.stripe.faults.fail_next(1, status=400)
        with pytest.raises(StripeRefusedError):
            getattr(gateway, method)(None, 1, "missing")

    @pytest.mark.parametrize(
        ("method", "objects"),
        [("list_customers_page", "customers"), ("list_subscriptions_page", "subscriptions")],
    )
    @pytest.mark.usefixtures("starts")
    def test_object_of_other_mode_is_refused(
        self, world: World, gateway: StripeGateway, method: str, objects: str
    ) -> None:
        next(iter(getattr(world.stripe.account, objects).values()))["livemode"] = True
        with pytest.raises(WrongModeError):
            getattr(gateway, method)(None, int(world.time) + 1, None)


def created(gateway: StripeGateway, method: str, since: int | None, before: int) -> list[int]:
    objects, _ = getattr(gateway, method)(since, before, None)
    return [obj["created"] for obj in objects]
