"""Customers that no user has: stored, kept current by their events, adopted and released."""

from __future__ import annotations

from functools import partial

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.actions.customers.assign import assign_unassigned, store_unassigned
from stripe_integrations.actions.customers.metadata import write_metadata
from stripe_integrations.actions.customers.snapshot import (
    TOKEN_KEY,
    USER_KEY,
    CustomerSnapshot,
)
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import (
    CustomerNotFoundError,
    CustomerOfAnotherUserError,
    StaleRecordError,
    TakeOverRequiredError,
)
from stripe_integrations.models import Customer, CustomerClaim, Owner, Pointer, read_customer
from stripe_integrations.models.child import Child
from stripe_integrations.models.keys import customer_key
from stripe_integrations.models.metadata_update import MetadataUpdate
from tests.stripe_integrations.actions.customers.test_rebuild import put_back
from tests.stripe_integrations.actions.events import custom_handlers
from tests.stripe_integrations.actions.events.custom_handlers import NOTE
from tests.world import EMAIL, USER, World

OTHER = User("u-2")


@pytest.fixture(autouse=True)
def _stores_unassigned(world: World) -> None:
    world.configure(unassigned_customers=UnassignedCustomers.STORE)


@pytest.fixture
def on_stripe(world: World) -> str:
    """A customer that was created on Stripe by someone else, whose event has arrived."""
    stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL, "name": "Jane"})["id"])
    world.deliver_and_apply()
    return stripe_id


def record_of(stripe_id: str, user_id: str | None = None) -> Customer:
    record = read_customer(Owner(user_id, stripe_id))
    assert record
    return record


def change(world: World, stripe_id: str) -> None:
    """Rename a customer, and give it a card and a subscription."""
    for make in (partial(world.rename, name="Janet"), world.attach_card, world.subscribe):
        world.time += 60
        make(stripe_id)
        world.deliver_and_apply()


class ProcessDiedError(BaseException):
    """The end of the process."""


def die(*_: object, **__: object) -> None:
    raise ProcessDiedError


def left(world: World) -> set[str]:
    """The types of the items besides events."""
    return {item["record_type"] for item in world.items()} - {"Event"}


