"""`doctor`: prints nothing for a healthy stack, and a line for each planted fault."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
import stripe
from botocore.exceptions import ClientError

from local.stripe_double.client import StripeDoubleClient
from stripe_integrations.actions import StripeCustomer, StripeEvent
from stripe_integrations.config import API_VERSION
from stripe_integrations.errors import DatabaseMisconfiguredError
from stripe_integrations_cli.stack import Stack
from tests.cli.conftest import Json, Run, objects
from tests.stripe_changes import rename_later
from tests.world import EMAIL, USER, WEBHOOK_SECRET, World, exhaust

KEY, RESTRICTED = "sk_test_double", "rk_test_double"
ALARM = "stripe-customers-dev-StreamBehind-1X2Y3Z"
SOURCE = "aws.partner/stripe.com/ed_1"
STOPPED = "stripe-customers-dev-ReconcileEventsStopped-1X2Y3Z"


class Parts:
    """What moto lacks: each part as in a healthy stack, until a test breaks it."""

    def __init__(
        self, world: World, client: Callable[[Stack, str], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.world = world
        self.monkeypatch = monkeypatch
        self.client = client
        self.mapping = "Enabled"
        self.rule = "ENABLED"
        self.source = "ACTIVE"
        self.source_rule = "ENABLED"
        self.alarms: list[str] = []
        self.clock_differs = 0.0
        self.table: Json = {"StreamSpecification": {"StreamEnabled": True}}
        self.described = world.settings.table_name
        self.deployment: str | None = "stripe-customers-dev"
        self.age = 7200.0
        self.refused: set[str] = set()
        self.dead_letters = 0

    def of_service(self, stack: Stack, service: str) -> Any:
        if service in ("lambda", "events", "cloudwatch", "sqs"):
            return self
        if service == "dynamodb":
            return DescribedTable(self, self.client(stack, service))
        if service == "cloudformation":
            return DatedCloudFormation(self, self.client(stack, service))
        return self.client(stack, service)

    def refuse(self, operation: str) -> None:
        if operation in self.refused:
            error: Any = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
            raise ClientError(error, operation)

    def get_event_source_mapping(self, **_: str) -> Json:
        self.refuse("GetEventSourceMapping")
        return {"State": self.mapping, "UUID": "mapping-1"}

    def get_queue_attributes(self, **_: Any) -> Json:
        return {"Attributes": {"ApproximateNumberOfMessages": str(self.dead_letters)}}

    def describe_rule(self, **given: str) -> Json:
        if "EventBusName" in given:
            assert given == {"Name": "the-StripeEventsRule", "EventBusName": SOURCE}
            return {"State": self.source_rule}
        return {"State": self.rule}

    def describe_event_source(self, *, Name: str) -> Json:  # noqa: N803
        self.refuse("DescribeEventSource")
        assert Name == SOURCE
        return {"State": self.source}

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, *, AlarmNames: list[str], **_: str) -> list[Json]:  # noqa: N803
        return [{"MetricAlarms": [{"AlarmName": n} for n in self.alarms if n in AlarmNames]}]


class DescribedTable:
    """The table's description and its deployment; all else is from DynamoDB."""

    def __init__(self, parts: Parts, client: Any) -> None:
        self.parts = parts
        self.client = client

    @property
    def exceptions(self) -> Any:
        return self.client.exceptions

    def describe_table(self, **_: str) -> Json:
        table = self.client.describe_table(TableName=self.parts.described)["Table"]
        return {"Table": {**table, **self.parts.table}}

    def get_item(self, **_: Any) -> Json:
        owner = self.parts.deployment
        return {"Item": {"name": {"S": owner}}} if owner else {}


