"""`StripeCustomer.create`: one customer per user, whatever fails on the way."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConfigurationError,
    ConflictError,
    CustomerOfAnotherUserError,
    InvalidFieldError,
    StripeAccessError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer, Owner, Pointer
from tests.stripe_integrations.actions.customers.helpers import (
    POST,
    acquire_claim,
    crash_create,
    during_sleep,
    stored_claim,
)
from tests.world import EMAIL, USER, World

DAY = 86_400


def posts(world: World) -> int:
    return sum(
        request.path == "/v1/customers" and request.method == "POST"
        for request in world.stripe.requests
    )


def ids_on_stripe(world: World) -> list[str]:
    return [found["id"] for found in world.stripe_customers()]


def recreate() -> None:
    StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))


def assert_all_recorded(world: World) -> None:
    """Every customer on Stripe has a record."""
    records = world.items(record_type="Customer")
    assert {record["stripe_id"] for record in records} == set(ids_on_stripe(world))


class TestNewCustomer:
    def test_is_on_stripe_and_stored(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL, name="Jane", metadata={"plan": "pro"})

        (on_stripe,) = world.stripe_customers()
        assert customer.is_new
        assert customer.stripe_id == on_stripe["id"]
        assert (customer.email, customer.name) == (EMAIL, "Jane")
        assert customer.metadata == on_stripe["metadata"]
        assert on_stripe["metadata"]["plan"] == "pro"
        assert on_stripe["metadata"]["stripe_integrations_user_id"] == "u-1"
        assert customer.is_active
        assert customer.livemode is False
        assert StripeCustomer.require(USER).stripe_id == on_stripe["id"]

    def test_parameters_are_removed_from_claim(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL, name="Jane")
        (claim,) = world.items(record_type="CustomerClaim")
        assert "parameters" not in claim
        assert "Jane" not in str(claim)

    def test_calls_are_limited(self, world: World) -> None:
        StripeCustomer.create(User("u-2"), EMAIL)  # the process has the deployment's name now
        with world.counting() as new:
            StripeCustomer.create(USER, EMAIL)
        with world.counting() as again:
            StripeCustomer.create(USER, EMAIL)
        assert (new.database, new.stripe) == (2, 1)
        assert (again.database, again.stripe) == (2, 1)


class TestExistingCustomer:
    def test_is_returned(self, world: World, customer: Customer) -> None:
        second = StripeCustomer.create(USER, "other@example.com", name="Other")
        assert not second.is_new
        assert (second.email, second.name) == (EMAIL, None)
        assert [second.stripe_id] == [customer.stripe_id] == ids_on_stripe(world)

    @pytest.mark.parametrize("fault", [{"status": 503}, {"status": 404, "match": "GET *"}])
    def test_is_returned_when_stripe_fails(
        self, world: World, customer: Customer, fault: dict[str, Any]
    ) -> None:
        world.stripe.faults.fail_next(None, code="resource_missing", **fault)
        assert StripeCustomer.create(USER, EMAIL).stripe_id == customer.stripe_id

    def test_is_returned_without_api_key(self, world: World, customer: Customer) -> None:
        world.configure(api_key=None)
        with use(world.new_context()):
            assert StripeCustomer.create(USER, EMAIL).stripe_id == customer.stripe_id
            with pytest.raises(ConfigurationError):
                StripeCustomer.create(User("u-2"), EMAIL)
        assert {item["pk"] for item in world.items()} == {
            "USER#u-1",
            f"STRIPE#{customer.stripe_id}",
            "DEPLOYMENT",
        }

    def test_is_replaced_when_deleted_on_stripe(self, world: World, customer: Customer) -> None:
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        second = StripeCustomer.create(USER, EMAIL)
        assert second.is_new
        assert second.stripe_id != customer.stripe_id
        (old,) = world.items(record_type="Customer", stripe_id=customer.stripe_id)
        assert old["is_active"] is False
        assert "date_purged" in old

    def test_is_replaced_once_by_concurrent_creates(self, world: World, customer: Customer) -> None:
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        concurrent: list[Customer] = []
        during_sleep(world, lambda: concurrent.append(StripeCustomer.create(USER, EMAIL)))

        second = StripeCustomer.create(USER, EMAIL)

        assert [second.stripe_id] == [concurrent[0].stripe_id] == ids_on_stripe(world)

    def test_is_not_returned_when_soft_deleted(self, world: World, customer: Customer) -> None:
        claim = stored_claim()
        StripeCustomer.soft_delete(customer)
        claim.save()  # as a query sees it that is concurrent with the transaction
        assert StripeCustomer.get(USER) is None


class TestFields:
    def test_currency_and_delinquent_are_stored_until_stripe_reports_them(
        self, world: World
    ) -> None:
        StripeCustomer.create(USER, EMAIL, currency="eur", delinquent=True)
        customer = StripeCustomer.require(USER)
        assert (customer.currency, customer.delinquent) == ("eur", False)

    def test_default_source_is_stripes_source(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL, default_source="tok_visa")
        assert str(customer.default_source).startswith("card_")

    def test_none_is_omitted(self, world: World) -> None:
        assert StripeCustomer.create(USER, EMAIL, name=None, phone=None).name is None

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("date_purged", "2026-01-01"),
            ("is_active", True),
            ("livemode", True),
            ("stripe_id", "cus_1"),
            ("created_at", "2026-01-01"),
            ("modified_at", "2026-01-01"),
            ("email", "x@example.com"),
            ("version", 7),
            ("pk", "USER#other"),
            ("nonsense", 1),
            ("name", 7),
            ("balance", "7"),
            ("balance", True),
            ("balance", 10**30),
            ("address", "Main Street"),
            ("preferred_locales", "de"),
            ("preferred_locales", [1]),
            ("delinquent", "no"),
            ("name", "x" * 5001),
            ("name", "\ud800"),
            ("address", {"line1": float("nan")}),
            ("metadata", {"stripe_integrations_token": "mine"}),
            ("metadata", {"stripe_integrations_user_id": "u-2"}),
            ("metadata", {"key": None}),
            ("metadata", {"key": ["value"]}),
            ("metadata", {"key": {"nested": "value"}}),
            ("metadata", {"key": float("nan")}),
            ("metadata", {"key": 10**500}),
            ("metadata", {"key": 10**5000}),
            ("metadata", {1: "value"}),
            ("metadata", {"k" * 41: "v"}),
            ("metadata", {"key": "v" * 501}),
            ("metadata", {str(number): "v" for number in range(49)}),
        ],
    )
    def test_invalid_field_is_named(self, world: World, field: str, value: Any) -> None:
        self.assert_refused(world, field, **{field: value})

    @pytest.mark.parametrize("depth", [8, 800, 100_000])
    def test_nesting_is_limited(self, world: World, depth: int) -> None:
        nested: dict[str, object] = {}
        for _ in range(depth):
            nested = {"line1": nested}
        self.assert_refused(world, "address", address=nested)

    def test_size_of_all_is_limited(self, world: World) -> None:
        self.assert_refused(world, "address", name="Jane", address={"line1": "x" * 70_000})

    def test_all_invalid_fields_are_named_at_once(self, world: World) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, "", name=7, phone="1", nonsense=1)
        assert refusal.value.field_errors == (
            ("billing_email", "must not be empty"),
            ("name", "must be a string"),
            ("nonsense", "is not a field of a customer"),
        )
        assert (refusal.value.field, refusal.value.reason) == refusal.value.field_errors[0]
        assert posts(world) == 0

    def test_email_is_passed_as_billing_email(self, world: World) -> None:
        missing: Any = None
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, missing, email=EMAIL)
        assert dict(refusal.value.field_errors) == {
            "billing_email": "is missing",
            "email": "must be passed as billing_email",
        }

    def test_numbers_and_flags_in_metadata_are_sent_as_text(self, world: World) -> None:
        metadata = {"a": 1, "b": 1.5, "c": True, "d": "text", "e": 1e16}
        StripeCustomer.create(USER, EMAIL, metadata=metadata)
        (on_stripe,) = world.stripe_customers()
        sent = {name: on_stripe["metadata"][name] for name in metadata}
        assert sent == {"a": "1", "b": "1.5", "c": "true", "d": "text", "e": "1e+16"}

    @pytest.mark.parametrize("email", [None, "", "  ", 7, "x" * 5001])
    def test_billing_email_is_required(self, world: World, email: Any) -> None:
        self.assert_refused(world, "billing_email", billing_email=email)

    def assert_refused(
        self, world: World, field: str, /, *, billing_email: str = EMAIL, **fields: Any
    ) -> None:
        """The field is named before Stripe is called and anything is stored."""
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, billing_email, **fields)
        assert refusal.value.field == field
        assert posts(world) == 0
        assert world.items() == []


class TestUserId:
    @pytest.mark.parametrize("user_id", ["", None, 7.5, "u" * 501, "\ud800"])
    def test_is_required(self, world: World, user_id: Any) -> None:
        self.assert_refused(world, User(user_id))

    def test_user_without_it_is_refused(self, world: World) -> None:
        self.assert_refused(world, None)

    def assert_refused(self, world: World, user: Any) -> None:
        for action in (StripeCustomer.get, StripeCustomer.require):
            with pytest.raises(InvalidFieldError, match="user_id"):
                action(user)
        with pytest.raises(InvalidFieldError, match="user_id"):
            StripeCustomer.create(user, EMAIL)
        assert world.items() == []

    def test_may_be_as_long_as_stripe_allows(self, world: World) -> None:
        user = User("😀" * 500)
        created = StripeCustomer.create(user, EMAIL)
        assert StripeCustomer.require(user).stripe_id == created.stripe_id


class TestRefusal:
    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("tax_exempt", "perhaps", "rejected by Stripe"),
            ("default_source", "tok_chargeDeclined", "rejected by Stripe (card_declined)"),
        ],
    )
    def test_of_field_is_named_and_releases_claim(
        self, world: World, field: str, value: str, reason: str
    ) -> None:
        fields: Any = {field: value}
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, EMAIL, **fields)
        assert refusal.value.field_errors == ((field, reason),)
        assert world.items(sk="CLAIM") == []
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_without_field_releases_claim(self, world: World) -> None:
        world.stripe.faults.fail_next(1, status=400)
        with pytest.raises(StripeRefusedError):
            StripeCustomer.create(USER, EMAIL)
        assert world.items(sk="CLAIM") == []

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, StripeAccessError),
            (403, StripeAccessError),
            (404, StripeRefusedError),
            (429, StripeUnavailableError),
            (500, StripeUnavailableError),
            (503, StripeUnavailableError),
        ],
    )
    def test_claim_remains_when_stripe_may_have_created_customer(
        self, world: World, status: int, error: type[Exception]
    ) -> None:
        world.stripe.faults.fail_next(None, status=status, match=POST, stored=False)
        with pytest.raises(error):
            StripeCustomer.create(USER, EMAIL)
        assert {item["sk"] for item in world.items()} == {"CLAIM", "NAME"}

        world.stripe.faults.clear()
        assert StripeCustomer.create(USER, EMAIL).is_new
        assert len(world.stripe_customers()) == 1

    def test_key_of_other_mode_is_refused_before_claim(self, world: World) -> None:
        world.configure(livemode=True)
        with pytest.raises(ConfigurationError):
            StripeCustomer.create(USER, EMAIL)
        assert world.items() == []


class TestLostResponse:
    def test_makes_no_second_customer(self, world: World) -> None:
        crash_create(world)
        crash_create(world)
        customer = StripeCustomer.create(USER, EMAIL)
        assert [customer.stripe_id] == ids_on_stripe(world)

    def test_customer_is_found_by_token_when_key_has_expired(self, world: World) -> None:
        crash_create(world)
        world.time += DAY
        world.stripe.faults.fail_next(1, status=400, match="GET *")
        with pytest.raises(StripeRefusedError):
            StripeCustomer.create(USER, EMAIL)

        customer = StripeCustomer.create(USER, EMAIL)

        assert customer.is_new
        assert [customer.stripe_id] == ids_on_stripe(world)

    def test_expired_key_is_used_again_when_nothing_was_created(self, world: World) -> None:
        crash_create(world, when="before")
        world.request("POST", "/v1/customers", {"email": EMAIL, "name": "not of this deployment"})
        world.time += DAY

        customer = StripeCustomer.create(USER, EMAIL)

        assert customer.is_new
        assert customer.name is None


class TestStoredFailure:
    @pytest.mark.parametrize("takes_effect", [False, True])
    def test_makes_one_customer(self, world: World, takes_effect: bool) -> None:
        world.stripe.faults.fail_next(1, match=POST, stored=True, takes_effect=takes_effect)
        customer = StripeCustomer.create(USER, EMAIL)
        assert customer.is_new
        assert [customer.stripe_id] == ids_on_stripe(world)

    def test_customer_is_found_under_changed_email(self, world: World) -> None:
        world.stripe.faults.fail_next(1, match=POST, takes_effect=True)

        def change_email() -> None:
            for stripe_id in ids_on_stripe(world):
                world.request("POST", f"/v1/customers/{stripe_id}", {"email": "new@example.com"})

        during_sleep(world, change_email, times=inf)
        customer = StripeCustomer.create(USER, EMAIL)
        assert [customer.stripe_id] == ids_on_stripe(world)

    def test_calls_are_limited(self, world: World) -> None:
        StripeCustomer.create(User("u-2"), EMAIL)  # the process has the deployment's name now
        world.stripe.faults.fail_next(None, match=POST, stored=True)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.create(USER, EMAIL)
        assert len(world.stripe.requests) < 8
        assert len(stored_claim().tokens) == 2

    def test_tokens_are_limited(self, world: World) -> None:
        claim = acquire_claim()
        claim.former_tokens = [str(number) for number in range(99)]
        with pytest.raises(StripeUnavailableError):
            claim.renew_token()


class TestClaim:
    def test_in_progress_is_waited_for(self, world: World) -> None:
        acquire_claim(name="Owner")
        results: list[Customer] = []

        def finish() -> None:
            world.time += 20  # the owner does not wait for its own claim
            results.append(StripeCustomer.create(USER, EMAIL))

        during_sleep(world, finish)
        customer = StripeCustomer.create(USER, "second@example.com", name="Second")

        assert customer.stripe_id == results[0].stripe_id
        assert customer.name == "Owner"
        assert not customer.is_new
        assert posts(world) == 1

    def test_abandoned_is_resumed_with_its_token_and_parameters(self, world: World) -> None:
        claim = acquire_claim(name="Owner")
        before = world.time

        customer = StripeCustomer.create(USER, "second@example.com", name="Second")

        assert world.time - before >= 8
        assert (customer.name, customer.email) == ("Owner", EMAIL)
        assert customer.metadata["stripe_integrations_token"] == claim.token
        assert posts(world) == 1

    def test_abandoned_with_refused_parameters_is_replaced(self, world: World) -> None:
        acquire_claim(tax_exempt="perhaps")
        customer = StripeCustomer.create(USER, "second@example.com", name="Second")
        assert (customer.name, customer.email) == ("Second", "second@example.com")

    def test_token_in_use_is_waited_for(self, world: World) -> None:
        acquire_claim()
        world.time += 20
        world.stripe.faults.fail_next(2, status=409, match=POST)
        assert StripeCustomer.create(USER, EMAIL).is_new
        assert len(world.stripe_customers()) == 1

    def test_completed_by_own_webhook_is_success(self, world: World) -> None:
        world.stripe.faults.delay(1, match=POST)
        during_sleep(world, world.deliver_and_apply)
        customer = StripeCustomer.create(USER, EMAIL, name="Jane")
        assert customer.name == "Jane"
        assert [customer.stripe_id] == ids_on_stripe(world)
        assert world.event_states() == {"customer.created": "applied"}

    def test_of_deleted_customer_is_replaced(self, world: World) -> None:
        acquire_claim()
        world.time += 20
        world.stripe.faults.delay(1, match=POST)
        during_sleep(world, recreate)

        customer = StripeCustomer.create(USER, EMAIL)

        assert customer.is_active
        assert len(world.items(record_type="CustomerClaim")) == 1
        records = world.items(record_type="Customer")
        assert sorted(record["is_active"] for record in records) == [False, True]
        assert_all_recorded(world)

    def test_of_customers_deleted_every_time_is_conflict(self, world: World) -> None:
        acquire_claim()
        world.time += 20
        world.stripe.faults.delay(1, None, match=POST)
        during_sleep(world, recreate, times=inf)
        with pytest.raises(ConflictError):
            StripeCustomer.create(USER, EMAIL)
        assert_all_recorded(world)

    def test_of_customer_that_another_user_has_is_released(self, world: World) -> None:
        acquire_claim()
        world.time += 20
        world.stripe.faults.delay(1, match=POST)
        during_sleep(world, lambda: Pointer.to(Owner("u-2", ids_on_stripe(world)[0])).save())

        with pytest.raises(CustomerOfAnotherUserError):
            StripeCustomer.create(USER, EMAIL)

        (taken,) = ids_on_stripe(world)
        assert [item["user_id"] for item in world.items(record_type="Pointer")] == ["u-2"]
        assert world.items(pk="USER#u-1") == []
        assert StripeCustomer.create(USER, EMAIL).stripe_id != taken

    def test_of_stored_record_whose_customer_another_user_has_is_released(
        self, world: World
    ) -> None:
        claim = acquire_claim()
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        stored_claim().delete()
        claim.save()  # a backup that was made during the create has the claim as it was before
        Pointer.to(Owner("u-2", stripe_id)).save()
        with pytest.raises(CustomerOfAnotherUserError):
            StripeCustomer.create(USER, EMAIL)
        assert [item["user_id"] for item in world.items(record_type="Pointer")] == ["u-2"]
        assert world.items(sk="CLAIM") == []
