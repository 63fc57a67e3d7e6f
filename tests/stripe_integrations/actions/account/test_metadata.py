"""Our metadata on Stripe of the customers that a backfill gave to users."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account.metadata import (
    NOT_STORED,
    OTHER_OWNER,
    write_metadata_of_page,
)
from stripe_integrations.actions.account.page import Finding, Page, Result
from stripe_integrations.actions.account.rate_limiter import Limits
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.context import current, use
from stripe_integrations.errors import (
    ConflictError,
    CustomerNotFoundError,
    StripeIntegrationsError,
    StripeUnavailableError,
)
from stripe_integrations.models import Pointer
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.metadata_update import MetadataUpdate
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.run import RunKind
from tests.stripe_integrations.actions.account.helpers import (
    backfill,
    calls,
    lose_events,
    make,
    record_of,
)
from tests.stripe_integrations.actions.account.test_mapping import undo, users
from tests.stripe_integrations.actions.customers.helpers import during_sleep
from tests.stripe_integrations.actions.customers.test_adopt import (
    UPDATE,
    on_stripe,
    set_metadata,
)
from tests.stripe_integrations.actions.customers.test_rebuild import at_call, die, put_back
from tests.world import USER, World, database_client

pytestmark = pytest.mark.usefixtures("stores_unassigned")

DEPLOYMENT = "stripe-customers"


@pytest.fixture
def assigned(world: World, existing: str) -> str:
    """The customer that a backfill gave to the first user."""
    backfill([("u-1", existing)])
    world.time += 60
    return existing


def write(limits: Limits | None = None) -> tuple[dict[str, int], list[Finding]]:
    """Run it to the end, and return how many customers had each result, and the report."""
    current().deadline = math.inf
    steps = list(StripeAccount.write_metadata(limits))
    return dict(steps[-1].results), [f for progress in steps for f in progress.findings]


def is_written(world: World, stripe_id: str) -> bool:
    """Return whether the metadata on Stripe is exactly what the pointer has."""
    pointer, metadata = Pointer.read(stripe_id), on_stripe(world, stripe_id)["metadata"]
    assert pointer
    return bool(metadata == {USER_KEY: pointer.user_id, TOKEN_KEY: pointer.token})


def updates(world: World, stripe_id: str) -> int:
    return calls(world).count(f"POST /v1/customers/{stripe_id}")


def backfill_run() -> str:
    """The id of the only backfill."""
    (run_id,) = {
        str(pointer.run_id) for pointer in Pointer.scan() if isinstance(pointer, Pointer)
    } - {"None"}
    return run_id


def forget_that_it_is_written(world: World, stripe_id: str) -> None:
    """Set the pointer to its state in a backup that was made before the metadata was written."""
    database_client().update_item(
        TableName=world.settings.table_name,
        Key={"pk": {"S": f"STRIPE#{stripe_id}"}, "sk": {"S": "POINTER"}},
        UpdateExpression="REMOVE has_metadata",
    )


class TestWritten:
    def test_names_user_and_token(self, world: World, assigned: str) -> None:
        assert write() == ({"written": 1}, [])
        assert is_written(world, assigned)
        record = record_of(assigned)
        assert (record.metadata, record.user_id) == (
            on_stripe(world, assigned)["metadata"],
            "u-1",
        )

    def test_lets_a_rebuild_find_the_customer(self, world: World, assigned: str) -> None:
        write()
        for image in world.images():
            key = {name: image[name] for name in ("pk", "sk")}
            database_client().delete_item(TableName=world.settings.table_name, Key=key)
        assert world.rebuild() == {"stored": 1}
        assert StripeCustomer.require(USER).stripe_id == assigned

    def test_only_for_customers_that_a_run_has_assigned(self, world: World, assigned: str) -> None:
        unassigned = make(world)
        StripeCustomer.create(User("u-2"), "b@example.com")
        adopted = make(world)
        StripeCustomer.adopt(User("u-3"), adopted)
        world.time += 60
        before = updates(world, adopted)
        assert write() == ({"written": 1, "unchanged": 3}, [])
        assert on_stripe(world, unassigned)["metadata"] == {}
        assert updates(world, adopted) == before

    def test_keeps_other_keys(self, world: World, assigned: str) -> None:
        set_metadata(world, assigned, plan="gold")
        write()
        assert on_stripe(world, assigned)["metadata"]["plan"] == "gold"

    def test_repeated_run_does_not_write_it_again(self, world: World, assigned: str) -> None:
        write()
        world.time += 60
        before = len(calls(world))
        assert write() == ({"unchanged": 1}, [])
        assert {call.partition("?")[0] for call in calls(world)[before:]} <= {
            "GET /v1/customers",
            f"GET /v1/customers/{assigned}",  # whose account the key is of
        }
        assert len(calls(world)) == before + 2

    def test_is_recognized_after_a_restore(self, world: World, assigned: str) -> None:
        write()
        forget_that_it_is_written(world, assigned)
        world.time += 60
        before = updates(world, assigned)
        assert write() == ({"written": 1}, [])
        assert updates(world, assigned) == before
        pointer = Pointer.read(assigned)
        assert pointer
        assert pointer.has_metadata

    def test_event_of_write_costs_no_fetch(self, world: World, assigned: str) -> None:
        lose_events(world)
        write()
        before = len(calls(world))
        world.deliver_and_apply()
        assert world.event_states() == {"customer.updated": "applied"}
        assert calls(world)[before:] == []

    def test_concurrent_change_is_not_overwritten(self, world: World, assigned: str) -> None:
        """The change, which is newer than the response, is fetched with the event."""
        lose_events(world)

        def rename() -> None:
            world.rename(assigned, "Later")
            StripeCustomer.sync(StripeCustomer.require(USER))

        run_id = StripeAccount.start(kind=RunKind.METADATA).run_id
        world.time += 60
        world.stripe.faults.delay(1, match=UPDATE)
        during_sleep(world, rename)
        assert [step.page.results for step in StripeAccount.work(run_id)] == [{"written": 1}]
        world.deliver_and_apply()
        record = record_of(assigned)
        assert (record.name, record.metadata) == ("Later", on_stripe(world, assigned)["metadata"])


class TestNotWritten:
    def reason(self, assigned: str) -> str:
        results, (finding,) = write()
        assert results == {"not-written": 1}
        assert (finding.stripe_id, finding.result) == (assigned, Result.NOT_WRITTEN)
        return finding.reason

    def test_key_that_stripe_refuses_is_reported(self, world: World, assigned: str) -> None:
        full = {f"key{number}": "value" for number in range(50)}
        set_metadata(world, assigned, **full)
        assert self.reason(assigned) == "Stripe refused it: metadata"
        assert users(world) == {"u-1": assigned}
        assert world.items(record_type="MetadataUpdate") == []
        set_metadata(world, assigned, key0="", key1="")
        world.time += 60
        assert write() == ({"written": 1}, [])

    @pytest.mark.parametrize(
        "metadata",
        [
            {USER_KEY: "u-1", TOKEN_KEY: "shop-prod/1-a"},
            {USER_KEY: "u-2", TOKEN_KEY: f"{DEPLOYMENT}/1-a"},
        ],
    )
    def test_metadata_of_another_owner_is_reported(
        self, world: World, assigned: str, metadata: dict[str, str]
    ) -> None:
        set_metadata(world, assigned, **metadata)
        assert self.reason(assigned) == OTHER_OWNER
        assert on_stripe(world, assigned)["metadata"] == metadata

    def test_missing_record_is_reported(self, world: World, existing: str) -> None:
        world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{existing}\n".encode()
        run_id = StripeAccount.start(mapping="mappings/a.csv").run_id
        next(StripeAccount.work(run_id))
        StripeAccount.stop(run_id)
        world.time += 300
        assert self.reason(existing) == NOT_STORED

    @pytest.mark.parametrize(
        ("end", "result"),
        [
            (lambda: StripeCustomer.soft_delete(StripeCustomer.require(USER)), "frozen"),
            (lambda: StripeCustomer.release(USER), "unchanged"),
            (lambda: StripeCustomer.erase(USER), "unchanged"),
        ],
    )
    def test_of_customer_that_was_soft_deleted_released_or_erased(
        self, world: World, assigned: str, end: Callable[[], object], result: str
    ) -> None:
        end()
        world.time += 60
        assert write() == ({result: 1}, [])
        assert on_stripe(world, assigned)["metadata"] == {}
        assert world.items(record_type="MetadataUpdate") == []


def about_customer(made: list[str]) -> range:
    """The numbers of the calls from the page with the customer until it is written.

    The others are about the run, as in runs of every kind.
    """
    _check_of_account, page, *further = (
        number for number, name in enumerate(made, 1) if name == "stripe"
    )
    return range(page, further[-1] + 3 if further else len(made) + 1)


ENDS: dict[str, Callable[[], object]] = {
    "release": lambda: StripeCustomer.release(USER),
    "erase": lambda: StripeCustomer.erase(USER),
}


class TestRaces:
    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", list(ENDS))
    def test_no_metadata_is_left_on_released_or_erased_customer(
        self, world: World, assigned: str, name: str
    ) -> None:
        """At whatever call of the run."""
        backup = world.images()
        with use(world.new_context()), at_call(world, 0, die) as made:
            write()
        outcomes = set()
        for number in about_customer(made):
            put_back(world, backup)
            set_metadata(world, assigned, **{USER_KEY: "", TOKEN_KEY: ""})

            def end() -> None:
                with use(world.new_context()), suppress(ConflictError):
                    ENDS[name]()
                    outcomes.add(name)

            with use(world.new_context()), at_call(world, number, end), suppress(ConflictError):
                write()
            world.time += 300
            world.reconcile()
            pointer = Pointer.read(assigned)
            if pointer is None or pointer.user_id is None:
                assert on_stripe(world, assigned)["metadata"] == {}, number
            else:
                assert is_written(world, assigned), number
                outcomes.add("written")
        # An erasure whose first call is refused is completed by the schedule.
        assert outcomes == ({name, "written"} if name == "release" else {name})

    @pytest.mark.exhaustive
    def test_kill_of_the_worker_is_completed_by_the_next_one(
        self, world: World, assigned: str
    ) -> None:
        """At whatever call of the run: another worker completes it."""
        backup = world.images()
        with use(world.new_context()), at_call(world, 0, die) as made:
            write()
        for number in about_customer(made):
            put_back(world, backup)
            set_metadata(world, assigned, **{USER_KEY: "", TOKEN_KEY: ""})
            killed = at_call(world, number, die)
            with use(world.new_context()), killed, suppress(ClientKilledError):
                run_id = StripeAccount.start(run_id="metadata-1", kind=RunKind.METADATA).run_id
                list(StripeAccount.work(run_id))
            world.time += 300
            with use(world.new_context()):
                run_id = StripeAccount.start(run_id="metadata-1", kind=RunKind.METADATA).run_id
                current().deadline = math.inf
                list(StripeAccount.work(run_id))
            assert is_written(world, assigned), number
            pointer = Pointer.read(assigned)
            assert pointer
            assert pointer.has_metadata

    def test_item_left_by_killed_worker_writes_nothing(self, world: World, assigned: str) -> None:
        """The schedule deletes it: only a run writes."""
        MetadataUpdate.acquire(assigned)
        world.time += 300
        world.reconcile()
        assert on_stripe(world, assigned)["metadata"] == {}
        assert world.items(record_type="MetadataUpdate") == []

    def test_release_that_was_interrupted_is_completed_by_schedule(
        self, world: World, assigned: str
    ) -> None:
        """The customer is still its user's, so its metadata is written again."""
        write()
        world.stripe.faults.time_out(None, match=UPDATE)
        with pytest.raises(StripeUnavailableError):
            StripeCustomer.release(USER)
        world.stripe.faults.clear()
        assert on_stripe(world, assigned)["metadata"] == {}
        world.time += 300
        world.reconcile()
        assert is_written(world, assigned)


