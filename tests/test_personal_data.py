"""Logs, metrics, messages and errors have ids, and nothing personal or secret.

Every personal field and every key holds a mark. Each story is played once to record the calls that
it makes; then once more for each of these calls and each way in which it can fail, with errors that
quote the request. All output is searched for the marks.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from moto.core.models import botocore_stubber

import functions.adopt_customer.app as adopt_customer
import functions.create_customer.app as create_customer
import functions.get_customer.app as get_customer
import functions.link_customer.app as link_customer
import functions.soft_delete_customer.app as soft_delete_customer
import functions.sync_customer.app as sync_customer
import functions.update_customer.app as update_customer
from local.stripe_double.webhooks import sign
from stripe_integrations import observability
from stripe_integrations.actions.customers.snapshot import CustomerSnapshot
from stripe_integrations.actions.events.event_types import applied_event_types
from stripe_integrations.config import Authorizer, ExistingCustomers, UnassignedCustomers
from stripe_integrations.context import use
from stripe_integrations.entrypoints.http import Request, Response
from stripe_integrations.entrypoints.serialization import customer_to_json
from stripe_integrations.errors import StripeError, UnprocessableEventError
from stripe_integrations.models import Customer, CustomerClaim, Event
from stripe_integrations.models.event import MAX_ATTEMPTS
from stripe_integrations.models.table import Record
from stripe_integrations.observability import Metric, logger
from tests.marked import customer_fields, mark, marks_in, user_id
from tests.marked_world import SECRET, Output, inhabited
from tests.outside import WAYS, FailingWorld, Plan
from tools.lambda_events import api_event
from tools.template import ROOT, of_type, template

Json = dict[str, Any]
Story = Callable[[FailingWorld], Any]

_PER_OPERATION = 2
"""How many calls of one operation fail, one at a time, in one story."""

ANN, NEW = user_id("ann"), user_id("new")
CLAIMS = {
    "sub": user_id("another user"),
    "email": f"{mark('e-mail in the token')}@example.com",
    "name": mark("name in the token"),
}
TOKEN = f"Bearer {mark('token')}"


def custom_handler(event: Event, customer: Customer | None) -> None:
    """A custom handler whose errors quote personal data, except in the text that is stored."""
    error = ValueError(f"{mark('message of a custom handler')} {event.webhook_message} {customer}")
    if event.kind == "invoice.voided":
        raise UnprocessableEventError("of no subscription") from error
    raise error


# ---- the stories


def call(world: FailingWorld, function: Any, *event: Any, **more: Any) -> Json:
    made = api_event(*event, headers={"Authorization": TOKEN, "X-Odd": mark("header")}, **more)
    return world.call(function, made)


def create(world: FailingWorld, **fields: Any) -> Json:
    return world.create(NEW, **{**customer_fields("new"), **fields})


def create_for_user_with_customer(world: FailingWorld) -> None:
    world.create(ANN, **customer_fields("new"))


def create_after_a_crash(world: FailingWorld) -> None:
    leave_a_claim(world)
    world.time += 60
    create(world)


def create_after_a_day(world: FailingWorld) -> None:
    leave_a_claim(world)
    world.time += 100_000
    create(world)


def create_beside_existing(world: FailingWorld) -> None:
    world.configure(existing_customers=ExistingCustomers.CHECK)
    world.request("POST", "/v1/customers", {"email": customer_fields("new")["billing_email"]})
    create(world)
    create(world, allow_existing=True)
    world.configure(existing_customers=ExistingCustomers.IGNORE)


def get(world: FailingWorld) -> None:
    world.get(ANN)


def sync(world: FailingWorld) -> None:
    world.sync(ANN)


def update(world: FailingWorld) -> None:
    key = {"Idempotency-Key": mark("idempotency key")}
    world.update(ANN, key, **customer_fields("new"))
    world.update(ANN, key, name=mark("later name"))


def update_source(world: FailingWorld) -> None:
    world.update(ANN, metadata=None, default_source="tok_visa")


def soft_delete(world: FailingWorld) -> None:
    world.delete(ANN)


def adopt(world: FailingWorld) -> None:
    fields = customer_fields("new")
    existing = {"email": fields["billing_email"], "name": fields["name"]}
    world.adopt(world.request("POST", "/v1/customers", existing)["id"], NEW)


def leave_a_claim(world: FailingWorld) -> None:
    fields = customer_fields("new")
    stripe = {"email": fields["billing_email"], "name": fields["name"]}
    CustomerClaim.acquire(NEW, {"stripe": stripe, "local": {}})


def create_with_invalid_fields(world: FailingWorld) -> None:
    secret = mark("text of a body")
    for body in (None, secret, f'["{secret}"]', f'{{"{secret}": "{secret}"}}', secret * 9000):
        call(world, create_customer, "POST", "/customers", body=body)
    for name, value in (
        ("billing_email", secret),
        ("currency", [secret]),
        ("default_source", secret),
        ("invoice_prefix", secret),
        ("metadata", {secret: {secret: secret}}),
        ("metadata", {"k" * 41: secret}),
        ("preferred_locales", secret),
        ("tax_exempt", secret),
        (secret, secret),
    ):
        create(world, **{name: value})
        world.update(ANN, None, **{name: value})
    world.update(ANN, {"Idempotency-Key": f"{secret}é"}, name=secret)


def call_with_token(world: FailingWorld) -> None:
    """Of another user, and of the user's own with a field that only the backend may set."""
    path = f"/customers/{ANN}"
    context = world.new_context()
    context.settings = replace(world.settings, api_authorizer=Authorizer.JWT)
    with use(context):
        for claims in (CLAIMS, {**CLAIMS, "sub": ""}, {**CLAIMS, "sub": ANN}):
            body = json.dumps({"user_id": ANN, **customer_fields("new"), mark("field"): 1})
            call(world, create_customer, "POST", "/customers", body=body, claims=claims)
        for claims in (CLAIMS, {**CLAIMS, "sub": ""}):
            call(world, get_customer, "GET", path, ANN, claims=claims)
            call(world, update_customer, "PATCH", path, ANN, body=body, claims=claims)
            call(world, sync_customer, "POST", f"{path}/sync", ANN, claims=claims)
            call(world, soft_delete_customer, "DELETE", path, ANN, claims=claims)
            call(world, adopt_customer, "PUT", path, ANN, body=body, claims=claims)
            call(world, create_customer, "POST", "/me", body=body, claims=claims)
            call(world, get_customer, "GET", "/me", query=f"user_id={ANN}", claims=claims)
            call(world, update_customer, "PATCH", "/me", body=body, claims=claims)
            call(world, sync_customer, "POST", "/me/sync", body=body, claims=claims)


