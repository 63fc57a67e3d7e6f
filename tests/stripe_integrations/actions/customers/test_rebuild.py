"""`StripeCustomer.rebuild`: what Stripe has of ours and a restored table has not is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.context import use
from stripe_integrations.errors import (
    DatabaseRefusedError,
    InvalidFieldError,
    StaleRecordError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import CustomerClaim, Pointer, UserRecords
from stripe_integrations.models.table import Record
from tests.world import World

Json = dict[str, Any]

USER = User("u-1")
EMAIL = "jane@example.com"
POST = "POST /v1/customers"


def put_back(world: World, images: list[Json]) -> None:
    """Let the table hold these items and no others, as a restore does."""
    client, table = Record.connection().client, world.settings.table_name
    for image in world.images():
        client.delete_item(TableName=table, Key={name: image[name] for name in ("pk", "sk")})
    for image in images:
        client.put_item(TableName=table, Item=image)


def forget(world: World, *keys: str) -> None:
    """Let the table lose the items whose sort key begins so; by default all."""
    kept = [image for image in world.images() if not image["sk"]["S"].startswith(keys or ("",))]
    put_back(world, kept)


def whole(**counts: int) -> Json:
    """The answer of a call that came to the end."""
    nothing = {"listed": 0, "rebuilt": 0, "resume_from": None, "error": None, "unreadable": 0}
    return nothing | counts


def create(world: World, user_id: str = "u-1", **fields: Any) -> str:
    """A customer, some seconds after whatever was before."""
    world.time += 10
    made = world.create(user_id, **fields)
    assert made["statusCode"] == 201
    stripe_id: str = made["json"]["stripe_id"]
    return stripe_id


def crash_a_create(world: World, **fields: Any) -> None:
    """Stripe makes the customer, and its answer is lost."""
    world.stripe.faults.time_out(None, match=POST, when="after", should_retry=False)
    assert world.create(**fields)["statusCode"] == 503
    world.stripe.faults.clear()


def images_of(world: World, key: str) -> list[Json]:
    """The items whose sort key begins so."""
    return [image for image in world.images() if image["sk"]["S"].startswith(key)]


def customers(world: World, user_id: str = "u-1") -> dict[str, bool]:
    """Whether each of a user's customers is active, by its id."""
    records = UserRecords.read(user_id).customers.values()
    return {record.stripe_id: record.is_active for record in records}


def active(world: World, user_id: str = "u-1") -> str | None:
    customer = StripeCustomer.get(User(user_id))
    return customer.stripe_id if customer else None


