"""Faults of a deployed stack, its secrets and its webhook, each planted and reverted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from local.cloud import STACK, Cloud, function_name
from local.stripe_double import StripeDouble
from local.stripe_double.webhooks import WebhookEndpoint
from tests.local_cloud.workers import end_workers

API_KEY, SIGNING = "/".join(("stripe", "api-key")), "/".join(("stripe", "webhook-secret"))
STALE = {"pk": {"S": "DEPLOYMENT"}, "sk": {"S": "NAME"}}


@dataclass
class Site:
    """A healthy stack, and how the operator sees it.

    Parameters
    ----------
    cloud : Cloud
        The deployed local cloud.
    environment : dict
        Variables of the operator that differ from usual.
    clock_differs : float
        How many seconds the clock of the operator's machine is fast, or slow if negative.
    """

    cloud: Cloud
    environment: dict[str, str] = field(default_factory=dict)
    clock_differs: float = 0.0

    def aws(self, service: str) -> Any:
        """A client of the local AWS."""
        return self.cloud.client(service)

    @contextmanager
    def double(self) -> Iterator[StripeDouble]:
        """The Stripe double."""
        assert self.cloud.stripe.double, "these tests need the double: unset STRIPE_API_KEY"
        with self.cloud.stripe.double.use() as double:
            yield double

    @contextmanager
    def endpoint(self) -> Iterator[WebhookEndpoint]:
        """The only webhook endpoint of the account."""
        with self.double() as double:
            (found,) = double.webhooks.endpoints.values()
            yield found

    def resource(self, logical_id: str) -> str:
        """The name of something in the stack."""
        return function_name(self.cloud.endpoint, logical_id)

    def end_workers(self, logical_id: str) -> None:
        """End the processes of a function, as Lambda does every now and then."""
        end_workers(self.cloud.folder, self.resource(logical_id))


Plant = Callable[[Site], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, and what `doctor` has to say about it.

    Parameters
    ----------
    plant : callable
        Plants it for the length of a block.
    checks : set of str
        The checks that have to find a problem; no other may.
    found : str
        What one of them says.
    """

    plant: Plant
    checks: set[str]
    found: str


@contextmanager
def secret(site: Site, *, name: str, value: str | None) -> Iterator[None]:
    """Store another value, or none, in place of a secret."""
    store = site.aws("secretsmanager")
    before = store.get_secret_value(SecretId=name)["SecretString"]
    if value is None:
        store.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)
    else:
        store.put_secret_value(SecretId=name, SecretString=value)
    try:
        yield
    finally:
        if value is None:
            store.create_secret(Name=name, SecretString=before)
        else:
            store.put_secret_value(SecretId=name, SecretString=before)


@contextmanager
def secret_that_is_not_read_yet(site: Site) -> Iterator[None]:
    """Store another signing secret than the webhook has just read."""
    site.cloud.deliver(b"{}", "t=1,v1=00")
    with secret(site, name=SIGNING, value="whsec_new"):
        yield


@contextmanager
def endpoint(site: Site, **values: Any) -> Iterator[None]:
    """Change the endpoint at Stripe."""
    with site.endpoint() as found:
        before = {name: getattr(found, name) for name in values}
        vars(found).update(values)
    try:
        yield
    finally:
        with site.endpoint() as found:
            vars(found).update(before)


@contextmanager
def endpoint_without_a_type(site: Site) -> Iterator[None]:
    """Let the endpoint lack a type that the stack applies."""
    with site.endpoint() as found:
        types = [each for each in found.enabled_events if each != "customer.deleted"]
    with endpoint(site, enabled_events=types):
        yield


@contextmanager
def endpoint_that_is_missing(site: Site) -> Iterator[None]:
    """Take the endpoint away."""
    with site.double() as double:
        before = dict(double.webhooks.endpoints)
        double.webhooks.endpoints.clear()
    try:
        yield
    finally:
        with site.double() as double:
            double.webhooks.endpoints.update(before)


@contextmanager
def secret_of_another_endpoint(site: Site) -> Iterator[None]:
    """Let Stripe sign with another secret than the one that is stored, for half a minute."""
    with site.endpoint() as found:
        before, found.secrets = found.secrets, ["whsec_another"]
    with site.double() as double:
        known = len(double.webhooks.log)
    created = site.cloud.stripe.client().v1.customers.create({"email": "jenny@example.com"})

    def is_refused() -> bool:
        with site.double() as double:
            return any(attempt["status"] == 400 for attempt in double.webhooks.log[known:])

    site.cloud.wait_until(is_refused, f"the event of {created.id} is refused")
    site.clock_differs = 30.0
    try:
        yield
    finally:
        site.clock_differs = 0.0
        with site.endpoint() as found:
            found.secrets = before
        site.cloud.wait_until(partial(_all_delivered, site), "its event is delivered")


