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
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from stripe_integrations.actions import StripeEvent
from stripe_integrations.config import API_VERSION, SIGNING_SECRET
from stripe_integrations_cli.api import http_event
from stripe_integrations_cli.errors import ExitCode
from stripe_integrations_cli.secret_store import SecretStore
from stripe_integrations_cli.session import Session, explained
from stripe_integrations_cli.stack import Stack
from stripe_integrations_cli.stripe_account import (
    KEY_VARIABLE,
    client_with_key,
    is_key_of_mode,
    stripe_client,
)
from stripe_integrations_cli.webhook import endpoint_rows

INDEXES = {"by_customer", "by_created", "by_queue"}
_CLOCK_SECONDS = 60
"""Stripe's signatures are valid for five minutes; a clock that differs by one is wrong."""
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
    """Check a stack: secrets, key, table, stream, schedule, webhook, clock, alarms.

    It changes nothing. With a secret key in STRIPE_API_KEY, it checks the webhook endpoint at
    Stripe too. It exits with 1 if it finds a problem.
    """
    findings = [each for check in CHECKS for each in _findings(session.stack, check)]
    shown = [each for each in findings if all_checks or each.result != "ok"]
    session.output.rows(("check", "result", "found", "to_do"), map(asdict, shown))
    problems = sum(each.result == "problem" for each in findings)
    done = sum(each.result != "skipped" for each in findings)
    session.output.say(f"{done} checks, {problems} problems")
    if problems:
        raise typer.Exit(ExitCode.FAILED)


def _findings(stack: Stack, check: Callable[[Stack], Findings]) -> Findings:
    """Run a check; an error of AWS or Stripe is a finding too, and does not end the others."""
    name = check.__name__.strip("_").replace("_", " ")
    try:
        yield from check(stack)
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
    name, mode = stack.parameters["StripeApiKeyName"], stack.parameters["StripeMode"]
    if key is None:
        yield Finding("api key", "problem", f"no secret {name}", "stripe-customers key set")
    elif not is_key_of_mode(stack, key.strip()):
        yield Finding("api key", "problem", f"is no {mode}-mode key", "stripe-customers key set")
    else:
        yield Finding("api key", "ok", f"a {mode}-mode key")
        yield from _permissions(stack, key.strip())


def _permissions(stack: Stack, key: str) -> Findings:
    """Ask Stripe for one object of each kind, and to change a customer that does not exist."""
    import stripe  # noqa: PLC0415 - half a second, which most commands don't need

    client = client_with_key(stack, key)
    one: Any = {"limit": 1}
    needed: dict[str, Callable[[], object]] = {
        "read customers": lambda: client.v1.customers.list(one),
        "write customers": lambda: client.v1.customers.update(_NO_CUSTOMER, {"metadata": {}}),
        "read subscriptions": lambda: client.v1.subscriptions.list(one),
        "read events": lambda: client.v1.events.list(one),
        "read payment methods": lambda: client.v1.customers.payment_methods.list(_NO_CUSTOMER, one),
    }
    for permission, ask in needed.items():
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
        found = "link_customer refuses the stored secret, or its clock differs"
        yield Finding("webhook", "problem", found, "wait five minutes, and check again")
    else:
        found = f"link_customer responds with {response.get('statusCode')} {problem}"
        yield Finding("webhook", "problem", found, "read its log")


def _table(stack: Stack) -> Findings:
    client, name = stack.client("dynamodb"), stack.outputs["TableName"]
    table = client.describe_table(TableName=name)["Table"]
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


def _endpoint(stack: Stack) -> Findings:
    if "WebhookUrl" not in stack.outputs:
        yield Finding("endpoint", "skipped", "the stack has no webhook")
        return
    if not os.environ.get(KEY_VARIABLE):
        yield Finding("endpoint", "skipped", f"set {KEY_VARIABLE} to a secret key to check it")
        return
    rows = endpoint_rows(stack, stripe_client(stack))
    if not any(row["api_version"] == API_VERSION for row in rows):
        found = f"none has the stack's URL and the version {API_VERSION}"
        yield Finding("endpoint", "problem", found, "stripe-customers webhook create")
    for row in rows:
        if row["problem"]:
            found, _, to_do = row["problem"].partition(": ")
            yield Finding("endpoint", "problem", f"{row['endpoint']} {found}", to_do)
        else:
            yield Finding("endpoint", "ok", row["endpoint"])


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


def _alarms(stack: Stack) -> Findings:
    # The prefix of their names would also select the alarms of another stack, with a longer name.
    resources = stack.client("cloudformation").get_paginator("list_stack_resources")
    names = [
        resource["PhysicalResourceId"]
        for page in resources.paginate(StackName=stack.name)
        for resource in page["StackResourceSummaries"]
        if resource["ResourceType"] == "AWS::CloudWatch::Alarm"
    ]
    alarms = stack.client("cloudwatch").get_paginator("describe_alarms")
    found = [
        alarm["AlarmName"]
        for page in alarms.paginate(AlarmNames=names, StateValue="ALARM")
        for alarm in page["MetricAlarms"]
    ]
    for name in found:
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
    _endpoint,
    _clock,
    _events,
    _alarms,
)
"""The checks, in the order of their findings."""