class TestFailure:
    def test_by_rate_limit_leaves_no_claim(self, world: World, assigned: str) -> None:
        world.stripe.faults.fail_next(None, status=429, match=UPDATE)
        with pytest.raises(StripeUnavailableError):
            write()
        assert world.items(record_type="MetadataUpdate") == []

    def test_without_response_keeps_the_claim(self, world: World, assigned: str) -> None:
        """The write may arrive late: no other one is made until the claim has expired."""
        world.stripe.faults.time_out(None, match=UPDATE, when="before")
        with pytest.raises(StripeUnavailableError):
            write()
        world.stripe.faults.clear()
        run_id = StripeAccount.progress().run_id
        with pytest.raises(ConflictError):
            list(StripeAccount.work(run_id))
        with pytest.raises(ConflictError):
            StripeCustomer.release(USER)
        world.time += 300
        list(StripeAccount.work(run_id))
        assert is_written(world, assigned)


class TestRate:
    def test_is_five_a_second(self, world: World) -> None:
        made = [make(world) for _ in range(30)]
        world.time += 3600
        backfill([(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made)])
        world.time += 60
        began = world.time
        assert write()[0] == {"written": 30}
        assert 6 <= world.time - began < 25
        world.time += 60
        undo_began = world.time
        undo(backfill_run())
        assert world.time - undo_began >= 6

    def test_page_ends_before_its_lease(self, world: World) -> None:
        made = [make(world) for _ in range(10)]
        world.time += 3600
        backfill([(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made)])
        world.time += 60
        steps = list(StripeAccount.write_metadata(Limits(25, 25, 1000, metadata_writes=0.1)))
        assert steps[-1].results == {"written": 10}
        assert len(steps) > 2