def call_for_unknown_user(world: FailingWorld) -> None:
    for operation in (world.get, world.update, world.sync, world.delete):
        operation(NEW)
        operation(NEW * 40)


def webhooks_of_every_kind(world: FailingWorld) -> None:
    for payload in payloads(world):
        post(world, payload)
        post(world, {**payload, "id": f"{payload['id']}_live", "livemode": True})
        post(world, {**payload, "id": f"{payload['id']}_other", "account": "acct_1"})


def a_webhook(world: FailingWorld) -> None:
    post(world, next(payloads(world)))


def refused_webhooks(world: FailingWorld) -> None:
    payload = next(payloads(world))
    body = json.dumps(payload).encode()
    header = sign(body, SECRET, world.time)
    secret = mark("text of a webhook")
    for sent, named in (
        (body, f"t=1,v1={secret}"),
        (body, f"{secret},{header}"),
        (body, sign(body, f"whsec_{secret}", world.time)),
        (body, sign(body, SECRET, world.time - 1000)),
        (body[:-1], header),
        (b"\xff" + body, header),
    ):
        world.webhook(sent, {"Stripe-Signature": named})
    for odd in (secret, [secret], {"id": secret, "type": secret}, {"id": {secret: secret}}):
        post(world, odd)
    call(world, link_customer, "POST", "/", body=body.decode())


def apply_every_kind(world: FailingWorld) -> None:
    webhooks_of_every_kind(world)
    world.stream()


