"""``doctor``: checks that a stack, its secrets and its webhook fit together."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from stripe_integrations.actions import StripeEvent
from stripe_integrations.config import API_VERSION, SIGNING_SECRET
from stripe_integrations_cli.api import http_event
from stripe_integrations_cli.errors import ExitCode
from stripe_integrations_cli.secret_store import SecretStore
from stripe_integrations_cli.session import Session, explained
from stripe_integrations_cli.stack import Deployment, Stack
from stripe_integrations_cli.stripe_account import (
    KEY_VARIABLE,
    client_with_key,
    is_key_of_mode,
)
from stripe_integrations_cli.webhook import (
    current,
    endpoint_row,
    endpoints_of,
    needed_types,
    several,
)

REFUSED_SIGNATURE = "link_customer refuses the stored secret, or its clock differs"
INDEXES = {"by_customer", "by_created", "by_queue"}
_CLOCK_SECONDS = 60
"""Stripe's signatures are valid for five minutes; a clock that differs by one is wrong."""
_DELIVERY_SECONDS = 20
"""A delivery that takes longer has failed."""
_DELIVERIES_SECONDS = 24 * 3600
"""How far back deliveries are looked at."""
_DELIVERIES = 1000
"""How many undelivered events are looked up in the table, at most."""
_TYPES = 20
"""How many types Stripe's list of events takes."""
_FIRST_RUN_SECONDS = 900
"""How long the schedule of a new stack may take to run once."""
_MESSAGES = "ApproximateNumberOfMessages"
_NO_CUSTOMER = "cus_stripe_customers_doctor"
"""No customer has this id: an update of it shows whether the key may write, and writes nothing."""


@dataclass(frozen=True)
class Finding:
    """A finding of a check.

    Parameters
    ----------
    check : str
        What was checked.
    result : str
        ``ok``, ``problem``, or ``skipped``.
    found, to_do : str
        What was found, and what to do about it.
    """

    COLUMNS = ("check", "result", "found", "to_do")

    check: str
    result: str
    found: str
    to_do: str = ""


Findings = Iterator[Finding]


def doctor(
    session: Session,
    *,
    all_checks: Annotated[bool, typer.Option("--all", help="Print what is in order too.")] = False,
) -> None:
    """Check a stack: secrets, table, webhook, clock, failed events, dead letters, alarms.

    It checks the key's permissions, the stream and the schedule too, and changes nothing. With a
    secret key in STRIPE_API_KEY, it also checks the endpoint at Stripe, its deliveries, and that
    the stored key is of the same account. It exits with 1 if it finds a problem.
    """
    report(session, check_stack(session.stack, os.environ.get(KEY_VARIABLE)), all_checks=all_checks)


def report(session: Session, findings: Findings, *, all_checks: bool = False) -> None:
    """Print what was found, and how many problems; end the command if there is any.

    Parameters
    ----------
    session : Session
        The call of the command.
    findings : iterator of Finding
        What was found.
    all_checks : bool
        Whether to print what is in order too.
    """
    found = list(findings)
    shown = [each for each in found if all_checks or each.result != "ok"]
    session.output.rows(Finding.COLUMNS, map(asdict, shown))
    problems = sum(each.result == "problem" for each in found)
    done = sum(each.result != "skipped" for each in found)
    session.output.say(f"{done} checks, {problems} problems")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def check_stack(stack: Stack, secret_key: str | None) -> Findings:
    """Run every check on a stack.

    Parameters
    ----------
    stack : Stack
        The stack.
    secret_key : str or None
        A secret key of the Stripe account; without one, the endpoint is not checked.

    Yields
    ------
    Finding
        At least one for each check.
    """
    for check in CHECKS:
        yield from _findings(_name(check), partial(check, stack))
    if "WebhookUrl" not in stack.outputs:
        yield Finding("endpoint", "skipped", "the stack has no webhook")
    elif not secret_key:
        yield Finding("endpoint", "skipped", f"set {KEY_VARIABLE} to a secret key to check it")
    elif not is_key_of_mode(stack, secret_key):
        mode = stack.parameters["StripeMode"]
        found = f"{KEY_VARIABLE} is no {mode}-mode key"
        yield Finding("endpoint", "problem", found, f"set it to a {mode}-mode key")
    else:
        client = client_with_key(stack, secret_key)
        for account_check in ACCOUNT_CHECKS:
            yield from _findings(_name(account_check), partial(account_check, stack, client))


