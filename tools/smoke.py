"""``make smoke STACK=…``: call a deployed stack as its callers do, and check the responses.

    python -m tools.smoke --stack stripe-customers-dev

Credentials and region are configured as for the AWS CLI; they must be allowed to read the stack,
its table and its signing secret, and to invoke the API. With CustomersAuthorizer=jwt, the
variable TOKEN is a JWT with the admin scope. Customers are created on Stripe, and soft-deleted at
the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import boto3
from boto3.dynamodb.conditions import Key
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from local.stripe_double import sign
from stripe_integrations.adapters.secrets import webhook_secrets
from stripe_integrations.config import API_VERSION, Settings
from stripe_integrations.errors import StripeIntegrationsError

Json = dict[str, Any]

EVENT_SECONDS = 60
"""How long Stripe's event of a new customer may take until it is applied."""
CHANGE_SECONDS = 120
"""How long a changed parameter may take until it has an effect."""
REQUEST_SECONDS = 60

EMAIL = "smoke@example.com"
IDS_IN_QUERIES = ("a+b@example.com", "50%", "ü", "a?b", "a/b", "a&b=c")
"""Suffixes of user ids with characters that URL decoding or request signing may alter."""

ONLY_ON_AWS = (
    "that API Gateway refuses a request without a signature, or with a wrong one",
    "how API Gateway decodes a path before the function gets it",
    "that the roles and the key policies allow what the functions do",
    "that the table is encrypted with the key that the stack has",
    "that a closed stack refuses requests: an emulator may have no reserved concurrency",
    "that Stripe itself reaches the webhook",
)
"""What can't be checked on an emulator of AWS."""
NEVER_CHECKED = (
    "that an alarm notifies its topic: set one with `aws cloudwatch set-alarm-state`",
    "a canary deployment and its rollback",
)


class SmokeTestError(Exception):
    """The stack did not respond as it should."""


@dataclass(frozen=True)
class Response:
    """The response to an HTTP request; `body` is decoded if it is JSON."""

    status: int
    body: Any


@dataclass
class Stack:
    """A deployed stack.

    Parameters
    ----------
    name : str
        Its name.
    api_url, webhook_url : str, optional
        Addresses to use in place of the stack's outputs, for an emulator.
    """

    name: str
    api_url: str = ""
    webhook_url: str = ""
    session: boto3.Session = field(default_factory=boto3.Session)

    def __post_init__(self) -> None:
        described = self.session.client("cloudformation").describe_stacks(StackName=self.name)
        found = described["Stacks"][0]
        self.parameters = {
            p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])
        }
        self.outputs = {o["OutputKey"]: o["OutputValue"] for o in found["Outputs"]}
        self.api_url = (self.api_url or self.outputs["ApiUrl"]).rstrip("/")
        self.webhook_url = self.webhook_url or self.outputs.get("WebhookUrl", "")

    @property
    def is_emulated(self) -> bool:
        """Whether it is deployed to an emulator of AWS."""
        return bool(os.environ.get("AWS_ENDPOINT_URL"))

    @cached_property
    def table(self) -> Any:
        """The table, as a boto3 resource."""
        return self.session.resource("dynamodb").Table(self.outputs["TableName"])

    @cached_property
    def credentials(self) -> Credentials:
        """The caller's credentials."""
        found = self.session.get_credentials()
        if found is None:
            raise SmokeTestError("there are no AWS credentials")
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def background_states(self) -> tuple[str, ...]:
        """Return the states of the stream's mapping, the schedule's rule and Stripe's, if any."""
        client = self.session.client("cloudformation")
        pages = client.get_paginator("list_stack_resources").paginate(StackName=self.name)
        ids = {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for page in pages
            for resource in page["StackResourceSummaries"]
        }
        mapping = self.session.client("lambda").get_event_source_mapping(
            UUID=ids["ApplyEventStoredEvents"]
        )
        events = self.session.client("events")
        schedule = events.describe_rule(Name=ids["ReconcileEventsSchedule"])
        states = (mapping["State"], schedule["State"])
        if "StripeEventsRule" not in ids:
            return states
        # The id of a rule on another bus than the default is BUS|RULE.
        rule = ids["StripeEventsRule"].rpartition("|")[2]
        bus = self.parameters["StripeEventSource"]
        return (*states, events.describe_rule(Name=rule, EventBusName=bus)["State"])

    def signing_secret(self) -> str:
        """The first of the webhook's signing secrets."""
        name = self.parameters["StripeWebhookSecretName"]
        is_ssm = self.parameters["SecretStore"] == "ssm"
        reference = f"ssm:/{name}" if is_ssm else f"secretsmanager:{name}"
        settings = Settings(table_name=self.outputs["TableName"], webhook_secret_name=reference)
        return webhook_secrets(settings)[0]

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        credentials: Credentials | None = None,
    ) -> Response:
        """Call the API with a token, if there is one, or with a signature.

        Parameters
        ----------
        method, path : str
        body : object, optional
            Sent as JSON.
        credentials : Credentials, optional
            Credentials to sign with in place of the caller's.
        """
        data = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(
            method, self.api_url + path, {"Content-Type": "application/json"}, data
        )
        token = os.environ.get("TOKEN")
        if token and credentials is None:
            request.headers["Authorization"] = f"Bearer {token}"
        else:
            region = self.session.region_name
            signer = SigV4Auth(credentials or self.credentials, "execute-api", region)
            signer.add_auth(request)
        return send(request)

    def deliver(self, event: Json, secret: str, seconds_ago: float = 0) -> Response:
        """POST an event to the webhook, signed with a secret."""
        body = json.dumps(event).encode()
        signature = sign(body, secret, time.time() - seconds_ago)
        headers = {"Content-Type": "application/json", "Stripe-Signature": signature}
        return send(AWSRequest("POST", self.webhook_url, headers, body))

    def update(self, **parameters: str) -> None:
        """Begin to change parameters of the stack."""
        self.session.client("cloudformation").update_stack(
            StackName=self.name,
            UsePreviousTemplate=True,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": parameters[name]}
                if name in parameters
                else {"ParameterKey": name, "UsePreviousValue": True}
                for name in self.parameters
            ],
        )

    def wait_for_update(self) -> None:
        """Wait until no update of the stack is in progress."""
        waiter = self.session.client("cloudformation").get_waiter("stack_update_complete")
        waiter.wait(StackName=self.name, WaiterConfig={"Delay": 5, "MaxAttempts": 240})


