"""`EXISTING_CUSTOMERS=check`: a create makes no second customer beside one that is no user's."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import functions.create_customer.app as create_customer
from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.config import Authorizer, ExistingCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import (
    CustomerExistsError,
    InvalidFieldError,
    StripeAccessError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Owner, Pointer
from tests.stripe_integrations.actions.customers.helpers import (
    POST,
    acquire_claim,
    crash_create,
    stored_claim,
)
from tests.stripe_integrations.actions.customers.test_rebuild import at_call, die
from tests.world import EMAIL, USER, Json, World
from tools.lambda_events import api_event

OTHER = User("u-2")
LIST = "GET /v1/customers"
LONGEST_CREATE = 30
"""More calls than a create makes."""
NAME_IS_STORED = 3
"""The calls of a process's first create that read and store the deployment's name."""


@pytest.fixture(autouse=True)
def guarded(world: World) -> None:
    world.configure(existing_customers=ExistingCustomers.CHECK)


def add_existing(world: World, email: str = EMAIL, **metadata: str) -> str:
    """Make a customer on Stripe, as another program does; its id."""
    created = world.request("POST", "/v1/customers", {"email": email, "metadata": metadata})
    return str(created["id"])


def ids_on_stripe(world: World) -> list[str]:
    return [found["id"] for found in world.stripe_customers()]


def listings(world: World) -> int:
    return sum(
        request.method == "GET" and request.path == "/v1/customers"
        for request in world.stripe.requests
    )


def customers_of(world: World, user: User) -> list[str]:
    """The ids of the customers on Stripe that were created for a user."""
    found = world.stripe.account.customers.values()
    return [c["id"] for c in found if c["metadata"].get(USER_KEY) == user.id]


def create_in_another_process(world: World, user: User, email: str, *, crashes: bool) -> None:
    """Create a user's customer; the process may die once Stripe has created it."""
    if crashes:
        world.stripe.faults.time_out(None, match=POST, should_retry=False)
    with use(world.new_context()), suppress(StripeUnavailableError):
        StripeCustomer.create(user, email)
    world.stripe.faults.clear()


def problem_of(response: Json) -> tuple[int, str]:
    return response["statusCode"], response["json"]["type"].rpartition(":")[2]


def call_with_token(world: World, path: str, scope: str, **fields: Any) -> Json:
    """POST with the token of the first user."""
    named = {} if path == "/me" else {"user_id": "u-1"}
    body = json.dumps({**named, "billing_email": EMAIL, **fields})
    claims = {"sub": "u-1", "scope": scope}
    return world.call(create_customer, api_event("POST", path, body=body, claims=claims))