def add_by_hand(world: World, user_id: str, token: str) -> str:
    world.time += 10
    metadata = {USER_KEY: user_id, TOKEN_KEY: token}
    made = world.ask("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
    stripe_id: str = made["id"]
    return stripe_id


def token_of(world: World, stripe_id: str) -> str:
    token: str = world.ask("GET", f"/v1/customers/{stripe_id}")["metadata"][TOKEN_KEY]
    return token


# ---- one customer


def test_a_token_names_the_deployment_that_made_it(table_name: str) -> None:
    world = World(table_name, deployment_name="shop-prod")
    with use(world.context):
        assert token_of(world, create(world)).startswith("shop-prod/")


def test_a_customer_that_the_table_has_lost_is_put_back_with_all_that_it_has(world: World) -> None:
    stripe_id = create(world, name="Jane", default_source="tok_visa")
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Jane Doe"})
    before = StripeCustomer.get(USER)
    forget(world)
    world.time += 86_400

    assert world.rebuild() == whole(listed=1, rebuilt=1)

    customer = StripeCustomer.get(USER)
    assert (customer.stripe_id, customer.name, customer.email) == (stripe_id, "Jane Doe", EMAIL)
    assert [card.last4 for card in customer.cards] == ["4242"]
    assert abs((customer.created_at - before.created_at).total_seconds()) < 1
    assert Pointer.find(stripe_id).user_id == "u-1"
    assert world.create()["json"]["stripe_id"] == stripe_id
    assert len(world.stripe_customers()) == 1


def test_an_event_finds_a_customer_that_was_put_back(world: World) -> None:
    stripe_id = create(world)
    forget(world)
    world.rebuild()
    world.time += 60
    world.ask("POST", f"/v1/customers/{stripe_id}", {"name": "Later"})
    world.deliver_and_apply()
    assert StripeCustomer.get(USER).name == "Later"


def test_what_the_table_knows_stays_as_it_is(world: World) -> None:
    create(world)
    create(world, "u-2")
    world.delete("u-2")
    before = world.images()
    assert world.rebuild() == whole(listed=2, rebuilt=0)
    assert world.images() == before


def test_only_what_this_deployment_has_made_is_put_back(world: World) -> None:
    world.ask("POST", "/v1/customers", {"email": EMAIL})
    world.ask("POST", "/v1/customers", {"email": EMAIL, "metadata": {USER_KEY: "u-1"}})
    for token in ("stripe-customers", "stripe-customers/", "stripe-customers-2/1", "a token"):
        add_by_hand(world, "u-1", token)
    add_by_hand(world, "", "stripe-customers/1")
    assert world.rebuild() == whole(listed=7, rebuilt=0)
    assert world.items() == []


def test_a_create_that_stripe_alone_knows_of_is_finished(world: World) -> None:
    world.stripe.faults.time_out(None, match=POST, when="after", should_retry=False)
    assert world.create(name="Jane", currency="eur")["statusCode"] == 503
    world.stripe.faults.clear()
    world.time += 30 * 86_400

    assert world.rebuild()["rebuilt"] == 1

    (made,) = world.stripe_customers()
    customer = StripeCustomer.get(USER)
    assert (customer.stripe_id, customer.currency) == (made["id"], "eur")
    assert world.create()["statusCode"] == 200


def test_a_claim_that_a_later_customer_came_after_gives_way_to_it(world: World) -> None:
    CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
    backup = world.images()
    forget(world)
    stripe_id = create(world)
    put_back(world, backup)

    assert world.rebuild()["rebuilt"] == 1

    assert active(world) == stripe_id
    assert world.create()["json"]["stripe_id"] == stripe_id


def test_a_claim_that_came_after_a_lost_customer_stays(world: World) -> None:
    old = create(world)
    forget(world)
    world.time += 60
    claim, _ = CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})

    world.rebuild()

    assert customers(world) == {old: False}
    assert CustomerClaim.read("u-1").token == claim.token
    assert create(world) != old


# ---- several customers of one user


def test_of_several_the_newest_is_the_active_one(world: World) -> None:
    first = create(world)
    world.delete()
    second = create(world)
    world.delete()
    third = create(world, default_source="tok_visa")
    forget(world)

    assert world.rebuild()["rebuilt"] == 3

    assert customers(world) == {first: False, second: False, third: True}
    assert active(world) == third
    assert [Pointer.find(one).user_id for one in (first, second, third)] == ["u-1"] * 3
    world.ask("POST", f"/v1/customers/{first}", {"name": "late news"})
    world.deliver_and_apply()
    assert UserRecords.read("u-1").customer(first).name is None
    (late,) = world.items(kind="customer.updated", customer_id=first)
    assert late["state"] == "ignored"


def test_of_several_of_one_second_stripes_list_tells_which_is_the_newest(world: World) -> None:
    made = []
    for _ in range(5):
        made.append(world.create()["json"]["stripe_id"])
        world.delete()
    forget(world)
    world.rebuild()
    assert active(world) == made[-1]
    assert sum(customers(world).values()) == 1

    for stripe_id in made[:-1]:  # whatever of them the table has, and whichever is active in it
        forget(world)
        world.stripe.account.deleted_customers.update(set(made) - {stripe_id})
        world.rebuild()
        assert active(world) == stripe_id
        world.stripe.account.deleted_customers.clear()
        world.rebuild()
        assert active(world) == made[-1]


def test_a_customer_that_came_after_the_backup_takes_the_place_of_the_one_in_it(
    world: World,
) -> None:
    old = create(world)
    backup = world.images()
    world.delete()
    new = create(world)
    put_back(world, backup)

    assert world.rebuild()["rebuilt"] == 1

    assert customers(world) == {old: False, new: True}
    assert active(world) == new
    assert "date_purged" in world.items(stripe_id=old, record_type="Customer")[0]