def _name(check: Callable[..., Findings]) -> str:
    return check.__name__.strip("_").replace("_", " ")


def _findings(name: str, check: Callable[[], Findings]) -> Findings:
    """Run a check; an error of AWS or Stripe is a finding too, and does not end the others."""
    try:
        yield from check()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        to_do = "allow it to your role" if "AccessDenied" in code else "see AWS's documentation"
        yield Finding(name, "problem", f"{error.operation_name}: {code}", to_do)
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        yield Finding(name, "problem", message, "correct this, and check again")


def _maintenance(stack: Stack) -> Findings:
    if stack.parameters["Closed"] == "true":
        yield Finding("maintenance", "problem", "the stack is closed", "deploy with Closed=false")
    else:
        yield Finding("maintenance", "ok", "the stack is open")


def _api_key(stack: Stack) -> Findings:
    key = SecretStore(stack).api_key()
    if key is None:
        found = f"no secret {stack.parameters['StripeApiKeyName']}"
        yield Finding("api key", "problem", found, "stripe-customers key set")
    else:
        yield from check_key(stack, key.strip())


def check_key(stack: Deployment, key: str) -> Findings:
    """Check the mode and the permissions of a restricted key, stored or not.

    Parameters
    ----------
    stack : Deployment
        The stack that has to use it.
    key : str
        The key.
    """
    mode = stack.parameters["StripeMode"]
    if not is_key_of_mode(stack, key):
        yield Finding("api key", "problem", f"is no {mode}-mode key", "stripe-customers key set")
    else:
        yield Finding("api key", "ok", f"a {mode}-mode key")
        yield from _permissions(stack, key)


def _needed_permissions(stack: Deployment, client: Any) -> dict[str, Callable[[], object]]:
    """The permissions that the restricted key needs, each with a call that needs it."""
    one: Any = {"limit": 1}
    customers = client.v1.customers
    needed: dict[str, Callable[[], object]] = {
        "read customers": lambda: customers.list(one),
        "write customers": lambda: customers.update(_NO_CUSTOMER, {"metadata": {}}),
        "read subscriptions": lambda: client.v1.subscriptions.list(one),
        "read events": lambda: client.v1.events.list(one),
        "read payment methods": lambda: customers.payment_methods.list(_NO_CUSTOMER, one),
        "read sources": lambda: customers.payment_sources.list(_NO_CUSTOMER, one),
    }
    stored = stack.parameters["StoredRecords"].split(",")
    if "TaxId" in stored:
        needed["read tax ids"] = lambda: customers.tax_ids.list(_NO_CUSTOMER, one)
    if "Entitlement" in stored:
        of_customer = {"customer": _NO_CUSTOMER, **one}
        entitlements = client.v1.entitlements.active_entitlements
        needed["read entitlements"] = lambda: entitlements.list(of_customer)
    return needed


def _permissions(stack: Deployment, key: str) -> Findings:
    """Ask Stripe for one object of each kind, and to change a customer that does not exist."""
    import stripe  # noqa: PLC0415 - half a second, which most commands don't need

    client = client_with_key(stack, key)
    for permission, ask in _needed_permissions(stack, client).items():
        try:
            ask()
        except stripe.AuthenticationError:
            yield Finding(
                "api key", "problem", "Stripe refuses the key", "stripe-customers key set"
            )
            return
        except stripe.PermissionError:
            to_do = "give the restricted key this permission, in Stripe's Dashboard"
            yield Finding("permission", "problem", f"the key may not {permission}", to_do)
            continue
        except stripe.InvalidRequestError:
            pass  # it may, and there is no such customer
        except stripe.StripeError as error:
            found = f"Stripe does not respond: {type(error).__name__}"
            yield Finding("stripe", "problem", found, "see https://status.stripe.com")
            return
        yield Finding("permission", "ok", f"the key may {permission}")


