"""What the product's tests and the simulation rely upon in the Stripe double."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import stripe

from local.stripe_double import StripeDouble
from local.stripe_double.client import StripeDoubleClient
from tests.local.conftest import API_KEY, START, Clock

DAY = 24 * 3600
KEY = {"Authorization": f"Bearer {API_KEY}"}

Json = dict[str, Any]


@pytest.fixture
def price(api: Any) -> str:
    return monthly(api, api.products.create({"name": "Plan"}).id)


def monthly(api: Any, product: str) -> str:
    recurring = {"interval": "month"}
    params = {"currency": "usd", "product": product, "recurring": recurring, "unit_amount": 500}
    return str(api.prices.create(params).id)


def subscribe(api: Any, price: str, customer: str, **params: Any) -> Any:
    items = [{"price": price}]
    given = {"customer": customer, "items": items, "trial_period_days": 7, **params}
    return api.subscriptions.create(given)


def events(api: Any, **params: Any) -> list[Json]:
    """Stripe's events, oldest first."""
    found = api.events.list({"limit": 100, **params}).auto_paging_iter()
    return [event.to_dict() for event in reversed(list(found))]


def types(api: Any) -> list[str]:
    return [event["type"] for event in events(api)]


def refused(call: Callable[..., Any], *arguments: Any) -> Any:
    """The error with which a call is refused."""
    with pytest.raises(stripe.StripeError) as caught:
        call(*arguments)
    return caught.value


class TestCustomers:
    def test_shows_what_was_given(self, api: Any) -> None:
        given = {
            "address": {"line1": "1 Test Lane", "country": "IE"},
            "balance": -1500,
            "email": "ada@example.com",
            "invoice_prefix": "ADA1",
            "invoice_settings": {"footer": "Thanks"},
            "metadata": {"user_id": "u1", "0": "digits are keys, too"},
            "preferred_locales": ["en", "ga"],
            "shipping": {"name": "Ada", "address": {"city": "Cork"}},
        }
        customer = api.customers.retrieve(api.customers.create(given).id).to_dict()
        plain = ("balance", "email", "invoice_prefix", "metadata", "preferred_locales")
        assert {name: customer[name] for name in plain} == {name: given[name] for name in plain}
        empty = dict.fromkeys(("city", "line2", "postal_code", "state"))
        assert customer["address"] == {"line1": "1 Test Lane", "country": "IE", **empty}
        assert customer["shipping"]["phone"] is None
        assert customer["invoice_settings"]["default_payment_method"] is None
        assert (customer["created"], customer["livemode"]) == (START, False)

    def test_update_merges_metadata(self, api: Any) -> None:
        customer = api.customers.create({"metadata": {"a": "1", "b": "2"}, "name": "Ada"}).id
        change = {"metadata": {"a": "", "c": "3"}, "name": ""}
        updated = api.customers.update(customer, change).to_dict()
        assert (updated["metadata"], updated["name"]) == ({"b": "2", "c": "3"}, None)
        api.customers.update(customer, {"metadata": {"c": "3"}})
        (event,) = events(api, type="customer.updated")  # the second update changed nothing
        previous = event["data"]["previous_attributes"]
        assert previous["metadata"] == {"a": "1", "c": None}
        assert previous["name"] == "Ada"

    def test_deleted_stays_deleted(self, api: Any) -> None:
        customer = api.customers.create({"email": "ada@example.com"}).id
        api.customers.delete(customer)
        deleted = {"id": customer, "object": "customer", "deleted": True}
        assert api.customers.retrieve(customer).to_dict() == deleted
        for call in (api.customers.update, api.customers.delete):
            error = refused(call, customer)
            assert (error.http_status, error.code) == (404, "resource_missing")
        assert api.customers.list({"email": "ada@example.com"}).data == []

    def test_deletion_cascades(self, api: Any, price: str) -> None:
        given = {"source": "tok_visa", "payment_method": "pm_card_visa"}
        customer = api.customers.create(given).id
        api.customers.payment_sources.create(customer, {"source": "btok_us_verified"})
        api.payment_methods.attach("pm_usBankAccount", {"customer": customer})
        subscription = subscribe(api, price, customer).id
        before = len(types(api))
        api.customers.delete(customer)
        assert types(api)[before:] == [
            "customer.subscription.deleted",
            "customer.source.deleted",
            "payment_method.detached",
            "customer.source.deleted",
            "payment_method.detached",
            "payment_method.detached",
            "customer.deleted",
        ]
        assert api.subscriptions.retrieve(subscription).status == "canceled"
        ended = api.subscriptions.list({"customer": customer, "status": "all"}).data
        assert [entry.id for entry in ended] == [subscription]