def test_it_does_so_too_where_stripe_has_deleted_the_one_in_the_backup(world: World) -> None:
    old = create(world, default_source="tok_visa")
    world.deliver_and_apply()
    StripeCustomer.sync(StripeCustomer.get(USER))
    backup = world.images()
    world.time += 60
    world.ask("DELETE", f"/v1/customers/{old}")
    new = create(world)
    put_back(world, backup)

    world.rebuild()

    assert active(world) == new
    assert customers(world) == {old: False, new: True}
    assert UserRecords.read("u-1").customer(old).cards == []


def test_an_older_customer_does_not_come_back_when_the_newest_is_deleted_on_stripe(
    world: World,
) -> None:
    old = create(world)
    world.delete()
    new = create(world)
    forget(world)
    world.rebuild()
    forget(world, f"CUSTOMER#{old}")
    world.ask("DELETE", f"/v1/customers/{new}")
    world.deliver_and_apply()

    world.rebuild()

    assert customers(world) == {old: False, new: False}
    assert active(world) is None


def test_a_customer_that_stripe_does_not_know_is_compared_by_its_date(world: World) -> None:
    create(world)
    backup = world.images()
    world.delete()
    new = create(world)
    put_back(world, backup)
    world.stripe.faults.fail_next(
        None, status=404, code="resource_missing", match=f"GET /v1/customers/{active(world)}"
    )
    world.rebuild()
    assert active(world) == new


def test_where_stripe_refuses_to_say_which_is_older_nothing_is_decided(world: World) -> None:
    old = create(world)
    backup = world.images()
    world.delete()
    create(world)
    put_back(world, backup)
    world.stripe.faults.fail_next(None, status=400, match=f"GET /v1/customers/{old}")
    with pytest.raises(StripeRefusedError):
        world.rebuild()
    assert active(world) == old


def test_a_customer_made_in_the_second_of_one_that_is_gone_takes_its_place(world: World) -> None:
    old = world.create()["json"]["stripe_id"]
    backup = world.images()
    world.ask("DELETE", f"/v1/customers/{old}")
    new = world.create()["json"]["stripe_id"]
    put_back(world, backup)
    world.rebuild()
    assert active(world) == new
    assert world.create()["json"]["stripe_id"] == new


def test_it_takes_its_place_too_where_our_clock_is_ahead_of_stripes(world: World) -> None:
    with use(world.new_context()) as ahead:
        ahead.clock = lambda: world.time + 4
        old = StripeCustomer.create(USER, EMAIL).stripe_id
    backup = world.images()
    world.time += 1
    world.ask("DELETE", f"/v1/customers/{old}")
    world.time += 1
    new = world.create()["json"]["stripe_id"]
    put_back(world, backup)
    world.rebuild()
    assert active(world) == new


# ---- tokens that were copied


def test_a_copy_of_a_customer_never_takes_its_place(world: World) -> None:
    stripe_id = create(world)
    add_by_hand(world, "u-1", token_of(world, stripe_id))
    before = world.images()
    assert world.rebuild() == whole(listed=2, rebuilt=0)
    assert world.images() == before


def test_a_copy_of_a_soft_deleted_customer_does_not_bring_it_back(world: World) -> None:
    stripe_id = create(world)
    add_by_hand(world, "u-1", token_of(world, stripe_id))
    world.delete()
    assert world.rebuild()["rebuilt"] == 0
    assert active(world) is None


def test_of_copies_one_is_put_back_and_the_log_names_the_others(world: World, log: Any) -> None:
    stripe_id = create(world)
    copy = add_by_hand(world, "u-1", token_of(world, stripe_id))
    forget(world)
    assert world.rebuild()["rebuilt"] == 1
    assert active(world) == copy
    warning = next(line for line in log.getvalue().splitlines() if "skipped" in line)
    assert stripe_id in warning
    assert copy in warning


def test_a_customer_whose_metadata_was_given_to_another_user_stays_where_it_is(
    world: World,
) -> None:
    stripe_id = create(world)
    world.ask("POST", f"/v1/customers/{stripe_id}", {"metadata": {USER_KEY: "u-2"}})
    assert world.rebuild()["rebuilt"] == 0
    assert (active(world), active(world, "u-2")) == (stripe_id, None)


# ---- a backup beside which a transaction was under way


