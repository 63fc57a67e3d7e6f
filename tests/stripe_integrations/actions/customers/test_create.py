"""`StripeCustomer.create`: one customer per user, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConfigurationError,
    ConflictError,
    InvalidFieldError,
    StripeAccessError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import CustomerClaim
from tests.world import World

USER = User("u-1")
EMAIL = "jane@example.com"
POST = "POST /v1/customers"


def posts(world: World) -> int:
    return sum(
        request.path == "/v1/customers" and request.method == "POST"
        for request in world.stripe.requests
    )


def test_a_new_customer_stands_on_stripe_and_in_the_table(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL, name="Jane", metadata={"plan": "pro"})

    (on_stripe,) = world.stripe_customers()
    assert customer.is_new
    assert (customer.stripe_id, customer.email, customer.name) == (on_stripe["id"], EMAIL, "Jane")
    assert customer.metadata == on_stripe["metadata"]
    assert on_stripe["metadata"]["plan"] == "pro"
    assert on_stripe["metadata"]["stripe_integrations_user_id"] == "u-1"
    assert customer.is_active
    assert customer.livemode is False
    assert StripeCustomer.get(USER).stripe_id == on_stripe["id"]


def test_the_claim_forgets_the_parameters_once_the_customer_is_there(world: World) -> None:
    StripeCustomer.create(USER, EMAIL, name="Jane")

    (claim,) = world.items(record_type="CustomerClaim")
    assert "parameters" not in claim
    assert "Jane" not in str(claim)


def test_a_second_create_returns_the_first_customer(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    second = StripeCustomer.create(USER, "other@example.com", name="Other")

    assert second.stripe_id == first.stripe_id
    assert not second.is_new
    assert (second.email, second.name) == (EMAIL, None)
    assert len(world.stripe_customers()) == 1


def test_create_keeps_to_its_budget_of_calls(world: World) -> None:
    with world.counting() as new:
        StripeCustomer.create(USER, EMAIL)
    with world.counting() as again:
        StripeCustomer.create(USER, EMAIL)

    assert (new.database, new.stripe) == (2, 1)
    assert (again.database, again.stripe) == (2, 1)


def test_users_do_not_share_customers(world: World) -> None:
    one = StripeCustomer.create(User("u-1"), EMAIL)
    two = StripeCustomer.create(User("u-2"), EMAIL)
    assert one.stripe_id != two.stripe_id


def test_an_existing_customer_is_returned_when_stripe_cannot_be_asked(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    world.stripe.faults.fail_next(None, status=503)
    assert StripeCustomer.create(USER, EMAIL).stripe_id == first.stripe_id


def test_a_customer_that_stripe_has_deleted_is_replaced(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    world.ask("DELETE", f"/v1/customers/{first.stripe_id}")

    second = StripeCustomer.create(USER, EMAIL)

    assert second.is_new
    assert second.stripe_id != first.stripe_id
    (old,) = world.items(record_type="Customer", stripe_id=first.stripe_id)
    assert old["is_active"] is False
    assert "date_purged" in old


def test_a_404_on_the_existing_customer_is_not_taken_for_its_deletion(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    world.stripe.faults.fail_next(None, status=404, code="resource_missing", match="GET *")
    assert StripeCustomer.create(USER, EMAIL).stripe_id == first.stripe_id


# ---- what the caller may pass


def test_currency_and_delinquent_stand_here_until_stripe_reports_them(world: World) -> None:
    StripeCustomer.create(USER, EMAIL, currency="eur", delinquent=True)

    customer = StripeCustomer.get(USER)
    assert (customer.currency, customer.delinquent) == ("eur", False)


def test_default_source_goes_to_stripe_as_source(world: World) -> None:
    customer = StripeCustomer.create(USER, EMAIL, default_source="tok_visa")
    assert customer.default_source.startswith("card_")


def test_none_is_as_good_as_not_passed(world: World) -> None:
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
        ("metadata", {"key": 1}),
        ("metadata", {"k" * 41: "v"}),
        ("metadata", {"key": "v" * 501}),
        ("metadata", {str(number): "v" for number in range(49)}),
    ],
)
def test_a_field_that_may_not_be_passed_is_refused_by_name(
    world: World, field: str, value: object
) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, EMAIL, **{field: value})

    assert refusal.value.field == field
    assert posts(world) == 0
    assert world.items() == []


@pytest.mark.parametrize("email", [None, "", "  ", 7, "x" * 5001])
def test_the_billing_email_is_needed(world: World, email: str) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, email)
    assert refusal.value.field == "billing_email"
    assert world.items() == []


@pytest.mark.parametrize(
    "user", [None, User(""), User(None), User(7), User("u" * 501), User("\ud800")]
)
def test_a_user_needs_an_id(world: World, user: User) -> None:
    for action in (
        lambda: StripeCustomer.create(user, EMAIL),
        lambda: StripeCustomer.get(user),
        lambda: StripeCustomer.require(user),
    ):
        with pytest.raises(InvalidFieldError) as refusal:
            action()
        assert refusal.value.field == "user_id"
    assert world.items() == []


def test_a_user_id_may_be_as_long_as_stripe_takes(world: World) -> None:
    user = User("😀" * 500)
    assert StripeCustomer.create(user, EMAIL).stripe_id == StripeCustomer.get(user).stripe_id


# ---- Stripe refuses, fails, is slow


def test_a_field_that_stripe_refuses_is_named_and_the_user_is_free_again(world: World) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, EMAIL, tax_exempt="perhaps")

    assert refusal.value.field == "tax_exempt"
    assert world.items() == []
    assert StripeCustomer.create(USER, EMAIL).is_new


def test_a_declined_card_is_told_as_the_default_source(world: World) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, EMAIL, default_source="tok_chargeDeclined")
    assert refusal.value.field == "default_source"
    assert world.items() == []


def test_a_refusal_that_names_no_field_is_stripes_own(world: World) -> None:
    world.stripe.faults.fail_next(1, status=400)
    with pytest.raises(StripeRefusedError):
        StripeCustomer.create(USER, EMAIL)
    assert world.items() == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_the_claim_stays_where_stripe_may_have_made_the_customer(world: World, status: int) -> None:
    world.stripe.faults.fail_next(None, status=status, match=POST, stored=False)
    with pytest.raises((StripeAccessError, StripeUnavailableError)):
        StripeCustomer.create(USER, EMAIL)

    (claim,) = world.items()
    assert claim["sk"] == "CLAIM"
    world.stripe.faults.clear()
    assert StripeCustomer.create(USER, EMAIL).is_new
    assert len(world.stripe_customers()) == 1


def test_an_answer_that_is_lost_makes_no_second_customer(world: World) -> None:
    world.stripe.faults.time_out(2, match=POST, when="after", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)

    customer = StripeCustomer.create(USER, EMAIL)

    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]


def test_no_claim_is_put_up_where_the_key_is_of_the_other_mode(table_name: str) -> None:
    world = World(table_name, livemode=True)
    with use(world.context):
        with pytest.raises(ConfigurationError):
            StripeCustomer.create(USER, EMAIL)
        assert world.items() == []


def test_an_expired_idempotency_key_finds_the_customer_by_its_token(world: World) -> None:
    world.stripe.faults.time_out(1, match=POST, when="after", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    world.time += 25 * 3600

    customer = StripeCustomer.create(USER, EMAIL)

    assert customer.is_new
    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]


def test_an_expired_idempotency_key_under_which_nothing_was_made_is_used_again(
    world: World,
) -> None:
    world.stripe.faults.time_out(1, match=POST, when="before", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    world.ask("POST", "/v1/customers", {"email": EMAIL, "name": "somebody else's"})
    world.time += 25 * 3600

    customer = StripeCustomer.create(USER, EMAIL)

    assert customer.is_new
    assert customer.name is None


def test_a_failure_that_stripe_keeps_under_the_key_is_got_around(world: World) -> None:
    world.stripe.faults.fail_next(1, status=500, match=POST, stored=True)

    customer = StripeCustomer.create(USER, EMAIL)

    assert customer.is_new
    assert len(world.stripe_customers()) == 1


def test_a_kept_failure_that_made_the_customer_all_the_same_makes_no_second(world: World) -> None:
    world.stripe.faults.fail_next(1, status=500, match=POST, stored=True, takes_effect=True)

    customer = StripeCustomer.create(USER, EMAIL)

    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]


# ---- rivals and successors


def claim_of(world: World, **parameters: str) -> CustomerClaim:
    """The claim of a process that has got this far."""
    claim, is_mine = CustomerClaim.acquire(
        "u-1", {"stripe": {"email": EMAIL, **parameters}, "local": {}}
    )
    assert is_mine
    return claim


def test_a_rival_waits_for_the_owner_of_a_young_claim(world: World) -> None:
    claim_of(world, name="Owner")
    results = []

    def owner_finishes() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            world.time += 20  # the owner is its own successor here: it does not wait
            results.append(StripeCustomer.create(USER, EMAIL))

    world.during_sleep = owner_finishes
    rival = StripeCustomer.create(USER, "rival@example.com", name="Rival")

    assert rival.stripe_id == results[0].stripe_id
    assert rival.name == "Owner"
    assert not rival.is_new
    assert posts(world) == 1


def test_the_successor_of_a_crash_asks_with_the_same_token_and_parameters(world: World) -> None:
    claim_of(world, name="Owner")
    before = world.time

    customer = StripeCustomer.create(USER, "rival@example.com", name="Rival")

    assert world.time - before >= 8
    assert (customer.name, customer.email) == ("Owner", EMAIL)
    assert posts(world) == 1


def test_parameters_that_stripe_refuses_to_the_owner_do_not_bind_the_successor(
    world: World,
) -> None:
    claim_of(world, tax_exempt="perhaps")
    customer = StripeCustomer.create(USER, "rival@example.com", name="Rival")
    assert (customer.name, customer.email) == ("Rival", "rival@example.com")


def test_a_key_that_is_in_use_is_waited_for(world: World) -> None:
    claim_of(world)
    world.time += 20
    world.stripe.faults.fail_next(2, status=409, match=POST)
    assert StripeCustomer.create(USER, EMAIL).is_new
    assert len(world.stripe_customers()) == 1


def test_a_late_worker_of_a_soft_deleted_customer_starts_anew(world: World) -> None:
    claim_of(world)
    world.time += 20

    def rival_creates_and_deletes() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))

    world.during_sleep = rival_creates_and_deletes
    world.stripe.faults.delay(1, match=POST)
    customer = StripeCustomer.create(USER, EMAIL)

    assert customer.is_active
    assert len(world.items(record_type="CustomerClaim")) == 1
    records = world.items(record_type="Customer")
    assert sorted(record["is_active"] for record in records) == [False, True]
    assert {record["stripe_id"] for record in records} == {
        found["id"] for found in world.stripe_customers()
    }


def while_stripe_answers(world: World, happens: Callable[[], object]) -> None:
    """Let something happen while the answer to the next POST is under way."""

    def once() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            happens()

    world.stripe.faults.delay(1, match=POST)
    world.during_sleep = once


def test_a_create_that_its_own_webhook_finished_first_is_a_success(world: World) -> None:
    while_stripe_answers(world, world.deliver_and_apply)
    customer = StripeCustomer.create(USER, EMAIL, name="Jane")
    assert customer.name == "Jane"
    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]
    assert world.event_states() == {"customer.created": "applied"}


def test_others_that_keep_creating_and_deleting_are_given_way(world: World) -> None:
    def again() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            StripeCustomer.soft_delete(StripeCustomer.create(USER, EMAIL))
        world.during_sleep = again

    claim_of(world)
    world.time += 20
    world.stripe.faults.delay(1, None, match=POST)
    world.during_sleep = again
    with pytest.raises(ConflictError):
        StripeCustomer.create(USER, EMAIL)
    records = world.items(record_type="Customer")
    assert {record["stripe_id"] for record in records} == {
        found["id"] for found in world.stripe_customers()
    }


def test_a_deleted_customer_that_others_replace_first_is_replaced_once(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    world.ask("DELETE", f"/v1/customers/{first.stripe_id}")
    second = []

    def rival() -> None:
        second.append(StripeCustomer.create(USER, EMAIL))

    def once() -> None:
        world.during_sleep = lambda: None
        with use(world.new_context()):
            rival()

    world.during_sleep = once
    customer = StripeCustomer.create(USER, EMAIL)

    assert customer.stripe_id == second[0].stripe_id
    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]


def test_a_refused_list_is_no_refusal_of_the_customer(world: World) -> None:
    world.stripe.faults.time_out(1, match=POST, when="after", should_retry=False)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    world.time += 25 * 3600
    world.stripe.faults.fail_next(1, status=400, match="GET *")
    with pytest.raises(StripeRefusedError):
        StripeCustomer.create(USER, EMAIL)

    customer = StripeCustomer.create(USER, EMAIL)

    assert [customer.stripe_id] == [found["id"] for found in world.stripe_customers()]


def test_a_404_does_not_free_the_user(world: World) -> None:
    world.stripe.faults.fail_next(1, status=404, match=POST)
    with pytest.raises(StripeRefusedError):
        StripeCustomer.create(USER, EMAIL)
    (claim,) = world.items()
    assert claim["sk"] == "CLAIM"


def test_a_stripe_that_keeps_failing_is_asked_a_few_times_only(world: World) -> None:
    world.stripe.faults.fail_next(None, status=500, match=POST, stored=True)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    assert len(world.stripe.requests) < 8
    assert len(CustomerClaim.read("u-1").tokens) == 2


def test_a_claim_takes_no_more_tokens_than_fit(world: World) -> None:
    claim = claim_of(world)
    claim.former_tokens = [str(number) for number in range(99)]
    with pytest.raises(StripeUnavailableError):
        claim.renew_token()


@pytest.mark.parametrize("depth", [8, 800, 100_000])
def test_a_deeply_nested_field_is_refused_before_anything_is_kept(world: World, depth: int) -> None:
    nested: dict[str, object] = {}
    for _ in range(depth):
        nested = {"line1": nested}
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, EMAIL, address=nested)
    assert refusal.value.field == "address"
    assert world.items() == []


def test_fields_that_are_too_long_together_are_refused(world: World) -> None:
    with pytest.raises(InvalidFieldError) as refusal:
        StripeCustomer.create(USER, EMAIL, name="Jane", address={"line1": "x" * 70_000})
    assert refusal.value.field == "address"
    assert world.items() == []


def test_metadata_keys_are_strings(world: World) -> None:
    with pytest.raises(InvalidFieldError):
        StripeCustomer.create(USER, EMAIL, metadata={1: "a"})


def test_an_existing_customer_is_returned_where_the_key_cannot_be_had(world: World) -> None:
    first = StripeCustomer.create(USER, EMAIL)
    context = world.new_context()
    context.settings = replace(world.settings, api_key=None)
    with use(context):
        assert StripeCustomer.create(USER, EMAIL).stripe_id == first.stripe_id
        with pytest.raises(ConfigurationError):
            StripeCustomer.create(User("u-2"), EMAIL)
    assert {item["pk"] for item in world.items()} == {
        "USER#u-1",
        f"STRIPE#{first.stripe_id}",
    }


def test_a_soft_deleted_customer_that_a_query_still_sees_named_is_not_returned(
    world: World,
) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    claim = CustomerClaim.read("u-1")
    StripeCustomer.soft_delete(customer)
    claim.save()  # as a query sees it that runs beside the transaction
    assert StripeCustomer.get(USER) is None


def test_a_kept_failure_whose_customer_was_given_another_email_makes_no_second(
    world: World,
) -> None:
    world.stripe.faults.fail_next(1, match="POST /v1/customers", takes_effect=True)

    def change_the_email() -> None:
        for made in world.stripe_customers():
            world.ask("POST", f"/v1/customers/{made['id']}", {"email": "new@example.com"})

    world.during_sleep = change_the_email
    customer = StripeCustomer.create(USER, EMAIL)
    assert [made["id"] for made in world.stripe_customers()] == [customer.stripe_id]
