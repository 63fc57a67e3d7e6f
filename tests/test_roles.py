"""Each function's role allows what the function does, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import ClassVar
from unittest.mock import patch

import boto3
import pytest

import functions.link_customer.app as link_customer_function
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.actions.customers.assign import store_unassigned
from stripe_integrations.actions.customers.refresh import (
    fetch_missing_children,
    refresh_from_stripe,
)
from stripe_integrations.actions.customers.snapshot import TOKEN_KEY, USER_KEY, CustomerSnapshot
from stripe_integrations.adapters import secrets
from stripe_integrations.config import ExistingCustomers, UnassignedCustomers, WebhookIngress
from stripe_integrations.context import Context, use
from stripe_integrations.errors import StripeUnavailableError, UnprocessableEventError
from stripe_integrations.models import (
    Card,
    Customer,
    CustomerClaim,
    Event,
    Owner,
    Pointer,
    read_customer,
)
from stripe_integrations.models.claim import new_token
from stripe_integrations.models.erasure import Erasure
from stripe_integrations.models.observation import Observation
from stripe_integrations.models.table import Record
from tests.engines import REGION
from tests.roles import (
    DEAD_LETTERS,
    REPORTS,
    UNDELIVERED_EVENTS,
    Deployment,
    Grant,
    Need,
    RoleTooNarrowError,
    Statement,
    needs,
    policies_of,
    role_of,
)
from tests.world import EMAIL, USER, WEBHOOK_SECRET, Json, World
from tools.bundle import RUN_HANDLERS
from tools.lambda_events import event_bridge_event
from tools.template import ROOT, of_type, template

BUS = "changes"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/customers"
STORES = ("secretsmanager", "ssm")
SECRETS = {"stripe/api-key": "sk_test_double", "stripe/webhook-secret": WEBHOOK_SECRET}
FUNCTIONS = sorted(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
BEHIND_THE_API = (
    "adopt_customer",
    "create_customer",
    "get_customer",
    "soft_delete_customer",
    "sync_customer",
    "update_customer",
)
REPORTING = ("apply_event", "reconcile_events", "replay_events")
# What Lambda does with network interfaces of a function in a VPC, as its documentation lists it:
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
INTERFACES = Statement(
    (
        "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ),
    ("*",),
    {},
)


# ---- what AWS does under the function's role


def used_by_aws(function: str) -> set[Grant]:
    """What Lambda itself does under the role, in no call of ours."""
    logs = role_of(function).removesuffix("Role") + "Logs.Arn"
    used = {
        # The runtime writes what the function logs.
        Grant("logs:CreateLogStream", logs),
        Grant("logs:PutLogEvents", logs),
        # `Tracing: Active` sends segments.
        Grant("xray:PutTraceSegments", "*"),
        Grant("xray:PutTelemetryRecords", "*"),
    }
    if function == "apply_event":
        # The event source mapping reads the stream. It sends discarded records to the queue to
        # which the function sends its own dead letters.
        reads = ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
        used |= {Grant(f"dynamodb:{read}", "Table.StreamArn") for read in reads}
    return used


def used_with_a_key(function: str) -> list[Statement]:
    """What is done under the role where a customer managed key encrypts table, queue and bucket."""

    def by(service: str, *actions: str) -> Statement:
        via = {"kms:ViaService": f"{service}.eu-west-1.amazonaws.com"}
        return Statement(actions, (KEY,), {"StringEquals": via})

    # DynamoDB decrypts the table for each caller, and the stream for its reader.
    used = [by("dynamodb", "kms:Decrypt")]
    if function in REPORTING:
        # SQS generates a data key for a sender, and decrypts one that it has already.
        used.append(by("sqs", "kms:Decrypt", "kms:GenerateDataKey"))
    if function == "walk_account":
        # S3 encrypts a report, and decrypts a mapping.
        used.append(by("s3", "kms:GenerateDataKey", "kms:Decrypt"))
    return used


# ---- scenarios, in which each function makes every request that it ever makes


class Stage(World):
    """A deployment with its secrets, queue and bus; each call is a new process."""

    def new_context(self) -> Context:
        secrets.forget()
        context = super().new_context()
        context.send_dead_letter = context.publish = context.store_report = None
        return context

    def invoke(
        self, function: ModuleType, event: Json, remaining_milliseconds: int = 29_000
    ) -> Json:
        with use(self.new_context()):
            return super().invoke(function, event, remaining_milliseconds)


def refuse(_: Event, __: Customer | None) -> None:
    """A custom handler of events that can't be processed."""
    raise UnprocessableEventError("not this one")