def _signing_secret(stack: Stack) -> Findings:
    if "WebhookUrl" not in stack.outputs:
        yield Finding("signing secret", "skipped", "the stack has no webhook")
        return
    secrets = SecretStore(stack).signing_secrets()
    to_do = "stripe-customers webhook create, or webhook roll"
    if not secrets:
        yield Finding("signing secret", "problem", "none is stored", to_do)
    elif not all(SIGNING_SECRET.fullmatch(each) for each in secrets):
        yield Finding("signing secret", "problem", "what is stored is not whsec_…", to_do)
    else:
        yield Finding("signing secret", "ok", f"{len(secrets)} stored")
        yield from _signed_request(stack, secrets[0])


def _signed_request(stack: Stack, secret: str) -> Findings:
    """Deliver a signed request without an event: only that is refused, and nothing is stored."""
    body, moment = "{}", int(time.time())
    digest = hmac.new(secret.encode(), f"{moment}.{body}".encode(), hashlib.sha256).hexdigest()
    event = http_event("POST", "/", {"stripe-signature": f"t={moment},v1={digest}"}, body)
    try:
        response = stack.invoke("LinkCustomer", event)
    except ClientError as error:
        if error.response["Error"]["Code"] != "TooManyRequestsException":
            raise
        yield Finding("webhook", "problem", "link_customer is throttled", "open the stack")
        return
    problem = str(json.loads(response.get("body") or "{}").get("type", ""))
    if problem.endswith(":malformed-request"):
        yield Finding("webhook", "ok", "a signed request is accepted by its signature")
    elif problem.endswith(":invalid-signature"):
        yield Finding("webhook", "problem", REFUSED_SIGNATURE, "wait five minutes, and check again")
    else:
        found = f"link_customer responds with {response.get('statusCode')} {problem}"
        yield Finding("webhook", "problem", found, "read its log")


def _table(stack: Stack) -> Findings:
    client, name = stack.client("dynamodb"), stack.outputs["TableName"]
    try:
        table = client.describe_table(TableName=name)["Table"]
    except client.exceptions.ResourceNotFoundException:
        to_do = "restore it: docs/operate.md#restoring-the-table"
        yield Finding("table", "problem", f"there is no table {name}", to_do)
        return
    indexes = {each["IndexName"] for each in table.get("GlobalSecondaryIndexes", ())}
    if missing := INDEXES - indexes:
        found = f"lacks the index {', '.join(sorted(missing))}"
        yield Finding("table", "problem", found, "deploy this release")
    else:
        yield Finding("table", "ok", "has its indexes")
    if table.get("StreamSpecification", {}).get("StreamEnabled"):
        yield Finding("stream", "ok", "is enabled")
    else:
        yield Finding("stream", "problem", "the table has no stream", "deploy this release")
    key = {"pk": {"S": "DEPLOYMENT"}, "sk": {"S": "NAME"}}
    stored = client.get_item(TableName=name, Key=key, ConsistentRead=True).get("Item")
    owner = stored["name"]["S"] if stored else None
    if owner in (None, stack.name):
        yield Finding("deployment name", "ok", "the table is this stack's")
    else:
        to_do = f"deploy a stack named {owner}, or use another table"
        yield Finding("deployment name", "problem", f"the table is that of {owner}", to_do)


def _stream_mapping(stack: Stack) -> Findings:
    mapping = stack.client("lambda").get_event_source_mapping(
        UUID=stack.resource("ApplyEventStoredEvents")
    )
    if mapping["State"] in ("Enabled", "Enabling", "Updating"):
        yield Finding("stream mapping", "ok", "apply_event is invoked")
    else:
        to_do = f"aws lambda update-event-source-mapping --enabled --uuid {mapping['UUID']}"
        yield Finding("stream mapping", "problem", f"is {mapping['State'].lower()}", to_do)