class TestCreatedOnStripe:
    def test_is_stored_without_call_to_stripe(self, world: World) -> None:
        made = world.request("POST", "/v1/customers", {"email": EMAIL, "name": "Jane"})
        calls = len(world.stripe.requests)
        world.deliver_and_apply()
        record = record_of(made["id"])
        assert (record.user_id, record.name, record.is_active) == (None, "Jane", True)
        assert Pointer.find(made["id"]) == (None, made["id"])
        assert len(world.stripe.requests) == calls
        assert set(world.event_states().values()) == {"applied"}

    def test_is_not_stored_by_default(self, world: World) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        world.request("POST", "/v1/customers", {"email": EMAIL})
        world.deliver_and_apply()
        assert left(world) <= {"Deployment"}
        assert world.event_states() == {"customer.created": "waiting"}

    @pytest.mark.parametrize("name", ["shop-prod", "stripe-customers"])
    def test_with_token_is_not_stored(self, world: World, name: str) -> None:
        metadata = {USER_KEY: "u-9", TOKEN_KEY: f"{name}/1-a"}
        made = world.request("POST", "/v1/customers", {"email": EMAIL, "metadata": metadata})
        world.deliver_and_apply()
        assert Pointer.find(made["id"]) is None

    def test_is_stored_once_by_concurrent_workers(self, world: World, on_stripe: str) -> None:
        snapshot = CustomerSnapshot.from_fetch({"id": on_stripe, "object": "customer"})
        assert store_unassigned(snapshot) == (None, on_stripe)
        assert record_of(on_stripe).name == "Jane"

    def test_half_of_which_a_backup_has_is_completed(self, world: World, on_stripe: str) -> None:
        snapshot = CustomerSnapshot.from_fetch({"id": on_stripe, "object": "customer"})
        Pointer.to(Owner(None, on_stripe)).delete()
        store_unassigned(snapshot)
        assert Pointer.find(on_stripe) == (None, on_stripe)
        assert record_of(on_stripe).name == "Jane"

    def test_is_kept_current_by_its_events(self, world: World, on_stripe: str) -> None:
        change(world, on_stripe)
        fetches = [r for r in world.stripe.requests if r.method == "GET"]
        record = record_of(on_stripe)
        assert record.name == "Janet"
        assert len(record.cards) == len(record.subscriptions) == 1
        assert fetches == []

    def test_detached_card_is_found_by_its_payment_method(
        self, world: World, on_stripe: str
    ) -> None:
        method = world.attach_card(on_stripe)
        world.deliver_and_apply()
        world.time += 60
        world.request("POST", f"/v1/payment_methods/{method}/detach")
        world.deliver_and_apply()
        assert record_of(on_stripe).cards == []

    def test_deletion_on_stripe_is_final(self, world: World, on_stripe: str) -> None:
        world.time += 60
        world.request("DELETE", f"/v1/customers/{on_stripe}")
        world.deliver_and_apply()
        assert not record_of(on_stripe).is_active
        with pytest.raises(CustomerNotFoundError):
            StripeCustomer.adopt(USER, on_stripe)

    def test_events_that_arrived_before_are_applied(self, world: World) -> None:
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.attach_card(stripe_id)
        created, *others = world.stripe.webhooks.due()
        for delivery in (*others, created):
            world.webhook(delivery.body, delivery.headers)
        for _ in range(2):
            world.stream()
        assert len(record_of(stripe_id).cards) == 1
        assert set(world.event_states().values()) == {"applied"}

    def test_deletion_that_arrived_before_is_final(self, world: World) -> None:
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.time += 60
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        created, deleted = world.stripe.webhooks.due()
        for delivery in (deleted, created):
            world.webhook(delivery.body, delivery.headers)
        for _ in range(2):
            world.stream()
        assert not record_of(stripe_id).is_active
        assert set(world.event_states().values()) == {"applied"}

    def test_whose_event_arrives_late_is_fetched(self, world: World) -> None:
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        world.attach_card(stripe_id)
        for delivery in world.stripe.webhooks.due()[1:]:
            world.stripe.webhooks.mark(delivery, 200)
        world.time += 3600
        world.deliver_and_apply()
        assert len(record_of(stripe_id).cards) == 1

    def test_that_stripe_has_deleted_since_is_not_stored_by_untrusted_event(
        self, world: World
    ) -> None:
        stripe_id = world.request("POST", "/v1/customers", {"email": EMAIL})["id"]
        payload = world.payload("customer.created")
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        StripeEvent.receive({**payload, "api_version": "2020-08-27"})
        world.stream()
        assert Pointer.find(stripe_id) is None

    def test_remains_current_after_setting_is_changed_back(
        self, world: World, on_stripe: str
    ) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        change(world, on_stripe)
        assert record_of(on_stripe).name == "Janet"

    def test_is_given_to_custom_handlers_without_user(self, world: World, on_stripe: str) -> None:
        custom_handlers.called.clear()
        world.configure(event_handlers={"customer.updated": NOTE})
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.deliver_and_apply()
        assert [user_id for _, user_id in custom_handlers.called] == [None]

    def test_events_are_not_published(self, world: World, on_stripe: str) -> None:
        world.configure(event_bus_name="changes")
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.deliver_and_apply()
        assert record_of(on_stripe).name == "Janet"
        assert world.published == []

    def test_exists_for_no_user(self, world: World, on_stripe: str) -> None:
        assert StripeCustomer.get(USER) is None
        assert world.create()["statusCode"] == 201
        assert StripeCustomer.require(USER).stripe_id != on_stripe


