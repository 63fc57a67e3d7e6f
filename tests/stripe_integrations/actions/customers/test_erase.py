"""`StripeCustomer.erase`: nothing of a user's customers is stored, and nothing comes back."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import pytest
from moto.core.models import botocore_stubber

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeAccount, StripeCustomer, StripeEvent, User
from stripe_integrations.actions.customers.assign import store_unassigned
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY, CustomerSnapshot
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConflictError,
    CustomerBeingCreatedError,
    CustomerErasedError,
    CustomerNotFoundError,
    InvalidFieldError,
    MessageNotSentError,
    OutOfTimeError,
    StripeAccessError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer, Event, Owner, Pointer, read_customer
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.erasure import SECOND_PASS_SECONDS, Erasure
from stripe_integrations.models.event import ERASED
from stripe_integrations.models.metadata_update import MetadataUpdate
from tests.marked import customer_fields, marks_in, user_id
from tests.marked_world import MarkedWorld, inhabited
from tests.stripe_integrations.actions.customers.helpers import acquire_claim, during_sleep
from tests.stripe_integrations.actions.customers.test_adopt import on_stripe
from tests.stripe_integrations.actions.customers.test_rebuild import at_call, die, put_back
from tests.world import (
    EMAIL,
    USER,
    World,
    database_client,
    problem_of,
    stored_event,
    stripe_event,
)

ANN, BOB = User(user_id("ann")), User(user_id("bob"))
OTHER = User("u-2")


@pytest.fixture
def marked(aws: None) -> Iterator[MarkedWorld]:
    """Two users whose values are all marked, with the events that have stored them."""
    world = MarkedWorld()
    with mock.patch.object(botocore_stubber, "enabled", False), inhabited(world):
        for name in ("ann", "bob"):
            world.furnish(name)
        world.deliver_and_apply()
        yield world


def marks(world: World, whose: str = "ann") -> set[str]:
    """The marked values of a user that a scan of the whole table finds."""

    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode()

    found = marks_in(json.dumps(world.images(), default=encoded))
    return {name for name in found if name.endswith(f" of {whose}")}


def ann_of(world: World) -> str:
    return StripeCustomer.require(ANN).stripe_id


def second_pass(world: World) -> None:
    world.time += SECOND_PASS_SECONDS + 1
    world.reconcile()


def types(world: World) -> set[str]:
    """The types of what the table has besides events and what belongs to no customer."""
    found = {item["record_type"] for item in world.items()}
    return found - {"Event", "Deployment", "SweepCursor", "LookupCursor"}


class TestErased:
    def test_scan_finds_no_value(self, marked: MarkedWorld) -> None:
        of_bob = marks(marked, "bob")
        kinds = {"name of ann", "card last4 of ann", "billing name of ann", "user id of ann"}
        assert kinds < marks(marked)
        stripe_id = ann_of(marked)

        erased = StripeCustomer.erase(ANN)

        assert (erased.customer_ids, erased.refused) == ([stripe_id], [])
        assert marks(marked) == set()
        assert marks(marked, "bob") == of_bob
        assert StripeCustomer.get(ANN) is None
        assert StripeCustomer.get(BOB)

    def test_leaves_ids_types_and_states_of_events(self, marked: MarkedWorld) -> None:
        stripe_id = ann_of(marked)
        before = marked.items(record_type="Event", customer_id=stripe_id)
        StripeCustomer.erase(ANN)
        after = marked.items(record_type="Event", customer_id=stripe_id)
        assert before
        kept = ("stripe_id", "kind", "created", "state", "expires_at")
        for old, new in zip(before, after, strict=True):
            assert [old[name] for name in kept] == [new[name] for name in kept]
            assert new["reason"] == ERASED
            assert not new.keys() & {"webhook_message", "user_id", "request"}

    def test_leaves_tombstone_and_work_item_until_second_pass(self, world: World) -> None:
        world.configure(stored_records=frozenset({"Card", "PaymentMethod"}))
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        method = world.attach_card(stripe_id)
        world.deliver_and_apply()
        StripeCustomer.erase(USER)
        assert types(world) == {"Pointer", "Erasure"}
        pointers = {item["pk"] for item in world.items(record_type="Pointer")}
        assert pointers == {f"STRIPE#{stripe_id}", f"STRIPE#{method}"}
        with pytest.raises(CustomerErasedError):
            Pointer.find(method)
        assert "u-1" not in str(world.items())
        second_pass(world)
        assert types(world) == {"Pointer"}

    def test_repeated_is_no_op(self, marked: MarkedWorld) -> None:
        StripeCustomer.erase(ANN)
        calls = len(marked.stripe.requests)
        before = marked.images()
        assert StripeCustomer.erase(ANN).customer_ids == []
        assert marked.images() == before
        assert len(marked.stripe.requests) == calls

    def test_of_unknown_user_does_nothing(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        before = world.images()
        assert StripeCustomer.erase(OTHER).customer_ids == []
        assert world.images() == before

    def test_includes_soft_deleted_customers(self, world: World) -> None:
        first = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.soft_delete(first)
        world.time += 60
        second = StripeCustomer.create(USER, EMAIL)
        erased = StripeCustomer.erase(USER)
        assert set(erased.customer_ids) == {first.stripe_id, second.stripe_id}
        assert types(world) == {"Pointer", "Erasure"}

    def test_includes_kinds_that_are_stored_no_longer(self, marked: MarkedWorld) -> None:
        marked.configure(stored_records=frozenset())
        StripeCustomer.erase(ANN)
        assert marks(marked) == set()

    def test_includes_children_of_half_a_release(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL, default_source="tok_visa").stripe_id
        world.deliver_and_apply()
        of_half = [
            image
            for image in world.images()
            if image["sk"]["S"] not in ("CLAIM", f"CUSTOMER#{stripe_id}")
        ]
        put_back(world, of_half)
        assert "Card" in types(world)
        StripeCustomer.erase(USER)
        assert "Card" not in types(world)

    def test_with_more_children_than_fit_into_transaction(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        for _ in range(5):
            world.attach_card(stripe_id)
        world.deliver_and_apply()
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 4)
        StripeCustomer.erase(USER)
        assert types(world) == {"Pointer", "Erasure"}

    def test_user_may_get_another_customer(self, world: World) -> None:
        first = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.erase(USER)
        second = StripeCustomer.create(USER, EMAIL)
        assert second.is_new
        assert second.stripe_id != first.stripe_id
        second_pass(world)
        assert StripeCustomer.require(USER).stripe_id == second.stripe_id

    def test_while_customer_is_created_is_refused(self, world: World) -> None:
        acquire_claim()
        before = world.images()
        with pytest.raises(CustomerBeingCreatedError):
            StripeCustomer.erase(USER)
        assert world.images() == before

    def test_refuses_flag_that_is_not_a_bool(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        with pytest.raises(InvalidFieldError, match="delete_on_stripe"):
            StripeCustomer.erase(USER, delete_on_stripe="yes")  # type: ignore[arg-type]
        assert StripeCustomer.get(USER)

    def test_is_logged_in_ids_outside_the_table(self, world: World, log: io.StringIO) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.erase({"user_id": USER.id})
        assert world.log_of_erasures == [stripe_id]
        assert json.loads(log.getvalue())["erased"] == [stripe_id]
        second_pass(world)
        assert world.log_of_erasures == [stripe_id, stripe_id]
        assert "u-1" not in log.getvalue()


class TestFailedEvents:
    def test_lose_payload_and_leave_the_queue(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.rename(stripe_id, "Jane")
        event = stored_event(world.receive())
        event.fail("UnprocessableEventError: jane@example.com")
        StripeCustomer.erase(USER)
        stored = stored_event(event.stripe_id)
        assert (stored.state, stored.reason) == ("ignored", ERASED)
        assert (stored.webhook_message, stored.queue, stored.user_id) == (None, None, None)
        assert world.replay({"failed": True})["replayed"] == 0

    def test_that_name_only_payment_method_lose_payload(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        method = world.attach_card(stripe_id)
        world.deliver_and_apply()
        for number, named in enumerate((method, "pm_other")):
            data = {"object": {"id": named, "object": "payment_method", "billing_details": "Jane"}}
            payload = stripe_event("payment_method.automatically_updated", number, data=data)
            event = Event.received(payload, valid=True)
            event.store()
            event.fail("EventHandlerError")
        StripeCustomer.erase(USER)
        assert stored_event("evt_0").webhook_message is None
        assert stored_event("evt_1").webhook_message


class TestOnStripe:
    def test_removes_own_metadata(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL, metadata={"plan": "pro"}).stripe_id
        StripeCustomer.erase(USER)
        assert on_stripe(world, stripe_id)["metadata"] == {"plan": "pro"}

    def test_deletes_customer_if_asked(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.subscribe(stripe_id)
        StripeCustomer.erase(USER, delete_on_stripe=True)
        assert on_stripe(world, stripe_id)["deleted"]
        world.deliver_and_apply()
        second_pass(world)
        assert types(world) == {"Pointer"}

    def test_deletes_customer_that_was_erased_here_before(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        StripeCustomer.erase(USER)
        erased = StripeCustomer.erase_stripe_customer(stripe_id, delete_on_stripe=True)
        assert (erased.customer_ids, erased.refused) == ([stripe_id], [])
        assert on_stripe(world, stripe_id)["deleted"]

    @pytest.mark.parametrize("delete_on_stripe", [False, True])
    def test_customer_that_stripe_has_deleted_is_erased(
        self, world: World, *, delete_on_stripe: bool
    ) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.request("DELETE", f"/v1/customers/{stripe_id}")
        erased = StripeCustomer.erase(USER, delete_on_stripe=delete_on_stripe)
        assert (erased.customer_ids, erased.refused) == ([stripe_id], [])
        assert types(world) == {"Pointer", "Erasure"}

    @pytest.mark.parametrize(("match", "delete_on_stripe"), [("POST *", False), ("DELETE *", True)])
    def test_refusal_is_reported_and_records_are_erased(
        self, world: World, match: str, *, delete_on_stripe: bool
    ) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.stripe.faults.fail_next(None, match=match, status=400)
        erased = StripeCustomer.erase(USER, delete_on_stripe=delete_on_stripe)
        assert (erased.customer_ids, erased.refused) == ([stripe_id], [stripe_id])
        assert types(world) == {"Pointer", "Erasure"}

    def test_with_key_of_another_account_is_reported(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.stripe.faults.fail_next(None, match="GET *", status=404)
        erased = StripeCustomer.erase(USER, delete_on_stripe=True)
        assert (erased.customer_ids, erased.refused) == ([stripe_id], [stripe_id])
        world.stripe.faults.clear()
        assert not on_stripe(world, stripe_id).get("deleted")

    @pytest.mark.parametrize(
        ("status", "error"), [(503, StripeUnavailableError), (401, StripeAccessError)]
    )
    def test_failure_is_completed_by_the_schedule(
        self, marked: MarkedWorld, status: int, error: type[Exception]
    ) -> None:
        stripe_id = ann_of(marked)
        marked.stripe.faults.fail_next(None, match="DELETE *", status=status)
        with pytest.raises(error):
            StripeCustomer.erase(ANN, delete_on_stripe=True)
        assert StripeCustomer.get(ANN)
        marked.stripe.faults.clear()
        marked.time += 200
        marked.reconcile()
        assert marks(marked) == set()
        assert on_stripe(marked, stripe_id)["deleted"]

    def test_deletion_whose_response_was_lost_is_no_refusal(self, world: World) -> None:
        """Stripe's library sends it again, and the second one finds nothing to delete."""
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.stripe.faults.time_out(1, match="DELETE *", when="after")
        assert StripeCustomer.erase(USER, delete_on_stripe=True).refused == []
        assert on_stripe(world, stripe_id)["deleted"]