def _schedule(stack: Stack) -> Findings:
    name = stack.resource("ReconcileEventsSchedule")
    state = stack.client("events").describe_rule(Name=name)["State"]
    if state == "ENABLED":
        yield Finding("schedule", "ok", "reconcile_events is invoked")
    else:
        yield Finding("schedule", "problem", "is disabled", f"aws events enable-rule --name {name}")


def _event_source(stack: Stack) -> Findings:
    if stack.parameters["WebhookIngress"] != "eventbridge":
        return
    source, events = stack.parameters["StripeEventSource"], stack.client("events")
    state = events.describe_event_source(Name=source)["State"]
    if state == "PENDING":
        to_do = f"aws events create-event-bus --name {source} --event-source-name {source}"
        yield Finding("event source", "problem", f"{source} has no event bus", to_do)
        return
    if state != "ACTIVE":
        to_do = "create an event destination on Stripe, as docs/deploy.md describes"
        yield Finding("event source", "problem", f"{source} was deleted on Stripe", to_do)
        return
    # A rule of a bus that is not the account's own has the bus in its id.
    rule = stack.resource("StripeEventsRule").rpartition("|")[2]
    if events.describe_rule(Name=rule, EventBusName=source)["State"] == "ENABLED":
        yield Finding("event source", "ok", "link_customer is invoked for its events")
    else:
        to_do = f"aws events enable-rule --name {rule} --event-bus-name {source}"
        yield Finding("event source", "problem", "its rule is disabled", to_do)


def _endpoint(stack: Stack, client: Any) -> Findings:
    endpoints = endpoints_of(stack, client)
    needed = current(endpoints)
    if len(needed) > 1:
        to_do = "stripe-customers webhook delete"
        yield Finding("endpoint", "problem", several(needed), to_do)
    if not needed:
        found = f"none has the stack's URL and the version {API_VERSION}"
        yield Finding("endpoint", "problem", found, "stripe-customers webhook create")
    for row in (endpoint_row(stack, each) for each in endpoints):
        if row["problem"]:
            found, _, to_do = row["problem"].partition(": ")
            yield Finding("endpoint", "problem", f"{row['endpoint']} {found}", to_do)
        else:
            yield Finding("endpoint", "ok", row["endpoint"])


def _deliveries(stack: Stack, client: Any) -> Findings:
    """Find events that Stripe has not been able to deliver to the stack's endpoint.

    Stripe says of an event only how many destinations of the account have not accepted it. The
    stack's is one of them if the table lacks the event, or has it from Stripe's list of events:
    then that number has not become smaller since the event was stored.
    """
    ours = [each for each in endpoints_of(stack, client) if each.status == "enabled"]
    if not ours:
        return
    failed = []
    with stack.in_process():
        for event in islice(_undelivered(stack, client, ours), _DELIVERIES):
            known = StripeEvent.get(event.id)
            if known is None or event.pending_webhooks >= (known.pending_webhooks or 0):
                failed.append(event.id)
    if failed:
        found = f"undelivered events of the last day: {len(failed)}, such as {failed[0]}"
        to_do = (
            "read the responses in Stripe's Dashboard; for 400, the stored signing secret is not "
            "the endpoint's: stripe-customers webhook roll"
        )
        yield Finding("deliveries", "problem", found, to_do)
    else:
        yield Finding("deliveries", "ok", "Stripe has delivered the events of the last day")


def _undelivered(stack: Stack, client: Any, endpoints: list[Any]) -> Iterator[Any]:
    """Events since there is an endpoint that some destination of the account has not accepted."""
    now = int(time.time())
    begin = max(now - _DELIVERIES_SECONDS, min(each.created for each in endpoints))
    needed = sorted(needed_types(stack) - {"*"})
    for first in range(0, len(needed), _TYPES):
        listed = client.v1.events.list(
            {
                "delivery_success": False,
                "types": needed[first : first + _TYPES],
                "created": {"gte": begin, "lte": now - _DELIVERY_SECONDS},
                "limit": 100,
            }
        )
        yield from listed.auto_paging_iter()


