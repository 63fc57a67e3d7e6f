"""The double in process, under the real ``stripe`` library."""

import json
import random
from datetime import datetime
from pathlib import Path

import pytest
import stripe

from local.stripe_double import StripeDouble, TestCard, form, periods
from local.stripe_double.client import ClientKilledError, StripeDoubleClient
from local.stripe_double.errors import ApiError

FIXTURES = Path(__file__).parents[2].parent / "shared/spec/stripe-fixtures.json"
START = 1_800_000_000
DAY = 24 * 3600


class Clock:
    def __init__(self) -> None:
        self.time = float(START)

    def __call__(self) -> float:
        return self.time

    def move(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def double(clock: Clock) -> StripeDouble:
    return StripeDouble(now=clock, random=random.Random(7))


@pytest.fixture
def api(double: StripeDouble, clock: Clock):
    client = StripeDoubleClient(double, sleep=clock.move)
    return stripe.StripeClient("sk_test_double", http_client=client, max_network_retries=0).v1


@pytest.fixture
def price(api) -> str:
    product = api.products.create({"name": "Plan"})
    return monthly(api, product.id)


def monthly(api, product: str, amount: int = 500) -> str:
    return api.prices.create(
        {
            "currency": "usd",
            "product": product,
            "recurring": {"interval": "month"},
            "unit_amount": amount,
        }
    ).id


def subscribe(api, price: str, customer: str, **params):
    return api.subscriptions.create(
        {"customer": customer, "items": [{"price": price}], "trial_period_days": 7, **params}
    )


def events(api, **params) -> list:
    found = api.events.list({"limit": 100, **params}).auto_paging_iter()
    return [event.to_dict() for event in reversed(list(found))]


def types(api) -> list[str]:
    return [event["type"] for event in events(api)]


def refused(call, *arguments) -> stripe.StripeError:
    with pytest.raises(stripe.StripeError) as caught:
        call(*arguments)
    return caught.value


# Customers.


def test_a_customer_has_what_it_was_created_with(api):
    given = {
        "address": {"line1": "1 Test Lane", "country": "IE"},
        "balance": -1500,
        "description": "A customer",
        "email": "ada@example.com",
        "invoice_prefix": "ADA1",
        "invoice_settings": {"footer": "Thanks"},
        "metadata": {"user_id": "u1", "0": "digits are keys, too"},
        "name": "Ada",
        "phone": "+353 1 234",
        "preferred_locales": ["en", "ga"],
        "shipping": {"name": "Ada", "address": {"city": "Cork"}},
        "tax_exempt": "reverse",
    }
    customer = api.customers.retrieve(api.customers.create(given).id).to_dict()

    plain = ("balance", "description", "email", "invoice_prefix", "metadata", "name", "phone")
    assert {key: customer[key] for key in plain} == {key: given[key] for key in plain}
    assert customer["preferred_locales"] == ["en", "ga"]
    assert customer["tax_exempt"] == "reverse"
    assert customer["address"] == {
        "city": None,
        "country": "IE",
        "line1": "1 Test Lane",
        "line2": None,
        "postal_code": None,
        "state": None,
    }
    assert customer["shipping"]["address"]["city"] == "Cork"
    assert customer["shipping"]["phone"] is None
    assert customer["invoice_settings"] == {
        "custom_fields": None,
        "default_payment_method": None,
        "footer": "Thanks",
        "rendering_options": None,
    }
    assert customer["created"] == START
    assert customer["livemode"] is False


def test_an_update_merges_metadata_and_empty_strings_unset(api):
    customer = api.customers.create(
        {
            "metadata": {"a": "1", "b": "2"},
            "name": "Ada",
            "shipping": {"name": "Ada", "address": {"city": "Cork"}},
            "tax_exempt": "exempt",
        }
    )
    updated = api.customers.update(
        customer.id,
        {"metadata": {"a": "", "c": "3"}, "name": "", "shipping": "", "tax_exempt": ""},
    ).to_dict()

    assert updated["metadata"] == {"b": "2", "c": "3"}
    assert (updated["name"], updated["shipping"], updated["tax_exempt"]) == (None, None, "none")
    assert api.customers.update(customer.id, {"metadata": ""}).to_dict()["metadata"] == {}
    previous = events(api, type="customer.updated")[0]["data"]["previous_attributes"]
    assert previous["metadata"] == {"a": "1", "c": None}
    assert previous["name"] == "Ada"


def test_an_update_that_changes_nothing_makes_no_event(api):
    customer = api.customers.create({"name": "Ada"})
    api.customers.update(customer.id, {"name": "Ada"})
    assert types(api) == ["customer.created"]


def test_a_deleted_customer_is_retrieved_as_deleted_and_cannot_be_changed(api):
    customer = api.customers.create({"email": "ada@example.com"}).id
    assert api.customers.delete(customer).deleted is True

    assert api.customers.retrieve(customer).to_dict() == {
        "id": customer,
        "object": "customer",
        "deleted": True,
    }
    for call in (api.customers.update, api.customers.delete, api.customers.payment_sources.list):
        error = refused(call, customer)
        assert (error.http_status, error.code) == (404, "resource_missing")
    assert api.customers.list({"email": "ada@example.com"}).data == []


def test_deleting_a_customer_ends_its_subscriptions_and_takes_its_cards(api, price):
    customer = api.customers.create({"source": "tok_visa", "payment_method": "pm_card_visa"}).id
    subscription = subscribe(api, price, customer).id
    before = len(types(api))
    api.customers.delete(customer)

    assert types(api)[before:] == [
        "customer.subscription.deleted",
        "customer.source.deleted",
        "payment_method.detached",
        "payment_method.detached",
        "customer.deleted",
    ]
    assert api.subscriptions.retrieve(subscription).status == "canceled"
    ended = api.subscriptions.list({"customer": customer, "status": "all"}).data
    assert [entry.id for entry in ended] == [subscription]


def test_an_unknown_customer_is_404_in_the_path_and_400_in_a_parameter(api):
    error = refused(api.customers.retrieve, "cus_none")
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "id")
    error = refused(api.payment_methods.list, {"customer": "cus_none"})
    assert (error.http_status, error.param) == (400, "customer")


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"nickname": "A"}, "nickname", "parameter_unknown"),
        ({"shipping": {"name": "A", "address": {}, "zip": "1"}}, "shipping", None),
        ({"shipping": {"name": "A", "address": {"zip": "1"}}}, "shipping[address][zip]", None),
        ({"shipping": {"address": {"city": "C"}}}, "shipping[name]", "parameter_missing"),
        ({"balance": "many"}, "balance", "parameter_invalid_integer"),
        ({"balance": ""}, "balance", "parameter_invalid_empty"),
        ({"email": "nobody"}, "email", "email_invalid"),
        ({"tax_exempt": "maybe"}, "tax_exempt", None),
        ({"metadata": {"k" * 41: "v"}}, f"metadata[{'k' * 41}]", None),
        ({"metadata": {"k": "v" * 501}}, "metadata[k]", None),
        ({"metadata": {str(i): "v" for i in range(51)}}, "metadata", None),
        ({"metadata": "text"}, "metadata", None),
        ({"address": "text"}, "address", None),
        ({"preferred_locales": {"a": "b"}}, "preferred_locales", None),
        ({"preferred_locales": ""}, "preferred_locales", None),
        ({"name": {"first": "A"}}, "name", None),
        ({"name": "n" * 257}, "name", None),
        ({"invoice_prefix": "ab"}, "invoice_prefix", None),
        ({"source": "tok_none"}, "source", "resource_missing"),
        ({"payment_method": "pm_none"}, "payment_method", "resource_missing"),
        (
            {"invoice_settings": {"default_payment_method": "pm_none"}},
            "invoice_settings[default_payment_method]",
            "resource_missing",
        ),
    ],
)
def test_a_bad_parameter_is_named_and_makes_nothing(api, double, params, param, code):
    error = refused(api.customers.create, params)
    assert isinstance(error, stripe.InvalidRequestError)
    assert error.http_status == 400
    if param == "shipping":
        assert error.param in ("shipping[address]", "shipping[zip]")
    else:
        assert error.param == param
    assert code in (None, error.code)
    assert double.account.customers == {}
    assert double.account.events == {}