class DatedCloudFormation:
    """CloudFormation, with the time in a header, and the alarm of the stack."""

    def __init__(self, parts: Parts, client: Any) -> None:
        self.parts = parts
        self.client = client

    def describe_stacks(self, **given: str) -> Json:
        described: Json = self.client.describe_stacks(**given)
        created = datetime.now(UTC) - timedelta(seconds=self.parts.age)
        described["Stacks"][0]["CreationTime"] = created
        date = formatdate(time.time() - self.parts.clock_differs, usegmt=True)
        headers = {**described["ResponseMetadata"]["HTTPHeaders"], "date": date}
        return {**described, "ResponseMetadata": {"HTTPHeaders": headers}}

    def get_paginator(self, _: str) -> Any:
        return self

    def paginate(self, **_: str) -> list[Json]:
        resources = (
            ("AWS::SNS::Topic", "Topic", "topic"),
            ("AWS::CloudWatch::Alarm", "StreamBehind", ALARM),
            ("AWS::CloudWatch::Alarm", "ReconcileEventsStopped", STOPPED),
        )
        names = ("ResourceType", "LogicalResourceId", "PhysicalResourceId")
        found = [dict(zip(names, each, strict=True)) for each in resources]
        return [{"StackResourceSummaries": found}]


@pytest.fixture
def parts(world: World, stack: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A healthy stack, with its secrets and its webhook endpoint."""
    parts = Parts(world, Stack.client, monkeypatch)

    def client_of(self: Stack, service: str) -> Any:
        return parts.of_service(self, service)

    monkeypatch.setattr(Stack, "client", client_of)
    monkeypatch.setattr(Stack, "resource", lambda _, logical_id: f"the-{logical_id}")
    client = stripe.StripeClient

    def connected(key: str, **options: Any) -> Any:
        return client(key, **{"http_client": StripeDoubleClient(world.stripe), **options})

    monkeypatch.setattr(stripe, "StripeClient", connected)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    world.time = time.time()
    world.stripe.api_keys = {KEY, RESTRICTED}
    world.stripe.webhooks.endpoints.clear()
    run("webhook", "create")
    run("key", "set", input=f"{RESTRICTED}\n")
    (endpoint,) = world.stripe.webhooks.endpoints.values()
    world.configure(webhook_secret=endpoint.secrets[0])
    yield parts
    store = boto3.client("secretsmanager")
    for found in store.list_secrets()["SecretList"]:
        store.delete_secret(SecretId=found["Name"], ForceDeleteWithoutRecovery=True)


def store(name: str, value: str) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=name, SecretString=value)


def forget(name: str) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


def refuse_permission(parts: Parts) -> None:
    parts.world.stripe.faults.fail_next(status=403, match="GET /v1/events")


def refuse_sources(parts: Parts) -> None:
    parts.world.stripe.faults.fail_next(status=403, match="GET /v1/customers/*/sources")


def endpoint(parts: Parts) -> Any:
    (found,) = parts.world.stripe.webhooks.endpoints.values()
    return found


def let_an_event_fail(parts: Parts) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    stripe_id = rename_later(parts.world, customer, "Newest")
    exhaust(stripe_id)
    StripeEvent.apply(stripe_id)


def deliver(parts: Parts, *accepting: str, customers: int = 1, age: int = 60) -> None:
    """Let Stripe deliver the events of new customers to two endpoints.

    Parameters
    ----------
    parts : Parts
        The stack, whose endpoint is one of them; ``https://other`` is the other one.
    *accepting : str
        The URLs of those that accept them.
    customers : int
        How many customers.
    age : int
        How many seconds ago they were created.
    """
    webhooks = parts.world.stripe.webhooks
    endpoint(parts).created -= 3600
    webhooks.add_endpoint("https://other", "whsec_other")
    parts.world.time -= age
    for _ in range(customers):
        stripe.StripeClient(KEY).v1.customers.create({"email": EMAIL})
    for delivery in webhooks.due():
        webhooks.mark(delivery, 200 if delivery.url in accepting else 400)
    parts.world.time += age


def know_no_event(parts: Parts) -> None:
    deliver(parts, "https://hook", "https://other")
    parts.world.stripe.faults.fail_next(status=404, match="GET /v1/events/*")


def change(**values: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.__dict__.update(values)


FAULTS: dict[str, tuple[Callable[[Parts], Any], str, str]] = {
    "key of the other mode": (
        lambda _: store("stripe/api-key", "sk_live_x"),
        "api key",
        "is no test-mode key",
    ),
    "no key": (lambda _: forget("stripe/api-key"), "api key", "no secret stripe/api-key"),
    "key that Stripe refuses": (
        lambda _: store("stripe/api-key", "sk_test_x"),
        "api key",
        "Stripe refuses the key",
    ),
    "missing permission": (refuse_permission, "permission", "the key may not read events"),
    "no signing secret": (
        lambda _: forget("stripe/webhook-secret"),
        "signing secret",
        "none is stored",
    ),
    "malformed signing secret": (
        lambda _: store("stripe/webhook-secret", "secret"),
        "signing secret",
        "what is stored is not whsec_…",
    ),
    "secret of another endpoint": (
        lambda _: store("stripe/webhook-secret", WEBHOOK_SECRET),
        "webhook",
        "link_customer refuses the stored secret, or its clock differs",
    ),
    "function without its secret": (
        lambda parts: parts.world.configure(webhook_secret=None),
        "webhook",
        "link_customer responds with 500 urn:stripe-integrations:problem:misconfigured",
    ),
    "no table": (change(described="deleted"), "table", "there is no table customers"),
    "missing index": (
        change(table={"GlobalSecondaryIndexes": [{"IndexName": "by_queue"}]}),
        "table",
        "lacks the index by_created, by_customer",
    ),
    "no stream": (change(table={"StreamSpecification": {}}), "stream", "the table has no stream"),
    "table of another deployment": (
        change(deployment="other"),
        "deployment name",
        "the table is that of other",
    ),
    "disabled mapping": (change(mapping="Disabled"), "stream mapping", "is disabled"),
    "disabled schedule": (change(rule="DISABLED"), "schedule", "is disabled"),
    "disabled endpoint": (
        lambda parts: setattr(endpoint(parts), "is_disabled", True),
        "endpoint",
        "is disabled",
    ),
    "missing type": (
        lambda parts: endpoint(parts).enabled_events.remove("customer.deleted"),
        "endpoint",
        "lacks customer.deleted",
    ),
    "endpoint of another version": (
        lambda parts: setattr(endpoint(parts), "api_version", "2024-06-20"),
        "endpoint",
        "none has the stack's URL and the version",
    ),
    "endpoint at another address": (
        lambda parts: setattr(endpoint(parts), "url", "https://elsewhere"),
        "endpoint",
        "none has the stack's URL and the version",
    ),
    "wrong clock": (change(clock_differs=3600.0), "clock", "this machine's differs by 360"),
    "failed event": (let_an_event_fail, "events", "1 have failed"),
    "dead letter": (change(dead_letters=2), "dead letters", "messages in the queue: 2"),
    "schedule that has stopped": (change(alarms=[STOPPED]), "alarms", f"{STOPPED} is in alarm"),
    "alarm": (change(alarms=[ALARM]), "alarms", f"{ALARM} is in alarm"),
    "missing permission of the operator": (
        change(refused={"GetEventSourceMapping"}),
        "stream mapping",
        "GetEventSourceMapping: AccessDeniedException",
    ),
    "deliveries that fail": (deliver, "deliveries", "undelivered events of the last day: 1,"),
    "deliveries that fail here alone": (
        lambda parts: deliver(parts, "https://other"),
        "deliveries",
        "undelivered events of the last day: 1,",
    ),
    "two endpoints of this release": (
        lambda parts: parts.world.stripe.webhooks.add_endpoint(
            "https://hook", "whsec_x", ["*"], API_VERSION
        ),
        "endpoint",
        "2 endpoints of this version: delete all but one of ",
    ),
    "endpoint whose secret was not stored": (
        lambda parts: vars(endpoint(parts)).update(
            description="stack stripe-customers-dev: the signing secret is not stored yet"
        ),
        "endpoint",
        "has a signing secret that is not stored",
    ),
    "key of another account": (
        know_no_event,
        "account",
        "the stored key is of another account",
    ),
    "missing permission for a further kind": (
        refuse_sources,
        "permission",
        "the key may not read sources",
    ),
    "secret key of the other mode": (
        lambda parts: parts.monkeypatch.setenv("STRIPE_API_KEY", "sk_live_x"),
        "endpoint",
        "STRIPE_API_KEY is no test-mode key",
    ),
    "secret key that Stripe refuses": (
        lambda parts: parts.world.stripe.faults.fail_next(
            status=403, match="GET /v1/webhook_endpoints"
        ),
        "endpoint",
        "Stripe: ",
    ),
}


class TestDoctor:
    def test_finds_nothing_on_a_healthy_stack(self, run: Run, parts: Parts) -> None:
        known = parts.world.items()
        result = run("doctor")
        assert result.exit_code == 0, result.output
        assert result.stdout == ""
        assert result.stderr.endswith(" 0 problems\n")
        assert parts.world.items() == known
        everything = objects(run("doctor", "--all", "--json"))
        assert {each["result"] for each in everything} == {"ok"}
        assert len(everything) > 15

    @pytest.mark.parametrize("fault", FAULTS)
    def test_reports_a_planted_fault(self, run: Run, parts: Parts, fault: str) -> None:
        plant, check, found = FAULTS[fault]
        plant(parts)
        result = run("doctor", "--json")
        problems = objects_of_failure(result)
        assert any(each["check"] == check and found in each["found"] for each in problems)
        assert "sk_" not in result.output
        assert "whsec_d" not in result.output

    def test_table_that_can_not_be_read_ends_no_other_check(
        self, run: Run, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_: str) -> None:
            raise DatabaseMisconfiguredError("DynamoDB: AccessDeniedException")

        monkeypatch.setattr(StripeEvent, "find", refuse)
        parts.alarms = [ALARM]
        problems = objects_of_failure(run("doctor", "--json"))
        assert [each["check"] for each in problems] == ["events", "alarms"]
        assert problems[0]["found"] == (
            "DatabaseMisconfiguredError: DynamoDB: AccessDeniedException"
        )

    def test_alarm_of_a_stack_with_a_longer_name_is_not_this_ones(
        self, run: Run, parts: Parts
    ) -> None:
        parts.alarms = ["stripe-customers-dev-2-StreamBehind-1X2Y3Z"]
        assert run("doctor").exit_code == 0

    def test_event_that_another_endpoint_refuses_is_no_problem(
        self, run: Run, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deliver(parts, "https://hook")
        assert run("doctor").exit_code == 1
        delivered = SimpleNamespace(pending_webhooks=2)
        monkeypatch.setattr(StripeEvent, "get", lambda _: delivered)
        assert run("doctor").exit_code == 0

    def test_event_that_was_found_in_stripes_list_is_undelivered(
        self, run: Run, parts: Parts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        deliver(parts)
        found_in_list = SimpleNamespace(pending_webhooks=2)
        monkeypatch.setattr(StripeEvent, "get", lambda _: found_in_list)
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["check"] == "deliveries"

    def test_deliveries_count_since_the_oldest_endpoint(self, run: Run, parts: Parts) -> None:
        deliver(parts)
        second = parts.world.stripe.webhooks.add_endpoint("https://hook", "whsec_x", ["*"])
        second.created = int(time.time())
        found = [each["check"] for each in objects_of_failure(run("doctor", "--json"))]
        assert found == ["endpoint", "deliveries"]

    def test_event_from_before_the_endpoint_is_no_problem(self, run: Run, parts: Parts) -> None:
        ours = endpoint(parts)
        deliver(parts)
        ours.created += 3600
        assert run("doctor").exit_code == 0

    def test_deliveries_to_a_disabled_endpoint_are_not_counted(
        self, run: Run, parts: Parts
    ) -> None:
        ours = endpoint(parts)
        deliver(parts)
        ours.is_disabled = True
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["check"] == "endpoint"

    @pytest.mark.parametrize(("age", "failed"), [(19, False), (20, True)])
    def test_delivery_may_take_20_seconds(
        self, run: Run, parts: Parts, monkeypatch: pytest.MonkeyPatch, age: int, *, failed: bool
    ) -> None:
        stopped = SimpleNamespace(time=lambda: parts.world.time)
        monkeypatch.setattr("stripe_integrations_cli.doctor.time", stopped)
        deliver(parts, age=age)
        assert ("deliveries\tproblem" in run("doctor").stdout) is failed

    def test_deliveries_are_counted_on_every_page(self, run: Run, parts: Parts) -> None:
        deliver(parts, customers=101)
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["found"].startswith("undelivered events of the last day: 101,")

    def test_table_without_a_name_is_this_stacks(self, run: Run, parts: Parts) -> None:
        parts.deployment = None
        assert run("doctor").exit_code == 0

    def test_schedule_of_a_new_stack_has_not_run_yet(self, run: Run, parts: Parts) -> None:
        parts.alarms, parts.age = [STOPPED], 60.0
        (skipped,) = objects(run("doctor", "--json"))
        assert (skipped["check"], skipped["result"]) == ("alarms", "skipped")

    def test_each_problem_has_a_remedy(self, run: Run, parts: Parts) -> None:
        for value in ("mapping", "rule"):
            setattr(parts, value, "Disabled")
        problems = objects_of_failure(run("doctor", "--json"))
        assert len(problems) == 2
        assert all(each["to_do"] for each in problems)

    def test_endpoint_is_skipped_without_a_secret_key(self, run: Run, parts: Parts) -> None:
        (skipped,) = objects(run("doctor", "--json", env={"STRIPE_API_KEY": None}))
        assert (skipped["check"], skipped["result"]) == ("endpoint", "skipped")


class TestParameters:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"Closed": "true", "StoredRecords": "Card,TaxId,Entitlement"}

    def test_closed_stack_is_a_problem(self, run: Run, parts: Parts) -> None:
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert (problem["check"], problem["found"]) == ("maintenance", "the stack is closed")

    def test_stored_kinds_need_further_permissions(self, run: Run, parts: Parts) -> None:
        faults = parts.world.stripe.faults
        faults.fail_next(status=403, match="GET /v1/customers/*/tax_ids")
        faults.fail_next(status=403, match="GET /v1/entitlements/active_entitlements")
        problems = objects_of_failure(run("doctor", "--json"))
        assert [each["found"] for each in problems if each["check"] == "permission"] == [
            "the key may not read tax ids",
            "the key may not read entitlements",
        ]


class TestEventSource:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"WebhookIngress": "eventbridge", "StripeEventSource": SOURCE}

    def test_of_a_healthy_stack_is_in_order(self, run: Run, parts: Parts) -> None:
        checked = {each["check"]: each for each in objects(run("doctor", "--all", "--json"))}
        assert checked["event source"]["result"] == "ok"

    @pytest.mark.parametrize(
        ("fault", "found", "to_do"),
        [
            ({"source": "PENDING"}, "has no event bus", "aws events create-event-bus"),
            ({"source": "DELETED"}, "was deleted on Stripe", "create an event destination"),
            ({"source_rule": "DISABLED"}, "its rule is disabled", "aws events enable-rule"),
        ],
    )
    def test_problem_is_found(
        self, run: Run, parts: Parts, fault: dict[str, str], found: str, to_do: str
    ) -> None:
        vars(parts).update(fault)
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["check"] == "event source"
        assert found in problem["found"]
        assert problem["to_do"].startswith(to_do)

    def test_missing_permission_is_a_problem(self, run: Run, parts: Parts) -> None:
        parts.refused = {"DescribeEventSource"}
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert "AccessDeniedException" in problem["found"]


class TestMoreTypesThanOneListTakes:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"PublishTypes": "account.updated,balance.available,charge.failed,charge.refunded"}

    def test_deliveries_of_all_are_counted(self, run: Run, parts: Parts) -> None:
        deliver(parts)
        parts.world.time -= 60
        (customer,) = parts.world.stripe_customers()
        parts.world.attach_card(customer["id"])
        parts.world.time += 60
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["found"].startswith("undelivered events of the last day: 2,")


def objects_of_failure(result: Any) -> list[Json]:
    assert result.exit_code == 1
    return [json.loads(line) for line in result.stdout.splitlines()]


class TestClosed:
    @pytest.fixture
    def stack_parameters(self) -> Json:
        return {"Closed": "true"}

    def test_is_a_problem(self, run: Run, parts: Parts) -> None:
        (problem,) = objects_of_failure(run("doctor", "--json"))
        assert problem["found"] == "the stack is closed"