class TestUndone:
    @pytest.mark.parametrize("is_known", [True, False])
    def test_is_removed(self, world: World, assigned: str, *, is_known: bool) -> None:
        """Also if the table is from a backup that lacks the note of the write."""
        run_id = backfill_run()
        write()
        if not is_known:
            forget_that_it_is_written(world, assigned)
        set_metadata(world, assigned, plan="gold")
        world.time += 60
        assert undo(run_id) == {"released": 1}
        assert on_stripe(world, assigned)["metadata"] == {"plan": "gold"}
        assert users(world) == {}
        assert world.items(record_type="MetadataUpdate") == []
        assert record_of(assigned).metadata == {"plan": "gold"}

    def test_of_customer_whose_record_was_never_stored(self, world: World, existing: str) -> None:
        set_metadata(world, existing, **{USER_KEY: "u-1", TOKEN_KEY: new_token()})
        world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{existing}\n".encode()
        run_id = StripeAccount.start(mapping="mappings/a.csv").run_id
        next(StripeAccount.work(run_id))
        StripeAccount.stop(run_id)
        world.time += 300
        assert undo(run_id) == {"released": 1}
        assert on_stripe(world, existing)["metadata"] == {}
        assert record_of(existing).metadata == {}

    def test_event_of_removal_costs_no_fetch(self, world: World, assigned: str) -> None:
        write()
        world.deliver_and_apply()
        world.time += 60
        undo(backfill_run())
        before = len(calls(world))
        world.deliver_and_apply()
        assert calls(world)[before:] == []

    def test_of_customer_that_was_adopted_since_is_kept(self, world: World, assigned: str) -> None:
        run_id = backfill_run()
        write()
        StripeCustomer.release(USER)
        StripeCustomer.adopt(User("u-2"), assigned)
        world.time += 60
        assert undo(run_id) == {"unchanged": 1}
        assert is_written(world, assigned)

    @pytest.mark.exhaustive
    def test_at_any_kill_is_completed(self, world: World, assigned: str) -> None:
        run_id = backfill_run()
        write()
        backup, metadata = world.images(), on_stripe(world, assigned)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as made:
            undo(run_id)
        for number in about_customer(made):
            put_back(world, backup)
            set_metadata(world, assigned, **metadata)
            killed = at_call(world, number, die)
            with use(world.new_context()), killed, suppress(ClientKilledError):
                undo(run_id)
            world.time += 300
            world.reconcile()
            pointer = Pointer.read(assigned)
            if pointer and pointer.user_id:
                assert is_written(world, assigned), number
            with use(world.new_context()):
                undo(run_id)
            assert on_stripe(world, assigned)["metadata"] == {}, number
            assert users(world) == {}, number

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("name", ["release and adopt", "metadata run"])
    def test_concurrent_writer_leaves_consistent_metadata(
        self, world: World, assigned: str, name: str
    ) -> None:
        """At whatever call of the undo: the metadata on Stripe is that of the pointer, or none."""
        run_id = backfill_run()
        is_run = name == "metadata run"
        if not is_run:
            write()
        backup, metadata = world.images(), on_stripe(world, assigned)["metadata"]
        with use(world.new_context()), at_call(world, 0, die) as made:
            undo(run_id)
        for number in about_customer(made):
            put_back(world, backup)
            set_metadata(world, assigned, **{USER_KEY: "", TOKEN_KEY: "", **metadata})

            def change() -> None:
                with use(world.new_context()), suppress(ConflictError, CustomerNotFoundError):
                    if is_run:
                        write_one(assigned)
                    else:
                        StripeCustomer.release(USER)
                        StripeCustomer.adopt(User("u-2"), assigned)

            with use(world.new_context()), at_call(world, number, change), suppress(ConflictError):
                undo(run_id)
            world.time += 300
            world.reconcile()
            pointer = Pointer.read(assigned)
            assert pointer
            if pointer.user_id == "u-2":
                assert is_written(world, assigned), number
            elif pointer.user_id is None:
                assert on_stripe(world, assigned)["metadata"] == {}, number


def write_one(stripe_id: str) -> None:
    """Write as a worker of a stopped run does, whose page has this customer."""
    page = Page([{"id": stripe_id}], Observation.of_event(0))
    with suppress(StripeIntegrationsError):
        write_metadata_of_page(page, lambda: None)


class TestMapping:
    def test_names_all_active_customers_of_users(self, world: World, assigned: str) -> None:
        make(world)
        own = StripeCustomer.create(User("u/2"), "b@example.com").stripe_id
        world.deliver_and_apply()
        gone = StripeCustomer.create(User("u-3"), "c@example.com")
        StripeCustomer.soft_delete(gone)
        assert set(StripeAccount.export_mapping()) == {("u-1", assigned), ("u/2", own)}

    def test_restores_what_metadata_does_not_name(self, world: World, assigned: str) -> None:
        rows = list(StripeAccount.export_mapping())
        for image in world.images():
            if image["pk"]["S"] not in ("DEPLOYMENT", "SWEEP"):
                key = {name: image[name] for name in ("pk", "sk")}
                database_client().delete_item(TableName=world.settings.table_name, Key=key)
        world.time += 60
        backfill(rows)
        assert users(world) == {"u-1": assigned}