def test_an_invoice_prefix_is_one_customers_only(api):
    api.customers.create({"invoice_prefix": "ADA1"})
    assert refused(api.customers.create, {"invoice_prefix": "ADA1"}).param == "invoice_prefix"


def test_customers_are_listed_newest_first_by_email_and_creation_time(api, clock):
    made = []
    for number in range(4):
        made.append(api.customers.create({"email": f"user{number % 2}@example.com"}).id)
        clock.move(10)

    def listed(**params) -> list[str]:
        return [customer.id for customer in api.customers.list(params).data]

    assert listed() == made[::-1]
    assert listed(email="user0@example.com") == [made[2], made[0]]
    assert listed(created={"gte": START + 10, "lt": START + 30}) == [made[2], made[1]]
    assert listed(created={"gt": START + 10, "lte": START + 30}) == [made[3], made[2]]
    assert listed(created=START + 20) == [made[2]]


def test_lists_are_paged_both_ways(api):
    made = [api.customers.create({"name": str(number)}).id for number in range(23)][::-1]

    page = api.customers.list()
    assert len(page.data) == 10
    assert page.has_more is True
    assert [customer.id for customer in page.auto_paging_iter()] == made
    middle = api.customers.list({"limit": 5, "ending_before": made[12]})
    assert [customer.id for customer in middle.data] == made[7:12]
    assert middle.has_more is True
    api.customers.delete(made[4])
    after = api.customers.list({"limit": 100, "starting_after": made[4]})
    assert [customer.id for customer in after.data] == made[5:]
    assert after.has_more is False
    assert refused(api.customers.list, {"limit": 101}).param == "limit"
    assert refused(api.customers.list, {"starting_after": "cus_none"}).param == "starting_after"


def test_objects_are_nested_only_where_they_are_expanded(api, price):
    customer = api.customers.create({"source": "tok_visa", "payment_method": "pm_card_amex"})
    method = api.customers.payment_methods.list(customer.id, {"limit": 1}).data[0].id
    api.customers.update(customer.id, {"invoice_settings": {"default_payment_method": method}})
    subscription = subscribe(api, price, customer.id)

    plain = api.customers.retrieve(customer.id).to_dict()
    assert "sources" not in plain
    assert "subscriptions" not in plain
    assert plain["default_source"].startswith("card_")
    assert plain["invoice_settings"]["default_payment_method"] == method

    paths = [
        "sources",
        "default_source",
        "invoice_settings.default_payment_method",
        "subscriptions.data.latest_invoice",
    ]
    full = api.customers.retrieve(customer.id, {"expand": paths}).to_dict()
    assert full["default_source"]["brand"] == "Visa"
    assert [card["id"] for card in full["sources"]["data"]] == [plain["default_source"]]
    assert full["invoice_settings"]["default_payment_method"]["card"]["brand"] == "amex"
    assert full["subscriptions"]["data"][0]["id"] == subscription.id
    assert full["subscriptions"]["data"][0]["latest_invoice"]["status"] == "paid"
    assert (
        api.subscriptions.retrieve(subscription.id, {"expand": ["customer"]}).customer.id
        == customer.id
    )
    listed = api.customers.list({"expand": ["data.default_source"]}).data[0]
    assert listed.default_source.object == "card"
    assert "sources" not in api.customers.retrieve(customer.id).to_dict()


@pytest.mark.parametrize(
    "path", ["unknown", "invoice_settings", "name", "data.sources", "a.b.c.d.e"]
)
def test_an_unknown_expand_is_refused_before_anything_happens(api, double, path):
    error = refused(api.customers.create, {"expand": [path]})
    assert (error.http_status, error.param) == (400, "expand")
    assert double.account.customers == {}