class TestLists:
    def test_newest_first_with_filters(self, api: Any, clock: Clock) -> None:
        made = []
        for number in range(4):
            made.append(api.customers.create({"email": f"user{number % 2}@example.com"}).id)
            clock.move(10)

        def listed(**params: Any) -> list[str]:
            return [customer.id for customer in api.customers.list(params).data]

        assert listed() == made[::-1]
        assert listed(email="user0@example.com") == [made[2], made[0]]
        assert listed(created={"gte": START + 10, "lt": START + 30}) == [made[2], made[1]]
        assert listed(created={"gt": START + 10, "lte": START + 30}) == [made[3], made[2]]

    def test_pages_by_cursor_in_both_directions(self, api: Any) -> None:
        made = [api.customers.create().id for _ in range(23)][::-1]
        page = api.customers.list()
        assert (len(page.data), page.has_more) == (10, True)
        assert [customer.id for customer in page.auto_paging_iter()] == made
        newer = api.customers.list({"limit": 5, "ending_before": made[12]})
        assert ([customer.id for customer in newer.data], newer.has_more) == (made[7:12], True)
        newest = api.customers.list({"limit": 5, "ending_before": made[3]})
        assert ([customer.id for customer in newest.data], newest.has_more) == (made[:3], False)

    def test_deleted_customer_is_not_listed_and_no_cursor(self, api: Any) -> None:
        made = [api.customers.create().id for _ in range(5)][::-1]
        api.customers.delete(made[2])
        listed = api.customers.list({"limit": 2, "starting_after": made[1]})
        assert ([customer.id for customer in listed.data], listed.has_more) == (made[3:], False)
        for cursor in ("starting_after", "ending_before"):
            error = refused(api.customers.list, {cursor: made[2]})
            assert (error.http_status, error.code, error.param) == (400, "resource_missing", cursor)

    def test_cursor_may_be_outside_of_filters(self, api: Any, clock: Clock) -> None:
        made = [api.customers.create({"email": f"{name}@example.com"}).id for name in "aba"]
        clock.move(10)
        newest = api.customers.create().id
        for params in ({"email": "a@example.com"}, {"created": {"lt": START + 10}}):
            listed = api.customers.list({**params, "starting_after": newest}).data
            assert listed[0].id == made[2]
        listed = api.customers.list({"email": "a@example.com", "starting_after": made[1]}).data
        assert [customer.id for customer in listed] == [made[0]]

    def test_created_decides_order_if_the_clock_goes_back(self, api: Any, clock: Clock) -> None:
        first = api.customers.create().id
        clock.move(-10)
        older = api.customers.create().id
        assert [customer.id for customer in api.customers.list().data] == [first, older]
        assert [event["data"]["object"]["id"] for event in events(api)] == [older, first]

    def test_found_by_present_email(self, api: Any, double: StripeDouble) -> None:
        customer = api.customers.create({"email": "ada@example.com"}).id
        api.customers.update(customer, {"email": "grace@example.com"})
        assert api.customers.list({"email": "ada@example.com"}).data == []
        assert len(api.customers.list({"email": "grace@example.com"}).data) == 1
        double.change_customer(customer, email="ada@example.com")
        assert len(api.customers.list({"email": "ada@example.com"}).data) == 1

    def test_test_clock_is_not_in_default_lists(self, api: Any, price: str) -> None:
        on_clock = api.customers.create({"test_clock": "clock_1"}).id
        other = api.customers.create().id
        theirs, usual = (subscribe(api, price, customer).id for customer in (on_clock, other))

        def listed(resource: Any, **params: Any) -> list[str]:
            return [found.id for found in resource.list(params).data]

        assert listed(api.customers) == [other]
        assert listed(api.customers, test_clock="clock_1") == [on_clock]
        assert listed(api.subscriptions) == [usual]
        assert listed(api.subscriptions, test_clock="clock_1") == [theirs]
        assert listed(api.subscriptions, customer=on_clock) == [theirs]

    def test_account_wide_subscriptions(self, api: Any, clock: Clock, price: str) -> None:
        made = []
        for _ in range(4):
            made.append(subscribe(api, price, api.customers.create().id).id)
            clock.move(10)
        api.subscriptions.cancel(made[1])

        def listed(**params: Any) -> list[str]:
            return [subscription.id for subscription in api.subscriptions.list(params).data]

        assert listed(status="all") == made[::-1]
        assert listed() == [made[3], made[2], made[0]]
        assert listed(status="all", starting_after=made[2], limit=1) == [made[1]]
        window = {"gte": START + 10, "lt": START + 30}
        assert listed(status="all", created=window) == [made[2], made[1]]

    def test_sources_and_subscriptions_expand_in_list(self, api: Any, price: str) -> None:
        customer = api.customers.create({"source": "tok_visa"}).id
        subscription = subscribe(api, price, customer).id
        expand = ["data.sources", "data.subscriptions"]
        (listed,) = api.customers.list({"expand": expand}).data
        assert [source.customer for source in listed.sources.data] == [customer]
        assert [found.id for found in listed.subscriptions.data] == [subscription]

    def test_nested_list_shows_ten(self, api: Any, price: str) -> None:
        product = api.prices.retrieve(price).product
        items = [{"price": monthly(api, product)} for _ in range(12)]
        subscription = subscribe(api, price, api.customers.create().id, items=items)
        assert len(subscription["items"].data) == 10
        assert subscription["items"].has_more is True
        assert len(list(subscription["items"].auto_paging_iter())) == 12


