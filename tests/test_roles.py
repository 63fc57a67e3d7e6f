"""Each function's role allows what the function does, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import boto3
import pytest

from stripe_integrations import secrets
from stripe_integrations.actions import StripeCustomer, User
from stripe_integrations.context import Context, use
from stripe_integrations.errors import StripeUnavailableError, UnprocessableEventError
from stripe_integrations.models import ActiveCustomer, Customer, Event, Pointer
from stripe_integrations.models.record import Record
from tests.roles import (
    DEAD_LETTERS,
    Deployment,
    Grant,
    Need,
    RoleTooNarrowError,
    Statement,
    needs,
    role_of,
)
from tests.world import WEBHOOK_SECRET, World
from tools.template import ROOT, of_type, template

Json = dict[str, Any]

USER = User("u-1")
EMAIL = "jane@example.com"
BUS = "changes"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/customers"
STORES = ("secretsmanager", "ssm")
SECRETS = {"stripe/api-key": "sk_test_double", "stripe/webhook-secret": WEBHOOK_SECRET}
FUNCTIONS = sorted(path.name for path in (ROOT / "functions").iterdir() if path.is_dir())
BEHIND_THE_API = ("create_customer", "get_customer", "soft_delete_customer", "sync_customer")
REPORTING = ("apply_event", "reconcile_events", "replay_events")


# ---- what is used beside the function's own calls, and by whom


def used_by_aws(function: str) -> set[Grant]:
    """What Lambda does with the role by itself: no call of ours shows it."""
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
        # The event source mapping reads the stream. What it gives up goes to the queue to which
        # the function sends its own dead letters.
        reads = ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
        used |= {Grant(f"dynamodb:{read}", "Table.StreamArn") for read in reads}
    return used


def used_with_a_key(function: str) -> list[tuple[tuple[str, ...], str]]:
    """What is done in the role's name where a key of one's own encrypts table and queue."""
    # DynamoDB opens the table for whoever asks, and the stream for its reader.
    used: list[tuple[tuple[str, ...], str]] = [(("kms:Decrypt",), "dynamodb")]
    if function in REPORTING:
        # SQS makes a data key for a sender, and opens one that it has already.
        used.append((("kms:Decrypt", "kms:GenerateDataKey"), "sqs"))
    return used


# ---- stories, in which each function does all that it ever does


class Stage(World):
    """A deployment with its secrets, queue and bus in their places; each call is a new process."""

    def new_context(self) -> Context:
        secrets._provider(store_of(self)).clear_cache()
        context = super().new_context()
        context.send_dead_letter = context.publish = None
        return context

    def invoke(
        self, function: ModuleType, event: Json, remaining_milliseconds: int = 29_000
    ) -> Json:
        with use(self.new_context()):
            return super().invoke(function, event, remaining_milliseconds)


def refuse(_: Event, __: Customer | None) -> None:
    """A deployment's own handler, of events that can't be processed."""
    raise UnprocessableEventError("not this one")


def store_of(world: World) -> str:
    return str(world.settings.api_key_name).partition(":")[0]


@pytest.fixture(scope="module")
def queue_url(aws: None) -> Iterator[str]:
    """The queue; the bus and the secrets stand beside it."""
    secretsmanager, ssm = map(boto3.client, STORES)
    events, sqs = boto3.client("events"), boto3.client("sqs")
    for name, value in SECRETS.items():
        secretsmanager.create_secret(Name=name, SecretString=value)
        ssm.put_parameter(Name=f"/{name}", Value=value, Type="SecureString")
    events.create_event_bus(Name=BUS)
    url = str(sqs.create_queue(QueueName=DEAD_LETTERS)["QueueUrl"])
    yield url
    sqs.delete_queue(QueueUrl=url)
    events.delete_event_bus(Name=BUS)
    for name in SECRETS:
        ssm.delete_parameter(Name=f"/{name}")
        secretsmanager.delete_secret(SecretId=name, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    """Where the secrets are read; a test may choose."""
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
        event_handlers={"customer.updated": f"{__name__}:refuse"},
    )
    with use(stage.context):
        yield stage


def create_customer(stage: Stage) -> None:
    stripe_id = stage.create()["json"]["stripe_id"]
    stage.create()
    stage.ask("DELETE", f"/v1/customers/{stripe_id}")
    stage.create()
    ActiveCustomer.claim("u-2", {"stripe": {"email": EMAIL}, "local": {}})
    stage.create("u-2")


def get_customer(stage: Stage) -> None:
    stage.get()


def sync_customer(stage: Stage) -> None:
    stripe_id = StripeCustomer.create(USER, EMAIL).stripe_id
    attach_card(stage, stripe_id)
    stage.sync()
    stage.ask("DELETE", f"/v1/customers/{stripe_id}")
    stage.sync()


def soft_delete_customer(stage: Stage) -> None:
    StripeCustomer.create(USER, EMAIL)
    stage.delete()


def link_customer(stage: Stage) -> None:
    stripe_id = stage.ask("POST", "/v1/customers", {"email": EMAIL})["id"]
    (delivery,) = stage.stripe.webhooks.due()
    stage.webhook(delivery.body, delivery.headers)
    Pointer.to(stripe_id, "u-1").save()
    stage.webhook(delivery.body, delivery.headers)


def apply_event(stage: Stage) -> None:
    def bring() -> None:
        stage.deliver()
        stage.stream()

    change_everything(stage, bring)


def reconcile_events(stage: Stage) -> None:
    def bring() -> None:
        for _ in range(2):
            stage.reconcile()
            stage.time += 130

    change_everything(stage, bring)


def replay_events(stage: Stage) -> None:
    def bring() -> None:
        stage.deliver()
        stage.replay({"created_from": 0, "created_to": 2**33})

    change_everything(stage, bring)
    stage.replay({"failed": True})


def rebuild_customers(stage: Stage) -> None:
    customer = StripeCustomer.create(USER, EMAIL)
    backup = stage.images()
    StripeCustomer.soft_delete(customer)
    stage.time += 10
    attach_card(stage, StripeCustomer.create(USER, EMAIL).stripe_id)
    for item in stage.items():
        Record.connection().delete_item(stage.settings.table_name, item["pk"], item["sk"])
    for image in backup:
        Record.connection().client.put_item(TableName=stage.settings.table_name, Item=image)
    stage.rebuild()


STORIES: Mapping[str, Callable[[Stage], None]] = {
    "apply_event": apply_event,
    "create_customer": create_customer,
    "get_customer": get_customer,
    "link_customer": link_customer,
    "rebuild_customers": rebuild_customers,
    "reconcile_events": reconcile_events,
    "replay_events": replay_events,
    "soft_delete_customer": soft_delete_customer,
    "sync_customer": sync_customer,
}


def change_everything(stage: Stage, bring: Callable[[], object]) -> None:
    """Let events of each kind come: of a create that was cut short, a card, a change, the end."""
    stage.stripe.faults.time_out(None, match="POST /v1/customers")
    with pytest.raises(StripeUnavailableError):
        StripeCustomer.create(USER, EMAIL)
    stage.stripe.faults.clear()
    bring()
    (customer,) = stage.stripe_customers()
    attach_card(stage, customer["id"])
    bring()
    stage.ask("POST", f"/v1/customers/{customer['id']}", {"name": "Jane"})
    bring()
    stage.ask("DELETE", f"/v1/customers/{customer['id']}")
    bring()


def attach_card(stage: Stage, stripe_id: str | None) -> None:
    card = {"type": "card", "card": {"token": "tok_visa"}}
    method = stage.ask("POST", "/v1/payment_methods", card)["id"]
    stage.ask("POST", f"/v1/payment_methods/{method}/attach", {"customer": stripe_id})


# ---- enough, and no more


def deployment(source: Json | None = None, **parameters: str) -> Deployment:
    """A stack with a bus."""
    return Deployment(source, **{"EventBusName": BUS, **parameters})


def granted(function: str, source: Json | None = None, **parameters: str) -> set[Grant]:
    """What a function's role gives."""
    role = deployment(source, **parameters).role(function)
    return {grant for statement in role.statements for grant in statement.grants()}