def _all_delivered(site: Site) -> bool:
    with site.double() as double:
        return double.webhooks.pending_count() == 0


@contextmanager
def permission(site: Site, *, path: str) -> Iterator[None]:
    """Let Stripe refuse one request of a key that lacks a permission."""
    with site.double() as double:
        double.faults.fail_next(status=403, match=f"GET {path}")
    yield
    with site.double() as double:
        assert not double.faults.pending()


@contextmanager
def role_without(site: Site, *, logical_id: str, action: str) -> Iterator[None]:
    """Deny a function an action."""
    function = site.aws("lambda").get_function_configuration(FunctionName=site.resource(logical_id))
    policy = {"RoleName": function["Role"].rpartition("/")[2], "PolicyName": "denied"}
    site.aws("iam").put_role_policy(**policy, PolicyDocument=denial(action))
    site.end_workers(logical_id)
    try:
        yield
    finally:
        site.aws("iam").delete_role_policy(**policy)
        site.end_workers(logical_id)


def denial(action: str) -> str:
    """A policy that allows everything but one action."""
    statements = [
        {"Effect": "Allow", "Action": "*", "Resource": "*"},
        {"Effect": "Deny", "Action": action, "Resource": "*"},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@contextmanager
def operator_without(site: Site, *, action: str) -> Iterator[None]:
    """Let the operator be a user who is denied an action."""
    iam, user = site.aws("iam"), {"UserName": "operator"}
    iam.create_user(**user)
    iam.put_user_policy(**user, PolicyName="denied", PolicyDocument=denial(action))
    made = iam.create_access_key(**user)["AccessKey"]
    site.environment = {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
    }
    try:
        yield
    finally:
        site.environment = {}
        iam.delete_access_key(**user, AccessKeyId=made["AccessKeyId"])
        iam.delete_user_policy(**user, PolicyName="denied")
        iam.delete_user(**user)


@contextmanager
def disabled_mapping(site: Site) -> Iterator[None]:
    """Disable the mapping of the table's stream."""
    lambdas, mapping = site.aws("lambda"), {"UUID": site.resource("ApplyEventStoredEvents")}
    lambdas.update_event_source_mapping(**mapping, Enabled=False)
    try:
        yield
    finally:
        lambdas.update_event_source_mapping(**mapping, Enabled=True)


@contextmanager
def disabled_schedule(site: Site) -> Iterator[None]:
    """Disable the rule of the schedule."""
    events, rule = site.aws("events"), {"Name": site.resource("ReconcileEventsSchedule")}
    events.disable_rule(**rule)
    try:
        yield
    finally:
        events.enable_rule(**rule)


@contextmanager
def item(site: Site, *, item: Mapping[str, Any]) -> Iterator[None]:
    """Store an item in the table, in place of the one that has its key."""
    database, table = site.aws("dynamodb"), {"TableName": site.cloud.table_name}
    key = {name: item[name] for name in ("pk", "sk")}
    before = database.get_item(**table, Key=key).get("Item")
    database.put_item(**table, Item=item)
    try:
        yield
    finally:
        if before:
            database.put_item(**table, Item=before)
        else:
            database.delete_item(**table, Key=key)


@contextmanager
def missing_table(site: Site) -> Iterator[None]:
    """Let the operator look at a stack whose table was deleted."""
    client = site.aws("cloudformation")
    described = client.describe_stacks(StackName=STACK)["Stacks"][0]
    values = {each["OutputKey"]: each["OutputValue"] for each in described["Outputs"]}
    outputs = {**values, "TableName": "deleted"}
    template = {
        "Parameters": {
            each["ParameterKey"]: {"Type": "String", "Default": each["ParameterValue"]}
            for each in described["Parameters"]
        },
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    client.create_stack(StackName="without-table", TemplateBody=json.dumps(template))
    site.environment = {"STACK": "without-table"}
    try:
        yield
    finally:
        site.environment = {}
        client.delete_stack(StackName="without-table")


@contextmanager
def dead_letter(site: Site) -> Iterator[None]:
    """Put a message into the dead-letter queue."""
    queue = {"QueueUrl": site.cloud.dead_letters_url}
    site.aws("sqs").send_message(**queue, MessageBody="{}")
    try:
        yield
    finally:
        site.aws("sqs").purge_queue(**queue)


@contextmanager
def alarm(site: Site, *, logical_id: str) -> Iterator[None]:
    """Let an alarm go off."""
    state = partial(
        site.aws("cloudwatch").set_alarm_state,
        AlarmName=site.resource(logical_id),
        StateReason="planted",
    )
    state(StateValue="ALARM")
    try:
        yield
    finally:
        state(StateValue="OK")


@contextmanager
def variables(site: Site, **values: str) -> Iterator[None]:
    """Let the operator have other variables."""
    site.environment = values
    try:
        yield
    finally:
        site.environment = {}


@contextmanager
def clock(site: Site, *, seconds: float) -> Iterator[None]:
    """Let the clock of the operator's machine be fast, or slow."""
    site.clock_differs = seconds
    try:
        yield
    finally:
        site.clock_differs = 0.0


FAILED_EVENT = {
    "pk": {"S": "EVENT#evt_failed"},
    "sk": {"S": "EVENT"},
    "stripe_id": {"S": "evt_failed"},
    "record_type": {"S": "Event"},
    "kind": {"S": "customer.updated"},
    "state": {"S": "failed"},
    "queue": {"S": "failed"},
    "attempts": {"N": "41"},
    "turn": {"N": "41"},
    "created": {"N": "1"},
    "next_attempt": {"N": "9999999999"},
}

FAULTS = {
    "key of the other mode": Fault(
        partial(secret, name=API_KEY, value="sk_live_x"), {"api key"}, "is no test-mode key"
    ),
    "key that Stripe refuses": Fault(
        partial(secret, name=API_KEY, value="sk_test_x"), {"api key"}, "Stripe refuses the key"
    ),
    "no key": Fault(partial(secret, name=API_KEY, value=None), {"api key"}, f"no secret {API_KEY}"),
    "key without a permission": Fault(
        partial(permission, path="/v1/subscriptions"),
        {"permission"},
        "the key may not read subscriptions",
    ),
    "secrets that the operator may not read": Fault(
        partial(operator_without, action="secretsmanager:GetSecretValue"),
        {"api key", "signing secret", "account"},
        "GetSecretValue: AccessDeniedException",
    ),
    "secrets that the webhook may not read": Fault(
        partial(role_without, logical_id="LinkCustomer", action="secretsmanager:GetSecretValue"),
        {"webhook"},
        "link_customer responds with 500",
    ),
    "no signing secret": Fault(
        partial(secret, name=SIGNING, value=None), {"signing secret"}, "none is stored"
    ),
    "signing secret that is none": Fault(
        partial(secret, name=SIGNING, value="sk_test_x"),
        {"signing secret"},
        "what is stored is not whsec_",
    ),
    "signing secret that the webhook has not read yet": Fault(
        secret_that_is_not_read_yet,
        {"webhook"},
        "link_customer refuses the stored secret",
    ),
    "signing secret of another endpoint": Fault(
        secret_of_another_endpoint, {"deliveries"}, "undelivered events of the last day: 1,"
    ),
    "no endpoint": Fault(endpoint_that_is_missing, {"endpoint"}, "none has the stack's URL"),
    "endpoint of another URL": Fault(
        partial(endpoint, url="https://elsewhere.example"), {"endpoint"}, "none has the stack's URL"
    ),
    "endpoint of another version": Fault(
        partial(endpoint, api_version="2024-06-20"), {"endpoint"}, "has another version than"
    ),
    "endpoint without a type": Fault(
        endpoint_without_a_type, {"endpoint"}, "lacks customer.deleted"
    ),
    "disabled endpoint": Fault(partial(endpoint, is_disabled=True), {"endpoint"}, "is disabled"),
    "secret key of the other mode": Fault(
        partial(variables, STRIPE_API_KEY="sk_live_x"), {"endpoint"}, "is no test-mode key"
    ),
    "disabled mapping": Fault(disabled_mapping, {"stream mapping"}, "is disabled"),
    "table that the operator may not describe": Fault(
        partial(operator_without, action="dynamodb:DescribeTable"),
        {"table"},
        "DescribeTable: AccessDeniedException",
    ),
    "disabled schedule": Fault(disabled_schedule, {"schedule"}, "is disabled"),
    "table of another deployment": Fault(
        partial(item, item={**STALE, "name": {"S": "other"}, "record_type": {"S": "Deployment"}}),
        {"deployment name"},
        "the table is that of other",
    ),
    "failed event": Fault(partial(item, item=FAILED_EVENT), {"events"}, "1 have failed"),
    "dead letter": Fault(dead_letter, {"dead letters"}, "messages in the queue: 1"),
    "alarm": Fault(partial(alarm, logical_id="StreamBehind"), {"alarms"}, "is in alarm"),
    "wrong clock": Fault(
        partial(clock, seconds=-3600.0), {"clock", "webhook"}, "this machine's differs by -3"
    ),
}
"""The faults of which only these checks say something."""