class TestIdempotency:
    OPTIONS = {"idempotency_key": "key-1"}  # noqa: RUF012 - never changed

    def test_replays_first_response(self, api: Any) -> None:
        first = api.customers.create({"name": "Ada"}, self.OPTIONS)
        api.customers.update(first.id, {"name": "Grace"})
        second = api.customers.create({"name": "Ada"}, self.OPTIONS)
        assert (second.id, second.name) == (first.id, "Ada")
        assert "idempotent-replayed" not in first.last_response.headers
        assert second.last_response.headers["Idempotent-Replayed"] == "true"
        assert types(api) == ["customer.created", "customer.updated"]

    def test_refuses_other_parameters(self, api: Any) -> None:
        api.customers.create({"name": "Ada"}, self.OPTIONS)
        error = refused(api.customers.create, {"name": "Grace"}, self.OPTIONS)
        assert isinstance(error, stripe.IdempotencyError)

    def test_forgets_after_a_day(self, api: Any, clock: Clock) -> None:
        first = api.customers.create({}, self.OPTIONS).id
        clock.move(DAY - 1)
        assert api.customers.create({}, self.OPTIONS).id == first
        clock.move(2)
        assert api.customers.create({}, self.OPTIONS).id != first

    def test_conflicts_while_in_progress(self, double: StripeDouble, clock: Clock) -> None:
        headers = {**KEY, "Idempotency-Key": "key-1"}
        double.faults.delay(5, match="POST /v1/customers")
        first = double.request("POST", "/v1/customers", {}, headers)
        concurrent = double.request("POST", "/v1/customers", {}, headers)
        assert (first.status, first.delay, concurrent.status) == (200, 5, 409)
        clock.move(5)
        assert double.request("POST", "/v1/customers", {}, headers).body == first.body