class TestStaysErased:
    """Whatever arrives, or is asked for, after an erasure."""

    @pytest.fixture
    def stripe_id(self, marked: MarkedWorld) -> str:
        """Ann's customer, erased here and not on Stripe."""
        stripe_id = ann_of(marked)
        StripeCustomer.erase(ANN)
        marked.time += 60
        return stripe_id

    def test_with_webhooks(self, marked: MarkedWorld, stripe_id: str) -> None:
        fields = customer_fields("ann")
        marked.request("POST", f"/v1/customers/{stripe_id}", {"name": fields["name"]})
        marked.attach_card(stripe_id)
        marked.subscribe(stripe_id)
        calls = len(marked.stripe.requests)
        marked.deliver_and_apply()
        assert len(marked.stripe.requests) == calls
        assert marks(marked) == set()
        stored = marked.items(record_type="Event", created=int(marked.time), customer_id=stripe_id)
        assert {(event["state"], event["reason"]) for event in stored} == {("ignored", ERASED)}

    def test_with_event_of_payment_method_alone(self, marked: MarkedWorld, stripe_id: str) -> None:
        (method,) = (
            method["id"]
            for method in marked.stripe.account.payment_methods.values()
            if method["customer"] == stripe_id
        )
        marked.request("POST", f"/v1/payment_methods/{method}/detach")
        payload = marked.payload("payment_method.detached")
        payload["data"].pop("previous_attributes", None)
        stored = StripeEvent.receive(payload)
        assert (stored.customer_id, stored.state, stored.reason) == (None, "ignored", ERASED)
        assert marks(marked) == set()

    def test_with_sweep(self, marked: MarkedWorld, stripe_id: str) -> None:
        marked.reconcile()
        marked.stripe.webhooks.drop_next(10)
        name = customer_fields("ann")["name"]
        marked.request("POST", f"/v1/customers/{stripe_id}", {"name": name})
        marked.time += 700
        marked.reconcile()
        assert stored_event(marked.payload()["id"]).reason == ERASED
        assert marks(marked) == set()

    def test_with_replays(self, marked: MarkedWorld, stripe_id: str) -> None:
        marked.replay({"created_from": 0, "created_to": 2**33})
        marked.time += 200
        marked.reconcile()
        assert marks(marked) == set()
        (event, *_) = marked.items(record_type="Event", customer_id=stripe_id)
        StripeEvent.replay(event["stripe_id"])
        assert stored_event(event["stripe_id"]).reason == ERASED

    def test_with_rebuild(self, marked: MarkedWorld, stripe_id: str) -> None:
        metadata = {USER_KEY: ANN.id, TOKEN_KEY: new_token()}
        marked.request("POST", f"/v1/customers/{stripe_id}", {"metadata": metadata})
        assert "stored" not in marked.rebuild()
        assert marks(marked) == set()

    def test_with_adoption(self, marked: MarkedWorld, stripe_id: str) -> None:
        with pytest.raises(CustomerErasedError):
            StripeCustomer.adopt(ANN, stripe_id, take_over=True)
        assert problem_of(marked.adopt(stripe_id)) == (409, "customer-erased")
        assert marks(marked) == set()

    def test_with_update_sync_and_deletion_of_record_read_before(self, world: World) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.erase(USER)
        for change in (
            StripeCustomer.sync,
            StripeCustomer.soft_delete,
            partial(StripeCustomer.update, name="Jane"),
            partial(StripeCustomer.sync_from_stripe_data, stripe_customer=customer_on(world)),
        ):
            with pytest.raises((ConflictError, CustomerNotFoundError)):
                change(customer)
        assert types(world) == {"Pointer", "Erasure"}

    def test_as_unassigned(self, marked: MarkedWorld, stripe_id: str) -> None:
        marked.configure(unassigned_customers=UnassignedCustomers.STORE)
        marked.replay({"created_from": 0, "created_to": 2**33})
        with pytest.raises(CustomerErasedError):
            store_unassigned(CustomerSnapshot.from_fetch({"id": stripe_id, "object": "customer"}))
        assert marks(marked) == set()

    def test_with_handler_or_subscriber(self, world: World) -> None:
        called: list[Event] = []
        customer = StripeCustomer.create(USER, EMAIL)
        world.deliver_and_apply()
        StripeCustomer.erase(USER)
        world.configure(
            event_bus_name="changes",
            publish_types=("*",),
            event_handlers={"customer.updated": f"{__name__}:handler"},
        )
        with mock.patch(f"{__name__}.handler", called.append):
            world.time += 60
            world.rename(customer.stripe_id, "Jane")
            world.deliver_and_apply()
        assert (called, world.published) == ([], [])

    def test_as_claim_of_half_a_backup(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        claim = next(image for image in world.images() if image["sk"]["S"] == "CLAIM")
        StripeCustomer.erase(USER)
        put_back(world, [*world.images(), claim])
        assert StripeCustomer.create(USER, EMAIL).stripe_id != stripe_id

    def test_with_metadata_that_is_due(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        StripeCustomer.erase(USER)
        assert MetadataUpdate.acquire(stripe_id)
        world.time += 200
        world.reconcile()
        assert on_stripe(world, stripe_id)["metadata"] == {}
        assert "MetadataUpdate" not in types(world)


def handler(event: Event, customer: Customer | None) -> None:
    """A custom handler."""


def customer_on(world: World) -> dict[str, Any]:
    """The only customer that Stripe has."""
    (customer,) = world.stripe_customers()
    return customer


class TestSecondPass:
    def test_erases_event_that_was_being_stored(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.rename(stripe_id, "Jane")
        payload = world.payload()

        def erase(*_: object) -> Owner:
            owner = Owner("u-1", stripe_id)
            StripeCustomer.erase(USER)
            return owner

        with mock.patch.object(Pointer, "find", erase):
            stored = StripeEvent.receive(payload)
        assert (stored.user_id, bool(stored.webhook_message)) == ("u-1", True)
        second_pass(world)
        event = stored_event(payload["id"])
        assert (event.user_id, event.webhook_message, event.reason) == (None, None, ERASED)

    def test_follows_after_fifteen_minutes(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        StripeCustomer.erase(USER)
        world.time += SECOND_PASS_SECONDS - 1
        world.reconcile()
        assert "Erasure" in types(world)
        world.time += 2
        world.reconcile()
        assert "Erasure" not in types(world)

    def test_late_link_does_not_name_user_again(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        world.rename(stripe_id, "Jane")
        event = stored_event(world.receive())
        StripeCustomer.erase(USER)
        event.link(Owner("u-1", stripe_id))
        assert stored_event(event.stripe_id).user_id is None

    def test_is_not_delayed_by_metadata_that_stripe_refuses(self, world: World) -> None:
        """Both write the metadata: whoever begins excludes the other for the rest of a run."""
        stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        with mock.patch("stripe_integrations.actions.customers.adopt.write_metadata"):
            StripeCustomer.adopt(USER, stripe_id)
        for method in ("GET", "POST"):
            fault = f"{method} /v1/customers/{stripe_id}"
            world.stripe.faults.fail_next(None, match=fault, status=404)
        with pytest.raises(ConflictError):
            StripeCustomer.erase(USER)
        for _ in range(3):
            world.time += 300
            world.reconcile()
        assert not world.items(record_type="Customer", user_id="u-1")


class TestUnassigned:
    @pytest.fixture
    def stripe_id(self, world: World) -> str:
        """A customer that no user has, with a card."""
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        made = world.request("POST", "/v1/customers", {"email": EMAIL, "name": "Jane"})
        world.attach_card(made["id"])
        world.deliver_and_apply()
        return str(made["id"])

    def test_is_erased_by_stripe_id(self, world: World, stripe_id: str) -> None:
        assert read_customer(Owner(None, stripe_id))
        assert StripeCustomer.erase_stripe_customer(stripe_id).customer_ids == [stripe_id]
        assert types(world) == {"Pointer", "Erasure"}
        assert "Jane" not in str(world.items())
        with pytest.raises(CustomerErasedError):
            StripeCustomer.adopt(USER, stripe_id)
        world.time += 60
        world.rename(stripe_id, "Jane")
        world.deliver_and_apply()
        second_pass(world)
        assert types(world) == {"Pointer"}

    def test_of_user_is_erased_without_the_other_customers(self, world: World) -> None:
        first = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.soft_delete(first)
        world.time += 60
        second = StripeCustomer.create(USER, EMAIL)
        StripeCustomer.erase_stripe_customer(first.stripe_id)
        assert StripeCustomer.require(USER).stripe_id == second.stripe_id
        assert read_customer(first.owner) is None

    def test_that_is_not_stored_never_is(self, world: World) -> None:
        StripeCustomer.erase_stripe_customer("cus_1")
        with pytest.raises(CustomerErasedError):
            StripeCustomer.adopt(USER, "cus_1")

    @pytest.mark.parametrize("stripe_id", ["", "sub_1", None])
    def test_refuses_invalid_id(self, world: World, stripe_id: Any) -> None:
        with pytest.raises(InvalidFieldError, match="stripe_id"):
            StripeCustomer.erase_stripe_customer(stripe_id)

    def test_adopted_meanwhile_is_the_users(self, world: World, stripe_id: str) -> None:
        erasure = Erasure.start(None, {stripe_id: []}, delete_on_stripe=True)
        StripeCustomer.adopt(USER, stripe_id)
        world.deliver_and_apply()
        world.time += 200
        world.reconcile()
        assert StripeCustomer.require(USER).name == "Jane"
        second_pass(world)
        assert StripeCustomer.require(USER).name == "Jane"
        assert not on_stripe(world, stripe_id).get("deleted")
        assert world.log_of_erasures == []
        assert Erasure.read_one(erasure.pk, erasure.sk) is None


class TestRaces:
    @pytest.mark.parametrize("is_late", [False, True])
    def test_with_change_of_record(self, world: World, *, is_late: bool) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        world.rename(customer.stripe_id, "Jane")

        def sync() -> None:
            with use(world.new_context()):
                StripeCustomer.sync(customer)

        if is_late:
            StripeCustomer.erase(USER)
            with pytest.raises((ConflictError, CustomerNotFoundError)):
                sync()
        else:
            with at_call(world, 5, sync):
                StripeCustomer.erase(USER)
        assert types(world) == {"Pointer", "Erasure"}

    def test_with_create_that_has_called_stripe(self, world: World) -> None:
        """Its event completes the create; then the user is erased; then the create resumes."""

        def erase() -> None:
            with use(world.new_context()):
                world.deliver()
                world.stream()
                StripeCustomer.erase(USER)

        new = Customer.new

        def new_after_erasure(*arguments: Any) -> Customer:
            at_store.stop()
            erase()
            return new(*arguments)

        at_store = mock.patch.object(Customer, "new", new_after_erasure)
        at_store.start()
        with pytest.raises(CustomerErasedError):
            StripeCustomer.create(USER, EMAIL)
        assert types(world) == {"Pointer", "Erasure"}
        assert StripeCustomer.create(USER, EMAIL).is_new

    def test_with_adoption_that_has_read_the_pointer(self, world: World) -> None:
        made = world.request("POST", "/v1/customers", {"email": EMAIL})
        stripe_id = str(made["id"])

        def erase() -> None:
            with use(world.new_context()):
                StripeCustomer.erase_stripe_customer(stripe_id)

        retrieve = world.context.stripe.retrieve_customer

        def retrieve_late(customer_id: str) -> Any:
            found = retrieve(customer_id)
            if Pointer.read(customer_id) is None:
                erase()
            return found

        with (
            mock.patch.object(world.context.stripe, "retrieve_customer", retrieve_late),
            pytest.raises(CustomerErasedError),
        ):
            StripeCustomer.adopt(USER, stripe_id)
        assert types(world) == {"Pointer", "Erasure"}

    def test_with_adoption_while_stripe_is_called(self, world: World) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        world.deliver_and_apply()
        delete = world.context.stripe.delete_customer

        def delete_late(customer_id: str) -> Any:
            with use(world.new_context()), pytest.raises(ConflictError):
                StripeCustomer.adopt(USER, customer_id)
            return delete(customer_id)

        with mock.patch.object(world.context.stripe, "delete_customer", delete_late):
            StripeCustomer.erase_stripe_customer(stripe_id, delete_on_stripe=True)
        assert types(world) == {"Pointer", "Erasure"}
        with pytest.raises(CustomerErasedError):
            StripeCustomer.adopt(USER, stripe_id)

    @pytest.mark.parametrize("delete_on_stripe", [False, True])
    def test_with_adoption_before_stripe_is_called(
        self, world: World, *, delete_on_stripe: bool
    ) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.STORE)
        stripe_id = str(world.request("POST", "/v1/customers", {"email": EMAIL})["id"])
        world.deliver_and_apply()
        acquire = MetadataUpdate.acquire

        def acquire_late(customer_id: str) -> MetadataUpdate | None:
            with use(world.new_context()):
                StripeCustomer.adopt(USER, customer_id)
            return acquire(customer_id)

        with (
            mock.patch.object(MetadataUpdate, "acquire", acquire_late),
            pytest.raises(ConflictError),
        ):
            StripeCustomer.erase_stripe_customer(stripe_id, delete_on_stripe=delete_on_stripe)
        for _ in range(2):
            world.time += 200
            world.reconcile()
        second_pass(world)
        assert StripeCustomer.require(USER).stripe_id == stripe_id
        assert on_stripe(world, stripe_id)["metadata"][USER_KEY] == "u-1"
        assert types(world) == {"Pointer", "Customer", "CustomerClaim"}

    def test_with_metadata_that_is_being_written_is_completed(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        update = MetadataUpdate.acquire(stripe_id)
        assert update
        with pytest.raises(ConflictError):
            StripeCustomer.erase(USER)
        update.finish()
        world.time += 200
        world.reconcile()
        assert types(world) == {"Pointer", "Erasure"}

    def test_of_two_workers_erases_once(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        during_sleep(world, partial(StripeCustomer.erase, USER))
        with world.canceling_transactions("TransactionConflict", times=1):
            try:
                StripeCustomer.erase(USER)
            except ConflictError:
                world.time += 200
                world.reconcile()
        assert "Customer" not in types(world)
        world.time += 200
        world.reconcile()
        second_pass(world)
        assert types(world) == {"Pointer"}

    def test_mapping_row_is_staged_only_before_or_after_the_call_to_stripe(
        self, world: World
    ) -> None:
        """Whether the customer is stored or not, no user gets one that Stripe is deleting."""
        world.reconcile()
        for number, mode in enumerate(UnassignedCustomers):
            world.configure(unassigned_customers=mode)
            made = world.request("POST", "/v1/customers", {"email": EMAIL})
            stripe_id = str(made["id"])
            world.deliver_and_apply()
            world.time += 3600
            world.context.deadline = math.inf
            delete, user_id = world.context.stripe.delete_customer, f"u-{number + 5}"

            def stage_and_delete(
                customer_id: str, delete: Any = delete, user_id: str = user_id
            ) -> Any:
                with use(world.new_context()) as context, pytest.raises(ConflictError):
                    context.deadline = math.inf
                    next(StripeAccount.backfill([(user_id, customer_id)]))
                return delete(customer_id)

            with mock.patch.object(world.context.stripe, "delete_customer", stage_and_delete):
                erased = StripeCustomer.erase_stripe_customer(stripe_id, delete_on_stripe=True)
            assert (erased.customer_ids, erased.refused) == ([stripe_id], [])
            assert StripeCustomer.get(User(user_id)) is None
            StripeAccount.stop(StripeAccount.progress().run_id)


class TestInterruption:
    def test_after_any_call_is_completed_by_the_schedule(self, marked: MarkedWorld) -> None:
        stripe_id = ann_of(marked)
        ready = marked.saved()
        with at_call(marked, 0, die) as calls:
            StripeCustomer.erase(ANN)
        assert len(calls) > 20
        for number in range(1, len(calls) + 1):
            ready.restore()
            with use(marked.context):
                with at_call(marked, number, die), pytest.raises(ClientKilledError):
                    StripeCustomer.erase(ANN)
                is_started = marked.items(record_type="Erasure") != []
                marked.time += 200
                marked.reconcile()
                if is_started:
                    assert marks(marked) == set(), number
                    assert stripe_id in marked.log_of_erasures, number
                    assert TOKEN_KEY not in on_stripe(marked, stripe_id)["metadata"]
                else:
                    assert StripeCustomer.get(ANN), number
                second_pass(marked)
                assert marked.items(record_type="Erasure") == []

    def test_without_time_is_completed_by_the_schedule(self, marked: MarkedWorld) -> None:
        with pytest.raises(OutOfTimeError):
            marked.erase({"user_id": ANN.id}, remaining_seconds=15)
        assert StripeCustomer.get(ANN)
        marked.time += 200
        marked.reconcile()
        assert marks(marked) == set()

    def test_without_log_of_erasures_is_completed_later(self, marked: MarkedWorld) -> None:
        with (
            mock.patch.object(marked.context, "log_erasure", side_effect=MessageNotSentError),
            pytest.raises(MessageNotSentError),
        ):
            StripeCustomer.erase(ANN)
        marked.time += 200
        marked.reconcile()
        assert marked.log_of_erasures
        assert marks(marked) == set()

    def test_erasure_that_fails_always_does_not_delay_others(
        self, world: World, log: io.StringIO
    ) -> None:
        for user in (USER, OTHER):
            stripe_id = StripeCustomer.create(user, EMAIL).stripe_id
            Erasure.start(str(user.id), {stripe_id: []}, delete_on_stripe=False)
            world.time += 1
        of_later_release = [
            {**image, "schema_version": {"N": "99"}}
            for image in world.images()
            if image["pk"]["S"] == "USER#u-1"
        ]
        for image in of_later_release:
            database_client().put_item(TableName=world.settings.table_name, Item=image)
        world.time += 200
        world.reconcile()
        assert StripeCustomer.get(OTHER) is None
        assert "NewerSchemaError" in log.getvalue()

    def test_failure_is_reported_by_the_schedule(self, world: World, log: io.StringIO) -> None:
        StripeCustomer.create(USER, EMAIL)
        world.stripe.faults.fail_next(None, match="POST *", status=503)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.erase(USER)
        world.time += 200
        world.reconcile()
        assert "StripeUnavailableError" in log.getvalue()
        assert StripeCustomer.get(USER)


class TestRestored:
    def test_record_whose_pointer_names_another_user(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL, name="Jane").stripe_id
        pointer = Pointer.read(stripe_id)
        assert pointer
        pointer.user_id = "u-2"
        pointer.save()
        StripeCustomer.erase(USER)
        second_pass(world)
        assert not world.items(record_type="Customer")
        assert not world.items(record_type="CustomerClaim")
        left = Pointer.read(stripe_id)
        assert left
        assert left.user_id == "u-2"

    def test_records_beside_a_tombstone_are_erased(self, marked: MarkedWorld) -> None:
        """A backup that was made during an erasure has half of its transaction."""
        of_ann = [image for image in marked.images() if image["pk"]["S"] == f"USER#{ANN.id}"]
        StripeCustomer.erase(ANN)
        put_back(marked, [*marked.images(), *of_ann])
        assert StripeCustomer.get(ANN)
        StripeCustomer.erase(ANN)
        assert marks(marked) == set()

    def test_claim_beside_a_tombstone_is_deleted_by_the_schedule(self, world: World) -> None:
        stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
        claim = next(image for image in world.images() if image["sk"]["S"] == "CLAIM")
        erasure = Erasure.start("u-1", {stripe_id: []}, delete_on_stripe=False)
        started = next(image for image in world.images() if image["pk"]["S"] == erasure.pk)
        StripeCustomer.erase(USER)
        others = [image for image in world.images() if image["pk"]["S"] != erasure.pk]
        put_back(world, [*others, claim, started])
        world.time += 200
        world.reconcile()
        assert "CustomerClaim" not in types(world)
        assert "u-1" not in str(world.items())

    def test_is_erased_again_from_the_log(self, marked: MarkedWorld) -> None:
        backup = marked.images()
        StripeCustomer.erase(ANN)
        put_back(marked, backup)
        assert marks(marked)
        for stripe_id in set(marked.log_of_erasures):
            marked.erase({"stripe_id": stripe_id})
        assert marks(marked) == set()
        marked.rebuild()
        assert marks(marked) == set()
        assert StripeCustomer.get(BOB)

    def test_user_who_has_another_customer_keeps_it(self, world: World) -> None:
        first = StripeCustomer.create(USER, EMAIL)
        backup = world.images()
        StripeCustomer.erase(USER)
        world.time += 60
        second = StripeCustomer.create(USER, EMAIL)
        put_back(world, backup)
        StripeCustomer.erase_stripe_customer(first.stripe_id)
        world.rebuild()
        assert StripeCustomer.require(USER).stripe_id == second.stripe_id