def apply_ambiguous_event(world: FailingWorld) -> None:
    apply(world, receive(world, "customer.updated"))


def apply_newer_event(world: FailingWorld) -> None:
    world.time += 100
    apply(world, receive(world, "payment_method.updated"))


def apply_a_deletion(world: FailingWorld) -> None:
    apply(world, receive(world, "customer.deleted"))


def apply_interrupted_creation(world: FailingWorld) -> None:
    world.stripe.faults.time_out(None, match="POST /v1/customers")
    create(world)
    world.stripe.faults.clear()
    world.deliver()
    apply(world, world.payload("customer.created")["id"])


def apply_exhausted_event(world: FailingWorld) -> None:
    stripe_id = receive(world, "invoice.paid")
    apply(world, stripe_id)
    Event(Event.key(stripe_id), Event.SORT_KEY).update([Event.attempts.set(MAX_ATTEMPTS)])
    world.time += 200
    apply(world, stripe_id)


def apply_unprocessable_event(world: FailingWorld) -> None:
    apply(world, receive(world, "invoice.voided"))


def process_stream_of_new_customer(world: FailingWorld) -> None:
    world.stream((f"USER#{ANN}", f"CUSTOMER#{stripe_id_of_ann(world)}"))


def store_and_adopt_unassigned(world: FailingWorld) -> None:
    customer = {"email": f"{mark('e-mail of new')}@example.com", "name": mark("name of new")}
    stripe_id = world.request("POST", "/v1/customers", customer)["id"]
    world.deliver_and_apply()
    world.attach_card(stripe_id)
    world.deliver_and_apply()
    world.adopt(stripe_id, "new")


def reconcile(world: FailingWorld) -> None:
    world.stripe.webhooks.drop_next(2)
    world.request("POST", f"/v1/customers/{stripe_id_of_ann(world)}", {"name": mark("later name")})
    world.time += 700
    world.reconcile()


def replay_one(world: FailingWorld) -> None:
    world.replay({"event_id": receive(world, "customer.updated")})


def replay_failed_events(world: FailingWorld) -> None:
    stripe_id = receive(world, "payment_method.updated")
    Event(Event.key(stripe_id), Event.SORT_KEY, stripe_id=stripe_id, attempts=1).fail("no reason")
    world.replay({"failed": True})


def replay_a_range(world: FailingWorld) -> None:
    world.time += 100
    receive(world, "customer.source.updated")
    world.replay({"created_from": int(world.time), "created_to": int(world.time)})


def invoke_with_invalid_events(world: FailingWorld) -> None:
    secret = mark("text of a call by hand")
    for event in (
        {secret: secret},
        {"event_id": [secret]},
        {"created_from": 1, "created_to": 2, "resume_from": {secret: {secret: secret}}},
        {"created_from": 1, "created_to": 2, "resume_from": {"pk": {"S": secret}}},
        {"created_from": secret, "resume_from": [secret]},
    ):
        world.replay(event)
        world.erase(event)
        world.erase({"user_id": event})
        world.erase({"stripe_id": secret, "delete_on_stripe": event})
        world.walk({"action": "start", "run_id": "first", **event})
        world.walk({"action": secret, "run_id": secret, "worker": [secret]})
        world.walk({"action": "status", "run_id": {secret: secret}})
        world.walk({"action": "start", "run_id": "first", "options": {secret: secret}})
        world.walk({"action": "start", "run_id": "first", "options": {"payment_methods": secret}})
        world.apply_events(event)
        world.apply_events(
            {"Records": [event, secret, {"dynamodb": {"Keys": {"pk": {secret: secret}}}}]}
        )


def rebuild(world: FailingWorld) -> None:
    for record in world.items(user_id=ANN):
        key = {name: {"S": record[name]} for name in ("pk", "sk")}
        world.database.request("DeleteItem", {"TableName": "customers", "Key": key})
    world.time += 60
    run = {"run_id": "rebuild", "worker": "1", "options": {"kind": "rebuild"}}
    for action in ("start", "work", "status"):
        world.walk({"action": action, **run})


def erase(world: FailingWorld) -> None:
    world.erase({"user_id": ANN})
    world.time += 1000
    world.reconcile()