class TestAuthentication:
    def test_live_mode(self, clock: Clock) -> None:
        double = StripeDouble(now=clock, livemode=True)
        assert double.request("POST", "/v1/customers", {}, KEY).status == 401
        headers = {"Authorization": "Bearer sk_live_double"}
        assert double.request("POST", "/v1/customers", {}, headers).body["livemode"] is True
        assert [event["livemode"] for event in double.account.events.values()] == [True]


class TestInvoicePrefix:
    def test_prefix_of_another_customer_is_refused(self, api: Any) -> None:
        ada = api.customers.create({"invoice_prefix": "ADA1"}).id
        error = refused(api.customers.create, {"invoice_prefix": "ADA1"})
        assert (error.http_status, error.param) == (400, "invoice_prefix")
        api.customers.update(ada, {"invoice_prefix": "ADA1"})
        api.customers.update(ada, {"invoice_prefix": "ADA2"})
        grace = api.customers.create({"invoice_prefix": "ADA1"}).id
        assert refused(api.customers.update, grace, {"invoice_prefix": "ADA2"}).http_status == 400


class TestCards:
    def test_newest_source_left_is_default(self, api: Any) -> None:
        customer = api.customers.create().id
        sources = api.customers.payment_sources
        first, second, third = (
            sources.create(customer, {"source": token}).id
            for token in ("tok_visa", "tok_mastercard", "tok_amex")
        )
        for removed, default in ((first, third), (third, second), (second, None)):
            sources.delete(customer, removed)
            assert api.customers.retrieve(customer).default_source == default
        assert refused(sources.retrieve, customer, third).http_status == 404

    def test_detached_for_good(self, api: Any) -> None:
        customer = api.customers.create().id
        method = api.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}}).id
        api.payment_methods.attach(method, {"customer": customer})
        api.customers.update(customer, {"invoice_settings": {"default_payment_method": method}})
        api.payment_methods.detach(method)
        settings = api.customers.retrieve(customer).invoice_settings
        assert settings.default_payment_method is None
        assert api.payment_methods.list({"customer": customer, "type": "card"}).data == []
        error = refused(api.payment_methods.attach, method, {"customer": customer})
        assert error.http_status == 400
        (event,) = events(api, type="payment_method.detached")
        assert event["data"]["object"]["customer"] is None
        assert event["data"]["previous_attributes"] == {"customer": customer}

    @pytest.mark.parametrize("is_sent", [True, False])
    def test_events_of_lost_defaults(
        self, double: StripeDouble, api: Any, price: str, is_sent: bool
    ) -> None:
        double.account.emits_lost_defaults = is_sent
        customer = api.customers.create({"source": "tok_visa"})
        source = customer.default_source
        subscription = subscribe(api, price, customer.id, default_source=source).id
        before = len(types(api))
        api.customers.payment_sources.delete(customer.id, source)
        removed = ["customer.source.deleted", "payment_method.detached"]
        lost = ["customer.subscription.updated", "customer.updated"]
        assert sorted(types(api)[before:]) == sorted(removed + (lost if is_sent else []))
        assert api.customers.retrieve(customer.id).default_source is None
        assert api.subscriptions.retrieve(subscription).default_source is None


METHODS: dict[str, Json] = {
    "cashapp": {"type": "cashapp"},
    "link": {"type": "link", "billing_details": {"email": "ada@example.com"}},
    "sepa_debit": {
        "type": "sepa_debit",
        "billing_details": {"email": "ada@example.com", "name": "Ada"},
        "sepa_debit": {"iban": "DE89370400440532013000"},
    },
    "us_bank_account": {
        "type": "us_bank_account",
        "billing_details": {"name": "Ada"},
        "us_bank_account": {
            "account_holder_type": "individual",
            "account_number": "000123456789",
            "routing_number": "110000000",
        },
    },
}
"""How a PaymentMethod of each type but card is created."""