@pytest.mark.parametrize("lost", ["CLAIM", "CUSTOMER", "POINTER"])
def test_half_of_a_create_is_made_whole(world: World, lost: str) -> None:
    stripe_id = create(world)
    forget(world, lost)

    assert world.rebuild()["rebuilt"] == 1

    assert active(world) == stripe_id
    assert Pointer.find(stripe_id).user_id == "u-1"
    assert world.create()["json"]["stripe_id"] == stripe_id
    assert world.rebuild()["rebuilt"] == 0


def test_half_of_a_soft_delete_keeps_no_user_from_a_new_customer(world: World) -> None:
    old = create(world)
    pointer = [image for image in world.images() if image["sk"]["S"] == "CLAIM"]
    world.delete()
    put_back(world, world.images() + pointer)
    assert world.rebuild()["rebuilt"] == 1
    assert create(world) != old


def half_an_activation(world: World) -> str:
    """The record of a create and its pointer by Stripe's id are there, the claim is as before."""
    world.time += 10
    crash_a_create(world)
    claim = images_of(world, "CLAIM")
    stripe_id: str = world.create()["json"]["stripe_id"]
    forget(world, "CLAIM")
    put_back(world, world.images() + claim)
    return stripe_id


@pytest.mark.parametrize("ahead", [0, 60])
def test_a_claim_whose_customer_is_there_already_points_to_it(world: World, ahead: int) -> None:
    stripe_id = half_an_activation(world)
    (claim,) = images_of(world, "CLAIM")
    forget(world, "CLAIM")
    claim["claimed_at"]["N"] = str(
        float(claim["claimed_at"]["N"]) + ahead
    )  # our clock before Stripe's
    put_back(world, [*world.images(), claim])
    assert world.rebuild()["rebuilt"] == 1
    assert active(world) == stripe_id
    assert world.rebuild()["rebuilt"] == 0


def test_a_create_takes_up_the_half_of_another(world: World) -> None:
    stripe_id = half_an_activation(world)
    forget(world, "POINTER")
    again = world.create()
    assert (again["statusCode"], again["json"]["stripe_id"]) == (200, stripe_id)
    assert active(world) == stripe_id
    assert Pointer.find(stripe_id).user_id == "u-1"


def test_a_claim_whose_customer_was_soft_deleted_keeps_no_user_from_a_new_one(
    world: World,
) -> None:
    old = half_an_activation(world)
    claim = images_of(world, "CLAIM")
    forget(world, "CLAIM")
    StripeCustomer.soft_delete(UserRecords.read("u-1").customer(old))
    put_back(world, world.images() + claim)
    assert create(world) != old
    assert customers(world)[old] is False


@pytest.mark.parametrize("is_there", [True, False])
def test_a_pointer_to_one_that_stripe_has_deleted_keeps_no_user_from_a_new_one(
    world: World, is_there: bool
) -> None:
    old = create(world)
    pointer = images_of(world, "CLAIM")
    world.ask("DELETE", f"/v1/customers/{old}")
    world.deliver_and_apply()
    put_back(world, (world.images() if is_there else []) + pointer)
    world.rebuild()
    new = create(world)
    assert new != old
    assert active(world) == new


def test_a_create_that_finds_a_pointer_alone_puts_its_customer_back(world: World) -> None:
    stripe_id = create(world)
    put_back(world, images_of(world, "CLAIM"))
    assert world.create()["json"]["stripe_id"] == stripe_id
    assert active(world) == stripe_id
    assert Pointer.find(stripe_id).user_id == "u-1"


def two_active(world: World) -> tuple[str, str]:
    """The older has the pointer, the newer a record."""
    old = create(world)
    before = world.images()
    world.delete()
    new = create(world)
    put_back(world, [*before, *images_of(world, f"CUSTOMER#{new}"), *images_of(world, "POINTER")])
    assert customers(world) == {old: True, new: True}
    return old, new


@pytest.mark.parametrize("is_deleted", [True, False])
def test_of_two_active_ones_the_newer_is_pointed_to_and_the_other_soft_deleted(
    world: World, is_deleted: bool
) -> None:
    old, new = two_active(world)
    if is_deleted:
        world.ask("DELETE", f"/v1/customers/{old}")
    world.rebuild()
    assert customers(world) == {old: False, new: True}
    assert active(world) == new
    assert world.create()["json"]["stripe_id"] == new


def test_the_older_of_two_active_ones_takes_nothing_from_the_newer_whose_turn_comes_later(
    world: World,
) -> None:
    old, new = two_active(world)
    world.rebuild({"resume_from": new})
    assert customers(world) == {old: False, new: True}
    world.rebuild()
    assert active(world) == new