@pytest.mark.parametrize("store", STORES, indirect=True)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_may_do_what_it_does_and_nothing_else(
    function: str, store: str, stage: Stage
) -> None:
    STORIES[function](stage)
    assert stage.used[function] | used_by_aws(function) == granted(function, SecretStore=store)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_key_of_ones_own_is_used_through_the_service_that_needs_it(function: str) -> None:
    usual = deployment().role(function).statements
    with_a_key = deployment(KmsKeyArn=KEY).role(function).statements
    assert [
        (statement.actions, statement.resources, statement.conditions)
        for statement in with_a_key
        if statement not in usual
    ] == [
        (
            actions,
            (KEY,),
            {"StringEquals": {"kms:ViaService": f"{service}.eu-west-1.amazonaws.com"}},
        )
        for actions, service in used_with_a_key(function)
    ]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_deployment_without_a_bus_may_publish_on_none(function: str) -> None:
    assert "events:PutEvents" not in {
        action
        for statement in Deployment().role(function).statements
        for action in statement.actions
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_role_is_for_lambda_alone_and_has_no_more_than_its_one_policy(function: str) -> None:
    properties = template()["Resources"][role_of(function)]["Properties"]
    assert properties.keys() == {"AssumeRolePolicyDocument", "Policies"}
    assert len(properties["Policies"]) == 1
    assert properties["AssumeRolePolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "lambda.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ]


def test_nothing_is_added_to_a_role_from_elsewhere() -> None:
    roles = of_type("AWS::IAM::Role").keys()
    assert roles == {role_of(function) for function in FUNCTIONS}
    kinds = {resource["Type"] for resource in template()["Resources"].values()}
    assert {kind for kind in kinds if kind.startswith("AWS::IAM::")} == {"AWS::IAM::Role"}


# ---- what the partition keys keep apart


def scopes(function: str) -> set[str | None]:
    """The keys of the table that a function comes near."""
    return {grant.scope for grant in granted(function) if grant.resource == TABLE}


@pytest.mark.parametrize("function", BEHIND_THE_API)
def test_a_function_behind_the_api_comes_near_no_event(function: str) -> None:
    assert scopes(function) <= {"USER#*", "STRIPE#*"}


def test_the_webhook_comes_near_no_user() -> None:
    assert scopes("link_customer") == {"STRIPE#*", "EVENT#*"}


def test_a_transaction_needs_a_statement_for_all_its_keys() -> None:
    written = {"TableName": "customers", "Key": {"pk": {"S": "USER#u-1"}}}
    checked = {"TableName": "customers", "Key": {"pk": {"S": "EVENT#evt_1"}}}
    body = {"TransactItems": [{"Delete": written}, {"ConditionCheck": checked}]}
    conditions = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["USER#*"]}}

    asked = needs("dynamodb", "TransactWriteItems", body)

    assert {need.action for need in asked} == {"dynamodb:DeleteItem", "dynamodb:ConditionCheckItem"}
    for need in asked:
        assert not Statement("Users", (need.action,), (TABLE,), conditions).allows(need)
        assert Statement("All", (need.action,), (TABLE,), {}).allows(need)