def test_an_expanded_list_shows_ten_and_says_that_there_are_more(api):
    customer = api.customers.create().id
    for _ in range(11):
        api.customers.payment_sources.create(customer, {"source": "tok_visa"})
    sources = api.customers.retrieve(customer, {"expand": ["sources"]}).sources
    assert (len(sources.data), sources.has_more) == (10, True)
    assert len(list(api.customers.payment_sources.list(customer).auto_paging_iter())) == 11


# Idempotency and keys.


def test_a_repeated_key_replays_the_first_answer(api, double):
    options = {"idempotency_key": "key-1"}
    first = api.customers.create({"name": "Ada"}, options)
    api.customers.update(first.id, {"name": "Grace"})
    second = api.customers.create({"name": "Ada"}, options)

    assert second.id == first.id
    assert second.name == "Ada"
    assert "idempotent-replayed" not in first.last_response.headers
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert second.last_response.headers["Original-Request"] == first.last_response.request_id
    assert len(double.account.customers) == 1
    assert types(api) == ["customer.created", "customer.updated"]


def test_a_key_is_for_one_request_only(api):
    options = {"idempotency_key": "key-1"}
    customer = api.customers.create({"name": "Ada"}, options).id
    for call in (
        lambda: api.customers.create({"name": "Grace"}, options),
        lambda: api.customers.update(customer, {"name": "Ada"}, options),
    ):
        error = refused(call)
        assert isinstance(error, stripe.IdempotencyError)
        assert error.http_status == 400


def test_a_key_is_forgotten_after_a_day(api, clock):
    options = {"idempotency_key": "key-1"}
    first = api.customers.create({"name": "Ada"}, options).id
    clock.move(DAY - 1)
    assert api.customers.create({"name": "Ada"}, options).id == first
    clock.move(2)
    assert api.customers.create({"name": "Ada"}, options).id != first


def test_a_request_in_progress_is_409_to_its_rival(double, clock):
    headers = {"Authorization": "Bearer sk_test_double", "Idempotency-Key": "key-1"}
    double.faults.delay(5, match="POST /v1/customers")
    first = double.request("POST", "/v1/customers", {}, headers)
    assert (first.status, first.delay) == (200, 5)
    rival = double.request("POST", "/v1/customers", {}, headers)
    assert (rival.status, rival.body["error"]["type"]) == (409, "idempotency_error")
    clock.move(5)
    assert double.request("POST", "/v1/customers", {}, headers).body == first.body


@pytest.mark.parametrize(
    ("status", "replayed"), [(400, False), (401, False), (429, False), (503, False), (500, True)]
)
def test_only_what_was_executed_is_stored_under_a_key(api, double, status, replayed):
    double.faults.fail_next(status=status)
    options = {"idempotency_key": "key-1"}
    assert refused(api.customers.create, {}, options).http_status == status
    if replayed:
        assert refused(api.customers.create, {}, options).http_status == status
    else:
        assert api.customers.create({}, options).object == "customer"


def test_a_refused_parameter_leaves_its_key_free_and_a_declined_card_does_not(api):
    options = {"idempotency_key": "key-1"}
    refused(api.customers.create, {"nickname": "A"}, options)
    assert api.customers.create({}, options).object == "customer"
    options = {"idempotency_key": "key-2"}
    for _ in range(2):
        error = refused(api.customers.create, {"source": "tok_chargeDeclined"}, options)
        assert isinstance(error, stripe.CardError)
    assert error.headers["idempotent-replayed"] == "true"