class TestAdopted:
    def test_budget(self, world: World, on_stripe: str) -> None:
        change(world, on_stripe)
        StripeCustomer.create(OTHER, EMAIL)  # the process has the deployment's name now
        with world.counting() as counts:
            StripeCustomer.adopt(USER, on_stripe)
        assert (counts.database, counts.stripe) == (6, 1)

    def test_when_deleted_on_stripe_meanwhile_frees_the_user(
        self, world: World, on_stripe: str
    ) -> None:
        world.time += 60
        world.request("DELETE", f"/v1/customers/{on_stripe}")
        with use(world.new_context()):
            StripeCustomer.adopt(USER, on_stripe)
        world.deliver_and_apply()
        assert StripeCustomer.get(USER) is None
        assert world.create()["statusCode"] == 201

    def test_during_its_deletion_is_soft_deleted(self, world: World, on_stripe: str) -> None:
        stale = record_of(on_stripe)
        StripeCustomer.adopt(USER, on_stripe)
        with pytest.raises(StaleRecordError):
            stale.soft_delete_as_deleted_on_stripe()
        assert StripeCustomer.require(USER).is_active

    def test_moves_without_fetch(self, world: World, on_stripe: str) -> None:
        change(world, on_stripe)
        calls = len(world.stripe.requests)
        customer = StripeCustomer.adopt(USER, on_stripe)
        assert [request.method for request in list(world.stripe.requests)[calls:]] == ["POST"]
        assert (customer.is_new, customer.user_id, customer.name) == (True, "u-1", "Janet")
        assert len(customer.cards) == len(customer.subscriptions) == 1
        stored = StripeCustomer.require(USER)
        assert len(stored.cards) == len(stored.subscriptions) == 1
        assert read_customer(Owner(None, on_stripe)) is None
        assert not [item for item in world.items() if item["pk"].startswith("UNASSIGNED#")]

    def test_has_the_same_pointer_claim_and_metadata(self, world: World, on_stripe: str) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        claim, pointer = CustomerClaim.read("u-1"), Pointer.read(on_stripe)
        assert claim
        assert pointer
        metadata = world.request("GET", f"/v1/customers/{on_stripe}")["metadata"]
        assert metadata == {USER_KEY: "u-1", TOKEN_KEY: claim.token}
        assert pointer.token == claim.token

    def test_over_http(self, world: World, on_stripe: str) -> None:
        response = world.adopt(on_stripe)
        assert (response["statusCode"], response["json"]["user_id"]) == (201, "u-1")

    def test_is_kept_current_by_its_events(self, world: World, on_stripe: str) -> None:
        method = world.attach_card(on_stripe)
        world.deliver_and_apply()
        StripeCustomer.adopt(USER, on_stripe)
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.request("POST", f"/v1/payment_methods/{method}/detach")
        world.deliver_and_apply()
        customer = StripeCustomer.require(USER)
        assert (customer.name, customer.cards) == ("Janet", [])

    def test_event_that_arrived_before_is_applied_after(self, world: World, on_stripe: str) -> None:
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.deliver()
        StripeCustomer.adopt(USER, on_stripe)
        world.stream()
        assert StripeCustomer.require(USER).name == "Janet"

    def test_by_one_of_two_users(self, world: World, on_stripe: str) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        with pytest.raises(CustomerOfAnotherUserError):
            StripeCustomer.adopt(OTHER, on_stripe)

    def test_beside_a_create_of_the_same_user(self, world: World, on_stripe: str) -> None:
        record, update = record_of(on_stripe), MetadataUpdate.of(on_stripe)
        StripeCustomer.create(USER, EMAIL)
        assert assign_unassigned("u-1", None, record, update) is None

    def test_beside_an_adoption_by_another_user(self, world: World, on_stripe: str) -> None:
        record, update = record_of(on_stripe), MetadataUpdate.of(on_stripe)
        StripeCustomer.adopt(OTHER, on_stripe)
        with pytest.raises(CustomerOfAnotherUserError):
            assign_unassigned("u-1", None, record, update)

    def test_during_an_event_is_not_overwritten(self, world: World, on_stripe: str) -> None:
        stale = record_of(on_stripe)
        StripeCustomer.adopt(USER, on_stripe)
        with pytest.raises(Exception, match="changed since it was read"):
            stale.update_with({"name": "Old"})
        assert StripeCustomer.require(USER).name == "Jane"
        assert read_customer(Owner(None, on_stripe)) is None

    def test_with_token_of_another_deployment_needs_take_over(
        self, world: World, on_stripe: str
    ) -> None:
        world.time += 60
        metadata = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        world.request("POST", f"/v1/customers/{on_stripe}", {"metadata": metadata})
        world.deliver_and_apply()
        with pytest.raises(TakeOverRequiredError):
            StripeCustomer.adopt(USER, on_stripe)
        assert StripeCustomer.adopt(USER, on_stripe, take_over=True).user_id == "u-1"

    def test_with_more_children_than_fit_into_transaction(
        self, world: World, on_stripe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            world.attach_card(on_stripe)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
        customer = StripeCustomer.adopt(USER, on_stripe)
        assert len(customer.cards) == len(StripeCustomer.require(USER).cards) == 5
        assert not [item for item in world.items() if item["pk"].startswith("UNASSIGNED#")]

    def test_after_process_died_with_half_of_the_children_is_complete(
        self, world: World, on_stripe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            world.attach_card(on_stripe)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
        with monkeypatch.context() as patch:
            patch.setattr(Customer, "move_to", die)
            with pytest.raises(ProcessDiedError):
                StripeCustomer.adopt(USER, on_stripe)
        assert len(record_of(on_stripe).cards) < 5
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.deliver_and_apply()
        assert len(StripeCustomer.adopt(USER, on_stripe).cards) == 5


class TestReleased:
    def test_with_more_children_than_fit_into_transaction(
        self, world: World, on_stripe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        for _ in range(5):
            world.attach_card(on_stripe)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
        StripeCustomer.release(USER)
        assert not [item for item in world.items() if item["pk"].startswith("USER#")]
        world.stream((Owner(None, on_stripe).pk, customer_key(on_stripe)))
        assert len(record_of(on_stripe).cards) == 5

    def test_by_process_that_dies_keeps_all_children_of_the_user(
        self, world: World, on_stripe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        for _ in range(5):
            world.attach_card(on_stripe)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
        monkeypatch.setattr(CustomerClaim, "remove_pointer", die)
        with pytest.raises(ProcessDiedError):
            StripeCustomer.release(USER)
        assert len(StripeCustomer.require(USER).cards) == 5

    def test_children_that_are_left_do_not_return_with_the_customer(
        self, world: World, on_stripe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        cards = [world.attach_card(on_stripe) for _ in range(5)]
        world.deliver_and_apply()
        with monkeypatch.context() as patch:
            patch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
            patch.setattr(Child, "delete_orphan", die)
            with pytest.raises(ProcessDiedError):
                StripeCustomer.release(USER)
        world.time += 60
        for card in cards[1:]:
            world.request("POST", f"/v1/payment_methods/{card}/detach")
        world.stream((Owner(None, on_stripe).pk, customer_key(on_stripe)))
        StripeCustomer.adopt(USER, on_stripe)
        assert [card.stripe_id for card in StripeCustomer.require(USER).cards] == cards[:1]

    def test_metadata_is_not_written_by_a_slow_worker(self, world: World, on_stripe: str) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        StripeCustomer.release(USER)
        requests = len(world.stripe.requests)
        write_metadata(MetadataUpdate.of(on_stripe))
        assert len(world.stripe.requests) == requests

    def test_is_unassigned_again(self, world: World, on_stripe: str) -> None:
        world.attach_card(on_stripe)
        world.deliver_and_apply()
        StripeCustomer.adopt(USER, on_stripe)
        world.deliver_and_apply()
        StripeCustomer.release(USER)
        assert StripeCustomer.get(USER) is None
        assert CustomerClaim.read("u-1") is None
        record = record_of(on_stripe)
        assert (record.user_id, record.metadata, len(record.cards)) == (None, {}, 1)
        assert world.request("GET", f"/v1/customers/{on_stripe}")["metadata"] == {}
        assert not [item for item in world.items() if item["pk"].startswith("USER#")]

    def test_with_token_of_another_deployment_needs_take_over(
        self, world: World, on_stripe: str
    ) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        world.time += 60
        metadata = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        world.request("POST", f"/v1/customers/{on_stripe}", {"metadata": metadata})
        world.deliver_and_apply()
        with use(world.new_context()):
            StripeCustomer.release(USER)
            with pytest.raises(TakeOverRequiredError):
                StripeCustomer.adopt(OTHER, on_stripe)

    def test_is_adopted_by_another_user(self, world: World, on_stripe: str) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        StripeCustomer.release(USER)
        assert StripeCustomer.adopt(OTHER, on_stripe).user_id == "u-2"
        world.time += 60
        world.rename(on_stripe, "Janet")
        world.deliver_and_apply()
        assert StripeCustomer.require(OTHER).name == "Janet"

    def test_older_response_is_not_written_after_it_is_adopted_again(
        self, world: World, on_stripe: str
    ) -> None:
        StripeCustomer.adopt(USER, on_stripe)
        stale = StripeCustomer.require(USER)
        StripeCustomer.release(USER)
        world.time += 1
        StripeCustomer.adopt(USER, on_stripe)
        assert StripeCustomer.require(USER).version == stale.version
        with pytest.raises(Exception, match="changed since it was read"):
            stale.update_with({"name": "Old"})


class TestRestored:
    """A backup has a customer as unassigned that a user has adopted since."""

    def test_is_given_to_its_user_by_a_rebuild(self, world: World, on_stripe: str) -> None:
        backup = world.images()
        StripeCustomer.adopt(USER, on_stripe)
        put_back(world, backup)
        assert world.rebuild()["stored"] == 1
        assert StripeCustomer.require(USER).stripe_id == on_stripe
        assert read_customer(Owner(None, on_stripe)) is None

    def test_of_a_user_who_has_another_now_is_soft_deleted(
        self, world: World, on_stripe: str
    ) -> None:
        backup = world.images()
        StripeCustomer.adopt(USER, on_stripe)
        StripeCustomer.soft_delete(StripeCustomer.require(USER))
        world.time += 60
        world.create()
        put_back(world, backup)
        world.rebuild()
        assert StripeCustomer.require(USER).stripe_id != on_stripe
        assert not record_of(on_stripe, "u-1").is_active
        assert read_customer(Owner(None, on_stripe)) is None