def store_of(world: World) -> str:
    return str(world.settings.api_key_name).partition(":")[0]


@pytest.fixture(scope="module")
def queue_url(aws: None) -> Iterator[str]:
    """The queue's URL; the bus and the secrets exist too."""
    secretsmanager, ssm = map(boto3.client, STORES)
    events, sqs = boto3.client("events"), boto3.client("sqs")
    for name, value in SECRETS.items():
        secretsmanager.create_secret(Name=name, SecretString=value)
        ssm.put_parameter(Name=f"/{name}", Value=value, Type="SecureString")
    events.create_event_bus(Name=BUS)
    bucket = boto3.resource("s3").Bucket(REPORTS)
    bucket.create(CreateBucketConfiguration={"LocationConstraint": REGION})
    url = str(sqs.create_queue(QueueName=DEAD_LETTERS)["QueueUrl"])
    yield url
    bucket.objects.delete()
    bucket.delete()
    sqs.delete_queue(QueueUrl=url)
    events.delete_event_bus(Name=BUS)
    for name in SECRETS:
        ssm.delete_parameter(Name=f"/{name}")
        secretsmanager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    """The store of the secrets; a test may choose."""
    return str(getattr(request, "param", STORES[0]))


@pytest.fixture
def stage(table_name: str, queue_url: str, store: str) -> Iterator[Stage]:
    place = "ssm:/" if store == "ssm" else f"{store}:"
    api_key, webhook_secret = SECRETS
    stage = Stage(
        table_name,
        api_key_name=f"{place}{api_key}",
        webhook_secret_name=f"{place}{webhook_secret}",
        dead_letters_url=queue_url,
        event_bus_name=BUS,
        reports_bucket=REPORTS,
        event_handlers={"customer.updated": f"{__name__}:refuse"},
    )
    with use(stage.context):
        yield stage


def create_customer(stage: Stage) -> None:
    stripe_id = stage.create()["json"]["stripe_id"]
    stage.create()
    stage.request("DELETE", f"/v1/customers/{stripe_id}")
    stage.create()
    stage.create("u-3")
    CustomerClaim.acquire("u-2", {"stripe": {"email": EMAIL}, "local": {}})
    stage.create("u-2")
    stage.stripe.faults.time_out(None, match="POST /v1/customers")
    stage.create("u-4")
    stage.stripe.faults.clear()
    store_with_many_cards(stage, stage.stripe_customers()[0]["id"])
    stage.create("u-4")


def adopt_customer(stage: Stage) -> None:
    customer = {"email": EMAIL, "metadata": {TOKEN_KEY: "other/1", USER_KEY: "u-1"}}
    stripe_id = stage.request("POST", "/v1/customers", customer)["id"]
    stage.attach_card(stripe_id)
    stage.adopt(stripe_id)
    stage.stripe.faults.fail_next(None, match="POST *", status=503)
    stage.adopt(stripe_id, take_over=True)
    stage.stripe.faults.clear()
    stage.time += 130
    stage.adopt(stripe_id)
    StripeCustomer.require(USER).update([Customer.listings.remove()])
    stage.request("DELETE", f"/v1/customers/{stripe_id}")
    stage.adopt(stripe_id)
    stripe_id = stage.request("POST", "/v1/customers", {"email": EMAIL})["id"]
    store_with_many_cards(stage, stripe_id)
    stage.adopt(stripe_id, "u-2")


def get_customer(stage: Stage) -> None:
    stage.get()


def sync_customer(stage: Stage) -> None:
    stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
    stage.attach_card(stripe_id)
    stage.sync()
    stage.request("DELETE", f"/v1/customers/{stripe_id}")
    stage.sync()


def update_customer(stage: Stage) -> None:
    stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
    stage.update(name="Jane")
    stage.attach_card(stripe_id)
    stage.update(default_source="tok_visa")
    stage.request("DELETE", f"/v1/customers/{stripe_id}")
    stage.update(name="Jane Roe")