def walk(world: FailingWorld) -> None:
    world.reconcile()
    world.time += 3600
    for action in ("start", "work", "status", "stop", "resume", "finish"):
        world.walk({"action": action, "run_id": "first", "worker": "first-1"})


STORIES: list[Story] = [
    create,
    create_for_user_with_customer,
    create_after_a_crash,
    create_after_a_day,
    create_beside_existing,
    get,
    sync,
    update,
    update_source,
    soft_delete,
    adopt,
    a_webhook,
    apply_ambiguous_event,
    apply_newer_event,
    apply_a_deletion,
    apply_interrupted_creation,
    apply_exhausted_event,
    apply_unprocessable_event,
    process_stream_of_new_customer,
    store_and_adopt_unassigned,
    reconcile,
    replay_one,
    replay_failed_events,
    replay_a_range,
    rebuild,
    erase,
    walk,
]
_COVERED_ELSEWHERE: dict[Story, tuple[str, ...]] = {
    replay_failed_events: ("stripe",),
    replay_a_range: ("stripe",),
    apply_exhausted_event: ("events", "secretsmanager"),
}
"""Services that fail in these stories just as in another one."""
UNDISTURBED: list[Story] = [
    create_with_invalid_fields,
    call_with_token,
    call_for_unknown_user,
    webhooks_of_every_kind,
    refused_webhooks,
    apply_every_kind,
    invoke_with_invalid_events,
]
"""Stories that are played without failures only: they end in refusals by themselves."""


def payloads(world: FailingWorld) -> Iterator[Json]:
    """An event of every type that is applied, about Ann's objects on Stripe, and of two others."""
    account = world.stripe.account
    customer = stripe_id_of_ann(world)
    (source,) = account.payment_sources[customer].values()
    (method,) = (m for m in account.payment_methods.values() if m["customer"] == customer)
    (subscription,) = account.subscriptions.values()
    session = {"id": "cs_1", "object": "checkout.session", "customer": customer}
    subjects = {
        "checkout.": {**session, "customer_details": {"name": mark("name at the checkout")}},
        "customer.source.": source,
        "customer.subscription.": world.stripe.subscriptions.render(subscription["id"]),
        "payment_method.": method,
        "customer.": account.customers[customer],
        "invoice.": {"id": "in_1", "object": "invoice", "customer": customer, "customer_name": "x"},
    }
    for number, kind in enumerate((*applied_event_types(), "invoice.paid", "invoice.voided")):
        subject = next(value for family, value in subjects.items() if kind.startswith(family))
        yield {
            "id": f"evt_{number}",
            "object": "event",
            "api_version": account.api_version,
            "created": int(world.time),
            "data": {
                "object": subject,
                "previous_attributes": {"name": mark("former name"), "customer": customer},
            },
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": mark("idempotency key of a request")},
            "type": kind,
        }


def receive(world: FailingWorld, kind: str) -> str:
    (payload,) = (payload for payload in payloads(world) if payload["type"] == kind)
    post(world, payload)
    return str(payload["id"])


def apply(world: FailingWorld, stripe_id: str) -> None:
    world.stream((Event.key(stripe_id), Event.SORT_KEY))


def post(world: FailingWorld, payload: Any) -> None:
    body = json.dumps(payload).encode()
    header = sign(body, SECRET, world.time)
    world.signatures.append(header.rpartition("=")[2])
    world.webhook(body, {"Stripe-Signature": header, "X-Odd": mark("header")})


def stripe_id_of_ann(world: FailingWorld) -> str:
    return next(
        stripe_id
        for stripe_id, customer in world.stripe.account.customers.items()
        if customer["metadata"].get("stripe_integrations_user_id") == ANN
    )


# ---- the search