def test_an_active_one_that_stripe_has_deleted_does_not_stay_beside_a_create_that_is_finished(
    world: World,
) -> None:
    old = create(world)
    record = images_of(world, "CUSTOMER")
    world.delete()
    world.time += 10
    crash_a_create(world)
    put_back(world, record + images_of(world, "CLAIM"))
    world.ask("DELETE", f"/v1/customers/{old}")
    world.rebuild()
    (new,) = (made["id"] for made in world.stripe_customers())
    assert customers(world) == {old: False, new: True}


@pytest.mark.parametrize("is_deleted", [True, False])
@pytest.mark.parametrize("lost", ["its record", "its pointer", "all of it"])
def test_an_active_one_that_nothing_points_to_does_not_stay_beside_the_newest(
    world: World, lost: str, is_deleted: bool
) -> None:
    old = create(world)
    backup = [image for image in world.images() if image["sk"]["S"] != "CLAIM"]
    world.delete()
    new = create(world)
    if lost == "its record":
        backup += images_of(world, "CLAIM")
    if lost == "its pointer":
        backup += images_of(world, f"CUSTOMER#{new}")
    put_back(world, backup)
    if is_deleted:
        world.ask("DELETE", f"/v1/customers/{old}")
    world.rebuild()
    assert customers(world) == {old: False, new: True}
    assert active(world) == new


def test_an_active_one_from_before_the_claim_is_soft_deleted_and_the_claim_stays(
    world: World,
) -> None:
    old = create(world)
    forget(world, "CLAIM")
    world.time += 60
    claim, _ = CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
    world.rebuild()
    assert customers(world) == {old: False}
    assert CustomerClaim.read("u-1").token == claim.token


def test_one_that_is_not_pointed_to_is_soft_deleted_and_the_pointer_stays(world: World) -> None:
    pointed_to, other = two_active(world)
    StripeCustomer.soft_delete(UserRecords.read("u-1").customer(other))
    assert customers(world) == {pointed_to: True, other: False}
    assert active(world) == pointed_to


def test_the_event_of_the_deletion_of_one_that_is_not_pointed_to_is_applied(world: World) -> None:
    pointed_to, other = two_active(world)
    world.ask("DELETE", f"/v1/customers/{other}")
    world.deliver_and_apply()
    assert customers(world) == {pointed_to: True, other: False}
    assert active(world) == pointed_to
    (event,) = world.items(kind="customer.deleted")
    assert event["state"] == "applied"


def test_a_soft_delete_of_a_record_that_was_changed_leaves_all_as_it_is(world: World) -> None:
    stripe_id = create(world)
    stale = UserRecords.read("u-1").customer(stripe_id)
    StripeCustomer.sync(StripeCustomer.get(USER))
    with pytest.raises(StaleRecordError):
        stale.soft_delete()
    assert active(world) == stripe_id


# ---- lists, time and failures


def test_it_goes_on_where_the_time_ran_out(world: World) -> None:
    made = [create(world, f"u-{number}") for number in range(5)]
    forget(world)
    resume_from, calls = None, []
    while not calls or resume_from:
        calls.append(world.rebuild({"resume_from": resume_from}, remaining_seconds=59))
        resume_from = calls[-1]["resume_from"]
    # The last of all is the end of the list, which the next call sees.
    assert [call["listed"] for call in calls] == [1, 1, 1, 1, 1, 0]
    assert [active(world, f"u-{number}") for number in range(5)] == made