class TestExistingCustomer:
    def test_refuses_create_and_leaves_nothing(self, world: World) -> None:
        existing = add_existing(world)
        for _ in range(2):
            with pytest.raises(CustomerExistsError) as refusal:
                StripeCustomer.create(USER, EMAIL)
            assert refusal.value.stripe_ids == (existing,)
        assert ids_on_stripe(world) == [existing]
        assert {item["sk"] for item in world.items()} == {"NAME"}

    def test_message_has_neither_email_nor_id(self, world: World) -> None:
        existing = add_existing(world)
        with pytest.raises(CustomerExistsError) as refusal:
            StripeCustomer.create(USER, EMAIL)
        assert EMAIL not in str(refusal.value)
        assert existing not in str(refusal.value)

    def test_is_ignored_by_default(self, world: World) -> None:
        world.configure(existing_customers=ExistingCustomers.IGNORE)
        add_existing(world)
        assert StripeCustomer.create(USER, EMAIL).is_new
        assert listings(world) == 0

    def test_is_ignored_with_allow_existing(self, world: World) -> None:
        existing = add_existing(world)
        customer = StripeCustomer.create(USER, EMAIL, allow_existing=True)
        assert customer.is_new
        assert ids_on_stripe(world) == [customer.stripe_id, existing]

    @pytest.mark.parametrize("flag", [None, 1, "true"])
    def test_flag_is_true_or_false(self, world: World, flag: Any) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, EMAIL, allow_existing=flag)
        assert refusal.value.field == "allow_existing"
        assert world.items() == []

    @pytest.mark.parametrize("email", ["Jane@example.com", "john@example.com"])
    def test_of_another_email_does_not_count(self, world: World, email: str) -> None:
        add_existing(world, email)  # Stripe's filter distinguishes upper and lower case
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_deleted_on_stripe_does_not_count(self, world: World) -> None:
        world.request("DELETE", f"/v1/customers/{add_existing(world)}")
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_can_be_adopted_instead(self, world: World) -> None:
        existing = add_existing(world)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)
        StripeCustomer.adopt(USER, existing)
        assert StripeCustomer.create(USER, EMAIL).stripe_id == existing
        assert StripeCustomer.create(OTHER, EMAIL).is_new

    def test_behind_many_recorded_ones_is_found(self, world: World) -> None:
        existing = [add_existing(world) for _ in range(3)]
        for number in range(120):
            Pointer.to(Owner(f"u-{number}", add_existing(world))).save()
        with pytest.raises(CustomerExistsError) as refusal:
            StripeCustomer.create(USER, EMAIL)
        assert refusal.value.stripe_ids == tuple(reversed(existing))

    def test_ids_are_limited(self, world: World) -> None:
        existing = [add_existing(world) for _ in range(120)]
        with pytest.raises(CustomerExistsError) as refusal:
            StripeCustomer.create(USER, EMAIL)
        assert refusal.value.stripe_ids == tuple(reversed(existing[20:]))


class TestRecordedCustomer:
    def test_of_another_user_does_not_count(self, world: World) -> None:
        StripeCustomer.create(OTHER, EMAIL)
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_soft_deleted_one_of_same_user_does_not_count(self, world: World) -> None:
        StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))
        assert StripeCustomer.create(USER, EMAIL).is_new
        assert len(world.stripe_customers()) == 2

    def test_released_one_counts(self, world: World) -> None:
        StripeCustomer.adopt(USER, add_existing(world))
        StripeCustomer.release(USER)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(OTHER, EMAIL)

    @pytest.mark.parametrize("delete_on_stripe", [False, True])
    def test_erased_one_does_not_count(self, world: World, *, delete_on_stripe: bool) -> None:
        """It can't be adopted: a refusal would lead nowhere."""
        StripeCustomer.create(OTHER, EMAIL)
        StripeCustomer.erase(OTHER, delete_on_stripe=delete_on_stripe)
        StripeCustomer.erase_stripe_customer(add_existing(world))
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_without_user_counts(self, world: World) -> None:
        """A stored customer that is no user's yet has a pointer without a user."""
        existing = add_existing(world)
        Pointer.to(Owner(None, existing)).save()
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)

    def test_of_lost_record_counts(self, world: World) -> None:
        """A rebuild or an adoption stores it again; a create would make a second one."""
        existing = add_existing(world, **{TOKEN_KEY: "stripe-customers/1-a", USER_KEY: "u-1"})
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)
        assert StripeCustomer.adopt(USER, existing).is_new

    @pytest.mark.parametrize("token", ["shop-prod/1-a", "a token"])
    def test_of_another_deployment_does_not_count(self, world: World, token: str) -> None:
        add_existing(world, **{TOKEN_KEY: token, USER_KEY: "u-1"})
        assert StripeCustomer.create(USER, EMAIL).is_new