def soft_delete_customer(stage: Stage) -> None:
    StripeCustomer.create(USER, EMAIL)
    stage.delete()


def link_customer(stage: Stage) -> None:
    customer = {"email": EMAIL, "metadata": {TOKEN_KEY: "other/1"}}
    stripe_id = stage.request("POST", "/v1/customers", customer)["id"]
    (delivery,) = stage.stripe.webhooks.due()
    stage.webhook(delivery.body, delivery.headers)
    Pointer.to(Owner("u-1", stripe_id)).save()
    stage.webhook(delivery.body, delivery.headers)


def apply_event(stage: Stage) -> None:
    def deliver() -> None:
        stage.deliver()
        stage.stream()

    change_everything(stage, deliver)
    store_and_change_unassigned(stage, deliver)


def store_with_many_cards(stage: Stage, stripe_id: str) -> None:
    """Store a customer as unassigned, with more cards than one transaction moves."""
    for _ in range(40):
        stage.attach_card(stripe_id)
    unassigned = store_unassigned(CustomerSnapshot.from_fetch({"id": stripe_id}))
    assert unassigned
    fetch_missing_children(unassigned.pk, stripe_id)


def store_and_change_unassigned(stage: Stage, deliver: Callable[[], object]) -> None:
    """Deliver the creation of a customer that no user has, and a change."""
    stage.configure(unassigned_customers=UnassignedCustomers.STORE)
    stripe_id = stage.request("POST", "/v1/customers", {"email": EMAIL})["id"]
    deliver()
    stage.time += 10
    stage.attach_card(stripe_id)
    deliver()
    assert read_customer(Owner(None, stripe_id))
    stage.configure(adopt_from="app_user")
    Record.connection().delete_item(stage.settings.table_name, "DEPLOYMENT", "NAME")
    for _ in range(40):
        stage.attach_card(stripe_id)
    stage.request("POST", f"/v1/customers/{stripe_id}", {"metadata": {"app_user": "u-9"}})
    deliver()
    assert read_customer(Owner("u-9", stripe_id))
    stage.request("POST", "/v1/customers", {"email": EMAIL, "metadata": {"app_user": "u-9"}})
    deliver()


def reconcile_events(stage: Stage) -> None:
    def deliver() -> None:
        for _ in range(2):
            stage.reconcile()
            stage.time += 130

    change_everything(stage, deliver)
    stripe_id = stage.request("POST", "/v1/customers", {"email": EMAIL})["id"]
    for _ in range(2):
        deliver()  # foreign: looked up, not found
    stage.stripe.faults.fail_next(None, match="POST *", status=503)
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.adopt(User("u-2"), stripe_id)
    stage.stripe.faults.clear()
    stage.time += 130
    deliver()
    store_and_change_unassigned(stage, deliver)
    unassigned = store_customers_to_erase(stage)
    customer_id = StripeCustomer.require(User("u-3")).stripe_id
    with patch("stripe_integrations.models.customer._ROOM_ITEMS", 2):
        for user_id, stripe_id in (("u-3", customer_id), (None, unassigned), (None, "cus_1")):
            Erasure.start(user_id, {stripe_id: ["pm_1"]}, delete_on_stripe=False)
        for _ in range(2):
            stage.time += 1000
            stage.reconcile()


def erase_customer(stage: Stage) -> None:
    unassigned = store_customers_to_erase(stage)
    with patch("stripe_integrations.models.customer._ROOM_ITEMS", 2):
        stage.erase({"user_id": "u-3"})
        stage.erase({"stripe_id": unassigned, "delete_on_stripe": True})
    stage.erase({"stripe_id": "cus_1"})


def store_customers_to_erase(stage: Stage) -> str:
    """Store a user's customer and one of no user, with cards and events; the id of the latter."""
    customer = StripeCustomer.create(User("u-3"), EMAIL)
    made = stage.request("POST", "/v1/customers", {"email": EMAIL})
    assert store_unassigned(CustomerSnapshot.from_fetch(made))
    unassigned = read_customer(Owner(None, made["id"]))
    assert unassigned
    for record in (customer, unassigned):
        for _ in range(2):
            stage.attach_card(record.stripe_id)
        refresh_from_stripe(record)
        stage.receive("payment_method.attached")
    # The user has the card of another customer besides, that was released.
    Card.under("USER#u-3", "cus_9", {"stripe_id": "pm_9"}, Observation.of_event(1)).save()
    return str(made["id"])