def test_a_key_of_the_wrong_kind_is_401(double):
    for key in ("", "sk_live_double", "pk_test_double", "nonsense"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        response = double.request("GET", "/v1/customers", {}, headers)
        assert response.status == 401
        assert response.body["error"]["type"] == "invalid_request_error"
        assert response.headers["Request-Id"].startswith("req_")
    double.api_keys = {"rk_test_this"}
    assert double.request("GET", "/v1/customers", {}, _key("sk_test_double")).status == 401
    assert double.request("GET", "/v1/customers", {}, _key("rk_test_this")).status == 200


def test_curl_may_send_the_key_as_a_user_name(double):
    # The user name sk_test_double, no password.
    headers = {"Authorization": "Basic c2tfdGVzdF9kb3VibGU6"}
    assert double.request("GET", "/v1/customers", {}, headers).status == 200


def test_live_mode_takes_live_keys_and_marks_its_objects(clock):
    double = StripeDouble(now=clock, livemode=True)
    assert double.request("POST", "/v1/customers", {}, _key("sk_test_double")).status == 401
    made = double.request("POST", "/v1/customers", {}, _key("sk_live_double"))
    assert made.body["livemode"] is True
    assert next(iter(double.account.events.values()))["livemode"] is True


def test_anything_else_is_an_unrecognized_url(api, double):
    response = double.request("GET", "/v1/charges", {}, _key("sk_test_double"))
    assert response.status == 404
    assert "Unrecognized request URL" in response.body["error"]["message"]
    assert refused(api.charges.list).http_status == 404


def test_every_answer_names_its_request_and_version(api, double):
    headers = {**_key("sk_test_double"), "Stripe-Version": "2024-06-20"}
    response = double.request("GET", "/v1/customers", {}, headers)
    assert response.headers["Stripe-Version"] == "2024-06-20"
    assert api.customers.list().last_response.headers["stripe-version"] == stripe.api_version
    headers["Stripe-Version"] = "latest"
    assert double.request("GET", "/v1/customers", {}, headers).status == 400


def _key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# Cards.


def test_the_first_source_is_the_default_and_the_newest_left_follows_it(api):
    customer = api.customers.create().id
    first, second, third = (
        api.customers.payment_sources.create(customer, {"source": token}).id
        for token in ("tok_visa", "tok_mastercard", "tok_amex")
    )

    def default() -> str | None:
        return api.customers.retrieve(customer).default_source

    assert default() == first
    assert api.customers.payment_sources.delete(customer, first).to_dict() == {
        "id": first,
        "object": "card",
        "deleted": True,
    }
    assert default() == third
    api.customers.update(customer, {"default_source": second})
    assert default() == second
    listed = api.customers.payment_sources.list(customer, {"object": "card"}).data
    assert [card.id for card in listed] == [third, second]
    assert api.customers.payment_sources.list(customer, {"object": "bank_account"}).data == []
    api.customers.payment_sources.delete(customer, second)
    api.customers.payment_sources.delete(customer, third)
    assert default() is None
    assert refused(api.customers.payment_sources.retrieve, customer, third).http_status == 404


def test_a_source_given_in_an_update_replaces_the_default(api):
    customer = api.customers.create({"source": "tok_visa"})
    updated = api.customers.update(customer.id, {"source": "tok_amex"})
    cards = api.customers.payment_sources.list(customer.id).data
    assert [card.id for card in cards] == [updated.default_source]
    assert cards[0].brand == "American Express"


def test_a_source_is_changed_and_its_checks_with_it(api):
    customer = api.customers.create({"source": "tok_visa"})
    card = api.customers.payment_sources.update(
        customer.id,
        customer.default_source,
        {"address_line1": "1 Test Lane", "exp_month": 3, "metadata": {"a": "1"}, "name": "Ada"},
    )
    assert (card.name, card.exp_month, card.address_line1_check) == ("Ada", 3, "pass")
    assert card.metadata.to_dict() == {"a": "1"}
    changed = events(api, type="customer.source.updated")[0]["data"]["previous_attributes"]
    assert changed["name"] is None


def test_a_source_is_a_payment_method_too(api):
    customer = api.customers.create({"source": "tok_mastercard"})
    card = api.customers.payment_sources.update(
        customer.id, customer.default_source, {"address_zip": "T12", "name": "Ada"}
    )
    method = api.payment_methods.retrieve(card.id)
    assert (method.object, method.type, method.card.brand) == (
        "payment_method",
        "card",
        "mastercard",
    )
    assert method.billing_details.name == "Ada"
    assert method.billing_details.address.postal_code == "T12"
    assert method.card.checks.address_postal_code_check == "pass"
    assert [m.id for m in api.customers.payment_methods.list(customer.id).data] == [card.id]
    assert api.payment_methods.detach(card.id).customer is None
    assert api.customers.retrieve(customer.id).default_source is None


def test_a_declined_card_is_402_and_attaches_nothing(api, double):
    customer = api.customers.create().id
    error = refused(
        api.customers.payment_sources.create, customer, {"source": "tok_chargeDeclined"}
    )
    assert (error.http_status, error.code, error.error.decline_code) == (
        402,
        "card_declined",
        "generic_decline",
    )
    assert (
        refused(
            api.payment_methods.attach,
            "pm_card_chargeDeclinedInsufficientFunds",
            {"customer": customer},
        ).error.decline_code
        == "insufficient_funds"
    )
    method = api.payment_methods.create({"type": "card", "card": {"token": "tok_chargeDeclined"}})
    assert refused(api.payment_methods.attach, method.id, {"customer": customer}).http_status == 402
    assert api.payment_methods.list({"customer": customer}).data == []
    assert double.account.cards == {}


def test_a_payment_method_is_made_attached_changed_and_detached_for_good(api):
    customer, other = api.customers.create().id, api.customers.create().id
    method = api.payment_methods.create(
        {
            "type": "card",
            "card": {"token": "tok_visa"},
            "billing_details": {"name": "Ada", "address": {"line1": "1 Test Lane"}},
        }
    )
    assert method.customer is None
    assert api.payment_methods.attach(method.id, {"customer": customer}).customer == customer
    assert refused(api.payment_methods.attach, method.id, {"customer": other}).http_status == 400
    api.customers.update(customer, {"invoice_settings": {"default_payment_method": method.id}})
    updated = api.payment_methods.update(
        method.id,
        {"billing_details": {"email": "ada@example.com"}, "card": {"exp_year": 2040}},
    )
    assert updated.billing_details.name == "Ada"
    assert (updated.billing_details.email, updated.card.exp_year) == ("ada@example.com", 2040)

    assert api.payment_methods.detach(method.id).customer is None
    assert api.customers.retrieve(customer).invoice_settings.default_payment_method is None
    assert api.payment_methods.list({"customer": customer, "type": "card"}).data == []
    assert refused(api.payment_methods.attach, method.id, {"customer": customer}).http_status == 400
    detached = events(api, type="payment_method.detached")[0]["data"]
    assert detached["object"]["customer"] is None
    assert detached["previous_attributes"] == {"customer": customer}


def test_a_card_renewed_by_its_network_says_so_in_both_shapes(api, double):
    customer = api.customers.create({"source": "tok_visa", "payment_method": "pm_card_visa"})
    method, card = (m.id for m in api.payment_methods.list({"customer": customer.id}).data)
    for identifier in (method, card):
        double.cards.update_automatically(identifier, exp_year=2044, last4="1881")
    assert api.payment_methods.retrieve(card).card.last4 == "1881"
    assert api.payment_methods.retrieve(method).card.exp_year == 2044
    assert types(api)[-3:] == [
        "payment_method.automatically_updated",
        "customer.source.updated",
        "payment_method.automatically_updated",
    ]


def test_a_token_of_our_own_has_the_fields_it_needs(api, double):
    fields = {"tokenization_method": "apple_pay", "dynamic_last4": "4242", "name": "Ada"}
    double.add_token("tok_wallet", TestCard("visa", "1111", fields=fields))
    customer = api.customers.create({"source": "tok_wallet"})
    card = api.customers.payment_sources.retrieve(customer.id, customer.default_source)
    assert (card.tokenization_method, card.dynamic_last4, card.name) == tuple(fields.values())
    wallet = api.payment_methods.retrieve(card.id).card.wallet
    assert (wallet.type, wallet.dynamic_last4) == ("apple_pay", "4242")


# Subscriptions.


def test_a_subscription_has_its_period_on_its_items(api, price):
    customer = api.customers.create({"source": "tok_visa"}).id
    subscription = api.subscriptions.create(
        {"customer": customer, "items": [{"price": price, "quantity": 3}], "metadata": {"a": "1"}}
    ).to_dict()
    item = subscription["items"]["data"][0]
    assert subscription["status"] == "active"
    assert "current_period_end" not in subscription
    assert item["current_period_start"] == START
    assert item["current_period_end"] == START + 31 * DAY
    assert (item["quantity"], item["price"]["id"], item["plan"]["id"]) == (3, price, price)
    assert api.customers.retrieve(customer).currency == "usd"
    assert types(api)[-3:] == [
        "customer.subscription.created",
        "invoice.paid",
        "customer.updated",
    ]


def test_a_trial_needs_no_card_and_everything_else_does(api, price):
    customer = api.customers.create().id
    trial = subscribe(api, price, customer)
    assert (trial.status, trial.trial_end) == ("trialing", START + 7 * DAY)
    unpaid = {"customer": customer, "items": [{"price": price}]}
    assert refused(api.subscriptions.create, unpaid).code == "resource_missing"
    sent = {**unpaid, "collection_method": "send_invoice"}
    assert refused(api.subscriptions.create, sent).param == "days_until_due"
    invoiced = api.subscriptions.create({**sent, "days_until_due": 30})
    assert (invoiced.status, invoiced.days_until_due) == ("active", 30)


def test_a_card_that_fails_leaves_a_subscription_incomplete(api, price):
    customer = api.customers.create({"source": "tok_chargeCustomerFail"}).id
    given = {"customer": customer, "items": [{"price": price}]}
    assert api.subscriptions.create(given).status == "incomplete"
    error = refused(api.subscriptions.create, {**given, "payment_behavior": "error_if_incomplete"})
    assert error.http_status == 402


def test_items_are_added_changed_and_removed(api, price):
    customer = api.customers.create().id
    other = monthly(api, api.prices.retrieve(price).product, 900)
    subscription = subscribe(api, price, customer)
    first = subscription["items"].data[0].id
    api.subscriptions.update(
        subscription.id, {"items": [{"id": first, "quantity": 5}, {"price": other}]}
    )
    items = api.subscription_items.list({"subscription": subscription.id}).data
    assert [(item.price.id, item.quantity) for item in items] == [(price, 5), (other, 1)]
    api.subscriptions.update(subscription.id, {"items": [{"id": first, "deleted": True}]})
    left = api.subscriptions.retrieve(subscription.id)["items"].data
    assert [item.price.id for item in left] == [other]
    swap = [{"id": left[0].id, "deleted": True}, {"price": price}]
    left = api.subscriptions.update(subscription.id, {"items": swap})["items"].data
    assert [item.price.id for item in left] == [price]
    error = refused(
        api.subscriptions.update, subscription.id, {"items": [{"id": left[0].id, "deleted": True}]}
    )
    assert error.param == "items"
    previous = events(api, type="customer.subscription.updated")[0]["data"]["previous_attributes"]
    assert len(previous["items"]["data"]) == 1


def test_a_subscription_shows_ten_items_and_lists_the_rest(api, price):
    product = api.prices.retrieve(price).product
    items = [{"price": monthly(api, product, amount)} for amount in range(12)]
    customer = api.customers.create().id
    subscription = subscribe(api, price, customer, items=items)
    assert len(subscription["items"].data) == 10
    assert subscription["items"].has_more is True
    assert len(list(subscription["items"].auto_paging_iter())) == 12
    listed = api.subscription_items.list({"subscription": subscription.id, "limit": 5})
    assert len(list(listed.auto_paging_iter())) == 12


def test_a_subscription_ends_at_its_period_or_at_once(api, price, double):
    customer = api.customers.create({"source": "tok_visa"}).id
    given = {"customer": customer, "items": [{"price": price}]}
    one, two = api.subscriptions.create(given).id, api.subscriptions.create(given).id
    marked = api.subscriptions.update(one, {"cancel_at_period_end": True})
    assert marked.cancel_at == marked["items"].data[0].current_period_end
    assert marked.cancellation_details.reason == "cancellation_requested"
    assert api.subscriptions.update(one, {"cancel_at_period_end": False}).cancel_at is None
    api.subscriptions.update(one, {"cancel_at_period_end": True})
    double.subscriptions.advance_period(one)
    canceled = api.subscriptions.cancel(two, {"cancellation_details": {"feedback": "unused"}})
    assert (canceled.status, canceled.ended_at) == ("canceled", START)
    assert canceled.cancellation_details.feedback == "unused"

    assert api.subscriptions.retrieve(one).status == "canceled"
    assert refused(api.subscriptions.cancel, two).http_status == 404
    assert refused(api.subscriptions.update, two, {"description": "x"}).http_status == 400
    assert api.subscriptions.list({"customer": customer}).data == []
    assert len(api.subscriptions.list({"customer": customer, "status": "canceled"}).data) == 2
    assert api.customers.retrieve(customer, {"expand": ["subscriptions"]}).subscriptions.data == []
    with pytest.raises(ValueError, match="ended"):
        double.subscriptions.set_status(one, "active")


def test_collection_is_paused_and_resumed_by_an_update(api, price):
    subscription = subscribe(api, price, api.customers.create().id).id
    paused = api.subscriptions.update(subscription, {"pause_collection": {"behavior": "void"}})
    assert paused.pause_collection.to_dict() == {"behavior": "void", "resumes_at": None}
    resumed = api.subscriptions.update(subscription, {"pause_collection": ""})
    assert resumed.pause_collection is None


def test_states_that_no_call_reaches_are_set_by_hand(api, price, double):
    customer = api.customers.create({"source": "tok_visa"}).id
    subscription = subscribe(api, price, customer).id
    period = api.subscriptions.retrieve(subscription)["items"].data[0].current_period_end
    double.subscriptions.announce_trial_end(subscription)
    double.subscriptions.advance_period(subscription)
    renewed = api.subscriptions.retrieve(subscription)
    assert renewed.status == "active"
    assert renewed["items"].data[0].current_period_start == period
    double.subscriptions.set_status(subscription, "past_due")
    assert api.customers.retrieve(customer).delinquent is True
    double.subscriptions.set_status(subscription, "paused")
    assert api.customers.retrieve(customer).delinquent is False
    assert api.subscriptions.resume(subscription).status == "active"
    double.subscriptions.set_status(subscription, "incomplete_expired")
    kinds = [kind for kind in types(api) if kind.startswith("customer.subscription.")]
    assert kinds == [
        "customer.subscription.created",
        "customer.subscription.trial_will_end",
        "customer.subscription.updated",
        "customer.subscription.updated",
        "customer.subscription.paused",
        "customer.subscription.updated",
        "customer.subscription.resumed",
        "customer.subscription.updated",
        "customer.subscription.updated",
    ]


def test_a_removed_card_is_no_subscriptions_default_any_more(api, price):
    customer = api.customers.create({"source": "tok_visa"})
    subscription = subscribe(api, price, customer.id, default_source=customer.default_source).id
    api.customers.payment_sources.delete(customer.id, customer.default_source)
    assert api.subscriptions.retrieve(subscription).default_source is None


@pytest.mark.parametrize("tells", [True, False])
def test_the_defaults_that_go_with_a_card_go_with_or_without_a_word(double, api, price, tells):
    double.account.emits_lost_defaults = tells
    customer = api.customers.create({"source": "tok_visa", "payment_method": "pm_card_visa"})
    source = customer.default_source
    method = api.customers.payment_methods.list(customer.id).data[0].id
    settings = {"invoice_settings": {"default_payment_method": method}}
    api.customers.update(customer.id, settings)
    subscription = subscribe(api, price, customer.id, default_source=source).id
    before = len(types(api))
    api.customers.payment_sources.delete(customer.id, source)
    api.payment_methods.detach(method)

    told = ["customer.source.deleted", "payment_method.detached", "payment_method.detached"]
    lost = ["customer.updated", "customer.subscription.updated", "customer.updated"]
    assert sorted(types(api)[before:]) == sorted(told + (lost if tells else []))
    left = api.customers.retrieve(customer.id)
    assert left.default_source is None
    assert left.invoice_settings.default_payment_method is None
    assert api.subscriptions.retrieve(subscription).default_source is None


def test_subscriptions_are_listed_by_customer_status_and_price(api, price):
    one, two = api.customers.create().id, api.customers.create().id
    other = monthly(api, api.prices.retrieve(price).product)
    first, second = subscribe(api, price, one).id, subscribe(api, other, one).id
    third = subscribe(api, price, two).id

    def listed(**params) -> list[str]:
        return [entry.id for entry in api.subscriptions.list(params).data]

    assert listed() == [third, second, first]
    assert listed(customer=one) == [second, first]
    assert listed(customer=one, status="trialing", limit=1) == [second]
    assert listed(customer=one, starting_after=second) == [first]
    assert listed(status="active") == []
    assert listed(price=price) == [third, first]


# Events.


def test_an_event_tells_what_happened_and_by_which_request(api, double):
    made = api.customers.create({"name": "Ada"}, {"idempotency_key": "key-1"})
    event = events(api)[0]
    assert event["object"] == "event"
    assert event["api_version"] == stripe.api_version
    assert event["created"] == START
    assert event["request"] == {"id": made.last_response.request_id, "idempotency_key": "key-1"}
    assert event["data"] == {"object": made.to_dict()}
    double.complete_checkout_session(made.id)
    session = events(api)[-1]
    assert session["type"] == "checkout.session.completed"
    assert session["data"]["object"]["customer"] == made.id
    assert session["request"] == {"id": None, "idempotency_key": None}


def test_events_are_listed_by_type_and_time_for_thirty_days(api, clock):
    customer = api.customers.create({"name": "Ada"}).id
    clock.move(10)
    api.customers.update(customer, {"name": "Grace"})
    first = events(api)[0]["id"]

    assert [e["type"] for e in events(api, type="customer.updated")] == ["customer.updated"]
    assert len(events(api, type="customer.*")) == 2
    assert len(events(api, types=["customer.created", "customer.deleted"])) == 1
    assert len(events(api, created={"gte": START + 5})) == 1
    assert refused(api.events.list, {"type": "a", "types": ["b"]}).param == "types"
    clock.move(30 * DAY - 5)
    assert types(api) == ["customer.updated"]
    assert refused(api.events.retrieve, first).http_status == 404


def test_a_double_with_the_same_seed_gives_the_same_answers(clock):
    def story() -> list:
        double = StripeDouble(now=clock, random=random.Random(3))
        for path in ("/v1/customers", "/v1/products"):
            double.request("POST", path, {"name": "Ada"}, _key("sk_test_double"))
        return list(double.account.events.values())

    assert story() == story()


# Faults.


def test_a_lost_request_has_no_effect_and_a_lost_answer_has(api, double):
    double.faults.time_out(when="before", should_retry=False)
    error = refused(api.customers.create)
    assert isinstance(error, stripe.APIConnectionError)
    assert error.should_retry is False
    assert double.account.customers == {}
    double.faults.time_out(when="after")
    assert refused(api.customers.create).should_retry is True
    assert len(double.account.customers) == 1


def test_the_library_retries_a_lost_answer_with_the_same_key(double, clock):
    client = StripeDoubleClient(double, sleep=clock.move)
    api = stripe.StripeClient("sk_test_double", http_client=client, max_network_retries=2).v1
    double.faults.time_out(when="after")
    created = api.customers.create({"name": "Ada"})
    assert list(double.account.customers) == [created.id]
    assert [request.replayed for request in double.requests] == [False, True]
    assert clock.time > START


def test_an_answer_later_than_the_timeout_is_lost(double, clock):
    client = StripeDoubleClient(double, sleep=clock.move, timeout=10)
    api = stripe.StripeClient("sk_test_double", http_client=client, max_network_retries=0).v1
    double.faults.delay(60, match="POST /v1/customers")
    assert isinstance(refused(api.customers.create), stripe.APIConnectionError)
    assert clock.time == START + 10
    assert len(double.account.customers) == 1


def test_faults_hit_what_they_match_as_often_as_they_say(api, double):
    double.faults.fail_next(2, status=429, match="GET /v1/customers/*")
    customer = api.customers.create().id
    for _ in range(2):
        assert isinstance(refused(api.customers.retrieve, customer), stripe.RateLimitError)
    assert api.customers.retrieve(customer).id == customer
    double.faults.fail_next(None, status=403)
    for _ in range(3):
        assert isinstance(refused(api.customers.list), stripe.PermissionError)
    double.faults.clear()
    assert api.customers.list().data[0].id == customer


def test_an_error_may_hide_an_effect(api, double):
    double.faults.fail_next(status=500, takes_effect=True)
    options = {"idempotency_key": "key-1"}
    assert refused(api.customers.create, {}, options).http_status == 500
    assert refused(api.customers.create, {}, options).http_status == 500
    assert len(double.account.customers) == 1


def test_the_death_of_the_client_comes_after_the_effect(api, double):
    double.faults.kill_client_after(match="POST /v1/customers")
    with pytest.raises(ClientKilledError):
        api.customers.create()
    assert len(double.account.customers) == 1


def test_a_bug_of_the_double_is_raised_and_recorded(api, double, monkeypatch):
    monkeypatch.setattr(double.account, "emit", None)
    with pytest.raises(TypeError):
        api.customers.create()
    assert len(double.bugs) == 1


# The rest of the API, and what it is read with.


def test_products_and_prices_are_kept_and_listed(api):
    product = api.products.create({"id": "plan", "name": "Plan", "metadata": {"a": "1"}})
    assert refused(api.products.create, {"id": "plan", "name": "B"}).code == (
        "resource_already_exists"
    )
    assert api.products.retrieve("plan").to_dict() == product.to_dict()
    assert [p.id for p in api.products.list({"active": True}).data] == ["plan"]
    given = {"currency": "EUR", "unit_amount": 900, "lookup_key": "once"}
    once = api.prices.create({**given, "product_data": {"name": "Setup"}})
    assert (once.type, once.currency, once.recurring) == ("one_time", "eur", None)
    month = monthly(api, "plan")
    assert [p.id for p in api.prices.list().data] == [month, once.id]
    assert [p.id for p in api.prices.list({"lookup_keys": ["once"]}).data] == [once.id]
    assert [p.id for p in api.prices.list({"product": "plan"}).data] == [month]
    assert api.prices.retrieve(month, {"expand": ["product"]}).product.name == "Plan"
    for missing in (api.products.retrieve, api.prices.retrieve, api.invoices.retrieve):
        assert refused(missing, "none").code == "resource_missing"
    assert refused(api.prices.create, {**given, "product": "none"}).param == "product"
    assert refused(api.prices.create, given).param == "product"


def test_trials_and_periods_are_moved_by_updates(api, price, clock):
    customer = api.customers.create({"source": "tok_visa"}).id
    other = api.prices.retrieve(price).product
    data = {"currency": "usd", "product": other, "recurring": {"interval": "week"}}
    items = [{"price_data": {**data, "unit_amount": 100}}]
    subscription = subscribe(api, price, customer, items=items)
    until = START + 20 * DAY
    longer = api.subscriptions.update(subscription.id, {"trial_end": until})
    assert (longer.trial_end, longer["items"].data[0].current_period_end) == (until, until)
    clock.move(DAY)
    now = START + DAY
    ended = api.subscriptions.update(subscription.id, {"trial_end": "now"})
    assert (ended.status, ended.trial_end) == ("active", now)
    assert ended["items"].data[0].current_period_end == now + 7 * DAY
    clock.move(DAY)
    anchored = api.subscriptions.update(subscription.id, {"billing_cycle_anchor": "now"})
    assert anchored.billing_cycle_anchor == now + DAY
    dated = api.subscriptions.update(subscription.id, {"cancel_at": until})
    assert (dated.cancel_at, dated.canceled_at) == (until, now + DAY)
    given = {"customer": customer, "items": [{"price": price}]}
    assert api.subscriptions.create({**given, "trial_end": until}).status == "trialing"
    fixed = api.subscriptions.create({**given, "billing_cycle_anchor": until})
    assert fixed["items"].data[0].current_period_end == until


def test_items_take_another_price_and_fields_of_their_own(api, price):
    subscription = subscribe(api, price, api.customers.create().id)
    item = subscription["items"].data[0].id
    yearly = api.prices.create(
        {
            "currency": "usd",
            "product": api.prices.retrieve(price).product,
            "recurring": {"interval": "year", "usage_type": "metered"},
            "unit_amount": 0,
        }
    ).id
    change = {
        "id": item,
        "price": yearly,
        "metadata": {"a": "1"},
        "billing_thresholds": {"usage_gte": 5},
    }
    api.subscriptions.update(subscription.id, {"items": [change], "metadata": {"b": "2"}})
    changed = api.subscription_items.retrieve(item)
    assert (changed.price.id, changed.plan.interval) == (yearly, "year")
    assert (changed.metadata.to_dict(), changed.billing_thresholds.usage_gte) == ({"a": "1"}, 5)
    assert api.subscriptions.retrieve(subscription.id).metadata.to_dict() == {"b": "2"}
    assert refused(api.subscription_items.retrieve, "si_none").http_status == 404


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"items": []}, "items"),
        ({"items": [{"quantity": 1}]}, "items[0]"),
        ({"items": [{"price": "price_none"}]}, "items[0][price]"),
        ({"default_payment_method": "pm_none"}, "default_payment_method"),
        ({"default_source": "card_none"}, "default_source"),
        ({"cancel_at": START + 9, "cancel_at_period_end": True}, "cancel_at"),
        ({"trial_period_days": 0}, "trial_period_days"),
        ({"application_fee_percent": "much"}, "application_fee_percent"),
        ({"off_session": "perhaps"}, "off_session"),
        ({"trial_end": "soon"}, "trial_end"),
        ({"trial_end": START + DAY, "trial_period_days": 1}, "trial_end"),
        ({"customer": "cus_none"}, "customer"),
    ],
)
def test_a_subscription_with_a_bad_parameter_is_not_made(api, price, double, params, param):
    customer = api.customers.create().id
    given = {"customer": customer, "items": [{"price": price}], **params}
    if given["items"] == []:
        # The library leaves an empty list out; its empty string is what Stripe gets for one.
        given["items"] = ""
    assert refused(api.subscriptions.create, given).param == param
    assert double.account.subscriptions == {}


