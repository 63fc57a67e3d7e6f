"""`events`: listed, shown and replayed."""

from __future__ import annotations

import pytest

from stripe_integrations.actions import StripeCustomer, StripeEvent, User
from stripe_integrations.models import Customer
from tests.cli.conftest import Run, lines, objects
from tests.stripe_changes import rename_later
from tests.world import EMAIL, World, exhaust, stored_event

OTHER = User("u-2")


@pytest.fixture
def applied(world: World, customer: Customer) -> str:
    stripe_id = rename_later(world, customer, "Newer")
    StripeEvent.apply(stripe_id)
    return stripe_id


@pytest.fixture
def failed(world: World, customer: Customer) -> str:
    stripe_id = rename_later(world, customer, "Newest")
    exhaust(stripe_id)
    StripeEvent.apply(stripe_id)
    assert stored_event(stripe_id).state == "failed"
    return stripe_id


class TestList:
    def test_has_events_of_a_user_newest_first(
        self, run: Run, world: World, customer: Customer, applied: str, failed: str
    ) -> None:
        StripeCustomer.create(OTHER, EMAIL)
        world.deliver_and_apply()
        found = objects(run("events", "list", "--user", "u-1", "--json"))
        assert [event["event"] for event in found][:2] == [failed, applied]
        assert {event["customer"] for event in found} == {customer.stripe_id}
        assert found[0] == {
            "event": failed,
            "created": found[0]["created"],
            "type": "customer.updated",
            "state": "failed",
            "attempts": 41,
            "customer": customer.stripe_id,
            "user": "u-1",
            "reason": found[0]["reason"],
        }

    def test_prints_a_line_for_each_in_a_pipe(
        self, run: Run, customer: Customer, applied: str
    ) -> None:
        (line,) = lines(run("events", "list", "--customer", customer.stripe_id))
        assert line[0] == applied
        assert line[2:4] == ["customer.updated", "applied"]

    def test_selects_by_type_state_time_and_number(
        self, run: Run, world: World, applied: str, failed: str
    ) -> None:
        selected = {
            ("--user", "u-1", "--state", "applied"): [applied],
            ("--user", "u-1", "--type", "customer.*"): [failed, applied],
            ("--user", "u-1", "--type", "invoice.*"): [],
            ("--user", "u-1", "--limit", "1"): [failed],
            ("--state", "failed"): [failed],
            ("--state", "waiting"): [],
            ("--since", "2020-01-01", "--state", "applied"): [applied],
            ("--since", "2020-01-01", "--until", "2020-01-02T00:00:00Z"): [],
        }
        for options, expected in selected.items():
            assert [line[0] for line in lines(run("events", "list", *options))] == expected

    def test_reads_only_the_index_and_the_events(
        self, run: Run, world: World, customer: Customer, applied: str, failed: str
    ) -> None:
        with world.counting() as counts:
            run("events", "list", "--customer", customer.stripe_id)
        assert counts.operations == ["Query", "BatchGetItem"]
        assert "webhook_message" not in str(counts.bodies)

    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--state", "applied"),
            ("--user", "u-1", "--customer", "cus_1"),
            ("--since", "yesterday"),
            ("--since", "20261125"),
            ("--since", "1795948826000"),
            ("--since", "9" * 30 + "d"),
            ("--since", "1h", "--until", "2h"),
        ],
    )
    def test_refuses_missing_or_contradictory_selection(
        self, run: Run, options: tuple[str, ...]
    ) -> None:
        result = run("events", "list", *options)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1

    def test_refuses_unknown_state(self, run: Run) -> None:
        result = run("events", "list", "--user", "u-1", "--state", "lost")
        assert result.exit_code == 2
        assert "must be one of pending, waiting" in result.stderr


class TestFailed:
    def test_has_the_reason(self, run: Run, applied: str, failed: str) -> None:
        (event,) = objects(run("events", "failed", "--json"))
        assert event["event"] == failed
        assert event["reason"] == stored_event(failed).reason