class Search:
    """A world with a customer, and the search of the output of a story played in it."""

    def __init__(self, world: FailingWorld, output: Output) -> None:
        self.world = world
        self.output = output
        self.statuses: Counter[int] = Counter()
        with output.captured():
            world.furnish("ann")
            world.deliver_and_apply()
        assert not self.found()
        self._ready = world.saved()

    def play(self, story: Story, plan: Plan | None = None) -> tuple[list[str], list[str]]:
        """Play a story; the calls that it made, and the marks in its output."""
        self._ready.restore()
        self.world.begin(plan or Plan())
        with use(self.world.context), self.output.captured():
            story(self.world)
        return self.world.outside.calls, sorted(self.found())

    def found(self) -> set[str]:
        """The marks in all output that must have none."""
        world = self.world
        text = self.output.taken() + json.dumps(world.dead_letters)
        found = set(marks_in(text))
        found |= {"signature" for signature in world.signatures if signature[:8] in text}
        world.signatures.clear()
        for entry in world.published:
            # Subscribers get the user id: they need it.
            found |= {m for m in marks_in(json.dumps(entry)) if not m.startswith("user id of")}
        for response in world.responses:
            found |= set(self._in_response(response))
        world.responses.clear()
        return found

    def _in_response(self, response: Json) -> list[str]:
        """The marks that a response must not have: a customer's own may be in its response."""
        if "statusCode" not in response:
            return marks_in(json.dumps(response))
        status = response["statusCode"]
        self.statuses[status] += 1
        if status < 400:
            own = (" of ann", " of new", "later name", "former name")
            return [m for m in marks_in(json.dumps(response)) if not m.endswith(own)]
        problem = json.loads(response["body"])
        # The names of the refused fields come from the caller.
        problem.pop("field", None)
        for error in problem.get("errors", []):
            problem["detail"] = problem["detail"].replace(error.pop("field"), "")
        return marks_in(json.dumps([problem, response["headers"]]))


@pytest.fixture(scope="module")
def search(aws: None) -> Iterator[Search]:
    output = Output()
    world = FailingWorld(
        output,
        event_handlers={"invoice.*": f"{__name__}:custom_handler"},
        unassigned_customers=UnassignedCustomers.STORE,
    )
    with ExitStack() as stack:
        # moto would handle every call too, in vain.
        stack.enter_context(mock.patch.object(botocore_stubber, "enabled", False))
        stack.enter_context(inhabited(world))
        stack.enter_context(world.reachable())
        yield Search(world, output)


# ---- the promises


@pytest.mark.parametrize("story", STORIES + UNDISTURBED, ids=lambda story: story.__name__)
def test_logs_nothing_personal(search: Search, story: Story) -> None:
    _, found = search.play(story)
    assert found == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_failures_log_nothing_personal(search: Search, story: Story) -> None:
    calls, _ = search.play(story)
    leaks = []
    for number, call in enumerate(calls):
        service = call.partition(" ")[0]
        if calls[:number].count(call) >= _PER_OPERATION or service in _COVERED_ELSEWHERE.get(
            story, ()
        ):
            continue
        for way in WAYS[service]:
            _, found = search.play(story, Plan(number, way))
            leaks += [f"{call}, {way.name}: {place}" for place in found]
    assert leaks == []


def test_stories_cover_functions_and_failures(search: Search) -> None:
    search.statuses.clear()
    world = search.world
    world.used.clear()
    asked: set[str] = set()
    reached: set[str] = set()
    for story in STORIES + UNDISTURBED:
        calls, _ = search.play(story)
        asked |= {call.partition(" ")[0] for call in calls}
        reached |= {event["kind"] for event in world.items(record_type="Event")}
    assert {name for name, used in world.used.items() if used} == {
        path.parent.name for path in ROOT.glob("functions/*/app.py")
    }
    assert asked == set(WAYS)
    assert set(applied_event_types()) <= reached
    assert {200, 201, 204, 400, 403, 404, 409, 413, 422, 503} <= set(search.statuses)


def test_representations_have_ids_and_states_only(search: Search) -> None:
    search.play(leave_a_claim)
    world = search.world
    records = [Record.from_raw_data(image) for image in world.images()]
    kinds = {type(record).__name__ for record in records}
    assert kinds >= {"Customer", "Card", "Subscription", "CustomerClaim", "Pointer", "Event"}
    assert not [mark for mark in marks_in(repr(records)) if not mark.startswith("user id of")]
    (customer,) = (record for record in records if isinstance(record, Customer))
    assert repr(customer) == f"Customer('USER#{ANN}', '{customer.sk}', is_active=True)"

    stripe_customer = world.stripe.account.customers[customer.stripe_id]
    event = api_event("GET", "/", headers={"Authorization": TOKEN}, claims=CLAIMS)
    others = [
        world.context,
        CustomerSnapshot.from_fetch(stripe_customer),
        Request(event),
        Response(200, customer_to_json(customer)),
    ]
    for other in others:
        assert marks_in(repr(other)) == []