def test_what_is_not_there_or_not_so_is_refused(api, double, price):
    customer = api.customers.create().id
    owner = api.customers.create({"payment_method": "pm_card_visa"}).id
    method = api.payment_methods.list({"customer": owner}).data[0].id
    loose = api.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}}).id
    trial = subscribe(api, price, customer).id
    of_customer = api.customers.payment_methods.retrieve
    assert of_customer(owner, method).id == method
    for call in (
        lambda: of_customer(customer, method),
        lambda: api.payment_methods.retrieve("pm_none"),
        lambda: api.payment_methods.detach(loose),
        lambda: api.subscriptions.retrieve("sub_none"),
        lambda: api.subscriptions.resume(trial),
        lambda: api.subscriptions.list({"customer": "cus_none"}),
        lambda: api.subscription_items.list({"subscription": "sub_none"}),
        lambda: api.customers.update(customer, {"default_source": "card_none"}),
        lambda: api.customers.list({"ending_before": "cus_none"}),
        lambda: api.customers.list({}, {"stripe_version": "2020"}),
        lambda: api.customers.create({}, {"idempotency_key": "k" * 256}),
    ):
        assert refused(call).http_status in (400, 404)
    assert double.bugs == []


def test_a_customers_subscriptions_are_paged_under_its_own_url(api, price):
    customer = api.customers.create().id
    made = [subscribe(api, price, customer).id for _ in range(12)][::-1]
    expanded = api.customers.retrieve(customer, {"expand": ["subscriptions"]}).subscriptions
    assert [entry.id for entry in expanded.data] == made[:10]
    assert [entry.id for entry in expanded.auto_paging_iter()] == made


