"""`StripeCustomer.release`: the deployment forgets a customer, and any user may adopt it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.context import use
from stripe_integrations.errors import (
    ConflictError,
    CustomerBeingCreatedError,
    CustomerNotFoundError,
    CustomerOfAnotherUserError,
    StripeRefusedError,
    StripeUnavailableError,
)
from stripe_integrations.models import Customer, Owner, Pointer
from stripe_integrations.models.child import Child
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.table import transact
from tests.stripe_integrations.actions.customers.helpers import acquire_claim, during_sleep
from tests.stripe_integrations.actions.customers.test_adopt import (
    OTHER,
    UPDATE,
    assert_is_owned,
    changes_on_stripe,
    existing,
    on_stripe,
    set_metadata,
)
from tests.stripe_integrations.actions.customers.test_rebuild import at_call, die, put_back, records
from tests.world import EMAIL, USER, World

__all__ = ["existing"]


@pytest.fixture
def adopted(world: World, existing: str) -> str:
    """The customer of the first user, with a pointer for one of its payment methods."""
    world.configure(stored_records=frozenset({"Card", "Subscription", "PaymentMethod"}))
    StripeCustomer.adopt(USER, existing)
    world.time += 60
    return existing


def left(world: World) -> set[str]:
    """The types of what the table has besides events and runs."""
    return {image["record_type"]["S"] for image in records(world)} - {"Event"}


class TestReleased:
    def test_is_unknown(self, world: World, adopted: str) -> None:
        assert left(world) > {"Customer", "CustomerClaim", "Pointer", "Card", "Subscription"}
        StripeCustomer.release(USER)
        assert left(world) == {"Deployment"}
        assert StripeCustomer.get(USER) is None
        found = on_stripe(world, adopted)
        assert (found["metadata"], found["name"]) == ({}, "Jane")

    def test_keeps_metadata_of_others(self, world: World, adopted: str) -> None:
        set_metadata(world, adopted, plan="gold")
        StripeCustomer.release(USER)
        assert on_stripe(world, adopted)["metadata"] == {"plan": "gold"}

    def test_of_another_deployment_keeps_its_metadata(self, world: World, adopted: str) -> None:
        theirs = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        set_metadata(world, adopted, **theirs)
        StripeCustomer.release(USER)
        assert on_stripe(world, adopted)["metadata"] == theirs
        assert left(world) == {"Deployment"}

    def test_of_another_deployment_keeps_its_metadata_wherever_it_is_killed(
        self, world: World, adopted: str
    ) -> None:
        """The other deployment has taken it over, and this one lets it go."""
        theirs = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        set_metadata(world, adopted, **theirs)
        backup = world.images()
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.release(USER)
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            process = use(world.new_context())
            with process, at_call(world, number, die), pytest.raises(ClientKilledError):
                StripeCustomer.release(USER)
            world.time += 300
            world.reconcile()
            assert on_stripe(world, adopted)["metadata"] == theirs
            assert MetadataUpdate.acquire(adopted), "the work item is finished"

    def test_is_adopted_by_another_user_with_children(self, world: World, adopted: str) -> None:
        StripeCustomer.release(USER)
        StripeCustomer.adopt(OTHER, adopted)
        assert_is_owned(world, adopted, "u-2")
        customer = StripeCustomer.require(OTHER)
        assert len(customer.cards) == len(customer.subscriptions) == 1
        assert StripeCustomer.create(USER, EMAIL).stripe_id != adopted

    def test_is_adopted_again(self, world: World, adopted: str) -> None:
        StripeCustomer.release(USER)
        assert StripeCustomer.adopt(USER, adopted).is_new
        assert_is_owned(world, adopted)

    def test_gets_no_events(self, world: World, adopted: str) -> None:
        StripeCustomer.release(USER)
        world.deliver_and_apply()
        world.time += 60
        world.rename(adopted, "Later")
        world.deliver_and_apply()
        world.time += 86_400
        world.reconcile()
        assert set(world.event_states().values()) == {"ignored"}
        assert left(world) == {"Deployment", "SweepCursor"}

    def test_with_pending_event_ends_it(self, world: World, adopted: str) -> None:
        world.rename(adopted, "Later")
        event_id = world.receive()
        StripeCustomer.release(USER)
        world.stream_events(event_id)
        assert world.event_states() == {"customer.updated": "waiting"}
        world.time += 86_400
        world.reconcile()
        assert world.event_states()["customer.updated"] == "ignored"
        assert left(world) == {"Deployment", "SweepCursor"}

    def test_with_pending_event_gives_it_to_next_user(self, world: World, adopted: str) -> None:
        world.rename(adopted, "Later")
        event_id = world.receive()
        StripeCustomer.release(USER)
        world.stream_events(event_id)
        StripeCustomer.adopt(OTHER, adopted)
        world.stream()
        (event,) = world.items(record_type="Event", kind="customer.updated")
        assert (event["state"], event["user_id"]) == ("applied", "u-2")
        assert StripeCustomer.require(OTHER).name == "Later"

    def test_of_created_customer_is_not_rebuilt(self, world: World) -> None:
        StripeCustomer.create(USER, EMAIL)
        StripeCustomer.release(USER)
        world.rebuild()
        assert left(world) == {"Deployment"}

    def test_that_stripe_has_deleted(self, world: World, adopted: str) -> None:
        world.request("DELETE", f"/v1/customers/{adopted}")
        StripeCustomer.release(USER)
        assert left(world) == {"Deployment"}

    def test_with_more_children_than_fit_into_transaction(
        self, world: World, adopted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 1)
        StripeCustomer.release(USER)
        assert left(world) == {"Deployment"}

    def test_with_hundreds_of_children(self, world: World, existing: str) -> None:
        for _ in range(100):
            world.attach_card(existing)
            world.subscribe(existing)
        adopted = StripeCustomer.adopt(USER, existing)
        assert (len(adopted.cards), len(adopted.subscriptions)) == (101, 101)
        StripeCustomer.release(USER)
        assert left(world) == {"Deployment"}
        again = StripeCustomer.adopt(OTHER, existing)
        assert (len(again.cards), len(again.subscriptions)) == (101, 101)

    def test_leaves_children_pointers_of_next_user(
        self, world: World, adopted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 0)
        (card,) = StripeCustomer.require(USER).cards
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.release(USER)
        StripeCustomer.adopt(USER, adopted)
        number = next(n for n in range(len(calls), 0, -1) if self.is_released(world, adopted, n))

        def adopt() -> None:
            with use(world.new_context()):
                StripeCustomer.adopt(OTHER, adopted)

        with at_call(world, number, adopt):
            StripeCustomer.release(USER)
        assert Pointer.find(card.stripe_id) == ("u-2", adopted)
        assert StripeCustomer.require(OTHER).cards
        assert world.items(pk="USER#u-1") == []

    def is_released(self, world: World, adopted: str, number: int) -> bool:
        """Return whether the customer is released at a call, and its children are there."""
        backup = world.images()
        with (
            use(world.new_context()),
            at_call(world, number, die),
            pytest.raises(ClientKilledError),
        ):
            StripeCustomer.release(USER)
        has_released = Pointer.find(adopted) is None and bool(world.items(record_type="Card"))
        put_back(world, backup)
        world.time += 300
        world.reconcile()
        StripeCustomer.adopt(USER, adopted)
        return has_released


class TestRefusal:
    def test_of_user_without_customer(self, world: World, adopted: str) -> None:
        StripeCustomer.release(USER)
        for user in (USER, OTHER):
            with pytest.raises(CustomerNotFoundError):
                StripeCustomer.release(user)

    def test_of_customer_that_is_being_created(self, world: World) -> None:
        acquire_claim()
        with pytest.raises(CustomerBeingCreatedError):
            StripeCustomer.release(USER)

    def test_of_customer_whose_pointer_names_another_user(self, world: World, adopted: str) -> None:
        """As half of a backup may have it: the customer is that one's."""
        transact(lambda t: t.save(Pointer.to(Owner("u-9", adopted))))
        before = len(world.stripe.requests)
        with pytest.raises(CustomerOfAnotherUserError):
            StripeCustomer.release(USER)
        assert len(world.stripe.requests) == before
        assert Pointer.find(adopted) == ("u-9", adopted)
        assert world.items(record_type="MetadataUpdate") == []

    def test_while_metadata_is_written(self, world: World, adopted: str) -> None:
        assert MetadataUpdate.acquire(adopted)
        before = len(world.stripe.requests)
        with pytest.raises(ConflictError):
            StripeCustomer.release(USER)
        assert changes_on_stripe(world, before) == []
        assert StripeCustomer.require(USER).stripe_id == adopted

    @pytest.mark.parametrize(
        ("status", "error"),
        [(400, StripeRefusedError), (404, StripeRefusedError), (503, StripeUnavailableError)],
    )
    @pytest.mark.parametrize("call", ["GET /v1/customers/*", UPDATE])
    def test_by_stripe_leaves_customer(
        self, world: World, adopted: str, call: str, status: int, error: type[Exception]
    ) -> None:
        world.stripe.faults.fail_next(None, match=call, status=status)
        with pytest.raises(error):
            StripeCustomer.release(USER)
        world.stripe.faults.clear()
        world.time += 300
        world.reconcile()
        assert_is_owned(world, adopted)


