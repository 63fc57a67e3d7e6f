"""Each ingress on the deployed stack: its events are accepted, those of another way refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import (
    STACK,
    Cloud,
    http,
    local_cloud,
    local_url,
    sam_environment,
    stack_outputs,
)
from local.stripe_double.webhooks import sign
from tests.local_cloud.test_events import create
from tools.lambda_events import event_bridge_event
from tools.smoke import Stack

SOURCE = "local.partner/stripe.com/ed_test_1"


@pytest.fixture(scope="module", params=["http-api", "eventbridge", "none"])
def ingress(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cloud(functions: Path, ingress: str) -> Iterator[Cloud]:
    parameters = {"WebhookIngress": ingress, "StripeEventSource": SOURCE}
    with local_cloud(parameters=parameters, functions=functions) as cloud:
        yield cloud


def payload_of(cloud: Cloud, customer: str) -> dict[str, Any]:
    """The newest event of a customer, as Stripe has it."""
    assert cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
    with cloud.stripe.double.use() as stripe:
        listed = stripe.request(
            "GET", "/v1/events", {"limit": 100}, {"Authorization": f"Bearer {cloud.stripe.api_key}"}
        )
    events: list[dict[str, Any]] = listed.body["data"]
    return next(event for event in events if event["data"]["object"]["id"] == customer)


def put_event(cloud: Cloud, payload: dict[str, Any], source: str = SOURCE) -> None:
    """Put an event on the bus of the event source."""
    entry = {
        "Source": source,
        "DetailType": payload["type"],
        "Detail": json.dumps(payload),
        "EventBusName": SOURCE,
    }
    assert cloud.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0


def name_of(cloud: Cloud, customer: str) -> object:
    """The name in the record of a customer."""
    (record,) = (item for item in cloud.items() if item["sk"] == f"CUSTOMER#{customer}")
    return record.get("name")


def rename(cloud: Cloud, customer: str, name: str) -> None:
    cloud.stripe.client().v1.customers.update(customer, {"name": name})


def deliver(cloud: Cloud, ingress: str, payload: dict[str, Any]) -> None:
    """Let an event arrive; the double itself delivers to the webhook, if there is one."""
    if ingress == "eventbridge":
        put_event(cloud, {**payload, "id": "evt_other"}, "my.app")
        put_event(cloud, payload)
    elif ingress == "none":
        cloud.invoke(cloud.reconcile_events, {})


def test_event_comes_through(cloud: Cloud, ingress: str) -> None:
    customer = create(cloud, "u-renamed")
    rename(cloud, customer, "Jane")
    payload = payload_of(cloud, customer)
    assert payload["type"] == "customer.updated"

    deliver(cloud, ingress, payload)

    def states() -> dict[str, str]:
        return {item["pk"]: item["state"] for item in cloud.items() if item["sk"] == "EVENT"}

    event = f"EVENT#{payload['id']}"
    cloud.wait_until(lambda: states().get(event) == "applied", "the event is applied")
    assert name_of(cloud, customer) == "Jane"
    assert "EVENT#evt_other" not in states()


def test_url_is_that_of_ingress(cloud: Cloud, ingress: str) -> None:
    outputs = stack_outputs(cloud.endpoint)
    assert cloud.webhook_url == (f"{cloud.api_url}/webhook" if ingress == "http-api" else "")
    assert ("WebhookUrl" in outputs) is (ingress == "http-api")
    assert ("UndeliveredEventsUrl" in outputs) is (ingress == "eventbridge")
    resources = cloud.client("cloudformation").list_stack_resources(StackName=STACK)
    kinds = {r["ResourceType"] for r in resources["StackResourceSummaries"]}
    assert "AWS::Lambda::Url" not in kinds


def test_signed_request_needs_webhook(cloud: Cloud, ingress: str) -> None:
    payload = {**payload_of(cloud, create(cloud, "u-http")), "id": "evt_http"}
    body = json.dumps(payload).encode()
    signature = sign(body, cloud.stripe.webhook_secret, time.time())
    headers = {"Content-Type": "application/json", "Stripe-Signature": signature}

    response = http("POST", f"{cloud.api_url}/webhook", body, headers)

    assert response.status == (200 if ingress == "http-api" else 404)
    invoked = invoke_link_customer(
        cloud, {"requestContext": {}, "headers": headers, "body": body.decode()}
    )
    assert invoked["statusCode"] == (200 if ingress == "http-api" else 403)
    stored = {item["pk"] for item in cloud.items()}
    assert ("EVENT#evt_http" in stored) is (ingress == "http-api")


def test_event_of_event_bridge_needs_its_ingress_and_source(cloud: Cloud, ingress: str) -> None:
    payload = payload_of(cloud, create(cloud, "u-event-bridge"))
    for number, source in enumerate([SOURCE, "local.partner/stripe.com/ed_test_2"]):
        event = event_bridge_event({**payload, "id": f"evt_bridge{number}"}, source)
        response = invoke_link_customer(cloud, event)
        is_accepted = ingress == "eventbridge" and source == SOURCE
        assert ("errorType" not in response) is is_accepted
        stored = {item["pk"] for item in cloud.items()}
        assert (f"EVENT#evt_bridge{number}" in stored) is is_accepted


def invoke_link_customer(cloud: Cloud, event: object) -> Any:
    """Invoke the function as a caller with `lambda:InvokeFunction` can, without an event source."""
    described = cloud.client("cloudformation").describe_stack_resource(
        StackName=STACK, LogicalResourceId="LinkCustomer"
    )
    name = described["StackResourceDetail"]["PhysicalResourceId"]
    response = cloud.client("lambda").invoke(
        FunctionName=name, Qualifier="live", Payload=json.dumps(event).encode()
    )
    return json.loads(response["Payload"].read())


def test_rule_matches_stripes_source_alone(cloud: Cloud, ingress: str) -> None:
    """The local AWS takes no event of a source `aws.…`, but tests patterns for one."""
    events = cloud.client("events")
    rules = events.list_rules(EventBusName=SOURCE)["Rules"]
    assert len(rules) == (1 if ingress == "eventbridge" else 0)
    source = "aws.partner/stripe.com/ed_test_1"
    for rule in rules:
        pattern = rule["EventPattern"].replace(SOURCE, source)
        for given, matches in ((source, True), (f"{source}2", False), ("my.app", False)):
            event = json.dumps(event_bridge_event({"type": "customer.updated"}, given))
            assert events.test_event_pattern(EventPattern=pattern, Event=event)["Result"] is matches


def test_ingress_can_be_changed(cloud: Cloud, ingress: str) -> None:
    """Another ingress keeps table and API; switching back to `function-url` gives a working URL."""
    before = stack_outputs(cloud.endpoint)
    change(cloud, WebhookIngress="function-url")
    outputs = stack_outputs(cloud.endpoint)
    assert (outputs["TableName"], outputs["ApiUrl"]) == (before["TableName"], before["ApiUrl"])
    url = local_url(cloud.endpoint, outputs["WebhookUrl"])
    body = json.dumps({**payload_of(cloud, create(cloud, "u-back")), "id": "evt_back"}).encode()
    headers = {"Stripe-Signature": sign(body, cloud.stripe.webhook_secret, time.time())}
    assert http("POST", url, body, headers).status == 200

    change(cloud, WebhookIngress=ingress)

    assert stack_outputs(cloud.endpoint).keys() == before.keys()
    assert http("POST", url, body, headers).status in (403, 404)


def test_closed_stack_takes_no_event(
    cloud: Cloud, ingress: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sam_environment(cloud.endpoint).items():
        monkeypatch.setenv(name, value)
    stack = Stack(STACK)
    rules = 2 if ingress == "eventbridge" else 1
    change(cloud, Closed="true")
    assert stack.background_states() == ("Disabled", *["DISABLED"] * rules)
    change(cloud, Closed="false")
    assert stack.background_states() == ("Enabled", *["ENABLED"] * rules)


def change(cloud: Cloud, **parameters: str) -> None:
    """Change parameters of the running stack, as `sam deploy` does."""
    formation = cloud.client("cloudformation")
    (stack,) = formation.describe_stacks(StackName=STACK)["Stacks"]
    kept = [
        {"ParameterKey": p["ParameterKey"], "UsePreviousValue": True}
        for p in stack["Parameters"]
        if p["ParameterKey"] not in parameters
    ]
    formation.update_stack(
        StackName=STACK,
        UsePreviousTemplate=True,
        Parameters=[
            *kept,
            *({"ParameterKey": name, "ParameterValue": parameters[name]} for name in parameters),
        ],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    formation.get_waiter("stack_update_complete").wait(
        StackName=STACK, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