def replay_events(stage: Stage) -> None:
    def deliver() -> None:
        stage.deliver()
        stage.replay({"created_from": 0, "created_to": 2**33})

    change_everything(stage, deliver)
    stage.replay({"failed": True})
    store_and_change_unassigned(stage, deliver)


def rebuild(stage: Stage) -> None:
    stage.configure(existing_customers=ExistingCustomers.IGNORE)
    customer = StripeCustomer.create(USER, EMAIL)
    backup = [image for image in stage.images() if image["pk"]["S"] != "DEPLOYMENT"]
    StripeCustomer.soft_delete(customer)
    stage.time += 10
    stage.attach_card(StripeCustomer.create(USER, EMAIL).stripe_id)
    for item in stage.items():
        Record.connection().delete_item(stage.settings.table_name, item["pk"], item["sk"])
    for image in backup:
        Record.connection().client.put_item(TableName=stage.settings.table_name, Item=image)
    store_with_many_cards(stage, stage.stripe_customers()[0]["id"])
    stage.rebuild()


def walk(stage: Stage, run_id: str, **options: str | bool) -> None:
    """Walk the account as the state machine does."""
    stage.time += 3600
    stage.walk({"action": "start", "run_id": run_id, "options": options})
    stage.walk({"action": "stop", "run_id": run_id})
    stage.walk({"action": "resume", "run_id": run_id})
    stage.walk({"action": "work", "run_id": run_id, "worker": "1"})
    assert stage.walk({"action": "status"})["state"] == "finished"


def verify_and_repair(stage: Stage, stripe_ids: Iterable[str]) -> None:
    """Walk to find, and to repair, customers that were changed or created without an event."""
    for stripe_id in stripe_ids:
        stage.rename(stripe_id, "John")
    ours = {USER_KEY: "u-20", TOKEN_KEY: new_token()}
    stage.request("POST", "/v1/customers", {"email": EMAIL, "metadata": ours})
    stage.stripe.account.events.clear()
    stage.time += 3600
    stage.reconcile()
    verify = {"run_id": "of-differences", "worker": "1"}
    stage.walk({"action": "start", **verify, "options": {"kind": "verify"}})
    worked = stage.walk({"action": "work", **verify})
    assert worked["wait_seconds"] > 0
    stage.time += worked["wait_seconds"]
    stage.reconcile()
    stage.walk({"action": "work", **verify})
    assert stage.walk({"action": "finish", **verify})["differences"] == 3
    walk(stage, "of-repair", kind="repair", of_run="of-differences")