class TestShow:
    def test_has_the_outcome(self, run: Run, customer: Customer, applied: str) -> None:
        shown = dict(lines(run("events", "show", applied)))
        assert shown["outcome"] == f"applied to {customer.stripe_id} of user u-1"
        assert shown["changed_on_stripe"] == "name"
        assert shown["attempts"] == "1"
        (values,) = objects(run("events", "show", applied, "--json"))
        assert (values["attempts"], values["effect_at"], values["last_error"]) == (1, None, None)

    def test_has_the_reason_of_an_ignored_event(
        self, run: Run, world: World, customer: Customer, applied: str
    ) -> None:
        stale = rename_later(world, customer, "Newest")
        world.time += 100
        StripeCustomer.sync(StripeCustomer.require(User("u-1")))
        StripeEvent.apply(stale)
        outcome = dict(lines(run("events", "show", stale)))["outcome"]
        assert outcome == f"changed nothing: {stored_event(stale).reason}"

    def test_has_the_payload_only_on_request(self, run: Run, applied: str) -> None:
        assert "Newer" not in run("events", "show", applied, "--json").stdout
        (shown,) = objects(run("events", "show", applied, "--payload", "--json"))
        assert shown["payload"]["data"]["object"]["name"] == "Newer"

    def test_fails_for_unknown_event(self, run: Run) -> None:
        result = run("events", "show", "evt_none")
        assert result.exit_code == 1
        assert result.stderr == (
            "error: there is no event evt_none: it never arrived, or has expired\n"
        )


class TestTail:
    """The stream itself is that of the local cloud: see tests/local_cloud/test_command_line.py."""

    @pytest.fixture
    def written(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The ids of the events whose items are written."""
        written: list[str] = []
        monkeypatch.setattr("stripe_integrations_cli.tail._written_ids", lambda *_: iter(written))
        return written

    def test_prints_each_change_once(
        self, run: Run, written: list[str], applied: str, failed: str
    ) -> None:
        written += [applied, applied, "evt_expired", failed, applied]
        printed = objects(run("events", "tail", "--user", "u-1", "--json"))
        assert [(each["event"], each["state"]) for each in printed] == [
            (applied, "applied"),
            (failed, "failed"),
        ]
        assert lines(run("events", "tail", "--type", "invoice.*")) == []
        assert lines(run("events", "tail", "--user", "u-2")) == []
        assert len(lines(run("events", "tail", "--count", "1"))) == 1

    def test_remembers_a_bounded_number(
        self,
        run: Run,
        written: list[str],
        applied: str,
        failed: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("stripe_integrations_cli.tail._REMEMBERED", 1)
        written += [applied, failed, applied]
        assert [row[1] for row in lines(run("events", "tail"))] == [applied, failed, applied]


class TestReplay:
    def test_applies_one(self, run: Run, world: World, failed: str) -> None:
        assert lines(run("events", "replay", failed)) == [["replayed", "1"]]
        assert stored_event(failed).state == "applied"

    def test_applies_all_failed_ones(self, run: Run, failed: str) -> None:
        assert objects(run("events", "replay", "--failed", "--json")) == [{"replayed": 1}]
        assert stored_event(failed).state == "applied"

    def test_applies_a_range_after_confirmation(self, run: Run, applied: str, failed: str) -> None:
        until = str(stored_event(failed).created)
        given = ("events", "replay", "--since", "2020-01-01", "--until", until)
        refused = run(*given)
        assert refused.exit_code == 2
        assert stored_event(failed).state == "failed"
        assert lines(run(*given, "--yes")) == [["replayed", "2"]]
        assert stored_event(failed).state == "applied"

    def test_resumes_until_nothing_is_left(
        self, run: Run, failed: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        responses = [{"replayed": 2, "resume_from": {"failed_until": 7}}]
        responses += [{"replayed": 1, "resume_from": None}]
        requests = []

        def invoke(_: object, name: str, event: object) -> object:
            requests.append(event)
            return responses.pop(0)

        monkeypatch.setattr("stripe_integrations_cli.stack.Stack.invoke", invoke)
        assert lines(run("events", "replay", "--failed")) == [["replayed", "3"]]
        assert requests == [{"failed": True}, {"failed": True, "resume_from": {"failed_until": 7}}]

    @pytest.mark.parametrize(
        "options", [("--failed",), ("--since", "2020-01-01", "--until", "9999999999")]
    )
    def test_dry_run_replays_nothing(self, run: Run, failed: str, options: tuple[str, ...]) -> None:
        found = lines(run("events", "replay", "--dry-run", *options))
        assert [line[0] for line in found] == [failed]
        assert stored_event(failed).state == "failed"

    @pytest.mark.parametrize("options", [(), ("evt_1", "--failed"), ("--until", "1")])
    def test_takes_exactly_one_selection(self, run: Run, options: tuple[str, ...]) -> None:
        assert run("events", "replay", *options).exit_code == 2

    def test_event_that_is_not_there_stops_no_other(self, run: Run, failed: str) -> None:
        result = run("events", "replay", "evt_none", failed)
        assert (result.exit_code, result.stdout) == (1, "replayed\t1\n")
        assert stored_event(failed).state == "applied"

    def test_error_of_the_function_is_one_line(self, run: Run) -> None:
        result = run("events", "replay", "evt_none")
        assert result.exit_code == 1
        assert result.stderr == "error: EventNotFoundError: there is no event evt_none\n"
