"""A removed default is cleared, whatever its type and whichever kinds are stored.

Also the two kinds that are stored optionally: other payment methods, and entitlements.
"""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer
from stripe_integrations.models import Customer
from tests.world import USER, World

IBAN = {"iban": "DE89370400440532013000"}
OWNER = {"name": "Jane", "email": "jane@example.com"}
ACCOUNT = {
    "routing_number": "110000000",
    "account_number": "000123456789",
    "account_holder_type": "individual",
}
METHODS = {
    "sepa_debit": {"sepa_debit": IBAN, "billing_details": OWNER},
    "us_bank_account": {"us_bank_account": ACCOUNT, "billing_details": OWNER},
    "link": {"billing_details": OWNER},
    "cashapp": {},
}
STORED = [
    frozenset({"Card", "Subscription"}),
    frozenset({"Card", "Subscription", "PaymentMethod"}),
    frozenset({"Subscription"}),
    frozenset[str](),
]


@pytest.fixture(params=STORED, ids=lambda names: ",".join(sorted(names)) or "none")
def deployment(request: pytest.FixtureRequest, world: World) -> World:
    """A deployment that stores some kinds; Stripe sends no event when a default is lost."""
    world.configure(stored_records=request.param)
    world.stripe.account.emits_lost_defaults = False
    return world


def add_method(world: World, customer: Customer, kind: str) -> str:
    method = world.request("POST", "/v1/payment_methods", {"type": kind, **METHODS[kind]})["id"]
    path = f"/v1/payment_methods/{method}/attach"
    world.request("POST", path, {"customer": customer.stripe_id})
    settings = {"invoice_settings": {"default_payment_method": method}}
    world.request("POST", f"/v1/customers/{customer.stripe_id}", settings)
    return str(method)


def add_source(world: World, customer: Customer, kind: str) -> str:
    token = "btok_us_verified"
    if kind == "source":
        made = {"type": "ach_credit_transfer", "currency": "usd"}
        token = world.request("POST", "/v1/sources", made)["id"]
    path = f"/v1/customers/{customer.stripe_id}"
    source = world.request("POST", f"{path}/sources", {"source": token})["id"]
    world.request("POST", path, {"default_source": source})
    return str(source)


def default() -> str | None:
    return StripeCustomer.require(USER).default_payment_id


class TestRemovedDefault:
    @pytest.mark.parametrize("kind", METHODS)
    def test_removed_payment_method_is_cleared(
        self, deployment: World, customer: Customer, kind: str
    ) -> None:
        method = add_method(deployment, customer, kind)
        deployment.deliver_and_apply()
        assert default() == method
        deployment.time += 60
        deployment.request("POST", f"/v1/payment_methods/{method}/detach")
        deployment.deliver_and_apply()
        assert default() is None

    @pytest.mark.parametrize("kind", ["bank_account", "source"])
    def test_removed_source_is_cleared(
        self, deployment: World, customer: Customer, kind: str
    ) -> None:
        source = add_source(deployment, customer, kind)
        deployment.deliver_and_apply()
        assert default() == source
        deployment.time += 60
        deployment.request("DELETE", f"/v1/customers/{customer.stripe_id}/sources/{source}")
        deployment.deliver_and_apply()
        assert default() is None

    def test_is_cleared_when_its_removal_arrives_first(
        self, deployment: World, customer: Customer
    ) -> None:
        deployment.deliver_and_apply()
        deployment.time += 60
        method = add_method(deployment, customer, "sepa_debit")
        deployment.time += 5
        deployment.request("POST", f"/v1/payment_methods/{method}/detach")
        for kind in ("payment_method.detached", "customer.updated"):
            deployment.receive(kind)
            deployment.stream()
        assert default() is None


class TestPaymentMethods:
    @pytest.fixture(autouse=True)
    def are_stored(self, world: World) -> None:
        world.configure(stored_records=frozenset({"Card", "Subscription", "PaymentMethod"}))

    def test_have_type_bank_and_last_digits(self, world: World, customer: Customer) -> None:
        account = add_method(world, customer, "us_bank_account")
        source = add_source(world, customer, "bank_account")
        world.deliver_and_apply()
        methods = {m["stripe_id"]: m for m in world.get()["json"]["payment_methods"]}
        assert methods[account]["type"] == "us_bank_account"
        assert methods[account]["last4"] == "6789"
        assert methods[account]["bank_name"]
        assert methods[account]["is_default"] is True
        assert methods[source]["type"] == "bank_account"
        assert methods[source]["is_default"] is False
        assert world.get()["json"]["cards"] == []

    def test_are_complete_with_many_sources(self, world: World, customer: Customer) -> None:
        account = add_source(world, customer, "bank_account")
        path = f"/v1/customers/{customer.stripe_id}/sources"
        for _ in range(11):
            world.request("POST", path, {"source": "tok_visa"})
        world.sync()
        customer = StripeCustomer.require(USER)
        assert [m.stripe_id for m in customer.payment_methods] == [account]
        assert len(customer.cards) == 11

    def test_need_no_fetch_for_their_events(self, world: World, customer: Customer) -> None:
        world.deliver_and_apply()
        world.time += 60
        add_method(world, customer, "cashapp")
        with world.counting() as counts:
            world.deliver_and_apply()
        assert counts.stripe == 0
        assert [m.type for m in StripeCustomer.require(USER).payment_methods] == ["cashapp"]

    def test_removed_one_is_not_restored(self, world: World, customer: Customer) -> None:
        world.deliver_and_apply()
        world.time += 60
        method = add_method(world, customer, "cashapp")
        world.time += 60
        world.request("POST", f"/v1/payment_methods/{method}/detach")
        for delivery in reversed(world.stripe.webhooks.due()):
            world.webhook(delivery.body, delivery.headers)
            world.stream()
        assert StripeCustomer.require(USER).payment_methods == []


class TestEntitlements:
    @pytest.fixture(autouse=True)
    def are_stored(self, world: World) -> None:
        world.configure(stored_records=frozenset({"Card", "Subscription", "Entitlement"}))

    def features(self) -> set[str | None]:
        return {e.lookup_key for e in StripeCustomer.require(USER).entitlements}

    def test_match_grants_and_revocations(self, world: World, customer: Customer) -> None:
        world.stripe.entitlements.grant(customer.stripe_id, "seats")
        world.stripe.entitlements.grant(customer.stripe_id, "exports")
        world.deliver_and_apply()
        assert self.features() == {"seats", "exports"}
        world.time += 60
        world.stripe.entitlements.revoke(customer.stripe_id, "seats")
        world.deliver_and_apply()
        assert self.features() == {"exports"}

    def test_are_complete_beyond_the_summary(self, world: World, customer: Customer) -> None:
        for number in range(25):
            world.stripe.entitlements.grant(customer.stripe_id, f"feature-{number}")
        world.deliver_and_apply()
        assert len(self.features()) == 25