def walk_account(stage: Stage) -> None:
    def make(create: Callable[[], str]) -> tuple[str, str]:
        stripe_id = create()
        stage.subscribe(stripe_id)
        return stripe_id, stage.attach_card(stripe_id)

    def create_on_stripe() -> str:
        return str(stage.request("POST", "/v1/customers", {"email": EMAIL})["id"])

    def on_stripe(stripe_id: str) -> Mapping[str, str]:
        metadata: Mapping[str, str] = stage.request("GET", f"/v1/customers/{stripe_id}")["metadata"]
        return metadata

    stage.configure(unassigned_customers=UnassignedCustomers.STORE)
    stage.reconcile()
    walk(stage, "of-empty-account")
    unassigned, first = make(create_on_stripe)
    assigned, second = make(lambda: StripeCustomer.create(USER, EMAIL).stripe_id)
    lost = StripeCustomer.create(User("u-2"), EMAIL).stripe_id
    for item in stage.items():
        if lost in str(item) or item["pk"] == "USER#u-2":
            Record.connection().delete_item(stage.settings.table_name, item["pk"], item["sk"])
    walk(stage, "of-new-customers")
    for method in (first, second):
        stage.request("POST", f"/v1/payment_methods/{method}/detach")
    for owner in (Owner(None, unassigned), Owner("u-1", assigned)):
        stage.rename(owner.customer_id, "Jane")
        record = read_customer(owner)
        assert record
        # The walk's page is not certainly newer: the customer is fetched.
        record.update([Customer.observed_to.set(int(stage.time) + 7200)])

    def delete_listed() -> None:
        last = stage.stripe.requests[-1]
        if (last.method, last.path) == ("GET", "/v1/customers"):
            for stripe_id in (unassigned, assigned):
                stage.request("DELETE", f"/v1/customers/{stripe_id}")

    stage.during_sleep = delete_listed
    walk(stage, "of-changes")
    stage.during_sleep = lambda: None
    moved = create_on_stripe()
    walk(stage, "of-unassigned")
    rows = [("u-8", "cus_missing"), ("u-9", moved), ("u-7", create_on_stripe())]
    lines = "".join(f"{user_id},{stripe_id}\n" for user_id, stripe_id in rows)
    stage.files["mappings/a.csv"] = f"user_id,stripe_id\n{lines}".encode()
    walk(stage, "of-mapping", mapping="mappings/a.csv")
    stage.deliver_and_apply()
    stage.configure(adopt_from="app_user", existing_customers=ExistingCustomers.CHECK)
    named = {"email": EMAIL, "metadata": {"app_user": "u-6"}}
    stage.request("POST", "/v1/customers", named)
    walk(stage, "of-metadata", by_metadata=True)
    assert stage.items(record_type="Customer", user_id="u-6")
    verify_and_repair(stage, [moved, create_on_stripe()])
    walk(stage, "of-metadata-on-stripe", kind="metadata")
    assert USER_KEY in on_stripe(moved)
    walk(stage, "of-undo", kind="undo", of_run="of-mapping")
    assert USER_KEY not in on_stripe(moved)
    rebuild(stage)


SCENARIOS: Mapping[str, Callable[[Stage], None]] = {
    scenario.__name__: scenario
    for scenario in (
        adopt_customer,
        apply_event,
        create_customer,
        erase_customer,
        get_customer,
        link_customer,
        reconcile_events,
        replay_events,
        soft_delete_customer,
        sync_customer,
        update_customer,
        walk_account,
    )
}


def change_everything(stage: Stage, deliver: Callable[[], object]) -> None:
    """Deliver events of each kind: of an interrupted create, a card, a change, a deletion."""
    stage.stripe.faults.time_out(None, match="POST /v1/customers")
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    stage.stripe.faults.clear()
    deliver()
    (customer,) = stage.stripe_customers()
    stage.attach_card(customer["id"])
    deliver()
    stage.request("POST", f"/v1/customers/{customer['id']}", {"name": "Jane"})
    deliver()
    stage.request("DELETE", f"/v1/customers/{customer['id']}")
    deliver()


# ---- the tests


def deployment(**parameters: str) -> Deployment:
    """A stack with an event bus."""
    return Deployment(**{"EventBusName": BUS, **parameters})


def granted(function: str, **parameters: str) -> set[Grant]:
    """What a function's role allows."""
    role = deployment(**parameters).role(function)
    return {grant for statement in role.statements for grant in statement.grants()}


