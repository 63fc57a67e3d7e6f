"""The commands of docs/local.md that need no Docker, on the local cloud that `make serve` runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.invoke import EVENTS
from local.running import FUNCTIONS, RunningCloud
from tests.documents import blocks
from tests.local_cloud.test_documents import wait_until
from tests.served import (
    DOCUMENT,
    ExampleEvent,
    Terminal,
    body,
    check_response,
    commands,
    documented_responses,
    every_function,
    served,
    terminal,
)

BY_SAM_LOCAL = ("In Lambda's own container", "The API with sam local start-api")


@pytest.fixture
def no_faults() -> None:
    """Replace the fixture that starts the cloud of the other tests."""


@pytest.fixture(scope="module")
def opened() -> Iterator[Terminal]:
    with terminal() as opened:
        yield opened


@pytest.fixture(scope="module")
def cloud(opened: Terminal) -> Iterator[RunningCloud]:
    with served(opened) as cloud:
        yield cloud


def test_every_function_has_an_example_with_a_documented_response() -> None:
    assert sorted(documented_responses()) == FUNCTIONS
    assert sorted(path.stem for path in EVENTS.iterdir()) == FUNCTIONS


def test_command_without_cloud_says_what_to_do(opened: Terminal) -> None:
    done = opened.run(*commands("Invoke a function"))
    assert done.returncode != 0
    assert "`make serve`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("section", BY_SAM_LOCAL)
def test_command_without_docker_says_what_to_do(opened: Terminal, section: str) -> None:
    done = opened.run(f"export DOCKER_HOST=tcp://127.0.0.1:9; {commands(section)[0]}")
    assert done.returncode != 0
    assert "`make invoke FUNCTION=get_customer`" in done.stderr
    assert "Traceback" not in done.stderr


class TestInvoke:
    @every_function
    def test_example_gets_documented_response(
        self, opened: Terminal, cloud: RunningCloud, function: str
    ) -> None:
        (command,) = commands("Invoke a function")
        check_response(function, opened.response(command.replace("get_customer", function)))

    def test_examples_use_the_same_customer(self, opened: Terminal, cloud: RunningCloud) -> None:
        created = body(opened.response("make invoke FUNCTION=create_customer"))
        assert created["user_id"] == "user-1"
        for function in ("get_customer", "update_customer", "sync_customer", "adopt_customer"):
            found = body(opened.response(f"make invoke FUNCTION={function}"))
            assert found["stripe_id"] == created["stripe_id"]

    def test_soft_deletes_the_customer(self, opened: Terminal, cloud: RunningCloud) -> None:
        before = body(opened.response("make invoke FUNCTION=create_customer"))
        opened.response("make invoke FUNCTION=soft_delete_customer")
        created = opened.response("make invoke FUNCTION=create_customer")
        assert created["statusCode"] == 201
        assert body(created)["stripe_id"] != before["stripe_id"]

    def test_event_of_webhook_is_applied(self, opened: Terminal, cloud: RunningCloud) -> None:
        event = ExampleEvent(cloud)
        event.delete()
        response = body(opened.response("make invoke FUNCTION=link_customer"))
        assert response == {"id": "evt_1ExampleCustomerUpdated", "state": "pending"}
        wait_until(lambda: event["state"] == "applied", "it is applied")
        assert event["user_id"] == "user-1"
        check_response("apply_event", opened.response("make invoke FUNCTION=apply_event"))
        response = body(opened.response("make invoke FUNCTION=link_customer"))
        assert response["state"] == "applied"

    def test_own_event_is_passed_on(self, opened: Terminal, cloud: RunningCloud) -> None:
        assert opened.response(*commands("Use an event of your own"))["statusCode"] == 404

    def test_command_fails_if_the_function_fails(
        self, opened: Terminal, cloud: RunningCloud
    ) -> None:
        (opened.project / "event.json").write_text("{}")
        done = opened.run("make invoke FUNCTION=replay_events EVENT=event.json")
        assert done.returncode != 0
        assert "must have event_id" in done.stderr
        assert "Traceback" not in done.stderr


def test_all_commands_are_run() -> None:
    sections = {block.section for block in blocks(DOCUMENT)}
    here = {"Start the local cloud", "Invoke a function", "Use an event of your own"}
    assert sections == here | {*BY_SAM_LOCAL}