def test_a_customer_is_put_into_states_that_no_call_sets(api, double):
    customer = api.customers.create().id
    double.change_customer(customer, delinquent=True, currency="jpy")
    changed = events(api)[-1]["data"]
    assert changed["previous_attributes"] == {"currency": None, "delinquent": False}
    assert double.customers_by_metadata("user_id") == {}


def test_invoice_settings_merge_and_empty_lists_unset(api):
    settings = {"custom_fields": [{"name": "PO", "value": "7"}], "footer": "Thanks"}
    customer = api.customers.create({"invoice_settings": settings}).id
    options = {"rendering_options": {"amount_tax_display": "exclude_tax"}, "custom_fields": ""}
    updated = api.customers.update(customer, {"invoice_settings": options, "address": ""}).to_dict()
    assert updated["invoice_settings"] == {
        "custom_fields": None,
        "default_payment_method": None,
        "footer": "Thanks",
        "rendering_options": {"amount_tax_display": "exclude_tax", "template": None},
    }


@pytest.mark.parametrize(
    ("encoded", "decoded"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[]=1&a[]=2", {"a": {"0": "1", "1": "2"}}),
        ("a[0][b]=1&a[1][b]=2", {"a": {"0": {"b": "1"}, "1": {"b": "2"}}}),
        ("a%5Bb%5D=%C3%A9", {"a": {"b": "é"}}),
        ("[odd=1", {"[odd": "1"}),
    ],
)
def test_form_encoding_is_decoded(encoded, decoded):
    assert form.decode(encoded) == decoded