def test_it_goes_through_as_many_pages_as_there_are(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_integrations.adapters.stripe_gateway._PAGE", 2)
    for number in range(5):
        add_by_hand(world, f"u-{number}", f"stripe-customers/{number}")
    assert world.rebuild() == whole(listed=5, rebuilt=5)
    assert len(world.items(record_type="CustomerClaim")) == 5


def test_a_failure_on_the_way_says_where_to_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_integrations.adapters.stripe_gateway._PAGE", 2)
    made = [add_by_hand(world, f"u-{n}", f"stripe-customers/{n}") for n in range(5)]
    world.stripe.faults.fail_next(None, match=f"GET /v1/customers/{made[1]}", status=500)
    stopped = world.rebuild()
    assert (stopped["listed"], stopped["error"]) == (3, "StripeUnavailableError")
    world.stripe.faults.clear()
    done = world.rebuild({"resume_from": stopped["resume_from"]})
    assert (done["listed"], done["resume_from"], done["error"]) == (2, None, None)
    assert len(world.items(record_type="CustomerClaim")) == 5


def test_only_customers_since_a_time_are_looked_at_where_that_is_asked_for(world: World) -> None:
    create(world)
    create(world, "u-2")
    forget(world)
    created = int(world.time)
    assert world.rebuild({"created_from": created})["listed"] == 1
    assert (active(world) is None, active(world, "u-2") is None) == (True, False)
    assert world.rebuild({"created_from": 0})["listed"] == 2


@pytest.mark.parametrize(
    "event", [{"created_from": "yesterday"}, {"created_from": True}, {"resume_from": 7}]
)
def test_an_event_that_makes_no_sense_is_refused(world: World, event: Json) -> None:
    with pytest.raises(InvalidFieldError):
        world.rebuild(event)


def test_a_place_to_go_on_from_that_stripe_does_not_know_is_told(world: World) -> None:
    with pytest.raises(StripeRefusedError):
        world.rebuild({"resume_from": "cus_nobody"})


def test_where_stripe_fails_it_is_told_and_can_be_run_again(world: World) -> None:
    create(world)
    stripe_id = create(world, "u-2")
    forget(world)
    world.stripe.faults.fail_next(None, status=503, match="GET /v1/subscriptions")
    with pytest.raises(StripeUnavailableError):
        world.rebuild()
    assert active(world, "u-2") == stripe_id

    world.stripe.faults.clear()
    assert world.rebuild()["rebuilt"] == 2
    assert {made["id"] for made in world.stripe_customers()} == {active(world), stripe_id}


def test_a_customer_whose_cards_do_not_fit_keeps_no_other_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, log: Any
) -> None:
    made = [create(world), create(world, "u-2")]
    forget(world)

    def refuse(customer: Any) -> None:
        raise DatabaseRefusedError("DynamoDB: ValidationException")

    monkeypatch.setattr("stripe_integrations.actions.customers.rebuild.refresh_from_stripe", refuse)
    assert world.rebuild()["rebuilt"] == 2
    assert [active(world), active(world, "u-2")] == made
    assert log.getvalue().count("not refreshed") == 2


@pytest.mark.parametrize("newer", ["CLAIM", "CUSTOMER"])
def test_a_record_of_a_later_release_keeps_no_other_waiting_and_the_log_names_it(
    world: World, log: Any, newer: str
) -> None:
    lost = create(world)
    unreadable = create(world, "u-2")
    create(world, "u-3")
    kept = [image for image in world.images() if "u-1" not in str(image)]
    for image in kept:
        if image["pk"]["S"] == "USER#u-2" and image["sk"]["S"].startswith(newer):
            image["schema_version"] = {"N": "2"}
    put_back(world, kept)

    assert world.rebuild() == whole(listed=3, rebuilt=1, unreadable=1)

    assert active(world) == lost
    warning = next(line for line in log.getvalue().splitlines() if "later release" in line)
    assert unreadable in warning


@pytest.mark.parametrize("stored", ["", "Card"])
def test_only_what_the_deployment_keeps_is_put_back(table_name: str, stored: str) -> None:
    world = World(table_name, stored_records=frozenset(stored.split()))
    with use(world.context):
        create(world, default_source="tok_visa")
        forget(world)
        assert world.rebuild()["rebuilt"] == 1
        assert len(world.items(record_type="Card")) == (1 if stored else 0)
        assert world.rebuild()["rebuilt"] == 0


# ---- interrupted, repeated, in parallel


def a_new_customer(world: World) -> list[Json]:
    create(world, default_source="tok_visa")
    return []


def a_second_customer(world: World) -> list[Json]:
    create(world)
    backup = world.images()
    world.delete()
    create(world, default_source="tok_visa")
    return backup


def two_new_customers(world: World) -> list[Json]:
    a_second_customer(world)
    return []


def a_customer_in_place_of_a_deleted_one(world: World) -> list[Json]:
    backup = a_second_customer(world)
    world.ask("DELETE", f"/v1/customers/{world.stripe_customers()[-1]['id']}")
    return backup