class TestRaces:
    def test_with_own_events(self, world: World, adopted: str) -> None:
        world.stripe.faults.delay(1, match=UPDATE)

        def rename() -> None:
            world.rename(adopted, "Later")
            world.deliver_and_apply()

        during_sleep(world, rename)
        StripeCustomer.release(USER)
        assert left(world) == {"Deployment"}

    def test_with_soft_delete(self, world: World, adopted: str) -> None:
        world.stripe.faults.delay(1, match=UPDATE)
        during_sleep(world, lambda: StripeCustomer.soft_delete(StripeCustomer.require(USER)))
        with pytest.raises(CustomerNotFoundError):
            StripeCustomer.release(USER)
        world.time += 300
        world.reconcile()
        assert on_stripe(world, adopted)["metadata"][USER_KEY] == "u-1"

    def test_during_adoption_is_not_reported_as_deletion(self, world: World, existing: str) -> None:
        backup = world.images()
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.adopt(USER, existing)
        messages = set()
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, existing, **{USER_KEY: "", TOKEN_KEY: ""})

            def release() -> None:
                with use(world.new_context()), suppress(CustomerNotFoundError, ConflictError):
                    StripeCustomer.release(USER)

            with use(world.new_context()), at_call(world, number, release):
                try:
                    StripeCustomer.adopt(USER, existing)
                except CustomerNotFoundError as error:
                    messages.add(str(error))
        assert messages == {f"{existing} was released meanwhile"}

    @pytest.mark.parametrize("name", ["sync", "soft_delete", "update"])
    def test_with_other_write_leaves_nothing(self, world: World, adopted: str, name: str) -> None:
        """Whatever call of the write the release meets, the caller learns that it is gone."""
        fields = {"name": "Later"} if name == "update" else {}
        backup = world.images()
        metadata = on_stripe(world, adopted)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as calls:
            getattr(StripeCustomer, name)(StripeCustomer.require(USER), **fields)
        outcomes = []
        for number in range(1, len(calls)):
            put_back(world, backup)
            set_metadata(world, adopted, **metadata)
            customer = StripeCustomer.require(USER)

            def release() -> None:
                with use(world.new_context()):
                    StripeCustomer.release(USER)

            with use(world.new_context()), at_call(world, number, release):
                try:
                    getattr(StripeCustomer, name)(customer, **fields)
                except Exception as error:
                    outcomes.append(type(error))
            assert left(world) == {"Deployment"}
        assert set(outcomes) == {CustomerNotFoundError}

    def test_during_rebuild_is_not_undone(self, world: World, adopted: str) -> None:
        """The rebuild has listed the customer with its metadata, before the release removed it."""
        backup = world.images()
        metadata = on_stripe(world, adopted)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as calls:
            world.rebuild()
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, adopted, **metadata)

            def release() -> None:
                with use(world.new_context()):
                    StripeCustomer.release(USER)

            with use(world.new_context()), at_call(world, number, release):
                world.rebuild()
            assert left(world) == {"Deployment"}, number

    def test_with_adoption_by_another_user(self, world: World, adopted: str) -> None:
        """Whatever call of the release the adoption meets, the customer has one owner."""
        backup = world.images()
        metadata = on_stripe(world, adopted)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.release(USER)
        owners = set()
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, adopted, **metadata)

            def adopt() -> None:
                with use(world.new_context()):
                    try:
                        StripeCustomer.adopt(OTHER, adopted)
                    except Exception as error:
                        owners.add(type(error).__name__)

            with use(world.new_context()), at_call(world, number, adopt):
                StripeCustomer.release(USER)
            assert StripeCustomer.get(USER) is None
            if StripeCustomer.get(OTHER):
                owners.add("u-2")
                assert_is_owned(world, adopted, "u-2")
            else:
                assert on_stripe(world, adopted)["metadata"] == {}
        assert owners == {"CustomerOfAnotherUserError", "u-2"}

    def test_with_adoption_by_same_user_keeps_children(
        self, world: World, adopted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever call of the release the adoption meets: children are deleted one by one."""
        monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 0)
        backup = world.images()
        metadata = on_stripe(world, adopted)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.release(USER)
        adopted_again = 0
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, adopted, **metadata)

            def adopt() -> None:
                with use(world.new_context()):
                    StripeCustomer.adopt(USER, adopted)

            with use(world.new_context()), at_call(world, number, adopt):
                StripeCustomer.release(USER)
            if StripeCustomer.get(USER):
                adopted_again += 1
                assert_is_owned(world, adopted)
                (card,) = StripeCustomer.require(USER).cards
                assert len(StripeCustomer.require(USER).subscriptions) == 1
                assert Pointer.find(card.stripe_id) == ("u-1", adopted)
        assert adopted_again > 1

    def test_killed_at_any_call_is_undone_or_completed(self, world: World, adopted: str) -> None:
        backup = world.images()
        metadata = on_stripe(world, adopted)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as calls:
            StripeCustomer.release(USER)
        for number in range(1, len(calls) + 1):
            put_back(world, backup)
            set_metadata(world, adopted, **metadata)
            process = use(world.new_context())
            with process, at_call(world, number, die), pytest.raises(ClientKilledError):
                StripeCustomer.release(USER)
            world.time += 300
            world.reconcile()
            customer: Customer | None = StripeCustomer.get(USER)
            if customer:
                assert_is_owned(world, adopted)
                StripeCustomer.release(USER)
            assert StripeCustomer.get(USER) is None
            assert on_stripe(world, adopted)["metadata"] == {}
            assert StripeCustomer.adopt(User("u-3"), adopted).is_new


def test_interrupted_deletion_of_children_is_completed(
    world: World, adopted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_integrations.models.customer._ROOM_ITEMS", 0)

    def fail(child: Child) -> None:
        raise ClientKilledError(child.sk)

    with monkeypatch.context() as patch, pytest.raises(ClientKilledError):
        patch.setattr("stripe_integrations.models.child.Child.delete_orphan", fail)
        StripeCustomer.release(USER)
    assert left(world) > {"Card", "Subscription"}
    assert StripeCustomer.get(USER) is None
    StripeCustomer.release(USER)
    assert left(world) == {"Deployment"}
    with pytest.raises(CustomerNotFoundError):
        StripeCustomer.release(USER)