def test_a_range_of_time_is_looked_through_without_personal_data() -> None:
    role = deployment().role("replay_events")
    asked = {"dynamodb:Attributes": frozenset({"pk"})}
    some = {**asked, "dynamodb:Select": frozenset({"SPECIFIC_ATTRIBUTES"})}
    assert role.allows(Need("dynamodb:Scan", TABLE, some))
    for context in (
        {**asked, "dynamodb:Select": frozenset({"ALL_ATTRIBUTES"})},
        {**some, "dynamodb:Attributes": frozenset({"pk", "email"})},
    ):
        assert not role.allows(Need("dynamodb:Scan", TABLE, context))


# ---- the tests above see what is wrong: on copies of the template


def altered(function: str, sid: str, actions: object) -> Json:
    """The template, with other actions in one statement of a function's role."""
    whole = template()
    role = copy.deepcopy(whole["Resources"][role_of(function)])
    (policy,) = role["Properties"]["Policies"]
    given = [s.get("If", [None, s])[1] for s in policy["PolicyDocument"]["Statement"]]
    (statement,) = [s for s in given if s["Sid"] == sid]
    statement["Action"] = actions
    return {**whole, "Resources": {**whole["Resources"], role_of(function): role}}


STATEMENTS = [
    (function, statement)
    for function in FUNCTIONS
    for statement in deployment().role(function).statements
]
SHOWN = [(f, statement) for f, statement in STATEMENTS if not statement.grants() <= used_by_aws(f)]


def each(statements: list[tuple[str, Statement]]) -> pytest.MarkDecorator:
    ids = [f"{function}-{statement.sid}" for function, statement in statements]
    return pytest.mark.parametrize(("function", "statement"), statements, ids=ids)


ACTIONS = {action for _, statement in STATEMENTS for action in statement.actions}
_told: dict[str, set[Grant]] = {}


@pytest.fixture
def used(function: str, request: pytest.FixtureRequest) -> set[Grant]:
    """What a role is used for, by the function in its story and by AWS; a story is told once."""
    if function not in _told:
        stage = request.getfixturevalue("stage")
        STORIES[function](stage)
        _told[function] = stage.used[function] | used_by_aws(function)
    return _told[function]


@each(STATEMENTS)
def test_an_action_that_a_role_gains_is_seen(
    function: str, statement: Statement, used: set[Grant]
) -> None:
    for action in ACTIONS | {"dynamodb:BatchWriteItem", "sqs:PurgeQueue"}:
        source = altered(function, statement.sid, [*statement.actions, action])
        is_had_already = granted(function, source) == granted(function)
        assert is_had_already or granted(function, source) > used


@each(STATEMENTS)
def test_an_action_that_a_role_loses_is_seen(
    function: str, statement: Statement, used: set[Grant]
) -> None:
    for action in statement.actions:
        rest = [other for other in statement.actions if other != action]
        assert granted(function, altered(function, statement.sid, rest)) < used


@each(SHOWN)
def test_a_function_whose_role_lacks_what_it_needs_is_refused(
    function: str, statement: Statement, stage: Stage
) -> None:
    stage.deployment = deployment(altered(function, statement.sid, []))
    with pytest.raises(RoleTooNarrowError, match=function):
        STORIES[function](stage)