@pytest.mark.parametrize("function", FUNCTIONS)
class TestRoles:
    @pytest.mark.parametrize("store", STORES, indirect=True)
    def test_grants_what_is_used_and_nothing_else(
        self, function: str, store: str, stage: Stage
    ) -> None:
        SCENARIOS[function](stage)
        assert stage.used[function] | used_by_aws(function) == granted(function, SecretStore=store)

    def test_uses_a_kms_key_through_the_services_that_need_it(self, function: str) -> None:
        usual = deployment().role(function).statements
        with_a_key = deployment(KmsKeyArn=KEY).role(function).statements
        added = [statement for statement in with_a_key if statement not in usual]
        assert added == used_with_a_key(function)

    @pytest.mark.parametrize("store", STORES)
    def test_decrypts_with_the_key_of_the_secrets_if_it_reads_one(
        self, function: str, store: str
    ) -> None:
        usual = deployment(SecretStore=store).role(function).statements
        with_a_key = deployment(SecretStore=store, SecretsKmsKeyArn=KEY).role(function).statements
        added = [statement for statement in with_a_key if statement not in usual]
        reads = any("Secret" in name or "GetParameter" in name for s in usual for name in s.actions)
        via = {"kms:ViaService": f"{store}.eu-west-1.amazonaws.com"}
        decrypt = Statement(("kms:Decrypt",), (KEY,), {"StringEquals": via})
        assert added == ([decrypt] if reads else [])
        assert reads == (function not in ("get_customer", "soft_delete_customer"))

    def test_has_policies_of_custom_handlers_if_it_runs_them(self, function: str) -> None:
        own = deployment().attached(function)
        added = ["arn:aws:iam::123456789012:policy/mail", "arn:aws:iam::aws:policy/store"]
        attached = deployment(HandlerPolicyArns=",".join(added)).attached(function)
        assert attached == ([*own, *added] if function in RUN_HANDLERS else own)
        # IAM attaches ten to a role, and docs/deploy.md says how many are left.
        assert function not in RUN_HANDLERS or 10 - len(own) == 7

    def test_connects_to_a_vpc_if_it_runs_custom_handlers(self, function: str) -> None:
        usual = deployment().role(function).statements
        in_a_vpc = deployment(HandlerSubnetIds="subnet-1,subnet-2").role(function).statements
        added = [statement for statement in in_a_vpc if statement not in usual]
        assert added == ([INTERFACES] if function in RUN_HANDLERS else [])

    def test_reads_signing_secret_only_for_webhook(self, function: str) -> None:
        secret = "secret:stripe/webhook-secret-??????"
        for ingress in WebhookIngress:
            source = "aws.partner/stripe.com/ed_1"
            grants = granted(function, WebhookIngress=ingress, StripeEventSource=source)
            reads = any(grant.resource.endswith(secret) for grant in grants)
            has_webhook = ingress in (WebhookIngress.FUNCTION_URL, WebhookIngress.HTTP_API)
            assert reads is (function == "link_customer" and has_webhook)

    def test_publishes_nowhere_without_a_bus(self, function: str) -> None:
        actions = {grant.action for grant in granted(function, EventBusName="")}
        assert "events:PutEvents" not in actions

    def test_is_assumed_by_lambda_alone(self, function: str) -> None:
        properties = template()["Resources"][role_of(function)]["Properties"]
        assert properties.keys() == {"AssumeRolePolicyDocument", "ManagedPolicyArns", "Policies"}
        assert properties["AssumeRolePolicyDocument"]["Statement"] == [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ]

    def test_fits_the_quotas_of_iam(self, function: str) -> None:
        *attached, inline = policies_of(function)
        assert inline.keys() == {"PolicyName", "PolicyDocument"}
        assert len(attached) <= 10
        for policy in attached:
            assert len(json.dumps(policy["PolicyDocument"])) <= 6144


def test_custom_handlers_run_in_the_functions_that_apply_events() -> None:
    applying = {f for f in FUNCTIONS if "ApplyEventsPolicy" in deployment().attached(f)}
    assert applying == set(RUN_HANDLERS)


def test_every_policy_is_attached_by_a_role() -> None:
    """A policy could also attach itself: to roles, users and groups that it names."""
    kinds = {resource["Type"] for resource in template()["Resources"].values()}
    assert {kind for kind in kinds if kind.startswith("AWS::IAM::")} == {
        "AWS::IAM::ManagedPolicy",
        "AWS::IAM::Role",
    }
    roles = {role_of(function) for function in FUNCTIONS}
    assert of_type("AWS::IAM::Role").keys() == roles | {"WalkMachineRole", "VerifyRuleRole"}
    attached = [policy for function in FUNCTIONS for policy in policies_of(function)[:-1]]
    for policy in of_type("AWS::IAM::ManagedPolicy").values():
        assert policy["Properties"].keys() == {"PolicyDocument"}
        assert attached.count(policy["Properties"]) > 1