def send(request: AWSRequest) -> Response:
    """Send a request and return its response, whatever its status."""
    proxies = get_environ_proxies(request.url)
    response = URLLib3Session(timeout=REQUEST_SECONDS, proxies=proxies).send(request.prepare())
    text = response.content.decode("utf-8", "replace")
    try:
        return Response(response.status_code, json.loads(text))
    except ValueError:
        return Response(response.status_code, text)


class Run:
    """One run: the checks, and what they have found."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.failed = 0
        self.passed = 0
        self.name = f"smoke-{token_hex(4)}"
        self._created: set[str] = set()

    @contextmanager
    def check(self, title: str) -> Iterator[None]:
        """Print whether the block succeeds; the run continues in either case."""
        try:
            yield
        except (
            SmokeTestError,
            StripeIntegrationsError,
            BotoCoreError,
            ClientError,
        ) as error:
            self.failed += 1
            print(f"FAILED   {title}: {error}", flush=True)
        else:
            self.passed += 1
            print(f"ok       {title}", flush=True)

    def run_all(self, *, closes_stack: bool) -> None:
        """Run all checks; with `closes_stack`, the stack is also closed and opened again."""
        try:
            self._routes_by_path()
            for end in IDS_IN_QUERIES:
                self._routes_by_query(f"{self.name}-{end}")
            self._ids_that_are_refused()
            self._callers_that_are_refused()
            self._webhook()
            self._encryption()
            if closes_stack:
                self._closed()
            else:
                print("not run  closing and reopening: pass --close")
        finally:
            self._soft_delete_what_is_left()

    # ---- API

    def _routes_by_path(self) -> None:
        user_id = f"{self.name}@example.com"
        path = f"/customers/{user_id}"
        stripe_id = None
        with self.check(f"every route, with the id {user_id!r} in the path"):
            stripe_id = self._create(user_id)
            self._expect(self._call("GET", path), 200, stripe_id)
            self._update(path, stripe_id)
            self._expect(self._call("POST", f"{path}/sync"), 200, stripe_id)
            self._expect(self._call("PUT", path, {"stripe_id": stripe_id}), 200, stripe_id)
        if self.stack.parameters.get("WebhookIngress") == "none":
            print("not run  Stripe's event of the new customer: WebhookIngress is none")
        else:
            with self.check("Stripe's event of the new customer is applied"):
                if stripe_id is None:
                    raise SmokeTestError("it was not created")
                self._wait_for_event(stripe_id)
        with self.check("a soft delete, after which the customer is not found"):
            self._expect(self._call("DELETE", path), 204)
            self._created.discard(user_id)
            self._expect(self._call("GET", path), 404)

    def _routes_by_query(self, user_id: str) -> None:
        query = f"?user_id={quote(user_id, safe='')}"
        with self.check(f"every route, with the id {user_id!r} in the query"):
            stripe_id = self._create(user_id)
            self._expect(self._call("GET", f"/customers{query}"), 200, stripe_id)
            self._update(f"/customers{query}", stripe_id)
            self._expect(self._call("POST", f"/customers/sync{query}"), 200, stripe_id)
            adoption = {"stripe_id": stripe_id}
            self._expect(self._call("PUT", f"/customers{query}", adoption), 200, stripe_id)
            self._expect(self._call("DELETE", f"/customers{query}"), 204)
            self._created.discard(user_id)
            self._expect(self._call("GET", f"/customers{query}"), 404)

    def _ids_that_are_refused(self) -> None:
        """Check that an id in a path never reaches the customer of another user."""
        user_id = self.name
        with self.check("an id in a path with other characters is refused"):
            stripe_id = self._create(user_id)
            for end in ("%3Fb", "%253Fb", "%23", "%2F..%2Fb", "+b", "%00", "%20"):
                response = self._call("GET", f"/customers/{user_id}{end}")
                if not 400 <= response.status < 500:
                    raise SmokeTestError(f"{end}: {response.status} instead of 4xx")
            self._expect(self._call("GET", f"/customers/{user_id}"), 200, stripe_id)

    def _callers_that_are_refused(self) -> None:
        if self.stack.is_emulated:
            return
        other = Credentials(self.stack.credentials.access_key, "0" * 40)
        path = f"/customers/{self.name}"
        with self.check("a request with a wrong signature is refused"):
            self._expect_one_of(self.stack.call("GET", path, credentials=other), 401, 403)
        with self.check("a request without a signature is refused"):
            self._expect_one_of(send(AWSRequest("GET", self.stack.api_url + path)), 401, 403)

    # ---- webhook

    def _webhook(self) -> None:
        if not self.stack.webhook_url:
            print("not run  signed and forged events: the stack has no URL for them")
            return
        event = {
            "id": f"evt_{self.name.replace('-', '')}",
            "object": "event",
            "type": "stripe_integrations.smoke_test",
            "api_version": API_VERSION,
            "created": int(time.time()),
            # Of the other mode: whatever types are handled or published, it is ignored.
            "livemode": self.stack.parameters["StripeMode"] != "live",
            "data": {"object": {}},
        }
        with self.check("an event with a forged signature is refused"):
            self._expect(self.stack.deliver(event, f"whsec_{token_hex(16)}"), 400)
        with self.check("an event with an old signature is refused"):
            secret = self.stack.signing_secret()
            self._expect(self.stack.deliver(event, secret, seconds_ago=3600), 400)
        with self.check("a signed event is stored"):
            self._expect(self.stack.deliver(event, self.stack.signing_secret()), 200)
            stored = self._event(event["id"])
            if stored.get("state") != "ignored":
                raise SmokeTestError(f"its state is {stored.get('state')} instead of ignored")

    def _wait_for_event(self, stripe_id: str) -> None:
        """Wait until an event that names a customer is applied."""

        def states() -> list[str]:
            found = self.stack.table.query(
                IndexName="by_customer", KeyConditionExpression=Key("customer_id").eq(stripe_id)
            )
            ids = [item["pk"].removeprefix("EVENT#") for item in found["Items"]]
            return [self._event(event_id).get("state", "missing") for event_id in ids]

        self._wait(lambda: "applied" in states(), EVENT_SECONDS, lambda: f"events: {states()}")

    def _event(self, stripe_id: str) -> Json:
        key = {"pk": f"EVENT#{stripe_id}", "sk": "EVENT"}
        item: Json = self.stack.table.get_item(Key=key, ConsistentRead=True).get("Item", {})
        return item

    # ---- stack

    def _encryption(self) -> None:
        key = self.stack.parameters.get("KmsKeyArn")
        if not key:
            print("not run  encryption with a KMS key: the stack has no KmsKeyArn")
            return
        with self.check("table and dead-letter queue are encrypted with the KMS key"):
            table = self.stack.table.meta.client.describe_table(TableName=self.stack.table.name)
            queue = self.stack.session.client("sqs").get_queue_attributes(
                QueueUrl=self.stack.outputs["DeadLettersUrl"], AttributeNames=["KmsMasterKeyId"]
            )
            found = {"queue": queue.get("Attributes", {}).get("KmsMasterKeyId")}
            if not self.stack.is_emulated:
                found["table"] = table["Table"].get("SSEDescription", {}).get("KMSMasterKeyArn")
            if set(found.values()) != {key}:
                raise SmokeTestError(f"{found} instead of {key}")

    def _closed(self) -> None:
        path = f"/customers/{self.name}"
        try:
            with self.check("a closed stack refuses requests and applies no events"):
                self.stack.update(Closed="true")
                self.stack.wait_for_update()
                self._wait_for_states("Disabled", "DISABLED")
                if not self.stack.is_emulated:
                    self._wait_for_status(path, 429, 503)
                    if self.stack.webhook_url:
                        response = self.stack.deliver({}, self.stack.signing_secret())
                        self._expect_one_of(response, 429, 503)
        finally:
            with self.check("a reopened stack accepts requests and applies events"):
                self.stack.wait_for_update()
                self.stack.update(Closed="false")
                self.stack.wait_for_update()
                self._wait_for_states("Enabled", "ENABLED")
                self._wait_for_status(path, 200)

    def _wait_for_states(self, of_mapping: str, of_rules: str) -> None:
        """Wait for the states of the stream's mapping and of the rules."""

        def are_reached() -> bool:
            mapping, *rules = self.stack.background_states()
            return mapping == of_mapping and set(rules) == {of_rules}

        self._wait(
            are_reached,
            CHANGE_SECONDS,
            lambda: f"mapping and rules are {', '.join(self.stack.background_states())}",
        )

    def _wait_for_status(self, path: str, *statuses: int) -> None:
        self._wait(
            lambda: self._call("GET", path).status in statuses,
            CHANGE_SECONDS,
            lambda: f"the API responds {self._call('GET', path).status}",
        )

    # ---- helpers

    def _create(self, user_id: str) -> str:
        """Create a user's customer twice, and return its one Stripe id."""
        body = {"user_id": user_id, "billing_email": EMAIL}
        created = self._call("POST", "/customers", body)
        self._created.add(user_id)
        self._expect(created, 201)
        stripe_id: str = created.body["stripe_id"]
        self._expect(self._call("POST", "/customers", body), 200, stripe_id)
        return stripe_id

    def _update(self, path: str, stripe_id: str) -> None:
        """Set a field of a customer, and clear it again."""
        for value in (self.name, None):
            updated = self._call("PATCH", path, {"description": value})
            self._expect(updated, 200, stripe_id)
            if updated.body["description"] != value:
                raise SmokeTestError("the update returned another description")

    def _soft_delete_what_is_left(self) -> None:
        for user_id in sorted(self._created):
            with self.check(f"the customer of {user_id!r} is soft-deleted"):
                query = f"?user_id={quote(user_id, safe='')}"
                self._expect_one_of(self._call("DELETE", f"/customers{query}"), 204, 404)

    def _call(self, method: str, path: str, body: object = None) -> Response:
        return self.stack.call(method, path, body)

    def _expect(self, response: Response, status: int, stripe_id: str | None = None) -> None:
        self._expect_one_of(response, status)
        if stripe_id is not None:
            found = response.body.get("stripe_id") if isinstance(response.body, dict) else None
            if found != stripe_id:
                raise SmokeTestError(f"{found} instead of {stripe_id}")

    def _expect_one_of(self, response: Response, *statuses: int) -> None:
        if response.status not in statuses:
            expected = " or ".join(map(str, statuses))
            raise SmokeTestError(f"{response.status} instead of {expected}: {response.body}")

    def _wait(
        self, is_true: Callable[[], bool], seconds: float, describe: Callable[[], str]
    ) -> None:
        deadline = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > deadline:
                raise SmokeTestError(f"{describe()}, after {seconds:.0f} s")
            time.sleep(1)


