"""Every function in Lambda's own container, by the commands of docs/local.md."""

from __future__ import annotations

import json

import stripe

from local.cloud import DOUBLE_API_KEY
from local.running import RunningCloud
from tests.served import ExampleEvent, Terminal, body, check_response, commands, every_function


class TestInvoke:
    @every_function
    def test_example_gets_documented_response(
        self, opened: Terminal, cloud: RunningCloud, function: str
    ) -> None:
        (command,) = commands("In Lambda's own container")
        response = opened.response(command.replace("get_customer", function))
        check_response(function, response)

    def test_uses_table_and_stripe_of_the_cloud(
        self, opened: Terminal, cloud: RunningCloud
    ) -> None:
        customer = body(opened.response("make invoke FUNCTION=create_customer"))["stripe_id"]
        api_base = cloud.parameters["StripeApiBase"]
        on_stripe = stripe.StripeClient(DOUBLE_API_KEY, base_addresses={"api": api_base}).v1
        on_stripe.customers.update(customer, {"name": "Jane Roe", "source": "tok_visa"})
        synced = body(opened.response("make sam-local-invoke FUNCTION=sync_customer"))
        assert (synced["stripe_id"], synced["name"]) == (customer, "Jane Roe")
        assert [card["last4"] for card in synced["cards"]] == ["4242"]

    def test_event_of_webhook_is_stored_and_applied(
        self, opened: Terminal, cloud: RunningCloud
    ) -> None:
        event = ExampleEvent(cloud)
        event.delete()
        linked = body(opened.response("make sam-local-invoke FUNCTION=link_customer"))
        assert linked["state"] == "pending"
        assert event["state"] == "pending"
        check_response("apply_event", opened.response("make sam-local-invoke FUNCTION=apply_event"))
        assert event["state"] == "applied"

        (opened.project / "event.json").write_text(json.dumps({"event_id": linked["id"]}))
        command = "make sam-local-invoke FUNCTION=replay_events EVENT=event.json"
        assert opened.response(command) == {"replayed": 1, "resume_from": None}
        assert event["state"] == "applied"


class TestStartApi:
    def test_serves_the_api(self, opened: Terminal, cloud: RunningCloud) -> None:
        customer = body(opened.response("make invoke FUNCTION=create_customer"))["stripe_id"]
        start, request = commands("The API with sam local start-api")
        with opened.running(start, "Running on"):
            assert opened.response(request)["stripe_id"] == customer