def _account(stack: Stack, client: Any) -> Findings:
    """Read the account's newest event with the stack's key, which another account's can't."""
    import stripe  # noqa: PLC0415 - half a second, which most commands don't need

    key = SecretStore(stack).api_key()
    newest = client.v1.events.list({"limit": 1}).data
    if key is None or not newest:
        return
    try:
        client_with_key(stack, key.strip()).v1.events.retrieve(newest[0].id)
    except stripe.InvalidRequestError:
        found = "the stored key is of another account than the secret key"
        yield Finding("account", "problem", found, "stripe-customers key set")
    except stripe.StripeError:
        return  # the checks of the stored key say so
    else:
        yield Finding("account", "ok", "the stored key and the secret key are of one account")


def _clock(stack: Stack) -> Findings:
    response = stack.client("cloudformation").describe_stacks(StackName=stack.name)
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    if date is None:
        yield Finding("clock", "skipped", "the response of AWS has no date")
        return
    seconds = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(seconds) < _CLOCK_SECONDS:
        yield Finding("clock", "ok", "this machine's is within a minute of AWS's")
    else:
        found = f"this machine's differs by {seconds:.0f} s from AWS's"
        yield Finding("clock", "problem", found, "set it: signatures depend on it")


def _events(stack: Stack) -> Findings:
    with stack.in_process():
        failed = len(list(StripeEvent.find(state="failed")))
    if failed:
        yield Finding(
            "events", "problem", f"{failed} have failed", "stripe-customers events failed"
        )
    else:
        yield Finding("events", "ok", "none has failed")


def _dead_letters(stack: Stack) -> Findings:
    attributes = stack.client("sqs").get_queue_attributes(
        QueueUrl=stack.outputs["DeadLettersUrl"], AttributeNames=[_MESSAGES]
    )["Attributes"]
    if int(attributes[_MESSAGES]):
        found = f"messages in the queue: {attributes[_MESSAGES]}"
        to_do = "stripe-customers events dead-letters; see docs/operate.md#dead-letters"
        yield Finding("dead letters", "problem", found, to_do)
    else:
        yield Finding("dead letters", "ok", "the queue is empty")


def _alarms(stack: Stack) -> Findings:
    # The prefix of their names would also select the alarms of another stack, with a longer name.
    resources = stack.client("cloudformation").get_paginator("list_stack_resources")
    names = {
        resource["PhysicalResourceId"]: resource["LogicalResourceId"]
        for page in resources.paginate(StackName=stack.name)
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::CloudWatch::Alarm"
    }
    alarms = stack.client("cloudwatch").get_paginator("describe_alarms")
    found = [
        alarm["AlarmName"]
        for page in alarms.paginate(AlarmNames=list(names), StateValue="ALARM")
        for alarm in page["MetricAlarms"]
    ]
    for name in found:
        if names[name] == "ReconcileEventsStopped" and stack.age < _FIRST_RUN_SECONDS:
            yield Finding("alarms", "skipped", f"{name} is in alarm until the schedule has run")
        else:
            to_do = "see docs/operate.md#alarms"
            yield Finding("alarms", "problem", f"{name} is in alarm", to_do)
    if not found:
        yield Finding("alarms", "ok", "none is in alarm")


CHECKS = (
    _maintenance,
    _api_key,
    _signing_secret,
    _table,
    _stream_mapping,
    _schedule,
    _event_source,
    _clock,
    _events,
    _dead_letters,
    _alarms,
)
"""The checks with the operator's AWS credentials, in the order of their findings."""
ACCOUNT_CHECKS = (_endpoint, _deliveries, _account)
"""Those that also take a secret key of the Stripe account."""