class TestExistingUser:
    def test_gets_customer_without_check(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        add_existing(world)
        before = listings(world)
        assert StripeCustomer.create(USER, EMAIL).stripe_id == customer.stripe_id
        assert listings(world) == before

    def test_whose_customer_was_deleted_is_checked_again(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        world.request("DELETE", f"/v1/customers/{customer.stripe_id}")
        add_existing(world)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)
        assert world.items(sk="CLAIM") == []


class TestBudget:
    def test_of_create(self, world: World) -> None:
        StripeCustomer.create(OTHER, "john@example.com")  # the process has the deployment's name
        with world.counting() as new:
            StripeCustomer.create(USER, EMAIL)
        with world.counting() as again:
            StripeCustomer.create(USER, EMAIL)
        with world.counting() as with_same_email:
            StripeCustomer.create(User("u-3"), EMAIL)
        assert (new.database, new.stripe) == (3, 2)
        assert (with_same_email.database, with_same_email.stripe) == (4, 2)
        assert (again.database, again.stripe) == (2, 1)


class TestInterruptedCreate:
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_is_resumed_without_check(self, world: World, when: Any) -> None:
        """Stripe may have been called: a refusal would leave a customer that nobody knows."""
        crash_create(world, when)
        before, existing = listings(world), add_existing(world)
        customer = StripeCustomer.create(USER, EMAIL)
        assert customer.is_new
        assert listings(world) == before
        assert sorted(ids_on_stripe(world)) == sorted([customer.stripe_id, existing])

    def test_is_completed_by_webhook(self, world: World) -> None:
        crash_create(world)
        add_existing(world)
        world.deliver_and_apply()
        created = StripeCustomer.require(USER).stripe_id
        assert StripeCustomer.create(USER, EMAIL).stripe_id == created

    def test_before_check_is_checked_by_next_call(self, world: World) -> None:
        world.stripe.faults.time_out(None, match=LIST, when="before", should_retry=False)
        with use(world.new_context()), pytest.raises(StripeUnavailableError):
            StripeCustomer.create(USER, EMAIL)
        world.stripe.faults.clear()
        assert world.items(pk="USER#u-1") == []
        add_existing(world)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)

    def test_whose_parameters_are_refused_is_replaced_after_check(self, world: World) -> None:
        acquire_claim(tax_exempt="perhaps")
        existing = add_existing(world)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)
        assert ids_on_stripe(world) == [existing]
        assert world.items(sk="CLAIM") == []

    def test_refused_by_stripe_is_checked_again(self, world: World) -> None:
        world.stripe.faults.fail_next(1, status=400, match=POST)
        with pytest.raises(StripeRefusedError):
            StripeCustomer.create(USER, EMAIL)
        add_existing(world)
        with pytest.raises(CustomerExistsError):
            StripeCustomer.create(USER, EMAIL)


class TestConcurrentCreate:
    """The customer of another call may be listed before it is stored."""

    @pytest.mark.parametrize("crashes", [False, True])
    @pytest.mark.parametrize("is_same_user", [False, True])
    def test_at_any_call_is_no_obstacle(
        self, world: World, is_same_user: bool, crashes: bool
    ) -> None:
        StripeCustomer.create(OTHER, EMAIL)  # the process has the deployment's name now
        for number in range(1, LONGEST_CREATE):
            user, email = User(f"u-{number}0"), f"{number}@example.com"
            another = user if is_same_user else User(f"u-{number}1")
            concurrent = partial(create_in_another_process, world, another, email, crashes=crashes)
            with at_call(world, number, concurrent) as calls:
                customer = StripeCustomer.create(user, email)
            if len(calls) < number:
                break
            assert customers_of(world, user) == [customer.stripe_id]
            assert len(customers_of(world, another)) == 1
        assert 4 < number < LONGEST_CREATE - 1

    def test_with_renewed_token_is_no_obstacle(self, world: World) -> None:
        """The claim that is stored by now has the customer's token among its former ones."""

        def renew() -> None:
            claim = acquire_claim()
            add_existing(world, **{TOKEN_KEY: claim.token, USER_KEY: "u-1"})
            world.time += 100_000
            assert claim.renew_token()

        with at_call(world, NAME_IS_STORED + 2, renew) as calls:
            StripeCustomer.create(USER, EMAIL)
        assert calls[NAME_IS_STORED : NAME_IS_STORED + 2] == ["database", "stripe"]
        assert stored_claim().stripe_id

    def test_interrupted_one_of_another_user_does_not_count(self, world: World) -> None:
        crash_create(world)
        assert StripeCustomer.create(OTHER, EMAIL).is_new
        assert StripeCustomer.create(USER, EMAIL).is_new
        assert len(world.stripe_customers()) == 2