class TestPaymentMethods:
    def test_shows_hash_of_its_type(self, api: Any) -> None:
        made = {kind: api.payment_methods.create(given) for kind, given in METHODS.items()}
        assert all(made[kind].type == kind for kind in METHODS)
        assert made["cashapp"].cashapp.cashtag == "$testbuyer"
        assert made["link"].link.email == "ada@example.com"
        iban = made["sepa_debit"].sepa_debit
        assert (iban.bank_code, iban.country, iban.last4) == ("37040044", "DE", "3000")
        account = made["us_bank_account"].us_bank_account
        assert (account.bank_name, account.last4) == ("STRIPE TEST BANK", "6789")
        assert "card" not in made["link"]

    def test_refuses_hash_of_another_type(self, api: Any) -> None:
        given = {**METHODS["sepa_debit"], "type": "link"}
        assert refused(api.payment_methods.create, given).param == "sepa_debit"
        missing = refused(api.payment_methods.create, {"type": "sepa_debit"})
        assert missing.code == "parameter_missing"
        link = api.payment_methods.create(METHODS["link"]).id
        assert refused(api.payment_methods.update, link, {"card": {"exp_month": 1}}).param == "card"

    def test_listed_by_type(self, api: Any) -> None:
        customer = api.customers.create({"payment_method": "pm_card_visa"}).id
        api.payment_methods.attach("pm_usBankAccount", {"customer": customer})
        api.payment_methods.attach(
            api.payment_methods.create(METHODS["link"]).id, {"customer": customer}
        )
        listed = api.customers.payment_methods.list
        assert [entry.type for entry in listed(customer)] == ["link", "us_bank_account", "card"]
        assert [entry.type for entry in listed(customer, {"type": "link"})] == ["link"]

    @pytest.mark.parametrize("kind", METHODS)
    def test_can_be_attached_updated_and_detached(self, api: Any, price: str, kind: str) -> None:
        customer = api.customers.create().id
        method = api.payment_methods.create(METHODS[kind]).id
        api.payment_methods.attach(method, {"customer": customer})
        settings = {"default_payment_method": method}
        api.customers.update(customer, {"invoice_settings": settings})
        subscription = subscribe(api, price, customer, default_payment_method=method).id
        api.payment_methods.update(method, {"billing_details": {"phone": "1"}})
        before = len(types(api))
        api.payment_methods.detach(method)
        assert types(api)[before:] == [
            "payment_method.detached",
            "customer.updated",
            "customer.subscription.updated",
        ]
        assert types(api).count("payment_method.attached") == 1
        assert types(api).count("payment_method.updated") == 1
        found = api.customers.retrieve(customer).invoice_settings.default_payment_method
        assert (found, api.subscriptions.retrieve(subscription).default_payment_method) == (
            None,
        ) * 2