# ---- settings


def test_access_log_has_route_and_no_path() -> None:
    (settings,) = (
        resource["Properties"]["AccessLogSettings"]
        for resource in template()["Resources"].values()
        if "AccessLogSettings" in resource["Properties"]
    )
    logged = re.findall(r"\$context\.([\w.]+)", settings["Format"])
    assert "routeKey" in logged
    personal = ("path", "authorizer.", "identity.sourceIp", "identity.userAgent", "customDomain")
    assert not [name for name in logged if name.startswith(personal)]


def test_log_format_is_text() -> None:
    """With the format JSON, Lambda passes the logs of libraries from INFO on."""
    functions = of_type("AWS::Serverless::Function").values()
    for function in [*functions, template()["Globals"]["Function"]]:
        logging_config = function.get("Properties", function).get("LoggingConfig", {})
        assert logging_config.get("LogFormat", "Text") == "Text"
        assert not {"ApplicationLogLevel", "SystemLogLevel"} & set(logging_config)


def test_settings_let_no_library_log() -> None:
    """Not at DEBUG either, which a deployment may set."""
    environment = template()["Globals"]["Function"]["Environment"]["Variables"]
    unsafe = ("POWERTOOLS_LOGGER_LOG_EVENT", "POWERTOOLS_DEV", "POWERTOOLS_DEBUG", "STRIPE_LOG")
    assert not set(unsafe) & set(environment)
    given = {name: value for name, value in environment.items() if isinstance(value, str)}
    loggers = ("", "boto3", "botocore", "pynamodb", "requests", "stripe", "urllib3")
    code = (
        "import logging, boto3, stripe, functions.create_customer.app\n"
        "from stripe_integrations.observability import logger\n"
        "assert logger.log_level == logging.DEBUG\n"
        f"levels = [logging.getLogger(name).getEffectiveLevel() for name in {loggers}]\n"
        "assert levels == [logging.WARNING] * len(levels), levels\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=ROOT,
        env={**os.environ, **given, "POWERTOOLS_LOG_LEVEL": "DEBUG"},
    )


# ---- the search itself


def raising(error: Callable[[], BaseException]) -> Story:
    def handler(*_: Any) -> None:
        raise error()

    function = ModuleType("functions.get_customer.app")
    function.__dict__["handler"] = handler
    return lambda world: world.invoke(function, {})


def chained() -> BaseException:
    error = StripeError("no value")
    error.__cause__ = ValueError(mark("planted"))
    return error


def measured(world: FailingWorld) -> None:
    observability.measure(Metric.CUSTOMERS_CREATED, 1)
    observability.add_fields(planted=mark("planted"))
    observability.print_line("planted")


def returning(status: int, body: Json) -> Story:
    response = {"statusCode": status, "headers": {}, "body": json.dumps(body)}
    return lambda world: world.responses.append(response)


@pytest.mark.parametrize(
    "channel",
    [
        lambda _: sys.stderr.write(mark("planted")),
        lambda _: logger.debug("planted", extra={"a": {"b": mark("planted")}}),
        lambda _: logging.getLogger("botocore.endpoint").warning("%s", mark("planted")),
        measured,
        lambda world: world.dead_letters.append({"MessageBody": mark("planted")}),
        lambda world: world.published.append({"Entries": [{"Detail": mark("planted")}]}),
        raising(lambda: StripeError(mark("planted"))),
        raising(chained),
        returning(400, {"detail": mark("planted")}),
        returning(200, {"name": mark("planted")}),
    ],
)
def test_search_finds_mark_in_channel(search: Search, channel: Story) -> None:
    _, found = search.play(channel)
    assert found == ["planted"]