class TestEventBridge:
    PARAMETERS: ClassVar = {
        "WebhookIngress": "eventbridge",
        "StripeEventSource": "aws.partner/stripe.com/ed_1",
    }

    def test_grants_what_is_used_and_nothing_else(self, stage: Stage) -> None:
        source = self.PARAMETERS["StripeEventSource"]
        stage.configure(
            webhook_ingress=WebhookIngress.EVENTBRIDGE,
            event_source=source,
            webhook_secret_name=None,
        )
        customer = {"email": EMAIL, "metadata": {TOKEN_KEY: "other/1"}}
        stripe_id = stage.request("POST", "/v1/customers", customer)["id"]
        event = event_bridge_event(stage.payload("customer.created"), source)
        stage.invoke(link_customer_function, event)
        Pointer.to(Owner("u-1", stripe_id)).save()
        stage.invoke(link_customer_function, event)

        # Lambda sends the events of failed invocations to the queue.
        queue = f"arn:aws:sqs:eu-west-1:123456789012:{UNDELIVERED_EVENTS}"
        used = stage.used["link_customer"] | used_by_aws("link_customer")
        used.add(Grant("sqs:SendMessage", queue))
        assert used == granted("link_customer", **self.PARAMETERS)

    def test_uses_a_kms_key_through_the_services_that_need_it(self) -> None:
        usual = deployment(**self.PARAMETERS).role("link_customer").statements
        with_key = deployment(**self.PARAMETERS, KmsKeyArn=KEY).role("link_customer").statements
        added = [statement for statement in with_key if statement not in usual]
        via = [(s.actions, s.conditions["StringEquals"]["kms:ViaService"]) for s in added]
        assert via == [
            (("kms:Decrypt",), "dynamodb.eu-west-1.amazonaws.com"),
            (("kms:Decrypt", "kms:GenerateDataKey"), "sqs.eu-west-1.amazonaws.com"),
        ]


class TestExistingCustomers:
    def test_grants_what_is_used_and_nothing_else(self, stage: Stage) -> None:
        stage.configure(existing_customers=ExistingCustomers.CHECK)
        SCENARIOS["create_customer"](stage)  # two users have the same e-mail
        used = stage.used["create_customer"] | used_by_aws("create_customer")
        assert used == granted("create_customer", ExistingCustomers="check")


class TestRefusal:
    def test_function_that_needs_more_than_its_role_fails(self, stage: Stage) -> None:
        stage.deployment = Deployment()
        with pytest.raises(RoleTooNarrowError, match=r"apply_event may not.*events:PutEvents"):
            apply_event(stage)

    def test_transaction_needs_a_statement_for_all_its_keys(self) -> None:
        written = {"TableName": "customers", "Key": {"pk": {"S": "USER#u-1"}}}
        checked = {"TableName": "customers", "Key": {"pk": {"S": "EVENT#evt_1"}}}
        body = {"TransactItems": [{"Delete": written}, {"ConditionCheck": checked}]}
        conditions = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["USER#*"]}}

        asked = needs("dynamodb", "TransactWriteItems", body)

        actions = {need.action for need in asked}
        assert actions == {"dynamodb:DeleteItem", "dynamodb:ConditionCheckItem"}
        for need in asked:
            assert not Statement((need.action,), (TABLE,), conditions).allows(need)
            assert Statement((need.action,), (TABLE,), {}).allows(need)


class TestPartitionKeys:
    @pytest.mark.parametrize("function", BEHIND_THE_API)
    def test_api_reaches_no_event(self, function: str) -> None:
        assert scopes(function) <= {"USER#*", "UNASSIGNED#*", "STRIPE#*", "DEPLOYMENT"}

    def test_webhook_reaches_no_user(self) -> None:
        assert scopes("link_customer") == {"STRIPE#*", "EVENT#*", "DEPLOYMENT"}

    def test_scan_reads_no_personal_data(self) -> None:
        role = deployment().role("replay_events")
        asked = {"dynamodb:Attributes": frozenset({"pk"})}
        some = {**asked, "dynamodb:Select": frozenset({"SPECIFIC_ATTRIBUTES"})}
        assert role.allows(Need("dynamodb:Scan", TABLE, some))
        for context in (
            {**asked, "dynamodb:Select": frozenset({"ALL_ATTRIBUTES"})},
            {**some, "dynamodb:Attributes": frozenset({"pk", "email"})},
        ):
            assert not role.allows(Need("dynamodb:Scan", TABLE, context))


def scopes(function: str) -> set[str | None]:
    """The partition keys of the table that a function reaches."""
    return {grant.scope for grant in granted(function) if grant.resource == TABLE}