class TestPaymentSources:
    """Sources other than cards."""

    @staticmethod
    def token(api: Any, kind: str) -> str:
        """What is attached as ``source`` to get an object of this type."""
        if kind == "bank_account":
            return "btok_us_verified"
        return str(api.sources.create({"type": kind, "owner": {"email": "ada@example.com"}}).id)

    @pytest.mark.parametrize("kind", ["bank_account", "sepa_debit", "ach_credit_transfer"])
    def test_can_be_attached_updated_and_detached(self, api: Any, price: str, kind: str) -> None:
        customer = api.customers.create({"source": self.token(api, kind)})
        source = customer.default_source
        card = api.customers.payment_sources.create(customer.id, {"source": "tok_visa"}).id
        subscription = subscribe(api, price, customer.id, default_source=source).id
        api.customers.payment_sources.update(customer.id, source, {"metadata": {"a": "1"}})
        api.customers.payment_sources.delete(customer.id, source)
        assert api.customers.retrieve(customer.id).default_source == card
        assert api.subscriptions.retrieve(subscription).default_source is None
        about = [e for e in events(api) if e["data"]["object"].get("id") == source]
        assert [event["type"] for event in about] == [
            "customer.source.created",
            "customer.source.updated",
            "customer.source.deleted",
        ]
        assert {event["data"]["object"]["customer"] for event in about} == {customer.id}

    def test_listed_by_object(self, api: Any) -> None:
        customer = api.customers.create({"source": "tok_visa"}).id
        add, listed = api.customers.payment_sources.create, api.customers.payment_sources.list
        add(customer, {"source": "btok_us_verified"})
        add(customer, {"source": self.token(api, "sepa_debit")})
        kinds = ["source", "bank_account", "card"]
        assert [entry.object for entry in listed(customer)] == kinds
        for kind in kinds:
            assert [entry.object for entry in listed(customer, {"object": kind})] == [kind]
        expanded = api.customers.retrieve(customer, {"expand": ["sources"]}).sources
        assert [entry.object for entry in expanded] == kinds
        assert [entry.object for entry in api.customers.payment_methods.list(customer)] == [
            "payment_method"
        ]

    def test_detached_source_is_consumed(self, api: Any) -> None:
        customer = api.customers.create().id
        source = self.token(api, "sepa_debit")
        attach = api.customers.payment_sources.create
        assert attach(customer, {"source": source}).status == "chargeable"
        assert refused(attach, customer, {"source": source}).param == "source"
        detached = api.customers.payment_sources.delete(customer, source)
        assert (detached.object, detached.status) == ("source", "consumed")
        assert refused(attach, customer, {"source": source}).param == "source"

    def test_takes_parameters_of_its_type(self, api: Any) -> None:
        customer = api.customers.create({"source": "btok_us_verified"})
        update = api.customers.payment_sources.update
        update(customer.id, customer.default_source, {"account_holder_name": "Ada"})
        error = refused(update, customer.id, customer.default_source, {"exp_month": 1})
        assert (error.param, error.code) == ("exp_month", "parameter_unknown")


class TestSubscriptions:
    def test_period_is_on_items(self, api: Any, price: str) -> None:
        customer = api.customers.create({"source": "tok_visa"}).id
        items = [{"price": price, "quantity": 3}]
        created = api.subscriptions.create({"customer": customer, "items": items}).to_dict()
        (item,) = created["items"]["data"]
        assert created["status"] == "active"
        assert "current_period_end" not in created
        assert (item["quantity"], item["current_period_start"]) == (3, START)
        assert item["current_period_end"] == START + 31 * DAY
        expected = ["customer.subscription.created", "invoice.paid", "customer.updated"]
        assert types(api)[-3:] == expected

    def test_ends_at_period_or_at_once(self, api: Any, price: str, double: StripeDouble) -> None:
        customer = api.customers.create().id
        one, two = subscribe(api, price, customer).id, subscribe(api, price, customer).id
        scheduled = api.subscriptions.update(one, {"cancel_at_period_end": True})
        assert scheduled.cancel_at == scheduled["items"].data[0].current_period_end
        double.subscriptions.advance_period(one)
        assert api.subscriptions.retrieve(one).status == "canceled"
        canceled = api.subscriptions.cancel(two)
        assert (canceled.status, canceled.ended_at) == ("canceled", START)
        assert refused(api.subscriptions.cancel, two).http_status == 404

    def test_fields_that_no_request_sets(self, api: Any, price: str, double: StripeDouble) -> None:
        subscription = subscribe(api, price, api.customers.create().id).id
        discounts = [f"di_{number:024}" for number in range(20_000)]
        double.subscriptions.set_fields(subscription, discounts=discounts)
        assert api.subscriptions.retrieve(subscription).discounts == discounts
        (event,) = events(api, type="customer.subscription.updated")
        assert event["data"]["previous_attributes"] == {"discounts": []}
        with pytest.raises(ValueError, match="color"):
            double.subscriptions.set_fields(subscription, color="red")