def a_crashed_create(world: World) -> list[Json]:
    crash_a_create(world, default_source="tok_visa")
    world.time += 60
    return world.images()


def a_claim_that_was_overtaken(world: World) -> list[Json]:
    CustomerClaim.acquire("u-1", {"stripe": {"email": EMAIL}, "local": {}})
    backup = world.images()
    forget(world)
    create(world, default_source="tok_visa")
    return backup


def half_a_create(world: World) -> list[Json]:
    create(world, default_source="tok_visa")
    return [image for image in world.images() if image["sk"]["S"] != "CLAIM"]


LOSSES = (
    a_new_customer,
    a_second_customer,
    two_new_customers,
    a_customer_in_place_of_a_deleted_one,
    a_crashed_create,
    a_claim_that_was_overtaken,
    half_a_create,
)


def outcome(world: World) -> set[tuple[str, ...]]:
    """What the table says, but for when it was written and how often."""
    return {
        (
            item["pk"],
            item["sk"],
            str(item.get("is_active")),
            str(item.get("stripe_id")),
            str(item.get("token")),
            str(item.get("removed_at") is None),
            str("cards_observed_to" in item),
        )
        for item in world.items()
    }


@contextmanager
def at_call(world: World, number: int, happens: Callable[[], None]) -> Iterator[list[str]]:
    """Let something happen before the nth call to DynamoDB or Stripe, and once only."""
    calls: list[str] = []

    def note(name: str) -> None:
        calls.append(name)
        if len(calls) == number:
            happens()

    def database(request: Any, **_: Any) -> None:
        note("database")

    request_of = world.stripe.request

    def stripe(*args: Any, **kwargs: Any) -> Any:
        note("stripe")
        return request_of(*args, **kwargs)

    events = Record.connection().client.meta.events
    events.register_first("before-send.dynamodb", database)
    world.stripe.request = stripe
    try:
        yield calls
    finally:
        events.unregister("before-send.dynamodb", database)
        world.stripe.request = request_of


def die() -> None:
    raise ClientKilledError("here")


@pytest.mark.parametrize("loss", LOSSES)
def test_whatever_was_lost_the_user_has_the_newest_customer_and_gets_no_other(
    world: World, loss: Callable[[World], list[Json]]
) -> None:
    put_back(world, loss(world))
    newest = world.stripe_customers()[0]["id"]

    world.rebuild()

    assert active(world) == newest
    wanted = outcome(world)
    assert world.rebuild()["rebuilt"] == 0
    assert outcome(world) == wanted
    assert world.create()["json"]["stripe_id"] == newest


@pytest.mark.parametrize("interruption", ["death", "another run"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_that_is_interrupted_or_met_by_another_ends_the_same(
    world: World, loss: Callable[[World], list[Json]], interruption: str
) -> None:
    backup = loss(world)
    put_back(world, backup)
    with at_call(world, 0, die) as calls:
        world.rebuild()
    wanted = outcome(world)
    assert {"database", "stripe"} <= set(calls)

    def another_run() -> None:
        with use(world.new_context()):
            StripeCustomer.rebuild()

    for number in range(1, len(calls) + 1):
        put_back(world, backup)
        if interruption == "death":
            with at_call(world, number, die), pytest.raises(ClientKilledError):
                world.rebuild()
            world.rebuild()
        else:
            with at_call(world, number, another_run):
                StripeCustomer.rebuild()
        assert outcome(world) == wanted, number


@pytest.mark.parametrize("loss", [a_new_customer, a_claim_that_was_overtaken])
def test_a_create_beside_a_run_is_not_overwritten(
    world: World, loss: Callable[[World], list[Json]]
) -> None:
    """The API should be closed. Where it is not, a user still has one active customer here."""
    backup = loss(world)
    put_back(world, backup)
    with at_call(world, 0, die) as calls:
        world.rebuild()

    def a_create() -> None:
        with use(world.new_context()):
            StripeCustomer.create(USER, EMAIL)

    # From the end: what such a create makes on Stripe stays there, and the next run is told of it.
    for number in range(len(calls), 0, -1):
        put_back(world, backup)
        with at_call(world, number, a_create):
            StripeCustomer.rebuild()
        assert [stripe_id for stripe_id, is_active in customers(world).items() if is_active] == [
            active(world)
        ], number