@pytest.mark.parametrize("encoded", ["a=1&a[b]=2", "a[b]=2&a=1"])
def test_a_key_that_is_both_value_and_hash_is_refused(encoded):
    with pytest.raises(ApiError):
        form.decode(encoded)


@pytest.mark.parametrize(
    ("day", "interval", "count", "expected"),
    [
        ("2026-01-31", "month", 1, "2026-02-28"),
        ("2028-01-31", "month", 1, "2028-02-29"),
        ("2026-11-30", "month", 3, "2027-02-28"),
        ("2028-02-29", "year", 1, "2029-02-28"),
        ("2026-12-31", "week", 1, "2027-01-07"),
    ],
)
def test_periods_follow_the_calendar(day, interval, count, expected):
    start = int(datetime.fromisoformat(f"{day}T12:00:00+00:00").timestamp())
    end = int(datetime.fromisoformat(f"{expected}T12:00:00+00:00").timestamp())
    assert periods.after(start, interval, count) == end


# Shapes.


def _missing_keys(wanted: dict, shown: dict, path: str = "") -> list[str]:
    missing = []
    for key, value in wanted.items():
        if key == "metadata":
            continue
        if key not in shown:
            missing.append(f"{path}{key}")
        elif isinstance(value, dict) and isinstance(shown[key], dict):
            missing += _missing_keys(value, shown[key], f"{path}{key}.")
    return missing


@pytest.mark.skipif(not FIXTURES.exists(), reason="NOT RUN: Stripe's fixtures are not here")
def test_objects_have_the_keys_of_stripes_own_fixtures(api, double, price):
    fixtures = json.loads(FIXTURES.read_text())["resources"]
    customer = api.customers.create({"source": "tok_visa"})
    subscription = subscribe(api, price, customer.id)
    event = api.events.list().data[0]
    shown = {
        "customer": customer,
        "card": api.customers.payment_sources.retrieve(customer.id, customer.default_source),
        "payment_method": api.payment_methods.retrieve(customer.default_source),
        "subscription": subscription,
        "subscription_item": subscription["items"].data[0],
        "price": api.prices.retrieve(price),
        "product": api.products.retrieve(api.prices.retrieve(price).product),
        "event": event,
        "deleted_customer": api.customers.delete(customer.id),
    }
    for name, thing in shown.items():
        assert set(thing.to_dict()) == set(fixtures[name]), name
        # What is optional in a nested hash may be null here, but not absent.
        assert name == "event" or _missing_keys(fixtures[name], thing.to_dict()) == [], name