class TestEntitlements:
    SUMMARY = "entitlements.active_entitlement_summary.updated"

    def test_granted_and_revoked(self, api: Any, double: StripeDouble) -> None:
        customer, other = api.customers.create().id, api.customers.create().id
        for key in ("seats", "export"):
            double.entitlements.grant(customer, key)
        double.entitlements.grant(other, "seats")
        double.entitlements.revoke(customer, "export")
        listed = api.entitlements.active_entitlements.list
        expand = {"customer": customer, "expand": ["data.feature"]}
        (entitlement,) = listed(expand).data
        assert (entitlement.lookup_key, entitlement.feature.lookup_key) == ("seats", "seats")
        (theirs,) = listed({"customer": other}).data
        assert theirs.feature == entitlement.feature.id
        last = [e["data"] for e in events(api, type=self.SUMMARY)][-1]
        summary, previous = last["object"], last["previous_attributes"]["entitlements"]
        assert summary["customer"] == customer
        assert [entry["id"] for entry in summary["entitlements"]["data"]] == [entitlement.id]
        assert [entry["lookup_key"] for entry in previous["data"]] == ["export", "seats"]

    def test_summary_shows_ten(self, api: Any, double: StripeDouble) -> None:
        customer = api.customers.create().id
        for number in range(12):
            double.entitlements.grant(customer, f"feature-{number}")
        double.entitlements.revoke(customer, "feature-0")
        shown = events(api, type=self.SUMMARY)[-1]["data"]["object"]["entitlements"]
        assert (len(shown["data"]), shown["has_more"]) == (10, True)
        page = api.entitlements.active_entitlements.list({"customer": customer})
        assert len(list(page.auto_paging_iter())) == 11

    def test_end_with_customer(self, api: Any, double: StripeDouble) -> None:
        customer = api.customers.create().id
        double.entitlements.grant(customer, "seats")
        api.customers.delete(customer)
        assert types(api)[-2:] == [self.SUMMARY, "customer.deleted"]
        last = events(api, type=self.SUMMARY)[-1]
        assert last["data"]["object"]["entitlements"]["data"] == []
        list_entitlements = api.entitlements.active_entitlements.list
        assert refused(list_entitlements, {"customer": customer}).code == "resource_missing"


class TestEvents:
    def test_shows_object_and_request(self, api: Any) -> None:
        customer = api.customers.create({"name": "Ada"}, {"idempotency_key": "key-1"})
        (event,) = events(api)
        assert (event["api_version"], event["created"]) == (stripe.api_version, START)
        assert event["data"] == {"object": customer.to_dict()}
        request = {"id": customer.last_response.request_id, "idempotency_key": "key-1"}
        assert event["request"] == request

    def test_listed_by_type_and_time_for_30_days(self, api: Any, clock: Clock) -> None:
        customer = api.customers.create({"name": "Ada"}).id
        clock.move(10)
        api.customers.update(customer, {"name": "Grace"})
        first = events(api)[0]["id"]
        assert len(events(api, types=["customer.created", "customer.deleted"])) == 1
        assert len(events(api, created={"gte": START + 5})) == 1
        clock.move(30 * DAY - 5)
        assert types(api) == ["customer.updated"]
        assert refused(api.events.retrieve, first).http_status == 404


class TestFaults:
    @pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
    def test_lost_request_or_response(
        self, api: Any, double: StripeDouble, when: Literal["before", "after"], made: int
    ) -> None:
        double.faults.time_out(when=when)
        assert isinstance(refused(api.customers.create), stripe.APIConnectionError)
        assert len(double.account.customers) == made

    def test_response_after_timeout_is_lost(self, double: StripeDouble, clock: Clock) -> None:
        client = StripeDoubleClient(double, sleep=clock.move, timeout=10)
        api = stripe.StripeClient(API_KEY, http_client=client, max_network_retries=0).v1
        double.faults.delay(60, match="POST /v1/customers")
        assert isinstance(refused(api.customers.create), stripe.APIConnectionError)
        assert clock.time == START + 10
        assert len(double.account.customers) == 1
