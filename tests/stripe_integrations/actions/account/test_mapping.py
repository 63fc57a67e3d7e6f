"""A backfill with a mapping: users get the customers that it names, and it can be undone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from local.stripe_double.client import ClientKilledError
from stripe_integrations.actions import StripeAccount, StripeCustomer, User
from stripe_integrations.actions.account.mapping import (
    RefusedRow,
    Row,
    read_rows,
)
from stripe_integrations.actions.account.page import Result
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY
from stripe_integrations.config import UnassignedCustomers
from stripe_integrations.context import current
from stripe_integrations.errors import (
    ConflictError,
    MappingRefusedError,
    OtherAccountError,
    RunInProgressError,
    StorageError,
)
from stripe_integrations.models import CustomerClaim, Owner, Pointer, read_customer
from stripe_integrations.models.run import PaymentMethodPolicy, RunState
from stripe_integrations.models.window import Window
from tests.stripe_integrations.actions.account.helpers import (
    backfill,
    calls,
    findings_of,
    lose_events,
    make,
    record_of,
    set_schema_version,
)
from tests.world import EMAIL, USER, World

OTHER = User("u-2")


pytestmark = pytest.mark.usefixtures("stores_unassigned")


def undo(run_id: str, *args: Any) -> dict[str, int]:
    current().deadline = math.inf
    return dict(list(StripeAccount.undo(run_id, *args))[-1].results)


def users(world: World) -> dict[str, str]:
    """Customer by user, of those that have one."""
    return {
        item["user_id"]: item["stripe_id"]
        for item in world.items(record_type="Customer", is_active=True)
        if item.get("user_id")
    }


class TestMapped:
    @pytest.mark.parametrize("policy", list(UnassignedCustomers))
    def test_customer_is_its_users(
        self, world: World, existing: str, policy: UnassignedCustomers
    ) -> None:
        world.configure(unassigned_customers=policy)
        assert backfill([("u-1", existing)]) == {"stored": 1, "fetched": 1}
        customer = StripeCustomer.require(USER)
        assert (customer.stripe_id, customer.name) == (existing, "Jane")
        assert len(customer.cards) == len(customer.subscriptions) == 1
        claim, pointer = CustomerClaim.read("u-1"), Pointer.read(existing)
        assert claim
        assert pointer
        assert (claim.stripe_id, claim.token) == (existing, pointer.token)

    def test_customer_is_kept_current_by_its_events(self, world: World, existing: str) -> None:
        backfill([("u-1", existing)])
        world.time += 60
        world.rename(existing, "Janet")
        world.deliver_and_apply()
        assert StripeCustomer.require(USER).name == "Janet"

    def test_metadata_on_stripe_is_not_changed(self, world: World, existing: str) -> None:
        before = len(calls(world))
        backfill([("u-1", existing)])
        assert {call.partition(" ")[0] for call in calls(world)[before:]} == {"GET"}

    def test_customer_that_was_unassigned_moves(self, world: World, existing: str) -> None:
        backfill()
        world.time += 3600
        assert backfill([("u-1", existing)]) == {"unchanged": 2}
        assert StripeCustomer.require(USER).stripe_id == existing
        assert read_customer(Owner(None, existing)) is None

    def test_customer_with_many_children_moves_with_all(self, world: World) -> None:
        stripe_id = make(world)
        for _ in range(45):
            world.attach_card(stripe_id)
        lose_events(world)
        world.time += 3600
        backfill(payment_methods=PaymentMethodPolicy.ALL)
        world.time += 3600
        backfill([("u-1", stripe_id)], payment_methods=PaymentMethodPolicy.NONE)
        assert len(StripeCustomer.require(USER).cards) == 45
        assert [i for i in world.items() if i["pk"].startswith("UNASSIGNED#")] == []

    def test_repeated_changes_nothing(self, world: World, existing: str) -> None:
        backfill([("u-1", existing)])
        version = StripeCustomer.require(USER).version
        world.time += 3600
        assert findings_of([("u-1", existing)]) == []
        assert StripeCustomer.require(USER).version == version

    def test_customer_of_test_clock_is_looked_up(
        self, world: World, existing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page: Any = ([], False)
        monkeypatch.setattr(
            "stripe_integrations.adapters.stripe_gateway.StripeGateway.list_customers_page",
            lambda *_: page,
        )
        assert findings_of([("u-1", existing)]) == []
        assert StripeCustomer.require(USER).stripe_id == existing


class TestConflict:
    def reasons(self, rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
        findings = findings_of(rows)
        assert {finding.result for finding in findings} <= {Result.CONFLICT}
        return [(finding.stripe_id, finding.reason) for finding in findings]

    def test_of_users_for_one_customer(self, world: World, existing: str) -> None:
        rows = [("u-1", existing), ("u-2", existing)]
        assert self.reasons(rows) == [(existing, "another user has the customer")]
        assert users(world) == {"u-1": existing}

    def test_of_customers_for_one_user(self, world: World, existing: str) -> None:
        second = make(world)
        world.time += 3600
        rows = [("u-1", existing), ("u-1", second)]
        assert self.reasons(rows) == [(second, "this user has another customer")]
        assert users(world) == {"u-1": existing}
        assert record_of(second).user_id is None

    def test_with_existing_customer_of_user(self, world: World, existing: str) -> None:
        own = StripeCustomer.create(USER, EMAIL).stripe_id
        assert self.reasons([("u-1", existing)]) == [(existing, "this user has another customer")]
        assert StripeCustomer.require(USER).stripe_id == own

    def test_with_create_in_progress(self, world: World, existing: str) -> None:
        CustomerClaim.acquire("u-1", {"stripe": {}, "local": {}})
        assert self.reasons([("u-1", existing)]) == [
            (existing, "a customer of this user is being created")
        ]

    def test_with_token_of_another_deployment(self, world: World) -> None:
        stripe_id = make(world, metadata={USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"})
        world.time += 3600
        reason = "its metadata names another owner"
        assert self.reasons([("u-1", stripe_id)]) == [(stripe_id, reason)]
        assert (CustomerClaim.read("u-1"), Pointer.read(stripe_id)) == (None, None)

    def test_with_customer_that_stripe_does_not_have(self, world: World) -> None:
        reason = "Stripe has no such customer, or has deleted it"
        assert self.reasons([("u-1", "cus_missing")]) == [("cus_missing", reason)]
        assert (CustomerClaim.read("u-1"), Pointer.read("cus_missing")) == (None, None)


class TestStaged:
    """Between the staging of a row and the page that has its customer."""

    @pytest.fixture
    def staged(self, world: World, existing: str) -> str:
        next(iter(StripeAccount.backfill([("u-1", existing)])))
        return existing

    def test_user_has_no_customer_yet(self, staged: str) -> None:
        assert StripeCustomer.get(USER) is None

    def test_create_stores_the_customer(self, world: World, staged: str) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        assert customer.stripe_id == staged
        assert len(world.stripe_customers()) == 1

    def test_create_makes_another_where_metadata_names_another_owner(
        self, world: World, staged: str
    ) -> None:
        metadata = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        world.request("POST", f"/v1/customers/{staged}", {"metadata": metadata})
        assert StripeCustomer.create(USER, EMAIL).stripe_id != staged

    def test_create_that_makes_another_leaves_nothing_that_stops_the_run(
        self, world: World, staged: str
    ) -> None:
        metadata = {USER_KEY: "u-9", TOKEN_KEY: "shop-prod/1-a"}
        world.request("POST", f"/v1/customers/{staged}", {"metadata": metadata})
        lose_events(world)
        own = StripeCustomer.create(USER, EMAIL).stripe_id
        backfill([("u-1", staged)], run_id=StripeAccount.progress().run_id)
        assert users(world) == {"u-1": own}
        assert Pointer.read(staged) is None

    def test_event_waits_for_the_record(self, world: World, staged: str) -> None:
        world.rename(staged, "Janet")
        world.deliver_and_apply()
        assert set(world.event_states().values()) == {"waiting"}
        run_id = StripeAccount.progress().run_id
        current().deadline = math.inf
        list(StripeAccount.backfill([("u-1", staged)], run_id=run_id))
        world.time += 300
        world.reconcile()
        world.stream()
        assert set(world.event_states().values()) <= {"applied", "ignored"}
        assert StripeCustomer.require(USER).name == "Janet"

    def test_run_is_continued(self, world: World, staged: str) -> None:
        run_id = StripeAccount.progress().run_id
        assert backfill([("u-1", staged)], run_id=run_id) == {"stored": 1, "fetched": 1}

    def test_other_user_can_not_adopt_it(self, staged: str) -> None:
        with pytest.raises(Exception, match="another user's"):
            StripeCustomer.adopt(OTHER, staged)


class TestUndone:
    def test_shifted_mapping_is_undone_completely(self, world: World) -> None:
        made = [make(world) for _ in range(20)]
        world.time += 3600
        shifted = [(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made[1:])]
        run_id = list(StripeAccount.backfill(shifted))[-1].run_id
        assert len(users(world)) == 19
        world.time += 3600
        assert undo(run_id) == {"released": 19, "unchanged": 1}
        assert users(world) == {}
        assert world.items(record_type="CustomerClaim") == []
        correct = [(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made)]
        world.time += 3600
        assert findings_of(correct) == []
        assert users(world) == dict(correct)

    def test_where_unassigned_customers_are_not_stored(self, world: World, existing: str) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        world.time += 3600
        assert undo(run_id) == {"released": 1}
        assert {item["record_type"] for item in world.items()} >= {"Run"}
        assert not [i for i in world.items() if i["pk"].startswith(("USER#", "STRIPE#"))]

    def test_keeps_what_was_assigned_since(self, world: World, existing: str) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        StripeCustomer.release(USER)
        StripeCustomer.adopt(OTHER, existing)
        world.time += 3600
        assert undo(run_id) == {"unchanged": 1}
        assert users(world) == {"u-2": existing}

    def test_after_an_interrupted_release_leaves_no_metadata(
        self, world: World, existing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id

        def die(*_: object) -> None:
            raise ClientKilledError("here")

        with monkeypatch.context() as patch, pytest.raises(ClientKilledError):
            patch.setattr("stripe_integrations.actions.customers.release.free_customer", die)
            StripeCustomer.release(USER)
        world.time += 300
        world.reconcile()
        assert StripeCustomer.require(USER).stripe_id == existing
        assert world.items(record_type="MetadataUpdate") == []
        world.time += 3600
        assert undo(run_id) == {"released": 1}
        assert current().stripe.retrieve_customer(existing)["metadata"] == {}

    def test_customer_that_a_create_stored_for_its_row_is_released(
        self, world: World, existing: str
    ) -> None:
        next(iter(StripeAccount.backfill([("u-1", existing)])))
        run_id = StripeAccount.progress().run_id
        assert StripeCustomer.create(USER, EMAIL).stripe_id == existing
        StripeAccount.stop(run_id)
        assert undo(run_id) == {"released": 1}
        assert users(world) == {}

    def test_row_without_record_is_removed(self, world: World, existing: str) -> None:
        world.configure(unassigned_customers=UnassignedCustomers.IGNORE)
        next(iter(StripeAccount.backfill([("u-1", existing)])))
        run_id = StripeAccount.progress().run_id
        StripeAccount.stop(run_id)
        assert undo(run_id) == {"released": 1}
        assert (CustomerClaim.read("u-1"), Pointer.read(existing)) == (None, None)

    def test_is_completed_when_it_is_called_again_after_a_kill(
        self, world: World, existing: str
    ) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        begun = StripeAccount.undo(run_id)
        assert next(begun).results == {"released": 1}
        begun.close()
        StripeCustomer.adopt(OTHER, existing)
        interrupted = StripeAccount.progress()
        StripeAccount.stop(interrupted.run_id)
        assert undo(run_id) == {"released": 1}
        assert StripeAccount.progress().run_id == interrupted.run_id
        assert users(world) == {"u-2": existing}

    def test_other_run_in_progress_refuses_it(self, existing: str) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        StripeAccount.start()
        with pytest.raises(RunInProgressError):
            undo(run_id)

    def test_customer_that_stripe_does_not_list_is_released_by_its_row(
        self, world: World, existing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        page: Any = ([], False)
        monkeypatch.setattr(
            "stripe_integrations.adapters.stripe_gateway.StripeGateway.list_customers_page",
            lambda *_: page,
        )
        undo(run_id, [("u-1", existing)])
        assert users(world) == {}


class TestFile:
    def rows(self, world: World, key: str, content: bytes) -> list[Any]:
        world.files[key] = content
        return [row for row, _ in read_rows(key)]

    def test_csv(self, world: World) -> None:
        lines = b'\xef\xbb\xbfstripe_id,user_id\r\ncus_1,"a,b"\r\n\r\ncus_2,2\r\n'
        assert self.rows(world, "a.csv", lines) == [Row("a,b", "cus_1"), None, Row("2", "cus_2")]

    @pytest.mark.parametrize("header", [b"", b"u-1,cus_1\n", b"user_id\n", b"\xff,\xfe\n"])
    def test_csv_needs_header(self, world: World, header: bytes) -> None:
        with pytest.raises(MappingRefusedError):
            self.rows(world, "a.csv", header)

    def test_json_lines(self, world: World) -> None:
        lines = b'{"user_id": "u-1", "stripe_id": "cus_1"}\n\n'
        assert self.rows(world, "a.jsonl", lines) == [Row("u-1", "cus_1"), None]

    @pytest.mark.parametrize("key", ["a.csv", "a.jsonl"])
    def test_is_read_on_from_an_offset(self, world: World, key: str) -> None:
        csv = b"user_id,stripe_id\nu-1,cus_1\nu-2,cus_2\nu-3,cus_3"
        json_lines = b"".join(
            b'{"user_id": "u-%d", "stripe_id": "cus_%d"}\n' % (number, number)
            for number in (1, 2, 3)
        )
        world.files[key] = csv if key == "a.csv" else json_lines
        rows = list(read_rows(key))
        assert [row for row, _ in rows] == [Row(f"u-{n}", f"cus_{n}") for n in (1, 2, 3)]
        for number, (_, offset) in enumerate(rows, 1):
            assert list(read_rows(key, offset)) == rows[number:]

    @pytest.mark.parametrize(
        "line",
        [
            b",cus_1",
            b" u-1,cus_1",
            b"u-1 ,cus_1",
            b"u\x00,cus_1",
            "u\u2028,cus_1".encode(),
            b"u-1,cus_",
            b"u-1,sub_1",
            b"u-1,cus_1 ",
            b"u-1",
            b"u-1,cus_1,x",
            b"\xff,cus_1",
            b'"u-1,cus_1',
            b"u" * 501 + b",cus_1",
            b"u-1,cus_1\ru-2,cus_2",
            b"\xef\xbb\xbfu-1,cus_1",
            b'"' + b"u" * 20_000,
        ],
    )
    def test_refused_row_of_csv(self, world: World, line: bytes) -> None:
        (row,) = self.rows(world, "a.csv", b"user_id,stripe_id\n" + line + b"\n")
        assert isinstance(row, RefusedRow)
        assert row.place == len(b"user_id,stripe_id\n")
        assert "u-1" not in row.reason

    @pytest.mark.parametrize(
        "line",
        [
            b"[]",
            b"{",
            b'{"user_id": 1, "stripe_id": "cus_1"}',
            b'{"user_id": "u-1"}',
            b'{"user_id": "u-1", "user_id": "u-2", "stripe_id": "cus_1"}',
            b'[["user_id", "u-1"], ["stripe_id", "cus_1"]]',
            b'{"user_id": "\\ud800", "stripe_id": "cus_1"}',
            '{"user_id": "u-1", "stripe_id": "cus_1"}'.encode("utf-16-le"),
            b"[" * 16_000,
            b'{"user_id": "u-1", "stripe_id": "cus_1"}' + b" " * 20_000,
        ],
    )
    def test_refused_row_of_json_lines(self, world: World, line: bytes) -> None:
        (row,) = self.rows(world, "a.jsonl", line)
        assert isinstance(row, RefusedRow)

    def test_byte_order_mark_is_dropped_only_at_the_beginning(self, world: World) -> None:
        line = b'\xef\xbb\xbf{"user_id": "u-1", "stripe_id": "cus_1"}\n'
        first, second = self.rows(world, "a.jsonl", 2 * line)
        assert first == Row("u-1", "cus_1")
        assert isinstance(second, RefusedRow)

    def test_refused_row_assigns_nothing(self, world: World, existing: str) -> None:
        with pytest.raises(MappingRefusedError, match="the first is 2"):
            list(StripeAccount.backfill([("u-1", existing), ("", "cus_2")]))
        assert CustomerClaim.read("u-1") is None


class TestRaces:
    def test_create_during_staging_wins_or_conflicts(self, world: World, existing: str) -> None:
        customer = StripeCustomer.create(USER, EMAIL)
        findings = findings_of([("u-1", existing)])
        assert [finding.result for finding in findings] == [Result.CONFLICT]
        assert users(world)["u-1"] == customer.stripe_id

    def test_adoption_before_the_page_is_written(
        self, world: World, existing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read_all = Pointer.read_all

        def read(ids: Any) -> dict[str, Pointer]:
            found = read_all(ids)
            monkeypatch.setattr(Pointer, "read_all", read_all)
            StripeCustomer.adopt(OTHER, existing)
            return found

        monkeypatch.setattr(Pointer, "read_all", read)
        try:
            backfill()
        except ConflictError:
            pytest.fail("the page was not decided again")
        assert users(world) == {"u-2": existing}


class TestStagedFromFile:
    """The mapping is a file in the bucket, whose rows are staged page by page."""

    def start(self, world: World, rows: list[tuple[str, str]], **options: Any) -> str:
        lines = "".join(f"{user_id},{stripe_id}\n" for user_id, stripe_id in rows)
        world.files["mappings/a.csv"] = f"user_id,stripe_id\n{lines}".encode()
        return StripeAccount.start(mapping="mappings/a.csv", **options).run_id

    def work(self, run_id: str) -> dict[str, int]:
        current().deadline = math.inf
        list(StripeAccount.work(run_id))
        return dict(StripeAccount.progress(run_id).results)

    def test_users_get_their_customers(self, world: World) -> None:
        made = [make(world) for _ in range(230)]
        world.time += 3600
        rows = [(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made)]
        run_id = self.start(world, rows)
        assert self.work(run_id) == {"staged": 230, "stored": 230, "unchanged": 230}
        assert users(world) == dict(rows)
        assert StripeAccount.progress(run_id).state is RunState.FINISHED

    def test_killed_worker_loses_no_row(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = [make(world) for _ in range(150)]
        world.time += 3600
        rows = [(f"u-{number}", stripe_id) for number, stripe_id in enumerate(made)]
        run_id = self.start(world, rows)
        advance, calls_left = Window.advance, [1]

        def die(window: Window, *args: Any) -> None:
            if not calls_left:
                raise KeyboardInterrupt
            calls_left.pop()
            advance(window, *args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Window, "advance", die)
            list(StripeAccount.work(run_id))
        self.work(run_id)
        assert users(world) == dict(rows)

    def test_row_of_customer_that_no_list_has_is_reported(
        self, world: World, existing: str
    ) -> None:
        run_id = self.start(world, [("u-1", existing), ("u-2", "cus_missing")])
        assert self.work(run_id)["conflict"] == 1
        assert users(world) == {"u-1": existing}
        assert any("cus_missing" in text for text in world.reports.values())
        assert CustomerClaim.read("u-2") is None

    def test_row_that_an_earlier_run_staged_is_looked_up(self, world: World, existing: str) -> None:
        self.work(self.start(world, [("u-2", "cus_missing"), ("", existing)]))
        assert CustomerClaim.read("u-2")
        assert self.work(self.start(world, [("u-2", "cus_missing")]))["conflict"] == 1
        assert CustomerClaim.read("u-2") is None

    def test_invalid_row_stops_the_run(self, world: World, existing: str) -> None:
        run_id = self.start(world, [("", existing)])
        assert self.work(run_id) == {}
        assert StripeAccount.progress(run_id).state is RunState.STOPPED
        assert any("user_id is empty" in text for text in world.reports.values())

    def test_corrected_file_is_staged_by_another_run(self, world: World, existing: str) -> None:
        rows = [("u-1", existing), ("u-2", "cus_missing")]
        self.work(self.start(world, [*rows, ("", "cus_2")]))
        results = self.work(self.start(world, rows))
        assert (results["staged"], results["conflict"]) == (2, 1)
        assert users(world) == {"u-1": existing}
        assert CustomerClaim.read("u-2") is None

    def test_invalid_row_is_passed_over_if_allowed(self, world: World, existing: str) -> None:
        run_id = self.start(world, [("", "cus_2"), ("u-1", existing)], allow_refused=True)
        assert self.work(run_id)["refused"] == 1
        assert users(world) == {"u-1": existing}

    def test_missing_file_starts_no_run(self, world: World) -> None:
        with pytest.raises(StorageError):
            StripeAccount.start(mapping="mappings/missing.csv")
        assert world.items(record_type="Run") == []

    def test_file_without_header_starts_no_run(self, world: World) -> None:
        world.files["mappings/a.csv"] = b"u-1,cus_1\n"
        with pytest.raises(MappingRefusedError):
            StripeAccount.start(mapping="mappings/a.csv")
        assert world.items(record_type="Run") == []

    def test_is_undone(self, world: World, existing: str) -> None:
        run_id = self.start(world, [("u-1", existing)])
        self.work(run_id)
        world.time += 3600
        assert undo(run_id) == {"released": 1}
        assert users(world) == {}


class TestUnreadableRecord:
    """Of a later release: neither a row nor an undo of it stops the run."""

    def test_is_reported_for_a_row(self, world: World, existing: str) -> None:
        backfill()
        set_schema_version(world, existing, 99)
        other = make(world)
        world.time += 3600
        rows = f"user_id,stripe_id\nu-1,{existing}\nu-2,{other}\n"
        world.files["mappings/a.csv"] = rows.encode()
        run_id = StripeAccount.start(mapping="mappings/a.csv").run_id
        findings = [f for step in StripeAccount.work(run_id) for f in step.page.findings]
        assert existing in {finding.stripe_id for finding in findings}
        assert {finding.result for finding in findings} == {Result.UNREADABLE}
        assert record_of(other).user_id == "u-2"

    def test_is_reported_by_an_undo(self, world: World, existing: str) -> None:
        other = make(world)
        world.time += 3600
        run_id = list(StripeAccount.backfill([("u-1", existing), ("u-2", other)]))[-1].run_id
        set_schema_version(world, existing, 99)
        world.time += 3600
        (*_, progress) = StripeAccount.undo(run_id)
        assert progress.results == {"unreadable": 1, "released": 1}
        assert record_of(other).user_id is None


class TestUndoOfStagedRow:
    def test_stores_the_customer_whose_events_have_waited(
        self, world: World, existing: str
    ) -> None:
        """The run was stopped before it read the list."""
        world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{existing}\n".encode()
        run_id = StripeAccount.start(mapping="mappings/a.csv").run_id
        next(StripeAccount.work(run_id))
        StripeAccount.stop(run_id)
        world.time += 3600
        assert list(StripeAccount.undo(run_id))[-1].results == {"released": 1}
        assert CustomerClaim.read("u-1") is None
        assert record_of(existing).user_id is None


class TestUndoWithActiveWorker:
    def test_is_refused_while_a_worker_of_the_stopped_run_may_write(
        self, world: World, existing: str
    ) -> None:
        world.files["mappings/a.csv"] = f"user_id,stripe_id\nu-1,{existing}\n".encode()
        run_id = StripeAccount.start(mapping="mappings/a.csv").run_id
        Window.all_of(run_id)[0].lease("0")
        StripeAccount.stop(run_id)
        with pytest.raises(RunInProgressError):
            list(StripeAccount.undo(run_id))
        world.time += 121
        assert list(StripeAccount.undo(run_id))[-1].state is RunState.FINISHED

    def test_with_the_key_of_another_account_is_refused(self, world: World, existing: str) -> None:
        run_id = list(StripeAccount.backfill([("u-1", existing)]))[-1].run_id
        world.stripe.account.customers.clear()
        with pytest.raises(OtherAccountError):
            list(StripeAccount.undo(run_id))