def refusal(parameters: Mapping[str, str], *, is_live_allowed: bool) -> str | None:
    """Return why a stack with these parameters may not be checked; None if it may."""
    if parameters["Closed"] == "true":
        return "the stack is closed for maintenance"
    if parameters["StripeMode"] == "live" and not is_live_allowed:
        return "the stack is in live mode: pass --live to create customers there"
    return None


def main() -> int:
    """Run the checks against the stack that the command line names; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.smoke", description="Check a deployed stack by calling it."
    )
    parser.add_argument("--stack", required=True, help="name of the CloudFormation stack")
    parser.add_argument("--api-url", default="", help="base URL of the API, if not the output's")
    parser.add_argument("--webhook-url", default="", help="URL of the webhook, if not the output's")
    parser.add_argument(
        "--live", action="store_true", help="allow customers to be created in live mode"
    )
    parser.add_argument(
        "--close", action="store_true", help="also close the stack, and open it again"
    )
    options = parser.parse_args()
    try:
        stack = Stack(options.stack, options.api_url, options.webhook_url)
        reason = refusal(stack.parameters, is_live_allowed=options.live)
        if reason:
            print(reason, file=sys.stderr)
            return 1
        run = Run(stack)
        run.run_all(closes_stack=options.close)
    except (SmokeTestError, BotoCoreError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\nNot checked by this run:")
    for what in (*(ONLY_ON_AWS if stack.is_emulated else ()), *NEVER_CHECKED):
        print(f"- {what}")
    print(f"\n{run.passed} passed, {run.failed} failed")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