class TestCrash:
    def test_at_any_call_blocks_no_later_create(self, world: World) -> None:
        """Without a customer of another program, the next call creates or finds the user's."""
        for number in range(1, LONGEST_CREATE):
            user, email = User(f"u-{number}0"), f"{number}@example.com"
            if not self.crash(world, user, email, number):
                break
            customer = StripeCustomer.create(user, email)
            assert customers_of(world, user) == [customer.stripe_id]
        assert 4 < number < LONGEST_CREATE - 1

    def test_at_any_call_leaves_no_unknown_customer(self, world: World) -> None:
        """A refusal after a crash is one before Stripe was called."""
        outcomes = set()
        for number in range(1, LONGEST_CREATE):
            user, email = User(f"u-{number}0"), f"{number}@example.com"
            if not self.crash(world, user, email, number):
                break
            add_existing(world, email)
            try:
                created = [StripeCustomer.create(user, email).stripe_id]
            except CustomerExistsError:
                created = []
                assert world.items(pk=f"USER#{user.id}") == []
            assert customers_of(world, user) == created
            outcomes.add(bool(created))
        assert outcomes == {False, True}

    def crash(self, world: World, user: User, email: str, number: int) -> bool:
        """Let a create die at its nth call; False if it has fewer."""
        process = use(world.new_context())
        with process, at_call(world, number, die) as calls, suppress(ClientKilledError):
            StripeCustomer.create(user, email)
        return len(calls) >= number


class TestFailure:
    def test_of_list_creates_nothing(self, world: World) -> None:
        world.stripe.faults.fail_next(None, status=401, match=LIST)
        with pytest.raises(StripeAccessError):
            StripeCustomer.create(USER, EMAIL)
        world.stripe.faults.clear()
        assert ids_on_stripe(world) == []
        assert world.items(sk="CLAIM") == []

    def test_of_email_that_stripe_refuses_names_field(self, world: World) -> None:
        with pytest.raises(InvalidFieldError) as refusal:
            StripeCustomer.create(USER, "x" * 600 + "@example.com")
        assert refusal.value.field == "billing_email"
        assert world.items(sk="CLAIM") == []


class TestOverHttp:
    def test_ids_are_for_backends(self, world: World) -> None:
        existing = add_existing(world)
        response = world.create()
        assert problem_of(response) == (409, "customer-exists")
        assert response["json"]["stripe_ids"] == [existing]
        assert EMAIL not in str(response)

    @pytest.mark.parametrize(
        ("scope", "path", "has_ids"),
        [
            ("shop/admin", "/customers", True),
            ("", "/customers", False),
            ("shop/admin", "/me", False),
        ],
    )
    def test_ids_are_for_tokens_with_admin_scope(
        self, world: World, scope: str, path: str, has_ids: bool
    ) -> None:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope="shop/admin")
        existing = add_existing(world)
        response = call_with_token(world, path, scope)
        assert problem_of(response) == (409, "customer-exists")
        assert response["json"].get("stripe_ids") == ([existing] if has_ids else None)
        assert has_ids or existing not in str(response)

    def test_allow_existing_is_for_backends(self, world: World) -> None:
        world.configure(api_authorizer=Authorizer.JWT, jwt_admin_scope="shop/admin")
        existing = add_existing(world)
        for path, scope in (("/customers", ""), ("/me", "shop/admin")):
            response = call_with_token(world, path, scope, allow_existing=True)
            assert problem_of(response) == (403, "forbidden")
            assert response["json"]["field"] == "allow_existing"
        assert ids_on_stripe(world) == [existing]
        response = call_with_token(world, "/customers", "shop/admin", allow_existing=True)
        assert response["statusCode"] == 201

    def test_log_has_ids_and_no_email(self, world: World, log: io.StringIO) -> None:
        world.configure(api_authorizer=Authorizer.JWT)
        existing = add_existing(world)
        call_with_token(world, "/me", "")
        assert existing in log.getvalue()
        assert EMAIL not in log.getvalue()

    def test_invalid_flag_is_named(self, world: World) -> None:
        response = world.create(allow_existing="yes")
        assert problem_of(response) == (422, "invalid-field")
        assert response["json"]["field"] == "allow_existing"
